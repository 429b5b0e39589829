"""What the models of the table cost on one array."""

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.task_rows import ARRAY
from compressor.model_export import export_model
from hwgen.cost import program_cycles
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan

CALIBRATION_ROWS = 16
"""Scales need rows; cycles do not depend on them."""


def encoder_cycles(folder, data):
    """Clock cycles of a whole encoder on the array of the table, predicted; simulation takes as many.

    Parameters
    ----------
    folder : Path
        The model directory of a finished run on a task.
    data : TaskData

    Returns
    -------
    int
    """
    with TemporaryDirectory() as aside:
        bundle = export_model(folder, Path(aside) / "pruned.pt", task=data.task,
                              rows=data.train[:CALIBRATION_ROWS])
    return program_cycles(make_plan(bundle, PlanRequest(**ARRAY)))
