"""Sizes and cycles of the softmax source."""

from dataclasses import dataclass

import numpy as np
from amaranth.lib import data

from compressor.intops.attention import NUMERATOR_BITS
from compressor.intops.map_pruning import BLOCK, IntegerMapPruning
from compressor.intops.softmax import KEYS_MAX
from rtl_templates.buffer_ports import COUNT_BITS, STRIDE_BITS
from rtl_templates.exp_table import ExpTable
from rtl_templates.kept_distances import KeptDistances
from rtl_templates.map_selector import selector_latency
from rtl_templates.packet_source_spec import PacketSourceSpec
from rtl_templates.row_quotients import RowQuotients
from rtl_templates.score_passes import ScorePasses
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
    def kept_rows(self):
        """K-steps that the memory of kept distances has places for: those of two tiles."""
        return 2 << (self.columns - 1).bit_length()

    @property
    def index_rows(self):
        """Beats that the memory of index sections has places for: those of two tiles."""
        return 2 << max(1, (self.tiles.index_beats(self.columns) - 1).bit_length())

    @property
    def pass_period(self):
        """Cycles of a column of a pass: its beats, or its words and those of the next tile."""
        return max(self.column_beats, 2 * self.words_per_column)

    @property
    def weight_latency(self):
        """Cycles from the request of a column to its first beat of dense weights' entering the queue."""
        return self.read_cycles + self.words_per_column + 1 + ExpTable.LATENCY

    @property
    def kept_latency(self):
        """Cycles from the request of a pruned column to its first beat's entering the queue."""
        return KeptDistances.LATENCY + ExpTable.LATENCY

    @property
    def select_latency(self):
        """Cycles from the request of a tile's last column to its selection's being complete."""
        gathered = self.tiles.bus_bits < 8 * BLOCK * BLOCK
        return (self.weight_latency + self.column_beats - 1 + gathered
                + selector_latency(len(self.map_entries), self.map_power) + 2)

    def prunes(self, pruning, valid_length):
        """Whether a command prunes: sequences shorter than a block are not pruned."""
        return bool(pruning and self.map_entries and valid_length >= BLOCK)

    def ksteps(self, columns, *, pruned=False):
        """K-steps of a tile."""
        return columns if pruned else columns * self.parts

    def load_cycles(self, columns, *, pruned=False):
        """Cycles from the header's being taken to the last beat's being taken, if beats never wait."""
        if pruned:
            weights = columns * self.kstep_beats + self.kept_latency
        else:
            weights = 1 + (columns - 1) * self.pass_period + self.column_beats + self.weight_latency
        return (self.tiles.index_beats(self.ksteps(columns, pruned=pruned)) + weights
                + RowQuotients.CYCLES + self.tiles.constant_beats)

    def times(self, columns, start=0, *, pruned=False):
        """Times of the packets of a command that is taken in cycle ``start``."""
        return SoftmaxTimes(self, columns, start, pruned=pruned)


class SoftmaxTimes:
    """When the headers of a command's packets are offered: ``offered``, of the next one.

    With e the last beat of a packet, S = ``pass_period``, C columns, p the first cycle of a tile's pass:

    * the maxima of the first tile are found ``words_per_column * C`` cycles after the command;
    * dense: a header is offered two cycles after that, or two after e of the packet before;
    * pruned: ``p_0 = words_per_column * C + 4``, ``p_i = max(p_{i-1} + C S + 3, e_{i-2} + 1)``; the tile is
      selected at ``s_i = p_i + (C - 1) S + select_latency``, its header offered at ``max(s_i, e_{i-1}) + 2``.
    """

    def __init__(self, spec, columns, start, *, pruned=False):
        self.spec, self.columns, self.pruned = spec, columns, pruned
        self.load = spec.load_cycles(columns, pruned=pruned)
        found = start + spec.words_per_column * columns
        self.next_pass = found + ScorePasses.TURN
        self.end = found + 1  # of the packet before; at first it stands for the maxima
        self._offer()

    def taken(self, header):
        """The next header is taken in that cycle; returns the cycle of its packet's last beat."""
        before, self.end = self.end, header + self.load
        self.next_pass = max(self.next_pass + self.columns * self.spec.pass_period + ScorePasses.TURN - 1,
                             before + 1)
        self._offer()
        return self.end

    def _offer(self):
        ready = self.end
        if self.pruned:
            spec = self.spec
            selected = self.next_pass + (self.columns - 1) * spec.pass_period + spec.select_latency
            ready = max(ready, selected)
        self.offered = ready + 2
