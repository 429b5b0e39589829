"""Softmax source: the scores of a head become tile packets of softmax weights, pruned or dense."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.enum import IntEnum
from amaranth.lib.wiring import In, Out

from compressor.intops.map_pruning import BLOCK
from compressor.intops.reciprocal import RESULT_BITS
from rtl_templates.block_reader import BlockReader
from rtl_templates.block_shifter import BlockShifter, in_order
from rtl_templates.block_unit import select, word_layout
from rtl_templates.buffer_ports import read_port
from rtl_templates.column_sequencer import ColumnSequencer
from rtl_templates.exp_table import ExpTable, table_layout
from rtl_templates.map_records import MapRecords
from rtl_templates.packet_writer import (
    DenseIndex,
    PacketWriter,
    header_beat,
    row_constants_beat,
    row_constants_record,
)
from rtl_templates.pipeline import delay
from rtl_templates.row_maxima import MASKED_SCORE, RowMaxima
from rtl_templates.row_quotients import RowQuotients
from rtl_templates.slot_assignment import SIZE
from rtl_templates.tile_walk import TileWalk


class State(IntEnum, shape=4):
    """What a tile is doing."""

    IDLE = 0
    MAXIMA = 1
    HEADER = 2
    ACCEPT = 3
    INDEX = 4
    SELECT = 5
    SELECTED = 6
    WEIGHTS = 7
    DIVIDE = 8
    CONSTANTS = 9


class Pass(IntEnum, shape=2):
    """What a column is read for; those with weights are orders of the block shifter."""

    DENSE = 0
    BLOCKS = 1
    KEPT = 2
    MAXIMA = 3


class SoftmaxSource(wiring.Component):
    """Packets of :class:`rtl_templates.tile_format.TileFormat`, byte for byte.

    Bit-exact with :meth:`compressor.intops.attention.IntegerAttention.weights`, and with the multipliers and
    shifts of its ``context``; rows of masked and absent queries have weight 0 and multiplier 0. Each tile
    takes a pass for the maxima of its rows, with map pruning one for the patterns, and one for the weights.
    After a header nothing follows until it is taken, so that a tile's timing depends on nothing before.
    Throughput: :meth:`SoftmaxSourceSpec.cycles`.

    Members
    -------
    command : :py:`In(stream.Signature(spec.command_layout()))`
        ``groups`` and ``columns`` at least 1.
    busy : :py:`Out(1)`
        From the cycle after the command to the last beat.
    table : :py:`In(table_layout)`
        Not into the bank of a running command.
    read : :py:`Out(read_port(spec))`
    read_data : :py:`In(word_layout(spec))`
        ``spec.read_latency`` cycles after the enable; scores are -127 to 127.
    o : :py:`Out(stream.Signature(bus_bits))`
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({
            "command": In(stream.Signature(spec.command_layout())), "busy": Out(1), "table": In(table_layout),
            "read": Out(read_port(spec)), "read_data": In(word_layout(spec)),
            "o": Out(stream.Signature(spec.tiles.bus_bits))})

    def elaborate(self, platform):
        m = Module()
        spec, tiles = self.spec, self.spec.tiles
        m.submodules.walk = walk = TileWalk(spec)
        m.submodules.sequencer = sequencer = ColumnSequencer(spec, spec.column_beats)
        m.submodules.index = index = DenseIndex(spec)
        m.submodules.writer = writer = PacketWriter(tiles.bus_bits, chunk=spec.column_beats,
                                                    latency=spec.weight_latency)
        state, reading = Signal(State), Signal(Pass)
        command, pruned = Signal(spec.command_layout()), Signal()
        begin, clear = Signal(), Signal()
        path = self._weights(m, command, walk, sequencer, reading, clear)
        quotients, records = path["quotients"], path["records"]

        constants = Signal(range(tiles.constant_beats))
        push_index, push_constants, promise_weights, promise_index = (Signal(), Signal(), Signal(), Signal())
        direct = (state == State.HEADER) | push_index | push_constants
        passes = (state == State.MAXIMA) | (state == State.SELECT) | (state == State.WEIGHTS)
        m.d.comb += [
            begin.eq(self.command.valid & self.command.ready),
            self.command.ready.eq((state == State.IDLE) & writer.empty),
            self.busy.eq((state != State.IDLE) | writer.o.valid),
            clear.eq(begin | walk.advance), walk.start.eq(begin),
            *[walk.tensor[name].eq(self.command.p[name]) for name, _ in walk.tensor.shape()],
            index.start.eq(state == State.HEADER), index.columns.eq(command.columns),
            index.advance.eq(push_index), sequencer.active.eq(passes), sequencer.columns.eq(command.columns),
            sequencer.room.eq((state == State.MAXIMA) | writer.room),
            push_index.eq((state == State.INDEX) & writer.room),
            push_constants.eq((state == State.CONSTANTS) & writer.room),
            quotients.start.eq((state == State.DIVIDE) & writer.settled & ~path["dividing"]),
            promise_weights.eq((state == State.WEIGHTS) & sequencer.moving
                               & (~pruned | (sequencer.slot < spec.kstep_beats))),
            writer.promise.eq(direct | promise_weights | promise_index),
            writer.push.eq(direct | path["push"] | (records.push if records else 0))]
        wiring.connect(m, writer.o, wiring.flipped(self.o))
        if records is not None:
            position = sequencer.column[:tiles.records_per_beat.bit_length() - 1]
            m.d.comb += promise_index.eq((state == State.SELECT) & sequencer.request
                                         & (position.all() | sequencer.last))
        with m.If(state == State.MAXIMA):
            m.d.comb += [reading.eq(Pass.MAXIMA), sequencer.period.eq(spec.words_per_column)]
        with m.Elif(state == State.SELECT):
            m.d.comb += [reading.eq(Pass.BLOCKS), sequencer.period.eq(spec.column_beats)]
        with m.Else():
            m.d.comb += [reading.eq(Mux(pruned, Pass.KEPT, Pass.DENSE)),
                         sequencer.period.eq(Mux(pruned, spec.kept_period, spec.column_beats))]

        ksteps = Mux(pruned, command.columns, command.columns * spec.parts)
        with m.Switch(state):
            with m.Case(State.IDLE), m.If(begin):
                m.d.sync += [command.eq(self.command.payload), state.eq(State.MAXIMA),
                             pruned.eq(self._prunes())]
            with m.Case(State.MAXIMA), m.If(sequencer.done):
                m.d.sync += state.eq(State.HEADER)
            with m.Case(State.HEADER):
                m.d.comb += writer.beat.eq(header_beat(ksteps, walk.tile.words))
                m.d.sync += state.eq(State.ACCEPT)
            with m.Case(State.ACCEPT), m.If(writer.empty):
                m.d.sync += state.eq(Mux(pruned, State.SELECT, State.INDEX))
            with m.Case(State.INDEX):
                m.d.comb += writer.beat.eq(index.beat)
                with m.If(push_index & index.last):
                    m.d.sync += state.eq(State.WEIGHTS)
            with m.Case(State.SELECT), m.If(sequencer.done):
                m.d.sync += state.eq(State.SELECTED)
            with m.Case(State.WEIGHTS), m.If(sequencer.done):
                m.d.sync += state.eq(State.DIVIDE)
            with m.Case(State.DIVIDE), m.If(quotients.done):
                m.d.sync += [state.eq(State.CONSTANTS), constants.eq(0)]
            with m.Case(State.CONSTANTS):
                m.d.comb += [writer.beat.eq(self._constants(command, quotients, constants)),
                             walk.advance.eq(push_constants & (constants == tiles.constant_beats - 1))]
                with m.If(push_constants):
                    m.d.sync += constants.eq(constants + 1)
                with m.If(walk.advance):
                    m.d.sync += state.eq(Mux(walk.tile.last, State.IDLE, State.MAXIMA))
        with m.If(path["push"]):
            m.d.comb += writer.beat.eq(path["beat"])
        if records is not None:
            m.d.comb += [records.start.eq(state == State.HEADER), records.columns.eq(command.columns)]
            with m.If(records.push):
                m.d.comb += writer.beat.eq(records.beat)
            with m.If(records.push & records.last):
                m.d.sync += state.eq(State.WEIGHTS)
        return m

    def _prunes(self):
        command = self.command.p
        return command.pruning & (command.valid_length >= BLOCK) if self.spec.map_entries else Const(0)

    def _constants(self, command, quotients, number):
        """Constants of a row: bias 0, its quotient, exponent - 16 + length."""
        records = []
        for quotient, length in zip(quotients.quotient, quotients.length, strict=True):
            shift = (command.exponent - RESULT_BITS + length)[:6]
            records.append(row_constants_record(quotient, shift))
        return row_constants_beat(records, number, self.spec.tiles)

    def _weights(self, m, command, walk, sequencer, reading, clear):
        """Words to distances, to beats of weights, to sums."""
        spec = self.spec
        tag_bits = len(reading)
        m.submodules.reader = reader = BlockReader(spec, masked=MASKED_SCORE, mask_columns=True,
                                                   tag_bits=tag_bits)
        m.submodules.maxima = maxima = RowMaxima(spec, tag_bits)
        orders = [lambda rows: in_order(rows, spec.dense_order())]
        records = None
        if spec.map_entries:
            m.submodules.records = records = MapRecords(spec)
            orders += [_by_blocks(spec), _by_patterns(m, spec, records.ids)]
        m.submodules.shifter = shifter = BlockShifter(spec, orders)
        m.submodules.table = table = ExpTable(spec.tiles.bus_bits // 8)
        m.submodules.quotients = quotients = RowQuotients(spec)

        word = reader.word
        weighted = word.valid & (word.tag != Pass.MAXIMA)
        m.d.comb += [
            reader.tile.eq(walk.tile), reader.valid_length.eq(command.valid_length),
            reader.request.eq(sequencer.request), reader.column.eq(sequencer.column), reader.tag.eq(reading),
            self.read.eq(reader.read), reader.read_data.eq(self.read_data),
            maxima.clear.eq(clear), maxima.collect.eq(word.valid & (word.tag == Pass.MAXIMA)),
            maxima.word.eq(word),
            shifter.valid.eq(delay(m, weighted, 1, "weighted", reset=True)),
            shifter.last.eq(delay(m, word.last, 1, "last")), shifter.order.eq(delay(m, word.tag, 1, "tag")),
            shifter.rows.eq(maxima.distances),
            table.distances.eq(shifter.beat), table.bank.eq(command.bank), table.table.eq(self.table),
            quotients.clear.eq(clear), quotients.weights.eq(table.weights),
            quotients.numerator.eq(command.numerator)]
        looked_up = delay(m, shifter.beat_valid, table.LATENCY, "looked_up", reset=True)
        order = delay(m, shifter.beat_order, table.LATENCY, "order")
        push, dividing = Signal(), Signal()
        m.d.comb += [push.eq(looked_up & (order != Pass.BLOCKS) if records else looked_up),
                     quotients.valid.eq(push)]
        m.d.sync += dividing.eq((dividing | quotients.start) & ~quotients.done)
        if records is not None:
            m.d.comb += [
                records.valid.eq(looked_up & (order == Pass.BLOCKS)), records.weights.eq(table.weights),
                records.distances.eq(delay(m, shifter.beat, table.LATENCY, "distances")),
                records.column.eq(word.column), maxima.by.eq(records.nearest),
                maxima.lower.eq(records.push & records.last)]
        beat = Cat(Cat(weight, Const(0, 1)) for weight in table.weights)
        return {"quotients": quotients, "records": records, "push": push, "beat": beat, "dividing": dividing}


def _by_blocks(spec):
    """Order of the pass that selects patterns: unit after unit, 16 bytes row-major."""
    order = [(unit, row, column)
             for unit in range(spec.units) for row in range(SIZE) for column in range(SIZE)]
    return lambda rows: in_order(rows, order)


def _by_patterns(m, spec, ids):
    """Order of the kept positions: slot after slot, as the pattern of each unit says."""
    assignment = spec.array.assignment
    kept = []
    for unit in range(spec.units):
        for slot in range(assignment.multipliers):
            columns = [assignment.columns[entry][slot] for entry in spec.map_entries]
            choices = sorted(set(columns))
            code = Signal((len(choices) - 1).bit_length(), name=f"kept{unit}_{slot}")
            for bit in range(len(code)):
                table = sum((choices.index(column) >> bit & 1) << number
                            for number, column in enumerate(columns))
                m.d.comb += code[bit].eq(Const(table, 1 << spec.map_id_bits).bit_select(ids[unit], 1))
            kept.append((SIZE * unit + slot // assignment.slots, choices, code))
    return lambda rows: [select(code, [rows[row][column] for column in choices])
                         for row, choices, code in kept]
