"""What a task looks like: its text fields, labels and metrics; one of your own is a YAML file."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from compressor.section import Section, first_problem, read_yaml
from compressor.task_files import TaskError
from compressor.task_metrics import metrics_for
from compressor.text_file import StrPath

Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a task looks like.

    Parameters
    ----------
    name : str
    fields : tuple of str
        One or two text fields of a row.
    labels : tuple of str
        Class names; a row's ``label`` is an index. Empty for regression (``label`` is a number) and spans.
    validation : tuple of str
        Names of the validation splits; MNLI has two.
    metrics : tuple of str
        The first is the task's own, see :func:`compressor.task_metrics.compute_metrics`.
    spans : bool
        Answers are spans of the field ``context``, see :mod:`compressor.spans`; rows have ``answers``.
    """

    name: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    validation: tuple[str, ...] = ("validation",)
    spans: bool = False

    @property
    def primary_metric(self) -> str:
        """The metric that is reported if one is."""
        return self.metrics[0]


class TaskFile(Section):
    """A task of your own, as its YAML file says.

    Parameters
    ----------
    name : str
        Lower-case letters, digits, "_" and "-".
    fields : tuple of str
        One or two text fields of a row, or columns.
    labels : tuple of str
        Class names; rows have a name or its number from 0 in the field ``label``. Without them ``label`` is a
        number that is predicted.
    metrics : tuple of str, optional
        accuracy, f1 (two classes, the second is the positive one), macro_f1, matthews_correlation; of
        numbers spearman and pearson. The first is the task's own. Accuracy, or spearman, unless given.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    fields: Annotated[tuple[Text, ...], Field(min_length=1, max_length=2)]
    labels: tuple[Text, ...] = ()
    metrics: tuple[Literal["accuracy", "f1", "macro_f1", "matthews_correlation", "spearman", "pearson"],
                   ...] = ()

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        for key, names in (("fields", self.fields), ("labels", self.labels), ("metrics", self.metrics)):
            if len(set(names)) != len(names):
                raise ValueError(f"{key}: {', '.join(names)} has a name twice")
        if len(self.labels) == 1:
            raise ValueError("labels: one class is nothing to tell; give two or more, or none for numbers")
        return self

    @model_validator(mode="after")
    def _metrics_fit(self) -> Self:
        allowed = metrics_for(self.labels)
        for metric in self.metrics:
            if metric not in allowed:
                kind = f"a task of {len(self.labels)} labels" if self.labels else "numbers"
                raise ValueError(f"metrics: {metric} is not for {kind}; allowed are {', '.join(allowed)}")
        return self


def read_task(path: StrPath) -> Task:
    """The task that a YAML file describes, see :class:`TaskFile`; TaskError in one line if it does not."""
    values = read_yaml(path, "task", TaskError)
    if not isinstance(values, dict):
        raise TaskError(f"{path}: a task is a mapping with name, fields and labels, "
                        f"not {type(values).__name__}")
    try:
        found = TaskFile.model_validate(values)
    except ValidationError as error:
        raise TaskError(f"{path}: {first_problem(error)}") from error
    metrics = found.metrics or (("accuracy",) if found.labels else ("spearman",))
    return Task(name=found.name, fields=found.fields, labels=found.labels, metrics=metrics)
