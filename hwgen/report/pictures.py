"""Pictures of weight masks as PNG, in a color that is seen on light and dark ground alike."""

import base64
import struct
import zlib

import numpy as np

from compressor.blocks import BLOCK

INK = (47, 125, 196)
"""Color of what is kept; how opaque a pixel is says how much."""

LEVELS = 16
MOST_PIXELS = 64
"""Pixels of a side at most: a page holds one picture a layer."""

CORNER = 48
"""Weights of a side of the corner that is shown one by one."""


def png(levels):
    """PNG of opacities as a data URL.

    Parameters
    ----------
    levels : uint8 array, shape (height, width)
        0 (transparent) to 15 (opaque).

    >>> png(np.array([[0, 15]], np.uint8))[:22]
    'data:image/png;base64,'
    """
    height, width = levels.shape
    padded = np.pad(levels, ((0, 0), (0, width % 2)))
    packed = (padded[:, 0::2] << 4 | padded[:, 1::2]).astype(np.uint8)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), packed], axis=1).tobytes()
    opacity = bytes(round(255 * level / (LEVELS - 1)) for level in range(LEVELS))
    data = (b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0))
            + _chunk(b"PLTE", bytes(INK) * LEVELS) + _chunk(b"tRNS", opacity)
            + _chunk(b"IDAT", zlib.compress(raw, 9)) + _chunk(b"IEND", b""))
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def layer_picture(layer):
    """A whole layer: a pixel is one or several blocks, as opaque as their kept weights are large.

    Returns
    -------
    uint8 array
        Levels for :func:`png`; absent blocks are 0, present ones at least 1.
    """
    rows, columns = layer.block_mask.shape
    magnitude = np.abs(layer.weight.astype(np.int16)).reshape(rows, BLOCK, columns, BLOCK).sum(axis=(1, 3))
    step = -(-max(rows, columns) // MOST_PIXELS)
    sums, present = _pooled(magnitude, step), _pooled(layer.block_mask.astype(np.int64), step)
    mean = sums / np.maximum(_pooled(np.ones_like(magnitude), step), 1)
    top = np.percentile(mean[present > 0], 98) if present.any() else 1
    level = np.clip(np.rint(mean / max(top, 1e-9) * (LEVELS - 1)), 1, LEVELS - 1)
    return np.where(present > 0, level, 0).astype(np.uint8)


def corner_picture(layer, pool):
    """The first weights of a layer, one pixel each: kept or not.

    Returns
    -------
    uint8 array
        Levels for :func:`png`.
    """
    rows, inner = (min(CORNER, size) for size in layer.weight.shape)
    grid = layer.block_mask.shape
    kept = layer.kept(pool).reshape(*grid, BLOCK, BLOCK).transpose(0, 2, 1, 3).reshape(layer.weight.shape)
    return np.where(kept[:rows, :inner], LEVELS - 1, 0).astype(np.uint8)


def _pooled(values, step):
    rows, columns = values.shape
    padded = np.pad(values, ((0, -rows % step), (0, -columns % step)))
    return padded.reshape(len(padded) // step, step, -1, step).sum(axis=(1, 3))


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
