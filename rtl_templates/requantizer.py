"""Requantizer: one row of T sums per cycle to int8, bit-exact with the golden model."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from compressor.intops.fixedpoint import ACTIVATION_MAX, MULTIPLIER_BITS, SHIFT_MAX
from rtl_templates.array_spec import Accumulation
from rtl_templates.block_unit import select
from rtl_templates.pipeline import delay, multiply, register

VALUE_BITS = 8


def requantizer_input(spec):
    """A row of sums with its row constants; ``shift`` is 1 to 47."""
    return data.StructLayout({"valid": 1, "bias": signed(32), "multiplier": MULTIPLIER_BITS,
                              "shift": range(SHIFT_MAX + 1),
                              "sums": data.ArrayLayout(signed(spec.accumulator_bits), spec.lanes)})


def requantizer_output(spec):
    """A row of int8 values and how many of them were clipped."""
    return data.StructLayout({"valid": 1, "saturated": range(spec.lanes + 1),
                              "values": data.ArrayLayout(signed(VALUE_BITS), spec.lanes)})


class RowRequantizer(wiring.Component):
    """``saturate(((sum + bias) * multiplier + 2**(shift - 1)) >> shift)`` for T lanes.

    Bit-exact with :func:`compressor.intops.fixedpoint.requantize` as long as ``sum + bias`` fits the
    accumulator, which the planner proves. Rounds half up, saturates to -127 to 127.

    Latency: ``LATENCY`` clock cycles. Throughput: one row per cycle. Order is preserved; no back-pressure.

    Members
    -------
    i : :py:`In(requantizer_input(spec))`
    o : :py:`Out(requantizer_output(spec))`
    """

    LATENCY = 8

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"i": In(requantizer_input(spec)), "o": Out(requantizer_output(spec))})

    def elaborate(self, platform):
        m = Module()
        valid = delay(m, self.i.valid, self.LATENCY, "valid", reset=True)
        multiplier = delay(m, self.i.multiplier, 1, "multiplier")
        # Half up: (x + 2**(s-1)) >> s equals ((x >> (s-1)) + 1) >> 1.
        distance = register(m, self.i.shift - 1, "distance", shape=range(SHIFT_MAX))
        coarse = delay(m, distance, 2, "coarse")
        middle = delay(m, coarse, 1, "middle")
        fine = delay(m, middle, 1, "fine")
        clipped = []
        whole = self.spec.accumulation is Accumulation.PAIRED or self.spec.accumulator_bits <= 18
        for lane in range(self.spec.lanes):
            biased = register(m, self.i.sums[lane] + self.i.bias, f"biased{lane}",
                              shape=signed(self.spec.accumulator_bits))
            # Two registers: the multiplier takes two DSPs, but one where lanes are paired, if it fits.
            if whole:
                scaled = delay(m, biased * multiplier, 2, f"scaled{lane}")
            else:
                scaled = multiply(m, biased, multiplier, f"scaled{lane}")
            # Each step keeps the bits that a later one may still need, and clips above them.
            value = self._shift(m, scaled, coarse[4:6], 16, 15 + 9, f"coarse{lane}")
            value = self._shift(m, value, middle[2:4], 4, 3 + 9, f"middle{lane}")
            value = self._shift(m, value, fine[0:2], 1, 9, f"fine{lane}")
            rounded = Signal(signed(9), name=f"rounded{lane}")
            m.d.comb += rounded.eq((value + 1) >> 1)
            high, low = rounded > ACTIVATION_MAX, rounded < -ACTIVATION_MAX
            result = register(m, Mux(high, ACTIVATION_MAX, Mux(low, -ACTIVATION_MAX, rounded)),
                              f"result{lane}", shape=signed(VALUE_BITS))
            m.d.comb += self.o.values[lane].eq(register(m, result, f"value{lane}"))
            clipped.append(register(m, high | low, f"clip{lane}"))
        m.d.comb += self.o.saturated.eq(register(m, sum(clipped), "saturated"))
        m.d.comb += self.o.valid.eq(valid)
        return m

    def _shift(self, m, value, digit, step, bits, name):
        """Registered arithmetic right shift by ``digit * step``, saturated to ``bits`` bits."""
        shifted = select(digit, [value >> digit_value * step for digit_value in range(4)])
        kept = shifted[bits - 1:]
        fits = ~kept.any() | kept.all()
        limit = Cat((~value[-1]).replicate(bits - 1), value[-1])
        return register(m, Mux(fits, shifted[:bits], limit), name, shape=signed(bits))

