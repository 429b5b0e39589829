"""The integer golden model: the only definition of the arithmetic. NumPy only, int64, no torch.

Operators follow one form: a frozen dataclass holds the checked integers of one instance
(weights, tables, multipliers), and ``compute()`` maps int64 activations to int64 activations.
"""

from compressor.intops.fixedpoint import (
    ACTIVATION_MAX,
    quantize_multiplier,
    requantize,
    round_half_up_shift,
    saturate,
)
from compressor.intops.linear import IntegerLinear, exact_matmul

__all__ = [
    "ACTIVATION_MAX",
    "IntegerLinear",
    "exact_matmul",
    "quantize_multiplier",
    "requantize",
    "round_half_up_shift",
    "saturate",
]
