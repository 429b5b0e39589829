"""Pattern pruning of attention maps: each 4x4 block of a map keeps one pattern of a fixed pool."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.intops.fixedpoint import ACTIVATION_MAX, Int64Array

BLOCK = 4


def to_blocks(maps: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """4x4 blocks of maps, zero-filled to whole blocks; block origin at query 0, key 0.

    Parameters
    ----------
    maps : array, shape (..., queries, keys)

    Returns
    -------
    array, shape (..., ceil(queries / 4), ceil(keys / 4), 16)

    >>> to_blocks(np.arange(20).reshape(4, 5))[0, 1].tolist()
    [4, 0, 0, 0, 9, 0, 0, 0, 14, 0, 0, 0, 19, 0, 0, 0]
    """
    *batch, queries, keys = maps.shape
    rows, columns = -(-queries // BLOCK), -(-keys // BLOCK)
    padded = np.zeros((*batch, rows * BLOCK, columns * BLOCK), maps.dtype)
    padded[..., :queries, :keys] = maps
    split = padded.reshape(*batch, rows, BLOCK, columns, BLOCK)
    return np.moveaxis(split, -3, -2).reshape(*batch, rows, columns, BLOCK * BLOCK)


def from_blocks(blocks: npt.NDArray[Any], queries: int, keys: int) -> npt.NDArray[Any]:
    """Inverse of :func:`to_blocks`, shape (..., queries, keys).

    >>> maps = np.arange(20).reshape(4, 5)
    >>> bool((from_blocks(to_blocks(maps), 4, 5) == maps).all())
    True
    """
    *batch, rows, columns, _ = blocks.shape
    split = np.moveaxis(blocks.reshape(*batch, rows, columns, BLOCK, BLOCK), -3, -2)
    return split.reshape(*batch, rows * BLOCK, columns * BLOCK)[..., :queries, :keys]


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerMapPruning:
    """Choice of one pattern per block: the pattern that keeps the largest sum of weights ** power.

    Ties go to the lowest pattern id. Every pattern keeps at least one key of each of its four queries, so
    that a query of a sequence of 4 keys and more always keeps a valid key; shorter sequences are
    not pruned. In hardware: per block 16 weights, sums of 11 bits (power 1) or 18 bits (power 2) per
    pattern, an argmax tree; one word of 4 keys x T queries, that is T / 4 blocks, per cycle.

    Parameters
    ----------
    patterns : uint8 array, shape (P, 16)
        0 or 1, row-major [query][key]; P is 1 to 64.
    power : int
        1 or 2.

    Raises
    ------
    ValueError
        If a pattern has an empty row, or shape, values or power are not as above.
    """

    patterns: npt.NDArray[np.uint8]
    power: int = 1

    def __post_init__(self) -> None:
        if self.patterns.ndim != 2 or self.patterns.shape[1] != BLOCK * BLOCK:
            raise ValueError(f"map patterns must have shape (P, 16), not {self.patterns.shape}")
        if not 1 <= len(self.patterns) <= 64:
            raise ValueError(f"a map pool must have 1 to 64 patterns, not {len(self.patterns)}")
        if not np.isin(self.patterns, (0, 1)).all():
            raise ValueError("map patterns must contain only 0 and 1")
        empty = (self.patterns.reshape(-1, BLOCK, BLOCK).sum(axis=2) == 0).any(axis=1)
        if empty.any():
            raise ValueError(f"map pattern {int(empty.argmax())} keeps no key of one of its queries; "
                             "each of its four rows must keep at least one")
        if self.power not in (1, 2):
            raise ValueError(f"map pruning power must be 1 or 2, not {self.power}")

    def select(self, weights: Int64Array) -> Int64Array:
        """Pattern ids, int64, shape (..., ceil(queries / 4), ceil(keys / 4)).

        ``weights`` are unnormalized softmax weights, 0 to 127, 0 where query or key is masked.
        """
        if weights.size and (weights.min() < 0 or weights.max() > ACTIVATION_MAX):
            raise ValueError("map weights must be 0 to 127")
        kept = to_blocks(weights**self.power) @ self.patterns.astype(np.int64).T
        return np.asarray(kept.argmax(axis=-1), np.int64)

    def mask(self, ids: Int64Array, queries: int, keys: int) -> npt.NDArray[np.bool_]:
        """Kept entries of maps with the given pattern ids: bool, shape (..., queries, keys)."""
        return from_blocks(self.patterns.astype(bool)[ids], queries, keys)
