"""StreamReader: every beat is delivered once, and what it reports is true.

Bursts of 4 beats (a bus of 8192 bits), so that a few cycles hold several of them.
"""

from amaranth.hdl import Array, Assert, Assume, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal.prover import Method, Proof
from rtl_templates.axi import ADDRESS_BITS, OUTSTANDING_BEATS, RESPONSE_BITS, burst_beats
from rtl_templates.stream_reader import StreamReader

CYCLES = 11


class ReaderHarness(wiring.Component):
    """A StreamReader whose memory answers in order, with one last beat a burst, what was asked for."""

    BUS_BITS = 8192
    MOST_BEATS = 16

    def __init__(self, component=StreamReader):
        self.component = component
        super().__init__({"start": In(1), "address": In(ADDRESS_BITS), "beats": In(range(self.MOST_BEATS)),
                          "abort": In(1), "taken": In(1), "ready": In(1), "ar_ready": In(1), "r_valid": In(1),
                          "r_tag": In(1), "r_response": In(RESPONSE_BITS)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.component(self.BUS_BITS)
        full = burst_beats(self.BUS_BITS)
        lengths = Array(Signal(range(full), name=f"length{index}") for index in range(CYCLES))
        promised, answered = Signal(range(CYCLES)), Signal(range(CYCLES))
        beat = Signal(range(full))
        last = beat == lengths[answered]
        m.d.comb += [dut.start.eq(self.start), dut.address.eq(self.address), dut.beats.eq(self.beats),
                     dut.abort.eq(self.abort), dut.taken.eq(self.taken), dut.o.ready.eq(self.ready),
                     dut.ar.ready.eq(self.ar_ready), dut.r.valid.eq(self.r_valid),
                     dut.r.p.data.eq(self.r_tag), dut.r.p.response.eq(self.r_response), dut.r.p.last.eq(last)]
        asked, came, delivered = (stream.valid & stream.ready for stream in (dut.ar, dut.r, dut.o))
        left = Signal(range(self.MOST_BEATS))
        owed, held = Signal(range(4 * OUTSTANDING_BEATS)), Signal(range(4 * OUTSTANDING_BEATS))
        aborted, spent = Signal(), Signal(range(full + 1))
        m.d.comb += spent.eq(Mux(asked, dut.ar.p.length + 1, 0))
        m.d.sync += [owed.eq(owed + spent - came), held.eq(held + delivered - self.taken),
                     aborted.eq(aborted | self.abort)]
        with m.If(asked):
            m.d.sync += [lengths[promised].eq(dut.ar.p.length), promised.eq(promised + 1)]
        with m.If(came):
            m.d.sync += [beat.eq(Mux(last, 0, beat + 1)), answered.eq(answered + last)]
        m.d.sync += left.eq(Mux(self.start, self.beats, left - spent))
        m.d.comb += [Assume(self.address % (self.BUS_BITS // 8) == 0), Assume(~self.r_valid | (owed > 0)),
                     Assume(~self.taken | (held > 0) | delivered),
                     Assume(~self.start | (dut.exhausted & ~aborted)), Assume(self.abort | ~aborted)]

        m.d.comb += [Assert(~dut.o.valid | (self.r_valid & ~self.abort)),
                     Assert(~dut.o.valid | (dut.o.payload == self.r_tag)),
                     Assert(delivered == (came & ~self.abort)), Assert(~self.abort | dut.r.ready),
                     Assert(dut.error == (came & self.r_response[1])),
                     Assert(dut.quiet == (~dut.ar.valid & (answered == promised))),
                     Assert(aborted | self.abort | ~dut.exhausted | ((left == 0) & ~dut.ar.valid)),
                     Assert(aborted | ~dut.emptied | (dut.exhausted & (owed == 0) & (held == 0))),
                     Assert(owed + held + Mux(dut.ar.valid, dut.ar.p.length + 1, 0) <= OUTSTANDING_BEATS)]
        return m


PROOFS = (
    Proof(claim="read beats are delivered once each; `exhausted`, `emptied`, `quiet` and `error` are true",
          harness=ReaderHarness, method=Method.BOUND, cycles=CYCLES, slow=True),
)
