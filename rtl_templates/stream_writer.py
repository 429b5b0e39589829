"""Stream writer: a stream of beats to a linear range of memory."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.axi import (
    ADDRESS_BITS,
    OUTSTANDING_BEATS,
    RESPONSE_BITS,
    burst_beats,
    burst_layout,
    write_beat_layout,
)
from rtl_templates.burst_generator import BEATS_BITS, BurstGenerator


class StreamWriter(wiring.Component):
    """AXI4 write master. At most ``OUTSTANDING_BEATS`` beats of full bursts wait for their response.

    Latency: ``LATENCY`` clock cycles from ``start`` to the first address; none from ``i`` to a write beat
    once its address was accepted. Throughput: 1 beat per cycle.

    Members
    -------
    start, address, beats : :py:`In`
        As in :class:`BurstGenerator`; ``beats`` at least 1.
    abort : :py:`In(1)`
        Offer no new address; fill up bursts already promised with whatever ``i`` holds.
    busy : :py:`Out(1)`
        From the cycle after ``start`` until every response has come.
    quiet : :py:`Out(1)`
        No address is offered and no beat or response is owed.
    error : :py:`Out(1)`
        The response accepted in this cycle is an error.
    i : :py:`In(stream.Signature(bus_bits))`
    aw : :py:`Out(stream.Signature(burst_layout))`
    w : :py:`Out(stream.Signature(write_beat_layout(bus_bits)))`
    b : :py:`In(stream.Signature(2))`
    """

    LATENCY = BurstGenerator.LATENCY
    INTERVAL = BurstGenerator.INTERVAL
    RESPONSE_TO_IDLE = 2
    """Cycles from the last response to ``busy`` being low."""

    def __init__(self, bus_bits):
        self.bus_bits = bus_bits
        super().__init__({"start": In(1), "address": In(ADDRESS_BITS), "beats": In(BEATS_BITS),
                          "abort": In(1), "busy": Out(1), "quiet": Out(1), "error": Out(1),
                          "i": In(stream.Signature(bus_bits)), "aw": Out(stream.Signature(burst_layout)),
                          "w": Out(stream.Signature(write_beat_layout(bus_bits))),
                          "b": In(stream.Signature(RESPONSE_BITS))})

    def elaborate(self, platform):
        m = Module()
        full = burst_beats(self.bus_bits)
        m.submodules.bursts = bursts = BurstGenerator(self.bus_bits)
        unfinished = Signal(range(OUTSTANDING_BEATS + 1))  # bursts without response
        owed = Signal(range(OUTSTANDING_BEATS + 1))  # bursts without all of their beats
        asked, sent, answered = Signal(), Signal(), Signal()
        m.d.comb += [bursts.start.eq(self.start), bursts.address.eq(self.address),
                     bursts.beats.eq(self.beats), bursts.abort.eq(self.abort),
                     bursts.enable.eq(unfinished < OUTSTANDING_BEATS // full),
                     self.aw.valid.eq(bursts.o.valid), self.aw.payload.eq(bursts.o.payload),
                     bursts.o.ready.eq(self.aw.ready), asked.eq(self.aw.valid & self.aw.ready)]

        owes = Signal()  # owed is not 0
        ends = Signal()
        place = Signal(range(full))
        left = Signal(BEATS_BITS)
        final = Signal()
        m.d.comb += [self.w.valid.eq((self.i.valid | self.abort) & owes),
                     self.i.ready.eq(self.w.ready & owes),
                     self.w.p.data.eq(self.i.payload), self.w.p.last.eq(final | (place == full - 1)),
                     sent.eq(self.w.valid & self.w.ready), ends.eq(sent & self.w.p.last)]
        with m.If(self.start):
            m.d.sync += [place.eq(self.address >> (self.bus_bits // 8).bit_length() - 1),
                         left.eq(self.beats), final.eq(self.beats == 1), self.busy.eq(1)]
        with m.Elif(sent):
            m.d.sync += [place.eq(place + 1), left.eq(left - 1), final.eq(left == 2)]

        m.d.comb += [self.b.ready.eq(1), answered.eq(self.b.valid & self.b.ready),
                     self.error.eq(answered & self.b.payload[1]),
                     self.quiet.eq(~self.aw.valid & ~unfinished.any())]
        m.d.sync += [unfinished.eq(unfinished + asked - answered),
                     owed.eq(owed + asked - ends),
                     owes.eq(asked | (owes & ~(ends & (owed == 1))))]
        with m.If(~self.start & ~left.any() & ~unfinished.any()):
            m.d.sync += self.busy.eq(0)
        return m
