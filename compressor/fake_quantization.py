"""The torch twin of the integer linear layers: float tensors that carry exact integers.

Dense products and sums of integers are exact in float32 below 2**24 and in float64 below 2**53; each
layer takes the narrower that its own weights allow.
"""

from dataclasses import dataclass

import numpy as np
import torch

from compressor.folding import Folding, check_output_scale
from compressor.intops import ACTIVATION_MAX
from compressor.quantization import row_constants
from compressor.straight_through import requantize, straight_through

EXACT_FLOAT32 = 1 << 24
"""Sums of integers below it are exact in float32, in any order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FakeLinear:
    """Twin of :class:`compressor.intops.IntegerLinear`: equal on every integer.

    Parameters
    ----------
    weight : float32 or float64 tensor, shape (rows, K)
        Integers in -127 to 127.
    bias : float64 tensor, shape (rows,)
        Integers of 32 bits.
    ratio : float64 tensor, shape (rows,)
        ``multiplier * 2**-shift``.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    ratio: torch.Tensor

    @classmethod
    def of(cls, linear, device=None):
        """Twin of an IntegerLinear; constants, so no gradient reaches a weight."""
        weight = torch.tensor(linear.weight, dtype=torch.float32, device=device)
        return cls(weight=weight.to(exact_dtype(weight)),
                   bias=torch.tensor(linear.bias, dtype=torch.float64, device=device),
                   ratio=rescaling_ratio(linear.multiplier, linear.shift, device))

    @classmethod
    def of_float(cls, name, weight, bias, ends):
        """Twin that quantizes float weights and passes gradients to them.

        The integers are those of :meth:`compressor.folding.Folding.quantize`.

        Parameters
        ----------
        name : str
            For errors.
        weight, bias : float32 tensors, shapes (rows, K) and (rows,)
        ends : LinearEnds
            See :class:`compressor.encoder_scales.LinearEnds`.

        Raises
        ------
        ValueError
            If a weight is not finite, or too large for the output scale.
        """
        folding, device = ends.folding(weight.shape), weight.device
        row_factor = torch.tensor(folding.row_factor, device=device)
        column_factor = torch.tensor(folding.column_factor, device=device)
        folded = weight.detach().double()
        if (folding.column_factor != 1).any():
            folded *= column_factor
        if (folding.row_factor != 1).any():
            folded /= row_factor[:, None]
        real_bias = (bias.double() - torch.tensor(folding.output_center, device=device)) / row_factor
        largest = folded.abs().amax(dim=1).cpu().numpy()
        if not np.isfinite(largest).all():
            raise ValueError(f"{name}: weights hold NaN or infinity; train again with a lower rate")
        rows = row_constants(largest, real_bias.detach().cpu().numpy(), input_scale=ends.input_scale,
                             output_scale=ends.output_scale)
        check_output_scale(name, ends.output_scale, rows.output_scale)
        scale = torch.tensor(rows.weight_scale, device=device).double()
        integers = folded.div_(scale[:, None]).add_(0.5).floor_().clamp_(-ACTIVATION_MAX, ACTIVATION_MAX)
        gain = (column_factor / (row_factor * scale)[:, None]).float()
        integers = straight_through(weight, integers.float(), gain)
        real_bias = real_bias / torch.tensor(rows.bias_scale, device=device)
        integer_bias = straight_through(real_bias, torch.tensor(rows.bias, device=device).double())
        if folding.input_zero.any():
            integer_bias = integer_bias + integers.double() @ torch.tensor(folding.input_zero,
                                                                           device=device).double()
        return cls(weight=integers.to(exact_dtype(integers)), bias=integer_bias,
                   ratio=rescaling_ratio(rows.multiplier, rows.shift, device))

    def compute(self, x):
        """Outputs, float32 integers in -127 to 127, shape (..., rows), of integers of shape (..., K)."""
        return requantize(x.to(self.weight.dtype) @ self.weight.T, self.ratio, self.bias)


def exact_dtype(weight):
    """Narrowest float type in which products of int8 activations with these integers sum exactly."""
    if weight.shape[1] * ACTIVATION_MAX**2 < EXACT_FLOAT32:
        return torch.float32
    sums = weight.detach().abs().sum(dim=1, dtype=torch.float64)
    return torch.float32 if float(sums.max()) * ACTIVATION_MAX < EXACT_FLOAT32 else torch.float64


def rescaling_ratio(multiplier, shift, device=None):
    """``multiplier * 2**-shift`` of integer arrays, an exact float64 tensor."""
    return torch.tensor(np.ldexp(np.asarray(multiplier, np.float64), -np.asarray(shift)), device=device)


class QuantizedLinear(torch.nn.Module):
    """One linear layer with real values around the golden model's integers, for bundles without operators.

    The input is quantized at ``input_scale``, the output is the integer times ``output_scale``.

    Parameters
    ----------
    layer : compressor.layer_weights.LayerWeights
    folding : compressor.folding.Folding, optional
        What the layer absorbed for the operators beside it; nothing unless given.
    """

    def __init__(self, layer, folding=None):
        super().__init__()
        folding = folding or Folding.of(layer.weight.shape)
        for name in ("column_factor", "input_zero", "row_factor", "output_center"):
            self.register_buffer(name, torch.tensor(getattr(folding, name), dtype=torch.float64))
        self.input_scale, self.output_scale = layer.input_scale, layer.output_scale
        self.linear = FakeLinear.of(layer.linear)

    def quantize(self, x):
        """Integers of the input in -127 to 127, as float64."""
        steps = x.double() / (self.input_scale * self.column_factor) - self.input_zero
        return (steps + 0.5).floor().clamp(-ACTIVATION_MAX, ACTIVATION_MAX)

    def forward(self, x):
        y = self.linear.compute(self.quantize(x)).double() * (self.output_scale * self.row_factor)
        return (y + self.output_center).to(x.dtype)
