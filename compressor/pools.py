"""Pattern pools: which 4x4 masks a model may use, and how to choose them. NumPy only.

The quality of a pool is its *retained energy*: the share of the squared weights that survives when
every block keeps the pattern that suits it best.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor import pool_search
from compressor.blocks import BLOCK, POSITIONS
from compressor.patterns import are_balanced, candidate_patterns, masks_of_patterns, sorted_by_mask

POOL_MAX = 256
"""Most patterns a pool may have: a pattern id is one byte in the bundle."""

BUILDERS = (*pool_search.BUILDERS, "file")
"""Names of the pool builders."""

MAP_KEEPS = (4, 8, 16)
"""Kept positions of a row-balanced pool whose patterns attention maps may use: rows of 1, 2 or 4 slots."""

SAMPLE_BLOCKS = 6000
"""Blocks that the data-driven builders look at; more does not change the pools measurably."""


class PoolError(ValueError):
    """A pool, or a pool file, that cannot be used."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PatternPool:
    """The patterns a model may use; a pattern id is an index into ``patterns``.

    Parameters
    ----------
    patterns : uint8 array, shape (P, 16)
        0 or 1, each row one 4x4 mask in row-major order; all rows differ; P is 1 to 256.
    keep : int
        Ones in every pattern, 1 to 16.
    balance : str
        "row": every row of every pattern has ``keep / 4`` ones; "bank": each in a bank of columns of its own,
        see :func:`compressor.patterns.balance_groups`; "none": anything goes.

    Raises
    ------
    PoolError
        If a pattern breaks one of these rules.

    >>> from compressor.patterns import patterns_of_masks
    >>> pool = PatternPool(patterns=patterns_of_masks([0x3333, 0xCCCC]), keep=8, balance="row")
    >>> pool.size, pool.is_row_balanced, [hex(mask) for mask in pool.masks]
    (2, True, ['0x3333', '0xcccc'])
    """

    patterns: npt.NDArray[np.uint8]
    keep: int = 8
    balance: str = "row"

    def __post_init__(self) -> None:
        patterns = np.array(self.patterns)  # a copy of our own, which is then frozen
        if patterns.ndim != 2 or patterns.shape[1] != POSITIONS:
            raise PoolError(f"patterns must have shape (P, {POSITIONS}), not {patterns.shape}")
        if not 1 <= len(patterns) <= POOL_MAX:
            raise PoolError(f"a pool has 1 to {POOL_MAX} patterns, not {len(patterns)}")
        if not np.isin(patterns, (0, 1)).all():
            raise PoolError("patterns must consist of 0 and 1")
        patterns = patterns.astype(np.uint8)
        patterns.setflags(write=False)
        object.__setattr__(self, "patterns", patterns)
        kept = patterns.sum(axis=1)
        if (kept != self.keep).any():
            wrong = int(np.argmax(kept != self.keep))
            raise PoolError(f"pattern {wrong} keeps {kept[wrong]} of {POSITIONS} positions; "
                            f"every pattern of this pool must keep {self.keep}")
        if len(set(self.masks)) != len(patterns):
            raise PoolError("two patterns of the pool are equal; list each pattern once")
        try:
            balanced = are_balanced(patterns, self.keep, self.balance)
        except ValueError as error:
            raise PoolError(str(error)) from error
        if not balanced.all():
            raise PoolError(f'balance is "{self.balance}", but pattern {int(np.argmin(balanced))} keeps '
                            f'unequal numbers in its {self.balance}s; use balance "none"')

    @property
    def size(self) -> int:
        """Number of patterns P."""
        return len(self.patterns)

    @property
    def masks(self) -> tuple[int, ...]:
        """The patterns as 16-bit integers, position ``i`` in bit ``i``."""
        return tuple(masks_of_patterns(self.patterns).tolist())

    @property
    def is_row_balanced(self) -> bool:
        """Whether every row of every pattern has the same number of ones."""
        rows = self.patterns.reshape(-1, BLOCK, BLOCK).sum(axis=2)
        return bool((rows == rows[0, 0]).all())

    @property
    def serves_maps(self) -> bool:
        """Whether attention maps may use its patterns: every row must fill the slots of the array."""
        return self.is_row_balanced and self.keep in MAP_KEEPS

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PatternPool):
            return NotImplemented
        return (self.masks, self.keep, self.balance) == (other.masks, other.keep, other.balance)

    def __hash__(self) -> int:
        return hash((self.masks, self.keep, self.balance))


