"""The weight stream: one packet per tile or table, in the order in which the program consumes them.

A *tile* is one row group: up to 4R output rows over the whole inner dimension. Its packet has four
sections, each padded to whole beats of the bus:

1. header, 1 beat: K-steps in bits 15:0, output words in bits 23:16, marker 0xA5 in bits 31:24;
2. index, one record a K-step: column in the low ``column_bits``, one dense bit (absent if control
   words come with the stream), then R control fields;
3. weights, R x 4n bytes a K-step: byte ``unit * 4n + slot``;
4. row constants, 64 bits a row, 4R rows: bias in bits 31:0, multiplier in 47:32, shift in 53:48, outlier
   in 54 (the row uses the second GELU table).

A K-step multiplies one activation word, ``column``, with one 4x4 block of each of the R block units.
Constants come last, because those of attention tiles that are made on chip follow from their weights.

Two other packets begin with a header beat of their own marker:

* table, 0xA6: payload beats in bits 15:0, table id in 19:16, bank in 20; then the payload;
* local, 0xA7: bits 15:0 tell how many tile packets come next from the on-chip source instead of memory.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np

TILE_MARKER = 0xA5
TABLE_MARKER = 0xA6
LOCAL_MARKER = 0xA7
HEADER_KSTEPS_BITS = 16
HEADER_COUNT_BITS = 16
CONSTANT_BITS = 64
OUTLIER_BIT = 54


class Table(IntEnum):
    """Id of a table packet: which unit's memory its payload goes to."""

    GELU = 1
    """256 or 512 bytes, int8: the entries of :meth:`GeluTableSpec.table`."""
    EXP = 2
    """256 bytes: the entries of :func:`compressor.intops.softmax.exp_table`."""
    ATTENTION_NORM = 3
    """Scalars, then the constants of each channel."""
    OUTPUT_NORM = 4
    """As ``ATTENTION_NORM``."""


def _power_of_two_at_least(x):
    return 1 << (x - 1).bit_length()


