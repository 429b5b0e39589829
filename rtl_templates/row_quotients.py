"""Row quotients: sums the softmax weights of each row of a tile and divides by them."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from compressor.intops.attention import NUMERATOR_BITS
from compressor.intops.reciprocal import RESULT_BITS
from rtl_templates.digit_recurrence import Divider, RecurrenceSpec
from rtl_templates.exp_table import WEIGHT_BITS
from rtl_templates.slot_assignment import SIZE


class RowQuotients(wiring.Component):
    """Bit-exact with :func:`compressor.intops.reciprocal.normalized_quotient` of the sums.

    That is, of sums of 0 and of 16 and more; a softmax row's largest weight is 127, if it has one.

    Beats hold n weights of each of some rows; the rows go round, so that a K-step brings each to the front
    once. Sums are shifted left, 4 bits at a time and then single ones, until their top bit is set.

    Latency: ``CYCLES`` - 2 clock cycles from ``start`` to ``done``; start comes in the cycle after the
    last beat or later. The quotients stay until ``clear``.

    Members
    -------
    clear : :py:`In(1)`
    valid : :py:`In(1)`
    weights : :py:`In(ArrayLayout(7, bytes of a beat))`
    start : :py:`In(1)`
    numerator : :py:`In(31)`
        Steady from ``start`` to ``done``.
    done : :py:`Out(1)`
    quotient : :py:`Out(ArrayLayout(16, 4R))`
    length : :py:`Out(ArrayLayout(5, 4R))`
        Bit lengths of the sums, 0 to 16.
    """

    STEPS = (4, 4, 1, 1, 1)
    CYCLES = 1 + 1 + len(STEPS) + RecurrenceSpec(lanes=1).cycles + 1
    """Cycles from the last beat to the one after ``done``, if ``start`` comes right after the beat."""

    def __init__(self, spec):
        self.spec = spec
        self.rows = SIZE * spec.units
        super().__init__({
            "clear": In(1), "valid": In(1),
            "weights": In(data.ArrayLayout(WEIGHT_BITS, spec.tiles.bus_bits // 8)),
            "start": In(1), "numerator": In(NUMERATOR_BITS), "done": Out(1),
            "quotient": Out(data.ArrayLayout(RESULT_BITS, self.rows)),
            "length": Out(data.ArrayLayout(range(RESULT_BITS + 1), self.rows))})

    def elaborate(self, platform):
        m = Module()
        slots, rows = self.spec.array.assignment.slots, self.rows
        front = len(self.weights) // slots
        partial = [Signal(WEIGHT_BITS + 2, name=f"partial{row}", reset_less=True) for row in range(front)]
        sums = [Signal(RESULT_BITS, name=f"sum{row}") for row in range(rows)]
        lengths = [Signal(range(RESULT_BITS + 1), name=f"length{row}") for row in range(rows)]
        adding, normalizing, step = Signal(), Signal(), Signal(range(len(self.STEPS)))
        final = step == len(self.STEPS) - 1
        coarse = step < self.STEPS.count(4)
        m.submodules.divider = divider = Divider(RecurrenceSpec(lanes=rows))
        m.d.sync += [adding.eq(self.valid), normalizing.eq(self.start | (normalizing & ~final)),
                     step.eq(Mux(normalizing & ~final, step + 1, 0)), divider.start.eq(normalizing & final)]
        m.d.comb += [divider.numerator.eq(self.numerator), self.done.eq(divider.done)]
        for row in range(front):
            m.d.sync += partial[row].eq(sum(self.weights[row * slots + slot] for slot in range(slots)))
        for row in range(rows):
            source = (row + front) % rows  # the row that comes here when the rows go round
            moved = sums[source] + partial[source] if source < front else sums[source]
            large = sums[row] >> (RESULT_BITS - 4) == 0
            small = ~sums[row][-1]
            with m.If(self.clear):
                m.d.sync += sums[row].eq(0)
            with m.Elif(adding):
                m.d.sync += sums[row].eq(moved)
            with m.Elif(normalizing):
                m.d.sync += sums[row].eq(Mux(coarse, Mux(large, sums[row] << 4, sums[row]),
                                             Mux(small, sums[row] << 1, sums[row])))
            with m.If(self.start):
                m.d.sync += lengths[row].eq(RESULT_BITS)
            with m.Elif(normalizing):
                m.d.sync += lengths[row].eq(lengths[row] - Mux(coarse, Cat(Const(0, 2), large), small))
            m.d.comb += [divider.divisor[row].eq(sums[row]), self.quotient[row].eq(divider.quotient[row]),
                         self.length[row].eq(Mux(sums[row][-1], lengths[row], 0))]
        return m
