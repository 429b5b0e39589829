"""Names that doctests may use without importing them."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def doctest_names(doctest_namespace):
    """Make ``np`` available in every doctest."""
    doctest_namespace["np"] = np
