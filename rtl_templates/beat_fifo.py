"""Beat FIFO: a memory with registered output between two streams."""

from amaranth.hdl import Module, Mux, Signal
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
        push, pop = Signal(), Signal()
        # Up to three words are on their way out: read from the memory, offered, and one that waits in
        # between. So whether one is read does not hang on whether one is taken.
        leaving, room = Signal(range(4)), Signal(init=1)
        fetched, waits, move, taken_out = Signal(), Signal(), Signal(), Signal()
        waiting, payload = (Signal(self.width, name=name, reset_less=True) for name in ("waiting", "payload"))
        m.d.comb += [
            self.i.ready.eq(~full), push.eq(self.i.valid & self.i.ready), pop.eq(room & filled),
            write.en.eq(push), write.addr.eq(written), write.data.eq(self.i.payload),
            read.en.eq(pop), read.addr.eq(taken), self.o.payload.eq(payload),
            taken_out.eq(self.o.valid & self.o.ready), move.eq(~self.o.valid | self.o.ready)]
        with m.If(push):
            m.d.sync += written.eq(written + 1)
        with m.If(pop):
            m.d.sync += taken.eq(taken + 1)
        with m.If(push ^ pop):
            m.d.sync += level.eq(level + Mux(push, 1, -1))
        m.d.sync += [filled.eq(push | (filled & ~(pop & (level == 1)))),
                     full.eq(~pop & (full | (push & (level == self.depth - 1)))),
                     fetched.eq(pop | (fetched & waits & ~move)),
                     waits.eq(Mux(waits, ~move | fetched, fetched & ~move))]
        with m.If(pop ^ taken_out):
            m.d.sync += [leaving.eq(leaving + Mux(pop, 1, -1)), room.eq(~pop | (leaving != 2))]
        with m.If(fetched & ~(waits ^ move)):
            m.d.sync += waiting.eq(read.data)
        with m.If(move):
            m.d.sync += [self.o.valid.eq(fetched | waits), payload.eq(Mux(waits, waiting, read.data))]
        return m
