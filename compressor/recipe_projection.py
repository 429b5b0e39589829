"""A dense bundle pruned at once, as a recipe would: what its masks cost before anything is trained."""

from dataclasses import replace

import numpy as np
import torch

from compressor.architectures import ARCHITECTURES
from compressor.bundle import Bundle
from compressor.group_structures import structure_of
from compressor.pools import PoolError
from compressor.recipe_structure import recipe_structure
from compressor.recipes import Recipe, RecipeError
from compressor.structures import Dense

DENSE_SHARE = 0.99
"""A bundle that keeps fewer weights is pruned; in a dense one a block may have rounded to zeros."""


def project_bundle(bundle: Bundle, recipe: Recipe) -> tuple[Bundle, float]:
    """Prune a dense bundle by a recipe's structure, pool, targets and budget; nothing is trained.

    Activation scales, biases and operators stay as they are. The recipe's stages do not count: what training
    would recover of the accuracy is not known here.

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
        Every weight of its linear layers is kept, and its attention maps are whole.
    recipe : Recipe

    Returns
    -------
    bundle : compressor.bundle.Bundle
        Each targeted layer is the nearest one that has the structure, as real weights go.
    retained_energy : float
        Share of the squared real weights of all linear layers that is kept, 0 to 1. Not an accuracy.

    Raises
    ------
    RecipeError
        If the bundle is pruned already, or the recipe says what a projection does not find.
    """
    _check(bundle, recipe)
    path = ARCHITECTURES[bundle.model["architecture"]].module_path
    real = {name: bundle.folding(name).unfold(layer) for name, layer in bundle.layers.items()}
    targets = {path(name): torch.from_numpy(real[name][0]).float() for name, layer in bundle.layers.items()
               if layer.role in recipe.targets.roles}
    for name, target in targets.items():
        _check_shape(recipe, name, target)
    try:
        structure, _ = recipe_structure(recipe, targets, others=[
            torch.from_numpy(weight) for name, (weight, _) in real.items() if path(name) not in targets])
    except PoolError as error:
        raise RecipeError(f"pool: {error}") from error
    layers, removed, total = dict(bundle.layers), 0.0, 0.0
    for name, (weight, bias) in real.items():
        energy = float(np.square(weight).sum())
        total += energy
        if path(name) in targets:
            own, old = structure.of_layer(path(name)), bundle.layers[name]
            projected, found = own.project(targets[path(name)])
            layers[name] = bundle.folding(name).quantize(
                name, old.role, projected.numpy(), bias, structure=own, input_scale=old.input_scale,
                output_scale=old.output_scale)
            removed += (1 - found.retained_energy) * energy
    pool = getattr(structure, "pool", None) or bundle.pool
    return (replace(bundle, layers=layers, pool=pool, recipe=recipe.to_dict(), metrics={}),
            1 - removed / total if total else 1.0)


def _check(bundle: Bundle, recipe: Recipe) -> None:
    if bundle.kept_weights < DENSE_SHARE * bundle.weights:
        raise RecipeError(f"the bundle keeps {bundle.kept_weights:,} of {bundle.weights:,} weights: it is "
                          "pruned already; recipes are projected on a dense model, export that one")
    if recipe.attention_maps is not None or (bundle.operators and bundle.attention_maps):
        raise RecipeError("pruned attention maps are not projected: their patterns come from sentences; "
                          "remove attention_maps, or explore bundles that were trained with them")
    kind = recipe.structure.kind
    if kind in ("model", "heads_rows") or (getattr(recipe.structure, "density", 1) is None
                                           and recipe.budget is None):
        raise RecipeError(f"structure: {{kind: {kind}}}: training decides what is removed, a projection does "
                          "not find it; give it a density, or train and explore the bundle")
    if recipe.structure.score == "activation":
        raise RecipeError("structure.score: activation needs the inputs of sentences; explore with "
                          "score: magnitude")
    if any(stage.method == "retrain" and stage.fit_rows for stage in recipe.stages):
        raise RecipeError("fit_rows needs the inputs of sentences; explore without it, which keeps as much")
    if not recipe.prunes:
        raise RecipeError("the recipe prunes nothing: it has no stages but dense and quantize")


def _check_shape(recipe: Recipe, name: str, weight: torch.Tensor) -> None:
    try:
        (structure_of(recipe.structure) or Dense()).check_shape(weight.shape)
    except ValueError as error:
        raise RecipeError(f"{name}: {error}") from error
