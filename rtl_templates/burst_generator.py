"""Burst generator: cuts a linear range of memory into AXI4 bursts."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.axi import ADDRESS_BITS, burst_beats, burst_layout

BEATS_BITS = 32


class BurstGenerator(wiring.Component):
    """Bursts of ``burst_beats`` beats, each aligned to its size, so that none crosses a page.

    The first burst is shorter if the range begins inside a burst; so is the last if it ends inside one.

    Latency: ``LATENCY`` clock cycles from ``start`` to the first burst. Throughput: one burst in
    ``INTERVAL`` cycles.

    Members
    -------
    start : :py:`In(1)`
        Begin with ``address`` and ``beats``; only while no burst of an earlier range is left.
    address : :py:`In(64)`
        Byte address, a multiple of the bus width.
    beats : :py:`In(32)`
        Length of the range; 0 makes no burst.
    enable : :py:`In(1)`
        Whether another full burst may be asked for.
    abort : :py:`In(1)`
        Forget what has not been offered yet; a burst already offered stays, as AXI asks.
    exhausted : :py:`Out(1)`
        No burst is left.
    o : :py:`Out(stream.Signature(burst_layout))`
    """

    LATENCY = 2
    INTERVAL = 2

    def __init__(self, bus_bits):
        self.bus_bits = bus_bits
        super().__init__({"start": In(1), "address": In(ADDRESS_BITS), "beats": In(BEATS_BITS),
                          "enable": In(1), "abort": In(1), "exhausted": Out(1),
                          "o": Out(stream.Signature(burst_layout))})

    def elaborate(self, platform):
        m = Module()
        byte_bits = (self.bus_bits // 8).bit_length() - 1
        full = burst_beats(self.bus_bits)
        place_bits = full.bit_length() - 1
        place = Signal(place_bits)  # beat within an aligned burst
        page = Signal(ADDRESS_BITS - byte_bits - place_bits)
        left = Signal(BEATS_BITS)
        room = Signal(place_bits + 1)  # beats up to the end of that burst
        some, final = Signal(), Signal()  # beats are left; and no more than fit into the next burst
        m.d.comb += self.exhausted.eq(~some & ~self.o.valid)

        # A cycle behind `left`: no burst is offered in the cycle after one.
        m.d.sync += [some.eq(left.any()),
                     final.eq(~left[len(room):].any() & (left[:len(room)] <= room))]
        with m.If(~self.o.valid & self.enable & some & ~self.abort):
            m.d.sync += [self.o.valid.eq(1), self.o.p.length.eq(Mux(final, left - 1, room - 1)),
                         self.o.p.address.eq(Cat(Const(0, byte_bits), place, page)),
                         page.eq(page + 1), place.eq(0), room.eq(full),
                         left.eq(Mux(final, 0, left - room))]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.start):
            first = (self.address >> byte_bits)[:place_bits]
            m.d.sync += [Cat(place, page).eq(self.address >> byte_bits), left.eq(self.beats),
                         room.eq(full - first), some.eq(self.beats.any()),
                         final.eq(~self.beats[len(room):].any()
                                  & (self.beats[:len(room)] + first <= full))]
        with m.Elif(self.abort):
            m.d.sync += [left.eq(0), some.eq(0)]
        return m
