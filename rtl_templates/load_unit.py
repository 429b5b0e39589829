"""Load unit: beats from memory to words of the activation buffer."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.activation_buffer import buffer_write_layout
from rtl_templates.burst_generator import BEATS_BITS
from rtl_templates.matmul_controller import address_bits
from rtl_templates.record_memory import number_of


def word_interval(spec):
    """Cycles that LOAD and STORE take for a word: at least 2, so that results find their place between."""
    return max(2, spec.beats_per_word)


class LoadUnit(wiring.Component):
    """Gathers beats into words and writes them to consecutive addresses.

    Latency: ``LAST_BEAT_TO_IDLE`` clock cycles from the last beat to ``busy`` being low; the words are in
    the buffer then. Throughput: one word in ``word_interval(spec)`` cycles.

    Members
    -------
    start : :py:`In(1)`
        Begin with ``destination`` and ``length`` (words, at least 1).
    destination, length : :py:`In`
    busy : :py:`Out(1)`
    beats : :py:`In(stream.Signature(bus_bits))`
    words : :py:`Out(stream.Signature(buffer_write_layout(spec)))`
        Accepted within a cycle.
    """

    LAST_BEAT_TO_IDLE = 3

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"start": In(1), "destination": In(address_bits(spec)), "length": In(BEATS_BITS),
                          "busy": Out(1), "beats": In(stream.Signature(spec.bus_bits)),
                          "words": Out(stream.Signature(buffer_write_layout(spec)))})

    def elaborate(self, platform):
        m = Module()
        bus_bits, parts = self.spec.bus_bits, self.spec.beats_per_word
        left = Signal(BEATS_BITS)
        final, closing, closed = Signal(), Signal(), Signal()
        address = Signal(address_bits(self.spec))
        part = Signal(number_of(parts))
        word = Signal(self.spec.array.word_bits)  # its last beats, up to the one that is here
        gathered = Signal(self.spec.array.word_bits, reset_less=True)
        take, complete, counting = Signal(), Signal(), Signal()
        pause = Signal()  # after a word of a single beat
        m.d.comb += [
            # Only a beat that completes a word waits for the one before to have left.
            self.beats.ready.eq(((part != parts - 1) | ~self.words.valid | self.words.ready) & ~pause),
            take.eq(self.beats.valid & self.beats.ready), complete.eq(take & (part == parts - 1)),
            word.eq(Cat(gathered[bus_bits:], self.beats.payload)), self.words.p.address.eq(address)]
        if parts == 1:  # driving a constant 0 would be X in Icarus until the end of reset
            m.d.sync += pause.eq(complete)
        with m.If(take):
            m.d.sync += [part.eq(part + 1), gathered.eq(word)]
        with m.If(complete):
            m.d.sync += [part.eq(0), self.words.p.word.eq(word)]
        # Counted a cycle later: two words are at least two cycles apart.
        m.d.sync += counting.eq(complete)
        with m.If(counting):
            m.d.sync += [left.eq(left - 1), final.eq(left == 2)]
        m.d.sync += [self.words.valid.eq(complete | (self.words.valid & ~self.words.ready)),
                     closing.eq(complete & final), closed.eq(closing)]
        with m.If(self.words.valid & self.words.ready):
            m.d.sync += address.eq(address + 1)
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), address.eq(self.destination), left.eq(self.length),
                         final.eq(self.length == 1)]
        with m.Elif(closed):
            m.d.sync += self.busy.eq(0)
        return m
