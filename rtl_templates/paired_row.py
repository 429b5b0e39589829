"""Paired row: n products of two neighbouring lanes, n multipliers in a chain, the last one accumulates.

Two lanes share the weight, so one multiplier of 27 x 18 bits takes both: ``((high << 18) + low) * weight``
is ``(high * weight << 18) + low * weight``. Sums of such products are sums of both lanes in one word of 48
bits; the low one runs over into the high one, which :class:`rtl_templates.paired_sums.PairedSums` undoes.
"""

from amaranth.hdl import ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.pair_format import LOW_BITS
from rtl_templates.pipeline import delay, register

TOTAL_BITS = 48
OPERAND_BITS = 27

FIRST_LATENCY = 2
"""Cycles from the operands to the first product's being ready to be added; one more for each slot."""


def row_members(slots):
    """Members of a paired row, the same for the behavioural one and the one of DSP48E2 primitives."""
    operands = data.ArrayLayout(signed(8), slots)
    return {"high": In(operands), "low": In(operands), "weights": In(operands),
            "accumulate": In(1), "first": In(1), "total": Out(signed(TOTAL_BITS))}


class PairedRow(wiring.Component):
    """``total = (first ? 0 : total) + sum_j ((high[j] << 18) + low[j]) * weights[j]``, modulo 2**48.

    Latency: operands enter ``FIRST_LATENCY + slots - 1`` clock cycles before ``accumulate`` and ``first`` of
    the same K-step, ``total`` follows those one cycle later. Throughput: one K-step per cycle.

    It describes exactly the registers of :class:`rtl_templates.dsp48e2.Dsp48e2Row`, one DSP48E2 a slot. When
    Verilog is written (:func:`rtl_templates.emission.emit_component`) it becomes an instance of a module of
    which the file has both forms.

    Parameters
    ----------
    slots : int
        Products of a K-step, 1 to 4.

    Members
    -------
    high, low, weights : :py:`In(ArrayLayout(signed(8), slots))`
        Activations of the two lanes, and the weights that they share.
    accumulate, first : :py:`In(1)`
        Whether the K-step counts, and whether it begins a pass.
    total : :py:`Out(signed(48))`
    """

    def __init__(self, slots):
        self.slots = slots
        super().__init__(row_members(slots))

    def elaborate(self, platform):
        m = Module()
        if platform is not None:
            name = platform.paired_row(self.slots)
            m.submodules.row = Instance(
                name, i_clk=ClockSignal(), i_rst=ResetSignal(),
                i_accumulate=self.accumulate, i_first=self.first,
                i_high=self.high.as_value(), i_low=self.low.as_value(), i_weights=self.weights.as_value(),
                o_total=self.total)
            return m
        chain = Const(0, signed(TOTAL_BITS))
        for slot in range(self.slots):
            product = self._product(m, slot)
            if slot < self.slots - 1:
                chain = register(m, (chain + product)[:TOTAL_BITS].as_signed(), f"chain{slot}")
        total = Signal(signed(TOTAL_BITS), reset_less=True)
        # One expression: it has a defined value in four-state simulators from the start.
        m.d.sync += total.eq(Mux(self.accumulate, Mux(self.first, 0, total) + chain + product, total))
        m.d.comb += self.total.eq(total)
        return m

    def _product(self, m, slot):
        """Product of a slot, ready in the cycle in which the chain before it is."""
        early = max(0, slot - 1)
        operands = [delay(m, array[slot], early + 1, f"{name}{slot}")
                    for name, array in (("high", self.high), ("low", self.low))]
        weight = delay(m, self.weights[slot], early + 1 + (slot > 0), f"weight{slot}")
        packed = Signal(signed(OPERAND_BITS), name=f"packed{slot}")
        m.d.comb += packed.eq((operands[0] << LOW_BITS) + operands[1])
        packed = delay(m, packed, int(slot > 0), f"packed{slot}")
        return register(m, packed * weight, f"product{slot}")
