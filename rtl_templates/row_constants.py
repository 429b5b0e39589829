"""Row constants: bias, multiplier and shift, in step with the rows that leave the array."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from compressor.intops.fixedpoint import MULTIPLIER_BITS, SHIFT_MAX
from rtl_templates.kstep_fetch import KStepFetch
from rtl_templates.matmul_controller import issue_layout
from rtl_templates.record_memory import RecordMemory
from rtl_templates.slot_assignment import SIZE
from rtl_templates.tile_banks import SLOTS
from rtl_templates.tile_format import CONSTANT_BITS

constants_layout = data.StructLayout({"bias": signed(32), "multiplier": MULTIPLIER_BITS,
                                      "shift": range(SHIFT_MAX + 1)})
"""The used bits of the constants of a row, as :mod:`rtl_templates.tile_format` packs them."""


class RowConstants(wiring.Component):
    """Follows the static schedule of the array, one step ahead of its results.

    Latency: ``KStepFetch.LATENCY + ArraySpec.latency`` clock cycles from the last K-step of a pass to the
    constants of its row 0; the others follow in consecutive cycles.

    Members
    -------
    issue : :py:`In(issue_layout(spec))`
    slot, row, packed : read port of the tile banks' row constants
    constants : :py:`Out(constants_layout)`
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"issue": In(issue_layout(spec)), "slot": Out(range(SLOTS)),
                          "row": Out(range(spec.array.rows)), "packed": In(CONSTANT_BITS),
                          "constants": Out(constants_layout)})

    def elaborate(self, platform):
        m = Module()
        latency = KStepFetch.LATENCY + self.spec.array.latency
        step = (self.issue.last, self.issue.words, self.issue.slot)
        for stage in range(latency - RecordMemory.LATENCY - 2):  # 2: the row counter, the output register
            delayed = tuple(Signal.like(field, name=f"{name}{stage}")
                            for name, field in zip(("last", "words", "slot"), step, strict=True))
            m.d.sync += [register.eq(field) for register, field in zip(delayed, step, strict=True)]
            step = delayed
        last, words, slot = step
        final_row = Signal(range(self.spec.array.rows))
        running = Signal()
        with m.If(last):
            m.d.sync += [self.row.eq(0), self.slot.eq(slot), final_row.eq(words * SIZE - 1)]
        with m.Elif(running):
            m.d.sync += self.row.eq(self.row + 1)
        m.d.sync += running.eq(last | (running & (self.row != final_row)))
        m.d.sync += [self.constants.bias.eq(self.packed[:32]),
                     self.constants.multiplier.eq(self.packed[32:48]),
                     self.constants.shift.eq(self.packed[48:54])]
        return m
