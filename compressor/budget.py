"""A hardware budget instead of one density: how much of each layer is kept, by what its K-steps cost.

What a K-step costs comes from the generator, in a file that ``hwgen costs`` writes; this package knows
nothing else of hardware. Storage budgets need no file.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from compressor.blocks import BLOCK, block_grid, to_blocks
from compressor.projection import Structure, scores_of
from compressor.recipes import RecipeError
from compressor.structures import Dense

FORMAT, SCHEMA_VERSION = "hwgen-costs", 1

DENSITIES = tuple(step / 16 for step in range(15, 0, -1))
"""Densities that a budget chooses from, beside whole layers."""


@dataclass(frozen=True)
class PerLayer(Structure):
    """One structure with a density for every layer.

    Parameters
    ----------
    base : structure
    shares : tuple of (str, float or None)
        By layer name: 1 for a dense layer, a density, or None for ``base`` as it is.
    """

    base: Structure
    shares: tuple

    @property
    def name(self):
        """That of the base."""
        return self.base.name

    @property
    def pool(self):
        """The base's pattern pool, or None."""
        return getattr(self.base, "pool", None)

    @property
    def removes_units(self):
        """Whether the base does."""
        return self.base.removes_units

    @property
    def units(self):
        """The base's units of group Lasso."""
        return self.base.units

    @property
    def description(self):
        """The base's, and the range of the shares that are kept."""
        dense = sum(share == 1 for _, share in self.shares)
        found = sorted(share for _, share in self.shares if share not in (None, 1))
        span = f", {100 * found[0]:.4g} to {100 * found[-1]:.4g} % of a matrix" if found else ""
        return f"{self.base.description}{span}" + (f", {dense} layers dense" if dense else "")

    def of_layer(self, name):
        share = dict(self.shares)[name]
        return Dense() if share == 1 else self.base if share is None else replace(self.base, density=share)

    def stored(self):
        return self.base.stored()

    def check_shape(self, shape):
        self.base.check_shape(shape)


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """What an accelerator's array takes, from ``hwgen costs``.

    Parameters
    ----------
    units : int
        Block units R: a tile has 4R output rows.
    token_groups : int
        How often every K-step runs.
    ksteps : dict of str to int
        K-steps of a column of 4x4 blocks in a tile, by the structure as which a layer is stored.
    fixed_cycles : int
        Everything but the passes of the linear layers.
    """

    units: int
    token_groups: int
    ksteps: dict
    fixed_cycles: int

    @classmethod
    def load(cls, path):
        """Read a file of ``hwgen costs``; RecipeError says what is wrong with it."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if (values["format"], values["schema_version"]) != (FORMAT, SCHEMA_VERSION):
                raise RecipeError(f"costs: {path}: not a file of hwgen costs, version {SCHEMA_VERSION}")
            return cls(units=values["units"], token_groups=values["token_groups"],
                       ksteps=dict(values["ksteps"]), fixed_cycles=values["fixed_cycles"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, RecipeError):
                raise
            raise RecipeError(f"costs: {path}: cannot be read: {error}") from error

    def cycles(self, weight, stored):
        """Cycles of a layer's passes: a K-step is absent where all R block rows of a tile are zero.

        Parameters
        ----------
        weight : tensor, shape (rows, K)
            Pruned.
        stored : str
            The structure as which it is stored: "dense", "pattern" or "nm".
        """
        down, _ = grid = block_grid(weight.shape)
        present = (to_blocks(weight) != 0).any(dim=1).reshape(grid)
        cycles = 0
        for start in range(0, down, self.units):
            columns = max(1, int(present[start:start + self.units].any(dim=0).sum()))
            words = min(self.units, down - start)
            cycles += max(columns * self.ksteps[stored], BLOCK * words)  # results leave row by row
        return cycles * self.token_groups

    def unpruned_cycles(self, others):
        """Cycles whatever is pruned: the fixed ones, and the passes of the layers that stay dense."""
        return self.fixed_cycles + sum(self.cycles(weight, "dense") for weight in others)


def expected_cycles(table, weights, structure, *, norms=None, others=()):
    """Cycles of the encoder pruned at once to a structure, and of the dense one; arguments as for
    :func:`choose_structure`."""
    expected = dense = table.unpruned_cycles(others)
    for name, weight in weights.items():
        own = structure.of_layer(name)
        projected, _ = own.project(weight.detach(), (norms or {}).get(name))
        expected += table.cycles(projected, own.stored().name)
        dense += table.cycles(weight.detach(), "dense")
    return expected, dense


@dataclass(frozen=True, kw_only=True)
class Level:
    """One way to keep a layer: ``share`` as in PerLayer, its cost (cycles or bits) and its loss."""

    share: float | None
    cost: int
    loss: float


def choose_structure(weights, base, budget, *, norms=None, others=()):
    """The PerLayer that meets a budget, and what it is expected to take.

    Parameters
    ----------
    weights : dict of str to Parameter
    base : structure
        Blocks or RowsAndColumns without a density, whose densities are chosen; or another, which every layer
        has or has not.
    budget : compressor.recipe_sections.Budget
    norms : dict of str to tensor, optional
        Input norms of error-aware projections.
    others : iterable of tensors
        Weights of the linear layers that are not pruned: they take cycles, too.

    Returns
    -------
    structure : PerLayer
    report : dict
        ``budget``, ``expected`` and ``dense``, in ``unit``.

    Raises
    ------
    RecipeError
        If the sparsest choice is above the budget, or a file cannot be used.
    """
    table = CostTable.load(budget.costs) if budget.costs else None
    sensitivity = load_sensitivity(budget.sensitivity) if budget.sensitivity else {}
    levels = {name: layer_levels(weight, base, table, (norms or {}).get(name), sensitivity.get(name))
              for name, weight in weights.items()}
    fixed = table.unpruned_cycles(others) if table else 0
    limit, unit = budget.limit
    chosen = allocate(levels, limit - fixed)
    if chosen is None:
        least = fixed + sum(min(level.cost for level in each) for each in levels.values())
        raise RecipeError(f"budget: {limit:,} {unit} cannot be met; the sparsest choice of "
                          f"{base.description} takes {least:,}" + (f", {fixed:,} of them whatever the "
                                                                  "weights" if fixed else ""))
    structure = PerLayer(base, tuple((name, level.share) for name, level in chosen.items()))
    return structure, {
        "unit": unit, "budget": limit, "expected": fixed + sum(level.cost for level in chosen.values()),
        "dense": fixed + sum(each[0].cost for each in levels.values())}


def layer_levels(weight, base, table, norms=None, sensitivity=None):
    """Levels of one layer, the whole layer first.

    The loss of a level is the share of the layer's squared scores that it removes, times its number of
    weights; with a measured sensitivity, times the loss per removed share instead.
    """
    weight = weight.detach()
    scale = weight.numel() if sensitivity is None else sensitivity
    candidates = [(1.0, Dense())]
    if getattr(base, "density", 1.0) is None:
        candidates += [(density, replace(base, density=density)) for density in DENSITIES]
    else:
        candidates.append((None, base))
    total = float(scores_of(weight, norms).square().sum())
    levels = []
    for share, structure in candidates:
        projected, found = structure.project(weight, norms)
        cost = table.cycles(projected, structure.stored().name) if table else structure.weight_bits(projected)
        levels.append(Level(share=share, cost=cost,
                            loss=scale * (1 - found.retained_energy) if total else 0.0))
    return levels


def allocate(levels, limit):
    """The level of each layer, by name, that costs at most ``limit`` together; None if there is none.

    Greedy: again and again the move to a cheaper level that loses least for what it saves.

    >>> levels = {"a": [Level(share=1, cost=8, loss=0), Level(share=.5, cost=4, loss=1)],
    ...           "b": [Level(share=1, cost=8, loss=0), Level(share=.5, cost=4, loss=3)]}
    >>> {name: level.share for name, level in allocate(levels, 12).items()}
    {'a': 0.5, 'b': 1}
    """
    chosen = {name: each[0] for name, each in levels.items()}
    total = sum(level.cost for level in chosen.values())
    while total > limit:
        moves = [((level.loss - chosen[name].loss) / (chosen[name].cost - level.cost), name, level)
                 for name, each in levels.items() for level in each if level.cost < chosen[name].cost]
        if not moves:
            return None
        _, name, level = min(moves, key=lambda move: move[0])
        total += level.cost - chosen[name].cost
        chosen[name] = level
    return chosen


def load_sensitivity(path):
    """Loss per removed share of each layer, by name, from a file of ``compress sensitivity``."""
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))["layers"]
        return {name: max(row["loss_increase"], 0.0) / max(row["removed"], 1e-12)
                for name, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"budget.sensitivity: {path}: cannot be read: {error}") from error
