"""Reads a weight image back into weights, from the bytes and the sizes alone.

Written apart from :mod:`hwgen.memory_image`, as its check: it walks the packets as the hardware does and
puts every weight where the hardware would use it.
"""

from dataclasses import dataclass

import numpy as np

from rtl_templates.array_spec import PoolStorage
from rtl_templates.slot_assignment import SIZE
from rtl_templates.tile_format import LOCAL_MARKER, OUTLIER_BIT, TABLE_MARKER, TILE_MARKER, Table


class ImageError(ValueError):
    """A weight image that does not follow the format; the message says at which byte."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedLayer:
    """What the hardware will compute for one layer.

    ``weight`` is int64 (rows, K); ``bias``, ``multiplier`` and ``shift`` are int64 (rows,); ``outlier`` is
    bool (rows,); ``ksteps`` holds the K-steps of each tile.
    """

    weight: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    outlier: np.ndarray
    ksteps: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TablePacket:
    """A table for a unit's memory; ``payload`` is uint8, padded to whole beats."""

    table: Table
    bank: int
    payload: np.ndarray


@dataclass(frozen=True, kw_only=True)
class LocalPacket:
    """The next ``tiles`` tiles are made on chip."""

    tiles: int


def read_image(raw, spec, shapes):
    """Decode an image.

    Parameters
    ----------
    raw : bytes or uint8 array
    spec : AcceleratorSpec
    shapes : sequence of (rows, K)
        Of the layers in the image, in order.

    Returns
    -------
    list of DecodedLayer

    Raises
    ------
    ImageError
        If a marker, a size or the total length is wrong.
    """
    reader = StreamReader(raw, spec)
    layers = [reader.layer(rows, inner) for rows, inner in shapes]
    reader.finish()
    return layers


class StreamReader:
    """Takes a weight stream apart in the order in which a program consumes it.

    Parameters
    ----------
    raw : bytes or uint8 array
    spec : AcceleratorSpec
    """

    def __init__(self, raw, spec):
        self._raw, self._spec, self._position = np.frombuffer(raw, np.uint8), spec, 0

    def layer(self, rows, inner):
        """The next layer, of shape (rows, inner): DecodedLayer."""
        layer, self._position = _read_layer(self._raw, self._position, self._spec, rows, inner)
        return layer

    def tables(self):
        """The table packets that come next, maybe none: list of TablePacket."""
        tables = []
        while (header := self._header()) >> 24 == TABLE_MARKER:
            start = self._position + self._spec.bus_bits // 8
            self._position = start + (header & 0xFFFF) * self._spec.bus_bits // 8
            tables.append(TablePacket(table=Table(header >> 16 & 0xF), bank=header >> 20 & 1,
                                      payload=self._raw[start:self._position]))
        return tables

    @property
    def at_local(self):
        """Whether a local packet comes next."""
        return self._header() >> 24 == LOCAL_MARKER

    def local(self):
        """The local packet that comes next: LocalPacket."""
        header = self._header()
        if header >> 24 != LOCAL_MARKER:
            raise ImageError(f"byte {self._position}: {header:#010x} is no local header")
        self._position += self._spec.bus_bits // 8
        return LocalPacket(tiles=header & 0xFFFF)

    def finish(self):
        """ImageError unless everything has been read."""
        if self._position != len(self._raw):
            raise ImageError(f"the image has {len(self._raw)} bytes; its layers end at byte {self._position}")

    def _header(self):
        return int.from_bytes(self._raw[self._position:self._position + 4].tobytes(), "little")


def _read_layer(raw, position, spec, rows, inner):
    weight = np.zeros((rows, inner), np.int64)
    constants = np.zeros((rows, 4), np.int64)
    ksteps, row = [], 0
    while row < rows:
        tile = _Packet(raw, position, spec)
        last = row + SIZE * tile.words
        if last > rows:
            raise ImageError(f"byte {position}: the tile writes rows {row} to {last - 1} of {rows}")
        if tile.columns.max() >= inner // SIZE:
            raise ImageError(f"byte {position}: column {tile.columns.max()} of {inner // SIZE}")
        tile.add_to(weight[row:last], spec.array.assignment)
        constants[row:last] = tile.constants[:last - row]
        ksteps.append(len(tile.columns))
        position, row = tile.end, last
    bias, multiplier, shift, outlier = constants.T
    return DecodedLayer(weight=weight, bias=bias, multiplier=multiplier, shift=shift, outlier=outlier != 0,
                        ksteps=tuple(ksteps)), position