@dataclass(frozen=True, kw_only=True)
class TileFormat:
    """Layout of a tile packet.

    Parameters
    ----------
    units : int
        Block units R.
    multipliers : int
        Multipliers 4n of a unit for one lane.
    control_bits : int
        Width of a unit's control field: a pattern id, or the column selects themselves.
    has_dense_bit : bool
        Whether ids are pattern ids, so that a bit tells patterns (0) from parts of dense blocks (1).
    column_bits : int
        Width of the activation column, at least 1.
    bus_bits : int
        Width of a beat: a power of two, at most the bits of the weights of a K-step.
    """

    units: int
    multipliers: int
    control_bits: int
    has_dense_bit: bool
    column_bits: int
    bus_bits: int

    def __post_init__(self):
        if self.bus_bits not in (32, 64, 128, 256, 512, 1024):
            raise ValueError(f"bus_bits must be a power of two, 32 to 1024, not {self.bus_bits}")
        if self.weight_bits % self.bus_bits:
            raise ValueError(f"the weights of a K-step, {self.weight_bits} bits, must be "
                             f"a multiple of the {self.bus_bits}-bit bus; use a narrower bus or more rows")

    @property
    def weight_bits(self):
        """Weights of a K-step, in bits."""
        return self.units * self.multipliers * 8

    @cached_property
    def record_bits(self):
        """An index record: a power of two, or whole beats."""
        fields = self.column_bits + self.has_dense_bit + self.units * self.control_bits
        return _power_of_two_at_least(max(8, fields))

    @property
    def records_per_beat(self):
        """Index records in a beat; 1 if a record fills one beat or more."""
        return max(1, self.bus_bits // self.record_bits)

    @property
    def constant_beats(self):
        """Beats of the row constants."""
        return -(-4 * self.units * CONSTANT_BITS // self.bus_bits)

    def index_beats(self, ksteps):
        """Beats of the index of ``ksteps`` K-steps."""
        if self.record_bits >= self.bus_bits:
            return ksteps * (self.record_bits // self.bus_bits)
        return -(-ksteps // self.records_per_beat)

    def weight_beats(self, ksteps):
        """Beats of the weights of ``ksteps`` K-steps."""
        return ksteps * (self.weight_bits // self.bus_bits)

    def beats(self, ksteps):
        """Beats of the whole packet."""
        return 1 + self.constant_beats + self.index_beats(ksteps) + self.weight_beats(ksteps)

    def pack(self, *, words, columns, dense, controls, weights, bias, multiplier, shift,
             outlier=None):
        """Bytes of one packet.

        Parameters
        ----------
        words : int
            Output words (4 rows each) that the tile writes, 1 to R.
        columns : int array, shape (ksteps,)
            Activation column of each K-step.
        dense : int array, shape (ksteps,)
            Dense bit of each K-step; ignored if the format has none.
        controls : int array, shape (ksteps, R)
            Control field of each unit.
        weights : int8 array, shape (ksteps, R, 4n)
            Weights in slot order.
        bias, multiplier, shift : int arrays, shape (4R,)
            Row constants; rows that are not written are 0 (shift 1).
        outlier : bool array, shape (4R,), optional
            Rows of outlier channels; none unless given.

        Returns
        -------
        uint8 array, ``beats(ksteps) * bus_bits / 8`` bytes
        """
        ksteps = len(columns)
        if not 1 <= ksteps < 1 << HEADER_KSTEPS_BITS:
            raise ValueError(f"a tile needs 1 to {(1 << HEADER_KSTEPS_BITS) - 1} K-steps, "
                             f"not {ksteps}")
        if not 1 <= words <= self.units:
            raise ValueError(f"a tile writes 1 to {self.units} words, not {words}")
        if int(np.max(columns)) >= 1 << self.column_bits:
            raise ValueError(f"column {int(np.max(columns))} does not fit {self.column_bits} bits")
        header = np.array([ksteps | words << 16 | TILE_MARKER << 24], "<u4")
        constants = (bias.astype(np.int64).astype(np.uint64) & np.uint64(0xFFFFFFFF)
                     | multiplier.astype(np.uint64) << np.uint64(32)
                     | shift.astype(np.uint64) << np.uint64(48)).astype("<u8")
        if outlier is not None:
            constants |= outlier.astype("<u8") << np.uint64(OUTLIER_BIT)
        index = pack_bitfields([(columns, self.column_bits)]
                               + [(dense, 1)] * self.has_dense_bit
                               + [(controls[:, u], self.control_bits) for u in range(self.units)],
                               self.record_bits)
        sections = (header, index, np.ascontiguousarray(weights, np.int8), constants)
        return np.concatenate([self._pad(section) for section in sections])

    def pack_table(self, *, table, bank, payload):
        """Bytes of a table packet.

        Parameters
        ----------
        table : Table
        bank : int
            0 or 1: the bank of the unit's memory.
        payload : array
            Its bytes go out as they are, padded with 0 to whole beats, 1 to 65535 of them.

        Returns
        -------
        uint8 array, whole beats
        """
        if bank not in (0, 1):
            raise ValueError(f"the bank of a table must be 0 or 1, not {bank}")
        body = self._pad(np.ascontiguousarray(payload))
        beats = len(body) // (self.bus_bits // 8)
        if not 1 <= beats < 1 << HEADER_COUNT_BITS:
            raise ValueError(f"a table needs 1 to {(1 << HEADER_COUNT_BITS) - 1} beats, not {beats}")
        header = beats | Table(table) << 16 | bank << 20 | TABLE_MARKER << 24
        return np.concatenate([self._pad(np.array([header], "<u4")), body])

    def pack_local(self, tiles):
        """Bytes of the packet, one beat, after which ``tiles`` (1 to 65535) packets are made on chip."""
        if not 1 <= tiles < 1 << HEADER_COUNT_BITS:
            raise ValueError(f"a local header counts 1 to {(1 << HEADER_COUNT_BITS) - 1} tiles, not {tiles}")
        return self._pad(np.array([tiles | LOCAL_MARKER << 24], "<u4"))

    def _pad(self, section):
        raw = np.frombuffer(section.tobytes(), np.uint8)
        return np.pad(raw, (0, -len(raw) % (self.bus_bits // 8)))


def pack_bitfields(fields, record_bits):
    """Records of unsigned fields, lowest field first, little-endian.

    Parameters
    ----------
    fields : list of (int array of shape (n,), width in bits)
    record_bits : int
        Width of a record, a multiple of 8.

    Returns
    -------
    uint8 array, shape (n, record_bits / 8)

    >>> pack_bitfields([(np.array([5]), 4), (np.array([3]), 2)], 8).tolist()
    [[53]]
    """
    columns = []
    for values, width in fields:
        values = np.asarray(values, np.uint64)
        if values.size and int(values.max()) >> width:
            raise ValueError(f"value {int(values.max())} does not fit its field of {width} bits")
        columns.append(values[:, None] >> np.arange(width, dtype=np.uint64) & np.uint64(1))
    bits = np.concatenate(columns, axis=1).astype(np.uint8)
    if bits.shape[1] > record_bits:
        raise ValueError(f"fields of {bits.shape[1]} bits do not fit a record of {record_bits}")
    bits = np.pad(bits, ((0, 0), (0, record_bits - bits.shape[1])))
    return np.packbits(bits, axis=1, bitorder="little")
