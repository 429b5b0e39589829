"""BeatFifo: what comes out is what went in, in order, nothing lost and nothing twice."""

from amaranth.hdl import Array, Assert, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal.prover import Method, Proof
from rtl_templates.beat_fifo import BeatFifo

WIDTH, DEPTH, CYCLES = 2, 2, 12


class FifoHarness(wiring.Component):
    """Writes down every word that goes in, and compares the words that come out, one after the other."""

    def __init__(self, component=BeatFifo):
        self.component = component
        super().__init__({"valid": In(1), "payload": In(WIDTH), "ready": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.component(WIDTH, DEPTH)
        m.d.comb += [dut.i.valid.eq(self.valid), dut.i.payload.eq(self.payload), dut.o.ready.eq(self.ready)]
        written = Array(Signal(WIDTH, name=f"word{index}") for index in range(CYCLES))
        entered, left = Signal(range(CYCLES + 1)), Signal(range(CYCLES + 1))
        with m.If(dut.i.valid & dut.i.ready):
            m.d.sync += [entered.eq(entered + 1), written[entered].eq(dut.i.payload)]
        with m.If(dut.o.valid & dut.o.ready):
            m.d.sync += left.eq(left + 1)
        with m.If(dut.o.valid):
            m.d.comb += [Assert(left < entered), Assert(dut.o.payload == written[left])]
        # Nothing stays inside: a word that could leave for LATENCY cycles is at the output.
        waited = Signal(range(BeatFifo.LATENCY + 1))
        m.d.sync += waited.eq(0)
        with m.If((left < entered) & ~dut.o.valid):
            m.d.sync += waited.eq(waited + 1)
        m.d.comb += Assert(waited < BeatFifo.LATENCY)
        m.d.comb += Assert(dut.i.ready | (entered - left >= DEPTH))
        return m


PROOFS = (
    Proof(claim="a FIFO delivers every word once, in order, within 3 cycles, and accepts `depth` words",
          harness=FifoHarness, method=Method.BOUND, cycles=CYCLES),
)
