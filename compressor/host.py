"""What the host computes in float around the integer encoder: embeddings before, pooler and classifier after.

NumPy only and one definition, used for the golden model and for the hardware alike, so that both start
from the same integers. Compared with transformers within float32 rounding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.architectures import ARCHITECTURES, Architecture
from compressor.quantization import quantize


def layer_norm(x, weight, bias, epsilon):
    """LayerNorm over the last axis in float64.

    >>> layer_norm(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), 0.0).tolist()
    [[-1.0, 1.0]]
    """
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centered).mean(axis=-1, keepdims=True)
    return centered / np.sqrt(variance + epsilon) * weight + bias


_POOLER_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0.0)}

DISTILBERT_EPSILON = 1e-12
"""DistilBERT has it in the code, not in the config."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BertHost:
    """Embeddings, pooler and classifier of a BERT, RoBERTa or DistilBERT classifier.

    Parameters
    ----------
    architecture : Architecture
    parameters : dict of str to float array
        The model's parameters outside the encoder layers, named as in its state dict without the prefix
        ("bert.") of the base model: "embeddings.word_embeddings.weight", "pooler.dense.weight",
        "classifier.bias", ...
    padding_id : int
        ``pad_token_id`` of the config.
    epsilon : float
        ``layer_norm_eps`` of the config.
    input_steps, output_steps : float64 arrays, shape (hidden,)
        Real value of activation 1 of each channel of the encoder's input and output.

    Raises
    ------
    ValueError
        If a parameter is missing.
    """

    architecture: Architecture
    parameters: dict
    padding_id: int
    epsilon: float
    input_steps: np.ndarray
    output_steps: np.ndarray

    def __post_init__(self):
        types = ("token_type_embeddings.weight",) if self.architecture.token_types else ()
        for name in ("word_embeddings.weight", "position_embeddings.weight", *types,
                     "LayerNorm.weight", "LayerNorm.bias"):
            if f"embeddings.{name}" not in self.parameters:
                raise ValueError(f"embeddings.{name} is missing from the host's parameters")

    @classmethod
    def from_state_dict(cls, state_dict, *, config, encoder_input, encoder_output):
        """Host part of a state dict of tensors or arrays.

        ``config`` is a Hugging Face config as a dict; ``encoder_input`` and ``encoder_output`` are
        :class:`compressor.encoder_scales.ActivationScales`. Encoder layers are left out.
        """
        architecture = ARCHITECTURES[config["model_type"]]
        plain = {name.removeprefix(f"{architecture.name}."): value for name, value in state_dict.items()}
        parameters = {name: np.asarray(value, np.float64) for name, value in plain.items()
                      if not name.startswith(f"{architecture.layers}.")
                      and not name.endswith("position_ids")}
        return cls(architecture=architecture, parameters=parameters, padding_id=config["pad_token_id"] or 0,
                   epsilon=config.get("layer_norm_eps", DISTILBERT_EPSILON),
                   input_steps=encoder_input.steps, output_steps=encoder_output.steps)

    def embed(self, input_ids, token_type_ids=None):
        """The encoder's input.

        Parameters
        ----------
        input_ids, token_type_ids : int arrays, shape (batch, tokens)
            Token types 0 where left out.

        Returns
        -------
        int8 array, shape (batch, tokens, hidden)
            -127 to 127.

        Raises
        ------
        ValueError
            If there are more tokens than position embeddings.
        """
        input_ids = np.asarray(input_ids)
        p = {name.removeprefix("embeddings."): value for name, value in self.parameters.items()}
        positions, embedded = self._positions(input_ids), p["position_embeddings.weight"]
        if positions.max() >= len(embedded):
            raise ValueError(f"{input_ids.shape[1]} tokens, but the model has {len(embedded)} positions")
        x = p["word_embeddings.weight"][input_ids] + embedded[positions]
        if self.architecture.token_types:
            x = x + p["token_type_embeddings.weight"][0 if token_type_ids is None
                                                      else np.asarray(token_type_ids)]
        x = layer_norm(x, p["LayerNorm.weight"], p["LayerNorm.bias"], self.epsilon)
        return quantize(x, self.input_steps)

    def inputs(self, batch: Mapping[str, Any]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
        """What the encoder gets.

        Parameters
        ----------
        batch : dict of int64 tensors or arrays, shape (sentences, tokens)
            ``input_ids``, ``token_type_ids`` (or none), ``attention_mask``; padding on the right.

        Returns
        -------
        x : int8 array, shape (sentences, tokens, hidden)
        lengths : int64 array, shape (sentences,)
            Valid tokens.
        """
        ids = np.asarray(batch["input_ids"])
        types = batch.get("token_type_ids")
        x = self.embed(ids, None if types is None else np.asarray(types))
        return x, np.asarray(batch["attention_mask"]).sum(axis=1)

    def hidden(self, output):
        """Real values of the encoder's integers, float64, shape (batch, tokens, hidden)."""
        return np.asarray(output) * self.output_steps

    def classify(self, output: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Logits, float64, shape (batch, labels), of the encoder's integers (batch, tokens, hidden).

        Raises
        ------
        ValueError
            If the model has no pooler or no classifier.
        """
        names = self.architecture
        activate = _POOLER_ACTIVATIONS[names.pooler_activation]
        return self._linear(names.classifier,
                            activate(self._linear(names.pooler, self.hidden(output)[:, 0])))

    def _linear(self, name, x):
        if f"{name}.weight" not in self.parameters:
            raise ValueError(f"{name}.weight is missing from the host's parameters; "
                             "this model has no classifier")
        return x @ self.parameters[f"{name}.weight"].T + self.parameters[f"{name}.bias"]

    def _positions(self, input_ids):
        """Index of each token's position embedding, shape (batch, tokens) or (tokens,)."""
        if not self.architecture.positions_follow_padding:
            return np.arange(input_ids.shape[1])
        real = input_ids != self.padding_id
        return np.where(real, np.cumsum(real, axis=1) + self.padding_id, self.padding_id)
