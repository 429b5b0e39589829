"""Quantized weights of one linear layer: blocks, kept positions, and their packed form.

A matrix [rows, K] is cut into 4x4 blocks. Position ``4 * row + column`` of a block is bit
``4 * row + column`` of its 16-bit mask; blocks are ordered row-major over (row block, column block).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compressor.intops import IntegerLinear

BLOCK = 4
"""Rows and columns of a block."""

POSITIONS = BLOCK * BLOCK
"""Positions of a block."""

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


def layer_name(index, role):
    """Module path of a linear layer, relative to the encoder model.

    >>> layer_name(3, "ffn1")
    'encoder.layer.3.intermediate.dense'
    """
    return f"encoder.layer.{index}.{ROLES[role]}"


def to_blocks(matrix):
    """View of a [rows, K] array as [rows / 4, K / 4, 16]; rows and K are multiples of 4.

    >>> to_blocks(np.arange(32).reshape(4, 8))[0, 1, :6].tolist()
    [4, 5, 6, 7, 12, 13]
    """
    rows, k = matrix.shape
    blocks = matrix.reshape(rows // BLOCK, BLOCK, k // BLOCK, BLOCK).swapaxes(1, 2)
    return blocks.reshape(rows // BLOCK, k // BLOCK, POSITIONS)


def from_blocks(blocks):
    """Inverse of :func:`to_blocks`: array of shape [rows, K].

    >>> from_blocks(to_blocks(np.arange(32).reshape(4, 8)))[1].tolist()
    [8, 9, 10, 11, 12, 13, 14, 15]
    """
    row_blocks, column_blocks, _ = blocks.shape
    blocks = blocks.reshape(row_blocks, column_blocks, BLOCK, BLOCK).swapaxes(1, 2)
    return blocks.reshape(row_blocks * BLOCK, column_blocks * BLOCK)


def masks_to_kept(masks):
    """Kept positions of 16-bit masks: bool array with a last axis of 16.

    >>> masks_to_kept(np.array([0b101])).nonzero()[1].tolist()
    [0, 2]
    """
    masks = np.asarray(masks, np.uint16)
    return (masks[..., None] >> np.arange(POSITIONS, dtype=np.uint16) & 1).astype(bool)


def kept_to_masks(kept):
    """Inverse of :func:`masks_to_kept`: uint16 array without the last axis.

    >>> kept_to_masks(np.eye(16, dtype=bool)[[0, 2]].any(0)).item()
    5
    """
    weights = np.left_shift(1, np.arange(POSITIONS, dtype=np.int64))
    return (np.asarray(kept, np.int64) @ weights).astype(np.uint16)


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
    weight: np.ndarray
    block_mask: np.ndarray
    pattern_ids: np.ndarray
    masks: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    weight_scale: np.ndarray
    input_scale: float
    output_scale: float

    @property
    def rows(self):
        """Output rows."""
        return self.weight.shape[0]

    @property
    def inner(self):
        """Inner dimension K."""
        return self.weight.shape[1]

    @cached_property
    def linear(self):
        """The golden model of this layer.

        Raises
        ------
        ValueError
            If a value is out of range or a sum could exceed 32 bits.
        """
        return IntegerLinear(weight=self.weight, bias=self.bias, multiplier=self.multiplier,
                             shift=self.shift)

    def kept(self, patterns):
        """Kept positions, bool, shape (rows / 4, K / 4, 16); False throughout an absent block.

        ``patterns`` is the pool's 0/1 array of shape (P, 16).
        """
        if self.structure == "pattern":
            # -1 would index the last pattern; the block mask clears those blocks below.
            kept = np.asarray(patterns, bool)[self.pattern_ids]
        elif self.structure == "nm":
            kept = masks_to_kept(self.masks)
        else:
            kept = np.ones((*self.block_mask.shape, POSITIONS), bool)
        return kept & self.block_mask[..., None]

    def packed_weights(self, patterns):
        """int8 array: the kept weights of each present block, in position order."""
        return to_blocks(self.weight)[self.kept(patterns)]

    def dequantized(self):
        """Real weights, float32, shape (rows, K)."""
        return self.weight.astype(np.float32) * self.weight_scale[:, None]

    def dequantized_bias(self):
        """Real bias, float32, shape (rows,)."""
        scale = self.input_scale * self.weight_scale.astype(np.float64)
        return (self.bias * scale).astype(np.float32)


def pack_block_mask(block_mask):
    """uint8 array of a block mask, 8 blocks a byte, first block in bit 0.

    >>> pack_block_mask(np.array([[True, False, True]])).tolist()
    [5]
    """
    return np.packbits(block_mask.ravel(), bitorder="little")


def unpack_block_mask(packed, rows, inner):
    """Inverse of :func:`pack_block_mask`: bool array of shape (rows / 4, inner / 4)."""
    shape = rows // BLOCK, inner // BLOCK
    bits = np.unpackbits(packed, count=shape[0] * shape[1], bitorder="little")
    return bits.astype(bool).reshape(shape)
