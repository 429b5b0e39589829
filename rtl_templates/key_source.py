"""Key source: the keys of a head become tile packets of dense weights."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.enum import IntEnum
from amaranth.lib.wiring import In, Out

from compressor.intops.fixedpoint import MULTIPLIER_BITS, SHIFT_MAX
from rtl_templates.block_reader import BlockReader
from rtl_templates.block_shifter import BlockShifter, in_order
from rtl_templates.block_unit import word_layout
from rtl_templates.buffer_ports import COUNT_BITS, STRIDE_BITS, read_port
from rtl_templates.column_sequencer import ColumnSequencer
from rtl_templates.packet_source_spec import PacketSourceSpec
from rtl_templates.packet_writer import (
    DenseIndex,
    PacketWriter,
    header_beat,
    row_constants_beat,
    row_constants_record,
)
from rtl_templates.slot_assignment import SIZE
from rtl_templates.tile_walk import TileWalk


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
    def prepare_cycles(self):
        """Cycles from a packet's last beat to the next header's being offered; from the command, one more."""
        return 1

    @property
    def weight_latency(self):
        """Cycles from the request of a column to its first beat's entering the queue."""
        return self.read_cycles + self.words_per_column

    def load_cycles(self, columns):
        """Cycles from the header's being taken to the last beat's being taken, if beats never wait.

        """
        return self.tiles.beats(columns * self.parts) + self.weight_latency

    def cycles(self, groups, columns):
        """Cycles from a command to its last beat, if beats never wait."""
        return 1 + self.tile_count(groups) * (self.prepare_cycles + self.load_cycles(columns))


class State(IntEnum, shape=3):
    """What a tile is doing."""

    IDLE = 0
    HEADER = 1
    ACCEPT = 2
    INDEX = 3
    WEIGHTS = 4
    CONSTANTS = 5


class KeySource(wiring.Component):
    """Packets of :class:`rtl_templates.tile_format.TileFormat`, byte for byte.

    After a header nothing follows until it is taken, so that a tile's timing depends on nothing before.
    Throughput: a beat per cycle in each section; see :meth:`KeySourceSpec.cycles`.

    Members
    -------
    command : :py:`In(stream.Signature(spec.command_layout()))`
        ``groups`` and ``columns`` at least 1.
    busy : :py:`Out(1)`
        From the cycle after the command to the last beat.
    read : :py:`Out(read_port(spec))`
    read_data : :py:`In(word_layout(spec))`
        ``spec.read_latency`` cycles after the enable.
    o : :py:`Out(stream.Signature(bus_bits))`
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({
            "command": In(stream.Signature(spec.command_layout())), "busy": Out(1),
            "read": Out(read_port(spec)), "read_data": In(word_layout(spec)),
            "o": Out(stream.Signature(spec.tiles.bus_bits))})

    def elaborate(self, platform):
        m = Module()
        spec, tiles = self.spec, self.spec.tiles
        m.submodules.walk = walk = TileWalk(spec)
        m.submodules.sequencer = sequencer = ColumnSequencer(spec, spec.column_beats)
        m.submodules.reader = reader = BlockReader(spec, masked=0, mask_columns=False)
        m.submodules.shifter = shifter = BlockShifter(spec, [lambda rows: in_order(rows, spec.dense_order())])
        m.submodules.index = index = DenseIndex(spec)
        m.submodules.writer = writer = PacketWriter(tiles.bus_bits, chunk=spec.column_beats,
                                                    latency=spec.weight_latency)
        state = Signal(State)
        command = Signal(spec.command_layout())
        begin, push_index, push_constants = Signal(), Signal(), Signal()
        constants = Signal(range(tiles.constant_beats))
        record = row_constants_record(command.multiplier, command.shift)
        constants_beat = row_constants_beat([record] * SIZE * spec.units, constants, tiles)
        m.d.comb += [
            begin.eq(self.command.valid & self.command.ready),
            self.command.ready.eq((state == State.IDLE) & writer.empty),
            self.busy.eq((state != State.IDLE) | writer.o.valid),
            walk.start.eq(begin),
            *[walk.tensor[name].eq(self.command.p[name]) for name, _ in walk.tensor.shape()],
            index.start.eq(state == State.HEADER), index.columns.eq(command.columns),
            index.advance.eq(push_index),
            sequencer.active.eq(state == State.WEIGHTS), sequencer.columns.eq(command.columns),
            sequencer.period.eq(spec.column_beats), sequencer.room.eq(writer.room),
            reader.tile.eq(walk.tile), reader.request.eq(sequencer.request),
            reader.column.eq(sequencer.column), self.read.eq(reader.read),
            reader.read_data.eq(self.read_data),
            shifter.valid.eq(reader.word.valid), shifter.last.eq(reader.word.last),
            shifter.rows.eq(reader.word.rows),
            push_index.eq((state == State.INDEX) & writer.room),
            push_constants.eq((state == State.CONSTANTS) & writer.settled & writer.room),
            writer.promise.eq((state == State.HEADER) | push_index | push_constants | sequencer.moving),
            writer.push.eq((state == State.HEADER) | push_index | push_constants | shifter.beat_valid)]
        wiring.connect(m, writer.o, wiring.flipped(self.o))
        with m.Switch(state):
            with m.Case(State.IDLE), m.If(begin):
                m.d.sync += [command.eq(self.command.payload), state.eq(State.HEADER)]
            with m.Case(State.HEADER):
                m.d.comb += writer.beat.eq(header_beat(command.columns * spec.parts, walk.tile.words))
                m.d.sync += state.eq(State.ACCEPT)
            with m.Case(State.ACCEPT), m.If(writer.empty):
                m.d.sync += state.eq(State.INDEX)
            with m.Case(State.INDEX):
                m.d.comb += writer.beat.eq(index.beat)
                with m.If(push_index & index.last):
                    m.d.sync += state.eq(State.WEIGHTS)
            with m.Case(State.WEIGHTS), m.If(sequencer.done):
                m.d.sync += [state.eq(State.CONSTANTS), constants.eq(0)]
            with m.Case(State.CONSTANTS):
                m.d.comb += writer.beat.eq(constants_beat)
                m.d.comb += walk.advance.eq(push_constants & (constants == tiles.constant_beats - 1))
                with m.If(push_constants):
                    m.d.sync += constants.eq(constants + 1)
                with m.If(walk.advance):
                    m.d.sync += state.eq(Mux(walk.tile.last, State.IDLE, State.HEADER))
        with m.If(shifter.beat_valid):
            m.d.comb += writer.beat.eq(shifter.beat)
        return m
