"""Integer residual addition and LayerNorm: int8 residual and int8 branch in, int8 out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from compressor.intops.fixedpoint import (
    ACTIVATION_MAX,
    Int64Array,
    quantize_multiplier,
    requantize,
    round_half_up_shift,
    saturate,
)
from compressor.intops.reciprocal import inverse_sqrt

SHIFT_BITS = 3
"""Width of an alignment shift; two int8 values shifted by up to 7 bits sum to 16 bits."""

UNIT_BITS = 15
"""Fraction bits of a normalized deviation, ``(z - mean) / sqrt(sum of squares)``, in -1 to 1."""

GAMMA_MAX = (1 << 15) - 1
BETA_MAX = (1 << 30) - 1
EPSILON_MAX = (1 << 40) - 1
HIDDEN_MAX = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerLayerNorm:
    """``LayerNorm(residual + branch)`` of each token; ``gamma`` holds sqrt(H) and the output scale.

    Widths for H up to 1024, with z the sum of both inputs in one scale::

        z     = (residual << residual_shift) + (branch << branch_shift)     16 bits, exact
        mean  = requantize(sum z, 1/H)                                      sum 26 bits, mean 16
        power = sum z^2 - mean * (2 sum z - H mean) + epsilon               sum (z - mean)^2; 42 bits
        r     = floor((2^31 - 1) / floor_sqrt(power, shifted to 32 bits))   16 bits
        u     = ((z - mean) * r) rounded to 15 fraction bits                17 x 16 bits, u 17 bits
        y     = saturate((u * gamma + beta) rounded by output_shift)        17 x 16 bits, sum 32

    The scales of both inputs are a power of two apart, so that aligning them takes no multiplier and
    no rounding; the shifts are per channel, so that channels with outliers may have larger scales
    (the power-of-two factor of Lin et al., arXiv:2111.13824, section 3.2). Two passes per token group, each
    one word per cycle: sums while the words arrive, then u and y; between them 33 cycles for root and
    reciprocal. Equal inputs (zero variance) give ``beta``: epsilon is at least 1.

    Parameters
    ----------
    gamma : int16 array, shape (H,)
        -32767 to 32767: ``gamma * sqrt(H) / output_scale * 2**(output_shift - 15)``.
    beta : int32 array, shape (H,)
        Magnitude below 2**30: ``beta / output_scale * 2**output_shift``.
    residual_shift, branch_shift : uint8 arrays, shape (H,)
        0 to 7 bits.
    output_shift : int
        1 to 47 bits.
    epsilon : int
        1 to 2**40 - 1: ``H * epsilon`` in squared steps of z, at least 1.

    Raises
    ------
    ValueError
        If shapes disagree or a value is out of range.
    """

    gamma: npt.NDArray[np.int16]
    beta: npt.NDArray[np.int32]
    residual_shift: npt.NDArray[np.uint8]
    branch_shift: npt.NDArray[np.uint8]
    output_shift: int
    epsilon: int

    def __post_init__(self) -> None:
        hidden = self.gamma.shape[0]
        if not 4 <= hidden <= HIDDEN_MAX or hidden % 4:
            raise ValueError(f"hidden size must be a multiple of 4 up to {HIDDEN_MAX}, not {hidden}")
        limits = {"gamma": (-GAMMA_MAX, GAMMA_MAX), "beta": (-BETA_MAX, BETA_MAX),
                  "residual_shift": (0, (1 << SHIFT_BITS) - 1),
                  "branch_shift": (0, (1 << SHIFT_BITS) - 1)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value.shape != (hidden,):
                raise ValueError(f"{name} must have shape ({hidden},), not {value.shape}")
            if value.min() < low or value.max() > high:
                raise ValueError(f"{name} must be {low} to {high}, not {value.min()} to {value.max()}")
        if not 1 <= self.output_shift <= 47:
            raise ValueError(f"output_shift must be 1 to 47 bits, not {self.output_shift}")
        if not 1 <= self.epsilon <= EPSILON_MAX:
            raise ValueError(f"epsilon must be 1 to {EPSILON_MAX}, not {self.epsilon}")

    @property
    def mean_rescaling(self) -> tuple[int, int]:
        """Multiplier and shift that divide a sum of H values by H, as Python integers."""
        multiplier, shift = quantize_multiplier(1 / self.gamma.shape[0])
        return int(multiplier), int(shift)

    def add(self, residual: Int64Array, branch: Int64Array) -> Int64Array:
        """Sum of both inputs in one scale, int64 of 16 significant bits."""
        for x in (residual, branch):
            if x.size and np.abs(x).max() > ACTIVATION_MAX:
                raise ValueError("activations must be -127 to 127; -128 is not used")
        return (residual << self.residual_shift.astype(np.int64)) + (
            branch << self.branch_shift.astype(np.int64))

    def compute(self, residual: Int64Array, branch: Int64Array) -> Int64Array:
        """Normalized sum.

        Parameters
        ----------
        residual, branch : int64 arrays, shape (..., H)
            -127 to 127.

        Returns
        -------
        int64 array, shape (..., H)
            -127 to 127.
        """
        z = self.add(residual, branch)
        total = z.sum(axis=-1, keepdims=True)
        mean = requantize(total, *self.mean_rescaling, limit=(1 << 15) - 1)
        power = (z * z).sum(axis=-1, keepdims=True) - mean * (2 * total - z.shape[-1] * mean)
        reciprocal, shift = inverse_sqrt(power + self.epsilon)
        unit = round_half_up_shift((z - mean) * reciprocal, shift - UNIT_BITS)
        scaled = unit * self.gamma.astype(np.int64) + self.beta.astype(np.int64)
        return saturate(round_half_up_shift(scaled, self.output_shift), ACTIVATION_MAX)

    def to_dict(self) -> dict[str, Any]:
        """Plain values and arrays for a bundle."""
        return {"kind": "layernorm", "gamma": self.gamma.astype(np.int16),
                "beta": self.beta.astype(np.int32),
                "residual_shift": self.residual_shift.astype(np.uint8),
                "branch_shift": self.branch_shift.astype(np.uint8),
                "output_shift": self.output_shift, "epsilon": self.epsilon}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`."""
        return cls(gamma=np.asarray(values["gamma"], np.int16), beta=np.asarray(values["beta"], np.int32),
                   residual_shift=np.asarray(values["residual_shift"], np.uint8),
                   branch_shift=np.asarray(values["branch_shift"], np.uint8),
                   output_shift=int(values["output_shift"]), epsilon=int(values["epsilon"]))
