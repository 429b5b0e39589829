"""From a trained model directory to a bundle: calibrate, quantize, gather the host's part, save."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from compressor.attention_maps import map_pruning_of, set_map_pruning
from compressor.bundle import Bundle, save_bundle
from compressor.calibration import Methods, calibrate_linears
from compressor.encoder_quantization import calibrate_encoder, quantize_encoder, to_tensors
from compressor.encoder_scales import EncoderScales, ScalesError
from compressor.golden_model import GoldenModel
from compressor.layer_weights import ROLES, layer_name
from compressor.map_pool import prune_maps
from compressor.model_dir import METRICS_FILE, RECIPE_FILE, ModelDirError, load_model_dir
from compressor.pools import PatternPool, PoolError, build_pool
from compressor.progress import counted
from compressor.quantization import quantize_layer
from compressor.quantized_model import to_quantized_model
from compressor.reload import (
    architecture_of,
    encode,
    layer_parameter,
    linear_layer,
    module_path,
)
from compressor.removed_units import shrink
from compressor.structures import Dense, StructureError
from compressor.task_definition import Task
from compressor.task_metrics import compute_metrics
from compressor.text_file import StrPath

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
                   "added_tokens.json")
"""Files of a model directory that rebuild its tokenizer; those that are there go into the bundle."""


def export_model(model_dir: StrPath, out: StrPath, *, task: Task, rows: Sequence[dict[str, Any]],
                 validation: Sequence[dict[str, Any]] | None = None, methods: Methods | None = None,
                 attention_maps: bool | None = None, note: Callable[[str], None] | None = None) -> Bundle:
    """Quantize the model that ``compress train`` left in a directory, and write its bundle.

    Parameters
    ----------
    model_dir : path
        See :mod:`compressor.model_dir`.
    out : path
        The bundle; written aside, then renamed.
    task : compressor.tasks.Task
    rows : list of dict
        Rows of the task to calibrate on; 64 to 256 training rows suffice. A model that was trained in
        integers keeps the scales of its training, and these rows are not used.
    validation : list of dict, optional
        Rows on which the float and the fake-quantized model are compared; the results go into
        ``metrics["quantization"]``.
    methods : compressor.calibration.Methods, optional
        Quantize the linear layers alone, with scales from these methods. Without them the whole encoder
        is quantized: linear layers, softmax, GELU and LayerNorm.
    attention_maps : bool, optional
        True: prune attention maps, with patterns chosen on ``rows`` if the model was trained without; False:
        leave them whole. As the model was trained unless given.
    note : function of a str, optional
        Called with one line before each long step.

    Returns
    -------
    Bundle

    Raises
    ------
    ModelDirError
        If the directory cannot be used, or a layer breaks its structure.
    BundleError
        If the result breaks the contract of bundles.
    """
    note = note or (lambda line: None)
    if task.spans:
        raise ModelDirError(f"{model_dir}: answers spans of a text (task {task.name}); bundles hold "
                            "classifiers and regressions, whose host part needs the first token alone")
    model, tokenizer, info = _load_model_dir(model_dir)
    names = architecture_of(model)
    if task.labels != info.task.labels:
        raise ModelDirError(f"{model_dir}: the model has labels {', '.join(info.task.labels) or 'none'}, "
                            f"but task {task.name} has {', '.join(task.labels) or 'none'}")
    batches = list(_batches(tokenizer, task, rows, info.max_tokens))
    maps = {}
    if attention_maps is False:
        set_map_pruning(model, None)
    elif attention_maps and info.map_pruning is None:
        note(f"choosing patterns of attention maps on {len(rows)} rows of {task.name}")
        maps = _prune_maps(model, batches, info, model_dir)
    pruning = map_pruning_of(model)[0]
    if pruning is not None and methods:
        raise ModelDirError(f"{model_dir}: attention maps are pruned where the whole encoder is quantized; "
                            "add --no-attention-maps, or leave out --linear-only")
    # Scales of a training with other attention maps would not fit these.
    as_trained = (pruning is None) == (info.map_pruning is None)
    scales = _trained_scales(model_dir, model) if as_trained and not methods else None
    structure_of = {name: info.structure_of(module_path(model, name)).stored()
                    for name in _layer_names(model)}
    left = shrink(model, aligned=_aligned_layers(structure_of))
    scales = scales and scales.of_units(left)
    note(f"calibrating on {len(rows)} rows of {task.name}" if scales is None
         else "quantizing with the scales that the model was trained with")
    if methods:
        layers, operators = quantize_layers(model, calibrate_linears(model, batches, methods=methods),
                                            structure_of), {}
    else:
        quantized = _quantize_encoder(model, batches, scales, structure_of, model_dir, pruning)
        layers, operators = quantized.layers, to_tensors(quantized.operators)
    bundle = Bundle(
        model={"architecture": names.name, "config": names.plain_config(model.config),
               "task": info.task.name, "fields": list(info.task.fields), "labels": list(info.task.labels),
               "metrics": list(info.task.metrics), "max_tokens": info.max_tokens},
        pool=info.pool or _unused_pool(pruning),
        layers=layers, operators=operators,
        host={"state_dict": _host_state(model), "tokenizer": _tokenizer_files(model_dir)},
        recipe=_read_plain(Path(model_dir) / RECIPE_FILE, yaml.safe_load),
        metrics={"training": _read_plain(Path(model_dir) / METRICS_FILE, json.loads),
                 "calibration": {"rows": len(rows), **maps, **(methods.to_plain() if methods else {})}
                 if scales is None else {"scales": "trained"}})
    if validation:
        note(f"comparing float and quantized model on {len(validation)} rows")
        compared = compare_quantized(bundle, task, validation, tokenizer, model)
        bundle = replace(bundle, metrics={**bundle.metrics, "quantization": compared})
    save_bundle(bundle, out)
    return bundle


def quantize_layers(model, scales, structure_of):
    """LayerWeights of every linear layer of a float model's encoder, by name, in execution order.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    scales : dict of str to LinearScales
        From :func:`compressor.calibration.calibrate_linears`.
    structure_of : dict of str to structure
        The structure of each layer, by name; see :mod:`compressor.structures`.
    """
    layers = {}
    for name, role in _layer_names(model).items():
        linear = linear_layer(model, name)
        layers[name] = quantize_layer(
            name, role, linear.weight.detach().numpy(), linear.bias.detach().numpy(),
            structure=structure_of[name], input_scale=scales[name].input_scale,
            output_scale=scales[name].output_scale)
    return layers


def _layer_names(model):
    """Roles of all linear layers of the encoder by their names in the bundle, in execution order."""
    return {layer_name(index, role): role for index in range(model.config.num_hidden_layers)
            for role in ROLES}


def _aligned_layers(structure_of):
    """Encoder layers whose feed-forward weights have a pattern or a mask for each 4x4 block."""
    return {index for index in range(len(structure_of) // len(ROLES))
            if any(structure_of[layer_name(index, role)] != Dense() for role in ("ffn1", "ffn2"))}


def compare_quantized(bundle, task, rows, tokenizer, model):
    """The task's metrics of the float model and of the quantized model of its bundle.

    Returns
    -------
    dict
        ``rows``; ``float``: metrics by name of ``model``; ``quantized``: those of the golden model, with the
        whole encoder in integers, or of the fake-quantized model if the bundle has no operators;
        ``prediction_changes``: rows whose predicted label differs (0 for regression).
    """
    labels = [row["label"] for row in rows]
    quantized = GoldenModel.of(bundle).logits if bundle.operators else \
        functools.partial(_logits, to_quantized_model(bundle))
    logits = {}
    batches = list(_batches(tokenizer, task, rows, bundle.model["max_tokens"]))
    for kind, compute in (("float", functools.partial(_logits, model)), ("quantized", quantized)):
        logits[kind] = np.concatenate([compute(batch) for batch in counted(batches, f"{kind} model")])
    changes = (logits["float"].argmax(axis=1) != logits["quantized"].argmax(axis=1)).sum()
    return {"rows": len(rows), **{kind: compute_metrics(task, values, labels)
                                  for kind, values in logits.items()},
            "prediction_changes": int(changes)}


@torch.no_grad()
def _logits(model, batch):
    return model(**batch).logits.numpy()


def _prune_maps(model, batches, info, model_dir):
    try:
        pruning, kept = prune_maps(model, batches, weight_pool=info.pool)
    except PoolError as error:
        raise ModelDirError(f"{model_dir}: {error}") from error
    return {"map_patterns": len(pruning.patterns), "map_retained_weights": kept}


def _unused_pool(pruning):
    """Pool of a model whose weights have no patterns: the maps', or the default one; the format has one."""
    if pruning is None:
        return build_pool("reed_muller")
    return PatternPool(patterns=pruning.patterns, keep=int(pruning.patterns[0].sum()))


