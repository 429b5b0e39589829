"""Symmetric int8 quantization of linear layers: scales, integers, multipliers and shifts. NumPy only.

Zero maps to integer 0, so pruned entries stay pruned exactly. Rounding is half up, as everywhere.
"""

from dataclasses import dataclass

import numpy as np

from compressor.blocks import block_grid, to_blocks
from compressor.intops import ACTIVATION_MAX, quantize_multiplier, saturate
from compressor.layer_weights import LayerWeights

BIAS_BITS = 30
"""A row's scale is at least so large that its bias stays within 2**30, which leaves the products
(at most 2**16 inputs of 127 * 127, below 2**30) room in 32 bits."""

SCALE_MIN = 2.0**-40
"""Least weight scale. A row of zeros without bias gets it."""

RATIO_MAX = 2.0**14
"""Most output units per accumulator unit; larger ratios have no multiplier of 16 bits."""


def quantize(x, scale):
    """Integers of real values: ``saturate(floor(x / scale + 0.5))``, int8, -127 to 127.

    The quotient is computed in float64.

    >>> quantize(np.array([0.24, 0.25, -0.25, 99.0]), 0.5).tolist()
    [0, 1, 0, 127]
    """
    quotient = np.asarray(x, np.float64) / scale
    return saturate(np.floor(quotient + 0.5), ACTIVATION_MAX).astype(np.int8)


def weight_scales(largest, bias, input_scale):
    """Real value of weight 1 in each row: ``largest / 127``, or more where the bias needs it.

    Parameters
    ----------
    largest : float array, shape (rows,)
        Largest magnitude among the weights of each row.
    bias : float array, shape (rows,)
    input_scale : float

    Returns
    -------
    float32 array, shape (rows,)
        At least SCALE_MIN, so that rows of zeros are defined, and at least
        ``|bias| / (input_scale * 2**30)``, so that every bias fits.

    >>> weight_scales(np.array([2.54, 0.0]), np.zeros(2), 1.0).tolist()[0]
    0.019999999552965164
    """
    for_weights = np.asarray(largest, np.float64) / ACTIVATION_MAX
    for_bias = np.abs(np.asarray(bias, np.float64)) / (input_scale * 2.0**BIAS_BITS)
    return np.maximum(np.maximum(for_weights, for_bias), SCALE_MIN).astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class RowConstants:
    """What a linear layer has one of for each output row; see :class:`compressor.layer_weights.LayerWeights`.

    ``bias_scale`` is the real value of bias 1, float64; ``output_scale`` the one that holds for all rows.
    """

    weight_scale: np.ndarray
    bias_scale: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    output_scale: float


def row_constants(largest, bias, *, input_scale, output_scale):
    """RowConstants of rows whose largest weights and whose biases are given, float64, shape (rows,).

    The output scale is raised where the ratio ``input_scale * weight_scale / output_scale`` would
    exceed 2**14.
    """
    weight_scale = weight_scales(largest, bias, input_scale)
    bias_scale = input_scale * weight_scale.astype(np.float64)
    output_scale = max(output_scale, float(bias_scale.max()) / RATIO_MAX)
    multiplier, shift = quantize_multiplier(bias_scale / output_scale)
    return RowConstants(weight_scale=weight_scale, bias_scale=bias_scale,
                        bias=np.floor(bias / bias_scale + 0.5).astype(np.int32),
                        multiplier=multiplier, shift=shift, output_scale=output_scale)


def activation_scale(largest):
    """Real value of activation 1 for a tensor clipped at ``largest``; 1.0 for a tensor of zeros.

    >>> activation_scale(2.54), activation_scale(0.0)
    (0.02, 1.0)
    """
    return float(largest) / ACTIVATION_MAX if largest > 0 else 1.0


def quantize_layer(name, role, weight, bias, *, structure, input_scale, output_scale):
    """Quantize one linear layer.

    Parameters
    ----------
    name, role : str
        As in :class:`compressor.layer_weights.LayerWeights`.
    weight : float array, shape (rows, K)
        Pruned entries exactly 0.
    bias : float array, shape (rows,)
    structure : see :mod:`compressor.structures`
        What the weight must have; the result has the structure as which it is stored.
    input_scale, output_scale : float
        Real value of activation 1. The output scale may be raised, see :func:`row_constants`.

    Returns
    -------
    LayerWeights
        Blocks without a nonzero integer are absent.

    Raises
    ------
    StructureError
        If the weight does not have the structure.
    ValueError
        If a weight or bias is not finite.
    """
    weight, bias = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError(f"{name}: weights hold NaN or infinity; train again with a lower rate")
    grid = block_grid(weight.shape)
    structure.verify(weight)
    structure = structure.stored()
    index = structure.index(weight)
    rows = row_constants(np.abs(weight).max(axis=1, initial=0.0), bias, input_scale=input_scale,
                         output_scale=output_scale)
    integers = quantize(weight, rows.weight_scale[:, None])
    present = to_blocks(integers).any(axis=1).reshape(grid)
    index = None if index is None else np.asarray(index)
    return LayerWeights(
        name=name, role=role, structure=structure.name, weight=integers, block_mask=present,
        pattern_ids=np.where(present, index if structure.name == "pattern" else -1, -1).astype(np.int16),
        masks=np.where(present, index if structure.name == "nm" else 0, 0).astype(np.uint16),
        bias=rows.bias, multiplier=rows.multiplier, shift=rows.shift, weight_scale=rows.weight_scale,
        input_scale=float(input_scale), output_scale=rows.output_scale)
