"""What the ``operators`` of a bundle must satisfy: layout, ranges, and that they make an encoder."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from compressor.bundle_checks import BundleError, check_integer, check_keys, check_scale, fail
from compressor.folding import folding_path
from compressor.intops.encoder import LINEAR_PATHS, OPERATOR_PATHS, IntegerEncoder, layer_path
from compressor.layer_weights import LayerWeights
from compressor.pools import MAP_KEEPS, PatternPool

SCALES_PATH = "encoder"
"""Key of the scales at both ends of the encoder."""

EXPONENT_MAX = 15

_LAYOUTS = {
    "attention": {"heads": int, "score_multiplier": "int32", "score_shift": "uint8", "exp_table": "uint8",
                  "context_numerator": int, "context_exponent": int, "map_patterns": "uint8",
                  "map_power": int},
    "gelu": {"table": "int8", "outlier_table": "int8", "outliers": "uint8"},
    "layernorm": {"gamma": "int16", "beta": "int32", "residual_shift": "uint8", "branch_shift": "uint8",
                  "output_shift": int, "epsilon": int},
    "folding": {"column_factor": "float64", "input_zero": "int32", "row_factor": "float64",
                "output_center": "float64"},
    "encoder": {"input_scale": float, "input_exponents": "uint8", "output_scale": float,
                "output_exponents": "uint8"},
}
"""Fields of each kind of operator: a Python type, or the dtype of a tensor."""

_KINDS = {"attention": "attention", "attention_norm": "layernorm", "gelu": "gelu", "output_norm": "layernorm"}


def check_operators(operators: Any, layers: Mapping[str, LayerWeights], config: Mapping[str, Any]) -> None:
    """Require no operators, or all of an encoder's, each within its ranges and fitting its neighbours."""
    if type(operators) is not dict:
        fail("operators", f"is {type(operators).__name__}", "a dict is required")
    if not operators:
        return
    kinds: dict[str, str] = {}
    for index in range(config["num_hidden_layers"]):
        path = layer_path(index)
        kinds |= {f"{path}.{sub}": _KINDS[name] for name, (sub, _) in OPERATOR_PATHS.items()}
        kinds |= {folding_path(f"{path}.{sub}"): "folding" for sub in LINEAR_PATHS.values()}
    kinds[SCALES_PATH] = "encoder"
    check_keys("operators", operators, tuple(kinds))
    for name, kind in kinds.items():
        _check_layout(f"operators.{name}", operators[name], kind)
    for index in range(config["num_hidden_layers"]):
        for sub in LINEAR_PATHS.values():
            name = f"{layer_path(index)}.{sub}"
            _check_folding(folding_path(name), operators[folding_path(name)], layers[name])
        _check_gelu(layer_path(index), operators, layers)
    _check_scales(operators[SCALES_PATH], config["hidden_size"])
    try:
        IntegerEncoder.from_parts({name: layer.linear for name, layer in layers.items()}, operators)
    except ValueError as error:
        raise BundleError(f"operators: {error}") from error


def check_maps(encoder: IntegerEncoder, pool: PatternPool) -> None:
    """Require that all layers that prune attention maps do it alike, with patterns of the pool.

    The array decodes patterns of weights and of maps with one decoder.
    """
    pruned = {index: layer.attention.pruning for index, layer in enumerate(encoder.layers)
              if layer.attention.pruning is not None}
    for index, pruning in pruned.items():
        where = f"operators.{layer_path(index)}.{OPERATOR_PATHS['attention'][0]}: map_patterns"
        first = next(iter(pruned.values()))
        if pruning.power != first.power or not np.array_equal(pruning.patterns, first.patterns):
            fail(where, "differs from another layer's, or its power does", "all layers must have the same")
        if not pool.serves_maps:
            fail(where, f"has patterns, but the pool has balance {pool.balance!r} and keeps {pool.keep}",
                 f"a row-balanced pool that keeps {' or '.join(map(str, MAP_KEEPS))} of 16 is required")
        allowed = {pattern.tobytes() for pattern in pool.patterns}
        for pattern in pruning.patterns:
            if pattern.tobytes() not in allowed:
                fail(where, f"has {''.join(map(str, pattern.tolist()))}", "patterns of the pool are allowed")


def _check_layout(where, values, kind):
    layout = _LAYOUTS[kind]
    check_keys(where, values, ("kind", *layout))
    if values["kind"] != kind:
        fail(f"{where}: kind", f"is {values['kind']!r}", f"{kind!r} is required")
    for key, form in layout.items():
        value = values[key]
        if form is int:
            check_integer(f"{where}: {key}", value, 0, 1 << 48)
        elif form is float:
            check_scale(f"{where}: {key}", value)
        elif type(value) is not torch.Tensor or str(value.dtype) != f"torch.{form}":
            found = f"dtype {value.dtype}" if type(value) is torch.Tensor else type(value).__name__
            fail(f"{where}: {key}", f"is {found}", f"a tensor of dtype {form} is required")


def _check_folding(name, values, layer):
    rows, inner = layer.weight.shape
    for key, size, low in (("column_factor", inner, 0.0), ("input_zero", inner, -1 << 16),
                           ("row_factor", rows, 0.0), ("output_center", rows, -math.inf)):
        where, value = f"operators.{name}: {key}", values[key].numpy()
        if value.shape != (size,):
            fail(where, f"has shape {list(value.shape)}", f"[{size}] fits the layer")
        if not np.isfinite(value).all() or (value <= low).any():
            fail(where, "holds a value that is not finite or too small", f"above {low} is required")


def _check_gelu(path, operators, layers):
    channels = layers[f"{path}.{LINEAR_PATHS['ffn1']}"].rows
    name = f"{path}.{OPERATOR_PATHS['gelu'][0]}"
    outliers = operators[name]["outliers"]
    if outliers.numel() and tuple(outliers.shape) != (channels,):
        fail(f"operators.{name}: outliers", f"has shape {list(outliers.shape)}",
             f"[{channels}] fits the layer before it")


def _check_scales(values, hidden):
    for end in ("input", "output"):
        where, exponents = f"operators.{SCALES_PATH}: {end}_exponents", values[f"{end}_exponents"]
        if tuple(exponents.shape) != (hidden,):
            fail(where, f"has shape {list(exponents.shape)}", f"[{hidden}] fits the hidden size")
        if int(exponents.max()) > EXPONENT_MAX:
            fail(where, f"holds {int(exponents.max())}", f"0 to {EXPONENT_MAX} is allowed")
