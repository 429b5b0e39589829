"""Integer softmax: unnormalized int8 weights of a row, and their sum.

The weights are relative to the row's maximum, and the division by the sum happens after the
context product (see :mod:`compressor.intops.attention`). So a row's largest weight is always 127,
however many keys share the mass: normalized int8 probabilities would round to 0 below 1/254, all of
them for a flat row of 255 keys and more. Normalizing after the product also divides once per query
and not once per query and key (Rabe and Staats, arXiv:2112.05682).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.intops.fixedpoint import ACTIVATION_MAX, Int64Array

KEYS_MAX = 512
"""Longest row: 512 weights of 127 sum to 65024, which fits 16 bits."""

TABLE_ENTRIES = 256


def exp_table(scale: float) -> npt.NDArray[np.uint8]:
    """Weights ``floor(127 exp(-d scale) + 1/2)`` for distances d = 0 to 255 below the row's maximum.

    Parameters
    ----------
    scale : float
        Value of one score step, above 0.

    Returns
    -------
    uint8 array, shape (256,)
        127 down to 0.

    >>> exp_table(0.5)[:6].tolist()
    [127, 77, 47, 28, 17, 10]
    """
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"score scale must be above 0, not {scale}")
    distance = np.arange(TABLE_ENTRIES)
    table: npt.NDArray[np.float64] = ACTIVATION_MAX * np.exp(-distance * scale)
    return np.floor(table + 0.5).astype(np.uint8)


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerSoftmax:
    """Unnormalized softmax of int8 score rows.

    Two passes over a buffered row: the maximum of its valid scores; then ``table[max - score]``, 0
    for masked keys, and the running sum. One word of 4 keys x T queries per cycle in each pass.
    Error: a weight is within 1/2 of ``127 exp(score - max)`` for the given scores.

    Parameters
    ----------
    table : uint8 array, shape (256,)
        Starts at 127 and never rises.

    Raises
    ------
    ValueError
        If the table has another shape or does not start at 127 and fall.
    """

    table: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.table.shape != (TABLE_ENTRIES,):
            raise ValueError(f"exp table must have {TABLE_ENTRIES} entries, not {self.table.shape}")
        table = self.table.astype(np.int64)
        if table[0] != ACTIVATION_MAX or table[-1] < 0 or (np.diff(table) > 0).any():
            raise ValueError(f"exp table must start at {ACTIVATION_MAX} and fall to 0 or above")

    def compute(self, scores: Int64Array, valid: npt.NDArray[np.bool_]) -> tuple[Int64Array, Int64Array]:
        """Weights and row sums.

        Parameters
        ----------
        scores : int64 array, shape (..., queries, keys)
            -127 to 127; up to 512 keys.
        valid : bool array, broadcasts against ``scores``
            False entries get weight 0 and do not count for the maximum.

        Returns
        -------
        weights : int64 array, shape (..., queries, keys)
            0 to 127. A row with a valid key contains 127; a fully masked row is all 0.
        sums : int64 array, shape (..., queries)
            0 to 65024: 16 bits.
        """
        if scores.shape[-1] > KEYS_MAX:
            raise ValueError(f"softmax rows have {scores.shape[-1]} keys; {KEYS_MAX} are allowed")
        if scores.size and np.abs(scores).max() > ACTIVATION_MAX:
            raise ValueError("scores must be -127 to 127; -128 is not used")
        masked = np.where(valid, scores, -ACTIVATION_MAX)
        highest = masked.max(axis=-1, keepdims=True, initial=-ACTIVATION_MAX)
        weights = np.where(valid, self.table.astype(np.int64)[highest - masked], 0)
        return weights, weights.sum(axis=-1)