def build_pool(build, blocks=None, *, size=32, keep=8, balance="row", seed=0, file=None):
    """Choose a pool.

    Parameters
    ----------
    build : str
        ``reed_muller``: RM(1,4) words, then greedy; nearly independent of the data, and the best
        measured. ``greedy``: maximum coverage over all patterns. ``kmeans``: alternate assignment
        and update, best of several starts. ``frequency``: the patterns that suit most blocks.
        ``file``: read ``file``, see :func:`read_pool`.
    blocks : float array, shape (n, 16), optional
        Blocks of the model's weights, see :func:`compressor.blocks.to_blocks`; a seeded sample of
        6000 is used. Without them: normally distributed blocks.
    size, keep : int
        Number of patterns (1 to 256) and ones in each (1 to 16; a multiple of 4 for balance "row").
    balance : str
        "row", "bank" or "none", see :func:`compressor.patterns.balance_groups`.

    Returns
    -------
    PatternPool
        Patterns in ascending order of mask.

    Raises
    ------
    PoolError
        If no such pool exists; the message says what is possible.

    >>> build_pool("reed_muller").size
    32
    """
    if build == "file":
        if file is None:
            raise PoolError("build: file needs the name of a pool file")
        return read_pool(file, keep=keep, balance=balance)
    if build not in BUILDERS:
        raise PoolError(f"unknown pool builder {build!r}; use one of {', '.join(BUILDERS)}")
    if build == "reed_muller" and keep != POSITIONS // 2:
        raise PoolError(f"build: reed_muller keeps {POSITIONS // 2} of {POSITIONS}, not {keep}; "
                        f"use build: greedy")
    try:
        candidates = candidate_patterns(keep, balance)
    except ValueError as error:
        raise PoolError(str(error)) from error
    if not 1 <= size <= min(POOL_MAX, len(candidates)):
        raise PoolError(f"a pool with keep {keep} and balance {balance} has 1 to "
                        f"{min(POOL_MAX, len(candidates))} patterns, not {size}")
    rng = np.random.default_rng(seed)
    energy = _sample_energy(blocks, rng)
    patterns = pool_search.BUILDERS[build](energy, candidates, size, keep, balance, rng)
    return PatternPool(patterns=sorted_by_mask(patterns), keep=keep, balance=balance)


def read_pool(path, *, keep=8, balance="row"):
    """Read a pool from a text file: one pattern a line, 16 digits 0 or 1.

    Spaces, empty lines and # comments are free.

    Raises
    ------
    PoolError
        If the file cannot be read or a line is not a pattern; the message names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PoolError(f"{path}: cannot read the pool file: {error}") from error
    patterns = []
    for number, line in enumerate(text.splitlines(), start=1):
        digits = "".join(line.split("#")[0].split())
        if not digits:
            continue
        if len(digits) != POSITIONS or set(digits) - {"0", "1"}:
            raise PoolError(f"{path}, line {number}: {line.strip()!r} is not a pattern; "
                            f"write {POSITIONS} digits 0 or 1, row by row")
        patterns.append([int(digit) for digit in digits])
    if not patterns:
        raise PoolError(f"{path}: no patterns in the file; write {POSITIONS} digits 0 or 1 a line")
    try:
        return PatternPool(patterns=np.array(patterns), keep=keep, balance=balance)
    except PoolError as error:
        raise PoolError(f"{path}: {error}") from error


def _sample_energy(blocks, rng):
    """Squared weights of at most SAMPLE_BLOCKS blocks, float32, shape (n, 16)."""
    if blocks is None:
        blocks = rng.standard_normal((SAMPLE_BLOCKS, POSITIONS))
    blocks = np.asarray(blocks)
    if blocks.ndim != 2 or blocks.shape[1] != POSITIONS or not len(blocks):
        raise PoolError(f"blocks must have shape (n, {POSITIONS}), not {blocks.shape}")
    if len(blocks) > SAMPLE_BLOCKS:
        blocks = blocks[np.sort(rng.choice(len(blocks), SAMPLE_BLOCKS, replace=False))]
    return np.square(blocks.astype(np.float32))
