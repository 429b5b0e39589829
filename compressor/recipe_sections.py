"""The sections of a recipe: what each key means and which values it may have."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compressor.blocks import NM_GROUP_MAX

Role = Literal["q", "k", "v", "o", "ffn1", "ffn2"]
Epochs = Annotated[float, Field(gt=0, le=1000)]
Rate = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Targets(Section):
    """Linear layers of every encoder layer that are pruned; the others stay dense."""

    roles: tuple[Role, ...] = ("q", "k", "v", "o", "ffn1", "ffn2")

    @model_validator(mode="after")
    def _has_distinct_roles(self):
        if not self.roles or len(set(self.roles)) != len(self.roles):
            raise ValueError("targets.roles must name each role once, and at least one")
        return self


class _Structure(Section):
    """What every structure has.

    Parameters
    ----------
    score : str
        What a projection keeps the most of. "magnitude": squared weights. "activation": squared weights
        times the mean square of the input they meet, as in Wanda (arXiv 2306.11695); the inputs are those
        of the model on 256 training rows when the first pruning stage begins.
    """

    score: Literal["magnitude", "activation"] = "magnitude"


class PatternStructure(_Structure):
    """Every 4x4 block keeps one pattern of the recipe's ``pool``."""

    kind: Literal["pattern"]


class NMStructure(_Structure):
    """``keep`` of every ``group`` consecutive weights along the inputs: "2:4" is keep 2, group 4."""

    kind: Literal["nm"]
    keep: int = Field(2, ge=1)
    group: int = Field(4, ge=2, le=NM_GROUP_MAX)

    @model_validator(mode="after")
    def _keeps_fewer(self):
        if self.keep >= self.group:
            raise ValueError(f"keep must be below group, not {self.keep} of {self.group}")
        return self


class UnstructuredStructure(_Structure):
    """The largest weights of every matrix; the hardware gains nothing from it (a baseline)."""

    kind: Literal["unstructured"]
    density: float = Field(0.5, gt=0, lt=1)


class ModelStructure(_Structure):
    """What the model directory given as ``--model`` has: for a model pruned before, as by recovery."""

    kind: Literal["model"]


Structure = Annotated[PatternStructure | NMStructure | UnstructuredStructure | ModelStructure,
                      Field(discriminator="kind")]


class Pool(Section):
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


class AttentionMaps(Section):
    """Pattern pruning of attention maps; a recipe without this section leaves them whole.

    The patterns are chosen on training rows, from the pool of the weights, see
    :func:`compressor.map_pool.prune_maps`. Maps are pruned from the first stage on that prunes weights, or
    from the start if none does.

    Parameters
    ----------
    size : int
        Patterns of the map pool. More keep little more: 4 keep 73.5 % of the weights in MiniLM, 8 keep
        75.2 %, all 32 of the default pool 75.7 %.
    power : int
        1: a block keeps the pattern with the largest sum of weights; 2: of their squares.
    rows : int
        Training rows on which the patterns are chosen.
    """

    size: int = Field(8, ge=1, le=64)
    power: Literal[1, 2] = 1
    rows: int = Field(128, ge=1)


class Training(Section):
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
    dropout : float, optional
        While training, in every place where the model has dropout; its own unless given. Recovery wants 0:
        the hidden states of the teacher have none.
    evaluations, saves : int
        Evaluations and checkpoints per stage, evenly spread; the last of each at its end.
    """

    learning_rate: Rate = 5e-5
    batch: int = Field(32, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=1)
    max_grad_norm: float = Field(1.0, ge=0)
    dropout: float | None = Field(None, ge=0, lt=1)
    max_tokens: int = Field(128, ge=4, le=512)
    seed: int = Field(0, ge=0)
    evaluations: int = Field(1, ge=1)
    saves: int = Field(1, ge=1)


class Distillation(Section):
    """A dense model that the pruned one learns from in every pruning stage.

    The loss is the sum of its parts times their weights, see :mod:`compressor.distillation`; a part with
    weight 0 costs nothing. The defaults are those of MLPruning (S3).

    Parameters
    ----------
    teacher : str
        "dense": the model as it is when pruning begins, after the recipe's own dense stage. Otherwise the
        directory of a model that was fine-tuned on the task; it may have a multiple of the layers.
    labels : float
        Weight of the task's own loss.
    logits, temperature : float
        Weight and T of the loss on logits.
    hidden, attention : float
        Weights of the losses on hidden states and on attention maps (after dropout, as the model returns
        them).
    """

    teacher: str = "dense"
    labels: float = Field(0.1, ge=0)
    logits: float = Field(0.9, ge=0)
    temperature: float = Field(2.0, gt=0)
    hidden: float = Field(0.9, ge=0)
    attention: float = Field(0.9, ge=0)

    @model_validator(mode="after")
    def _has_parts(self):
        if not (self.logits or self.hidden or self.attention):
            raise ValueError("one of logits, hidden and attention must be above 0")
        return self


class _Stage(Section):
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


class SrSteStage(_Stage):
    """Trains dense weights through their projection, see :mod:`compressor.sr_ste`.

    After an ADMM stage it goes on with that stage's weights; nothing is set to zero before the end.

    Parameters
    ----------
    decay : float
        Lambda of the paper: gradient of removed weights, over the weight.
    interval : int
        Optimizer steps between two updates of the masks.
    """

    method: Literal["sr_ste"]
    decay: float = Field(2e-4, ge=0, le=1)
    interval: int = Field(1, ge=1)


class RetrainStage(_Stage):
    """Projects the weights at its start and trains what is left; the masks never change again."""

    method: Literal["retrain"]


class QuantizeStage(_Stage):
    """Quantization-aware training: the forward pass computes the integers of the exported model.

    At its start the weights are pruned for good, if the recipe prunes, and the activation scales are
    calibrated; they stay as they are, and ``compress export`` uses them.

    Parameters
    ----------
    calibration_rows : int
        Training rows, from the first, that the activation scales are chosen for.
    """

    method: Literal["quantize"]
    calibration_rows: int = Field(128, ge=1)


Stage = Annotated[DenseStage | AdmmStage | SrSteStage | RetrainStage | QuantizeStage,
                  Field(discriminator="method")]

STAGE_ORDER = ("dense", "admm", "sr_ste", "retrain", "quantize")
"""Methods of stages in the order in which they may follow each other."""
