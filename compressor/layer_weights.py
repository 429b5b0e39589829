"""Quantized weights of one linear layer, and their packed form; blocks as in compressor.blocks."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from compressor.blocks import BLOCK, POSITIONS, to_blocks
from compressor.intops import IntegerLinear
from compressor.patterns import patterns_of_masks
from compressor.pools import PatternPool

STRUCTURES = ("pattern", "dense", "nm")
"""What a layer's blocks keep: the positions of a pattern, all, or 2 of every 4 along K."""

NM_KEEP = 2
"""Positions that a block row of structure ``nm`` keeps."""

ROLES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "ffn1": "intermediate.dense",
    "ffn2": "output.dense",
}
"""The linear layers of one BERT encoder layer in execution order: role to module path."""


def layer_name(index: int, role: str) -> str:
    """Module path of a linear layer, relative to the encoder model.

    >>> layer_name(3, "ffn1")
    'encoder.layer.3.intermediate.dense'
    """
    return f"encoder.layer.{index}.{ROLES[role]}"


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerWeights:
    """One quantized linear layer, ``y = saturate((x W^T + b) * multiplier / 2**shift)``.

    Parameters
    ----------
    name : str
        Module path relative to the encoder model, e.g. ``encoder.layer.0.attention.self.query``.
    role : str
        ``q``, ``k``, ``v``, ``o``, ``ffn1`` or ``ffn2``.
    structure : str
        ``pattern``, ``dense`` or ``nm`` (2:4, keep 2 of 4 along K).
    weight : int8 array, shape (rows, K)
        -127 to 127, in units of ``weight_scale``; entries that are not kept are 0.
    block_mask : bool array, shape (rows / 4, K / 4)
        Whether a block is present; an absent block is all zero and costs no K-step.
    pattern_ids : int16 array, shape (rows / 4, K / 4)
        Index into the pattern pool; -1 where absent and in other structures.
    masks : uint16 array, shape (rows / 4, K / 4)
        Kept positions of each block of structure ``nm``; 0 where absent and in other structures.
    bias : int32 array, shape (rows,)
        In units of input_scale * weight_scale.
    multiplier, shift : int64 arrays, shape (rows,)
        0 to 65535, and 1 to 47 bits.
    weight_scale : float32 array, shape (rows,)
        Real value of weight 1 in each row.
    input_scale, output_scale : float
        Real value of activation 1.
    """

    name: str
    role: str
    structure: str
    weight: npt.NDArray[np.int8]
    block_mask: npt.NDArray[np.bool_]
    pattern_ids: npt.NDArray[np.int16]
    masks: npt.NDArray[np.uint16]
    bias: npt.NDArray[np.int32]
    multiplier: npt.NDArray[np.int64]
    shift: npt.NDArray[np.int64]
    weight_scale: npt.NDArray[np.float32]
    input_scale: float
    output_scale: float

    @property
    def rows(self) -> int:
        """Output rows."""
        return len(self.weight)

    @property
    def inner(self) -> int:
        """Inner dimension K."""
        return int(self.weight.shape[1])

    @cached_property
    def linear(self) -> IntegerLinear:
        """The golden model of this layer.

        Raises
        ------
        ValueError
            If a value is out of range or a sum could exceed 32 bits.
        """
        return IntegerLinear(weight=self.weight, bias=self.bias, multiplier=self.multiplier,
                             shift=self.shift)

    def kept(self, pool: PatternPool) -> npt.NDArray[np.bool_]:
        """Kept positions, bool, shape (rows / 4 * K / 4, 16); False throughout an absent block."""
        if self.structure == "pattern":
            # -1 would index the last pattern; the block mask clears those blocks below.
            kept = pool.patterns[self.pattern_ids.ravel()].astype(bool)
        elif self.structure == "nm":
            kept = patterns_of_masks(self.masks.ravel()).astype(bool)
        else:
            kept = np.ones((self.block_mask.size, POSITIONS), bool)
        return kept & self.block_mask.reshape(-1, 1)

    def packed_weights(self, pool: PatternPool) -> npt.NDArray[np.int8]:
        """int8 array: the kept weights of each present block, in position order."""
        packed: npt.NDArray[np.int8] = to_blocks(self.weight)[self.kept(pool)]
        return packed

    def density(self, pool: PatternPool) -> float:
        """Share of the weights that is kept, 0 to 1."""
        return float(self.kept(pool).mean())

    def dequantized(self) -> npt.NDArray[np.float32]:
        """Real weights, float32, shape (rows, K)."""
        return self.weight.astype(np.float32) * self.weight_scale[:, None]

    def dequantized_bias(self) -> npt.NDArray[np.float32]:
        """Real bias, float32, shape (rows,)."""
        scale = self.input_scale * self.weight_scale.astype(np.float64)
        return (self.bias * scale).astype(np.float32)


def pack_block_mask(block_mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """uint8 array of a block mask, 8 blocks a byte, first block in bit 0.

    >>> pack_block_mask(np.array([[True, False, True]])).tolist()
    [5]
    """
    return np.packbits(block_mask.ravel(), bitorder="little")


def unpack_block_mask(packed: npt.NDArray[np.uint8], rows: int, inner: int) -> npt.NDArray[np.bool_]:
    """Inverse of :func:`pack_block_mask`: bool array of shape (rows / 4, inner / 4)."""
    shape = rows // BLOCK, inner // BLOCK
    bits = np.unpackbits(packed, count=shape[0] * shape[1], bitorder="little")
    return bits.astype(bool).reshape(shape)
