"""From a bundle back to a Hugging Face model and tokenizer: needs no other file, no hub."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from compressor.architectures import ARCHITECTURES
from compressor.attention_maps import set_map_pruning
from compressor.bundle import Bundle
from compressor.bundle_checks import BundleError, check_choice


def quiet_loading() -> None:
    """Keep Transformers' bars, and its reports on heads that a model lacks, off the terminal."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def encoder_of(model):
    """The part of a Hugging Face model that layer names are relative to."""
    return model.base_model


def architecture_of(model):
    """The :class:`compressor.architectures.Architecture` of a Hugging Face model.

    Raises
    ------
    ValueError
        If it is none of those that can be exported.
    """
    kind = model.config.model_type
    if kind not in ARCHITECTURES:
        raise ValueError(f"the model is a {kind}; export supports {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[kind]


def module_path(model, name):
    """Path, relative to the encoder, of the linear layer that a bundle calls ``name``."""
    return architecture_of(model).module_path(name)


def linear_layer(model, name):
    """The torch.nn.Linear that a bundle calls ``name``."""
    return encoder_of(model).get_submodule(module_path(model, name))


def layer_parameter(model, name, kind):
    """Name, within the whole model, of the "weight" or "bias" of the layer that a bundle calls ``name``."""
    prefix = "" if encoder_of(model) is model else f"{model.base_model_prefix}."
    return f"{prefix}{module_path(model, name)}.{kind}"


def to_model(bundle: Bundle) -> Any:
    """The bundle's model in float32, in evaluation mode: host part and dequantized weights.

    Its attention maps are pruned if the bundle's are, and its layers are as small where heads and neurons
    have been removed.

    Raises
    ------
    BundleError
        If transformers refuses the config, or the host part does not fit it.
    """
    architectures = bundle.model["config"].get("architectures") or ["none"]
    known = ARCHITECTURES[bundle.model["architecture"]]
    check_choice("model.config.architectures", architectures[0], known.model_classes)
    config = _config(bundle)
    model = getattr(transformers, architectures[0])(config)
    _resize(model, bundle.layers)
    state = dict(bundle.host["state_dict"])
    for name, layer in bundle.layers.items():
        weight, bias = bundle.folding(name).unfold(layer)
        state[layer_parameter(model, name, "weight")] = torch.from_numpy(weight).float()
        state[layer_parameter(model, name, "bias")] = torch.from_numpy(bias).float()
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
    if bundle.operators:
        set_map_pruning(model, [layer.attention.pruning for layer in bundle.encoder.layers])
    return model.eval()


def _resize(model, layers):
    """Give linear layers the shapes that the bundle's have, where heads or neurons have been removed."""
    for name, layer in layers.items():
        linear = linear_layer(model, name)
        if (linear.out_features, linear.in_features) != layer.weight.shape:
            encoder_of(model).set_submodule(module_path(model, name),
                                            torch.nn.Linear(layer.inner, layer.rows))


def to_tokenizer(bundle: Bundle) -> Any:
    """The bundle's tokenizer, rebuilt from its files.

    Raises
    ------
    BundleError
        If the files do not make a tokenizer, or transformers refuses the config.
    """
    files = bundle.host["tokenizer"]
    if not files:
        raise BundleError("host.tokenizer: is empty; export from a directory with tokenizer files")
    config = _config(bundle)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        try:
            return load_tokenizer(folder, config)
        except Exception as error:  # tokenizers raises a plain Exception for a bad file
            raise BundleError("host.tokenizer: transformers cannot read these files "
                              f"({type(error).__name__}); found {', '.join(files)}") from error


def _config(bundle):
    kind = transformers.CONFIG_MAPPING[bundle.model["architecture"]]
    try:
        return kind.from_dict(bundle.model["config"])
    except ValueError as error:
        raise BundleError(f"model.config: transformers refuses it: {' '.join(str(error).split())}") from error


def load_tokenizer(folder, config):
    """The tokenizer in a folder; it gives what the architecture of ``config`` takes, whatever its class."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, config=config, local_files_only=True, trust_remote_code=False)
    tokenizer.model_input_names = list(ARCHITECTURES[config.model_type].inputs)
    return tokenizer


def encode(tokenizer: Any, sentences: Sequence[Any], max_tokens: int,
           batch_size: int = 32) -> Iterator[dict[str, Any]]:
    """Model inputs of sentences, padded to ``max_tokens``: yields dicts of int64 tensors (B, S).

    A sentence is a string, or a pair of strings.
    """
    for start in range(0, len(sentences), batch_size):
        batch = [text if isinstance(text, str) else tuple(text)
                 for text in sentences[start:start + batch_size]]
        yield dict(tokenizer(batch, padding="max_length", truncation=True, max_length=max_tokens,
                             return_tensors="pt"))
