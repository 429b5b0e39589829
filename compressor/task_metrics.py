"""Metrics of classifications and regressions: GLUE's, and the mean F1 of several classes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def compute_metrics(task, logits, labels):
    """A task's metrics as a dict of floats; the first entry is its own. Not for tasks of spans.

    A correlation with what is the same in all rows is 0, as scikit-learn has it.

    Parameters
    ----------
    logits : float array, shape (rows, labels), or (rows,) or (rows, 1) for regression
        A regression's are the predicted numbers.
    labels : array, shape (rows,)

    >>> from compressor.tasks import TASKS
    >>> compute_metrics(TASKS["sst2"], np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([0, 0]))
    {'accuracy': 0.5}
    """
    labels, values = np.asarray(labels), predictions(task, logits)
    return {name: float(METRICS[name](labels, values)) for name in task.metrics}


def predictions(task, logits):
    """What logits predict, shape (rows,): the class with the largest one, or the number of a regression."""
    logits = np.asarray(logits)
    return logits.argmax(axis=-1) if task.labels else logits.reshape(len(logits))


def _accuracy(labels, values):
    return (labels == values).mean()


def _f1(labels, values):
    from sklearn.metrics import f1_score

    return f1_score(labels, values)


def _macro_f1(labels, values):
    from sklearn.metrics import f1_score

    return f1_score(labels, values, average="macro")


def _matthews(labels, values):
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(labels, values)


def _spearman(labels, values):
    from scipy.stats import spearmanr

    return spearmanr(labels, values).statistic if _both_vary(labels, values) else 0


def _pearson(labels, values):
    from scipy.stats import pearsonr

    return pearsonr(labels, values).statistic if _both_vary(labels, values) else 0


def _both_vary(labels, values):
    return np.ptp(labels) != 0 and np.ptp(values) != 0


METRICS = {"accuracy": _accuracy, "f1": _f1, "macro_f1": _macro_f1, "matthews_correlation": _matthews,
           "spearman": _spearman, "pearson": _pearson}

OF_NUMBERS = ("spearman", "pearson")
"""Metrics of regressions; the others are of classes."""

OF_TWO_CLASSES = ("f1",)
"""Metrics that need two classes, of which the second is the positive one."""

OF_SPANS = ("f1", "exact_match")
"""Metrics of answers that are spans of a text, see :mod:`compressor.spans`."""


def metrics_for(labels: Sequence[str]) -> tuple[str, ...]:
    """Names of the metrics that a task of these classes can have; of numbers if there are none.

    >>> metrics_for(["world", "sports", "business"])
    ('accuracy', 'macro_f1', 'matthews_correlation')
    """
    if not labels:
        return OF_NUMBERS
    return tuple(name for name in METRICS if name not in OF_NUMBERS
                 and (len(labels) == 2 or name not in OF_TWO_CLASSES))


def glue_score(scores: npt.ArrayLike) -> float:
    """The papers' GLUE average: the geometric mean of the scores (MNLI's two counted separately).

    >>> round(glue_score([84.5, 84.8, 92.5, 91.6, 56.7, 89.6, 91.7, 70.7]), 1)  # dense BERT-base
    81.8
    """
    return float(np.exp(np.log(np.asarray(scores, float)).mean()))
