"""LoadUnit: words are their beats, in order, at consecutive addresses, none lost or twice."""

import numpy as np
from amaranth.hdl import Array, Assert, Assume, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal.prover import Method, Proof
from rtl_templates.array_spec import AcceleratorSpec, ArraySpec
from rtl_templates.load_unit import LoadUnit
from rtl_templates.slot_assignment import SlotAssignment

CYCLES = 12
WORDS = 4
"""Longest load."""


def sizes(lanes):
    """Words of ``lanes`` beats."""
    assignment = SlotAssignment.balanced(np.tile([1, 1, 0, 0], (1, 4)), 2)
    return AcceleratorSpec(array=ArraySpec(units=1, lanes=lanes, assignment=assignment), bus_bits=32,
                           activation_words=8, tile_ksteps=2, column_bits=1, program_depth=2)


class LoadHarness(wiring.Component):
    """Writes down the beats that go in; each word that comes out is the next of them."""

    LANES = 2

    def __init__(self, component=LoadUnit):
        self.component, self.spec = component, sizes(self.LANES)
        super().__init__({"start": In(1), "destination": In(3), "length": In(range(1, WORDS + 1), init=1),
                          "valid": In(1), "beat": In(2), "ready": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.component(self.spec)
        parts = self.spec.beats_per_word
        m.d.comb += [dut.start.eq(self.start), dut.destination.eq(self.destination),
                     dut.length.eq(self.length), dut.beats.valid.eq(self.valid),
                     dut.beats.payload.eq(self.beat), dut.words.ready.eq(self.ready)]
        beats = Array(Signal(2, name=f"beat{index}") for index in range(CYCLES + parts))
        entered, left, words = (Signal(range(CYCLES + parts + 1), name=name)
                                for name in ("entered", "left", "words"))
        first, due = Signal(3), Signal(range(CYCLES * parts))
        taken, written = dut.beats.valid & dut.beats.ready, dut.words.valid & dut.words.ready
        refused, offer = Signal(), Signal.like(dut.words.payload)
        m.d.sync += [refused.eq(dut.words.valid & ~dut.words.ready), offer.eq(dut.words.payload)]
        with m.If(taken):
            m.d.sync += [beats[entered].eq(self.beat), entered.eq(entered + 1)]
        with m.If(written):
            m.d.sync += [left.eq(left + parts), words.eq(words + 1)]
        with m.If(self.start):
            m.d.sync += [first.eq(self.destination), words.eq(0), due.eq(due + self.length * parts)]
        # The memory sends what was asked for. The buffer takes a word within a cycle; `busy` relies on it.
        slow = Signal()
        m.d.sync += slow.eq(slow | (refused & ~self.ready))
        m.d.comb += [Assume(~self.start | ~(dut.busy | dut.words.valid)),
                     Assume(~self.valid | (entered < due)),
                     Assume((self.length > 0) & (self.length <= WORDS))]
        with m.If(dut.words.valid):
            m.d.comb += [Assert(left + parts <= entered), Assert(dut.words.p.address == (first + words)[:3]),
                         *[Assert(dut.words.p.word.word_select(part, 32) == beats[left + part])
                           for part in range(parts)]]
        with m.If(refused):
            m.d.comb += Assert(dut.words.valid & (dut.words.payload.as_value() == offer.as_value()))
        with m.If(~dut.busy):
            m.d.comb += Assert((entered == due) & (slow | (left == due)))
        return m


PROOFS = (
    Proof(claim="loaded words are the beats, in order, at consecutive addresses; they stay until accepted; "
                "`busy` until all are",
          harness=LoadHarness, method=Method.BOUND, cycles=CYCLES),
)
