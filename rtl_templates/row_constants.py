"""Row constants: bias, multiplier and shift, in step with the rows that leave the array."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from compressor.intops.fixedpoint import MULTIPLIER_BITS, SHIFT_MAX
from rtl_templates.kstep_fetch import KStepFetch
from rtl_templates.matmul_controller import flag_fields, issue_layout
from rtl_templates.pipeline import delay
from rtl_templates.record_memory import RecordMemory
from rtl_templates.slot_assignment import SIZE
from rtl_templates.tile_banks import SLOTS
from rtl_templates.tile_format import CONSTANT_BITS, OUTLIER_BIT


def constants_layout(spec):
    """The used bits of the constants of a row, as :mod:`rtl_templates.tile_format` packs them.

    With an encoder also whether it is a row of an outlier channel, and the flags of its MATMUL.
    """
    outlier = {} if spec.encoder is None else {"outlier": 1}
    return data.StructLayout({"bias": signed(32), "multiplier": MULTIPLIER_BITS,
                              "shift": range(SHIFT_MAX + 1), **outlier, **flag_fields(spec)})


class RowConstants(wiring.Component):
    """Follows the static schedule of the array, one step ahead of its results.

    Latency: ``KStepFetch.LATENCY + ArraySpec.latency`` clock cycles from the last K-step of a pass to the
    constants of its row 0; the others follow in consecutive cycles.

    Members
    -------
    issue : :py:`In(issue_layout(spec))`
    slot, row, packed : read port of the tile banks' row constants
    constants : :py:`Out(constants_layout(spec))`
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"issue": In(issue_layout(spec)), "slot": Out(range(SLOTS)),
                          "row": Out(range(spec.array.rows)), "packed": In(CONSTANT_BITS),
                          "constants": Out(constants_layout(spec))})

    def elaborate(self, platform):
        m = Module()
        latency = KStepFetch.LATENCY + self.spec.array.latency
        names = ("last", "words", "slot", *flag_fields(self.spec))
        step = tuple(self.issue[name] for name in names)
        for stage in range(latency - RecordMemory.LATENCY - 2):  # 2: the row counter, the output register
            delayed = tuple(Signal.like(field, name=f"{name}{stage}")
                            for name, field in zip(names, step, strict=True))
            m.d.sync += [register.eq(field) for register, field in zip(delayed, step, strict=True)]
            step = delayed
        last, words, slot, *flags = step
        running_flags = [Signal.like(flag, name=f"running_{name}")
                         for name, flag in zip(flag_fields(self.spec), flags, strict=True)]
        final_row = Signal(range(self.spec.array.rows))
        running = Signal()
        with m.If(last):
            m.d.sync += [self.row.eq(0), self.slot.eq(slot), final_row.eq(words * SIZE - 1)]
            m.d.sync += [held.eq(flag) for held, flag in zip(running_flags, flags, strict=True)]
        with m.Elif(running):
            m.d.sync += self.row.eq(self.row + 1)
        m.d.sync += running.eq(last | (running & (self.row != final_row)))
        m.d.sync += [self.constants.bias.eq(self.packed[:32]),
                     self.constants.multiplier.eq(self.packed[32:48]),
                     self.constants.shift.eq(self.packed[48:54])]
        if self.spec.encoder is not None:
            m.d.sync += self.constants.outlier.eq(self.packed[OUTLIER_BIT])
            m.d.sync += [self.constants[name].eq(delay(m, held, RecordMemory.LATENCY, f"row_{name}"))
                         for name, held in zip(flag_fields(self.spec), running_flags, strict=True)]
        return m
