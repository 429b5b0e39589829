"""Address channels: offers stay as they are until they are taken, and no burst crosses a page."""

from amaranth.hdl import Assert, Assume, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal.opened import Opened
from formal.prover import Method, Proof
from rtl_templates.axi import ADDRESS_BITS, PAGE_BYTES, burst_beats
from rtl_templates.burst_generator import BEATS_BITS, BurstGenerator

BUS_BITS = 128
BUS_BYTES = BUS_BITS // 8
FULL = burst_beats(BUS_BITS)


class BurstHarness(wiring.Component):
    """A BurstGenerator with free inputs, and what AXI asks of an address channel."""

    def __init__(self, component=BurstGenerator):
        self.component = component
        super().__init__({"start": In(1), "address": In(ADDRESS_BITS), "beats": In(BEATS_BITS),
                          "enable": In(1), "abort": In(1), "ready": In(1)})

    def elaborate(self, platform):
        m = Module()
        dut = self.component(BUS_BITS)
        m.submodules.dut = self.opened = Opened(dut)
        m.d.comb += [dut.start.eq(self.start), dut.address.eq(self.address), dut.beats.eq(self.beats),
                     dut.enable.eq(self.enable), dut.abort.eq(self.abort), dut.o.ready.eq(self.ready)]
        self.check(m, dut)
        return m

    def check(self, m, dut):
        """The assertions."""
        raise NotImplementedError


class StableHarness(BurstHarness):
    """VALID stays until READY, and the address and length with it; an abort changes nothing of that."""

    def check(self, m, dut):
        refused, offer = Signal(), Signal.like(dut.o.payload)
        m.d.sync += [refused.eq(dut.o.valid & ~dut.o.ready), offer.eq(dut.o.payload)]
        with m.If(refused):
            m.d.comb += Assert(dut.o.valid & (dut.o.payload.as_value() == offer.as_value()))


class RangeHarness(BurstHarness):
    """Bursts stay inside a page and inside the range, follow each other without a gap, and cover it all."""

    def check(self, m, dut):
        # One range a proof, as its user promises: no start while bursts are left.
        running, next_address, left = Signal(), Signal(ADDRESS_BITS), Signal(BEATS_BITS)
        m.d.comb += Assume(~self.start | dut.exhausted)
        m.d.comb += Assume(~self.abort)
        m.d.comb += Assume(self.address % BUS_BYTES == 0)
        m.d.comb += Assume((self.address < 1 << 62) & (self.beats < 1 << 30))
        beats = dut.o.p.length + 1
        with m.If(self.start):
            m.d.sync += [running.eq(1), next_address.eq(self.address), left.eq(self.beats)]
        with m.Elif(dut.o.valid & dut.o.ready):
            m.d.sync += [next_address.eq(next_address + beats * BUS_BYTES), left.eq(left - beats)]
        with m.If(dut.o.valid):
            final = dut.o.p.address + dut.o.p.length * BUS_BYTES
            m.d.comb += [Assert(running & (dut.o.p.address == next_address) & (beats <= left)),
                         Assert(final // PAGE_BYTES == dut.o.p.address // PAGE_BYTES)]
        with m.If(running & dut.exhausted):
            m.d.comb += Assert(left == 0)
        inside, offered = self.opened.inside(), Mux(dut.o.valid, beats, 0)
        m.d.comb += [generator_invariants(inside, (next_address // BUS_BYTES + offered)),
                     Assert(inside["left"] == left - offered), Assert(running | (left == 0)),
                     Assert(next_address % BUS_BYTES == 0),
                     Assert(next_address + left * BUS_BYTES < 1 << ADDRESS_BITS - 1)]


def generator_invariants(inside, position):
    """What is always true of a BurstGenerator's registers, as a list of assertions.

    Parameters
    ----------
    inside : dict
        Local variables of its ``elaborate()``.
    position : Value
        Number of the beat behind the burst that is offered, or behind all bursts so far if none is.
    """
    left, room, shown = inside["left"], inside["room"], inside["self"].o.valid
    return [Assert(shown | (inside["some"] == left.any())),
            Assert((left == 0) | (Cat(inside["place"], inside["page"]) == position)),
            Assert((left == 0) | (room == FULL - inside["place"])),
            Assert((left == 0) | shown | (inside["final"] == (left <= room)))]


PROOFS = (
    Proof(claim="an address that is offered stays offered, unchanged, until it is taken",
          harness=StableHarness, method=Method.INDUCTION, cycles=2),
    Proof(claim="no burst crosses 4 KiB; bursts cover the range exactly, in order",
          harness=RangeHarness, method=Method.INDUCTION, cycles=1),
)
