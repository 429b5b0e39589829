"""What ``hwgen explore`` and ``hwgen fit`` do, as functions."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor.bundle import load_bundle
from compressor.recipes import Recipe, combined_recipes, load_recipe
from compressor.text_file import StrPath, make_folder, write_text
from hwgen.design_points import Evaluator
from hwgen.design_search import Exploration, search_all, search_designs
from hwgen.explore_request import ExploreRequest
from hwgen.plan import PlanError
from hwgen.report.explore_page import ExplorePage, explore_data, explore_page
from hwgen.report.files import render
from hwgen.report.variants_page import variants_data, variants_page
from hwgen.smallest import Fitted, refusal_line, smallest
from hwgen.variants import (
    VariantFront,
    evaluators,
    projected_variants,
    recipe_file,
    trained_variants,
)


def explore(model: StrPath, device: str, *, tokens: int | None = None, points: int = 2000,
            out: StrPath = "exploration", storage: str | None = None, study: str | None = None,
            workers: int = 1, progress: Callable[[int], None] | None = None) -> Exploration:
    """Search the sizes of an accelerator, cycles against resources and traffic: `hwgen explore`.

    Writes ``explore.json`` and ``explore.html``. Interrupted, it goes on where it stopped; a search with the
    same storage and study joins in.

    Parameters
    ----------
    model : path
        The bundle.
    device : str
        One of :data:`hwgen.devices.DEVICES`.
    tokens : int, optional
        Sequence length; the model's unless given.
    points : int
        Different points to evaluate; fewer if there are no more.
    out : path
        Directory for page, data and database.
    storage : str, optional
        SQLAlchemy URL of a database that several machines share; SQLite in ``out`` unless given.
    study : str, optional
        Name in the database; device and tokens unless given.
    workers : int
        Processes on this machine.
    progress : callable(int), optional
        Called with the number of points that are known.

    Returns
    -------
    hwgen.design_search.Exploration
        Cycles are exact, resources modelled.

    Raises
    ------
    BundleError
    PlanError
        If no point fits, or the database cannot be used.
    """
    evaluator, folder = Evaluator(load_bundle(model), device, tokens), Path(out)
    make_folder(folder)
    found = search_designs(evaluator, ExploreRequest(
        model=str(model), device=device, tokens=evaluator.tokens, points=points,
        storage=storage or _database(folder), study=study or f"{device}-{evaluator.tokens}"),
        workers=workers, progress=progress)
    _refuse_empty([found], device)
    data = explore_data(found)
    _write(folder, data, explore_page(found, data))
    return found


def explore_variants(models: Sequence[StrPath], device: str, *, recipes: Sequence[StrPath] = (),
                     changes: Mapping[str, Sequence[Any]] | None = None, train_from: StrPath | None = None,
                     tokens: int | None = None, points: int = 2000, out: StrPath = "exploration",
                     storage: str | None = None, study: str | None = None, workers: int = 1,
                     progress: Callable[[int], None] | None = None) -> VariantFront:
    """Explore several bundles, or what recipes make of one: `hwgen explore` with several models or recipes.

    Writes ``explore.json`` and ``explore.html``, and the recipes under ``recipes``.

    Parameters
    ----------
    models : sequence of path
        Trained bundles of one task; with recipes one bundle, a dense one.
    recipes : sequence of str or path
        Presets or files. Each prunes the dense bundle at once, by the compressor's projections: masks, and so
        cycles, are exact for these weights, but nothing is trained, and instead of an accuracy the retained
        energy is known.
    changes : dict of str to sequence, optional
        Values to try in each recipe, as for :func:`compressor.sweep`.
    train_from : str or path, optional
        The model from which the commands of recipes train; needed with them.
    points : int
        Different points to evaluate of each bundle; fewer if there are no more.
    study : str, optional
        First part of the studies' names.
    device, tokens, out, storage, workers, progress
        As for :func:`explore`.

    Returns
    -------
    hwgen.variants.VariantFront
        Cycles are exact, resources modelled.

    Raises
    ------
    BundleError, RecipeError
    PlanError
        If the bundles cannot be compared, no point of any fits, or the database cannot be used.
    """
    folder, named = Path(out), _named_recipes(recipes, changes or {})
    if named and len(models) != 1:
        raise PlanError(f"recipes are projected on one dense bundle; give one --model, not {len(models)}")
    if named and train_from is None:
        raise PlanError("recipes need --train-from, the model from which the commands of their points train")
    if not named and (changes or train_from is not None):
        raise PlanError("--set and --train-from go with --recipe; give one, or leave them out")
    variants = projected_variants(str(models[0]), named) if named else trained_variants(
        [str(model) for model in models])
    found = evaluators(variants, device, tokens)
    make_folder(folder)
    first = study or f"{device}-{found[0].tokens}"
    explorations = search_all([
        (evaluator, ExploreRequest(
            model=str(models[0]) if named else variant.name, device=device, tokens=evaluator.tokens,
            points=points, storage=storage or _database(folder), study=f"{first} {variant.name}",
            recipe=variant.recipe))
        for variant, evaluator in zip(variants, found, strict=True)], workers=workers, progress=progress)
    _refuse_empty(explorations, device)
    front = VariantFront(
        measure=next((one.measure for one in variants if one.measure), None), variants=variants,
        explorations=tuple(explorations), folder=folder,
        train_from=None if train_from is None else str(train_from))
    for name, recipe in named.items():
        write_text(recipe_file(folder, name), recipe.to_yaml())
    data = variants_data(front)
    _write(folder, data, variants_page(front, data))
    return front


def _named_recipes(recipes: Sequence[StrPath], changes: Mapping[str, Sequence[Any]]) -> dict[str, Recipe]:
    """Every recipe with every combination of changes, by a name that can be a file's."""
    named: dict[str, Recipe] = {}
    for recipe in recipes:
        for values, changed in combined_recipes(load_recipe(str(recipe)), changes).items():
            parts = (Path(recipe).stem if len(recipes) > 1 or not values else "", values)
            name = "_".join(part for part in parts if part)
            if name in named:
                raise PlanError(f"two recipes are called {name}; give their files different names")
            named[name] = changed
    return named


