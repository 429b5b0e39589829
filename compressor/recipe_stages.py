"""The stages of a recipe: what each does, and which values its keys may have."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.recipe_sections import Dropout, Rate
from compressor.section import Section

Epochs = Annotated[float, Field(gt=0, le=1000)]


class _Stage(Section):
    """What every stage has; ``learning_rate`` and ``dropout`` are those of ``training`` unless given."""

    epochs: Epochs
    learning_rate: Rate | None = None
    dropout: Dropout | None = None
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
    values : str
        "real": Z has the structure. "int8": its weights are also multiples of their row's scale, as the
        exporter stores them, see :mod:`compressor.weight_grid`; so are the weights when masks are fixed.
    """

    method: Literal["admm"]
    rho: float = Field(0.01, gt=0, le=100)
    interval: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    init: Literal["projected", "zero"] = "projected"
    coupling: Literal["loss", "decoupled"] = "loss"
    values: Literal["real", "int8"] = "real"

    def interval_steps(self, steps):
        """Interval in optimizer steps, for a stage of ``steps`` steps."""
        return max(80, steps // 20) if self.interval == "auto" else self.interval


class GradualStage(_Stage):
    """Removes more and more along a cubic schedule while the rest trains, see :mod:`compressor.gradual`.

    ``interval``: optimizer steps between two removals.
    """

    method: Literal["gradual"]
    interval: int = Field(10, ge=1)


class ReconstructStage(_Stage):
    """Fits one encoder layer after the other to the teacher's hidden states, with fixed masks.

    The steps are divided among the layers; each sees what the pruned layers before it give. The rate does not
    decay. Needs ``distillation`` with ``hidden``.
    """

    method: Literal["reconstruct"]


class GroupLassoStage(_Stage):
    """Reweighted group Lasso (S2): penalizes the norms of the structure's units until many are small.

    The loss is ``f + strength * sum over units of gamma ||g||``. At the start and at milestones,
    ``gamma = 1 / (||g|| + epsilon)`` is set from the weights.

    Parameters
    ----------
    strength : float
        Lambda of the paper. A unit of n weights shrinks at a rate of about ``strength / n``, and at most as
        fast as clipping and AdamW allow: units of 64 want twenty times the strength of units of 3.
    solver : str
        "penalty": the gradient of the penalty goes through clipping and AdamW, as in the paper; no unit ever
        becomes exactly zero, so the structure needs a density. "proximal": after AdamW's step every unit's
        norm is lowered by ``strength * gamma`` at the peak rate, less at others; units do reach zero.
    reweight_epochs : float
        Epochs between two milestones; a stage that has no more is warned of, since its gammas are set once.
    """

    method: Literal["group_lasso"]
    strength: float = Field(1e-4, gt=0, le=100)
    solver: Literal["penalty", "proximal"] = "penalty"
    reweight_epochs: Epochs = 4.0


class LearnedTopKStage(_Stage):
    """MLPruning (S3): learns which units stay, and how many, see :mod:`compressor.learned_topk`.

    Parameters
    ----------
    remaining : float
        Target of the share of the weights that stays, of those that were there when the stage began.
    lambda_max, lambda_min : float
        Largest and smallest weight of the penalty on what exceeds the target.
    score_rate : float
        Peak learning rate of scores and thresholds.
    neurons : int
        Feed-forward neurons that stay are a multiple of this; for blocks in a second step, their size.
    """

    method: Literal["learned_topk"]
    remaining: float = Field(gt=0, lt=1)
    lambda_max: float = Field(10_000, gt=0)
    lambda_min: float = Field(50, ge=0)
    score_rate: float = Field(1e-2, gt=0, le=10)
    neurons: int = Field(4, ge=4, multiple_of=4)


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
    """Projects the weights at its start and trains what is left; the masks never change again.

    Parameters
    ----------
    fit_rows : int, optional
        Instead of the nearest weights, masks, weights and biases are those that come nearest to the dense
        encoder's outputs on so many training rows, from the first: see :mod:`compressor.encoder_fit`. Only
        in the first stage that prunes.
    """

    method: Literal["retrain"]
    fit_rows: int | None = Field(None, ge=1)


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


Stage = Annotated[DenseStage | GradualStage | AdmmStage | GroupLassoStage | LearnedTopKStage | SrSteStage
                  | ReconstructStage | RetrainStage | QuantizeStage, Field(discriminator="method")]

STAGE_ORDER = ("dense", "gradual", "admm", "group_lasso", "learned_topk", "sr_ste", "reconstruct", "retrain",
               "quantize")
"""Methods of stages in the order in which they may follow each other."""
