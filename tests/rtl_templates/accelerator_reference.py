"""Programs and tiles for tests of the accelerator, with a reference that executes them in NumPy."""

from dataclasses import dataclass

import numpy as np

from compressor.intops import requantize
from rtl_templates.array_spec import AcceleratorSpec, Accumulation, ArraySpec, PoolStorage
from rtl_templates.program_format import Opcode
from rtl_templates.slot_assignment import SlotAssignment


def balanced_masks(patterns, slots, seed=0):
    """Random row-balanced patterns: uint8 array, shape (patterns, 4, 4)."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((patterns, 4, 4), np.uint8)
    for mask in masks:
        for row in mask:
            row[rng.permutation(4)[:slots]] = 1
    return masks


def small_spec(*, units=2, lanes=2, slots=2, bus_bits=64, patterns=8, storage=PoolStorage.ROM,
               accumulation=Accumulation.TREE, **sizes):
    """A small accelerator; ``sizes`` override the sizes around the array."""
    array = ArraySpec(units=units, lanes=lanes, storage=storage, accumulator_bits=24,
                      accumulation=accumulation,
                      assignment=SlotAssignment.balanced(balanced_masks(patterns, slots), slots))
    sizes = {"activation_words": 128, "tile_ksteps": 24, "column_bits": 6, "program_depth": 16} | sizes
    return AcceleratorSpec(array=array, bus_bits=bus_bits, **sizes)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Fields of :meth:`TileFormat.pack`."""

    words: int
    columns: np.ndarray
    dense: np.ndarray
    controls: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray

    @property
    def ksteps(self):
        return len(self.columns)

    def pack(self, spec):
        return spec.tiles.pack(**vars(self))


def random_tile(rng, spec, ksteps, words, columns=16):
    """A tile of random K-steps; sums are scaled so that some results saturate."""
    array = spec.array
    assignment = array.assignment
    dense = rng.integers(0, 2, ksteps)
    if array.storage is PoolStorage.STREAM:
        entries = rng.integers(0, assignment.entries, (ksteps, array.units))
        controls = np.array([[assignment.control_word(int(e)) for e in row] for row in entries])
        dense = np.zeros(ksteps, int)
    else:
        parts = assignment.entries - assignment.patterns
        controls = rng.integers(0, np.where(dense, parts, assignment.patterns)[:, None],
                                (ksteps, array.units))
    return Tile(words=words, columns=rng.integers(0, columns, ksteps), dense=dense, controls=controls,
                weights=rng.integers(-127, 128, (ksteps, array.units, assignment.multipliers)),
                bias=rng.integers(-2000, 2000, array.rows), multiplier=rng.integers(0, 1 << 16, array.rows),
                shift=rng.integers(20, 27, array.rows))


def tile_results(spec, tile, words):
    """Output of a tile for one token group.

    ``words`` is the int array of shape (ksteps, 4, lanes) of the activations of its K-steps; returns an
    int8 array of shape (tile.words, 4, lanes).
    """
    array = spec.array
    assignment = array.assignment
    sums = np.zeros((array.units, 4, array.lanes), np.int64)
    decode = {assignment.control_word(e): e for e in range(assignment.entries)}
    for k in range(tile.ksteps):
        for unit in range(array.units):
            control = int(tile.controls[k, unit])
            if array.storage is PoolStorage.STREAM:
                entry = decode[control]
            else:
                entry = control + assignment.patterns * int(tile.dense[k])
            for slot in range(assignment.multipliers):
                row, column = assignment.rows[entry][slot], assignment.columns[entry][slot]
                if row >= 0:
                    sums[unit, row] += tile.weights[k, unit, slot] * words[k, column]
    rows = sums.reshape(array.rows, array.lanes).T + tile.bias
    values = requantize(rows, tile.multiplier, tile.shift).T
    return values.reshape(array.units, 4, array.lanes)[:tile.words].astype(np.int8)


def execute(spec, descriptors, tiles, inputs, output_bytes):
    """Output memory after the program: bytearray of ``output_bytes`` bytes."""
    word_bytes = spec.array.word_bits // 8
    buffer = np.zeros((spec.activation_words, 4, spec.array.lanes), np.int8)
    output = bytearray(output_bytes)
    tiles = iter(tiles)
    for descriptor in descriptors:
        if descriptor.opcode is Opcode.LOAD:
            raw = inputs[descriptor.offset:descriptor.offset + descriptor.length * word_bytes]
            words = np.frombuffer(bytes(raw), np.int8).reshape(-1, 4, spec.array.lanes)
            buffer[descriptor.destination:descriptor.destination + descriptor.length] = words
        elif descriptor.opcode is Opcode.STORE:
            words = buffer[descriptor.source:descriptor.source + descriptor.length]
            output[descriptor.offset:descriptor.offset + descriptor.length * word_bytes] = words.tobytes()
        elif descriptor.opcode is Opcode.MATMUL:
            first_word = 0
            for _ in range(descriptor.tiles):
                tile = next(tiles)
                for group in range(descriptor.groups):
                    addresses = descriptor.source + group * descriptor.source_stride + tile.columns
                    start = descriptor.destination + group * descriptor.destination_stride + first_word
                    buffer[start:start + tile.words] = tile_results(spec, tile,
                                                                    buffer[addresses].astype(np.int64))
                first_word += tile.words
    return output