class _Packet:
    def __init__(self, raw, position, spec):
        beat = spec.bus_bits // 8
        array, units = spec.array, spec.array.units
        if position + beat > len(raw):
            raise ImageError(f"byte {position}: the image ends; a tile header is expected")
        header = int.from_bytes(raw[position:position + 4].tobytes(), "little")
        ksteps, self.words = header & 0xFFFF, header >> 16 & 0xFF
        if header >> 24 != TILE_MARKER or not ksteps or not 1 <= self.words <= units:
            raise ImageError(f"byte {position}: {header:#010x} is no tile header")
        self._raw, self._at, self._beat = raw, position + beat, beat
        fields = spec.column_bits + (array.storage is not PoolStorage.STREAM) + units * array.control_bits
        record = 8
        while record < fields:
            record *= 2
        bits = np.unpackbits(self._take(ksteps * record // 8), bitorder="little").reshape(ksteps, record)
        self.columns, bits = _integer(bits, spec.column_bits)
        dense = np.zeros(ksteps, np.int64)
        if array.storage is not PoolStorage.STREAM:
            dense, bits = _integer(bits, 1)
        controls = []
        for _ in range(units):
            control, bits = _integer(bits, array.control_bits)
            controls.append(control)
        if bits.any():
            raise ImageError(f"byte {position}: an index record has bits beyond its {fields}")
        self.weights = self._take(ksteps * units * array.assignment.multipliers).view(np.int8).reshape(
            ksteps, units, -1)
        self.routes = [_routes(control, dense, array) for control in controls]
        packed = self._take(8 * SIZE * units).view("<u8")
        if (packed >> OUTLIER_BIT + 1).any():
            raise ImageError(f"byte {position}: the tile's row constants have bits beyond {OUTLIER_BIT}")
        bias = (packed & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
        self.constants = np.stack([bias, packed >> 32 & 0xFFFF, packed >> 48 & 0x3F, packed >> OUTLIER_BIT],
                                  axis=1).astype(np.int64)
        self.end = self._at

    def _take(self, size):
        taken = self._raw[self._at:self._at + size]
        padded = -(-size // self._beat) * self._beat
        if self._at + padded > len(self._raw):
            raise ImageError(f"byte {self._at}: the image ends inside a tile")
        if self._raw[self._at + size:self._at + padded].any():
            raise ImageError(f"byte {self._at + size}: padding is not zero")
        self._at += padded
        return np.ascontiguousarray(taken)

    def add_to(self, weight, assignment):
        """Accumulate every product's weight at its row and column, as the array does."""
        for unit, (rows, columns) in enumerate(self.routes):
            if unit >= self.words:
                if self.weights[:, unit].any():
                    raise ImageError(f"unit {unit} has weights in a tile of {self.words} words")
                continue
            inputs = SIZE * self.columns[:, None] + columns
            used = rows >= 0
            if self.weights[:, unit][~used].any():
                raise ImageError(f"unit {unit} has a weight whose product goes to no row")
            np.add.at(weight, (SIZE * unit + rows[used], inputs[used]), self.weights[:, unit][used])


def _routes(controls, dense, array):
    """Row (-1: none) and column of every multiplier: arrays of shape (ksteps, 4n)."""
    assignment = array.assignment
    if array.storage is not PoolStorage.STREAM:
        limits = np.where(dense, assignment.entries - assignment.patterns, assignment.patterns)
        if (controls >= limits).any():
            kstep = int((controls >= limits).argmax())
            raise ImageError(f"K-step {kstep} has control field {controls[kstep]} of {limits[kstep]}")
        entries = controls + dense * assignment.patterns
        return np.array(assignment.rows)[entries], np.array(assignment.columns)[entries]
    multipliers = assignment.multipliers
    columns = controls[:, None] >> 2 * np.arange(multipliers) & 3
    rows = np.full((len(controls), multipliers), -1)
    position = 2 * multipliers
    for row, ports in enumerate(assignment.ports):
        for candidates in ports:
            width = assignment.port_bits(candidates)
            if not width:
                rows[:, candidates[0]] = row
                continue
            code = controls >> position & (1 << width) - 1
            for index, multiplier in enumerate(candidates):
                rows[code == index + 1, multiplier] = row
            position += width
    return rows, columns


def _integer(bits, width):
    """Unsigned value of the first ``width`` bits of each record, and the rest of the bits."""
    return bits[:, :width].astype(np.int64) @ (1 << np.arange(width, dtype=np.int64)), bits[:, width:]
