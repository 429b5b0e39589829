"""Recipes: how a model is compressed, as a checked YAML file. Unknown keys are refused.

A recipe is a list of stages that run one after the other on one model::

    schema_version: 1
    pool: {build: reed_muller, size: 32, balance: row}
    training: {learning_rate: 5.0e-5, batch: 32, max_tokens: 128}
    stages:
      - {method: dense, epochs: 1}
      - {method: admm, epochs: 3, rho: 0.01}
      - {method: retrain, epochs: 2}
"""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

PRESET_DIR = Path(__file__).parent / "presets"

Role = Literal["q", "k", "v", "o", "ffn1", "ffn2"]
Epochs = Annotated[float, Field(gt=0, le=1000)]
Rate = Annotated[float, Field(gt=0, le=1)]


class RecipeError(ValueError):
    """A recipe that cannot be used; the message is one line."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Targets(_Section):
    """Linear layers of every encoder layer that are pruned; the others stay dense."""

    roles: tuple[Role, ...] = ("q", "k", "v", "o", "ffn1", "ffn2")

    @model_validator(mode="after")
    def _has_distinct_roles(self):
        if not self.roles or len(set(self.roles)) != len(self.roles):
            raise ValueError("targets.roles must name each role once, and at least one")
        return self


class Pool(_Section):
    """The pattern pool, see :func:`compressor.pools.build_pool`."""

    build: Literal["reed_muller", "greedy", "kmeans", "frequency", "file"] = "reed_muller"
    size: int = Field(32, ge=1, le=256)
    keep: int = Field(8, ge=1, le=16)
    balance: Literal["row", "none"] = "row"
    seed: int = Field(0, ge=0)
    file: str | None = None

    @model_validator(mode="after")
    def _file_goes_with_build(self):
        if (self.build == "file") != (self.file is not None):
            raise ValueError("pool.file is needed with build: file, and only there")
        return self


class Training(_Section):
    """Settings shared by all stages.

    Parameters
    ----------
    learning_rate : float
        Peak of AdamW's rate; each stage warms up to it and decays linearly to zero.
    batch, gradient_accumulation : int
        Sentences in a step: ``batch * gradient_accumulation``.
    warmup : float
        Share of each stage's steps, 0 to below 1.
    max_tokens : int
        Longer inputs are cut; also the sequence length of the exported accelerator.
    evaluations, saves : int
        Evaluations and checkpoints per stage, evenly spread; the last of each at its end.
    """

    learning_rate: Rate = 5e-5
    batch: int = Field(32, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=1)
    max_grad_norm: float = Field(1.0, ge=0)
    max_tokens: int = Field(128, ge=4, le=512)
    seed: int = Field(0, ge=0)
    evaluations: int = Field(1, ge=1)
    saves: int = Field(1, ge=1)


class _Stage(_Section):
    epochs: Epochs
    learning_rate: Rate | None = None
    name: str | None = Field(None, pattern=r"^[a-z0-9_-]+$")

    @property
    def label(self):
        """The stage's name; its method if it has none."""
        return self.name or self.method


class DenseStage(_Stage):
    """Plain fine-tuning, nothing pruned."""

    method: Literal["dense"]


class AdmmStage(_Stage):
    """Pulls the weights towards the structure while they stay dense.

    Parameters
    ----------
    rho : float
        Weight of the penalty ``rho / 2 * ||W - Z + U||^2`` (coupling: loss), or share of the gap that
        a step closes at the peak rate (coupling: decoupled).
    interval : int or "auto"
        Optimizer steps between two updates of Z and U; auto is ``max(80, steps / 20)``.
    init : str
        "projected": Z starts as the projection of W; "zero": as in the paper, at first plain decay.
    coupling : str
        "loss": the penalty's gradient goes through clipping and AdamW, as in the paper. "decoupled":
        a proximal step after AdamW's, which converges at small rates where the other does not.
    """

    method: Literal["admm"]
    rho: float = Field(0.01, gt=0, le=100)
    interval: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    init: Literal["projected", "zero"] = "projected"
    coupling: Literal["loss", "decoupled"] = "loss"

    def interval_steps(self, steps):
        """Interval in optimizer steps, for a stage of ``steps`` steps."""
        return max(80, steps // 20) if self.interval == "auto" else self.interval


class RetrainStage(_Stage):
    """Projects the weights at its start and trains what is left; the masks never change again."""

    method: Literal["retrain"]


Stage = Annotated[DenseStage | AdmmStage | RetrainStage, Field(discriminator="method")]

_ORDER = ("dense", "admm", "retrain")


class Recipe(_Section):
    """A whole recipe. ``Recipe.from_yaml`` reads one; ``to_yaml`` writes it back."""

    schema_version: Literal[1]
    targets: Targets = Targets()
    pool: Pool = Pool()
    training: Training = Training()
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _stages_in_order(self):
        methods = [stage.method for stage in self.stages]
        if methods != sorted(methods, key=_ORDER.index):
            raise ValueError(f"stages run in the order {', '.join(_ORDER)}, not {', '.join(methods)}")
        labels = [stage.label for stage in self.stages]
        if len(set(labels)) != len(labels):
            raise ValueError("two stages have the same name; give each its own `name`")
        return self

    @property
    def prunes(self):
        """Whether any stage prunes."""
        return any(stage.method != "dense" for stage in self.stages)

    @classmethod
    def from_yaml(cls, path):
        """Read and check a recipe file; RecipeError says in one line what is wrong with it."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot read the recipe: {error}") from error
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
        return cls.from_dict(values, source=str(path))

    @classmethod
    def from_dict(cls, values, *, source="recipe"):
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
            raise RecipeError(f"{source}: {_first_problem(error)}") from error

    @classmethod
    def preset(cls, name):
        """Read a recipe that comes with the package; see :func:`preset_names`."""
        if name not in preset_names():
            raise RecipeError(f"unknown preset {name!r}; use one of {', '.join(preset_names())}")
        return cls.from_yaml(PRESET_DIR / f"{name}.yaml")

    def to_dict(self):
        """Plain values, defaults included."""
        return self.model_dump(mode="json")

    def to_yaml(self):
        """YAML text that :meth:`from_yaml` reads back as an equal recipe."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def preset_names():
    """Names of the recipes that come with the package, sorted."""
    return sorted(path.stem for path in PRESET_DIR.glob("*.yaml"))


def load_recipe(name):
    """A preset by its name, or a recipe file by its path."""
    if name in preset_names():
        return Recipe.preset(name)
    if not Path(name).is_file():
        raise RecipeError(f"{name}: no such recipe file or preset; presets: {', '.join(preset_names())}")
    return Recipe.from_yaml(name)


def _first_problem(error):
    problem, *others = error.errors(include_url=False)
    # The discriminator's own tag ("admm") is no key of the file.
    where = ".".join(str(part) for part in problem["loc"] if part not in _ORDER)
    if problem["type"] == "extra_forbidden":
        text = "unknown key; check its spelling and its place"
    elif problem["type"] == "missing":
        text = "this key is required"
    elif problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])
    else:
        text = f"{problem['msg']}, not {problem['input']!r}"
    more = f" (and {len(others)} more)" if others else ""
    return f"{where}: {text}{more}" if where else f"{text}{more}"
