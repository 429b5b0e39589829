"""Key source: the keys of a head become tile packets of dense weights."""

from amaranth.hdl import Module
from amaranth.lib import data

from compressor.intops.fixedpoint import MULTIPLIER_BITS, SHIFT_MAX
from rtl_templates.block_reader import BlockReader
from rtl_templates.block_shifter import BlockShifter, in_order
from rtl_templates.buffer_ports import COUNT_BITS, STRIDE_BITS
from rtl_templates.column_sequencer import ColumnSequencer
from rtl_templates.packet_source import PacketSource
from rtl_templates.packet_source_spec import PacketSourceSpec
from rtl_templates.packet_writer import DenseIndex, row_constants_beat, row_constants_record
from rtl_templates.slot_assignment import SIZE


class KeySourceSpec(PacketSourceSpec):
    """Keys of a head, words of 4 channels x T tokens, as weights of tiles: rows are keys, columns channels.

    Its tiles have the K-steps of dense blocks, column after column. Every row has the same constants, those
    of absent rows too. Keys at and past the valid length have weight 0.
    """

    def command_layout(self):
        """A command: ``source``, ``source_stride`` in words, ``groups`` of tokens, ``columns`` = D / 4."""
        return data.StructLayout({
            "source": self.address_bits, "source_stride": STRIDE_BITS, "groups": COUNT_BITS,
            "columns": range(self.columns + 1), "multiplier": MULTIPLIER_BITS, "shift": range(SHIFT_MAX + 1),
            "valid_length": COUNT_BITS})

    @property
    def weight_latency(self):
        """Cycles from the request of a column to its first beat's entering the queue."""
        return self.read_cycles + self.words_per_column

    def load_cycles(self, columns):
        """Cycles from the header's being taken to the last beat's being taken, if beats never wait."""
        return self.tiles.beats(columns * self.parts) + self.weight_latency

    def times(self, columns, start=0):
        """Times of the packets of a command that is taken in cycle ``start``."""
        return KeyTimes(self, columns, start)


class KeyTimes:
    """When the headers of a command's packets are offered: ``offered``, of the next one."""

    def __init__(self, spec, columns, start):
        self.load = spec.load_cycles(columns)
        self.offered = start + 3

    def taken(self, header):
        """The next header is taken in that cycle; returns the cycle of its packet's last beat."""
        end = header + self.load
        self.offered = end + 2
        return end


class KeySource(PacketSource):
    """See :class:`PacketSource`. Throughput: a beat per cycle in each section; see :class:`KeyTimes`."""

    def elaborate(self, platform):
        m = Module()
        spec, tiles = self.spec, self.spec.tiles
        frame = self.frame(m)
        command, walk, sections = frame.command, frame.walk, frame.sections
        m.submodules.sequencer = sequencer = ColumnSequencer(spec, spec.column_beats)
        m.submodules.reader = reader = BlockReader(spec, masked=0, mask_columns=False)
        m.submodules.shifter = shifter = BlockShifter(spec, [lambda rows: in_order(rows, spec.dense_order())])
        m.submodules.index = index = DenseIndex(spec)
        record = row_constants_record(command.multiplier, command.shift)
        m.d.comb += [
            sections.start.eq(frame.running & sections.idle),
            sections.ksteps.eq(command.columns * spec.parts),
            index.start.eq(sections.start), index.columns.eq(command.columns),
            index.advance.eq(sections.index_advance), sections.index_beat.eq(index.beat),
            sections.index_last.eq(index.last),
            sequencer.active.eq(sections.weights), sequencer.columns.eq(command.columns),
            sequencer.period.eq(spec.column_beats), sequencer.room.eq(sections.room),
            reader.tile.eq(walk.tile), reader.request.eq(sequencer.request),
            reader.column.eq(sequencer.column), self.read.eq(reader.read),
            reader.read_data.eq(self.read_data),
            shifter.valid.eq(reader.word.valid), shifter.last.eq(reader.word.last),
            shifter.rows.eq(reader.word.rows),
            sections.weights_done.eq(sequencer.done), sections.promise.eq(sequencer.moving),
            sections.push.eq(shifter.beat_valid), sections.beat.eq(shifter.beat),
            sections.constants_ready.eq(sections.settled),
            sections.constants_beat.eq(row_constants_beat([record] * SIZE * spec.units, sections.number,
                                                          tiles))]
        return m
