"""What a training run shows while it runs, and the log file it leaves."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

_NOTEWORTHY = ("accuracy", "f1", "exact_match", "matthews_correlation", "spearman", "primal_residual",
               "mask_similarity", "retained_energy", "flip_rate")


class ProgressBar(TrainerCallback):
    """A bar on standard error with stage, loss and time left; plain lines where there is no terminal.

    Parameters
    ----------
    schedule : Schedule
    """

    def __init__(self, schedule):
        self.schedule = schedule
        self.progress = _bar()
        self.bar = None
        self.loss = ""

    def on_train_begin(self, args, state, control, **kwargs):
        self.progress.start()
        self.bar = self.progress.add_task("training", total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        stage = self.schedule.span_at(state.global_step - 1).stage.label
        self.progress.update(self.bar, completed=state.global_step, description=f"{stage}{self.loss}")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.loss = f" loss {logs['loss']:.3f}"
        shown = [f"{key.removeprefix('eval_')} {value:.4g}" for key, value in logs.items()
                 if key.endswith(_NOTEWORTHY)]
        if shown:
            stage = self.schedule.span_at(max(0, state.global_step - 1)).stage.label
            self.progress.console.print(f"step {state.global_step}/{state.max_steps} [{stage}]  "
                                        + "  ".join(shown), highlight=False, markup=False,
                                        soft_wrap=True)

    def on_train_end(self, args, state, control, **kwargs):
        self.progress.stop()


class JsonLog(TrainerCallback):
    """Writes every log record as one line of JSON; a resumed run rewrites the part before it.

    Parameters
    ----------
    path : path
    """

    def __init__(self, path):
        self.path = Path(path)

    def on_train_begin(self, args, state, control, **kwargs):
        with self.path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in state.log_history)

    def on_log(self, args, state, control, logs=None, **kwargs):
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**logs, "step": state.global_step}) + "\n")


def counted(items, what):
    """Yield the items of a sequence; where there is a terminal, with a bar and the time left."""
    with _bar() as progress:
        yield from progress.track(items, description=what)


def _bar():
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console,
        disable=not console.is_terminal)


def say(line):
    """One line to standard error."""
    print(line, file=sys.stderr, flush=True)
