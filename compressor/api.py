"""What ``compress`` does, as functions: each command calls the one of its name here."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor.bundle import Bundle, BundleError, load_bundle
from compressor.calibration import DEFAULT_METHODS, Methods
from compressor.model_dir import COMPRESSION_FILE, read_compression
from compressor.model_export import export_model
from compressor.recipes import Recipe, as_recipe, combined_recipes
from compressor.reload import quiet_loading, to_model, to_tokenizer
from compressor.sensitivity import run_sensitivity
from compressor.tasks import TaskData, load_task
from compressor.text_data import load_text
from compressor.text_file import StrPath, make_folder
from compressor.training_plan import plan_training
from compressor.training_run import RunResult, run_training

RecipeLike = Recipe | Mapping[str, Any] | StrPath
"""A recipe, its plain values, the name of a preset, or the path of a YAML file."""


def compress(recipe: RecipeLike, *, model: StrPath, task: StrPath | TaskData, out: StrPath,
             data: StrPath | None = None, train_rows: int | None = None, validation_rows: int | None = None,
             resume: bool = False, overwrite: bool = False) -> RunResult:
    """Train and prune a model: `compress train`.

    Ctrl-C, or SIGTERM, ends the run with a checkpoint; the result then says that it is not finished.

    Parameters
    ----------
    recipe : Recipe, dict, str or path
        What to do; a name is that of a preset.
    model : str or path
        Directory or hub id of a BERT, RoBERTa or DistilBERT; ``tiny`` builds a small BERT.
    task : str, path or TaskData
        GLUE task, ``synthetic`` for the generated one, or a YAML file that describes yours
        (:class:`compressor.task_definition.TaskFile`); or rows that were loaded before, with which ``data``,
        ``train_rows`` and ``validation_rows`` have no place.
    out : path
        Becomes a model directory, see :mod:`compressor.model_dir`.
    data : path, optional
        Folder with train* and validation* files; without it, GLUE comes from the hub.
    train_rows, validation_rows : int, optional
        Use this many rows.
    resume : bool
        Go on from the latest checkpoint in ``out``.
    overwrite : bool
        Delete an earlier run in ``out`` first.

    Returns
    -------
    RunResult

    Raises
    ------
    RecipeError, TaskError, OutputError, ModelDirError, TrainingError
    """
    checked = as_recipe(recipe)
    rows = _rows(checked, task, data, train_rows, validation_rows)
    return run_training(checked, model_name=str(model), data=rows, out=out, resume=resume,
                        overwrite=overwrite)


def plan_compression(recipe: RecipeLike, *, model: StrPath, task: StrPath | TaskData,
                     data: StrPath | None = None, train_rows: int | None = None,
                     validation_rows: int | None = None, costs: StrPath | None = None) -> dict[str, Any]:
    """What :func:`compress` would do: `compress train --dry-run`; nothing is trained or written.

    ``costs`` is a file of ``hwgen costs``, by which cycles are expected.

    Returns
    -------
    dict
        See :func:`compressor.training_plan.plan_training`.
    """
    checked = as_recipe(recipe)
    rows = _rows(checked, task, data, train_rows, validation_rows)
    return plan_training(checked, model_name=str(model), data=rows, costs=costs)


def recover(recipe: RecipeLike, *, model: StrPath, text: Sequence[StrPath], out: StrPath,
            rows: int | None = None, resume: bool = False, overwrite: bool = False) -> RunResult:
    """Prune an encoder and teach it its own hidden states on plain text: `compress recover`.

    Parameters
    ----------
    recipe : Recipe, dict, str or path
        Needs ``distillation``; the preset ``recover-pattern-50``, say.
    text : sequence of path
        Files of sentences, see :func:`compressor.text_data.load_text`.
    rows : int, optional
        Use this many sentences.
    model, out, resume, overwrite
        As for :func:`compress`.

    Returns
    -------
    RunResult

    Raises
    ------
    RecipeError, TaskError, OutputError, ModelDirError, TrainingError
    """
    checked = as_recipe(recipe)
    sentences = load_text(text, rows=rows, seed=checked.training.seed)
    return run_training(checked, model_name=str(model), data=sentences, out=out, resume=resume,
                        overwrite=overwrite)


def plan_recovery(recipe: RecipeLike, *, model: StrPath, text: Sequence[StrPath],
                  rows: int | None = None, costs: StrPath | None = None) -> dict[str, Any]:
    """What :func:`recover` would do: `compress recover --dry-run`; as :func:`plan_compression`."""
    checked = as_recipe(recipe)
    return plan_training(checked, model_name=str(model), costs=costs,
                         data=load_text(text, rows=rows, seed=checked.training.seed))


def sweep(recipe: RecipeLike, changes: Mapping[str, Sequence[Any]], *, model: StrPath,
          task: StrPath | TaskData, out: StrPath, data: StrPath | None = None,
          train_rows: int | None = None, validation_rows: int | None = None) -> list[Path]:
    """Train a recipe once for each combination of values: `compress sweep`.

    Parameters
    ----------
    changes : dict of str to sequence
        Values to try, by key of the recipe with dots, stages by their number from 0:
        ``{"stages.1.strength": [1e-5, 1e-4]}``.
    out : path
        Directory for the runs; those that are finished are kept.
    recipe, model, task, data, train_rows, validation_rows
        As for :func:`compress`.

    Returns
    -------
    list of Path
        Model directories, for :func:`compressor.compare_runs`.

    Raises
    ------
    RecipeError, TaskError, OutputError, ModelDirError, TrainingError
    """
    runs = []
    for name, checked in combined_recipes(as_recipe(recipe), changes).items():
        run = Path(out) / name
        runs.append(run)
        if not (run / COMPRESSION_FILE).is_file():
            rows = _rows(checked, task, data, train_rows, validation_rows)
            run_training(checked, model_name=str(model), data=rows, out=run, overwrite=run.exists())
    return runs


def measure_layers(recipe: RecipeLike, *, model: StrPath, task: StrPath | TaskData, density: float = 0.5,
                   retrain_steps: int = 0, out: StrPath | None = None, data: StrPath | None = None,
                   train_rows: int | None = None, validation_rows: int | None = None) -> dict[str, Any]:
    """Prune one layer after the other, and see what each costs in the task's loss: `compress sensitivity`.

    Parameters
    ----------
    recipe : Recipe, dict, str or path
        Its structure, pool and targets are measured; its stages do not count.
    model : str or path
        Directory or hub id of a model that was fine-tuned on the task.
    density : float
        Above 0, below 1: where a structure that has a density is measured.
    retrain_steps : int
        Optimizer steps on training rows after each pruning, at the recipe's batch and rate.
    out : path, optional
        File for a recipe's ``budget.sensitivity``.
    task, data, train_rows, validation_rows
        As for :func:`compress`.

    Returns
    -------
    dict
        See :func:`compressor.sensitivity.measure_sensitivity`.

    Raises
    ------
    RecipeError, TaskError, OutputError
    """
    checked = as_recipe(recipe)
    rows = _rows(checked, task, data, train_rows, validation_rows)
    return run_sensitivity(checked, model_name=str(model), data=rows, density=density,
                           retrain_steps=retrain_steps, out=out)


def export(model: StrPath, out: StrPath = "pruned.pt", *, task: StrPath | TaskData | None = None,
           data: StrPath | None = None, rows: int = 128, validation_rows: int = 1000,
           linear_only: bool = False, attention_maps: bool | None = None, input_method: str | None = None,
           output_method: str | None = None, note: Callable[[str], None] | None = None) -> Bundle:
    """Quantize a model that :func:`compress` left, and write its bundle: `compress export`.

    Parameters
    ----------
    model : path
        The model directory.
    out : path
        The bundle; written aside, then renamed.
    task : str, path or TaskData, optional
        Whose training rows calibrate the scales; the model's own unless given.
    data : path, optional
        Folder with train* and validation* files; without it, GLUE comes from the hub.
    rows : int
        Training rows to calibrate on. A model that was trained in integers keeps its scales.
    validation_rows : int
        Rows on which the float and the quantized model are compared; 0 skips it.
    linear_only : bool
        Quantize the linear layers alone; softmax, GELU and LayerNorm stay in float.
    attention_maps : bool, optional
        Prune attention maps, or leave them whole; as the model was trained unless given.
    input_method, output_method : str, optional
        Of layer inputs and outputs, with ``linear_only``: ``max``, ``mse``, ``percentile:99.99``.
    note : callable(str), optional
        Called with one line before each long step.

    Returns
    -------
    Bundle

    Raises
    ------
    ModelDirError, TaskError, BundleError
    ValueError
        If a method is unknown, or given without ``linear_only``.
    """
    if (input_method or output_method) and not linear_only:
        raise ValueError("--input-method and --output-method need --linear-only; "
                         "scales of whole encoders minimize the square error")
    methods = Methods(inputs=input_method or DEFAULT_METHODS.inputs,
                      outputs=output_method or DEFAULT_METHODS.outputs) if linear_only else None
    quiet_loading()
    if not isinstance(task, TaskData):
        task = load_task(read_compression(model).task if task is None else task, data=data, train_rows=rows,
                         validation_rows=validation_rows or 1)
    elif data is not None:
        raise TypeError("data has no place beside rows that are loaded already; leave it out")
    first_split = next(iter(task.validation.values()))
    make_folder(Path(out).parent)  # before what takes long
    return export_model(model, out, task=task.task, rows=task.train[:rows],
                        validation=first_split[:validation_rows], methods=methods,
                        attention_maps=attention_maps, note=note)


def verify(bundle: StrPath) -> Bundle:
    """Check every block, range, key and checksum of a bundle, and rebuild its model: `compress verify`.

    Returns
    -------
    Bundle

    Raises
    ------
    BundleError
        One line names the file, the place, what was found and what is allowed.
    """
    loaded = load_bundle(bundle)
    try:
        to_model(loaded)
        to_tokenizer(loaded)
    except BundleError as error:
        raise BundleError(f"{bundle}: {error}") from error
    return loaded


def _rows(recipe: Recipe, task: StrPath | TaskData, data: StrPath | None, train_rows: int | None,
          validation_rows: int | None) -> TaskData:
    if not isinstance(task, TaskData):
        return load_task(task, data=data, train_rows=train_rows, validation_rows=validation_rows,
                         seed=recipe.training.seed)
    if (data, train_rows, validation_rows) != (None, None, None):
        raise TypeError("data, train_rows and validation_rows have no place beside rows that are loaded "
                        "already; leave them out")
    return task
