"""Fixed-point primitives: the one rounding rule, saturation, and multipliers for rescaling.

Every integer operator, and its twin in hardware and in HLS, rescales with :func:`requantize`.
Nothing else in the project rounds.
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
"""Activations, sums and everything else that is computed with."""

IntArray = npt.NDArray[np.signedinteger[Any]] | npt.NDArray[np.unsignedinteger[Any]]
"""Integers as they are stored: of any width."""

Number = TypeVar("Number", bound=np.number[Any])

ACTIVATION_MAX = 127
"""Activations and weights are symmetric int8: -127 to 127. -128 never occurs."""

MULTIPLIER_BITS = 16
"""Width of an unsigned rescaling multiplier, in bits."""

SHIFT_MAX = 47
"""Largest right shift, in bits: a 32-bit sum times a 16-bit multiplier has 48 bits."""

ACCUMULATOR_BITS = 32
"""Widest sum that :func:`requantize` takes, sign included, in bits."""


def saturate(x: npt.NDArray[Number], limit: int) -> npt.NDArray[Number]:
    """Clip to the symmetric range -limit to limit.

    >>> saturate(np.array([-128, 5, 200]), 127).tolist()
    [-127, 5, 127]
    """
    clipped: npt.NDArray[Number] = np.clip(x, -limit, limit)
    return clipped


def round_half_up_shift(x: Int64Array, shift: int | IntArray) -> Int64Array:
    """Divide by ``2**shift`` and round half up: ``(x + 2**(shift - 1)) >> shift``.

    Ties round towards +infinity: -1.5 gives -1 (``np.round`` and ``torch.round`` round ties to even).

    Parameters
    ----------
    x : int64 array
        Magnitude below 2**62, so that the rounding term cannot overflow.
    shift : int or int array
        1 to 47 bits; broadcasts against ``x``.

    >>> round_half_up_shift(np.array([-3, -1, 1, 3]), 1).tolist()
    [-1, 0, 1, 2]
    """
    half = np.left_shift(np.int64(1), np.asarray(shift, np.int64) - 1)
    return np.right_shift(x + half, shift)


def requantize(acc: Int64Array, multiplier: int | IntArray, shift: int | IntArray, *,
               limit: int = ACTIVATION_MAX) -> Int64Array:
    """Rescale sums to a narrower integer: ``saturate((acc * multiplier + 2**(shift-1)) >> shift)``.

    Source: Jacob et al., arXiv:1712.05877, section 2.2, with one multiplier and one shift per channel.

    Parameters
    ----------
    acc : int64 array, shape (..., channels)
        Sums in units of input_scale * weight_scale; at most 32 significant bits.
    multiplier : int array, shape (channels,) or scalar
        0 to 2**16 - 1.
    shift : int array, shape (channels,) or scalar
        1 to 47 bits.
    limit : int
        Saturation limit of the result; 127 for activations.

    Returns
    -------
    int64 array, shape (..., channels)
        -limit to limit, in units of output_scale.

    Raises
    ------
    TypeError
        If ``acc`` is not int64: a narrower product would wrap silently.
    ValueError
        If a multiplier or shift is out of range.

    >>> requantize(np.array([[3, -3, 9000]]), np.array([1, 1, 1]), np.array([1, 1, 1])).tolist()
    [[2, -1, 127]]
    """
    if acc.dtype != np.int64:
        raise TypeError(f"acc must be int64, not {acc.dtype}; cast it before calling")
    multiplier = np.asarray(multiplier, np.int64)
    shift = np.asarray(shift, np.int64)
    check_rescaling(multiplier, shift)
    return saturate(round_half_up_shift(acc * multiplier, shift), limit)


def check_rescaling(multiplier: IntArray, shift: IntArray) -> None:
    """Raise ValueError unless every multiplier is 0 to 65535 and every shift 1 to 47."""
    if multiplier.size and not (multiplier.min() >= 0 and multiplier.max() < 1 << MULTIPLIER_BITS):
        raise ValueError(f"multipliers must be 0 to {(1 << MULTIPLIER_BITS) - 1}, "
                         f"not {multiplier.min()} to {multiplier.max()}")
    if shift.size and not (shift.min() >= 1 and shift.max() <= SHIFT_MAX):
        raise ValueError(f"shifts must be 1 to {SHIFT_MAX} bits, not {shift.min()} to {shift.max()}")


def quantize_multiplier(ratio: npt.NDArray[np.floating[Any]]) -> tuple[Int64Array, Int64Array]:
    """Approximate positive ratios by ``multiplier * 2**-shift`` with 16 significant bits.

    Parameters
    ----------
    ratio : float array
        input_scale * weight_scale / output_scale; 0 or positive, below 2**15.

    Returns
    -------
    multiplier, shift : int64 arrays
        multiplier in 2**15 to 2**16 - 1 wherever the ratio is at least 2**-32 (relative error at most
        2**-16); below that the shift stays 47 and the multiplier shrinks, down to 0.

    Raises
    ------
    ValueError
        If a ratio is negative, not finite, or 2**15 and above.

    >>> quantize_multiplier(np.array([0.5, 0.001, 0.0]))
    (array([32768, 33554,     0]), array([16, 25, 47]))
    """
    ratio = np.asarray(ratio, np.float64)
    if not np.isfinite(ratio).all() or (ratio < 0).any() or (ratio >= 2.0**15).any():
        raise ValueError("rescaling ratios must be finite, 0 to below 2**15, "
                         f"not {ratio.min()} to {ratio.max()}")
    _, exponent = np.frexp(ratio)  # ratio = fraction * 2**exponent, 0.5 <= fraction < 1
    shift = np.clip(MULTIPLIER_BITS - exponent, 1, SHIFT_MAX).astype(np.int64)
    shift = np.where(ratio == 0, SHIFT_MAX, shift)
    multiplier = np.floor(np.ldexp(ratio, shift) + 0.5).astype(np.int64)
    # The fraction rounded up to 1.0: halve, or at the least shift take the multiplier below.
    overflow = multiplier == 1 << MULTIPLIER_BITS
    multiplier = np.where(overflow, np.where(shift > 1, multiplier >> 1, multiplier - 1), multiplier)
    return multiplier, np.where(overflow, np.maximum(shift - 1, 1), shift)
