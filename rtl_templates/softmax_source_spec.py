"""Sizes and cycles of the softmax source."""

from dataclasses import dataclass

import numpy as np
from amaranth.lib import data

from compressor.intops.attention import NUMERATOR_BITS
from compressor.intops.map_pruning import BLOCK, IntegerMapPruning
from compressor.intops.softmax import KEYS_MAX
from rtl_templates.buffer_ports import COUNT_BITS, STRIDE_BITS
from rtl_templates.exp_table import ExpTable
from rtl_templates.map_selector import selector_latency
from rtl_templates.packet_source_spec import PacketSourceSpec
from rtl_templates.row_quotients import RowQuotients
from rtl_templates.slot_assignment import SIZE


@dataclass(frozen=True, kw_only=True)
class SoftmaxSourceSpec(PacketSourceSpec):
    """Scores of a head, words of 4 keys x T queries, as weights of tiles: rows are queries, columns keys.

    Parameters
    ----------
    map_entries : tuple of int
        Entries of the array's assignment that are the patterns of attention maps, in the order of their
        ids in :class:`IntegerMapPruning`; none without map pruning.
    map_power : int
        1 or 2.
    """

    map_entries: tuple[int, ...] = ()
    map_power: int = 1

    def __post_init__(self):
        super().__post_init__()
        assignment, slots = self.array.assignment, self.array.assignment.slots
        if not all(0 <= entry < assignment.patterns for entry in self.map_entries):
            raise ValueError("SoftmaxSourceSpec.map_entries must be ids of the array's "
                             f"{assignment.patterns} patterns, not {self.map_entries}")
        for entry in (*self.map_entries, *assignment.dense_entries):
            if assignment.rows[entry] != tuple(np.repeat(range(SIZE), slots)):
                raise ValueError(f"SoftmaxSourceSpec: entry {entry} must have {slots} weights in each row; "
                                 "use a row-balanced assignment")
        if self.columns > KEYS_MAX // SIZE:
            raise ValueError(f"SoftmaxSourceSpec.columns must be at most {KEYS_MAX // SIZE}, "
                             f"not {self.columns}")
        if self.map_entries:
            self.pruning()
            if self.tiles.record_bits > self.tiles.bus_bits:
                raise ValueError(f"SoftmaxSourceSpec: map pruning needs index records no wider than the bus; "
                                 f"they have {self.tiles.record_bits} bits, it has {self.tiles.bus_bits}")

    def pruning(self):
        """Golden pruning with the same patterns."""
        masks = self.array.assignment.masks[list(self.map_entries)]
        return IntegerMapPruning(patterns=masks.reshape(-1, BLOCK * BLOCK), power=self.map_power)

    def command_layout(self):
        """A command; ``source`` and ``source_stride`` in words.

        ``groups``: token groups of queries; ``columns``: words of keys, ``ceil(keys / 4)``; ``bank``: of the
        table; ``pruning``: ignored without ``map_entries``; ``numerator``, ``exponent``: of the context.
        """
        return data.StructLayout({
            "source": self.address_bits, "source_stride": STRIDE_BITS, "groups": COUNT_BITS,
            "columns": range(self.columns + 1), "bank": 1, "pruning": 1, "numerator": NUMERATOR_BITS,
            "exponent": 6, "valid_length": COUNT_BITS})

    @property
    def map_id_bits(self):
        """Width of the number of a map pattern."""
        return max(1, (len(self.map_entries) - 1).bit_length())

    @property
    def kept_period(self):
        """Cycles of a pruned column: those of its beats or of its words, whichever are more."""
        return max(self.kstep_beats, self.words_per_column)

    @property
    def weight_latency(self):
        """Cycles from the request of a column to its first beat's entering the queue."""
        return self.read_cycles + self.words_per_column + 1 + ExpTable.LATENCY

    @property
    def select_latency(self):
        """Cycles from the request of the last column to the last index beat's entering the queue."""
        gathered = self.tiles.bus_bits < 8 * BLOCK * BLOCK
        return (self.weight_latency + self.column_beats - 1 + gathered
                + selector_latency(len(self.map_entries), self.map_power) + 2)

    def prunes(self, pruning, valid_length):
        """Whether a command prunes: sequences shorter than a block are not pruned."""
        return bool(pruning and self.map_entries and valid_length >= BLOCK)

    def ksteps(self, columns, *, pruned=False):
        """K-steps of a tile."""
        return columns if pruned else columns * self.parts

    def prepare_cycles(self, columns):
        """Cycles from a packet's last beat to the next header's being offered; from the command, one more.

        The first pass, which finds the maxima, reads a word per cycle.
        """
        return columns * self.words_per_column + 1

    def load_cycles(self, columns, *, pruned=False):
        """Cycles from the header's being taken to the last beat's being taken, if beats never wait."""
        if pruned:
            index = (columns - 1) * self.column_beats + self.select_latency + 1
            weights = (columns - 1) * self.kept_period + self.kstep_beats
        else:
            index = self.tiles.index_beats(columns * self.parts)
            weights = columns * self.column_beats
        return index + weights + self.weight_latency + RowQuotients.CYCLES + self.tiles.constant_beats

    def cycles(self, groups, columns, *, pruned=False):
        """Cycles from a command to its last beat, if beats never wait."""
        tile = self.prepare_cycles(columns) + self.load_cycles(columns, pruned=pruned)
        return 1 + self.tile_count(groups) * tile
