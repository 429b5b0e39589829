"""What ends a training run before it does harm: numbers that are not finite, files that cannot be written.

The checkpoints that are there stay as they are; each error is one line that names the last of them.
"""

import shutil
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from compressor.stage_callback import latest_checkpoint
from compressor.stage_checkpoint import CheckpointError


class TrainingError(ValueError):
    """A run that cannot go on; the message is one line."""


class OutputError(ValueError):
    """An output directory, or a model, that cannot be used; the message is one line."""


def check_finite(what, value, *, step, stage, checkpoints):
    """TrainingError if a number of a step is NaN or infinite, before its gradients reach the weights.

    Fused attention may give finite results for weights that are not: so a loss alone does not tell.

    Parameters
    ----------
    what : str
        What the number is, as the error should say.
    value : scalar tensor
    step : int
        Optimizer steps that have been done.
    stage : str
    checkpoints : path
        Folder of the run's checkpoints.
    """
    if not bool(torch.isfinite(value)):
        raise TrainingError(f"step {step + 1}, stage {stage}: {what} is {float(value)}; "
                            f"{_remedy(checkpoints)}")


def check_weights(model, *, step, checkpoints):
    """TrainingError, naming the first, if a parameter of a model is not finite: such a model is not saved."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise TrainingError(f"step {step}: {name} holds NaN or infinity; {_remedy(checkpoints)}")


def _remedy(checkpoints):
    return f"lower the learning rate, or look at model and rows. {_last(checkpoints)}"


@contextmanager
def whole_or_gone(folder):
    """Turn errors while a checkpoint is being written into a TrainingError; what was written is deleted."""
    folder = Path(folder)
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save raises RuntimeError
        shutil.rmtree(folder, ignore_errors=True)
        raise TrainingError(f"{folder}: cannot be written: {_reason(error)}. "
                            f"{_last(folder.parent)}") from error


@contextmanager
def explained(out, checkpoints):
    """Turn errors while a run writes its other files into a TrainingError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{out}: cannot be written: {_reason(error)}. "
                            f"{_last(checkpoints)}") from error


def _reason(error):
    return getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]


def _last(checkpoints):
    try:
        return f"The last good checkpoint is {latest_checkpoint(checkpoints)}; --resume goes on from there"
    except CheckpointError:
        return "There is no checkpoint yet"
