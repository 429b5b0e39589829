"""One whole ``compress train`` run: model and rows in, model directory out. Called by the command."""

import shutil
import signal
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    ProgressCallback,
)
from transformers.utils import logging as transformers_logging

from compressor.budget import PerLayer
from compressor.distilling_trainer import DENSE_TEACHER, GIVEN_TEACHER
from compressor.encoding import EncodedRows
from compressor.group_structures import HeadsRows
from compressor.model_dir import (
    COMPRESSION_FILE,
    LOG_FILE,
    RECIPE_FILE,
    describe,
    read_compression,
    summarize,
    write_model_dir,
)
from compressor.progress import JsonLog, ProgressBar, say
from compressor.recipes import Recipe, RecipeError
from compressor.removed_units import compact
from compressor.run_guards import explained
from compressor.spans import EncodedSpans
from compressor.stage_callback import latest_checkpoint
from compressor.structures import Dense
from compressor.tasks import TaskData, compute_metrics
from compressor.text_data import TEXT
from compressor.text_file import StrPath
from compressor.tiny_model import build_tiny_model, label_config
from compressor.trainer import CompressionTrainer, training_arguments

CHECKPOINTS = "checkpoints"
TINY = "tiny"


class OutputError(ValueError):
    """An output directory, or a model, that cannot be used; the message is one line."""


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
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
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
        with _stop_on_interrupt(trainer):
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
    metrics = {**trainer.final_metrics(), **summarize(trainer.model, info)}
    if stages.budget_report:
        metrics["budget"] = stages.budget_report
    if processes.is_main_process:
        write_model_dir(out, model=trainer.model, tokenizer=tokenizer, info=info, recipe=recipe,
                        metrics=metrics, scales=stages.scales)
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    processes.wait_for_everyone()
    return metrics


def plan_training(recipe: Recipe, *, model_name: str, data: TaskData) -> dict[str, Any]:
    """What a run would do, as plain values; arguments as for :func:`run_training`.

    Returns
    -------
    dict
        ``stages`` (name, epochs, steps, learning_rate, and ``interval`` in steps for ADMM),
        ``steps_per_epoch``, ``training_rows``, ``pruned_weights`` (weights that the recipe's structure is
        asked of), ``warnings``, ``budget`` if the recipe has
        one (for the weights as they are), and the storage figures of :func:`compressor.model_dir.summarize`.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    check_distillation(recipe, data.task)
    given = given_compression(recipe, model_name)
    model, tokenizer = load_model(model_name, data, recipe)
    if has_scattered_units(model_name):
        compact(model)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(model, tokenizer, recipe, data, folder, **given)
    stages = []
    for span in trainer.schedule.spans:
        stage = span.stage
        stages.append({"name": stage.label, "epochs": stage.epochs, "steps": span.steps,
                       "learning_rate": stage.learning_rate or recipe.training.learning_rate})
        if stage.method == "admm":
            stages[-1]["interval"] = stage.interval_steps(span.steps)
    structure = trainer.stages.planned_structure() if recipe.prunes else Dense()
    pruned = trainer.stages.weights if recipe.prunes else {}
    info = describe(model, structure=structure, pruned=pruned, task=data.task,
                    max_tokens=recipe.training.max_tokens)
    storage = summarize(model, info)
    del storage["nonzero_weights"]  # nothing is pruned yet
    storage["compressed_int8_bits"] = sum(info.structure_of(name).bits(layer.shape)
                                          for name, layer in info.layers.items())
    return {"stages": stages, "steps_per_epoch": trainer.steps_per_epoch, "training_rows": len(data.train),
            "pruned_weights": sum(weight.numel() for weight in pruned.values()),
            "warnings": trainer.warnings, **storage,
            **({"budget": trainer.stages.budget_report} if trainer.stages.budget_report else {})}


def check_distillation(recipe, task):
    """RecipeError if a recipe's teacher was never trained on the task, or plain text is all there is."""
    section = recipe.distillation
    if task is TEXT:
        if section is None or section.logits or not (section.hidden or section.attention):
            raise RecipeError("recovery learns from hidden states and attention maps: the recipe needs "
                              "distillation with logits: 0 and hidden or attention above 0")
        if recipe.stages[0].method == "dense":
            raise RecipeError("recovery has no labels to train a dense stage on; remove the stage")
        if recipe.stages[-1].method == "quantize":
            raise RecipeError("recovery comes before the task, whose training changes every scale; remove "
                              "the stage quantize and quantize after fine-tuning")
    elif section and section.teacher == GIVEN_TEACHER and recipe.stages[0].method == "dense":
        raise RecipeError("distillation: {teacher: model} learns from the model as it came; remove the dense "
                          "stage, or use teacher: dense")
    elif section and section.teacher == DENSE_TEACHER and recipe.stages[0].method != "dense":
        raise RecipeError("distillation: {teacher: dense} needs a dense stage, which trains it on the task; "
                          "add one, or use teacher: model for the model itself if it is fine-tuned, or name "
                          "the directory of a fine-tuned model")


