"""The sections of a recipe: what each key means and which values it may have."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from compressor.blocks import NM_GROUP_MAX
from compressor.section import Section

Role = Literal["q", "k", "v", "o", "ffn1", "ffn2"]
Rate = Annotated[float, Field(gt=0, le=1)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


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


class DenseStructure(_Structure):
    """Every weight is kept: for a stage ``admm`` with ``values: int8``, quantization by ADMM alone."""

    kind: Literal["dense"]


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


class BlocksStructure(_Structure):
    """Blocks of ``rows`` x ``columns`` weights, kept whole or removed.

    ``density`` is the share of the blocks of every matrix that is kept; without it training decides, in a
    stage ``learned_topk`` or ``group_lasso`` with the proximal solver. 4R x 4 is what one K-step of an array
    with R block units computes.
    """

    kind: Literal["blocks"]
    rows: int = Field(16, ge=1, le=256)
    columns: int = Field(4, ge=1, le=256)
    density: float | None = Field(None, gt=0, lt=1)


class RowsColumnsStructure(_Structure):
    """Rows and columns inside blocks of ``rows`` x ``columns``, as in block-structured pruning (S2);
    ``density`` as in ``blocks``."""

    kind: Literal["rows_columns"]
    rows: int = Field(64, ge=1, le=4096)
    columns: int = Field(64, ge=1, le=4096)
    density: float | None = Field(None, gt=0, lt=1)


class HeadsRowsStructure(_Structure):
    """Whole heads and rows, chosen by a stage ``learned_topk`` (MLPruning, S3, first step)."""

    kind: Literal["heads_rows"]


class ModelStructure(_Structure):
    """What the model directory given as ``--model`` has: for a model pruned before, as by recovery."""

    kind: Literal["model"]


Structure = Annotated[PatternStructure | DenseStructure | NMStructure | UnstructuredStructure
                      | BlocksStructure | RowsColumnsStructure | HeadsRowsStructure | ModelStructure,
                      Field(discriminator="kind")]


class Pool(Section):
    """The pattern pool, see :func:`compressor.pools.build_pool`.

    ``balance``: "row" needs no routing in hardware, "bank" smaller multiplexers as well; "none" keeps most.
    `hwgen pools` says what each keeps of a model and what it costs.
    """

    build: Literal["reed_muller", "greedy", "kmeans", "frequency", "file"] = "reed_muller"
    size: int = Field(32, ge=1, le=256)
    keep: int = Field(8, ge=1, le=16)
    balance: Literal["row", "bank", "none"] = "row"
    seed: int = Field(0, ge=0)
    file: str | None = None

    @model_validator(mode="after")
    def _file_goes_with_build(self):
        if (self.build == "file") != (self.file is not None):
            raise ValueError("pool.file is needed with build: file, and only there")
        return self


class Budget(Section):
    """What the pruned layers may take together; how much of each is kept follows from it.

    See :mod:`compressor.budget`.

    One of ``cycles``, ``latency_us`` with ``clock_mhz``, and ``weight_kib``. Decided when pruning begins: by
    ``sensitivity`` if given, else by the weights that a projection removes.

    Parameters
    ----------
    cycles : int
        Clock cycles of the whole encoder on one sequence of full length.
    latency_us, clock_mhz : float
        The same as a time, at a clock.
    weight_kib : float
        int8 weights and indices of the pruned layers, in KiB.
    costs : str
        File of ``hwgen costs``, for a model of the same sizes; needed but for weight_kib.
    sensitivity : str
        File of ``compress sensitivity``.
    """

    cycles: int | None = Field(None, ge=1)
    latency_us: float | None = Field(None, gt=0)
    clock_mhz: float | None = Field(None, gt=0)
    weight_kib: float | None = Field(None, gt=0)
    costs: str | None = None
    sensitivity: str | None = None

    @model_validator(mode="after")
    def _is_one_budget(self):
        given = [name for name in ("cycles", "latency_us", "weight_kib") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("a budget is one of cycles, latency_us (with clock_mhz) and weight_kib, "
                             f"not {' and '.join(given) or 'none of them'}")
        if (self.latency_us is None) != (self.clock_mhz is None):
            raise ValueError("latency_us and clock_mhz go together")
        if (self.weight_kib is None) != (self.costs is not None):
            raise ValueError("budget.costs names a file of `hwgen costs`: needed for cycles and latency_us, "
                             "and only there")
        return self

    @property
    def limit(self):
        """The budget as (number, unit): cycles or bits."""
        if self.weight_kib is not None:
            return int(self.weight_kib * 8192), "bits"
        return (self.cycles or int(self.latency_us * self.clock_mhz)), "cycles"


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
        While training, in every place where the model has dropout; its own unless given. Stages that distil
        hidden states want 0: those of the teacher have none.
    precision : str
        "float32", or "bfloat16": products are in bfloat16 (autocast), in forward and backward pass and in the
        teacher, while weights, gradients, projections and the optimizer stay in float32.
    evaluations, saves : int
        Evaluations and checkpoints per stage, evenly spread; the last of each at its end.
    """

    learning_rate: Rate = 5e-5
    batch: int = Field(32, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0, le=1)
    max_grad_norm: float = Field(1.0, ge=0)
    dropout: Dropout | None = None
    max_tokens: int = Field(128, ge=4, le=512)
    precision: Literal["float32", "bfloat16"] = "float32"
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
        "dense": the model as it is when pruning begins, after the recipe's own dense stage. "model": the
        model given as ``--model``, as it came, fine-tuned and perhaps pruned; so the second step of
        MLPruning learns from the result of the first. Otherwise the directory of a model that was
        fine-tuned on the task; it may have a multiple of the layers.
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
