"""Factors and offsets that a linear layer absorbs for the operators beside it.

An operator may give its input or output channels scales of their own, or codes that do not start at
zero. The linear layer next to it multiplies its rows and columns accordingly before it is quantized, so
that the hardware does nothing for it; :meth:`Folding.unfold` gives the original parameters back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from compressor.layer_weights import LayerWeights
from compressor.quantization import quantize, quantize_layer

if TYPE_CHECKING:
    from compressor.projection import Structure


def folding_path(name: str) -> str:
    """Key of a linear layer's folding among the operators.

    >>> folding_path("encoder.layer.0.output.dense")
    'encoder.layer.0.output.dense.folding'
    """
    return f"{name}.folding"


@dataclass(frozen=True, kw_only=True, eq=False)
class Folding:
    """What one linear layer absorbs.

    Parameters
    ----------
    column_factor : float64 array, shape (K,)
        Real value of activation 1 in each input channel, in units of the layer's ``input_scale``.
    input_zero : int64 array, shape (K,)
        Activation 0 of an input channel stands for ``input_zero`` steps.
    row_factor : float64 array, shape (rows,)
        Real value of activation 1 in each output channel, in units of the layer's ``output_scale``.
    output_center : float64 array, shape (rows,)
        Real value of activation 0 in each output channel.
    """

    column_factor: npt.NDArray[np.float64]
    input_zero: npt.NDArray[np.int64]
    row_factor: npt.NDArray[np.float64]
    output_center: npt.NDArray[np.float64]

    @classmethod
    def of(cls, shape: Sequence[int], *, column_factor: npt.ArrayLike = 1.0, input_zero: npt.ArrayLike = 0,
           row_factor: npt.ArrayLike = 1.0, output_center: npt.ArrayLike = 0.0) -> Self:
        """Folding of a layer of shape (rows, K); values that are left out change nothing."""
        rows, inner = shape
        return cls(column_factor=np.broadcast_to(np.asarray(column_factor, np.float64), inner),
                   input_zero=np.broadcast_to(np.asarray(input_zero, np.int64), inner),
                   row_factor=np.broadcast_to(np.asarray(row_factor, np.float64), rows),
                   output_center=np.broadcast_to(np.asarray(output_center, np.float64), rows))

    def quantize(self, name: str, role: str, weight: npt.ArrayLike, bias: npt.ArrayLike, *,
                 structure: "Structure", input_scale: float, output_scale: float) -> LayerWeights:
        """:func:`compressor.quantization.quantize_layer` of the folded layer.

        The input zeros are folded into the integer bias with the integer weights, exactly.
        """
        weight = np.asarray(weight, np.float64) * self.column_factor / self.row_factor[:, None]
        bias = (np.asarray(bias, np.float64) - self.output_center) / self.row_factor
        layer = quantize_layer(name, role, weight, bias, structure=structure, input_scale=input_scale,
                               output_scale=output_scale)
        check_output_scale(name, output_scale, layer.output_scale)
        return replace(layer, bias=(layer.bias + self._zero_sums(layer)).astype(np.int32))

    def quantize_input(self, x, input_scale):
        """Integers of a real input, int8: shape (..., K) as ``x``."""
        return quantize(x / self.column_factor - self.input_zero * input_scale, input_scale)

    def unfold(self, layer: LayerWeights) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Real weight and bias of the original layer, float64, from its quantized form."""
        scale = layer.weight_scale.astype(np.float64)[:, None]
        weight = layer.weight * scale * self.row_factor[:, None] / self.column_factor
        bias = (layer.bias - self._zero_sums(layer)) * scale[:, 0] * layer.input_scale
        return weight, bias * self.row_factor + self.output_center

    def _zero_sums(self, layer):
        return layer.weight.astype(np.int64) @ self.input_zero

    def to_dict(self):
        """Plain values and arrays for a bundle."""
        return {"kind": "folding", "column_factor": self.column_factor.astype(np.float64),
                "input_zero": self.input_zero.astype(np.int32),
                "row_factor": self.row_factor.astype(np.float64),
                "output_center": self.output_center.astype(np.float64)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`."""
        return cls(column_factor=np.asarray(values["column_factor"], np.float64),
                   input_zero=np.asarray(values["input_zero"], np.int64),
                   row_factor=np.asarray(values["row_factor"], np.float64),
                   output_center=np.asarray(values["output_center"], np.float64))


def check_output_scale(name, wanted, least):
    """Raise ValueError if the weights need another output scale than the operator after the layer has."""
    if least != wanted:
        raise ValueError(f"{name}: output scale {wanted} is too small for its weights; {least} is the "
                         "least. Calibrate on more or other sentences")
