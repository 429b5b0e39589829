"""What a bundle must satisfy, whatever made it: every rule raises BundleError with one line."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from compressor.architectures import ARCHITECTURES
from compressor.blocks import BLOCK, to_blocks
from compressor.intops.fixedpoint import ACTIVATION_MAX, MULTIPLIER_BITS, SHIFT_MAX
from compressor.layer_weights import NM_KEEP, ROLES, STRUCTURES, LayerWeights, layer_name
from compressor.patterns import patterns_of_masks
from compressor.pools import PatternPool
from compressor.task_metrics import OF_SPANS, metrics_for


class BundleError(ValueError):
    """A bundle that cannot be read or breaks its contract; one line says where, what and what is allowed."""


def fail(where: str, found: str, allowed: str) -> NoReturn:
    """Raise BundleError ``where: found; allowed``."""
    raise BundleError(f"{where}: {found}; {allowed}")


def check_keys(where: str, mapping: Any, keys: Sequence[str]) -> None:
    """Require a dict with exactly ``keys``."""
    if type(mapping) is not dict:
        fail(where, f"is {type(mapping).__name__}", "a dict is required")
    missing = [key for key in keys if key not in mapping]
    if missing:
        fail(where, f"key {missing[0]!r} is missing", f"required are {', '.join(keys)}")
    unknown = [key for key in mapping if key not in keys]
    if unknown:
        fail(where, f"unknown key {unknown[0]!r}", f"allowed are {', '.join(keys)}")


def check_choice(where: str, value: Any, choices: Collection[str]) -> None:
    """Require one of a few strings."""
    if type(value) is not str or value not in choices:
        fail(where, f"is {value!r}", f"allowed are {', '.join(choices)}")


def check_integer(where: str, value: Any, low: int, high: int) -> None:
    """Require an int from ``low`` to ``high``."""
    if type(value) is not int or not low <= value <= high:
        fail(where, f"is {value!r}", f"an integer from {low} to {high} is required")


def check_scale(where: str, value: Any) -> None:
    """Require a finite positive float."""
    if type(value) is not float or not math.isfinite(value) or value <= 0:
        fail(where, f"is {value!r}", "a finite positive float is required")


def check_values(where: str, values: npt.NDArray[Any], low: int, high: int) -> None:
    """Require every entry of an integer array to be ``low`` to ``high``; names the first that is not."""
    bad = np.argwhere((values < low) | (values > high))
    if len(bad):
        index = tuple(bad[0])
        fail(f"{where}[{', '.join(map(str, index))}]", f"is {values[index]}",
             f"{low} to {high} is allowed")


def check_array(where: str, array: npt.NDArray[Any], dtype: npt.DTypeLike, shape: Sequence[int]) -> None:
    """Require a NumPy array of one dtype and shape."""
    if array.dtype != np.dtype(dtype):
        fail(where, f"has dtype {array.dtype}", f"{np.dtype(dtype)} is required")
    if array.shape != tuple(shape):
        fail(where, f"has shape {list(array.shape)}", f"{list(shape)} is required")


def check_model(model: Any) -> None:
    """Require a known architecture, a config with sizes, a described task and a sentence length."""
    check_keys("model", model, ("architecture", "config", "task", "fields", "labels", "metrics",
                                "max_tokens"))
    check_choice("model.architecture", model["architecture"], tuple(ARCHITECTURES))
    config = model["config"]
    if type(config) is not dict:
        fail("model.config", f"is {type(config).__name__}", "a dict is required")
    if config.get("model_type") != model["architecture"]:
        fail("model.config.model_type", f"is {config.get('model_type')!r}",
             f"{model['architecture']!r} is required, the bundle's architecture")
    for key in ("hidden_size", "num_hidden_layers", "max_position_embeddings"):
        check_integer(f"model.config.{key}", config.get(key), 1, 1 << 20)
    if type(model["task"]) is not str:
        fail("model.task", f"is {model['task']!r}", "a string is required")
    for key in ("fields", "labels", "metrics"):
        if type(model[key]) is not list or any(type(name) is not str for name in model[key]):
            fail(f"model.{key}", f"is {model[key]!r}", "a list of strings is required")
    _check_metrics(model["metrics"], model["labels"])
    known = ARCHITECTURES[model["architecture"]]
    if known.positions_follow_padding:
        check_integer("model.config.pad_token_id", config.get("pad_token_id"), 0, 1 << 20)
    check_integer("model.max_tokens", model["max_tokens"], 1, known.positions(config))


def _check_metrics(metrics: Sequence[str], labels: Sequence[str]) -> None:
    """Require metrics of the task's kind; only an encoder without a task has none."""
    if labels and not metrics:
        fail("model.metrics", "is []", "a task with labels needs one or more")
    if not labels and tuple(metrics) == OF_SPANS:
        return
    for metric in metrics:
        check_choice("model.metrics", metric, metrics_for(labels))


