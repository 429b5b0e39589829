"""RowRequantizer: the shifts and saturations of its pipeline are the one rounding shift of the definition."""

import numpy as np
from amaranth.hdl import Assert, Assume, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from compressor.intops.fixedpoint import ACTIVATION_MAX, SHIFT_MAX
from formal.prover import Method, Proof
from rtl_templates.array_spec import ArraySpec
from rtl_templates.pipeline import delay
from rtl_templates.requantizer import RowRequantizer
from rtl_templates.slot_assignment import SlotAssignment

SPEC = ArraySpec(units=1, lanes=1, accumulator_bits=16,
                 assignment=SlotAssignment.balanced(np.tile([1, 1, 0, 0], (1, 4)), 2))
MULTIPLIER_BITS = 3


class RequantizerHarness(wiring.Component):
    """``saturate((sum * multiplier + 2**(shift - 1)) >> shift)``, written down as it stands.

    Sums of 16 bits, multipliers of 3, every shift; the bias, which is an addition, is 0.
    """

    def __init__(self, component=RowRequantizer):
        self.component = component
        super().__init__({"sum": In(signed(16)), "multiplier": In(MULTIPLIER_BITS),
                          "shift": In(range(SHIFT_MAX + 1), init=1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = self.component(SPEC)
        m.d.comb += [dut.i.valid.eq(1), dut.i.sums[0].eq(self.sum), dut.i.shift.eq(self.shift),
                     dut.i.multiplier.eq(self.multiplier)]
        m.d.comb += Assume((self.shift > 0) & (self.shift <= SHIFT_MAX))
        half = Signal(SHIFT_MAX)
        m.d.comb += half.eq(1 << (self.shift - 1)[:6])
        rounded = (self.sum * self.multiplier + half) >> self.shift
        expected = Signal(signed(8))
        m.d.comb += expected.eq(Mux(rounded > ACTIVATION_MAX, ACTIVATION_MAX,
                                    Mux(rounded < -ACTIVATION_MAX, -ACTIVATION_MAX, rounded)))
        delayed = delay(m, expected, RowRequantizer.LATENCY, "expected")
        with m.If(dut.o.valid):
            m.d.comb += Assert(dut.o.values[0] == delayed)
        return m


PROOFS = (
    Proof(claim="requantizing is one rounding shift: 16-bit sums, 3-bit multipliers, every shift",
          harness=RequantizerHarness, method=Method.BOUND, cycles=RowRequantizer.LATENCY + 1),
)
