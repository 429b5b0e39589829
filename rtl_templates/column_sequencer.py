"""Column sequencer: asks for the columns of a tile at a steady pace, if there is room for their beats."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.buffer_ports import COUNT_BITS


class ColumnSequencer(wiring.Component):
    """One pass over ``columns`` columns takes ``columns * period`` cycles, if there is always room.

    Members
    -------
    active : :py:`In(1)`
        High from the first cycle of a pass until ``done``; then it may stay high for the next pass.
    columns : :py:`In(16)`
        At least 1.
    period : :py:`In(range(longest + 1))`
        Cycles of a column, at least 1.
    room : :py:`In(1)`
        Looked at before each column.
    request : :py:`Out(1)`
        First cycle of a column.
    column : :py:`Out(range(spec.columns))`
    slot : :py:`Out(range(longest))`
        Cycle within the column; counts in cycles in which ``moving``.
    last, moving, done : :py:`Out(1)`
        Last column; a cycle that is not lost to waiting; last cycle of the pass.
    """

    def __init__(self, spec, longest):
        self.spec = spec
        self.longest = longest
        super().__init__({
            "active": In(1), "columns": In(COUNT_BITS), "period": In(range(longest + 1)), "room": In(1),
            "request": Out(1), "column": Out(range(spec.columns)), "slot": Out(range(longest)),
            "last": Out(1), "moving": Out(1), "done": Out(1)})

    def elaborate(self, platform):
        m = Module()
        following = Signal(range(self.spec.columns + 1), init=1)  # column + 1
        first, final = self.slot == 0, self.slot + 1 == self.period
        m.d.comb += [
            self.last.eq(following == self.columns), self.moving.eq(self.active & (~first | self.room)),
            self.request.eq(self.moving & first), self.done.eq(self.moving & final & self.last)]
        with m.If(self.moving):
            m.d.sync += self.slot.eq(Mux(final, 0, self.slot + 1))
            with m.If(final):
                m.d.sync += [self.column.eq(Mux(self.last, 0, following)),
                             following.eq(Mux(self.last, 1, following + 1))]
        return m
