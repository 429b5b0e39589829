"""The weight image: the tile packets of layers, in execution order, as bytes.

A tile is a row group of 4R output rows. It has a K-step for every column of blocks in which at least one
of its R block units has a block (4/n K-steps if the layer is dense); units without one there get zero
weights. A tile without any block still has one K-step, of zeros, because its rows are bias alone.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.blocks import to_blocks
from compressor.layer_weights import LayerWeights
from compressor.text_file import whole_file
from hwgen.plan import PlanError
from rtl_templates.array_spec import ArraySpec, PoolStorage
from rtl_templates.slot_assignment import SIZE

NM_SLOTS = 2
"""Slots n of an array that runs 2:4 layers: both kept weights of a block row in one K-step."""


def block_parts(structure: str, slots: int) -> int:
    """K-steps that one column of blocks takes.

    >>> block_parts("dense", 2), block_parts("pattern", 2)
    (2, 1)
    """
    return SIZE // slots if structure == "dense" else 1


def kept_columns(layer, units):
    """Columns of blocks that each tile computes: bool array, shape (tiles, K / 4)."""
    row_blocks, columns = layer.block_mask.shape
    present = np.zeros((-(-row_blocks // units), units, columns), bool)
    present.reshape(-1, columns)[:row_blocks] = layer.block_mask
    kept = present.any(axis=1)
    kept[~kept.any(axis=1), 0] = True
    return kept


def tile_ksteps(layer: LayerWeights, units: int, slots: int) -> tuple[int, ...]:
    """K-steps of each tile: tuple of int."""
    parts = block_parts(layer.structure, slots)
    return tuple((kept_columns(layer, units).sum(axis=1) * parts).tolist())


def layer_packets(layer, array, tiles, outliers=None):
    """Yield the packets of a layer, tile by tile, as uint8 arrays.

    Parameters
    ----------
    layer : compressor.bundle.LayerWeights
    array : ArraySpec
        Its assignment must have been made from the bundle's pool.
    tiles : TileFormat
    outliers : bool array, shape (rows,), optional
        Rows whose results use the second GELU table.
    """
    units, slots = array.units, array.assignment.slots
    outliers = np.zeros(layer.rows, bool) if outliers is None else outliers
    parts = block_parts(layer.structure, slots)
    weights, controls = _place(layer, array)
    for tile, columns in enumerate(kept_columns(layer, units)):
        columns = np.flatnonzero(columns)
        here = slice(tile * units, (tile + 1) * units)
        rows = slice(tile * units * SIZE, (tile + 1) * units * SIZE)
        words = min(units, layer.rows // SIZE - tile * units)
        ksteps = len(columns) * parts
        tile_weights = np.zeros((ksteps, units, array.assignment.multipliers), np.int8)
        tile_controls = np.zeros((ksteps, units), np.int64)
        tile_weights[:, :words] = (weights[here][:, columns].transpose(1, 2, 0, 3)
                                   .reshape(ksteps, words, -1))
        tile_controls[:, :words] = controls[here][:, columns].transpose(1, 2, 0).reshape(ksteps, words)
        yield tiles.pack(words=words, columns=np.repeat(columns, parts),
                         dense=np.full(ksteps, layer.structure == "dense"),
                         controls=tile_controls, weights=tile_weights,
                         bias=_pad_rows(layer.bias[rows], units, 0),
                         multiplier=_pad_rows(layer.multiplier[rows], units, 0),
                         shift=_pad_rows(layer.shift[rows], units, 1),
                         outlier=_pad_rows(outliers[rows], units, False))


@dataclass(frozen=True, kw_only=True)
class LayerImage:
    """Where a layer lies in the image: bytes from its start, and its number of tiles and bus beats."""

    name: str
    offset: int
    bytes: int
    beats: int
    tiles: int


def image_packets(bundle, spec, layers):
    """Yield (layer name, packet) for the tiles of the named layers, in order."""
    for name in layers:
        for packet in layer_packets(bundle.layers[name], spec.array, spec.tiles):
            yield name, packet


def weight_image(bundle, spec, layers):
    """The image of the named layers as one uint8 array, for small models; see :func:`write_image`."""
    return np.concatenate([packet for _, packet in image_packets(bundle, spec, layers)])


def write_image(bundle, spec, layers, path, progress=None):
    """Write the image of the named layers to ``path``; see :func:`write_packets`.

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
    spec : AcceleratorSpec
    layers : sequence of str
        Names, in execution order.
    path, progress
        As in :func:`write_packets`.

    Returns
    -------
    list of LayerImage
    """
    return write_packets(image_packets(bundle, spec, layers), spec.bus_bits, path, progress)


def write_packets(packets, bus_bits, path, progress=None):
    """Write packets to ``path``, aside and then renamed, one packet in memory at a time.

    Parameters
    ----------
    packets : iterable of (str, uint8 array)
        Name and bytes; packets of one name follow each other.
    bus_bits : int
    path : Path
    progress : callable(name), optional
        Called with each new name.

    Returns
    -------
    list of LayerImage
        One a name.
    """
    beat_bytes = bus_bits // 8
    images, offset = [], 0
    with whole_file(path) as aside, aside.open("wb") as file:
        for name, group in itertools.groupby(packets, key=lambda named: named[0]):
            if progress:
                progress(name)
            sizes = [file.write(packet.data) for _, packet in group]
            images.append(LayerImage(name=name, offset=offset, bytes=sum(sizes),
                                     beats=sum(sizes) // beat_bytes, tiles=len(sizes)))
            offset += sum(sizes)
    return images


def _place(layer, array):
    """Weights in slot order, int8 (row blocks, columns, parts, 4n), and control fields, one a block part."""
    assignment = array.assignment
    shape = layer.block_mask.shape
    blocks = to_blocks(layer.weight).reshape(-1, SIZE, SIZE)
    if layer.structure == "nm":
        if assignment.slots != NM_SLOTS or array.storage is not PoolStorage.STREAM:
            raise PlanError(f"{layer.name}: 2:4 layers need n = {NM_SLOTS} and control words in the stream, "
                            f"not n = {assignment.slots} and the pool in {array.storage}")
        weights, controls = _place_nm(blocks, layer.masks.ravel(), assignment)
        return weights.reshape(*shape, 1, -1), controls.reshape(*shape, 1)
    if layer.structure == "pattern":
        # An absent block has id -1 and only zero weights: any entry computes it.
        entries = np.maximum(layer.pattern_ids.ravel().astype(np.int64), 0)[:, None]
        codes = entries
    else:
        entries = np.tile(assignment.dense_entries, (len(blocks), 1))
        codes = entries - assignment.patterns
    if array.storage is PoolStorage.STREAM:
        words = [assignment.control_word(entry) for entry in range(assignment.entries)]
        codes = np.array(words, np.int64)[entries]
    weights = np.stack([assignment.place(blocks, part) for part in entries.T], axis=1)
    return weights.reshape(*shape, entries.shape[1], -1), codes.reshape(*shape, -1)


def _place_nm(blocks, masks, assignment):
    """Weights and control words of 2:4 blocks: products go to rows as in the first part of a dense block."""
    entry = assignment.dense_entries[0]
    rows = np.array(assignment.rows[entry])
    slot = np.array([np.count_nonzero(rows[:m] == rows[m]) for m in range(assignment.multipliers)])
    pruned = ~(masks[:, None] >> np.arange(SIZE * SIZE, dtype=np.uint16) & 1).astype(bool)
    kept = np.argsort(pruned.reshape(-1, SIZE, SIZE), axis=2, kind="stable")[:, :, :NM_SLOTS]
    columns = kept[:, rows, slot]
    weights = blocks[np.arange(len(blocks))[:, None], rows, columns]
    routing = assignment.control_word(entry) >> 2 * assignment.multipliers << 2 * assignment.multipliers
    return weights, (columns << 2 * np.arange(assignment.multipliers)).sum(axis=1) | routing


def _pad_rows(values, units, fill):
    return np.pad(values, (0, units * SIZE - len(values)), constant_values=fill)


def pattern_memory(array: ArraySpec) -> npt.NDArray[np.uint32]:
    """Contents of a RAM pool: uint32 array, two words an entry (low half first), by entry code.

    Codes that no entry has are 0.
    """
    assignment = array.assignment
    memory = np.zeros((array.entry_code(assignment.entries - 1) + 1, 2), np.uint32)
    for entry in range(assignment.entries):
        word = assignment.control_word(entry)
        memory[array.entry_code(entry)] = word & 0xFFFFFFFF, word >> 32
    return memory.ravel()
