"""Settings of the whole test run, and the names that every docstring example may use."""

import os

# One thread a worker: pytest-xdist fills the cores, and small tensors only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    doctest_namespace["np"] = np
