"""Tasks: rows of text with labels or answers, from GLUE, SQuAD, local files or generated.

Rows are dicts with the field names of the Hugging Face data sets ``glue`` and ``squad``, wherever they come
from.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from compressor import synthetic_task
from compressor.spans import checked_answers
from compressor.task_definition import Task, read_task
from compressor.task_files import TaskError, read_split
from compressor.task_metrics import OF_SPANS
from compressor.text_file import StrPath

GLUE_DATASET, SQUAD_DATASET = "nyu-mll/glue", "rajpurkar/squad"

_ENTAILMENT = ("entailment", "not_entailment")

TASKS = {task.name: task for task in (
    Task(name="synthetic", fields=("sentence",), labels=synthetic_task.LABELS),
    Task(name="sst2", fields=("sentence",), labels=("negative", "positive")),
    Task(name="cola", fields=("sentence",), labels=("unacceptable", "acceptable"),
         metrics=("matthews_correlation", "accuracy")),
    Task(name="mrpc", fields=("sentence1", "sentence2"), labels=("not_equivalent", "equivalent"),
         metrics=("f1", "accuracy")),
    Task(name="qqp", fields=("question1", "question2"), labels=("not_duplicate", "duplicate"),
         metrics=("accuracy", "f1")),
    Task(name="stsb", fields=("sentence1", "sentence2"), labels=(), metrics=("spearman", "pearson")),
    Task(name="mnli", fields=("premise", "hypothesis"),
         labels=("entailment", "neutral", "contradiction"),
         validation=("validation_matched", "validation_mismatched")),
    Task(name="qnli", fields=("question", "sentence"), labels=_ENTAILMENT),
    Task(name="rte", fields=("sentence1", "sentence2"), labels=_ENTAILMENT),
    Task(name="wnli", fields=("sentence1", "sentence2"), labels=("not_entailment", "entailment")),
    Task(name="squad", fields=("question", "context"), labels=(), metrics=OF_SPANS, spans=True),
)}
"""Every task, by name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskData:
    """A task with its rows: ``train`` is a list, ``validation`` a dict of lists by split name."""

    task: Task
    train: list[dict]
    validation: dict[str, list[dict]]


def get_task(name: StrPath) -> Task:
    """The task called ``name``, or that a YAML file describes; TaskError lists the names there are."""
    if str(name).endswith((".yaml", ".yml")):
        task = read_task(name)
        if task.name in TASKS:
            raise TaskError(f"{name}: name: {task.name} is a task that is known already; choose another")
        return task
    if name not in TASKS:
        raise TaskError(f"unknown task {str(name)!r}; use one of {', '.join(TASKS)}, or the YAML file that "
                        "describes yours")
    return TASKS[str(name)]


def stored_task(name: str, fields: Iterable[str], labels: Iterable[str],
                metrics: Iterable[str]) -> Task:
    """The task of a model directory or a bundle: a known one, or as it is described there."""
    labels = tuple(labels)
    known = TASKS.get(name)
    if known is not None and known.labels == labels:
        return known
    return Task(name=name, fields=tuple(fields), labels=labels, metrics=tuple(metrics))


def load_task(name: StrPath | Task, *, data: StrPath | None = None, train_rows: int | None = None,
              validation_rows: int | None = None, seed: int = 0) -> TaskData:
    """Rows of a task.

    Parameters
    ----------
    name : str, path or Task
        One of :data:`TASKS`, or the YAML file that describes another, see
        :class:`compressor.task_definition.TaskFile`.
    data : path, optional
        Folder with ``train*`` and ``validation*`` files, see :func:`compressor.task_files.read_split`.
        Without it, GLUE and SQuAD come from the Hugging Face hub (needs the package ``datasets``).
    train_rows, validation_rows : int, optional
        Use this many rows: a seeded sample of the training rows, the first of each validation split.
        For ``synthetic``, the numbers to generate (8000 and 1000 unless given).

    Raises
    ------
    TaskError
        If the rows cannot be had, or one of them does not fit the task.
    """
    task = name if isinstance(name, Task) else get_task(name)
    if task.name == "synthetic":
        if data is not None:
            raise TaskError("task synthetic is generated; it takes no --data")
        return TaskData(task=task, train=synthetic_task.generate(train_rows or 8000, seed=seed),
                        validation={"validation": synthetic_task.generate(validation_rows or 1000,
                                                                          seed=seed + 1_000_003)})
    read = (lambda split: read_split(data, split)) if data is not None else _hub_reader(task)
    train = _sample(checked_rows(task, read("train"), "train"), train_rows, seed)
    validation = {}
    for split in task.validation:
        rows = read(split)
        if rows is not None:
            validation[split] = checked_rows(task, rows, split)[:validation_rows]
    if not validation:
        raise TaskError(f"task {task.name}: no file for any of {', '.join(task.validation)} in {data}")
    return TaskData(task=task, train=train, validation=validation)


def checked_rows(task, rows, split):
    """Rows with labels as int (float for regression) or answers; TaskError names the first bad row."""
    if not rows:
        raise TaskError(f"task {task.name}: split {split} has no rows")
    return [_checked_row(task, row, f"task {task.name}, {split}, row {number}")
            for number, row in enumerate(rows, start=1)]


def _checked_row(task, row, where):
    for field in (*task.fields, "answers" if task.spans else "label"):
        if field not in row:
            raise TaskError(f"{where}: no field {field!r}; it has {', '.join(map(str, row))}")
        if row[field] is None:
            raise TaskError(f"{where}: field {field!r} is empty")
    texts = {field: str(row[field]) for field in task.fields}
    if task.spans:
        return {**row, **texts, "answers": checked_answers(row | texts, where)}
    label = row["label"]
    if isinstance(label, str) and label in task.labels:
        label = task.labels.index(label)
    try:
        label = float(label)
    except (TypeError, ValueError):
        raise TaskError(f"{where}: label {label!r} is no number and none of "
                        f"{', '.join(task.labels) or 'the values of a regression'}") from None
    if not math.isfinite(label):
        raise TaskError(f"{where}: label {label} is not finite")
    if task.labels and label not in range(len(task.labels)):
        raise TaskError(f"{where}: label {label:g}; labels are 0 to {len(task.labels) - 1} "
                        f"({', '.join(task.labels)}). Test sets without labels cannot be used")
    return {**row, **texts, "label": int(label) if task.labels else label}


def _sample(rows, count, seed):
    if count is None or count >= len(rows):
        return rows
    chosen = np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))
    return [rows[i] for i in chosen]


def _hub_reader(task):
    name = task.name
    if name not in TASKS:
        raise TaskError(f"task {name} needs rows: give --data DIR with train and validation files")
    try:
        import datasets
    except ImportError:
        raise TaskError(f"task {name} needs rows: give --data DIR with train and validation files, "
                        "or install the package datasets to fetch it from the hub") from None
    place = (SQUAD_DATASET,) if task.spans else (GLUE_DATASET, name)
    try:
        splits = datasets.load_dataset(*place)
    except Exception as error:  # the hub client raises many kinds; the reader needs one line
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TaskError(f"task {name}: cannot fetch {place[0]} from the hub ({first_line}); "
                        "give --data DIR instead") from error
    return lambda split: list(splits[split]) if split in splits else None