def given_compression(recipe, model_name):
    """What was done to the model in a directory, for a recipe that goes on with it, as arguments of
    CompressionTrainer; none for other recipes.

    Raises
    ------
    ModelDirError, RecipeError
        If there is no such directory, or its pruned layers are not the recipe's targets, or a recipe that
        quantizes but does not prune would undo its pruning.
    """
    if recipe.structure.kind != "model":
        if not (Path(model_name) / COMPRESSION_FILE).is_file():
            return {}
        info = read_compression(model_name)
        if (recipe.stages[-1].method == "quantize" and not recipe.prunes
                and (info.structure != Dense() or info.map_pruning)):
            raise RecipeError(f"{model_name} is pruned, and this recipe would undo it; "
                              "set structure: {kind: model}")
        return {"given_removed": info.units is not None}
    info = read_compression(model_name)
    pruned = {layer.role for layer in info.layers.values() if layer.structure != "dense"}
    only_quantizes = all(stage.method == "quantize" for stage in recipe.stages)
    # Where a budget chose, every layer knows by itself whether it is dense.
    own = isinstance(info.whole_structure, PerLayer) and pruned <= set(recipe.targets.roles)
    if pruned != set(recipe.targets.roles) and not own and (pruned or not only_quantizes):
        raise RecipeError(f"structure: {{kind: model}}: {model_name} has pruned "
                          f"{', '.join(sorted(pruned)) or 'no'} layers, but targets.roles names "
                          f"{', '.join(sorted(recipe.targets.roles))}")
    return {"given": info.whole_structure, "given_maps": info.map_pruning,
            "given_removed": info.units is not None}


def has_scattered_units(model_name):
    """Whether heads and rows were removed from the model in a directory, and nothing since: blocks and
    patterns that lie on what is left must stay where they are."""
    return ((Path(model_name) / COMPRESSION_FILE).is_file()
            and isinstance(read_compression(model_name).structure, HeadsRows))


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


def load_model(name, data, recipe):
    """A model for the task and its tokenizer; OutputError in one line if they cannot be had.

    The model has the task's head; it is the encoder alone where the data are plain text.
    """
    training = recipe.training
    if name == TINY:
        model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=training.max_tokens,
                                            seed=training.seed)
        return model.base_model if data.task is TEXT else model, tokenizer
    try:
        # float32 whatever the files hold: AdamW loses small steps on weights of 16 bits.
        model = model_class(data.task).from_pretrained(
            name, dtype=torch.float32, **({} if data.task is TEXT else label_config(data.task)))
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise OutputError(f"--model {name}: {' '.join(str(error).split())[:300]}") from error
    positions = getattr(model.config, "max_position_embeddings", training.max_tokens)
    if training.max_tokens > positions:
        raise RecipeError(f"training.max_tokens is {training.max_tokens}, but model {name} has "
                          f"positions for {positions}")
    return model, tokenizer


def model_class(task):
    """The class of transformers that has the head of a task; plain text has none."""
    if task is TEXT:
        return AutoModel
    return AutoModelForQuestionAnswering if task.spans else AutoModelForSequenceClassification


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
def _stop_on_interrupt(trainer):
    """Ctrl-C ends the run after the current step with a checkpoint; a second one ends it at once."""
    def request_stop(number, frame):
        signal.signal(number, signal.default_int_handler)
        trainer.stop_requested = True
        say("stopping after this step; Ctrl-C again to drop it")

    try:
        before = signal.signal(signal.SIGINT, request_stop)
    except ValueError:  # not the main thread: nobody to interrupt it
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
