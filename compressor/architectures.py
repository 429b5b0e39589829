"""The architectures that can be exported, and what each calls the parts that all of them have.

Layer names in bundles are BERT's whatever the architecture ("encoder.layer.0.attention.self.query"); here
they are translated to the modules of a Hugging Face model. Names only: nothing here loads torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressor.layer_weights import ROLES

_BERT_NORMS = {"attention_norm": "attention.output.LayerNorm", "output_norm": "output.LayerNorm"}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Names within one kind of post-norm encoder model.

    Parameters
    ----------
    name : str
        ``model_type`` of the config.
    model_classes : tuple of str
        Classes of transformers that a bundle may name in ``config.architectures``.
    layers : str
        Path of the list of encoder layers, relative to the base model.
    linears, norms : dict of str to str
        Paths inside an encoder layer: of the linear layers by role, and of "attention_norm" and
        "output_norm".
    pooler, classifier : str
        Paths of the classifier's two linear layers; the pooler of BERT lies within the base model.
    pooler_activation : str
        "tanh" or "relu".
    activation : str
        Config key that names the activation function of the feed-forward layers.
    renamed : tuple of (str, str)
        BERT's name of a config key, and this architecture's; configs of bundles have BERT's.
    inputs : tuple of str
        What the tokenizer gives the model.
    token_types : bool
        Whether there are token type embeddings.
    positions_follow_padding : bool
        Positions count from ``pad_token_id + 1``, and padding has position ``pad_token_id``.
    """

    name: str
    model_classes: tuple[str, ...]
    layers: str
    linears: dict[str, str]
    norms: dict[str, str]
    pooler: str
    classifier: str
    pooler_activation: str
    activation: str = "hidden_act"
    renamed: tuple[tuple[str, str], ...] = ()
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    token_types: bool = True
    positions_follow_padding: bool = False

    def module_path(self, name: str) -> str:
        """Path of the linear layer that a bundle calls ``name``, relative to the base model.

        >>> ARCHITECTURES["distilbert"].module_path("encoder.layer.3.intermediate.dense")
        'transformer.layer.3.ffn.lin1'
        """
        _, _, index, path = name.split(".", 3)
        role = next(role for role, known in ROLES.items() if known == path)
        return f"{self.layers}.{index}.{self.linears[role]}"

    def positions(self, config: Mapping[str, Any]) -> int:
        """Longest sentence, in tokens, that the position embeddings of a config allow."""
        skipped = config["pad_token_id"] + 1 if self.positions_follow_padding else 0
        return int(config["max_position_embeddings"] - skipped)

    def plain_config(self, config: Any) -> dict[str, Any]:
        """A Hugging Face config as plain values with BERT's names; its ``from_dict`` takes both."""
        values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
        values.pop("_name_or_path", None)  # where the directory lay is no property of the model
        return values | {known: values.pop(own) for known, own in self.renamed}


ARCHITECTURES = {one.name: one for one in (
    Architecture(
        name="bert",
        model_classes=("BertForSequenceClassification", "BertForQuestionAnswering", "BertModel"),
        layers="encoder.layer", linears=ROLES, norms=_BERT_NORMS,
        pooler="pooler.dense", classifier="classifier", pooler_activation="tanh",
        inputs=("input_ids", "token_type_ids", "attention_mask")),
    Architecture(
        name="roberta", model_classes=("RobertaForSequenceClassification",),
        layers="encoder.layer", linears=ROLES, norms=_BERT_NORMS,
        pooler="classifier.dense", classifier="classifier.out_proj", pooler_activation="tanh",
        positions_follow_padding=True),
    Architecture(
        name="distilbert", model_classes=("DistilBertForSequenceClassification",),
        layers="transformer.layer",
        linears={"q": "attention.q_lin", "k": "attention.k_lin", "v": "attention.v_lin",
                 "o": "attention.out_lin", "ffn1": "ffn.lin1", "ffn2": "ffn.lin2"},
        norms={"attention_norm": "sa_layer_norm", "output_norm": "output_layer_norm"},
        pooler="pre_classifier", classifier="classifier", pooler_activation="relu",
        activation="activation", token_types=False,
        renamed=(("hidden_size", "dim"), ("num_hidden_layers", "n_layers"),
                 ("num_attention_heads", "n_heads"))),
)}
"""By ``model_type``."""
