"""StreamWriter: what AXI4 asks of the write channels, for ranges of any length and for any time.

Beats are numbered by their place in memory: beat n is at byte address ``n * bus_bytes``. Bursts end at
multiples of a full burst and at the end of the range, so where each ends is known without a list of those
under way, and the proof can be an induction.
"""

from amaranth.hdl import Assert, Assume, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal.bursts import generator_invariants
from formal.opened import Opened
from formal.prover import Method, Proof
from rtl_templates.axi import ADDRESS_BITS, OUTSTANDING_BEATS, PAGE_BYTES, RESPONSE_BITS, burst_beats
from rtl_templates.burst_generator import BEATS_BITS
from rtl_templates.stream_writer import StreamWriter

BUS_BITS = 128
BYTE_BITS = (BUS_BITS // 8).bit_length() - 1
FULL = burst_beats(BUS_BITS)
FULL_BITS = FULL.bit_length() - 1
BEAT_BITS = ADDRESS_BITS - BYTE_BITS
MOST_BURSTS = OUTSTANDING_BEATS // FULL
COUNT_BITS = MOST_BURSTS.bit_length()


class WriterHarness(wiring.Component):
    """A StreamWriter between a store unit and a memory that answers only bursts that it has whole.

    ``sent``, ``promised`` and ``end`` are numbers of beats: the next one to be sent, the first one that no
    accepted address covers, and the first one behind the range. ``whole`` bursts have all their beats and
    no response yet, ``open`` ones have no response yet.
    """

    def __init__(self, component=StreamWriter):
        self.dut = component(BUS_BITS)
        super().__init__({"start": In(1), "address": In(ADDRESS_BITS), "beats": In(BEATS_BITS),
                          "abort": In(1), "valid": In(1), "data": In(BUS_BITS), "aw_ready": In(1),
                          "w_ready": In(1), "b_valid": In(1), "b_response": In(RESPONSE_BITS)})

    def elaborate(self, platform):
        m = Module()
        dut = self.dut
        m.submodules.dut = opened = Opened(dut)
        m.d.comb += [dut.start.eq(self.start), dut.address.eq(self.address), dut.beats.eq(self.beats),
                     dut.abort.eq(self.abort), dut.i.valid.eq(self.valid), dut.i.payload.eq(self.data),
                     dut.aw.ready.eq(self.aw_ready), dut.w.ready.eq(self.w_ready),
                     dut.b.valid.eq(self.b_valid), dut.b.payload.eq(self.b_response)]
        asked, beat, answered = (stream.valid & stream.ready for stream in (dut.aw, dut.w, dut.b))
        self.sent, self.promised, self.end = (Signal(BEAT_BITS, name=name)
                                              for name in ("sent", "promised", "end"))
        self.open, self.whole, self.aborted = Signal(COUNT_BITS), Signal(COUNT_BITS), Signal()
        with m.If(self.start):
            first = self.address >> BYTE_BITS
            m.d.sync += [self.sent.eq(first), self.promised.eq(first), self.end.eq(first + self.beats)]
        with m.Else():
            m.d.sync += [self.sent.eq(self.sent + beat),
                         self.promised.eq(self.promised + Mux(asked, dut.aw.p.length + 1, 0))]
        m.d.sync += [self.open.eq(self.open + asked - answered), self.aborted.eq(self.aborted | self.abort),
                     self.whole.eq(self.whole + (beat & dut.w.p.last) - answered)]
        self._assume(m, dut)
        self._claim(m, dut, answered)
        self._invariants(m, dut, opened)
        return m

    def _assume(self, m, dut):
        """What the sequencer, the store unit (proven in :mod:`formal.store_unit`) and the memory promise."""
        shown, valid, data = Signal(), Signal(), Signal(BUS_BITS)
        m.d.sync += [shown.eq((self.valid | self.abort) & ~dut.i.ready), valid.eq(self.valid),
                     data.eq(self.data)]
        m.d.comb += [Assume((self.address < 1 << 62) & (self.address[:BYTE_BITS] == 0) & (self.beats > 0)),
                     Assume(~self.start | ~(dut.busy | self.aborted)), Assume(self.abort | ~self.aborted),
                     Assume(~shown | ((self.valid == valid) & (self.data == data))),
                     Assume(~self.b_valid | (self.whole > 0))]

    def _claim(self, m, dut, answered):
        first, last = self.promised, self.promised + dut.aw.p.length
        refused, beat = Signal(), Signal.like(dut.w.payload)
        m.d.sync += [refused.eq(dut.w.valid & ~dut.w.ready), beat.eq(dut.w.payload)]
        with m.If(dut.aw.valid):
            m.d.comb += [Assert(dut.aw.p.address == first << BYTE_BITS), Assert(last < self.end),
                         Assert((first << BYTE_BITS) // PAGE_BYTES == (last << BYTE_BITS) // PAGE_BYTES),
                         Assert(self._is_last(first, last))]
        # A beat of the stream is sent as it is taken, never before its address; an abort needs no beats.
        m.d.comb += [Assert(dut.w.valid == ((self.valid | self.abort) & (self.sent < self.promised))),
                     Assert(~self.valid | (dut.i.ready == (dut.w.valid & dut.w.ready)))]
        with m.If(dut.w.valid):
            m.d.comb += [Assert(dut.w.p.data == self.data),
                         Assert(dut.w.p.last == self._is_last(self.sent, self.sent))]
        with m.If(refused):
            m.d.comb += Assert(dut.w.valid & (dut.w.payload.as_value() == beat.as_value()))
        m.d.comb += [Assert(dut.b.ready), Assert(dut.error == (answered & self.b_response[1])),
                     Assert(self.open + dut.aw.valid <= MOST_BURSTS),
                     Assert(self.promised - self.sent <= OUTSTANDING_BEATS),
                     Assert(dut.quiet == (~dut.aw.valid & (self.open == 0))),
                     Assert(dut.busy | ((self.sent == self.end) & (self.open == 0) & ~dut.aw.valid))]

    def _is_last(self, first, last):
        """Whether a burst that has the beat ``first`` ends with the beat ``last``."""
        return (first >> FULL_BITS == last >> FULL_BITS) & (((last + 1)[:FULL_BITS] == 0)
                                                            | (last + 1 == self.end))

    def _invariants(self, m, dut, opened):
        """What is true of the registers in every state that is reached."""
        own, bursts = opened.inside(), opened.inside("bursts")
        # Bursts from the one of the next beat to the last promised one; few, so their low bits will do.
        begun, ended = ((beat >> FULL_BITS)[:COUNT_BITS] for beat in (self.sent, self.promised + FULL - 1))
        owed = Mux(self.sent == self.promised, 0, (ended - begun)[:COUNT_BITS])
        offered = self.promised + Mux(dut.aw.valid, dut.aw.p.length + 1, 0)
        left = bursts["left"]
        m.d.comb += [
            Assert((self.sent <= self.promised) & (offered <= self.end)),
            Assert((self.promised == self.sent) | (self.promised[:FULL_BITS] == 0)
                   | (self.promised == self.end)),
            Assert(own["owed"] == owed), Assert(own["owes"] == owed.any()),
            Assert(own["unfinished"] == self.open), Assert(self.open == self.whole + owed),
            Assert(own["left"] == self.end - self.sent), Assert(own["final"] == (own["left"] == 1)),
            Assert(own["place"] == self.sent[:FULL_BITS]),
            Assert((left == self.end - offered) | (self.aborted & (left == 0))),
            Assert(dut.busy | (left == 0)), generator_invariants(bursts, offered)]


PROOFS = (
    Proof(claim="AXI4 write channels: bursts cover the range in order and cross no 4 KiB; beats are the "
                "stream's, none before its address, one marked last a burst, and stay until taken; responses "
                "are counted",
          harness=WriterHarness, method=Method.INDUCTION, cycles=1),
)
