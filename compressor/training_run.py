"""One whole ``compress train`` run: model and rows in, model directory out. Called by the command."""

import shutil
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import DataCollatorWithPadding, PrinterCallback, ProgressCallback

from compressor.encoding import EncodedRows
from compressor.model_dir import (
    COMPRESSION_FILE,
    LOG_FILE,
    RECIPE_FILE,
    describe,
    summarize,
    write_model_dir,
)
from compressor.progress import JsonLog, ProgressBar, say
from compressor.provenance import device_name, versions
from compressor.recipes import Recipe
from compressor.reload import quiet_loading
from compressor.removed_units import compact
from compressor.run_guards import OutputError, explained
from compressor.spans import EncodedSpans
from compressor.stage_callback import latest_checkpoint
from compressor.starting_model import check_distillation, given_compression, has_scattered_units, load_model
from compressor.task_metrics import compute_metrics
from compressor.tasks import TaskData
from compressor.text_data import TEXT
from compressor.text_file import StrPath
from compressor.trainer import CompressionTrainer, training_arguments

CHECKPOINTS = "checkpoints"

REPEAT_SECONDS, LAUNCHER_SECONDS = 1, 20
"""A signal so soon after another is the same request; of several processes, whose launcher repeats it."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended: ``finished`` or stopped at ``step`` of ``steps``; metrics if finished.

    ``directory`` is the model directory, or holds the checkpoint to resume from.
    """

    directory: Path
    finished: bool
    step: int
    steps: int
    metrics: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "directory": str(self.directory)}


def run_training(recipe: Recipe, *, model_name: str, data: TaskData, out: StrPath, resume: bool = False,
                 overwrite: bool = False) -> RunResult:
    """Run a recipe.

    Parameters
    ----------
    recipe : Recipe
    model_name : str
        Directory or hub id of a model with a BERT-like encoder; "tiny" builds a small one.
    data : TaskData
    out : path
        Becomes a model directory, see :mod:`compressor.model_dir`. Until then it holds checkpoints.
    resume : bool
        Go on from the latest checkpoint in ``out``.
    overwrite : bool
        Delete an earlier run in ``out`` first.

    Returns
    -------
    RunResult

    Raises
    ------
    RecipeError, ModelDirError, OutputError, CheckpointError
        Before anything is trained.
    TrainingError
        If the loss or a weight is no longer finite, or a file cannot be written.
    """
    quiet_loading()
    out, processes = Path(out), PartialState()
    check_distillation(recipe, data.task)
    given = given_compression(recipe, model_name)
    with explained(out, out / CHECKPOINTS):
        # Of several processes the first makes the directory; the others then look for the checkpoint alone.
        with processes.main_process_first():
            if processes.is_main_process:
                checkpoint = _prepare_output(out, recipe, resume=resume, overwrite=overwrite)
            else:
                checkpoint = latest_checkpoint(out / CHECKPOINTS) if resume else None
        model, tokenizer = load_model(checkpoint or model_name, data, recipe)
        if checkpoint is None and has_scattered_units(model_name):
            compact(model)  # blocks then divide what is left
        if processes.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            (out / RECIPE_FILE).write_text(recipe.to_yaml(), encoding="utf-8")
        trainer = build_trainer(model, tokenizer, recipe, data, out, **given)
        for warning in trainer.warnings if processes.is_main_process else ():
            say(f"warning: {warning}")
        with stop_on_signal(trainer):
            trainer.train(resume_from_checkpoint=checkpoint)
        metrics = {}
        if finished := trainer.state.global_step == trainer.schedule.steps:
            metrics = _finish(trainer, tokenizer, out, data.task, processes)
    return RunResult(directory=out, finished=finished, step=trainer.state.global_step,
                     steps=trainer.schedule.steps, metrics=metrics)


