"""Verilog of a component, with the modules that it instantiates by name."""

from amaranth.back import verilog

from rtl_templates.dsp48e2 import Dsp48e2Row
from rtl_templates.paired_row import PairedRow

SYNTHESIS_MACRO = "SYNTHESIS"
"""Chooses the primitives. Yosys defines it and the Vivado scripts pass it; simulators and linters do not."""


class VerilogTarget:
    """What components elaborate for when they are written as Verilog; notes the modules they ask for."""

    def __init__(self):
        self.rows = {}

    def paired_row(self, slots):
        """Name of the module of a paired row."""
        name = f"paired_row{slots}"
        self.rows[name] = slots
        return name


def emit_component(component, name):
    """Verilog-2005: one string, the same for the same component; the top module is ``name``.

    A module of DSP primitives is there twice: with the primitives where the macro ``SYNTHESIS`` is defined,
    else as behavioural Verilog, which simulates everywhere and is the same cycle by cycle.
    """
    target = VerilogTarget()
    text = _convert(component, name, platform=target)
    for module, slots in target.rows.items():
        primitives, behavioural = (emit_row(row(slots), module) for row in (Dsp48e2Row, PairedRow))
        text += f"\n`ifdef {SYNTHESIS_MACRO}\n{primitives}`else\n{behavioural}`endif\n"
    return text


def emit_row(row, name):
    """Verilog of one of the two forms of a paired row."""
    return _convert(row, name)


def _convert(component, name, **options):
    return verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True, **options)
