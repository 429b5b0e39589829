"""The torch twin of the integer GELU: the same tables, with gradients."""

from dataclasses import dataclass

import numpy as np
import torch

from compressor.intops.gelu import TABLE_ENTRIES
from compressor.straight_through import look_up

SLOPE_REACH = 4
"""A slope is measured over 4 steps to each side: rounding of the entries errs by 1/8 at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FakeGelu:
    """Twin of :class:`compressor.intops.IntegerGelu`: equal on every integer.

    Parameters
    ----------
    tables, slopes : float32 tensors, shape (256,), or (512,) with a second table
        By the byte of the input, and what a step of the input changes.
    offset : int64 tensor, shape (channels,), or None
        Where each channel's table begins; None with one table.
    """

    tables: torch.Tensor
    slopes: torch.Tensor
    offset: torch.Tensor | None = None

    @classmethod
    def of(cls, gelu, device=None):
        """Twin of an IntegerGelu."""
        found = [gelu.table] if gelu.outliers is None else [gelu.table, gelu.outlier_table]
        tables = torch.tensor(np.concatenate(found), dtype=torch.float32, device=device)
        slopes = torch.tensor(np.concatenate([table_slope(table) for table in found]),
                              dtype=torch.float32, device=device)
        return cls(tables=tables, slopes=slopes, offset=None if gelu.outliers is None else torch.tensor(
            gelu.outliers, dtype=torch.int64, device=device) * TABLE_ENTRIES)

    def compute(self, x):
        """Float32 integers in -127 to 127, shape (..., channels) as ``x``, which holds such too."""
        index = x.detach().long() & (TABLE_ENTRIES - 1)
        return look_up(x, index if self.offset is None else index + self.offset, self.tables, self.slopes)


def table_slope(table):
    """Change of a table of int8 inputs per step, float64, shape (256,), indexed as the table.

    >>> slope = table_slope(np.arange(256).astype(np.uint8).view(np.int8) // 2)
    >>> slope[[0, 127, 129, 255]].tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    codes = np.arange(-TABLE_ENTRIES // 2 + 1, TABLE_ENTRIES // 2)
    low = np.maximum(codes - SLOPE_REACH, codes[0])
    high = np.minimum(codes + SLOPE_REACH, codes[-1])
    values = np.asarray(table, np.float64)
    slope = np.zeros(TABLE_ENTRIES)
    slope[codes & 0xFF] = (values[high & 0xFF] - values[low & 0xFF]) / (high - low)
    return slope
