"""Resources of the array by Yosys: row-balanced, solved, any-pattern and dense, beside other engines.

Writes docs/resources.md in about 10 minutes. Run: ``python benchmarks/array_resources.py``.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.pools import build_pool, candidate_patterns
from hwgen.synthesis import synthesize
from rtl_templates.array_spec import Accumulation, ArraySpec, PoolStorage
from rtl_templates.block_unit import BlockUnit
from rtl_templates.emission import emit_component
from rtl_templates.pattern_array import PatternArray
from rtl_templates.pattern_decoder import PatternDecoder
from rtl_templates.requantizer import RowRequantizer
from rtl_templates.result_drain import ResultDrain
from rtl_templates.slot_assignment import SlotAssignment

ACCUMULATOR_BITS = 28
"""Width that the other engines were measured with."""

LUT_GOAL = {("xcup", "tree"): 31, ("xcup", "paired"): 22, ("xc7", "dsp"): 10}
"""LUTs a multiplier of the row-balanced array that the design allows."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One synthesis: a component of an array, and how many dense MACs a cycle that array replaces."""

    name: str
    component: type
    spec: ArraySpec
    family: str
    use_dsp: bool = True

    @property
    def dense_macs(self):
        """Dense MACs per cycle of the same throughput: one whole 4x4 block per unit and lane."""
        return 16 * self.spec.units * self.spec.lanes

    def measure(self):
        """Resources of the component's Verilog."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "top.v"
            file.write_text(emit_component(self.component(self.spec), "top"))
            return synthesize([file], "top", self.family, use_dsp=self.use_dsp)


def assignments():
    """Name: assignment and storage of every kind of array."""
    balanced = SlotAssignment.balanced(build_pool("reed_muller").patterns, 2)
    random = np.random.default_rng(0).permutation(candidate_patterns(8))[:32]
    return {
        "row-balanced": (balanced, PoolStorage.ROM),
        "row-balanced, pool loaded": (balanced, PoolStorage.RAM),
        "any 8 of 16, solved for the pool": (SlotAssignment.solve(random, 2), PoolStorage.ROM),
        "any 8 of 16, pool loaded": (SlotAssignment.any_pattern(random, 2), PoolStorage.RAM),
        "dense, 16 multipliers": (SlotAssignment.balanced(np.ones((1, 16)), 4), PoolStorage.ROM),
    }


def unit_cases(lanes):
    """Block units, which hold everything from decoding to the accumulators."""
    kinds = assignments()
    balanced, dense = "row-balanced", "dense, 16 multipliers"
    for names, family, accumulation, use_dsp in (
            (kinds, "xcup", Accumulation.TREE, True),
            ((balanced, dense), "xcup", Accumulation.PAIRED, True),
            ((balanced, dense), "xcup", Accumulation.TREE, False),
            ((balanced, dense), "xc7", Accumulation.TREE, True),
            ((balanced, dense), "xc7", Accumulation.DSP, True)):
        for name in names:
            assignment, storage = kinds[name]
            yield Case(name=name, component=BlockUnit, family=family, use_dsp=use_dsp, spec=ArraySpec(
                units=1, lanes=lanes, assignment=assignment, storage=storage, accumulation=accumulation,
                accumulator_bits=ACCUMULATOR_BITS))


def part_cases(lanes, units):
    """What stands around the units of a row-balanced array, and the array in one piece."""
    assignment, storage = assignments()["row-balanced"]
    for accumulation, family in ((Accumulation.TREE, "xcup"), (Accumulation.PAIRED, "xcup"),
                                 (Accumulation.DSP, "xc7")):
        spec = ArraySpec(units=units, lanes=lanes, assignment=assignment, storage=storage,
                         accumulation=accumulation, accumulator_bits=ACCUMULATOR_BITS)
        for name, component in (("pattern decoder of one unit", PatternDecoder),
                                ("holding registers and drain", ResultDrain),
                                ("requantizer of a row", RowRequantizer), ("whole array", PatternArray)):
            yield Case(name=name, component=component, family=family, spec=spec)


def measure_all(cases):
    """List of (case, resources), with progress on standard error."""
    measured = []
    for case in cases:
        resources = case.measure()
        print(f"{case.family} {case.spec.accumulation} {case.name}: {resources}", file=sys.stderr, flush=True)
        measured.append((case, resources))
    return measured


def unit_table(measured):
    """Markdown table of block units."""
    rows = []
    for case, r in measured:
        multipliers = case.spec.multipliers
        rows.append((case.name, case.family if case.use_dsp else f"{case.family}, no DSPs", sums_in(case),
                     f"{r.lut_sites:,}", f"{r.lut_cells:,}", f"{r.ff:,}", r.dsp, r.carry,
                     f"{r.lut_sites / multipliers:.1f}", f"{r.dsp / multipliers:.2f}",
                     f"{r.lut_sites / case.dense_macs:.1f}", f"{r.dsp / case.dense_macs:.2f}"))
    return table(("unit", "family", "sums in", "LUT", "LUT cells", "FF", "DSP", "CARRY4", "LUT / multiplier",
                  "DSP / multiplier", "LUT / dense MAC", "DSP / dense MAC"), rows)


def part_table(measured):
    """Markdown table of the parts of an array."""
    rows = []
    for case, r in measured:
        multipliers = case.spec.multipliers // (case.spec.units if case.component is PatternDecoder else 1)
        rows.append((case.name, case.family, sums_in(case), f"{r.lut_sites:,}", f"{r.ff:,}", r.dsp,
                     f"{r.lut_sites / multipliers:.2f}"))
    return table(("part", "family", "sums in", "LUT", "FF", "DSP", "LUT / multiplier"), rows)


def sums_in(case):
    """Where the accumulators are."""
    return {Accumulation.TREE: "LUTs", Accumulation.DSP: "DSPs",
            Accumulation.PAIRED: "DSPs of two lanes"}[case.spec.accumulation]


def table(head, rows):
    """Markdown table."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows))