def check_layer(layer: LayerWeights, pool: PatternPool) -> None:
    """Require shapes, dtypes, ranges, kept positions and 32-bit sums of one layer."""
    name = layer.name
    check_choice(f"{name}: role", layer.role, ROLES)
    check_choice(f"{name}: structure", layer.structure, STRUCTURES)
    check_array(f"{name}: weight", layer.weight, np.int8, layer.weight.shape)
    if layer.weight.ndim != 2 or any(n < BLOCK or n % BLOCK for n in layer.weight.shape):
        fail(f"{name}: weight", f"has shape {list(layer.weight.shape)}",
             f"two positive multiples of {BLOCK} are required")
    rows, inner = layer.weight.shape
    blocks = rows // BLOCK, inner // BLOCK
    for field, dtype, shape in (
            ("block_mask", bool, blocks), ("pattern_ids", np.int16, blocks),
            ("masks", np.uint16, blocks), ("bias", np.int32, (rows,)),
            ("multiplier", np.int64, (rows,)), ("shift", np.int64, (rows,)),
            ("weight_scale", np.float32, (rows,))):
        check_array(f"{name}: {field}", getattr(layer, field), dtype, shape)
    check_blocks(layer, pool)
    _check_pruned(layer, pool)
    check_values(f"{name}: weight", layer.weight, -ACTIVATION_MAX, ACTIVATION_MAX)
    check_values(f"{name}: multiplier", layer.multiplier, 0, (1 << MULTIPLIER_BITS) - 1)
    check_values(f"{name}: shift", layer.shift, 1, SHIFT_MAX)
    bad = ~(np.isfinite(layer.weight_scale) & (layer.weight_scale > 0))
    if bad.any():
        fail(f"{name}: weight_scale[{bad.argmax()}]", f"is {layer.weight_scale[bad.argmax()]}",
             "a finite positive float is required")
    check_scale(f"{name}: input_scale", layer.input_scale)
    check_scale(f"{name}: output_scale", layer.output_scale)
    try:
        layer.linear  # noqa: B018  its constructor proves the accumulator width
    except ValueError as error:
        raise BundleError(f"{name}: {error}") from error


def check_blocks(layer: LayerWeights, pool: PatternPool) -> None:
    """Require pattern ids of the pool, 2:4 masks, and neither where a block is absent."""
    name, present = layer.name, layer.block_mask
    ids = layer.pattern_ids
    for field, values, empty, structure in (("pattern_ids", ids, -1, "pattern"),
                                            ("masks", layer.masks, 0, "nm")):
        stray = values != empty
        if layer.structure == structure:
            stray = stray & ~present
        if stray.any():
            row, column = np.argwhere(stray)[0]
            fail(f"{name}: {field}", f"block ({row}, {column}) has {values[row, column]}",
                 f"{empty} is required where a block is absent or of another structure")
    if layer.structure == "pattern" and present.any():
        bad = present & ((ids < 0) | (ids >= pool.size))
        if bad.any():
            row, column = np.argwhere(bad)[0]
            fail(f"{name}: pattern_ids", f"block ({row}, {column}) has pattern id {ids[row, column]}",
                 f"the pool has patterns 0 to {pool.size - 1}")
    if layer.structure == "nm":
        counts = patterns_of_masks(layer.masks.ravel()).reshape(*present.shape, BLOCK, BLOCK).sum(axis=3)
        bad = present & (counts != NM_KEEP).any(axis=2)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            fail(f"{name}: masks", f"block ({row}, {column}) keeps {counts[row, column].tolist()} "
                 "positions in its rows", f"structure 'nm' keeps {NM_KEEP} of every {BLOCK}")


def _check_pruned(layer: LayerWeights, pool: PatternPool) -> None:
    blocks = to_blocks(layer.weight)
    stray = (blocks != 0) & ~layer.kept(pool)
    if stray.any():
        block, position = np.argwhere(stray)[0]
        row, column = divmod(int(block), layer.block_mask.shape[1])
        value, pattern = blocks[block, position], layer.pattern_ids[row, column]
        rule = ("the block is absent and must be all zero" if not layer.block_mask[row, column]
                else f"pattern {pattern} prunes that position" if pattern >= 0
                else "its mask prunes that position")
        fail(f"{layer.name}: weight", f"block ({row}, {column}) has {value} at position {position}", rule)


def check_encoder(layers: Mapping[str, LayerWeights], config: Mapping[str, Any]) -> None:
    """Require six layers for each encoder layer, in execution order, whose sizes fit together."""
    names = [layer_name(index, role) for index in range(config["num_hidden_layers"]) for role in ROLES]
    if list(layers) != names:
        where = next((i for i, pair in enumerate(zip(layers, names, strict=False))
                      if pair[0] != pair[1]), min(len(layers), len(names)))
        found = list(layers)[where] if where < len(layers) else "nothing"
        wanted = names[where] if where < len(names) else "no more layers"
        fail("layers", f"entry {where} is {found}", f"{config['num_hidden_layers']} encoder layers "
             f"in execution order require {wanted}")
    hidden = config["hidden_size"]
    for index in range(config["num_hidden_layers"]):
        q, k, v, o, ffn1, ffn2 = (layers[layer_name(index, role)] for role in ROLES)
        for layer, rows, inner in ((q, q.rows, hidden), (k, q.rows, hidden), (v, q.rows, hidden),
                                   (o, hidden, q.rows), (ffn1, ffn1.rows, hidden),
                                   (ffn2, hidden, ffn1.rows)):
            if layer.weight.shape != (rows, inner):
                fail(layer.name, f"has shape {list(layer.weight.shape)}",
                     f"[{rows}, {inner}] fits hidden size {hidden} and the layers beside it")
        for layer in (k, v):
            if layer.input_scale != q.input_scale:
                fail(f"{layer.name}: input_scale", f"is {layer.input_scale!r}",
                     f"q, k and v share one input, whose scale is {q.input_scale!r}")
