"""4x4 blocks of a weight matrix. Works on NumPy arrays and on torch tensors alike; imports neither.

A matrix of shape (rows, K) has ``rows / 4 * K / 4`` blocks, numbered row-major over (row block,
column block). A block flattens row-major: position ``4 * row + column``, 0 to 15. A 16-bit mask has
position ``i`` in bit ``i``.
"""

from collections.abc import Sequence
from typing import Any

BLOCK = 4
"""Rows and columns of a block."""

POSITIONS = BLOCK * BLOCK
"""Weights in a block."""

NM_GROUP_MAX = 32
"""Longest group of N:M."""


def block_grid(shape: Sequence[int]) -> tuple[int, int]:
    """Blocks down and across a matrix of ``shape``.

    Raises
    ------
    ValueError
        If the shape is not two multiples of 4. Nothing is ever padded silently.

    >>> block_grid((8, 12))
    (2, 3)
    """
    if len(shape) != 2 or shape[0] % BLOCK or shape[1] % BLOCK:
        raise ValueError(f"weights of shape {tuple(shape)} do not divide into {BLOCK}x{BLOCK} "
                         f"blocks; both sizes must be multiples of {BLOCK}")
    return shape[0] // BLOCK, shape[1] // BLOCK


def to_blocks(weight: Any) -> Any:
    """Blocks of a matrix, shape (blocks, 16), from shape (rows, K).

    >>> to_blocks(np.arange(32).reshape(4, 8))[1].tolist()
    [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31]
    """
    down, across = block_grid(weight.shape)
    return weight.reshape(down, BLOCK, across, BLOCK).swapaxes(1, 2).reshape(-1, POSITIONS)


def from_blocks(blocks: Any, shape: Sequence[int]) -> Any:
    """Inverse of :func:`to_blocks`: a matrix of ``shape`` from its blocks.

    >>> w = np.arange(32).reshape(4, 8)
    >>> bool((from_blocks(to_blocks(w), w.shape) == w).all())
    True
    """
    down, across = block_grid(shape)
    return blocks.reshape(down, across, BLOCK, BLOCK).swapaxes(1, 2).reshape(shape)