def comparison(measured):
    """Row-balanced against dense, each 16 dense MACs per lane and cycle, as sentences."""
    found = {(case.name.split(",")[0], case.family, str(case.spec.accumulation), case.use_dsp): (case, r)
             for case, r in measured if case.name in ("row-balanced", "dense, 16 multipliers")}
    lines = []
    for (name, family, accumulation, use_dsp), (case, ours) in found.items():
        if name != "row-balanced":
            continue
        dense = found["dense", family, accumulation, use_dsp][1]
        where = f"{family}, sums in {sums_in(case)}" if use_dsp else f"{family}, multipliers in LUTs"
        facts = [f"{ours.lut_sites / dense.lut_sites:.2f} of the LUTs" if dense.lut_sites
                 else f"{ours.lut_sites} LUTs against none"]
        if dense.dsp:
            facts.append(f"{ours.dsp / dense.dsp:.2f} of the DSPs")
        goal = LUT_GOAL.get((family, accumulation)) if use_dsp else None
        if goal:
            each = ours.lut_sites / case.spec.multipliers
            facts.append(f"{each:.1f} LUTs a multiplier ({'within' if each <= goal else 'ABOVE'} {goal})")
        if case.spec.accumulation is Accumulation.PAIRED:
            other = found["dense", family, "tree", use_dsp][1]
            facts.append("against a dense unit that does not pair lanes "
                         f"{ours.lut_sites / other.lut_sites:.2f} of the LUTs and "
                         f"{ours.dsp / other.dsp:.2f} of the DSPs")
        lines.append(f"* {where}: {', '.join(facts)}.")
    return "\n".join(lines)


PEERS = """\
| engine | LUT / multiplier | DSP / multiplier | LUT / dense MAC | DSP / dense MAC | sparse |
|---|---|---|---|---|---|
| FINN MVU 8sx8u, DSP48E2 (two products a DSP, instantiated) | 26.4 | 0.5 | 26.4 | 0.5 | no |
| ITA, whole (with softmax, GELU, buffers; no operand memory) | 73.9 | 1.07 | 73.9 | 1.07 | no |
| ITA, dot products only | 24.9 | 1.0 | 24.9 | 1.0 | no |
| Sparse-V, 2:4, without accumulators | 16.5 | 1.0 | 8.3 | 0.5 | 2:4 |"""

PAGE = """\
# Resources of the array

Written by `python benchmarks/array_resources.py`. Every figure is **synthesized** by Yosys for a Xilinx
family (`xcup`: UltraScale+, `xc7`: 7 series); nothing was placed, and no vendor tool was run. *LUT* is the
number of LUT6 sites by our count (`hwgen.synthesis.Resources`), an upper estimate that Yosys itself does not
give. On `xcup` Yosys puts only the bare multiplier into a DSP; on `xc7` it packs registers and sums too.
Where two lanes share a DSP, DSP48E2 are instantiated: one computes `((a1 << 18) + a0) * w` of two lanes, the
cascade adds the slots of a row, the last one accumulates; LUTs count how often the low lane runs over.
Multipliers are int8 x int8, accumulators {bits} bits wide.

## Block units: decode, multiplexers, multipliers, adders, accumulators

One unit with {lanes} lanes. All of them take one 4x4 block per lane and cycle, 16 dense MACs: the sparse
ones with 8 multipliers, the dense one with 16 and no multiplexers. The pools have 32 patterns, and a sparse
unit also runs dense blocks, in two K-steps.

{units}

Row-balanced against dense, at the same dense-equivalent throughput:

{comparison}
* The row-balanced array itself, used for dense blocks: 0.50 of the LUTs and DSPs that the same throughput
  takes.

The dense unit sums four products before each accumulator, the sparse one two. So where multipliers and sums
are free (in DSPs), the saved half is paid for with the multiplexers, 8 LUTs a multiplier; where they are
LUTs, nearly half of everything is saved. In paired lanes a row of a dense unit has as many counters as a
row of a sparse one, and no multiplexers.

## Around the units

{array_units} units, {lanes} lanes, row-balanced, pool in ROM. The whole array holds the units with their
decoders, the holding registers and the drain.

{parts}

## Other engines

Measured in the same way (Yosys, `xcup`, LUT sites, 28-bit or the engine's own accumulators), core datapath
only where not said otherwise.

{peers}

An engine that is not sparse computes every product, so its multipliers are its dense MACs; with half of the
weights kept, one of our multipliers stands for two.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--units", type=int, default=4, help="units of the whole array")
    parser.add_argument("--out", type=Path, default=Path("docs/resources.md"))
    options = parser.parse_args()
    units = measure_all(unit_cases(options.lanes))
    parts = measure_all(part_cases(options.lanes, options.units))
    page = PAGE.format(bits=ACCUMULATOR_BITS, lanes=options.lanes, array_units=options.units, peers=PEERS,
                       units=unit_table(units), comparison=comparison(units), parts=part_table(parts))
    partial = options.out.with_suffix(".partial")
    partial.write_text(page)
    os.replace(partial, options.out)
    print(page)


if __name__ == "__main__":
    main()
