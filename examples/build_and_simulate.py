"""Generates an accelerator and simulates it from Python, as `hwgen build` and `hwgen sim` do.

Takes the bundle of the demo, or any other:

    python examples/build_and_simulate.py --model build/demo/pruned.pt --out build/example
"""

import argparse
from pathlib import Path

from hwgen.packaging import build
from hwgen.planner import PlanRequest
from sim.encoder_run import EncoderRequest, simulate_encoder
from sim.harness import MemoryTiming
from sim.open_build import open_build


def main():
    """Build, run random inputs under random waits, compare every word of every layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("build/demo/pruned.pt"))
    parser.add_argument("--out", type=Path, default=Path("build/example"))
    arguments = parser.parse_args()
    built = build(arguments.model, arguments.out, PlanRequest(rows=2, lanes=8))
    print(f"{built.plan.spec.array.multipliers} multipliers, {built.cost.cycles:,} cycles predicted")
    result = simulate_encoder(open_build(arguments.out), EncoderRequest(
        limit=4, every_layer=True, timing=MemoryTiming(stalls=1)))
    print(f"{result.words:,} words compared, {result.mismatches} mismatches; {result.cycles:,} cycles, "
          f"{result.predicted_cycles:,} predicted")
    return int(not result.passed)


if __name__ == "__main__":
    raise SystemExit(main())
