"""Generates an accelerator and simulates it from Python, as `hwgen build` and `hwgen sim` do.

Takes the bundle of the demo, or any other:

    python examples/build_and_simulate.py --model build/demo/pruned.pt --out build/example
"""

import argparse
from pathlib import Path

from hwgen import build
from sim import simulate


def main():
    """Build, run random inputs under random waits, compare every word of every layer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("build/demo/pruned.pt"))
    parser.add_argument("--out", type=Path, default=Path("build/example"))
    arguments = parser.parse_args()
    built = build(arguments.model, arguments.out, rows=2, lanes=8)
    print(f"{built.plan.spec.array.multipliers} multipliers, {built.cost.cycles:,} cycles predicted")
    result = simulate(arguments.out, limit=4, every_layer=True, stalls=1)
    print(f"{result.words:,} words compared, {result.mismatches} mismatches; {result.cycles:,} cycles, "
          f"{result.predicted_cycles:,} predicted")
    return int(not result.passed)


if __name__ == "__main__":
    raise SystemExit(main())
