"""Integer GELU: one table from int8 pre-activation to int8 activation."""

import math
from dataclasses import dataclass

import numpy as np

from compressor.intops.fixedpoint import ACTIVATION_MAX, saturate

TABLE_ENTRIES = 256


def gelu_table(input_scale, output_scale, *, input_center=0.0, output_center=0.0):
    """Table of ``gelu(input_scale * x + input_center)`` in steps of ``output_scale``.

    The centers are free: the layer before adds ``-input_center`` to its bias, the layer after
    ``output_center * sum of its row``. GELU's values lie in [-0.17, max], and with a center
    all 255 codes cover that range instead of about half of them.

    Parameters
    ----------
    input_scale, output_scale : float
        Value of one step, above 0.
    input_center, output_center : float
        Values of code 0.

    Returns
    -------
    int8 array, shape (256,)
        -127 to 127, indexed by the byte of x: entry 255 is x = -1. Entry 128 repeats that of -127.

    >>> gelu_table(0.1, 0.1)[[0, 10, 20, 246, 255]].tolist()
    [0, 8, 20, -2, 0]
    """
    if not (input_scale > 0 and output_scale > 0):
        raise ValueError(f"GELU scales must be above 0, not {input_scale} and {output_scale}")
    code = np.arange(TABLE_ENTRIES, dtype=np.uint8).view(np.int8).astype(np.float64)
    x = np.maximum(code, -ACTIVATION_MAX) * input_scale + input_center
    gelu = np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x])
    steps = np.floor((gelu - output_center) / output_scale + 0.5)
    return saturate(steps, ACTIVATION_MAX).astype(np.int8)


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerGelu:
    """Table look-up of int8 activations: any function of one value.

    In hardware one read of a 256 x 8 bit memory per value; one word per cycle. Error: within 1/2 step of
    the function at the given input, which is itself within 1/2 step of the exact pre-activation.

    Parameters
    ----------
    table : int8 array, shape (256,)
        -127 to 127, indexed by the byte of the input.

    Raises
    ------
    ValueError
        If the table has another shape or contains -128.
    """

    table: np.ndarray

    def __post_init__(self):
        if self.table.shape != (TABLE_ENTRIES,):
            raise ValueError(f"GELU table must have {TABLE_ENTRIES} entries, not {self.table.shape}")
        if np.abs(self.table.astype(np.int64)).max() > ACTIVATION_MAX:
            raise ValueError("GELU table entries must be -127 to 127; -128 is not used")

    def compute(self, x):
        """``table[x]`` for int64 ``x`` in -127 to 127, any shape; int64 in -127 to 127."""
        if x.size and np.abs(x).max() > ACTIVATION_MAX:
            raise ValueError("activations must be -127 to 127; -128 is not used")
        return self.table.astype(np.int64)[x & 0xFF]

    def to_dict(self):
        """Plain values and arrays for a bundle."""
        return {"kind": "gelu", "table": self.table.astype(np.int8)}

    @classmethod
    def from_dict(cls, values):
        """Inverse of :meth:`to_dict`."""
        return cls(table=np.asarray(values["table"], np.int8))
