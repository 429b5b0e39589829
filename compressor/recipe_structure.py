"""The structure that a recipe asks of given weights: its pool built from them, its budget spent on them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from compressor.blocks import to_blocks
from compressor.budget import choose_structure
from compressor.group_structures import structure_of
from compressor.pools import build_pool
from compressor.projection import Structure
from compressor.recipes import Recipe
from compressor.structures import Pattern

_POOL_SAMPLE = 200_000  # blocks handed to the pool builder, which samples them again


def recipe_structure(recipe: Recipe, weights: Mapping[str, torch.Tensor], *, given: Structure | None = None,
                     norms: Mapping[str, torch.Tensor] | None = None, others: Iterable[torch.Tensor] = ()
                     ) -> tuple[Structure, dict[str, Any] | None]:
    """The structure that pruning will ask for, with a pool of its final size.

    Parameters
    ----------
    recipe : Recipe
    weights : dict of str to tensor, shape (rows, K)
        What the recipe prunes, by module path.
    given : structure, optional
        What ``structure: {kind: model}`` stands for.
    norms : dict of str to tensor, optional
        Input norms of error-aware projections.
    others : iterable of tensors
        Weights of the encoder's other linear layers, which a budget has to pay for.

    Returns
    -------
    structure : see :mod:`compressor.structures`
    report : dict or None
        What the recipe's budget is expected to take, see :func:`compressor.budget.choose_structure`.

    Raises
    ------
    RecipeError
        If the budget cannot be met, or one of its files cannot be used.
    PoolError
        If there is no such pool.
    """
    structure = structure_of(recipe.structure, given) or Pattern(_build_pool(recipe.pool, weights))
    if recipe.budget is None:
        return structure, None
    return choose_structure(weights, structure, recipe.budget, norms=norms, others=others)


def _build_pool(pool, weights):
    share = max(1, sum(weight.numel() // 16 for weight in weights.values()) // _POOL_SAMPLE)
    blocks = np.concatenate([to_blocks(weight.detach().float()).cpu().numpy()[::share]
                             for weight in weights.values()])
    if blocks.any():  # blocks that an earlier recipe removed want no pattern
        blocks = blocks[blocks.any(axis=1)]
    return build_pool(pool.build, blocks, size=pool.size, keep=pool.keep, balance=pool.balance,
                      seed=pool.seed, file=pool.file)
