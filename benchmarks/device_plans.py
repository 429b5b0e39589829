"""What the planner chooses for boards: sizes, resources, what the device has and what is left.

The model is a bundle of BERT-base's layer shapes, S = 128, half the weights. Resources are *modelled* from
parts that Yosys synthesized (docs/resources.md, docs/encoder_resources.md); nothing was placed. Run:
``python -m benchmarks.device_plans``.
"""

import argparse

from hwgen.cost import cost_report
from hwgen.devices import DEVICES
from hwgen.encoder_program import whole_program
from hwgen.planner import PlanRequest, make_plan
from tests.bundles import random_encoder_bundle

BOARDS = ("zcu104", "kv260", "u250")
HIDDEN, FEED_FORWARD, HEADS, TOKENS = 768, 3072, 12, 128
COUNTS = {"LUT": "luts", "FF": "ffs", "DSP": "dsps", "BRAM": "rams", "URAM": "urams"}
"""Row: key in the plan's modelled resources, and field of the device."""


def plan_lines(plan):
    """A plan's table, as text."""
    device, array = DEVICES[plan.device], plan.spec.array
    cost = cost_report(plan, whole_program(plan))
    yield (f"{plan.device} ({device.part}): R = {array.units}, T = {array.lanes}, {array.multipliers} MACs, "
           f"{plan.spec.bus_bits}-bit bus; {cost.cycles:,} cycles for {plan.tokens} tokens, "
           f"utilization {cost.utilization:.3f}")
    yield f"  {'':5s} {'modelled':>10s} {'of':>10s} {'left':>10s}"
    for name, key in COUNTS.items():
        used, total = plan.modelled[key], getattr(device, key)
        if not total:
            continue
        yield f"  {name:5s} {used:10,d} {total:10,d} {total - used:10,d}  {100 * used / total:3.0f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("boards", nargs="*", default=BOARDS, help=f"Of {', '.join(DEVICES)}.")
    boards = parser.parse_args().boards
    bundle = random_encoder_bundle(hidden=HIDDEN, layers=1, heads=HEADS, ffn=FEED_FORWARD, max_tokens=TOKENS)
    for board in boards:
        for line in plan_lines(make_plan(bundle, PlanRequest(device=board))):
            print(line, flush=True)


if __name__ == "__main__":
    main()
