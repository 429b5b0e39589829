"""Integer GELU: tables from int8 pre-activation to int8 activation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from compressor.intops.fixedpoint import ACTIVATION_MAX, Int64Array, saturate

TABLE_ENTRIES = 256


def gelu(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """GELU of real values, ``x / 2 * erfc(-x / sqrt(2))``, float64.

    >>> gelu(np.array([-1.0, 0.0, 1.0])).round(4).tolist()
    [-0.1587, 0.0, 0.8413]
    """
    x = np.asarray(x, np.float64)
    tail: npt.NDArray[np.float64] = np.vectorize(math.erfc, otypes=[np.float64])(-x / math.sqrt(2))
    return 0.5 * x * tail


def gelu_table(input_scale: float, output_scale: float, *, input_center: float = 0.0,
               output_zero: int = 0) -> npt.NDArray[np.int8]:
    """Table of ``gelu(input_scale * x + input_center) / output_scale - output_zero``, rounded half up.

    Center and zero are free, because the layers beside the table absorb them: the layer before adds
    ``-input_center`` to its bias, the layer after adds ``output_zero * sum of its row``. GELU's values
    lie in [-0.17, max]; with them all 255 codes cover that range and not half of them.

    Parameters
    ----------
    input_scale, output_scale : float
        Value of one step, above 0.
    input_center : float
        Value of input code 0.
    output_zero : int
        Steps that are subtracted; the real value 0 becomes code ``-output_zero``, exactly.

    Returns
    -------
    int8 array, shape (256,)
        -127 to 127, indexed by the byte of x: entry 255 is x = -1. Entry 128 repeats that of -127.

    >>> gelu_table(0.1, 0.1)[[0, 10, 20, 246, 255]].tolist()
    [0, 8, 20, -2, 0]
    >>> gelu_table(0.1, 0.05, output_zero=120)[[0, 127]].tolist()
    [-120, 127]
    """
    if not (input_scale > 0 and output_scale > 0):
        raise ValueError(f"GELU scales must be above 0, not {input_scale} and {output_scale}")
    code = np.arange(TABLE_ENTRIES, dtype=np.uint8).view(np.int8).astype(np.float64)
    x = np.maximum(code, -ACTIVATION_MAX) * input_scale + input_center
    steps = np.floor(gelu(x) / output_scale + 0.5) - output_zero
    return saturate(steps, ACTIVATION_MAX).astype(np.int8)


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerGelu:
    """Table look-up of int8 activations: any function of one value.

    A second table serves channels whose pre-activations are many times larger than all others; they would
    make every step coarse (one neuron in 1536 reaches 24 where the others stay below 6). The
    choice is one bit per output row of the layer before. In hardware one read of a 512 x 8 bit
    memory per value; one word per cycle. Error: within 1/2 step of the function at the given input, which is
    itself within 1/2 step of the exact pre-activation.

    Parameters
    ----------
    table : int8 array, shape (256,)
        -127 to 127, indexed by the byte of the input.
    outlier_table : int8 array, shape (256,), or None
        Table of the outlier channels.
    outliers : bool array, shape (channels,), or None
        Which channels use it; given exactly if ``outlier_table`` is.

    Raises
    ------
    ValueError
        If a table has another shape or contains -128, or only one of the last two is given.
    """

    table: npt.NDArray[np.int8]
    outlier_table: npt.NDArray[np.int8] | None = None
    outliers: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if (self.outlier_table is None) != (self.outliers is None):
            raise ValueError("outlier_table and outliers must be given together")
        for table in (self.table, self.outlier_table):
            if table is None:
                continue
            if table.shape != (TABLE_ENTRIES,):
                raise ValueError(f"GELU table must have {TABLE_ENTRIES} entries, not {table.shape}")
            if np.abs(table.astype(np.int64)).max() > ACTIVATION_MAX:
                raise ValueError("GELU table entries must be -127 to 127; -128 is not used")

    def compute(self, x: Int64Array) -> Int64Array:
        """Look-up of int64 ``x`` in -127 to 127, shape (..., channels); int64 in -127 to 127."""
        if x.size and np.abs(x).max() > ACTIVATION_MAX:
            raise ValueError("activations must be -127 to 127; -128 is not used")
        index = x & 0xFF
        normal: Int64Array = self.table.astype(np.int64)[index]
        if self.outliers is None or self.outlier_table is None:
            return normal
        outlying: Int64Array = self.outlier_table.astype(np.int64)[index]
        return np.where(self.outliers, outlying, normal)

    def to_dict(self) -> dict[str, Any]:
        """Plain values and arrays for a bundle; without outliers their arrays are empty."""
        table, outliers = self.outlier_table, self.outliers
        return {"kind": "gelu", "table": self.table.astype(np.int8),
                "outlier_table": np.zeros(0, np.int8) if table is None else table.astype(np.int8),
                "outliers": np.zeros(0, np.uint8) if outliers is None else outliers.astype(np.uint8)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`."""
        outliers = np.asarray(values["outliers"], bool)
        if not outliers.size:
            return cls(table=np.asarray(values["table"], np.int8))
        return cls(table=np.asarray(values["table"], np.int8),
                   outlier_table=np.asarray(values["outlier_table"], np.int8), outliers=outliers)
