"""Runs side by side: GLUE's average as the papers take it, pictures."""

import pytest

from compressor.comparison import GLUE_EIGHT, glue_averages
from compressor.pictures import comparison_picture

DENSE = (84.5, 84.8, 92.5, 91.6, 56.7, 89.6, 91.7, 70.7)


def rows_of(scores=DENSE, **changes):
    """A run for each task, with BERT-base's dense numbers in S1."""
    tasks = {}
    for (task, metric), score in zip(GLUE_EIGHT, scores, strict=True):
        tasks.setdefault(task, {})[metric] = score / 100
    return [{"run": task, "task": task, "structure": "dense", "method": "dense", "kept": 1.0, "storage": 1.0,
             "seed": 0, "metrics": metrics} | changes for task, metrics in tasks.items()]


def test_the_average_is_the_papers():
    found, = glue_averages(rows_of() + rows_of(seed=1)[:5])
    assert (found["seed"], round(found["average"], 1)) == (0, 81.8)
    assert [round(mean["average"], 1) for mean in glue_averages(
        rows_of((82.3, 83.4, 92.3, 90.4, 55.3, 89.3, 90.8, 68.6)))] == [80.5]  # NxMTransformer, 4:2


def test_a_plot_needs_a_common_metric():
    with pytest.raises(ValueError, match="no metric in common; plot runs of one task"):
        comparison_picture(rows_of())
    assert comparison_picture(rows_of()[1:3]).count("<circle") == 2  # SST-2 and QNLI: accuracy
