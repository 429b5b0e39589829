"""Patterns as arrays: 0/1 masks of one 4x4 block, and what a set of them keeps. NumPy only."""

import numpy as np
import numpy.typing as npt

from compressor.blocks import BLOCK, POSITIONS


def patterns_of_masks(masks: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Patterns of 16-bit masks: uint8 array, shape (P, 16).

    >>> patterns_of_masks([0x00F1])[0].tolist()
    [1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    """
    bits = np.asarray(masks, np.int64)
    return (bits[:, None] >> np.arange(POSITIONS) & 1).astype(np.uint8)


def masks_of_patterns(patterns: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Inverse of :func:`patterns_of_masks`: int64 array, shape (P,).

    >>> masks_of_patterns(patterns_of_masks([7, 0xFFFF])).tolist()
    [7, 65535]
    """
    return np.asarray(patterns, np.int64) @ (1 << np.arange(POSITIONS))


BALANCES = ("row", "bank", "none")
"""How patterns may be balanced, see :func:`balance_groups`."""


def balance_groups(keep: int, balance: str) -> npt.NDArray[np.int64]:
    """Groups of positions that keep equally many: int array, shape (groups, positions of a group).

    "row": the four rows. "bank": in every row, the columns of each remainder by n = keep / 4, which keep one
    each (bank-balanced sparsity, Cao et al., FPGA 2019, inside a block): the multiplier of a slot then
    reads 4 / n columns instead of 4. "none": the whole block.

    Raises
    ------
    ValueError
        If ``keep`` does not divide among the groups.

    >>> balance_groups(8, "bank")[:2].tolist()
    [[0, 2], [1, 3]]
    """
    if balance not in BALANCES:
        raise ValueError(f"balance must be {', '.join(BALANCES[:-1])} or {BALANCES[-1]}, not {balance!r}")
    if balance == "row" and keep % BLOCK:
        raise ValueError(f"balance row needs a multiple of {BLOCK} kept positions, not {keep}")
    if balance == "bank" and keep not in (4, 8, 16):
        raise ValueError(f"balance bank needs 4, 8 or 16 kept positions, not {keep}")
    positions = np.arange(POSITIONS)
    if balance == "none":
        return positions[None]
    rows = positions.reshape(BLOCK, BLOCK)
    if balance == "row":
        return rows
    slots = keep // BLOCK
    return rows.reshape(BLOCK, BLOCK // slots, slots).swapaxes(1, 2).reshape(BLOCK * slots, -1)


def are_balanced(patterns: npt.ArrayLike, keep: int, balance: str) -> npt.NDArray[np.bool_]:
    """Which patterns keep as many as they should in every group: bool array, shape (P,).

    >>> are_balanced(patterns_of_masks([0x3333, 0x5555]), 8, "bank").tolist()
    [True, False]
    """
    groups = balance_groups(keep, balance)
    kept = np.asarray(patterns)[:, groups].sum(axis=2, dtype=np.int64)
    balanced: npt.NDArray[np.bool_] = (kept * len(groups) == keep).all(axis=1)
    return balanced


def candidate_patterns(keep: int = 8, balance: str = "none") -> npt.NDArray[np.uint8]:
    """Every pattern that satisfies the rules, ascending by mask: uint8 array, shape (C, 16).

    >>> [len(candidate_patterns(balance=balance)) for balance in ("none", "row", "bank")]
    [12870, 1296, 256]
    """
    patterns = patterns_of_masks(np.arange(1 << POSITIONS))
    return patterns[are_balanced(patterns, keep, balance)]


def reed_muller_patterns(balance: str = "none") -> npt.NDArray[np.uint8]:
    """Weight-8 words of the Reed-Muller code RM(1,4), ascending by mask: uint8, shape (30, 16).

    The words are the affine functions of the four bits of a position. Any two of them share 0 or 4
    of their 8 positions, so that they cover the block evenly. With ``balance="row"`` the 24 words
    that depend on the column remain, with ``balance="bank"`` 16.

    >>> [len(reed_muller_patterns(balance)) for balance in ("none", "row", "bank")]
    [30, 24, 16]
    """
    bits = np.arange(POSITIONS)[:, None] >> np.arange(4) & 1  # column in bits 0-1, row in 2-3
    words = np.array([(bits @ coefficients + constant) % 2
                      for coefficients in bits[1:] for constant in (0, 1)], np.uint8)
    return sorted_by_mask(words[are_balanced(words, POSITIONS // 2, balance)])


def retained_energy(patterns: npt.ArrayLike, blocks: npt.ArrayLike) -> float:
    """Share of the squared weights kept by the best pattern of each block, 0 to 1.

    >>> retained_energy(patterns_of_masks([0x00FF]), np.eye(16)[:12])
    0.6666666666666666
    """
    energy = np.square(np.asarray(blocks, np.float64))
    total = energy.sum()
    best = (energy @ np.asarray(patterns, np.float64).T).max(axis=1).sum()
    return float(best / total) if total else 1.0


def sorted_by_mask(patterns: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The same patterns in ascending order of their masks."""
    return patterns[np.argsort(masks_of_patterns(patterns))]
