"""ResultWriter: four consecutive rows are a word, at its pass's addresses, in order."""

import numpy as np
from amaranth.hdl import Array, Assert, Assume, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal.prover import Method, Proof
from rtl_templates.array_spec import AcceleratorSpec, ArraySpec
from rtl_templates.result_writer import ResultWriter, passes_in_flight
from rtl_templates.slot_assignment import SIZE, SlotAssignment

CYCLES = 13
SPEC = AcceleratorSpec(
    array=ArraySpec(units=2, lanes=1, assignment=SlotAssignment.balanced(np.tile([1, 1, 0, 0], (1, 4)), 2)),
    bus_bits=32, activation_words=8, tile_ksteps=2, column_bits=1, program_depth=2)


class ResultHarness(wiring.Component):
    """Passes of one or two words; rows come only after their pass, any time later."""

    def __init__(self, component=ResultWriter):
        self.component = component
        super().__init__({"finished": In(1), "destination": In(3), "words": In(2, init=1), "tile_end": In(1),
                          "row": In(1), "value": In(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.component(SPEC)
        m.d.comb += [dut.finished.valid.eq(self.finished), dut.finished.p.destination.eq(self.destination),
                     dut.finished.p.words.eq(self.words), dut.finished.p.tile_end.eq(self.tile_end),
                     dut.row.valid.eq(self.row), dut.row["values"][0].eq(self.value.as_signed())]
        passes = Array(Signal(6, name=f"pass{index}") for index in range(CYCLES))
        pushed, popped = Signal(range(CYCLES + 1)), Signal(range(CYCLES + 1))
        row, index = Signal(range(SIZE)), Signal(2)
        values = [Signal(8, name=f"value{number}") for number in range(SIZE - 1)]
        here = passes[popped]
        destination, words, tile_end = here[:3], here[3:5], here[5]
        complete = self.row & (row == SIZE - 1)
        ends = complete & (index + 1 == words)
        with m.If(self.finished):
            m.d.sync += [pushed.eq(pushed + 1),
                         passes[pushed].eq(Cat(self.destination, self.words, self.tile_end))]
        with m.If(self.row):
            m.d.sync += row.eq(row + 1)
            for number, value in enumerate(values):
                with m.If(row == number):
                    m.d.sync += value.eq(self.value)
        with m.If(complete):
            m.d.sync += [index.eq(Mux(ends, 0, index + 1)), popped.eq(popped + ends)]
        m.d.comb += [Assume((self.words > 0) & (self.words <= SPEC.array.units)),
                     Assume(~self.row | (popped < pushed)),
                     Assume(~self.finished | (pushed - popped < passes_in_flight(SPEC) - 1))]

        m.d.comb += [Assert(dut.word.valid == complete), Assert(dut.drained == (ends & tile_end)),
                     Assert(~dut.idle | (pushed == popped))]
        with m.If(complete):
            m.d.comb += [Assert(dut.word.p.address == (destination + index)[:3]),
                         *[Assert(dut.word.p.word.word_select(number, 8) == value)
                           for number, value in enumerate([*values, self.value])]]
        return m


PROOFS = (
    Proof(claim="four rows are a word, at its pass's addresses, in order; the last word of a tile is told",
          harness=ResultHarness, method=Method.BOUND, cycles=CYCLES),
)
