"""Slot assignment: which multiplier of a block unit computes which nonzero of each pattern.

A block unit has 4n multipliers for each lane. For every *entry* (a pattern, or one part of a dense
block) an assignment names, for each multiplier, the column it reads and the row it adds to. A row has
*ports*; each port selects one of a few candidate multipliers, or none. In a row-balanced pool every
row has n multipliers of its own: one candidate a port, never gated, so no routing at all.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from rtl_templates.slot_solver import MUX_COST, SIZE, any_pattern_ports, place_any, solve_pool


@dataclass(frozen=True)
class SlotAssignment:
    """Entries, and the routing they need.

    Parameters
    ----------
    slots : int
        n: multipliers a row in a balanced unit; the unit has 4n.
    rows, columns : tuple of tuple of int, shape (entries, 4n)
        Row (or -1: unused) and column of the nonzero that each multiplier computes.
    ports : tuple, shape (4 rows, ports of the row, candidates)
        Candidate multipliers of each port.
    patterns : int
        Entries that are patterns of the pool; the rest are the parts of a dense block.

    Raises
    ------
    ValueError
        If a multiplier's product could not reach its row.
    """

    slots: int
    rows: tuple[tuple[int, ...], ...]
    columns: tuple[tuple[int, ...], ...]
    ports: tuple[tuple[tuple[int, ...], ...], ...]
    patterns: int

    def __post_init__(self):
        for entry in range(self.entries):
            delivered = sorted(m for row in range(SIZE) for m in self._delivered(entry, row))
            used = [m for m in range(self.multipliers) if self.rows[entry][m] >= 0]
            if delivered != used:
                raise ValueError(f"entry {entry}: the ports deliver products {delivered}, not {used}")

    @classmethod
    def balanced(cls, masks: npt.ArrayLike, slots: int) -> Self:
        """Assignment of a row-balanced pool: multiplier ``row * n + j`` takes one nonzero of its row.

        Which one is chosen so that the multipliers of a row read as few columns as possible; ascending
        columns where that is as good. In a bank-balanced pool each reads 4 / n columns.

        Parameters
        ----------
        masks : uint8 array, shape (P, 16)
            Patterns, row-major, each with exactly ``slots`` ones in every row.
        """
        masks = np.asarray(masks, np.uint8).reshape(-1, SIZE, SIZE)
        counts = masks.sum(axis=2)
        if (counts != slots).any():
            pattern = int(np.argmax((counts != slots).any(axis=1)))
            raise ValueError(f"pattern {pattern} keeps {counts[pattern].tolist()} in its rows; "
                             f"a balanced unit needs {slots} in each")
        entries = np.concatenate([masks, dense_parts(slots)])
        rows = tuple(tuple(int(r) for r in np.nonzero(entry)[0]) for entry in entries)
        ordered = [_narrowest_order(entries[:, row]) for row in range(SIZE)]
        columns = tuple(tuple(c for row in ordered for c in row[entry]) for entry in range(len(entries)))
        ports = tuple(tuple((row * slots + j,) for j in range(slots)) for row in range(SIZE))
        return cls(slots, rows, columns, ports, len(masks))

    @classmethod
    def solve(cls, masks: npt.ArrayLike, slots: int) -> Self:
        """Assignment of a pool whose rows need not be balanced, with the least routing found.

        Parameters
        ----------
        masks : uint8 array, shape (P, 16)
            Patterns, row-major, each with at most ``4 * slots`` ones in any rows.

        Notes
        -----
        Takes about a second for 32 patterns. The same pool always gives the same assignment.
        """
        patterns = _masks_of_at_most(masks, slots)
        entries = np.concatenate([patterns, dense_parts(slots)])
        return cls(slots, *solve_pool(entries, slots), len(patterns))

    @classmethod
    def any_pattern(cls, masks: npt.ArrayLike, slots: int) -> Self:
        """Assignment with ports for every pattern, whatever ``masks`` holds: for pools loaded at run time.

        The hardware depends on ``slots`` and, through the width of an id, on the number of patterns.
        :func:`rtl_templates.slot_solver.place_any` makes the entry of any other mask.

        Parameters
        ----------
        masks : uint8 array, shape (P, 16)
            Patterns, row-major, each with at most ``4 * slots`` ones in any rows.
        """
        patterns = _masks_of_at_most(masks, slots)
        placed = [place_any(entry, slots) for entry in np.concatenate([patterns, dense_parts(slots)])]
        rows, columns = zip(*placed, strict=True)
        return cls(slots, rows, columns, any_pattern_ports(slots), len(patterns))

    @property
    def multipliers(self):
        """Multipliers of a unit for one lane."""
        return SIZE * self.slots

    @property
    def entries(self):
        """Patterns plus the parts of a dense block."""
        return len(self.rows)

    @property
    def dense_entries(self):
        """Ids of the parts that together cover a dense block: 4/n of them."""
        return tuple(range(self.patterns, self.entries))

    @property
    def is_routed(self):
        """True if some port has a choice, that is, if the pool is not row-balanced."""
        return any(self.port_bits(candidates) for row in self.ports for candidates in row)

    @cached_property
    def masks(self):
        """uint8 array, shape (entries, 4, 4): the positions that each entry computes."""
        masks = np.zeros((self.entries, SIZE, SIZE), np.uint8)
        for entry in range(self.entries):
            for row, column in zip(self.rows[entry], self.columns[entry], strict=True):
                if row >= 0:
                    masks[entry, row, column] = 1
        return masks

    def port_bits(self, candidates):
        """Select width of a port in bits, from the structure alone; code 0 is none.

        0 bits if its one candidate is no other port's: an unused multiplier then has weight 0.
        """
        takers = sum(candidates[0] in other for row in self.ports for other in row)
        return 0 if len(candidates) == 1 and takers == 1 else len(candidates).bit_length()

    def port_code(self, entry, row, candidates):
        """Select of a port in one entry: 0 none, i + 1 for its i-th candidate."""
        chosen = [i for i, m in enumerate(candidates) if self.rows[entry][m] == row]
        return chosen[0] + 1 if chosen else 0

    @property
    def control_bits(self):
        """Width of a control word: 2 bits of column a multiplier, then the selects of the ports."""
        return 2 * self.multipliers + sum(self.port_bits(c) for row in self.ports for c in row)

    def control_word(self, entry):
        """Control word of an entry: columns from bit 0, then ports, row by row."""
        word = sum(column << 2 * m for m, column in enumerate(self.columns[entry]))
        position = 2 * self.multipliers
        for row, ports in enumerate(self.ports):
            for candidates in ports:
                width = self.port_bits(candidates)
                if width:
                    word |= self.port_code(entry, row, candidates) << position
                    position += width
        return word

    def place(self, blocks, entries):
        """Weights in slot order.

        Parameters
        ----------
        blocks : int8 array, shape (N, 4, 4)
            Values outside the entry's positions are ignored.
        entries : int array, shape (N,)

        Returns
        -------
        int8 array, shape (N, 4n)
        """
        rows = np.asarray(self.rows)[entries]
        columns = np.asarray(self.columns)[entries]
        placed = blocks[np.arange(len(blocks))[:, None], rows, columns]
        return np.where(rows < 0, 0, placed).astype(np.int8)

    def _delivered(self, entry, row):
        for candidates in self.ports[row]:
            yield from [m for m in candidates if self.rows[entry][m] == row][:1]


def _narrowest_order(rows):
    """Columns of the ones in each row, in the order that keeps the multiplexers of the slots smallest.

    ``rows``: uint8 array, shape (entries, 4), equally many ones in each. Searches all orders of the distinct
    rows: at most 64, because rows of 2 have 6 sets of columns and rows of 1 or 4 need no order.
    """
    sets = [tuple(int(c) for c in np.nonzero(row)[0]) for row in rows]
    distinct = sorted(set(sets))

    def cost(orders):
        return sum(MUX_COST[len(set(columns))] for columns in zip(*orders, strict=True))

    best = min(itertools.product(*map(itertools.permutations, distinct)), key=cost)
    chosen = dict(zip(distinct, best, strict=True))
    return [chosen[columns] for columns in sets]


def _masks_of_at_most(masks, slots):
    masks = np.asarray(masks, np.uint8).reshape(-1, SIZE, SIZE)
    counts = masks.sum(axis=(1, 2))
    if counts.size and counts.max() > SIZE * slots:
        pattern = int(counts.argmax())
        raise ValueError(f"pattern {pattern} keeps {counts[pattern]} positions; a unit with {slots} slots "
                         f"a row computes at most {SIZE * slots} a cycle; use more slots")
    return masks


def dense_parts(slots):
    """Masks that together cover a dense block, ``slots`` columns at a time: shape (4 / slots, 4, 4).

    >>> dense_parts(2)[1][0].tolist()
    [0, 0, 1, 1]
    """
    if SIZE % slots:
        raise ValueError(f"slots must be 1, 2 or 4, not {slots}")
    parts = np.zeros((SIZE // slots, SIZE, SIZE), np.uint8)
    for part in range(SIZE // slots):
        parts[part, :, part * slots:(part + 1) * slots] = 1
    return parts
