"""Reciprocals and square roots by digit recurrence: one result bit a cycle, exact floor.

Softmax divides once per row, LayerNorm takes one inverse square root per token. Both first shift
their operand until its top bit is in a fixed place, so that 16 result bits are always significant.
In hardware each is one subtractor and 16 cycles, hidden behind the stream of the next row.
"""

import numpy as np
import numpy.typing as npt

from compressor.intops.fixedpoint import Int64Array

RESULT_BITS = 16
"""Bits of a quotient and of a root; also the cycles that each takes in hardware."""


def bit_length(x: npt.ArrayLike) -> Int64Array:
    """Position of the highest set bit plus one; 0 for 0.

    Parameters
    ----------
    x : int64 array
        0 to 2**62.

    >>> bit_length(np.array([0, 1, 127, 128])).tolist()
    [0, 1, 7, 8]
    """
    x = np.asarray(x, np.int64)
    length = np.zeros(x.shape, np.int64)
    for step in (32, 16, 8, 4, 2, 1):
        large = x >> step != 0
        length += np.where(large, step, 0)
        x = np.where(large, x >> step, x)
    length += x != 0
    return length


def normalized_quotient(numerator: int, divisor: npt.ArrayLike) -> tuple[Int64Array, Int64Array]:
    """Floating quotient ``numerator / divisor ~ quotient * 2**(16 - length)``.

    ``length`` is the divisor's bit length; ``quotient = floor(numerator / (divisor << 16 - length))``.

    Parameters
    ----------
    numerator : int
        2**30 to 2**31 - 1.
    divisor : int64 array
        0 to 2**16 - 1. A divisor of 0 gives quotient 0 and length 0.

    Returns
    -------
    quotient, length : int64 arrays
        quotient 2**14 to 2**16 - 1 (relative error below 2**-14, never too large), length 0 to 16.

    >>> [part.tolist() for part in normalized_quotient(1 << 30, np.array([0, 1, 127, 65024]))]
    [[0, 32768, 16513, 16513], [0, 1, 7, 16]]
    """
    divisor = np.asarray(divisor, np.int64)
    length = bit_length(divisor)
    if length.size and length.max() > RESULT_BITS:
        raise ValueError(f"divisor must have at most {RESULT_BITS} bits, not {length.max()}")
    normalized = divisor << (RESULT_BITS - length)
    return np.where(divisor == 0, 0, numerator // np.maximum(normalized, 1)), length


def floor_sqrt(x: npt.ArrayLike) -> Int64Array:
    """Integer square root, one bit at a time from the top.

    Parameters
    ----------
    x : int64 array
        0 to 2**32 - 1.

    Returns
    -------
    int64 array
        The largest integers whose squares do not exceed ``x``; 16 bits.

    >>> floor_sqrt(np.array([0, 3, 4, 2**32 - 1])).tolist()
    [0, 1, 2, 65535]
    """
    x = np.asarray(x, np.int64)
    root = np.zeros(x.shape, np.int64)
    for bit in reversed(range(RESULT_BITS)):
        trial = root | (1 << bit)
        root = np.where(trial * trial <= x, trial, root)
    return root


def inverse_sqrt(x: npt.ArrayLike) -> tuple[Int64Array, Int64Array]:
    """Floating inverse square root, ``1 / sqrt(x) ~ reciprocal * 2**-shift``.

    ``x`` is shifted by an even number of bits, left (exact) or right (floor), to 31 or 32 bits;
    ``root = floor_sqrt`` of it has 16 bits, and ``reciprocal = floor((2**31 - 1) / root)``.

    Parameters
    ----------
    x : int64 array
        1 to 2**48 - 1.

    Returns
    -------
    reciprocal, shift : int64 arrays
        reciprocal 2**15 - 1 to 2**16 - 1 (relative error below 2**-14), shift 16 to 39, in bits.

    >>> [part.tolist() for part in inverse_sqrt(np.array([1, 4, 2**40]))]
    [[65535, 65535, 65535], [16, 17, 36]]
    """
    x = np.asarray(x, np.int64)
    if x.size and (x.min() < 1 or x.max() >= 1 << 48):
        raise ValueError(f"inverse_sqrt takes 1 to 2**48 - 1, not {x.min()} to {x.max()}")
    half = (bit_length(x) + 1) // 2 - RESULT_BITS  # pairs of bits above 32; negative: below
    normalized = np.where(half > 0, x >> np.maximum(2 * half, 0), x << np.maximum(-2 * half, 0))
    return ((1 << 31) - 1) // floor_sqrt(normalized), 31 + half
