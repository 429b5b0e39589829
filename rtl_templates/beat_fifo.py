"""Beat FIFO: a memory with registered output between two streams."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class BeatFifo(wiring.Component):
    """First in, first out.

    Latency: ``LATENCY`` clock cycles. Throughput: 1 word per cycle. Holds at least ``depth`` words.

    Members
    -------
    i : :py:`In(stream.Signature(width))`
    o : :py:`Out(stream.Signature(width))`
    """

    LATENCY = 3

    def __init__(self, width, depth):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"the depth of a FIFO must be a power of two, at least 2, not {depth}")
        self.width = width
        self.depth = depth
        super().__init__({"i": In(stream.Signature(width)), "o": Out(stream.Signature(width))})

    def elaborate(self, platform):
        m = Module()
        # A word is read at least a cycle after it was written, so a collision never matters.
        m.submodules.memory = memory = Memory(shape=self.width, depth=self.depth, init=[],
                                              attrs={"no_rw_check": 1})
        write, read = memory.write_port(), memory.read_port()
        written, taken = Signal(range(self.depth)), Signal(range(self.depth))
        level, filled, full = Signal(range(self.depth + 1)), Signal(), Signal()
        fetched = Signal()
        advance = Signal()
        fetch, push, pop = Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~full), push.eq(self.i.valid & self.i.ready), pop.eq(fetch & filled),
            write.en.eq(push), write.addr.eq(written), write.data.eq(self.i.payload),
            advance.eq(~self.o.valid | self.o.ready),
            fetch.eq(~fetched | advance),
            read.en.eq(fetch), read.addr.eq(taken)]
        m.d.sync += [written.eq(written + push), taken.eq(taken + pop), level.eq(level + push - pop),
                     filled.eq(push | (filled & ~(pop & (level == 1)))),
                     full.eq(~pop & (full | (push & (level == self.depth - 1))))]
        with m.If(fetch):
            m.d.sync += fetched.eq(pop)
        payload = Signal(self.width, reset_less=True)
        m.d.comb += self.o.payload.eq(payload)
        with m.If(advance):
            m.d.sync += [self.o.valid.eq(fetched), payload.eq(read.data)]
        return m
