"""BeatFifo: what comes out is what went in, in order, nothing lost and nothing twice."""

from amaranth.hdl import Array, Assert, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal.opened import Opened
from formal.prover import Method, Proof
from rtl_templates.beat_fifo import BeatFifo

WIDTH, DEPTH, CYCLES = 2, 2, 12
NUMBER_BITS = 5
"""Numbers of words, modulo 32: more than a FIFO of 8 holds."""


class FifoHarness(wiring.Component):
    """Writes down every word that goes in, and compares the words that come out, one after the other."""

    def __init__(self, component=BeatFifo):
        self.component = component
        super().__init__({"valid": In(1), "payload": In(WIDTH), "ready": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.component(WIDTH, DEPTH)
        m.d.comb += [dut.i.valid.eq(self.valid), dut.i.payload.eq(self.payload), dut.o.ready.eq(self.ready)]
        written = Array(Signal(WIDTH, name=f"word{index}") for index in range(CYCLES))
        entered, left = Signal(range(CYCLES + 1)), Signal(range(CYCLES + 1))
        with m.If(dut.i.valid & dut.i.ready):
            m.d.sync += [entered.eq(entered + 1), written[entered].eq(dut.i.payload)]
        with m.If(dut.o.valid & dut.o.ready):
            m.d.sync += left.eq(left + 1)
        with m.If(dut.o.valid):
            m.d.comb += [Assert(left < entered), Assert(dut.o.payload == written[left])]
        # Nothing stays inside: a word that could leave for LATENCY cycles is at the output.
        waited = Signal(range(BeatFifo.LATENCY + 1))
        m.d.sync += waited.eq(0)
        with m.If((left < entered) & ~dut.o.valid):
            m.d.sync += waited.eq(waited + 1)
        m.d.comb += Assert(waited < BeatFifo.LATENCY)
        m.d.comb += Assert(dut.i.ready | (entered - left >= DEPTH))
        return m


def fifo_invariants(inside, entered, left, word_of=lambda number: number):
    """What is true of a BeatFifo whose words are their numbers, as a list of assertions.

    Parameters
    ----------
    inside : dict
        Local variables of its ``elaborate()``.
    entered, left : Signal(NUMBER_BITS)
        Words that went in and came out, modulo ``2**NUMBER_BITS``.
    word_of : callable
        The word with a number.
    """
    fifo, level, leaving = inside["self"], inside["level"], inside["leaving"]
    fetched, waits, taken, depth = inside["fetched"], inside["waits"], inside["taken"], fifo.depth

    def holds(word, number):
        return word == word_of(number[:NUMBER_BITS])
    claims = [
        (entered - left)[:NUMBER_BITS] == level + leaving, leaving == fetched + waits + fifo.o.valid,
        level <= depth, fifo.o.valid | ~waits, inside["room"] == (leaving != 3),
        inside["filled"] == level.any(), inside["full"] == (level == depth),
        (taken + level)[:len(taken)] == inside["written"],
        ~fifo.o.valid | holds(inside["payload"], left),
        ~waits | holds(inside["waiting"], left + 1),
        ~fetched | holds(inside["read"].data, left + fifo.o.valid + waits)]
    for row, word in enumerate(inside["memory"].rows):
        place = (row - taken)[:len(taken)]
        claims.append((place >= level) | holds(word, left + leaving + place))
    return [Assert(claim) for claim in claims]


class NumbersHarness(wiring.Component):
    """Words are their numbers: whatever came before, the next word that comes out is the next number."""

    def __init__(self, component=BeatFifo):
        self.component = component
        super().__init__({"valid": In(1), "ready": In(1)})

    def elaborate(self, platform):
        m = Module()
        dut = self.component(NUMBER_BITS, 8)
        m.submodules.dut = opened = Opened(dut, self.component)
        entered, left = Signal(NUMBER_BITS), Signal(NUMBER_BITS)
        m.d.comb += [dut.i.valid.eq(self.valid), dut.i.payload.eq(entered), dut.o.ready.eq(self.ready)]
        m.d.sync += [entered.eq(entered + (dut.i.valid & dut.i.ready)),
                     left.eq(left + (dut.o.valid & dut.o.ready))]
        m.d.comb += fifo_invariants(opened.inside(), entered, left)
        inside = (entered - left)[:NUMBER_BITS]
        waited = Signal(2)
        m.d.sync += waited.eq(Mux(inside.any() & ~dut.o.valid, waited + 1, 0))
        m.d.comb += [Assert(~dut.o.valid | (inside.any() & (dut.o.payload == left))),
                     Assert(dut.i.ready | (inside >= dut.depth)), Assert(waited < BeatFifo.LATENCY)]
        return m


PROOFS = (
    Proof(claim="a FIFO delivers every word once, in order, within 3 cycles, and accepts `depth` words",
          harness=FifoHarness, method=Method.BOUND, cycles=CYCLES),
    Proof(claim="the same of numbered words in a FIFO of 8, for any time",
          harness=NumbersHarness, method=Method.INDUCTION, cycles=3),
)
