"""Patterns as arrays: 0/1 masks of one 4x4 block, and what a set of them keeps. NumPy only."""

import numpy as np

from compressor.blocks import BLOCK, POSITIONS


def patterns_of_masks(masks):
    """Patterns of 16-bit masks: uint8 array, shape (P, 16).

    >>> patterns_of_masks([0x00F1])[0].tolist()
    [1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    """
    masks = np.asarray(masks, np.int64)
    return (masks[:, None] >> np.arange(POSITIONS) & 1).astype(np.uint8)


def masks_of_patterns(patterns):
    """Inverse of :func:`patterns_of_masks`: int64 array, shape (P,).

    >>> masks_of_patterns(patterns_of_masks([7, 0xFFFF])).tolist()
    [7, 65535]
    """
    return np.asarray(patterns, np.int64) @ (1 << np.arange(POSITIONS))


def candidate_patterns(keep=8, balance="none"):
    """Every pattern that satisfies the rules, ascending by mask: uint8 array, shape (C, 16).

    >>> len(candidate_patterns()), len(candidate_patterns(balance="row"))
    (12870, 1296)
    """
    patterns = patterns_of_masks(np.arange(1 << POSITIONS))
    fits = patterns.sum(axis=1) == keep
    if balance == "row":
        fits &= (patterns.reshape(-1, BLOCK, BLOCK).sum(axis=2) * BLOCK == keep).all(axis=1)
    return patterns[fits]


def reed_muller_patterns(balance="none"):
    """Weight-8 words of the Reed-Muller code RM(1,4), ascending by mask: uint8, shape (30, 16).

    The words are the affine functions of the four bits of a position. Any two of them share 0 or 4
    of their 8 positions, so that they cover the block evenly. With ``balance="row"`` the 24 words
    that depend on the column remain.

    >>> len(reed_muller_patterns()), len(reed_muller_patterns("row"))
    (30, 24)
    """
    bits = np.arange(POSITIONS)[:, None] >> np.arange(4) & 1  # column in bits 0-1, row in 2-3
    words = [(bits @ coefficients + constant) % 2
             for coefficients in bits[1:] for constant in (0, 1)
             if balance == "none" or coefficients[:2].any()]
    return sorted_by_mask(np.array(words, np.uint8))


def retained_energy(patterns, blocks):
    """Share of the squared weights kept by the best pattern of each block, 0 to 1.

    >>> retained_energy(patterns_of_masks([0x00FF]), np.eye(16)[:12])
    0.6666666666666666
    """
    energy = np.square(np.asarray(blocks, np.float64))
    total = energy.sum()
    best = (energy @ np.asarray(patterns, np.float64).T).max(axis=1).sum()
    return float(best / total) if total else 1.0


def sorted_by_mask(patterns):
    """The same patterns in ascending order of their masks."""
    return patterns[np.argsort(masks_of_patterns(patterns))]
