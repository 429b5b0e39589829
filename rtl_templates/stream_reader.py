"""Stream reader: a linear range of memory as a stream of beats."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.axi import (
    ADDRESS_BITS,
    LENGTH_BITS,
    OUTSTANDING_BEATS,
    burst_beats,
    burst_layout,
    read_beat_layout,
)
from rtl_templates.burst_generator import BEATS_BITS, BurstGenerator


class StreamReader(wiring.Component):
    """AXI4 read master. Asks for a burst only while less than ``OUTSTANDING_BEATS`` beats, that burst
    included, have been asked for and not been taken by the consumer.

    Latency: ``LATENCY`` clock cycles from ``start`` to the first address; none from a read beat to ``o``.
    Throughput: 1 beat per cycle.

    Members
    -------
    start, address, beats : :py:`In`
        As in :class:`BurstGenerator`.
    taken : :py:`In(1)`
        The consumer has made room for one more beat.
    abort : :py:`In(1)`
        Ask for nothing more, accept and drop what still comes.
    exhausted : :py:`Out(1)`
        The whole range has been asked for.
    emptied : :py:`Out(1)`
        The whole range has been asked for and taken by the consumer.
    quiet : :py:`Out(1)`
        No address is offered and every beat asked for has come.
    error : :py:`Out(1)`
        The beat accepted in this cycle carries an error response.
    ar : :py:`Out(stream.Signature(burst_layout))`
    r : :py:`In(stream.Signature(read_beat_layout(bus_bits)))`
    o : :py:`Out(stream.Signature(bus_bits))`
    """

    LATENCY = BurstGenerator.LATENCY
    INTERVAL = BurstGenerator.INTERVAL

    def __init__(self, bus_bits):
        self.bus_bits = bus_bits
        super().__init__({"start": In(1), "address": In(ADDRESS_BITS), "beats": In(BEATS_BITS),
                          "taken": In(1), "abort": In(1), "exhausted": Out(1),
                          "emptied": Out(1), "quiet": Out(1), "error": Out(1),
                          "ar": Out(stream.Signature(burst_layout)),
                          "r": In(stream.Signature(read_beat_layout(bus_bits))),
                          "o": Out(stream.Signature(bus_bits))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.bursts = bursts = BurstGenerator(self.bus_bits)
        m.d.comb += [bursts.start.eq(self.start), bursts.address.eq(self.address),
                     bursts.beats.eq(self.beats), bursts.abort.eq(self.abort),
                     self.exhausted.eq(bursts.exhausted)]
        asked = Signal()
        m.d.comb += [self.ar.valid.eq(bursts.o.valid), self.ar.payload.eq(bursts.o.payload),
                     bursts.o.ready.eq(self.ar.ready), asked.eq(self.ar.valid & self.ar.ready)]

        credit = Signal(range(OUTSTANDING_BEATS + 1), init=OUTSTANDING_BEATS)
        spent = Signal(LENGTH_BITS + 1)
        m.d.comb += [spent.eq(Mux(asked, self.ar.p.length + 1, 0)),
                     bursts.enable.eq(credit >= burst_beats(self.bus_bits)),
                     self.emptied.eq(bursts.exhausted & (credit == OUTSTANDING_BEATS))]
        taken = Signal()  # known late
        m.d.sync += [taken.eq(self.taken), credit.eq(credit - spent + taken)]

        pending = Signal(range(OUTSTANDING_BEATS + 1))  # bursts
        answered = Signal()
        m.d.comb += [self.o.payload.eq(self.r.p.data), self.o.valid.eq(self.r.valid & ~self.abort),
                     self.r.ready.eq(self.o.ready | self.abort),
                     answered.eq(self.r.valid & self.r.ready & self.r.p.last),
                     self.error.eq(self.r.valid & self.r.ready & self.r.p.response[1]),
                     self.quiet.eq(~self.ar.valid & ~pending.any())]
        m.d.sync += pending.eq(pending + asked - answered)
        return m
