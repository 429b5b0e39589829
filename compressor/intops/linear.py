"""Integer linear layer: int8 x int8 products, int32 sums, one rescaling per output row."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.intops.fixedpoint import (
    ACCUMULATOR_BITS,
    ACTIVATION_MAX,
    Int64Array,
    IntArray,
    check_rescaling,
    requantize,
)


def exact_matmul(a: npt.ArrayLike, b: npt.ArrayLike) -> Int64Array:
    """Integer matrix product, exact: int64 in, int64 out.

    The product runs in floating point, because integer products have no BLAS: float32, whose sums of
    integers below 2**24 are exact in any order, or float64, below 2**53. The bound is checked, not assumed.

    Raises
    ------
    OverflowError
        If ``K * max|a| * max|b|`` reaches 2**53.

    >>> exact_matmul(np.array([[127, -127]]), np.array([[127], [127]])).tolist()
    [[0]]
    """
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    bound = a.shape[-1] * int(np.abs(a).max()) * int(np.abs(b).max()) if a.size and b.size else 0
    if bound >= 1 << 53:
        raise OverflowError("matrix product could exceed 2**53 and would not be exact")
    exact = np.float32 if bound < 1 << 24 else np.float64
    product: npt.NDArray[Any] = a.astype(exact) @ b.astype(exact)
    return product.astype(np.int64)


def accumulator_bound(weight: IntArray, bias: IntArray) -> Int64Array:
    """Largest magnitude a row's sum can reach: ``sum |w| * 127 + |b|``, shape (rows,), int64."""
    magnitudes: Int64Array = np.abs(weight.astype(np.int64)).sum(axis=1)
    return magnitudes * ACTIVATION_MAX + np.abs(bias.astype(np.int64))


def signed_bits(bound: int) -> int:
    """Bits of a signed integer that holds -bound to bound.

    >>> signed_bits(127), signed_bits(128)
    (8, 9)
    """
    return int(bound).bit_length() + 1


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerLinear:
    """One quantized linear layer, ``y = requantize(x W^T + b)``.

    Parameters
    ----------
    weight : int8 array, shape (rows, K)
        -127 to 127; pruned entries are 0.
    bias : int32 array, shape (rows,)
        In units of input_scale * weight_scale.
    multiplier : int64 array, shape (rows,)
        0 to 65535.
    shift : int64 array, shape (rows,)
        1 to 47, in bits.

    Raises
    ------
    ValueError
        If shapes disagree, a value is out of range, or a row's sum could exceed 32 bits.
    """

    weight: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int32]
    multiplier: Int64Array
    shift: Int64Array

    def __post_init__(self) -> None:
        rows = self.weight.shape[0]
        for name in ("bias", "multiplier", "shift"):
            if getattr(self, name).shape != (rows,):
                raise ValueError(f"{name} must have shape ({rows},), not {getattr(self, name).shape}")
        if self.weight.size and np.abs(self.weight.astype(np.int64)).max() > ACTIVATION_MAX:
            raise ValueError("weights must be -127 to 127; -128 is not used")
        check_rescaling(self.multiplier, self.shift)
        if rows and self.accumulator_bits > ACCUMULATOR_BITS:
            raise ValueError(f"a sum can need {self.accumulator_bits} bits; {ACCUMULATOR_BITS} are allowed")

    @property
    def accumulator_bits(self) -> int:
        """Bits that hold every partial sum and the bias, proven from the weights."""
        return signed_bits(int(accumulator_bound(self.weight, self.bias).max()))

    def accumulate(self, x: IntArray) -> Int64Array:
        """Sums before rescaling, int64, shape (tokens, rows); ``x`` is (tokens, K), -127 to 127."""
        if x.shape[-1] != self.weight.shape[1]:
            raise ValueError(f"input has {x.shape[-1]} channels; the weights have {self.weight.shape[1]}")
        if x.size and np.abs(np.asarray(x, np.int64)).max() > ACTIVATION_MAX:
            raise ValueError("activations must be -127 to 127; -128 is not used")
        return exact_matmul(x, self.weight.T) + self.bias.astype(np.int64)

    def compute(self, x: IntArray) -> Int64Array:
        """Outputs, int64 in -127 to 127, shape (tokens, rows); ``x`` is (tokens, K), -127 to 127."""
        return requantize(self.accumulate(x), self.multiplier, self.shift)
