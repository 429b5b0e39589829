"""Between the passes of LayerNorm: mean and inverse standard deviation of every lane."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from compressor.intops.reciprocal import RESULT_BITS
from rtl_templates.digit_recurrence import NUMERATOR_BITS, RADICAND_BITS, Divider, SquareRoot
from rtl_templates.layernorm_spec import (
    EXPONENT_BITS,
    MEAN_BITS,
    POWER_BITS,
    SQUARES_BITS,
    TOTAL_BITS,
)
from rtl_templates.layernorm_sums import sums_layout
from rtl_templates.pipeline import delay, multiply, register
from rtl_templates.staged_shift import shift_right

NORMALIZING = (16, 8, 4, 2, 1)
"""Pairs of bits that each step of the normalization skips if they are 0."""


def statistics_layout(spec):
    """Statistics of all lanes: ``1 / sqrt(power) ~ reciprocal * 2**-(16 + exponent)``."""
    return data.StructLayout({"valid": 1, "mean": data.ArrayLayout(signed(MEAN_BITS), spec.lanes),
                              "reciprocal": data.ArrayLayout(RESULT_BITS, spec.lanes),
                              "exponent": data.ArrayLayout(EXPONENT_BITS, spec.lanes)})


class LayerNormStatistics(wiring.Component):
    """Mean, power and inverse square root, as in :class:`compressor.intops.layernorm.IntegerLayerNorm`.

    The lanes pass one after the other through one pipeline; root and
    reciprocal then run in all lanes at once.

    Latency: ``spec.statistics_latency`` clock cycles. Throughput: all lanes every ``spec.minimum_period``
    cycles; the results stay for ``spec.STATISTICS_HOLD`` cycles at least.

    Members
    -------
    sums : :py:`In(sums_layout(spec))`
    hidden, epsilon, multiplier, shift : :py:`In`
        Channels H, epsilon, and what divides by H; constant during a command.
    statistics : :py:`Out(statistics_layout(spec))`
        ``valid`` is one cycle long.
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"sums": In(sums_layout(spec)), "hidden": In(range(4 * spec.columns + 1)),
                          "epsilon": In(40), "multiplier": In(16), "shift": In(5),
                          "statistics": Out(statistics_layout(spec))})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        total, squares, valid = self._lane_by_lane(m)
        mean, power = self._power(m, total, squares)
        radicand, exponent = self._normalize(m, power)
        mean = delay(m, mean, len(NORMALIZING), "mean_normalized")
        following = delay(m, valid, spec.LANE_LATENCY - 1, "following", reset=True)
        leaving = delay(m, following, 1, "leaving", reset=True)

        means = Signal(data.ArrayLayout(signed(MEAN_BITS), spec.lanes), reset_less=True)
        radicands = Signal(data.ArrayLayout(RADICAND_BITS, spec.lanes), reset_less=True)
        exponents = Signal(data.ArrayLayout(EXPONENT_BITS, spec.lanes), reset_less=True)
        with m.If(leaving):
            for chain, value in ((means, mean), (radicands, radicand), (exponents, exponent)):
                m.d.sync += chain[spec.lanes - 1].eq(value)
                m.d.sync += [chain[lane].eq(chain[lane + 1]) for lane in range(spec.lanes - 1)]

        m.submodules.root = root = SquareRoot(spec.recurrence)
        m.submodules.divider = divider = Divider(spec.recurrence)
        loaded = Signal()
        m.d.sync += loaded.eq(leaving & ~following)
        m.d.comb += [root.start.eq(loaded), root.radicand.eq(radicands),
                     divider.start.eq(root.done), divider.divisor.eq(root.root),
                     divider.numerator.eq((1 << NUMERATOR_BITS) - 1)]
        m.d.comb += [self.statistics.valid.eq(divider.done), self.statistics.mean.eq(means),
                     self.statistics.reciprocal.eq(divider.quotient),
                     self.statistics.exponent.eq(exponents)]
        return m

    def _lane_by_lane(self, m):
        """Sums of lane 0 one cycle after they are valid, then of the others, one per cycle."""
        lanes = self.spec.lanes
        totals = Signal(data.ArrayLayout(signed(TOTAL_BITS), lanes), reset_less=True)
        squares = Signal(data.ArrayLayout(SQUARES_BITS, lanes), reset_less=True)
        remaining = Signal(range(lanes + 1))
        with m.If(self.sums.valid):
            m.d.sync += [totals.eq(self.sums.totals), squares.eq(self.sums.squares), remaining.eq(lanes)]
        with m.Elif(remaining.any()):
            m.d.sync += remaining.eq(remaining - 1)
            for chain in (totals, squares):
                m.d.sync += [chain[lane].eq(chain[lane + 1]) for lane in range(lanes - 1)]
        return totals[0], squares[0], remaining.any()

    def _power(self, m, total, squares):
        """Mean, and sum of squared deviations plus epsilon; both in the cycle in which the power is ready."""
        product = multiply(m, total, self.multiplier, "product")
        distance = register(m, (self.shift - 1)[:5], "distance")  # constant during a command
        coarse = shift_right(m, product, distance[3:], 8, MEAN_BITS + 8, "coarse")
        mean = Signal(signed(MEAN_BITS), reset_less=True)
        m.d.sync += mean.eq(((coarse >> distance[:3]) + 1) >> 1)
        scaled = Signal(signed(TOTAL_BITS + 1), reset_less=True)
        spread = Signal(signed(TOTAL_BITS + 2), reset_less=True)
        hidden = register(m, self.hidden, "hidden")  # constant during a command
        m.d.sync += [scaled.eq(mean * hidden),
                     spread.eq((delay(m, total, 5, "total") << 1) - scaled)]
        excess = multiply(m, spread, delay(m, mean, 2, "mean_spread"), "excess")
        raised, power = Signal(POWER_BITS, reset_less=True), Signal(POWER_BITS, reset_less=True)
        m.d.sync += [raised.eq(delay(m, squares, 7, "squares") + self.epsilon), power.eq(raised - excess)]
        return delay(m, mean, 5, "mean_power"), power

    def _normalize(self, m, power):
        """32 bits of the power from its highest nonzero pair on, and the position of that pair."""
        skipped = []
        for level, pairs in enumerate(NORMALIZING):
            clear = ~power[POWER_BITS - 2 * pairs:].any()
            shifted = Signal(POWER_BITS, name=f"shifted{pairs}", reset_less=True)
            m.d.sync += shifted.eq(Mux(clear, power << 2 * pairs, power))
            skipped.append(delay(m, clear, len(NORMALIZING) - level, f"clear{pairs}"))
            power = shifted
        return power[POWER_BITS - RADICAND_BITS:], POWER_BITS // 2 - 1 - Cat(reversed(skipped))
