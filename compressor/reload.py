"""From a bundle back to a Hugging Face model and tokenizer: needs no other file, no hub."""

import tempfile
from pathlib import Path

import torch
import transformers

from compressor.bundle_checks import BundleError, check_choice

MODEL_CLASSES = ("BertForSequenceClassification", "BertForQuestionAnswering", "BertModel")
"""Model classes that a bundle may name in ``config.architectures``."""


def encoder_of(model):
    """The part of a Hugging Face model that layer names are relative to."""
    return model.base_model


def layer_parameter(model, name):
    """Name, within the whole model, of the weight or bias of an encoder layer.

    ``name`` is relative to the encoder: ``encoder.layer.0.output.dense.weight``.
    """
    prefix = "" if encoder_of(model) is model else f"{model.base_model_prefix}."
    return prefix + name


def to_model(bundle):
    """The bundle's model in float32, in evaluation mode: host part and dequantized weights.

    Raises
    ------
    BundleError
        If the host part does not fit the config.
    """
    architectures = bundle.model["config"].get("architectures") or ["none"]
    check_choice("model.config.architectures", architectures[0], MODEL_CLASSES)
    config = transformers.BertConfig.from_dict(bundle.model["config"])
    model = getattr(transformers, architectures[0])(config)
    state = dict(bundle.host["state_dict"])
    for name, layer in bundle.layers.items():
        weight, bias = bundle.folding(name).unfold(layer)
        state[layer_parameter(model, f"{name}.weight")] = torch.from_numpy(weight).float()
        state[layer_parameter(model, f"{name}.bias")] = torch.from_numpy(bias).float()
    expected = model.state_dict()
    for key, tensor in expected.items():
        if key not in state:
            raise BundleError(f"host.state_dict: {key} is missing; {architectures[0]} needs it")
        if state[key].shape != tensor.shape:
            raise BundleError(f"host.state_dict.{key}: has shape {list(state[key].shape)}; "
                              f"{list(tensor.shape)} fits the config")
    unknown = sorted(set(state) - set(expected))
    if unknown:
        raise BundleError(f"host.state_dict: {unknown[0]} is not a parameter of {architectures[0]}; "
                          "remove it")
    model.load_state_dict(state)
    return model.eval()


def to_tokenizer(bundle):
    """The bundle's tokenizer, rebuilt from its files.

    Raises
    ------
    BundleError
        If the files do not make a tokenizer.
    """
    files = bundle.host["tokenizer"]
    if not files:
        raise BundleError("host.tokenizer: is empty; export from a directory with tokenizer files")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        try:
            return transformers.AutoTokenizer.from_pretrained(
                folder, config=transformers.BertConfig.from_dict(bundle.model["config"]),
                local_files_only=True, trust_remote_code=False)
        except Exception as error:  # tokenizers raises a plain Exception for a bad file
            raise BundleError("host.tokenizer: transformers cannot read these files "
                              f"({type(error).__name__}); found {', '.join(files)}") from error


def encode(tokenizer, sentences, max_tokens, batch_size=32):
    """Model inputs of sentences, padded to ``max_tokens``: yields dicts of int64 tensors (B, S).

    A sentence is a string, or a pair of strings.
    """
    for start in range(0, len(sentences), batch_size):
        batch = [text if isinstance(text, str) else tuple(text)
                 for text in sentences[start:start + batch_size]]
        yield dict(tokenizer(batch, padding="max_length", truncation=True, max_length=max_tokens,
                             return_tensors="pt"))
