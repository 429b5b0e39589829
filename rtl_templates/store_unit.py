"""Store unit: words of the activation buffer to beats for memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.activation_buffer import ActivationBuffer
from rtl_templates.beat_fifo import BeatFifo
from rtl_templates.burst_generator import BEATS_BITS
from rtl_templates.matmul_controller import address_bits
from rtl_templates.record_memory import number_of

PREFETCHED_WORDS = 8


class StoreUnit(wiring.Component):
    """Reads words from consecutive addresses ahead of time and cuts them into beats.

    Latency: ``LATENCY`` clock cycles from ``start`` to the first beat. It is fixed: it has room for the one
    cycle that a result can take from the first read. Throughput: one word in
    ``load_unit.word_interval(spec)`` cycles.

    Members
    -------
    start : :py:`In(1)`
        Begin with ``source`` and ``length`` (words, at least 1).
    source, length : :py:`In`
    abort : :py:`In(1)`
        Begin no further word: ``beats`` shows what it shows until that is taken, valid or not.
    addresses : :py:`Out(stream.Signature(address_bits))`
        Reads of the activation buffer.
    words : :py:`In(stream.Signature(word_bits, always_ready=True))`
        Their results, in order.
    beats : :py:`Out(stream.Signature(bus_bits))`
    """

    LATENCY = 4 + ActivationBuffer.STORE_LATENCY + BeatFifo.LATENCY

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"start": In(1), "source": In(address_bits(spec)), "length": In(BEATS_BITS),
                          "abort": In(1), "addresses": Out(stream.Signature(address_bits(spec))),
                          "words": In(stream.Signature(spec.array.word_bits, always_ready=True)),
                          "beats": Out(stream.Signature(spec.bus_bits))})

    def elaborate(self, platform):
        m = Module()
        bus_bits, parts = self.spec.bus_bits, self.spec.beats_per_word
        m.submodules.fifo = fifo = BeatFifo(self.spec.array.word_bits, PREFETCHED_WORDS)
        left = Signal(BEATS_BITS)
        room = Signal(range(PREFETCHED_WORDS + 1), init=PREFETCHED_WORDS)
        asked, popped = Signal(), Signal()
        some = Signal()  # left is not 0
        m.d.comb += [self.addresses.valid.eq(some & room.any()),
                     asked.eq(self.addresses.valid & self.addresses.ready),
                     fifo.i.valid.eq(self.words.valid), fifo.i.payload.eq(self.words.payload)]
        m.d.sync += room.eq(room + popped - asked)
        with m.If(asked):
            m.d.sync += [left.eq(left - 1), some.eq(left != 1),
                         self.addresses.payload.eq(self.addresses.payload + 1)]

        countdown = Signal(range(self.LATENCY))
        m.d.sync += countdown.eq(countdown - countdown.any())
        word = Signal(self.spec.array.word_bits, reset_less=True)
        part = Signal(number_of(parts))
        ends = Signal()
        m.d.comb += [
            ends.eq(self.beats.valid & self.beats.ready & (part == parts - 1)),
            # A word of a single beat leaves a pause behind it: word_interval is 2.
            fifo.o.ready.eq(~(countdown.any() | self.abort)
                            & (~self.beats.valid | (ends if parts > 1 else 0))),
            popped.eq(fifo.o.valid & fifo.o.ready), self.beats.payload.eq(word[:bus_bits])]
        with m.If(popped):
            m.d.sync += [word.eq(fifo.o.payload), part.eq(0)]
        with m.Elif(self.beats.ready):
            m.d.sync += [word.eq(word >> bus_bits), part.eq(Mux(self.beats.valid, part + 1, part))]
        m.d.sync += self.beats.valid.eq(popped | (self.beats.valid & ~ends))
        with m.If(self.start):
            m.d.sync += [left.eq(self.length), some.eq(1), self.addresses.payload.eq(self.source),
                         countdown.eq(self.LATENCY - 2)]
        return m
