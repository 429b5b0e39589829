"""Recipes: how a model is compressed, as a checked YAML file. Unknown keys are refused.

A recipe is a list of stages that run one after the other on one model::

    schema_version: 1
    structure: {kind: pattern}       # or {kind: nm, keep: 2, group: 4}, {kind: unstructured, density: 0.5}
    pool: {build: reed_muller, size: 32, balance: row}
    training: {learning_rate: 5.0e-5, batch: 32, max_tokens: 128}
    stages:
      - {method: dense, epochs: 1}
      - {method: admm, epochs: 3, rho: 0.01}
      - {method: retrain, epochs: 2}
      - {method: quantize, epochs: 1}
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from compressor.pools import MAP_KEEPS
from compressor.recipe_sections import (
    AttentionMaps,
    Budget,
    Distillation,
    PatternStructure,
    Pool,
    Structure,
    Targets,
    Training,
)
from compressor.recipe_stages import STAGE_ORDER, Stage
from compressor.section import Section, first_problem, read_yaml
from compressor.text_file import StrPath

PRESET_DIR = Path(__file__).parent / "presets"

_TAGS = (*STAGE_ORDER, "pattern", "nm", "unstructured", "model")


class RecipeError(ValueError):
    """A recipe that cannot be used; the message is one line."""


class Recipe(Section):
    """A whole recipe. ``Recipe.from_yaml`` reads one; ``to_yaml`` writes it back."""

    schema_version: Literal[1]
    targets: Targets = Targets()
    structure: Structure = PatternStructure(kind="pattern")
    pool: Pool = Pool()
    budget: Budget | None = None
    attention_maps: AttentionMaps | None = None
    training: Training = Training()
    distillation: Distillation | None = None
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _stages_in_order(self):
        methods = [stage.method for stage in self.stages]
        if methods != sorted(methods, key=STAGE_ORDER.index):
            raise ValueError(f"stages run in the order {', '.join(STAGE_ORDER)}, not {', '.join(methods)}")
        labels = [stage.label for stage in self.stages]
        if len(set(labels)) != len(labels):
            raise ValueError("two stages have the same name; give each its own `name`")
        return self

    @model_validator(mode="after")
    def _parts_fit(self):
        if self.structure.kind != "pattern" and self.pool != Pool():
            raise ValueError(f"pool: a pool needs structure: {{kind: pattern}}, not {self.structure.kind}; "
                             "remove it")
        if self.structure.kind == "model" and self.stages[0].method == "dense":
            raise ValueError("a dense stage would undo the pruning that structure: {kind: model} keeps; "
                             "remove the stage")
        if self.training.precision != "float32" and self.stages[-1].method == "quantize":
            raise ValueError("a stage quantize computes exact integers, which bfloat16 cannot hold; set "
                             "training.precision: float32")
        self._check_units()
        if self.attention_maps and self.prunes and self.structure.kind == "pattern" and (
                self.pool.balance == "none" or self.pool.keep not in MAP_KEEPS):
            raise ValueError("attention_maps use patterns of the pool, which needs balance: row or bank and "
                             f"keep: {' or '.join(map(str, MAP_KEEPS))}, not balance: "
                             f"{self.pool.balance} and keep: {self.pool.keep}")
        return self

    def _check_units(self):
        kind, methods = self.structure.kind, {stage.method for stage in self.stages}
        on_grid = any(stage.method == "admm" and stage.values == "int8" for stage in self.stages)
        if on_grid and "sr_ste" in methods:
            raise ValueError("a stage admm with values: int8 cannot be followed by sr_ste, which trains the "
                             "weights off the grid; use retrain or quantize")
        if kind == "dense" and self.prunes and not on_grid:
            raise ValueError("structure: {kind: dense} prunes nothing: it needs a stage admm with values: "
                             "int8, or no stages but dense and quantize")
        learned = "learned_topk" in methods
        if learned and kind not in ("heads_rows", "blocks"):
            raise ValueError("a stage learned_topk needs structure: {kind: heads_rows} or {kind: blocks}, "
                             f"not {kind}")
        if learned and methods & {"admm", "group_lasso", "sr_ste"}:
            raise ValueError("a stage learned_topk goes with dense, reconstruct, retrain and quantize alone")
        if "gradual" in methods and (kind not in ("unstructured", "blocks", "rows_columns")
                                     or methods & {"admm", "group_lasso", "learned_topk", "sr_ste"}):
            raise ValueError("a stage gradual needs structure unstructured, blocks or rows_columns, and goes "
                             "with dense, reconstruct, retrain and quantize alone")
        if "reconstruct" in methods and not (self.distillation and self.distillation.hidden):
            raise ValueError("a stage reconstruct needs distillation with hidden above 0")
        if kind == "heads_rows" and not learned:
            raise ValueError("structure: {kind: heads_rows} needs a stage learned_topk, which chooses them")
        pairs = ({"q", "k", "v", "o"}, {"ffn1", "ffn2"})
        roles = set(self.targets.roles)
        if kind == "heads_rows" and any(pair & roles not in (pair, set()) for pair in pairs):
            raise ValueError("heads_rows removes heads from q, k, v and o together and neurons from ffn1 and "
                             "ffn2 together; name all of them in targets.roles, or none")
        lasso = [stage for stage in self.stages if stage.method == "group_lasso"]
        if lasso and kind not in ("blocks", "rows_columns"):
            raise ValueError("a stage group_lasso needs structure: {kind: blocks} or {kind: rows_columns}, "
                             f"not {kind}")
        fitted = [stage for stage in self.stages if stage.method == "retrain" and stage.fit_rows]
        if fitted and (kind == "model" or fitted != [stage for stage in self.stages
                                                     if stage.method not in ("dense", "quantize")][:1]):
            raise ValueError("fit_rows chooses what is kept: it belongs in a stage retrain that prunes a "
                             "dense model, with no stage but dense before it")
        if fitted and self.structure.score != "magnitude":
            raise ValueError("fit_rows chooses by the layers' outputs, not by scores; remove structure.score")
        if self.budget and (learned or kind in ("unstructured", "model") or not self.prunes):
            raise ValueError("a budget chooses what a projection keeps: it needs structure pattern, nm, "
                             "blocks or rows_columns and a stage that projects (admm, group_lasso, sr_ste, "
                             "retrain)")
        if kind not in ("blocks", "rows_columns"):
            return
        if self.budget:
            if self.structure.density is not None:
                raise ValueError("structure.density has no place beside a budget, which chooses it layer by "
                                 "layer; remove one of them")
            return
        chosen = learned or any(stage.solver == "proximal" for stage in lasso)
        if self.structure.density is None and not chosen:
            raise ValueError("structure.density is needed: no stage decides by itself what is removed "
                             "(learned_topk, or group_lasso with solver: proximal)")
        if learned and self.structure.density is not None:
            raise ValueError("structure.density has no place beside a stage learned_topk, whose `remaining` "
                             "says what is kept; remove it")

    @property
    def prunes(self) -> bool:
        """Whether any stage prunes weights, or keeps what the model's directory says is pruned."""
        return (self.structure.kind == "model"
                or any(stage.method not in ("dense", "quantize") for stage in self.stages))

    def prunes_maps_in(self, stage):
        """Whether attention maps are pruned in a stage."""
        return self.attention_maps is not None and (stage.method != "dense" or not self.prunes)

    @classmethod
    def from_yaml(cls, path: StrPath) -> Self:
        """Read and check a recipe file; RecipeError says in one line what is wrong with it."""
        return cls.from_dict(read_yaml(path, "recipe", RecipeError), source=str(path))

    @classmethod
    def from_dict(cls, values: Any, *, source: str = "recipe") -> Self:
        """Check the plain values of a recipe; ``source`` names it in errors.

        >>> Recipe.from_dict({"schema_version": 1, "stages": [{"method": "dense", "epochs": 1}]}).prunes
        False
        """
        if not isinstance(values, dict):
            raise RecipeError(f"{source}: a recipe is a mapping with schema_version and stages, "
                              f"not {type(values).__name__}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(f"{source}: {first_problem(error, _TAGS)}") from error

    @classmethod
    def preset(cls, name: str) -> Self:
        """Read a recipe that comes with the package; see :func:`preset_names`."""
        if name not in preset_names():
            raise RecipeError(f"unknown preset {name!r}; use one of {', '.join(preset_names())}")
        return cls.from_yaml(PRESET_DIR / f"{name}.yaml")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, defaults included; without a pool where none is used."""
        return self.model_dump(mode="json", exclude=None if self.structure.kind == "pattern" else {"pool"})

    def to_yaml(self) -> str:
        """YAML text that :meth:`from_yaml` reads back as an equal recipe."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def changed_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with other values.

    Parameters
    ----------
    recipe : Recipe
    changes : dict of str to value
        By key with dots, stages by their number from 0; a text is read as YAML.

    Raises
    ------
    RecipeError
        If a key leads nowhere, or the result is no recipe.

    >>> recipe = Recipe.from_dict({"schema_version": 1, "stages": [{"method": "admm", "epochs": 1}]})
    >>> changed_recipe(recipe, {"stages.0.rho": "0.5", "training.seed": 3}).stages[0].rho
    0.5
    """
    values = recipe.to_dict()
    for key, value in changes.items():
        place, *path = values, *key.split(".")
        try:
            for part in path[:-1]:
                place = place[int(part) if isinstance(place, list) else part]
            last = int(path[-1]) if isinstance(place, list) else path[-1]
            place[last] = yaml.safe_load(value) if isinstance(value, str) else value
        except (KeyError, IndexError, ValueError, TypeError, yaml.YAMLError) as error:
            raise RecipeError(f"{key}={value}: no such place in the recipe ({error})") from error
    return Recipe.from_dict(values, source=", ".join(f"{key}={value}" for key, value in changes.items()))


def parse_change(text: str) -> tuple[str, str]:
    """Key of a recipe and another value of it, from a text KEY=VALUE; RecipeError if it is none.

    >>> parse_change("pool.balance=row")
    ('pool.balance', 'row')
    """
    key, _, value = text.partition("=")
    if not (key and value):
        raise RecipeError(f"--set {text}: not KEY=VALUE, a key of the recipe and its value")
    return key, value


def parse_changes(texts: Iterable[str]) -> dict[str, list[str]]:
    """Values to try, by key of a recipe, from texts KEY=VALUE,VALUE...; RecipeError if one is none.

    >>> parse_changes(["pool.size=16,32"])
    {'pool.size': ['16', '32']}
    """
    return {key: values.split(",") for key, values in map(parse_change, texts)}


def combined_recipes(recipe: Recipe, changes: Mapping[str, Sequence[Any]]) -> dict[str, Recipe]:
    """The recipe with each combination of values, by a name that says them; RecipeError as above.

    >>> recipe = Recipe.from_dict({"schema_version": 1, "stages": [{"method": "admm", "epochs": 1}]})
    >>> list(combined_recipes(recipe, {"pool.size": [16, 32], "pool.balance": ["row"]}))
    ['size=16_balance=row', 'size=32_balance=row']
    """
    recipes = {}
    for values in itertools.product(*changes.values()):
        chosen = {key: str(value) for key, value in zip(changes, values, strict=True)}
        name = "_".join(f"{key.rpartition('.')[2]}={value}" for key, value in chosen.items())
        recipes[name] = changed_recipe(recipe, chosen)
    return recipes


def preset_names() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    return sorted(path.stem for path in PRESET_DIR.glob("*.yaml"))


def as_recipe(recipe: "Recipe | Mapping[str, Any] | StrPath") -> Recipe:
    """A recipe from itself, its plain values, the name of a preset or the path of a file; RecipeError."""
    if isinstance(recipe, Recipe):
        return recipe
    return Recipe.from_dict(dict(recipe)) if isinstance(recipe, Mapping) else load_recipe(str(recipe))


def load_recipe(name: str) -> Recipe:
    """A preset by its name, or a recipe file by its path; RecipeError if it is neither, or no recipe."""
    if name in preset_names():
        return Recipe.preset(name)
    if not Path(name).is_file():
        raise RecipeError(f"{name}: no such recipe file or preset; presets: {', '.join(preset_names())}")
    return Recipe.from_yaml(name)
