"""Structures that remove whole units: blocks of any size, rows and columns inside blocks, heads and rows.

They have the methods that :mod:`compressor.structures` lists. In a bundle they are dense matrices without
the 4x4 blocks that are all zero; heads and neurons that are gone make the layers smaller.
"""

from dataclasses import dataclass
from typing import Any

import torch

from compressor.blocks import BLOCK, POSITIONS, block_grid
from compressor.projection import Projection, Structure, StructureError, kept_energy, scores_of
from compressor.structures import NM, WEIGHT_BITS, Dense, Unstructured


class _Units(Structure):
    """What all of them share: stored as dense matrices, whose zero blocks are absent."""

    removes_units = True

    def check_shape(self, shape):
        block_grid(shape)

    def index(self, weight):
        self.verify(weight)

    def stored(self):
        return Dense()

    def bits(self, shape):
        return Dense().bits(shape)


def unit_sums(values, unit):
    """Sums over units of ``unit`` = (rows, columns), shape (down, across), from (rows, K).

    >>> unit_sums(torch.ones(4, 8), (4, 2)).tolist()
    [[8.0, 8.0, 8.0, 8.0]]
    """
    rows, inner = values.shape
    return values.reshape(rows // unit[0], unit[0], inner // unit[1], unit[1]).sum(dim=(1, 3))


def spread(units, unit):
    """Every unit's value at each of its weights: (rows, K) from (down, across).

    >>> spread(torch.tensor([[1, 0]]), (1, 2)).tolist()
    [[1, 1, 0, 0]]
    """
    return units.repeat_interleave(unit[0], dim=0).repeat_interleave(unit[1], dim=1)


@dataclass(frozen=True)
class Blocks(_Units):
    """Blocks of ``rows`` x ``columns`` weights, each kept whole or removed.

    1 x h are row segments and d x 1 column segments of block-structured pruning (S2); 4R x 4 is one K-step
    of an array with R block units, which is absent where the block is.

    Parameters
    ----------
    rows, columns : int
    density : float, optional
        Share of the blocks of every matrix that is kept, those with the largest norm, the lowest position on
        ties; None: all that are not zero, for masks that training itself has chosen.

    >>> Blocks(16, 4, 0.5).project(torch.ones(16, 16))[0][0].tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """

    rows: int
    columns: int
    density: float | None = None

    name = "blocks"

    @property
    def unit(self):
        """Rows and columns of a block."""
        return self.rows, self.columns

    @property
    def units(self):
        """The units that group Lasso shrinks: tuple of (rows, columns)."""
        return (self.unit,)

    @property
    def description(self):
        share = "" if self.density is None else f", {100 * self.density:.4g} % of every matrix"
        return f"blocks of {self.rows}x{self.columns}{share}"

    def check_shape(self, shape):
        super().check_shape(shape)
        _check_units(shape, self.unit)

    def project(self, weight, norms=None):
        self.check_shape(weight.shape)
        scores = scores_of(weight, norms)
        mask = spread(_largest(unit_sums(scores.square(), self.unit), self.density), self.unit)
        return weight.detach() * mask, Projection(mask=mask, index=None,
                                                  retained_energy=kept_energy(scores, mask))

    def verify(self, weight):
        self.check_shape(weight.shape)
        present = unit_sums((torch.as_tensor(weight) != 0).float(), self.unit) > 0
        allowed = _kept(present.numel(), self.density)
        if int(present.sum()) > allowed:
            raise StructureError(f"{int(present.sum())} blocks of {self.rows}x{self.columns} are not zero; "
                                 f"a density of {self.density:g} allows {allowed}")

    def bits(self, shape):
        kept = _kept(shape[0] * shape[1] // (self.rows * self.columns), self.density)
        # Blocks that 4x4 does not divide may leave a weight or two in any 4x4 block.
        if self.rows % BLOCK or self.columns % BLOCK:
            return Dense().bits(shape)
        return kept * self.rows * self.columns * WEIGHT_BITS + shape[0] * shape[1] // POSITIONS


@dataclass(frozen=True)
class RowsAndColumns(_Units):
    """Row segments of 1 x ``columns`` and column segments of ``rows`` x 1 inside blocks, both removable (S2).

    A weight is kept if its row segment and its column segment are. Segments are removed in the order of their
    root mean square, both kinds together, as many as the budget needs.

    Parameters
    ----------
    rows, columns : int
        Sizes of a block.
    density : float, optional
        Share of the weights of every matrix that is kept at most; None: all segments that are not zero.
    """

    rows: int
    columns: int
    density: float | None = None

    name = "rows_columns"

    @property
    def units(self):
        """The units that group Lasso shrinks: tuple of (rows, columns)."""
        return ((1, self.columns), (self.rows, 1))

    @property
    def description(self):
        share = "" if self.density is None else f", {100 * self.density:.4g} % of every matrix"
        return f"rows and columns of blocks of {self.rows}x{self.columns}{share}"

    def check_shape(self, shape):
        super().check_shape(shape)
        _check_units(shape, (self.rows, self.columns))

    def project(self, weight, norms=None):
        self.check_shape(weight.shape)
        scores = scores_of(weight, norms)
        energies = [unit_sums(scores.square(), unit) / (unit[0] * unit[1]) for unit in self.units]
        mask = self._mask(energies)
        return weight.detach() * mask, Projection(mask=mask, index=None,
                                                  retained_energy=kept_energy(scores, mask))

    def _mask(self, energies):
        def kept(removed):
            """Mask after removing so many segments, the smallest first, those that are zero always."""
            alive = torch.ones(len(order), dtype=torch.bool, device=order.device)
            alive[order[:removed]] = False
            row_part, column_part = alive.split([part.numel() for part in energies])
            return (spread(row_part.reshape(energies[0].shape), self.units[0])
                    & spread(column_part.reshape(energies[1].shape), self.units[1]))

        together = torch.cat([part.flatten() for part in energies])
        order = together.argsort(stable=True)
        low = int((together == 0).sum())
        if self.density is None:
            return kept(low)
        high = len(order)  # the least number of removed segments that meets the budget lies in low..high
        while low < high:
            middle = (low + high) // 2
            if float(kept(middle).float().mean()) <= self.density:
                high = middle
            else:
                low = middle + 1
        return kept(low)

    def verify(self, weight):
        self.check_shape(weight.shape)
        share = float((torch.as_tensor(weight) != 0).float().mean())
        if self.density is not None and share > self.density:
            raise StructureError(f"{100 * share:.4g} % of the weights are not zero; at most "
                                 f"{100 * self.density:.4g} % are allowed")


@dataclass(frozen=True)
class HeadsRows(_Units):
    """Whole heads and whole rows are removed, where training has chosen to (MLPruning, S3, first step).

    In a matrix that is rows that are zero. :mod:`compressor.removed_units` finds heads and neurons.
    """

    name = "heads_rows"
    description = "heads and rows"

    def project(self, weight, norms=None):
        mask = (weight.detach() != 0).any(dim=1, keepdim=True).expand(weight.shape).clone()
        return weight.detach().clone(), Projection(mask=mask, index=None, retained_energy=1.0)

    def verify(self, weight):
        self.check_shape(weight.shape)


def structure_of(section: Any, given: Any = None) -> Any:
    """The structure that a recipe's section asks for; None for patterns, whose pool comes from the weights.

    ``given``: what ``kind: model`` stands for.
    """
    if section.kind == "model":
        return given
    if section.kind == "pattern":
        return None
    kind = {"dense": Dense, "nm": NM, "unstructured": Unstructured, "blocks": Blocks,
            "rows_columns": RowsAndColumns, "heads_rows": HeadsRows}[section.kind]
    return kind(**section.model_dump(exclude={"kind", "score"}))


def _check_units(shape, unit):
    for size, step, what in zip(shape, unit, ("rows", "columns"), strict=True):
        if size % step:
            raise ValueError(f"{size} {what} do not divide into blocks of {unit[0]}x{unit[1]}; choose a "
                             f"number of {what} that divides them")


def _kept(count, density):
    return count if density is None else max(1, int(count * density + 0.5))


def _largest(energies, density):
    """Mask of the units with the most energy; without a density, of those that have any."""
    if density is None:
        return energies > 0
    mask = torch.zeros(energies.numel(), dtype=torch.bool, device=energies.device)
    order = energies.flatten().argsort(descending=True, stable=True)
    mask[order[:_kept(energies.numel(), density)]] = True
    return mask.reshape(energies.shape)
