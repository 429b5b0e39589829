"""What ends a training run before it does harm: numbers that are not finite, full memory, unwritable files.

The checkpoints that are there stay as they are; each error is one line that names the last of them.
"""

import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from compressor.stage_callback import latest_checkpoint
from compressor.stage_checkpoint import CheckpointError

CPU_ALLOCATOR = "DefaultCPUAllocator"
"""Names itself in the RuntimeError that torch raises when the CPU's memory is full."""


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
def enough_memory(training, *, checkpoints):
    """Turn running out of memory into a TrainingError that says which values of ``training`` to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's own error of a GPU is a RuntimeError
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and CPU_ALLOCATOR not in str(error):
            raise
        asked = re.search(r"ried to allocate ([\d.]+ \w+)", str(error))
        when = f" when {asked[1]} more were needed" if asked else ""
        raise TrainingError(
            f"out of memory{when}; lower training.batch (now {training.batch}) and raise "
            f"training.gradient_accumulation ({training.gradient_accumulation}) by as much, or lower "
            f"training.max_tokens ({training.max_tokens}). --dry-run says what a run takes. "
            f"{_last(checkpoints)}") from error


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
