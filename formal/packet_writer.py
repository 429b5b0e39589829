"""PacketWriter: promised beats never overrun the queue, and leave it once each, in order."""

from amaranth.hdl import Array, Assert, Assume, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal.prover import Method, Proof
from rtl_templates.packet_writer import PacketWriter

WIDTH, CHUNK, LATENCY, CYCLES = 1, 2, 1, 9


class PacketHarness(wiring.Component):
    """A user that promises up to ``CHUNK`` beats whenever there is room, and sends them at any time later."""

    def __init__(self, component=PacketWriter):
        self.component = component
        super().__init__({"promise": In(1), "push": In(1), "beat": In(WIDTH), "ready": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.component(WIDTH, chunk=CHUNK, latency=LATENCY)
        m.d.comb += [dut.promise.eq(self.promise), dut.push.eq(self.push), dut.beat.eq(self.beat),
                     dut.o.ready.eq(self.ready)]
        beats = Array(Signal(WIDTH, name=f"beat{index}") for index in range(CYCLES))
        promised, pushed, taken = (Signal(range(CYCLES + 1), name=name)
                                   for name in ("promised", "pushed", "taken"))
        allowed = Signal(range(CHUNK + 1))
        take = dut.o.valid & dut.o.ready
        m.d.sync += [promised.eq(promised + self.promise), pushed.eq(pushed + self.push),
                     taken.eq(taken + take), allowed.eq(Mux(dut.room, CHUNK, allowed) - self.promise)]
        with m.If(self.push):
            m.d.sync += beats[pushed].eq(self.beat)
        m.d.comb += [Assume(~self.promise | dut.room | (allowed > 0)),
                     Assume(~self.push | (promised + self.promise > pushed))]

        with m.If(dut.o.valid):
            m.d.comb += [Assert(taken < pushed), Assert(dut.o.payload == beats[taken])]
        m.d.comb += [Assert(dut.o.valid == (pushed != taken)), Assert(promised - taken <= dut.depth),
                     Assert(dut.settled == (promised == pushed)),
                     Assert(dut.empty == ((promised == pushed) & (pushed == taken + take))),
                     Assert(dut.room == (promised - taken + CHUNK <= dut.depth))]
        return m


PROOFS = (
    Proof(claim="promised beats have places; each leaves once, in order; `settled` and `empty` are true",
          harness=PacketHarness, method=Method.BOUND, cycles=CYCLES),
)
