"""Explorations of several bundles side by side: trained ones, or one that recipes prune without training.

Every bundle has a study of its own, so searching is as fast and as shareable as for one. What is common is
the front: a point counts only if no point of a bundle at least as good is nowhere worse. *Good* is one
measure for all: the accuracy that the exporter measured, or, where nothing is trained, the retained energy,
which is no accuracy.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from compressor.bundle import Bundle, load_bundle
from compressor.recipe_projection import project_bundle
from compressor.recipes import Recipe, RecipeError
from compressor.tasks import TASKS
from hwgen.design_points import Evaluation, Evaluator
from hwgen.design_search import Exploration
from hwgen.plan import PlanError

AS_GIVEN = "as given"
"""Name of the dense bundle beside what recipes make of it."""

RETAINED_ENERGY = "retained energy, not trained"


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """One bundle of several whose accelerators are explored.

    Parameters
    ----------
    name : str
        The bundle's path, or the recipe's name and what was changed in it.
    bundle : compressor.bundle.Bundle
    recipe : Recipe or None
        What pruned the bundle, without training.
    measure : str or None
        What ``quality`` is; None if it is not known.
    quality : float or None
        Higher is better.
    """

    name: str
    bundle: Bundle
    recipe: Recipe | None = None
    measure: str | None = None
    quality: float | None = None

    @property
    def kept(self) -> float:
        """Share of the weights that is kept, 0 to 1."""
        return self.bundle.kept_weights / self.bundle.weights


@dataclass(frozen=True, kw_only=True, eq=False)
class VariantFront:
    """What an exploration of several bundles found.

    Parameters
    ----------
    measure : str or None
        What the qualities are; None if none is known.
    variants : tuple of Variant
    explorations : tuple of Exploration
        One for each variant.
    folder : pathlib.Path
        Where the recipes are, for the commands.
    train_from : str or None
        The model from which the commands of recipes train.
    """

    measure: str | None
    variants: tuple[Variant, ...]
    explorations: tuple[Exploration, ...]
    folder: Path
    train_from: str | None = None

    @cached_property
    def front(self) -> list[tuple[Variant, Evaluation]]:
        """The points that no other one dominates, by cycles."""
        return common_front((variant, one) for variant, found in self.pairs for one in found.front)

    @property
    def pairs(self) -> list[tuple[Variant, Exploration]]:
        """Each variant with its exploration."""
        return list(zip(self.variants, self.explorations, strict=True))

    def command(self, variant: Variant, one: Evaluation) -> str:
        """What makes a point: of a recipe's training and export, then the build."""
        found = self.explorations[0]
        if variant.recipe is None:
            model = found.model if variant.name == AS_GIVEN else variant.name
            return one.point.command(model, "BUILD", found.device, found.tokens)
        run = self.folder / "runs" / variant.name
        bundle = run / "pruned.pt"
        return " && ".join((
            shlex.join(["compress", "train", str(recipe_file(self.folder, variant.name)), "--model",
                        str(self.train_from), "--task", task_argument(variant.bundle.model["task"]),
                        "--out", str(run)]),
            shlex.join(["compress", "export", str(run), "--out", str(bundle)]),
            one.point.command(bundle, "BUILD", found.device, found.tokens)))


def task_argument(task: str) -> str:
    """What ``compress train --task`` takes: the name of a known task, or the file that describes another.

    >>> task_argument("sst2"), task_argument("topics")
    ('sst2', 'TASK.yaml')
    """
    return task if task in TASKS else "TASK.yaml"


def recipe_file(folder: Path, name: str) -> Path:
    """Where the recipe of a variant is written."""
    return folder / "recipes" / f"{name}.yaml"


def trained_variants(models: Sequence[str]) -> tuple[Variant, ...]:
    """Bundles of one task, with the accuracies that their exports measured.

    Raises
    ------
    BundleError
    PlanError
        If one is given twice, their tasks differ, or their accuracies cannot be compared.
    """
    if len(set(models)) < len(models):
        raise PlanError(f"--model {next(one for one in models if models.count(one) > 1)} is given twice")
    variants = []
    for model in models:
        bundle = load_bundle(model)
        measure, quality = _accuracy(bundle)
        variants.append(Variant(name=model, bundle=bundle, measure=measure, quality=quality))
    first = variants[0]
    for other in variants[1:]:
        if other.bundle.model["task"] != first.bundle.model["task"]:
            raise PlanError(f"{first.name} is for task {first.bundle.model['task']}, {other.name} for "
                            f"{other.bundle.model['task']}; explore bundles of one task together")
    measures = {one.measure: one.name for one in variants if one.measure}
    if len(measures) > 1:
        (one, here), (two, there), *_ = measures.items()
        raise PlanError(f"{here} has measured {one}, {there} {two}; export both with the same "
                        "--validation-rows")
    return tuple(variants)


def projected_variants(model: str, recipes: Mapping[str, Recipe]) -> tuple[Variant, ...]:
    """A dense bundle, and what each recipe makes of it without training.

    Raises
    ------
    BundleError
    RecipeError
        If the bundle is not dense, or a projection does not find what a recipe prunes.
    """
    bundle = load_bundle(model)
    variants = [Variant(name=AS_GIVEN, bundle=bundle, measure=RETAINED_ENERGY, quality=1.0)]
    for name, recipe in recipes.items():
        try:
            pruned, energy = project_bundle(bundle, recipe)
        except RecipeError as error:
            raise RecipeError(f"{name}: {error}") from error
        variants.append(Variant(name=name, bundle=pruned, recipe=recipe, measure=RETAINED_ENERGY,
                                quality=energy))
    return tuple(variants)


def evaluators(variants: Iterable[Variant], device: str, tokens: int | None) -> list[Evaluator]:
    """The evaluator of each variant; PlanError if one cannot be built, or their lengths differ."""
    found = []
    for variant in variants:
        try:
            found.append(Evaluator(variant.bundle, device, tokens))
        except PlanError as error:
            raise PlanError(f"{variant.name}: {error}") from error
        if found[-1].tokens != found[0].tokens:
            raise PlanError(f"{variant.name} reads {found[-1].tokens} tokens, the first {found[0].tokens}; "
                            "give --tokens")
    return found


def common_front(points: Iterable[tuple[Variant, Evaluation]]) -> list[tuple[Variant, Evaluation]]:
    """The points that fit and that no other one dominates, by cycles.

    A point is dominated by one of the same variant, or of one with at least its quality, that is nowhere
    worse and somewhere better. Without a quality only points of the same variant compare.
    """
    front: list[tuple[Variant, Evaluation]] = []
    for variant, one in sorted((pair for pair in points if pair[1].fits),
                               key=lambda pair: (pair[1].values, -(pair[0].quality or 0.0),
                                                 pair[1].point.plainness)):
        # In this order only an earlier point can dominate, and an equal one counts once.
        if not any(_as_good(other, variant)
                   and all(a <= b for a, b in zip(cost.values, one.values, strict=True))
                   for other, cost in front):
            front.append((variant, one))
    return front


def _as_good(other: Variant, variant: Variant) -> bool:
    if other is variant:
        return True
    return other.quality is not None and variant.quality is not None and other.quality >= variant.quality


def _accuracy(bundle: Bundle) -> tuple[str | None, float | None]:
    """The task's first metric of the integers, as the exporter measured it, and on what."""
    measured = bundle.metrics.get("quantization")
    if not measured:
        return None, None
    name, value = next(iter(measured["quantized"].items()))
    return f"{name.replace('_', ' ')} on {measured['rows']} rows", float(value)
