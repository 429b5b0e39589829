"""Softmax source: the scores of a head become tile packets of softmax weights, pruned or dense."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import In

from compressor.intops.map_pruning import BLOCK
from compressor.intops.reciprocal import RESULT_BITS
from rtl_templates.block_shifter import BlockShifter, in_order
from rtl_templates.column_sequencer import ColumnSequencer
from rtl_templates.exp_table import ExpTable, table_layout
from rtl_templates.map_records import MapRecords
from rtl_templates.packet_source import PacketSource
from rtl_templates.packet_writer import DenseIndex, row_constants_beat, row_constants_record
from rtl_templates.pipeline import delay, register
from rtl_templates.row_quotients import RowQuotients
from rtl_templates.score_passes import ScorePasses
from rtl_templates.slot_assignment import SIZE


class SoftmaxSource(PacketSource):
    """See :class:`PacketSource`; scores are -127 to 127.

    Bit-exact with :meth:`compressor.intops.attention.IntegerAttention.weights`, and with the multipliers and
    shifts of its ``context``; rows of masked and absent queries have weight 0 and multiplier 0. The scores
    of a tile are read once, beside those of the next tile for its maxima. Dense tiles: straight into the
    packet. With map pruning: into :class:`MapRecords`, while the packet of the tile before is sent.
    Throughput: :class:`rtl_templates.softmax_source_spec.SoftmaxTimes`.

    Members
    -------
    table : :py:`In(table_layout)`
        Not into the bank of a running command.
    """

    def __init__(self, spec):
        super().__init__(spec, table=In(table_layout))

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        frame = self.frame(m)
        command, sections = frame.command, frame.sections
        m.submodules.passes = passes = ScorePasses(spec)
        m.submodules.table = table = ExpTable(spec.tiles.bus_bits // 8)
        m.submodules.quotients = quotients = RowQuotients(spec)
        m.submodules.index = index = DenseIndex(spec)
        orders = [spec.dense_order()] + [_block_order(spec)] * bool(spec.map_entries)
        m.submodules.shifter = shifter = BlockShifter(
            spec, [lambda rows, order=order: in_order(rows, order) for order in orders])
        pruned, take, divided, dividing = Signal(), Signal(), Signal(), Signal()
        with m.If(frame.begin):
            m.d.sync += pruned.eq(self._prunes())
        m.d.comb += [
            passes.start.eq(frame.begin), passes.columns.eq(command.columns),
            *[passes.tensor[name].eq(self.command.p[name]) for name, _ in passes.tensor.shape()],
            passes.valid_length.eq(command.valid_length), self.read.eq(passes.read),
            passes.read_data.eq(self.read_data),
            shifter.valid.eq(passes.valid), shifter.last.eq(passes.last), shifter.rows.eq(passes.distances),
            shifter.order.eq(pruned), sections.start.eq(take),
            index.start.eq(take), index.columns.eq(command.columns),
            table.bank.eq(command.bank), table.table.eq(self.table),
            quotients.numerator.eq(command.numerator),
            quotients.valid.eq(sections.push), quotients.weights.eq(table.weights),
            quotients.start.eq(sections.constants & sections.settled & ~dividing & ~divided),
            sections.beat.eq(Cat(Cat(weight, Const(0, 1)) for weight in table.weights)),
            sections.constants_ready.eq(divided),
            sections.constants_beat.eq(self._constants(m, command, quotients, sections.number))]
        m.d.sync += [quotients.clear.eq(take),  # many registers; the next tile's weights come later
                     dividing.eq((dividing | quotients.start) & ~quotients.done),
                     divided.eq((divided | quotients.done) & sections.constants)]

        dense_beat = shifter.beat_valid & ~pruned
        if not spec.map_entries:
            m.d.comb += self._dense(take, frame, passes, index)
            distances, valid = shifter.beat, dense_beat
        else:
            kept = self._pruned(m, command, pruned, take, frame, passes, shifter)
            with m.If(~pruned):
                m.d.comb += self._dense(take, frame, passes, index)
            distances = Mux(pruned, kept.beat, shifter.beat)
            valid = kept.beat_valid | dense_beat
        m.d.comb += [table.distances.eq(distances),
                     sections.push.eq(delay(m, valid, ExpTable.LATENCY, "valid", reset=True))]
        return m

    def _prunes(self):
        command = self.command.p
        return command.pruning & (command.valid_length >= BLOCK) if self.spec.map_entries else Const(0)

    def _dense(self, take, frame, passes, index):
        """Assignments of a command without pruning: a pass goes with the weights of its packet."""
        spec, sections = self.spec, frame.sections
        return [
            take.eq(frame.running & sections.idle & passes.waiting), passes.go.eq(sections.weights),
            passes.room.eq(sections.room), sections.ksteps.eq(frame.command.columns * spec.parts),
            index.advance.eq(sections.index_advance), sections.index_beat.eq(index.beat),
            sections.index_last.eq(index.last), sections.weights_done.eq(passes.done),
            sections.promise.eq(passes.moving)]

    def _pruned(self, m, command, pruned, take, frame, passes, shifter):
        """Selection, a tile ahead of the packets, and what a command with pruning takes from it."""
        spec, sections = self.spec, frame.sections
        m.submodules.records = records = MapRecords(spec)
        m.submodules.selection_table = table = ExpTable(spec.tiles.bus_bits // 8)
        m.submodules.sequencer = sequencer = ColumnSequencer(spec, spec.kstep_beats)
        ahead = Signal(range(3))  # tiles whose pass has begun and whose packet is not complete
        m.d.sync += ahead.eq(Mux(pruned, ahead + passes.begins - sections.done, 0))
        m.d.comb += [
            table.distances.eq(shifter.beat), table.bank.eq(command.bank), table.table.eq(self.table),
            records.columns.eq(command.columns), records.weights.eq(table.weights),
            records.valid.eq(delay(m, shifter.beat_valid & pruned, ExpTable.LATENCY, "selects", reset=True)),
            records.distances.eq(delay(m, shifter.beat, ExpTable.LATENCY, "distances")),
            sequencer.columns.eq(command.columns), sequencer.period.eq(spec.kstep_beats),
            sequencer.room.eq(sections.room), records.request.eq(sequencer.request),
            records.column.eq(sequencer.column)]
        with m.If(pruned):
            m.d.comb += [
                take.eq(records.prepared & sections.idle), records.take.eq(take), passes.go.eq(ahead != 2),
                passes.room.eq(1), sections.ksteps.eq(command.columns),
                records.index_advance.eq(sections.index_advance), sections.index_beat.eq(records.index_beat),
                sections.index_last.eq(records.index_last), sequencer.active.eq(sections.weights),
                sections.weights_done.eq(sequencer.done), sections.promise.eq(sequencer.moving)]
        return records

    def _constants(self, m, command, quotients, number):
        """Constants of a row: bias 0, its quotient, exponent - 16 + length. The length is there first."""
        records = []
        for row, (quotient, length) in enumerate(zip(quotients.quotient, quotients.length, strict=True)):
            shift = register(m, (command.exponent - RESULT_BITS + length)[:6], f"shift{row}")
            records.append(row_constants_record(quotient, shift))
        return row_constants_beat(records, number, self.spec.tiles)


def _block_order(spec):
    """Order in which patterns are selected: unit after unit, 16 bytes row-major."""
    return [(unit, row, column)
            for unit in range(spec.units) for row in range(SIZE) for column in range(SIZE)]
