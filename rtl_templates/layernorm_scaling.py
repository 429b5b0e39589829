"""Second pass of LayerNorm: deviation from the mean, normalized, scaled and rounded to int8."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from compressor.intops.fixedpoint import ACTIVATION_MAX, SHIFT_MAX
from rtl_templates.layernorm_spec import Z_BITS
from rtl_templates.layernorm_statistics import statistics_layout
from rtl_templates.layernorm_sums import beat_layout
from rtl_templates.pipeline import delay
from rtl_templates.staged_shift import clip, shift_right

UNIT_BITS = 17
"""A normalized deviation, 15 fraction bits: -32769 to 32769."""


class LayerNormScaling(wiring.Component):
    """``y = saturate((u * gamma + beta) rounded)``, ``u = ((z - mean) * reciprocal) rounded``.

    Latency: ``spec.SCALING_LATENCY`` clock cycles. Throughput: ``spec.channels`` channels of T tokens
    per cycle; the next token group may follow at once.

    Members
    -------
    valid, first : :py:`In(1)`
        A beat, and whether it begins its token group.
    z : :py:`In(beat_layout(spec, signed(16)))`
    statistics : :py:`In(statistics_layout(spec))`
        Of the token group; constant from ``first`` until ``spec.STATISTICS_HOLD - 2`` cycles after.
    gamma, beta : :py:`In(ArrayLayout(channels))`
        Shared by all lanes; ``GAMMA_DELAY`` and ``BETA_DELAY`` cycles after the beat.
    output_shift : :py:`In(6)`
        1 to 47; constant during a command.
    y_valid, y : :py:`Out`
    """

    GAMMA_DELAY = 7
    BETA_DELAY = 8

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"valid": In(1), "first": In(1), "z": In(beat_layout(spec, signed(Z_BITS))),
                          "statistics": In(statistics_layout(spec)),
                          "gamma": In(data.ArrayLayout(signed(16), spec.channels)),
                          "beta": In(data.ArrayLayout(signed(31), spec.channels)),
                          "output_shift": In(range(SHIFT_MAX + 1)),
                          "y_valid": Out(1), "y": Out(beat_layout(spec, signed(8)))})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.y_valid.eq(delay(m, self.valid, self.spec.SCALING_LATENCY, "valid", reset=True))
        begin = [self.valid & self.first]
        for stage in range(5):
            begin.append(delay(m, begin[-1], 1, f"begin{stage}"))
        distance = Signal(range(SHIFT_MAX))
        m.d.sync += distance.eq(self.output_shift - 1)
        for lane in range(self.spec.lanes):
            # Constant during a command: each lane has a copy of its own, so that few loads hang on it.
            distance = delay(m, distance, 1, f"distance{lane}")
            # A lane's numbers are taken over stage by stage, so that token groups follow without a gap.
            exponent = self.statistics.exponent[lane]
            mean = _hold(m, begin[0], self.statistics.mean[lane], f"mean{lane}")
            reciprocal = _hold(m, begin[1], self.statistics.reciprocal[lane], f"reciprocal{lane}")
            digits = [_hold(m, begin[stage], part, f"digit{stage}_{lane}")
                      for stage, part in ((3, exponent[3:]), (4, exponent[1:3]), (5, exponent[0]))]
            for channel in range(self.spec.channels):
                name = f"{channel}_{lane}"
                unit = self._normalize(m, self.z[channel][lane], mean, reciprocal, digits, name)
                y = self._scale(m, unit, self.gamma[channel], self.beta[channel], distance, name)
                m.d.comb += self.y[channel][lane].eq(y)
        return m

    def _normalize(self, m, z, mean, reciprocal, digits, name):
        """17 bits of ``((z - mean) * reciprocal) >> exponent + 1``, rounded half up, in 7 cycles."""
        z = delay(m, z, 1, f"z{name}")
        deviation = Signal(signed(17), name=f"deviation{name}", reset_less=True)
        product = Signal(signed(33), name=f"product{name}", reset_less=True)
        m.d.sync += [deviation.eq(z - mean), product.eq(deviation * reciprocal)]
        product = delay(m, product, 1, f"product{name}")  # a second register, for multipliers of two DSPs
        coarse = shift_right(m, product, digits[0], 8, UNIT_BITS + 1 + 7, f"coarse{name}")
        middle = shift_right(m, coarse, digits[1], 2, UNIT_BITS + 1 + 1, f"middle{name}")
        unit = Signal(signed(UNIT_BITS), name=f"unit{name}", reset_less=True)
        m.d.sync += unit.eq((Mux(digits[2], middle >> 1, middle) + 1) >> 1)
        return unit

    def _scale(self, m, unit, gamma, beta, distance, name):
        """int8 of ``(unit * gamma + beta) >> distance + 1``, rounded half up, in 7 cycles."""
        scaled = Signal(signed(32), name=f"scaled{name}", reset_less=True)
        total = Signal(signed(32), name=f"total{name}", reset_less=True)
        m.d.sync += [scaled.eq(unit * gamma), total.eq(scaled + beta)]
        value = total
        for digit, step in ((distance[4:6], 16), (distance[2:4], 4), (distance[0:2], 1)):
            value = shift_right(m, value, digit, step, 32, f"shifted{step}_{name}")
        value = clip(m, value, 9, f"clipped{name}")
        rounded = Signal(signed(9), name=f"rounded{name}")
        y = Signal(signed(8), name=f"y{name}", reset_less=True)
        m.d.comb += rounded.eq((value + 1) >> 1)
        m.d.sync += y.eq(Mux(rounded > ACTIVATION_MAX, ACTIVATION_MAX,
                             Mux(rounded < -ACTIVATION_MAX, -ACTIVATION_MAX, rounded)))
        return y


def _hold(m, load, value, name):
    held = Signal(value.shape(), name=name, reset_less=True)
    with m.If(load):
        m.d.sync += held.eq(value)
    return held
