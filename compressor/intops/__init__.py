"""The integer golden model: the only definition of the arithmetic. NumPy only, int64, no torch.

Operators follow one form: a frozen dataclass holds the checked integers of one instance
(weights, tables, multipliers), and ``compute()`` maps int64 activations to int64 activations.
"""

from compressor.intops.attention import IntegerAttention
from compressor.intops.encoder import IntegerEncoder, IntegerEncoderLayer
from compressor.intops.fixedpoint import (
    ACTIVATION_MAX,
    quantize_multiplier,
    requantize,
    round_half_up_shift,
    saturate,
)
from compressor.intops.gelu import IntegerGelu
from compressor.intops.layernorm import IntegerLayerNorm
from compressor.intops.linear import IntegerLinear, exact_matmul
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.intops.softmax import IntegerSoftmax

__all__ = [
    "ACTIVATION_MAX",
    "IntegerAttention",
    "IntegerEncoder",
    "IntegerEncoderLayer",
    "IntegerGelu",
    "IntegerLayerNorm",
    "IntegerLinear",
    "IntegerMapPruning",
    "IntegerSoftmax",
    "exact_matmul",
    "quantize_multiplier",
    "requantize",
    "round_half_up_shift",
    "saturate",
]
