"""The torch twin of integer residual addition and LayerNorm."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from compressor.intops import ACTIVATION_MAX
from compressor.intops.layernorm import UNIT_BITS
from compressor.intops.reciprocal import RESULT_BITS
from compressor.straight_through import power_of_two, straight_through


@dataclass(frozen=True, kw_only=True, eq=False)
class FakeLayerNorm:
    """Twin of :class:`compressor.intops.IntegerLayerNorm`: equal on every integer.

    Every intermediate value is an integer below 2**48, or one times a power of two, so float64 is exact.
    Backward it is LayerNorm in float32.

    Parameters
    ----------
    gamma, beta : float64 tensors, shape (H,)
        The integers.
    real_gamma, real_beta : float32 tensors, shape (H,)
        What a unit deviation gives and what is added to it, in output steps; gradients go to them.
    residual_factor, branch_factor : float32 tensors, shape (H,)
        2**shift.
    mean_ratio : float
    output_shift, epsilon : int
    """

    gamma: torch.Tensor
    beta: torch.Tensor
    real_gamma: torch.Tensor
    real_beta: torch.Tensor
    residual_factor: torch.Tensor
    branch_factor: torch.Tensor
    mean_ratio: float
    output_shift: int
    epsilon: int

    @classmethod
    def of(cls, norm, device=None, *, real_gamma=None, real_beta=None):
        """Twin of an IntegerLayerNorm.

        ``real_gamma`` and ``real_beta``, float32 of shape (H,), are the unrounded parameters in output
        steps, in a model that is trained; unless given, what the integers stand for.
        """
        def tensor(values, dtype=torch.float64):
            return torch.tensor(np.asarray(values, np.float64), dtype=dtype, device=device)

        multiplier, shift = norm.mean_rescaling
        hidden = len(norm.gamma)
        if real_gamma is None:
            unit = 2.0 ** (UNIT_BITS - norm.output_shift) / math.sqrt(hidden)
            real_gamma = tensor(norm.gamma * unit, torch.float32)
            real_beta = tensor(norm.beta * 2.0**-norm.output_shift, torch.float32)
        return cls(gamma=tensor(norm.gamma), beta=tensor(norm.beta), real_gamma=real_gamma,
                   real_beta=real_beta,
                   residual_factor=tensor(2.0 ** norm.residual_shift.astype(np.int64), torch.float32),
                   branch_factor=tensor(2.0 ** norm.branch_shift.astype(np.int64), torch.float32),
                   mean_ratio=math.ldexp(multiplier, -shift), output_shift=norm.output_shift,
                   epsilon=norm.epsilon)

    def compute(self, residual, branch):
        """Float32 integers in -127 to 127, shape (..., H) as both inputs, which hold such too."""
        z = residual * self.residual_factor + branch * self.branch_factor  # 16 bits
        integers = self._integers(z.detach().double())
        if not torch.is_grad_enabled():
            return integers
        hidden = z.shape[-1]
        real = torch.nn.functional.layer_norm(z, (hidden,), self.real_gamma, self.real_beta,
                                              self.epsilon / hidden)
        return straight_through(real.clamp(-ACTIVATION_MAX - 0.5, ACTIVATION_MAX + 0.5), integers)

    @torch.no_grad()
    def _integers(self, z):
        total = z.sum(dim=-1, keepdim=True)
        limit = (1 << 15) - 1
        mean = (total * self.mean_ratio + 0.5).floor().clamp(-limit, limit)
        power = z.square().sum(dim=-1, keepdim=True) - mean * (2 * total - z.shape[-1] * mean)
        reciprocal, shift = inverse_sqrt(power + self.epsilon)
        unit = ((z - mean) * reciprocal * power_of_two(UNIT_BITS - shift)).add_(0.5).floor_()
        scaled = unit.mul_(self.gamma).add_(self.beta).mul_(2.0**-self.output_shift)
        return scaled.add_(0.5).floor_().clamp_(-ACTIVATION_MAX, ACTIVATION_MAX).float()


def inverse_sqrt(x):
    """Twin of :func:`compressor.intops.reciprocal.inverse_sqrt`; float64 integers below 2**48.

    Roots and quotients are correctly rounded in IEEE arithmetic and have at most 16 bits before the
    point and are at least 2**-17 away from the next integer above, so that their floor is exact.

    Returns
    -------
    reciprocal : float64 tensor
    shift : int32 tensor

    >>> reciprocal, shift = inverse_sqrt(torch.tensor([1.0, 4.0, 2.0**40], dtype=torch.float64))
    >>> reciprocal.tolist(), shift.tolist()
    ([65535.0, 65535.0, 65535.0], [16, 17, 36])
    """
    _, length = torch.frexp(x)
    half = torch.div(length + 1, 2, rounding_mode="floor") - RESULT_BITS
    normalized = (x * power_of_two(-2 * half)).floor()
    return (((1 << 31) - 1) / normalized.sqrt().floor()).floor(), 2 * RESULT_BITS - 1 + half
