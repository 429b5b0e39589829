"""Resources by Yosys of the units that run whole encoder layers, beside what the planner's model says.

Writes docs/encoder_resources.md in about 10 minutes. Run: ``python benchmarks/encoder_resources.py``.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from amaranth.back import verilog

from benchmarks.array_resources import table
from compressor.pools import build_pool
from hwgen.resource_model import ENCODER_COSTS
from hwgen.synthesis import synthesize
from rtl_templates.array_spec import AcceleratorSpec, ArraySpec, EncoderSpec
from rtl_templates.encoder_units import EncoderUnitSpecs
from rtl_templates.gelu_table import GeluTable
from rtl_templates.key_source import KeySource
from rtl_templates.layernorm_unit import LayerNormUnit
from rtl_templates.slot_assignment import SlotAssignment
from rtl_templates.softmax_source import SoftmaxSource
from rtl_templates.transposer import Transposer

SIZES = ((1, 4, 64), (4, 8, 128), (8, 16, 256))
"""Block units R, lanes T and bus bits of each measurement."""

FAMILIES = ("xcup", "xc7")


def accelerator(units, lanes, bus_bits, map_patterns):
    """Sizes for BERT-base at 128 tokens."""
    assignment = SlotAssignment.balanced(build_pool("reed_muller").patterns, 2)
    return AcceleratorSpec(
        array=ArraySpec(units=units, lanes=lanes, assignment=assignment, accumulator_bits=28),
        bus_bits=bus_bits, activation_words=1 << 16, tile_ksteps=1536, column_bits=10, program_depth=256,
        encoder=EncoderSpec(side_words=1 << 16, columns=192, key_columns=16, tokens=128,
                            map_entries=tuple(range(map_patterns))))


def parts(units, lanes, bus_bits):
    """Name in the model's costs: component."""
    plain = EncoderUnitSpecs(accelerator(units, lanes, bus_bits, 0))
    pruned = EncoderUnitSpecs(accelerator(units, lanes, bus_bits, 16))
    return {"keys": KeySource(plain.keys), "softmax": SoftmaxSource(plain.softmax),
            "pruned softmax": SoftmaxSource(pruned.softmax), "transposer": Transposer(plain.transposer),
            "norm": LayerNormUnit(plain.norm), "gelu": GeluTable(plain.gelu)}


def measure(component, family):
    """Resources of the component's Verilog."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "top.v"
        file.write_text(verilog.convert(component, name="top", emit_src=False, strip_internal_attrs=True))
        return synthesize([file], "top", family)


def rows():
    """Rows of the table, with progress on standard error."""
    for family in FAMILIES:
        for units, lanes, bus_bits in SIZES:
            for name, component in parts(units, lanes, bus_bits).items():
                found = measure(component, family)
                print(f"{family} R={units} T={lanes} {name}: {found}", file=sys.stderr, flush=True)
                modelled = ENCODER_COSTS[name].luts(lanes, bus_bits)
                yield (name, family, f"R {units}, T {lanes}, {bus_bits}-bit bus", f"{found.lut_sites:,}",
                       f"{modelled:,.0f}", f"{found.ff:,}", found.dsp, f"{found.bram36:g}")


PAGE = """\
# Resources of the encoder's units

Written by `python benchmarks/encoder_resources.py`. LUT, FF, DSP and BRAM36 are **synthesized** by Yosys,
nothing was placed; *LUT, modelled* is what `hwgen build` counts with when it fits a device. Sizes are those
of BERT-base with 128 tokens; LayerNorm takes 2 channels of a lane per cycle; attention maps have 16 patterns.

{table}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/encoder_resources.md"))
    out = parser.parse_args().out
    head = ("unit", "family", "size", "LUT", "LUT, modelled", "FF", "DSP", "BRAM36")
    page = PAGE.format(table=table(head, rows()))
    partial = out.with_suffix(".partial")
    partial.write_text(page)
    os.replace(partial, out)
    print(page)


if __name__ == "__main__":
    main()