def _finish(trainer, tokenizer, out, task, processes):
    """Prune for good and write the model directory; returns its metrics."""
    recipe, stages = trainer.recipe, trainer.stages
    trainer.finalize()
    info = describe(trainer.model, structure=stages.structure, pruned=stages.weights if recipe.prunes else (),
                    task=task, max_tokens=recipe.training.max_tokens, map_pruning=stages.map_pruning,
                    removed=stages.removes_units)
    metrics = {**trainer.final_metrics(), **summarize(trainer.model, info),
               "made_with": {"versions": versions(), "device": device_name(),
                             "processes": processes.num_processes,
                             "training_rows": len(trainer.train_dataset)}}
    if stages.budget_report:
        metrics["budget"] = stages.budget_report
    if processes.is_main_process:
        write_model_dir(out, model=trainer.model, tokenizer=tokenizer, info=info, recipe=recipe,
                        metrics=metrics, scales=stages.scales)
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    processes.wait_for_everyone()
    return metrics


def build_trainer(model, tokenizer, recipe, data, out, given=None, given_maps=None, given_removed=False,
                  **argument_changes):
    """The trainer of a run, with its bar and its log; what is given is as in CompressionTrainer."""
    max_tokens = recipe.training.max_tokens
    encoded = EncodedSpans if data.task.spans else EncodedRows
    validation = {split: encoded(data.task, rows, tokenizer, max_tokens)
                  for split, rows in data.validation.items()}
    if data.task.spans:
        metrics = next(iter(validation.values())).metrics
    else:
        def metrics(predictions, labels):
            return compute_metrics(data.task, predictions, labels)
    trainer = CompressionTrainer(
        model, training_arguments(recipe, Path(out) / CHECKPOINTS, **argument_changes), recipe=recipe,
        given=given, given_maps=given_maps, given_removed=given_removed,
        train_dataset=encoded(data.task, data.train, tokenizer, max_tokens),
        eval_dataset=validation if len(validation) > 1 else next(iter(validation.values())),
        data_collator=DataCollatorWithPadding(tokenizer), processing_class=tokenizer,
        compute_metrics=None if data.task is TEXT else
        lambda found: metrics(found.predictions, found.label_ids))
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if trainer.is_world_process_zero():
        trainer.add_callback(ProgressBar(trainer.schedule))
        trainer.add_callback(JsonLog(Path(out) / LOG_FILE))
    return trainer


def _prepare_output(out, recipe, *, resume, overwrite):
    """The checkpoint to resume, or None for a fresh start in a free directory."""
    if resume:
        if (out / COMPRESSION_FILE).is_file():
            raise OutputError(f"{out}: this run is finished; use another --out, or --overwrite")
        before = Recipe.from_yaml(out / RECIPE_FILE)
        if before != recipe:
            raise OutputError(f"{out}: the run there has another recipe, see {out / RECIPE_FILE}; "
                              "resume with that one, or use another --out")
        return latest_checkpoint(out / CHECKPOINTS)
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise OutputError(f"{out}: not empty; use --resume to go on, --overwrite to start again, "
                              "or another --out")
        if not (out / RECIPE_FILE).is_file():
            raise OutputError(f"{out}: not the output of compress train; it is not overwritten")
        shutil.rmtree(out)
    return None


@contextmanager
def stop_on_signal(trainer):
    """Ctrl-C or SIGTERM ends the run after the current step with a checkpoint; a later Ctrl-C at once.

    Launchers of several processes repeat to each of them what the terminal has sent already, seconds later on
    a busy machine; that counts as the same request.
    """
    asked = None
    same = REPEAT_SECONDS if trainer.args.world_size == 1 else LAUNCHER_SECONDS

    def request_stop(number, frame):
        nonlocal asked
        if asked is None:
            asked, trainer.stop_requested = time.monotonic(), True
            if trainer.is_world_process_zero():
                say("stopping after this step; Ctrl-C again to drop it")
        elif number == signal.SIGINT and time.monotonic() > asked + same:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # nobody signals it
        yield
        return
    before = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
