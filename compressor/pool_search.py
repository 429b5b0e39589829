"""How to choose the patterns of a pool. NumPy only.

Each builder takes ``(energy, candidates, size, keep, balance, rng)``: the squared weights of a sample
of blocks, float32, shape (n, 16); the patterns that may be chosen, uint8, shape (C, 16); how many to
choose; ones in each; its balance; a seeded generator. It returns ``size`` distinct candidates.
"""

import numpy as np

from compressor.blocks import POSITIONS
from compressor.patterns import balance_groups, masks_of_patterns, patterns_of_masks, reed_muller_patterns

GREEDY_BLOCKS = 1500
"""Blocks that a search over all 12,870 patterns looks at: bounds its time and memory."""


def greedy(energy, candidates, size, chosen):
    """Add the candidate that raises the kept energy most, until ``size`` patterns are chosen."""
    chosen = list(chosen)
    best = np.zeros(len(energy), np.float32)
    for pattern in chosen:
        best = np.maximum(best, energy @ pattern.astype(np.float32))
    taken = {pattern.tobytes() for pattern in chosen}
    free = np.array([pattern.tobytes() not in taken for pattern in candidates])
    # Candidates in rows: the running best of a block then compares along contiguous memory.
    kept = candidates.astype(np.float32) @ energy.T
    while len(chosen) < size:
        gain = np.array([np.maximum(row, best).sum() for row in kept])
        winner = int(np.argmax(np.where(free, gain, -1)))
        free[winner] = False
        chosen.append(candidates[winner])
        best = np.maximum(best, kept[winner])
    return np.array(chosen, np.uint8)


def _build_reed_muller(energy, candidates, size, keep, balance, rng):
    words = reed_muller_patterns(balance)
    if size <= len(words):
        return greedy(energy, words, size, [])
    return greedy(energy, candidates, size, words)


def _build_greedy(energy, candidates, size, keep, balance, rng):
    return greedy(energy[:GREEDY_BLOCKS], candidates, size, [])


def _build_frequency(energy, candidates, size, keep, balance, rng):
    best = _top_positions(energy, keep, balance)
    seen, counts = np.unique(masks_of_patterns(best), return_counts=True)
    most = seen[np.argsort(-counts, kind="stable")[:size]]
    return greedy(energy[:GREEDY_BLOCKS], candidates, size, patterns_of_masks(most))


def _build_kmeans(energy, candidates, size, keep, balance, rng, starts=4, rounds=8):
    best, best_energy = None, -1.0
    for _ in range(starts):
        patterns = candidates[rng.choice(len(candidates), size, replace=False)]
        for _ in range(rounds):
            owner = (energy @ patterns.T.astype(np.float32)).argmax(axis=1)
            sums = np.zeros((size, POSITIONS))
            np.add.at(sums, owner, energy)
            updated = _top_positions(sums, keep, balance)
            # An empty cluster, or one equal to another, starts again from a free pattern.
            masks, first = np.unique(masks_of_patterns(updated), return_index=True)
            lost = np.setdiff1d(np.arange(size), first)
            free = np.setdiff1d(masks_of_patterns(candidates), masks)
            updated[lost] = patterns_of_masks(rng.choice(free, len(lost), replace=False))
            if (updated == patterns).all():
                break
            patterns = updated
        kept = float((energy @ patterns.T.astype(np.float32)).max(axis=1).sum())
        if kept > best_energy:
            best, best_energy = patterns, kept
    return best


def _top_positions(energy, keep, balance):
    """Pattern of the largest entries of each group: the best one; lowest position on ties."""
    groups = balance_groups(keep, balance)
    patterns = np.zeros(energy.shape, np.uint8)
    for group in groups:
        patterns[:, group] = _top(energy[:, group], keep // len(groups))
    return patterns


def _top(values, count):
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    patterns = np.zeros(values.shape, np.uint8)
    np.put_along_axis(patterns, order, 1, axis=1)
    return patterns


BUILDERS = {
    "reed_muller": _build_reed_muller,
    "greedy": _build_greedy,
    "kmeans": _build_kmeans,
    "frequency": _build_frequency,
}
"""The searches, by the name a recipe gives them."""
