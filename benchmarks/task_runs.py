"""Runs of the table's rows: which are finished, who runs which, and what is kept of each.

Processes share a directory and nothing else: a lock file says that a run is being run, and a result, written
aside and renamed, that it is finished. A process that dies loses its locks, and the run is taken up again
from its last checkpoint.
"""

import datetime
import fcntl
import json
import shutil
import sys
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.task_cycles import encoder_cycles
from benchmarks.task_rows import EPOCH_SHARE, MODELS_KEPT
from compressor.comparison import compare_runs
from compressor.model_dir import COMPRESSION_FILE
from compressor.progress import say
from compressor.stage_callback import latest_checkpoint
from compressor.stage_checkpoint import CheckpointError
from compressor.tasks import load_task
from compressor.text_data import load_text
from compressor.text_file import write_text
from compressor.training_run import CHECKPOINTS, run_training

WAIT_SECONDS = 2


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all runs in one directory share.

    Parameters
    ----------
    model, data, out : Path
    text : tuple of Path
    text_rows : int or None
    epoch_share : float
    precision : str
    """

    model: Path
    data: Path
    out: Path
    text: tuple
    text_rows: int | None
    epoch_share: float
    precision: str

    def claim(self):
        """Note the settings that results depend on in ``out``; ValueError if it has results of others.

        Paths and precision may differ between machines: every result says its own.
        """
        own = {"epoch_share": self.epoch_share, "text_rows": self.text_rows,
               "text": sorted(path.name for path in self.text)}
        path = self.out / "settings.json"
        self.out.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            write_text(path, json.dumps(own, indent=1) + "\n")
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        odd = [f"{key} {found[key]}, not {own[key]}" for key in own if found[key] != own[key]]
        if odd:
            raise ValueError(f"{path}: the runs there have {'; '.join(odd)}; use their settings, or another "
                             "--out")

    def result(self, job):
        """The file that says that a run is finished, and what it reached."""
        return self.out / "results" / f"{job.name}.json"

    def model_dir(self, job):
        """The model directory of a run; the pretrained model for None."""
        return self.model if job is None else self.out / "models" / job.name


def work(settings, planned):
    """Run what is planned, not finished and not being run by another process, until nothing is left.

    Returns when it is interrupted; exits with 1 if a run failed.
    """
    torch.set_num_threads(1)
    failed = set()
    try:
        while waiting := _without(failed, unfinished(settings, planned)):
            for job in waiting:
                if {needed.name for needed in job.needs} & {other.name for other in waiting}:
                    continue
                with _claimed(settings.out / "locks", job) as mine:
                    if not mine or job not in unfinished(settings, planned):
                        continue
                    try:
                        if not run_job(settings, job):
                            return
                    except Exception:
                        say(f"{job.name}: failed\n{traceback.format_exc()}")
                        failed.add(job.name)
                    break
            else:
                time.sleep(WAIT_SECONDS)
    except KeyboardInterrupt:
        return
    sys.exit(bool(failed))


def unfinished(settings, planned):
    """The planned runs without a result, or whose model another one of them needs and which is gone."""
    found, needed = [], set()
    for job in reversed(planned):  # what needs others comes after them
        model_is_there = (settings.model_dir(job) / COMPRESSION_FILE).is_file()
        if not settings.result(job).is_file() or (job.name in needed and not model_is_there):
            found.append(job)
            needed |= {other.name for other in job.needs}
    return found[::-1]


def _without(failed, jobs):
    """The runs that neither failed nor need, by whatever way, one that did."""
    lost, left = set(failed), []
    for job in jobs:  # what needs others comes after them
        if lost.isdisjoint({job.name, *(needed.name for needed in job.needs)}):
            left.append(job)
        else:
            lost.add(job.name)
    return left


@contextmanager
def _claimed(folder, job):
    """Whether this process has a run for itself; until the context ends, or the process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / job.name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def run_job(settings, job):
    """Run one row on one task; False if it was interrupted, with a checkpoint to go on from."""
    row, folder = job.row, settings.model_dir(job)
    share = settings.epoch_share * EPOCH_SHARE.get(job.task, 1.0)
    teacher = job.of(row.teacher) and settings.model_dir(job.of(row.teacher))
    recipe = row.make_recipe(task=job.task, seed=job.seed, epoch_share=share, precision=settings.precision,
                             teacher=teacher)
    try:
        resume = latest_checkpoint(folder / CHECKPOINTS) is not None
    except CheckpointError:
        resume = False
        shutil.rmtree(folder, ignore_errors=True)
    data = (load_text(settings.text, rows=settings.text_rows) if row.on_text else
            load_task(job.task, data=settings.data / job.task, seed=job.seed))
    say(f"{job.name}: {'goes on' if resume else 'starts'}")
    start = time.monotonic()
    ended = run_training(recipe, model_name=str(settings.model_dir(job.of(row.start))), data=data, out=folder,
                         resume=resume)
    if not ended.finished:
        say(f"{job.name}: stopped at step {ended.step} of {ended.steps}")
        return False
    found, = compare_runs([folder])
    made_with = ended.metrics["made_with"]
    kept_recipe = recipe.to_dict()
    if teacher is not None:  # its name: a result is read on other machines
        kept_recipe["distillation"]["teacher"] = teacher.name
    result = found | {
        "row": row.name, "task": job.task, "training_rows": made_with["training_rows"], "steps": ended.steps,
        "cycles": None if row.on_text else encoder_cycles(folder, data),
        "seconds": None if resume else round(time.monotonic() - start, 1),
        "recipe": kept_recipe, "device": made_with["device"], "precision": settings.precision,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": made_with["versions"]}
    settings.result(job).parent.mkdir(exist_ok=True)
    write_text(settings.result(job), json.dumps(result, indent=1) + "\n")
    say(f"{job.name}: finished")
    if row.name not in MODELS_KEPT:
        shutil.rmtree(folder)
    return True
