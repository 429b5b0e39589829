"""The paired row made of DSP48E2 primitives (UltraScale and UltraScale+)."""

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal, signed
from amaranth.lib import wiring

from rtl_templates.pair_format import LOW_BITS
from rtl_templates.paired_row import OPERAND_BITS, TOTAL_BITS, row_members
from rtl_templates.pipeline import delay

A_BITS, B_BITS = 30, 18

MULTIPLY = 0b0101
"""OPMODE bits 3 to 0: the multiplier on the X and Y inputs of the adder."""
Z_NOTHING, Z_CASCADE = 0b000, 0b001
"""OPMODE bits 6 to 4; bits 8 and 7, the W input, are 0 for nothing and 1 for P."""
ADD_D = 0b00100
"""INMODE: the multiplier takes D + A."""


class Dsp48e2Row(wiring.Component):
    """The same as :class:`rtl_templates.paired_row.PairedRow`, cycle by cycle, in ``slots`` DSP48E2.

    The pre-adder joins the two lanes, the cascade adds the slots, and P of the last DSP accumulates. The
    first slot leaves out the pre-adder's register (ADREG); the second has it, and so comes a cycle later,
    when the first one's sum arrives; later slots wait in the fabric. Nothing is reset.
    """

    def __init__(self, slots):
        self.slots = slots
        super().__init__(row_members(slots))

    def elaborate(self, platform):
        m = Module()
        cascade = Const(0, TOTAL_BITS)
        for slot in range(self.slots):
            later, final = slot > 0, slot == self.slots - 1
            high, low, weight = (delay(m, array[slot], max(0, slot - 1), f"{name}{slot}")
                                 for name, array in (("high", self.high), ("low", self.low),
                                                     ("weight", self.weights)))
            shifted, a, b = Signal(signed(OPERAND_BITS)), Signal(signed(A_BITS)), Signal(signed(B_BITS))
            m.d.comb += [shifted.eq(high << LOW_BITS), a.eq(low), b.eq(weight)]
            z = Z_CASCADE if later else Z_NOTHING
            opmode = Cat(Const(MULTIPLY, 4), Const(z, 3), ~self.first & final, Const(0, 1))
            p, pcout = Signal(TOTAL_BITS, name=f"p{slot}"), Signal(TOTAL_BITS, name=f"pcout{slot}")
            enable = self.accumulate if final else Const(1, 1)
            m.submodules[f"dsp{slot}"] = _dsp(later, a, b, shifted, opmode, cascade, enable, p, pcout)
            cascade = pcout
        m.d.comb += self.total.eq(p)
        return m


def _dsp(later, a, b, d, opmode, pcin, enable, p, pcout):
    """One DSP48E2; ``later``: with the pre-adder's register and a second one for the weight."""
    one, zero = Const(1, 1), Const(0, 1)
    resets = ("A", "ALLCARRYIN", "ALUMODE", "B", "C", "CTRL", "D", "INMODE", "M", "P")
    return Instance(
        "DSP48E2",
        p_AMULTSEL="AD", p_BMULTSEL="B", p_PREADDINSEL="A", p_A_INPUT="DIRECT", p_B_INPUT="DIRECT",
        p_USE_MULT="MULTIPLY", p_USE_SIMD="ONE48",
        p_AREG=1, p_ACASCREG=1, p_DREG=1, p_ADREG=int(later), p_BREG=1 + later, p_BCASCREG=1 + later,
        p_CREG=1, p_MREG=1, p_PREG=1, p_INMODEREG=0, p_OPMODEREG=0, p_ALUMODEREG=0, p_CARRYINREG=0,
        p_CARRYINSELREG=0,
        i_CLK=ClockSignal(), i_A=a, i_B=b, i_D=d, i_C=Const(0, TOTAL_BITS), i_PCIN=pcin,
        i_INMODE=Const(ADD_D, 5), i_OPMODE=opmode, i_ALUMODE=Const(0, 4), i_CARRYIN=zero,
        i_CARRYINSEL=Const(0, 3), i_ACIN=Const(0, A_BITS), i_BCIN=Const(0, B_BITS), i_CARRYCASCIN=zero,
        i_MULTSIGNIN=zero,
        # With one register A and B use the second of their two, A2 and B2.
        i_CEA1=zero, i_CEA2=one, i_CEB1=Const(int(later), 1), i_CEB2=one, i_CED=one, i_CEAD=one, i_CEM=one,
        i_CEP=enable, i_CEC=zero, i_CEINMODE=zero, i_CECTRL=zero, i_CEALUMODE=zero, i_CECARRYIN=zero,
        **{f"i_RST{name}": zero for name in resets},
        o_P=p, o_PCOUT=pcout)