def _database(folder: Path) -> str:
    return f"sqlite:///{(folder / 'explore.db').resolve()}"


def _refuse_empty(found: Sequence[Exploration], device: str) -> None:
    if not any(one.front for one in found):
        raise PlanError(f"none of {sum(len(one.evaluations) for one in found)} points fits {device}; use "
                        "fewer --tokens or a larger device")


def _write(folder: Path, data: dict[str, Any], page: ExplorePage) -> None:
    write_text(folder / "explore.json", json.dumps(data, indent=1, sort_keys=True) + "\n")
    write_text(folder / "explore.html", render("explore.html", page))


def fit(model: StrPath, device: str, latency_ms: float, *, tokens: int | None = None,
        clock_mhz: float | None = None, progress: Callable[[int], None] | None = None) -> Fitted:
    """Find the smallest accelerator that meets a latency: `hwgen fit`.

    Parameters
    ----------
    model, device, tokens
        As for :func:`explore`.
    latency_ms : float
        What a sequence may take, in milliseconds.
    clock_mhz : float, optional
        Clock frequency in MHz; the device's, which is assumed, unless given.
    progress : callable(int), optional
        Called with the number of points that were evaluated.

    Returns
    -------
    hwgen.smallest.Fitted

    Raises
    ------
    BundleError
    PlanError
        If none meets it; the line says why, and what sparsity would.
    """
    evaluator = Evaluator(load_bundle(model), device, tokens)
    clock = clock_mhz or evaluator.device.assumed_clock_mhz
    found = smallest(evaluator, int(latency_ms * clock * 1e3), progress)
    if found.found is None:
        raise PlanError(refusal_line(found, evaluator, latency_ms, clock))
    return Fitted(model=str(model), device=device, tokens=evaluator.tokens, clock_mhz=clock,
                  evaluation=found.found)
