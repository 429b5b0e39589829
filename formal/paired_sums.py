"""Paired lanes: one multiplier is two multipliers, one accumulator with a counter is two accumulators."""

from amaranth.hdl import Assert, Assume, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from formal.prover import Method, Proof
from rtl_templates.paired_row import FIRST_LATENCY, LOW_BITS, PairedRow, row_members
from rtl_templates.paired_sums import PairedSums, separate
from rtl_templates.pipeline import delay

BITS = 21
"""Width of the sums: the low lane runs over up to four times, up and down."""
STEP_BITS = 16
"""The largest sum of a K-step is 2**16: four slots of -128 * -128."""


class ProductHarness(wiring.Component):
    """A row of one slot multiplies ``(high << 18) + low``, whole, by any weight.

    Amaranth's integers are exact, so that is ``(high * weight << 18) + low * weight``: the distributive
    law, which a solver would need minutes for, holds for the integers anyway.
    """

    def __init__(self, component=PairedRow):
        self.component = component
        super().__init__({"high": In(signed(8)), "low": In(signed(8)), "weight": In(signed(8))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = row = self.component(1)
        m.d.comb += [row.high[0].eq(self.high), row.low[0].eq(self.low), row.weights[0].eq(self.weight),
                     row.accumulate.eq(1), row.first.eq(1)]
        high, low, weight = (delay(m, getattr(self, name), 1, name) for name in ("high", "low", "weight"))
        # As wide as they must be, so that Yosys finds the two multiplications to be the same one.
        packed, product = Signal(signed(8 + LOW_BITS + 1)), Signal(signed(8 + LOW_BITS + 1 + 8))
        m.d.comb += [packed.eq((high << LOW_BITS) + low), product.eq(packed * weight),
                     Assert(row.total == delay(m, product, FIRST_LATENCY, "product"))]
        return m


class RowHarness(wiring.Component):
    """Rows of one slot, each with a fixed weight: after a first K-step they hold the two products.

    A solver finds it hard to compare multipliers of another shape, and easy if one factor is a constant.
    """

    def __init__(self, component=PairedRow, weights=(-128, 1, 127)):
        self.component, self.weights = component, weights
        super().__init__({"high": In(signed(8)), "low": In(signed(8))})

    def elaborate(self, platform):
        m = Module()
        high, low = (delay(m, getattr(self, name), FIRST_LATENCY + 1, name) for name in ("high", "low"))
        for index, weight in enumerate(self.weights):
            row = self.component(1)
            m.submodules[f"dut{index}"] = row
            m.d.comb += [row.high[0].eq(self.high), row.low[0].eq(self.low), row.weights[0].eq(weight),
                         row.accumulate.eq(1), row.first.eq(1),
                         Assert(row.total == ((high * weight) << LOW_BITS) + low * weight)]
        return m


class FreeRow(wiring.Component):
    """A row that adds whatever its inputs say: any sum of the high lane, up to 2**16 of the low one."""

    def __init__(self):
        super().__init__(row_members(4))

    def elaborate(self, platform):
        m = Module()
        total = Signal(signed(48))
        with m.If(self.accumulate):
            m.d.sync += total.eq(Mux(self.first, 0, total) + (high_of(self) << LOW_BITS) + low_of(self))
        m.d.comb += self.total.eq(total)
        return m


def high_of(row):
    """What a FreeRow adds to the high lane."""
    return row.high.as_value()[:BITS].as_signed()


def low_of(row):
    """What a FreeRow adds to the low lane."""
    return row.low.as_value()[:STEP_BITS + 2].as_signed()


class SumsHarness(wiring.Component):
    """The counter of a PairedSums whose row is free: the lanes it separates are two plain accumulators."""

    def __init__(self, component=PairedSums):
        self.dut = component(4, BITS, row=FreeRow())
        super().__init__({"high": In(32), "low": In(32), "accumulate": In(1), "first": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.dut
        m.d.comb += [dut.high.as_value().eq(self.high), dut.low.as_value().eq(self.low),
                     dut.accumulate.eq(self.accumulate), dut.first.eq(self.first)]
        m.d.comb += Assume((low_of(dut) >= -(1 << STEP_BITS)) & (low_of(dut) <= 1 << STEP_BITS))
        low, high = Signal(signed(BITS + 1)), Signal(signed(BITS))
        with m.If(self.accumulate):
            m.d.sync += [low.eq(Mux(self.first, 0, low) + low_of(dut)),
                         high.eq(Mux(self.first, 0, high) + high_of(dut))]
        # The planner proves this of the accumulators; without it the high lane would be wrong as well.
        m.d.comb += Assume((low >= -(1 << BITS - 1)) & (low < 1 << BITS - 1))
        m.d.comb += [Assert(lane == total)
                     for lane, total in zip(separate(dut.sums), (low, high), strict=True)]
        return m


PROOFS = (
    Proof(claim="a packed product is two products: all activations, weights -128, 1, 127",
          harness=RowHarness, method=Method.BOUND, cycles=FIRST_LATENCY + 2, slow=True),
    Proof(claim="paired accumulators are two accumulators, for any int8 sums that fit, any number of K-steps",
          harness=SumsHarness, method=Method.INDUCTION, cycles=3),
    Proof(claim="a packed product is (high << 18) + low times the weight: all activations, all weights",
          harness=ProductHarness, method=Method.INDUCTION, cycles=FIRST_LATENCY + 2),
)