def _trained_scales(model_dir, model):
    try:
        return EncoderScales.load(model_dir, model)
    except ScalesError as error:
        raise ModelDirError(str(error)) from error


def _quantize_encoder(model, batches, scales, structure_of, model_dir, pruning):
    try:
        return quantize_encoder(model, scales or calibrate_encoder(model, batches),
                                structure_of=structure_of, map_pruning=pruning)
    except StructureError as error:
        raise ModelDirError(f"{model_dir}: {error}") from error
    except ValueError as error:
        raise ModelDirError(f"{model_dir}: {error}; --linear-only quantizes the linear layers "
                            "alone") from error


def _load_model_dir(model_dir):
    model, tokenizer, info = load_model_dir(model_dir)
    names = architecture_of(model)
    positions = names.positions(names.plain_config(model.config))
    if info.max_tokens > positions:
        raise ModelDirError(f"{model_dir}: max_tokens is {info.max_tokens}; the model has "
                            f"{positions} positions")
    return model.float().eval(), tokenizer, info


def _batches(tokenizer, task, rows, max_tokens):
    texts = [tuple(row[field] for field in task.fields) for row in rows]
    texts = [text if len(text) > 1 else text[0] for text in texts]
    return encode(tokenizer, texts, max_tokens)


def _host_state(model):
    layers = {layer_parameter(model, name, kind)
              for name in _layer_names(model) for kind in ("weight", "bias")}
    return {name: tensor.detach().float().contiguous().clone()
            for name, tensor in model.state_dict().items() if name not in layers}


def _tokenizer_files(model_dir):
    files = {name: Path(model_dir, name) for name in TOKENIZER_FILES}
    found = {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.is_file()}
    if not found:
        raise ModelDirError(f"{model_dir}: no tokenizer files; one of {', '.join(TOKENIZER_FILES)} "
                            "is needed")
    return found


def _read_plain(path, parse):
    if not path.is_file():
        return {}
    try:
        return json.loads(json.dumps(parse(path.read_text(encoding="utf-8")), allow_nan=False))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ModelDirError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
