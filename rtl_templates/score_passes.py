"""Score passes: reads the scores of one tile after the other, as distances below the maxima of their rows."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.enum import IntEnum
from amaranth.lib.wiring import In, Out

from rtl_templates.block_reader import BlockReader
from rtl_templates.block_unit import word_layout
from rtl_templates.buffer_ports import COUNT_BITS, read_port
from rtl_templates.column_sequencer import ColumnSequencer
from rtl_templates.pipeline import delay
from rtl_templates.row_maxima import MASKED_SCORE, RowMaxima
from rtl_templates.tile_walk import TileWalk, tensor_layout, tile_rows_layout


class State(IntEnum, shape=2):
    """What is read: nothing, the first tile for its maxima, nothing yet, or a tile and the next's maxima."""

    IDLE = 0
    FIRST = 1
    WAIT = 2
    PASS = 3


class ScorePasses(wiring.Component):
    """A pass over each tile of a head's scores; the same pass finds the maxima of the next tile.

    Each column of a pass takes ``spec.pass_period`` cycles: its words are read, then those of the same
    column of the next tile. The maxima of the first tile take a pass of their own, a word per cycle.

    Latency: ``spec.read_cycles`` + 1 clock cycles from the request of a column to its first distances;
    ``TURN`` from the last cycle of a pass to the first of the next, if that may begin.

    Members
    -------
    start : :py:`In(1)`
        Go to the first tile of ``tensor`` : :py:`In(tensor_layout(spec))`.
    columns : :py:`In(range(spec.columns + 1))`
    valid_length : :py:`In(16)`
        Keys that count. Both steady from the cycle after ``start`` on.
    go : :py:`In(1)`
        The next pass may begin.
    room : :py:`In(1)`
        Looked at before each column of a pass.
    waiting : :py:`Out(1)`
        A pass may begin, at the latest two cycles after the next.
    begins : :py:`Out(1)`
        The cycle before the first of a pass.
    moving : :py:`Out(1)`
        One of the ``spec.column_beats`` cycles in which the beats of a column may be promised.
    done : :py:`Out(1)`
        The last cycle of a pass.
    read, read_data : as of :class:`rtl_templates.packet_source.PacketSource`
    valid, last : :py:`Out(1)`
        Distances of a word; the last of its column.
    distances : :py:`Out(spec.rows_layout())`
    """

    TURN = 4

    def __init__(self, spec):
        self.spec = spec
        super().__init__({
            "start": In(1), "tensor": In(tensor_layout(spec)), "columns": In(range(spec.columns + 1)),
            "valid_length": In(COUNT_BITS), "go": In(1), "room": In(1), "waiting": Out(1), "begins": Out(1),
            "moving": Out(1), "done": Out(1), "read": Out(read_port(spec)),
            "read_data": In(word_layout(spec)), "valid": Out(1), "last": Out(1),
            "distances": Out(spec.rows_layout())})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.submodules.walk = walk = TileWalk(spec)
        m.submodules.sequencer = sequencer = ColumnSequencer(spec, spec.pass_period)
        m.submodules.reader = reader = BlockReader(spec, masked=MASKED_SCORE, mask_columns=True)
        m.submodules.maxima = maxima = RowMaxima(spec)
        state = Signal(State)
        tile = Signal(tile_rows_layout(spec))  # walk's is the next
        settled = Signal()
        first, passing, for_next = Signal(), Signal(), Signal()
        m.d.comb += [
            first.eq(state == State.FIRST), passing.eq(state == State.PASS),
            self.waiting.eq(state == State.WAIT), self.begins.eq(self.waiting & settled & self.go),
            walk.start.eq(self.start), walk.tensor.eq(self.tensor), walk.advance.eq(self.begins),
            sequencer.active.eq(first | passing), sequencer.columns.eq(self.columns),
            sequencer.period.eq(Mux(first, spec.words_per_column, spec.pass_period)),
            sequencer.room.eq(first | self.room),
            self.moving.eq(passing & sequencer.moving & (sequencer.slot < spec.column_beats)),
            self.done.eq(passing & sequencer.done),
            for_next.eq(first | (sequencer.slot == spec.words_per_column)),
            reader.tile.eq(Mux(for_next, walk.tile, tile)), reader.valid_length.eq(self.valid_length),
            reader.request.eq(sequencer.request | (passing & sequencer.moving & for_next & ~tile.last)),
            reader.column.eq(sequencer.column), reader.tag.eq(for_next), self.read.eq(reader.read),
            reader.read_data.eq(self.read_data),
            maxima.clear.eq(self.start), maxima.word.eq(reader.word), self.distances.eq(maxima.distances),
            maxima.turn.eq(delay(m, self.begins, spec.read_cycles, "turn", reset=True))]
        m.d.sync += [
            self.valid.eq(reader.word.valid & ~reader.word.tag), self.last.eq(reader.word.last),
            settled.eq(delay(m, self.waiting, 1, "waited", reset=True) & self.waiting)]
        with m.If(self.begins):
            m.d.sync += tile.eq(walk.tile)
        with m.Switch(state):
            with m.Case(State.IDLE), m.If(self.start):
                m.d.sync += state.eq(State.FIRST)
            with m.Case(State.FIRST), m.If(sequencer.done):
                m.d.sync += state.eq(State.WAIT)
            with m.Case(State.WAIT), m.If(self.begins):
                m.d.sync += state.eq(State.PASS)
            with m.Case(State.PASS), m.If(sequencer.done):
                m.d.sync += state.eq(Mux(tile.last, State.IDLE, State.WAIT))
        return m
