"""What the planner chooses for boards: sizes, resources, what the device has and what is left.

The model is a bundle of BERT-base's layer shapes, S = 128, half the weights. Resources are *modelled* from
parts that Yosys synthesized (docs/resources.md, docs/encoder_resources.md), and *synthesized* by Yosys from
the whole plan's Verilog; nothing was placed. Run: ``python -m benchmarks.device_plans [BOARD ...]``; 5
minutes for a board of 2,048 multipliers, 20 for 8,192, a second with ``--modelled``.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from hwgen.cost import cost_report
from hwgen.devices import DEVICES
from hwgen.encoder_program import whole_program
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.synthesis import synthesize
from hwgen.verilog import TOP, write_verilog
from tests.bundles import random_encoder_bundle

BOARDS = ("zcu104", "kv260", "u250")
HIDDEN, FEED_FORWARD, HEADS, TOKENS = 768, 3072, 12, 128
ROWS = (("LUT", "luts", "lut_sites"), ("FF", "ffs", "ff"), ("DSP", "dsps", "dsp"), ("BRAM", "rams", "bram36"),
        ("URAM", "urams", "uram"))
"""Row: its name, key in the plan's modelled resources and of the device, field of what Yosys counts."""


def plan_lines(plan, found=None):
    """A plan's table, as text; ``found``: its :class:`hwgen.synthesis.Resources`, if it was synthesized."""
    device, array = DEVICES[plan.device], plan.spec.array
    cost = cost_report(plan, whole_program(plan))
    yield (f"{plan.device} ({device.part}): R = {array.units}, T = {array.lanes}, {array.multipliers} MACs, "
           f"{plan.spec.bus_bits}-bit bus; {cost.cycles:,} cycles for {plan.tokens} tokens, "
           f"utilization {cost.utilization:.3f}")
    measured = f" {'synthesized':>12s} {'model is':>9s}" if found else ""
    yield f"  {'':5s} {'modelled':>10s}{measured} {'of':>10s} {'left':>10s}  used"
    for name, key, field in ROWS:
        modelled, total = plan.modelled[key], getattr(device, key)
        if not total:
            continue
        used = getattr(found, field) if found else modelled
        line = f"  {name:5s} {modelled:10,d}"
        if found:
            share = f"{100 * (modelled / used - 1):+7.1f} %" if used else ""
            line += f" {used:12,.7g} {share:9s}"
        yield f"{line} {total:10,d} {total - used:10,.8g}  {100 * used / total:3.0f} %"


def measure(plan, found):
    """Resources by Yosys; ``found`` holds those of equal hardware: dict of (spec, family, UltraRAM)."""
    device = DEVICES[plan.device]
    key = (plan.spec, device.family, device.urams > 0)
    if key not in found:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as directory:
            write_verilog(plan, Path(directory))
            found[key] = synthesize([Path(directory) / f"{TOP}.v"], TOP, device.family, use_uram=key[2])
        print(f"{plan.device}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return found[key]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("boards", nargs="*", default=BOARDS, help=f"Of {', '.join(DEVICES)}.")
    parser.add_argument("--modelled", action="store_true", help="Do not synthesize.")
    options = parser.parse_args()
    bundle = random_encoder_bundle(hidden=HIDDEN, layers=1, heads=HEADS, ffn=FEED_FORWARD, max_tokens=TOKENS)
    found = {}
    for board in options.boards:
        plan = make_plan(bundle, PlanRequest(device=board))
        for line in plan_lines(plan, None if options.modelled else measure(plan, found)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
