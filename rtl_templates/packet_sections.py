"""Packet sections: header, index, weights and row constants of one tile packet after the other."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.enum import IntEnum
from amaranth.lib.wiring import In, Out

from rtl_templates.packet_writer import PacketWriter, header_beat


class Section(IntEnum, shape=3):
    """What is being sent."""

    IDLE = 0
    HEADER = 1
    ACCEPT = 2
    INDEX = 3
    WEIGHTS = 4
    CONSTANTS = 5


class PacketSections(wiring.Component):
    """Asks for the sections of a packet in their order and queues their beats.

    After a header nothing follows until it is taken, so that a packet's timing depends on nothing before.
    Header in the cycle after ``start``; index from the cycle after the header's being taken on, a beat per
    cycle; the weights are asked for in the cycle after the last index beat.

    Parameters
    ----------
    spec : PacketSourceSpec
    latency : int
        Cycles from the promise of a beat of weights to the beat.

    Members
    -------
    start : :py:`In(1)`
        Only if ``idle``.
    ksteps, words : :py:`In`
        Of the header; steady in the cycle after ``start``.
    index_beat, index_last : :py:`In`
        The next index beat, and whether it is the last; ``index_advance`` : :py:`Out(1)` when it is used.
    weights : :py:`Out(1)`
        Weights are asked for, until ``weights_done`` : :py:`In(1)`, the cycle of the last promise or later.
    promise, push, beat : :py:`In`
        Weights, as of :class:`PacketWriter`.
    constants : :py:`Out(1)`
        Row constants are asked for; ``number`` : :py:`Out`, the next beat's.
    constants_ready, constants_beat : :py:`In`
    room, settled, empty : :py:`Out(1)`
        Of the queue.
    idle : :py:`Out(1)`
    done : :py:`Out(1)`
        The last beat enters the queue.
    o : :py:`Out(stream.Signature(bus_bits))`
    """

    def __init__(self, spec, latency):
        self.spec = spec
        self.latency = latency
        tiles = spec.tiles
        super().__init__({
            "start": In(1), "ksteps": In(range(spec.columns * spec.parts + 1)),
            "words": In(range(spec.units + 1)),
            "index_beat": In(tiles.bus_bits), "index_last": In(1), "index_advance": Out(1),
            "weights": Out(1), "weights_done": In(1), "promise": In(1), "push": In(1),
            "beat": In(tiles.bus_bits),
            "constants": Out(1), "number": Out(range(tiles.constant_beats)), "constants_ready": In(1),
            "constants_beat": In(tiles.bus_bits),
            "room": Out(1), "settled": Out(1), "empty": Out(1), "idle": Out(1), "done": Out(1),
            "o": Out(stream.Signature(tiles.bus_bits))})

    def elaborate(self, platform):
        m = Module()
        spec, tiles = self.spec, self.spec.tiles
        m.submodules.writer = writer = PacketWriter(tiles.bus_bits, chunk=spec.column_beats,
                                                    latency=self.latency)
        section = Signal(Section)
        push_constants, direct = Signal(), Signal()
        m.d.comb += [
            self.idle.eq(section == Section.IDLE), self.weights.eq(section == Section.WEIGHTS),
            self.constants.eq(section == Section.CONSTANTS),
            self.index_advance.eq((section == Section.INDEX) & writer.room),
            push_constants.eq(self.constants & self.constants_ready & writer.room),
            self.done.eq(push_constants & (self.number == tiles.constant_beats - 1)),
            direct.eq((section == Section.HEADER) | self.index_advance | push_constants),
            writer.promise.eq(direct | self.promise), writer.push.eq(direct | self.push),
            self.room.eq(writer.room), self.settled.eq(writer.settled), self.empty.eq(writer.empty)]
        wiring.connect(m, writer.o, wiring.flipped(self.o))
        with m.Switch(section):
            with m.Case(Section.IDLE), m.If(self.start):
                m.d.sync += section.eq(Section.HEADER)
            with m.Case(Section.HEADER):
                m.d.comb += writer.beat.eq(header_beat(self.ksteps, self.words))
                m.d.sync += section.eq(Section.ACCEPT)
            with m.Case(Section.ACCEPT), m.If(writer.empty):
                m.d.sync += section.eq(Section.INDEX)
            with m.Case(Section.INDEX):
                m.d.comb += writer.beat.eq(self.index_beat)
                with m.If(self.index_advance & self.index_last):
                    m.d.sync += section.eq(Section.WEIGHTS)
            with m.Case(Section.WEIGHTS), m.If(self.weights_done):
                m.d.sync += [section.eq(Section.CONSTANTS), self.number.eq(0)]
            with m.Case(Section.CONSTANTS):
                m.d.comb += writer.beat.eq(self.constants_beat)
                with m.If(push_constants):
                    m.d.sync += self.number.eq(self.number + 1)
                with m.If(self.done):
                    m.d.sync += section.eq(Section.IDLE)
        with m.If(self.push):
            m.d.comb += writer.beat.eq(self.beat)
        return m
