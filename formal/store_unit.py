"""StoreUnit: beats are the words' parts, in order, and stay as they are until taken, for any time.

The buffer returns the number of each read instead of a word, so words out of order, lost or twice would show.
"""

from itertools import pairwise

import numpy as np
from amaranth.hdl import Assert, Assume, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal.beat_fifo import NUMBER_BITS, fifo_invariants
from formal.opened import Opened
from formal.prover import Method, Proof
from rtl_templates.activation_buffer import ActivationBuffer
from rtl_templates.array_spec import AcceleratorSpec, ArraySpec
from rtl_templates.burst_generator import BEATS_BITS
from rtl_templates.slot_assignment import SlotAssignment
from rtl_templates.store_unit import PREFETCHED_WORDS, StoreUnit

ADDRESS_BITS = 6
COUNT_BITS = BEATS_BITS + NUMBER_BITS
"""Of words, over all ranges."""


class StoreHarness(wiring.Component):
    """A StoreUnit between the activation buffer, which may be busy, and a stream writer.

    Words are counted over all ranges: ``due`` of them are to be stored, ``reads`` were accepted by the
    buffer, ``arrived`` came back, ``delivered`` have left, and ``part`` beats of the next one.
    """

    LANES = 2

    def __init__(self, component=StoreUnit):
        assignment = SlotAssignment.balanced(np.tile([1, 1, 0, 0], (1, 4)), 2)
        self.spec = AcceleratorSpec(
            array=ArraySpec(units=1, lanes=self.LANES, assignment=assignment), bus_bits=32,
            activation_words=1 << ADDRESS_BITS, tile_ksteps=2, column_bits=1, program_depth=2)
        self.dut = component(self.spec)
        super().__init__({"start": In(1), "source": In(ADDRESS_BITS), "length": In(BEATS_BITS),
                          "abort": In(1), "granted": In(1), "ready": In(1)})

    def elaborate(self, platform):
        m = Module()
        dut, parts = self.dut, self.spec.beats_per_word
        m.submodules.dut = opened = Opened(dut)
        due, reads, delivered = (Signal(COUNT_BITS, name=name) for name in ("due", "reads", "delivered"))
        part, aborted, address = Signal(range(parts + 1)), Signal(), Signal(ADDRESS_BITS)
        read, taken = dut.addresses.valid & self.granted, dut.beats.valid & self.ready
        last = part == parts - 1
        m.d.comb += [dut.start.eq(self.start), dut.source.eq(self.source), dut.length.eq(self.length),
                     dut.abort.eq(self.abort), dut.addresses.ready.eq(self.granted),
                     dut.beats.ready.eq(self.ready)]
        m.d.sync += [reads.eq(reads + read), aborted.eq(aborted | self.abort),
                     address.eq(Mux(self.start, self.source, address + read)),
                     part.eq(Mux(taken, Mux(last, 0, part + 1), part)),
                     delivered.eq(delivered + (taken & last))]
        with m.If(self.start):
            m.d.sync += due.eq(due + self.length)
        # The buffer answers in order, always as late: a read counts as arrived a cycle after its word came.
        counts = [reads[:NUMBER_BITS]]
        for stage in range(ActivationBuffer.STORE_LATENCY):
            count = Signal(NUMBER_BITS, name=f"reads{stage}")
            m.d.sync += count.eq(counts[-1])
            counts.append(count)
        arrived = counts[-1]
        m.d.comb += [dut.words.valid.eq(counts[-2] != arrived),
                     dut.words.payload.eq(self._word(arrived))]
        # A range begins when the one before has left; an abort is final, until the next reset.
        m.d.comb += [Assume(~self.start | ((delivered == due) & ~aborted)), Assume(self.length > 0),
                     Assume(self.abort | ~aborted), Assume(due < 1 << BEATS_BITS)]

        refused, idle, shown = Signal(), Signal(), Signal.like(dut.beats.payload)
        m.d.sync += [refused.eq((dut.beats.valid | self.abort) & ~self.ready), shown.eq(dut.beats.payload),
                     idle.eq(self.abort & ~dut.beats.valid)]
        m.d.comb += [Assert(~dut.addresses.valid | (reads < due)),
                     Assert((reads == due) | (dut.addresses.payload == address))]
        with m.If(dut.beats.valid):
            m.d.comb += [Assert(delivered < reads), Assert(dut.beats.payload == beat(delivered, part))]
        with m.If(refused):
            m.d.comb += [Assert(dut.beats.payload == shown), Assert(dut.beats.valid | idle)]
        m.d.comb += [Assert(~idle | ~dut.beats.valid), Assert(delivered <= reads), Assert(reads <= due),
                     Assert(reads - delivered <= PREFETCHED_WORDS + 1)]
        self._invariants(m, opened, (due, reads, delivered, part), counts)
        return m

    def _word(self, number):
        return Cat(beat(number, Const(place, 32 - NUMBER_BITS)) for place in range(self.spec.beats_per_word))

    def _invariants(self, m, opened, state, counts):
        """What is true of the registers in every state that is reached."""
        dut, own = self.dut, opened.inside()
        due, reads, delivered, part = state
        popped = (delivered + dut.beats.valid)[:NUMBER_BITS]
        m.d.comb += [
            fifo_invariants(opened.inside("fifo"), counts[-1], popped, self._word),
            [Assert((later - earlier)[:NUMBER_BITS] <= 1)
             for later, earlier in pairwise(counts)],
            Assert(~dut.words.valid | own["fifo"].i.ready),
            Assert(own["left"] == due - reads), Assert(own["some"] == (reads != due)),
            Assert(own["room"] + (reads - delivered - dut.beats.valid)[:NUMBER_BITS] == PREFETCHED_WORDS),
            Assert(dut.beats.valid | (part == 0)), Assert(part < self.spec.beats_per_word)]
        with m.If(dut.beats.valid):
            m.d.comb += Assert(own["part"] == part)
            for place in range(self.spec.beats_per_word):
                shifted = own["word"].word_select((place - part)[:len(part)], self.spec.bus_bits)
                m.d.comb += Assert((place < part) | (shifted == beat(delivered, place)))


class SingleBeatHarness(StoreHarness):
    """Words of one beat, which leave a pause behind each."""

    LANES = 1


def beat(number, place):
    """A beat of the word with a number."""
    return Cat(number[:NUMBER_BITS], Value.cast(place))


PROOFS = (
    Proof(claim="stored beats are the words, in order, at consecutive addresses; they stay until taken; "
                "no word is read without a place, none begun in an aborted run (2 beats a word)",
          harness=StoreHarness, method=Method.INDUCTION, cycles=1),
    Proof(claim="the same with 1 beat a word",
          harness=SingleBeatHarness, method=Method.INDUCTION, cycles=1),
)
