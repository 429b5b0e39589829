"""Packet writer: the beats of a packet behind a short queue, and the sections that need no buffer."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl_templates.tile_format import CONSTANT_BITS, HEADER_KSTEPS_BITS, TILE_MARKER


class PacketWriter(wiring.Component):
    """A queue that is never overrun: beats on their way through a pipeline have their places promised.

    Latency: 1 clock cycle. Throughput: 1 beat per cycle.

    Parameters
    ----------
    bus_bits : int
    chunk : int
        Places that ``room`` tells of.
    latency : int
        Cycles from a promise to its beat; the queue is deep enough that these cost no throughput.

    Members
    -------
    promise : :py:`In(1)`
        One more place is taken; its beat comes in this cycle or later.
    push : :py:`In(1)`
    beat : :py:`In(bus_bits)`
    room : :py:`Out(1)`
        At least ``chunk`` places are free.
    settled : :py:`Out(1)`
        Every beat that was promised has come.
    empty : :py:`Out(1)`
        Every promised beat has come and been taken, as of this cycle's end.
    o : :py:`Out(stream.Signature(bus_bits))`
    """

    def __init__(self, bus_bits, *, chunk, latency):
        self.bus_bits = bus_bits
        self.chunk = chunk
        self.depth = 1 << (2 * chunk + latency + 3 - 1).bit_length()
        super().__init__({"promise": In(1), "push": In(1), "beat": In(bus_bits), "room": Out(1, init=1),
                          "settled": Out(1, init=1), "empty": Out(1), "o": Out(stream.Signature(bus_bits))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Memory(shape=self.bus_bits, depth=self.depth, init=[])
        write, read = queue.write_port(), queue.read_port(domain="comb")
        level, promised = Signal(range(self.depth + 1)), Signal(range(self.depth + 1))
        filled, taken = Signal(), Signal()  # `filled`: level is not 0
        m.d.comb += [
            write.en.eq(self.push), write.data.eq(self.beat), self.o.payload.eq(read.data),
            self.o.valid.eq(filled), taken.eq(self.o.valid & self.o.ready),
            self.empty.eq(self.settled & (~filled | ((level == 1) & taken)))]
        # Flags of the coming cycle: what is promised and taken is known late.
        limit, pending = self.depth - self.chunk, Signal(range(self.depth + 1))  # promised and not here
        with m.If(self.promise ^ taken):
            m.d.sync += [promised.eq(promised + Mux(taken, -1, 1)),
                         self.room.eq(Mux(taken, promised <= limit + 1, promised < limit))]
        with m.If(self.push ^ taken):
            m.d.sync += level.eq(level + Mux(taken, -1, 1))
        with m.If(self.promise ^ self.push):
            m.d.sync += [pending.eq(pending + Mux(self.push, -1, 1)),
                         self.settled.eq(self.push & (pending == 1))]
        m.d.sync += [filled.eq(self.push | (filled & ~((level == 1) & taken))),
                     write.addr.eq(write.addr + self.push), read.addr.eq(read.addr + taken)]
        return m


def header_beat(ksteps, words):
    """Header of a tile packet, from signals."""
    return Cat(Cat(ksteps, Const(0, HEADER_KSTEPS_BITS))[:HEADER_KSTEPS_BITS], Cat(words, Const(0, 8))[:8],
               Const(TILE_MARKER, 8))


def row_constants_record(multiplier, shift):
    """Constants of a row without bias, from signals; the upper bits of shift are left out."""
    return Cat(Const(0, 32), Cat(multiplier, Const(0, 16))[:16], shift)


def row_constants_beat(records, number, tiles):
    """Beat of that number of the row constants, a signal; ``records``: one a row."""
    padded = [Cat(record, Const(0, CONSTANT_BITS))[:CONSTANT_BITS] for record in records]
    section = Cat(padded, Const(0, tiles.bus_bits))[:tiles.constant_beats * tiles.bus_bits]
    return section if tiles.constant_beats == 1 else section.word_select(number, tiles.bus_bits)


class DenseIndex(wiring.Component):
    """Index section of a tile whose columns are all dense: column after column, part after part.

    Members
    -------
    start : :py:`In(1)`
    columns : :py:`In(range(spec.columns + 1))`
        At least 1; steady from ``start`` on.
    advance : :py:`In(1)`
        The beat has been used.
    beat : :py:`Out(bus_bits)`
        Valid from the second cycle after ``start`` on; the next one in the cycle after ``advance``.
    last : :py:`Out(1)`
        The last beat of the section.
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"start": In(1), "columns": In(range(spec.columns + 1)), "advance": In(1),
                          "beat": Out(spec.tiles.bus_bits), "last": Out(1)})

    def elaborate(self, platform):
        m = Module()
        spec, tiles = self.spec, self.spec.tiles
        per_beat, slices = tiles.records_per_beat, max(1, tiles.record_bits // tiles.bus_bits)
        kstep = Signal(range(spec.columns * spec.parts + per_beat + 1))
        end = Signal.like(kstep)
        piece = Signal(range(slices))
        m.d.sync += end.eq(self.columns * spec.parts)  # long before the first beat is used
        records = []
        for index in range(per_beat):
            here = Signal.like(kstep, name=f"kstep{index}")
            record = Signal(tiles.record_bits, name=f"record{index}")
            m.d.comb += here.eq(kstep + index)
            with m.If(here < end):
                m.d.comb += record.eq(self._record(here))
            records.append(record)
        # `kstep` is that of the next beat: the beat at hand is a register.
        begun, onward = Signal(), Signal()
        m.d.comb += onward.eq(begun | self.advance)
        m.d.sync += begun.eq(self.start)
        with m.If(onward):
            m.d.sync += [self.beat.eq(Cat(records).word_select(piece, tiles.bus_bits) if slices > 1
                                      else Cat(records)),
                         self.last.eq((kstep + per_beat >= end) & (piece == slices - 1))]
        with m.If(self.start):
            m.d.sync += [kstep.eq(0), piece.eq(0)]
        with m.Elif(onward):
            m.d.sync += piece.eq(Mux(piece == slices - 1, 0, piece + 1))
            with m.If(piece == slices - 1):
                m.d.sync += kstep.eq(kstep + per_beat)
        return m

    def _record(self, kstep):
        """The dense record of a K-step."""
        spec, tiles = self.spec, self.spec.tiles
        part_bits = spec.parts.bit_length() - 1
        entries = spec.array.assignment.dense_entries
        control = Cat(Const(spec.control(entry), tiles.control_bits) for entry in entries)
        if part_bits:
            control = control.word_select(kstep[:part_bits], tiles.control_bits)
        column = Cat(kstep[part_bits:], Const(0, tiles.column_bits))[:tiles.column_bits]
        return Cat(column, Const(1, int(tiles.has_dense_bit)), control.replicate(tiles.units))
