"""Speed of the C++ bench for the 256-MAC array: seconds to compile, clock cycles a second.

The product is one of BERT-base's (768 x 768, S = 128). Run: ``python -m benchmarks.harness_speed``.
"""

import argparse
import tempfile
import time
from pathlib import Path

from compressor.bundle import save_bundle
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from sim.harness import build_harness
from sim.open_build import open_build
from sim.runner import SIM_DIRECTORY, SimulationRequest, simulate_layers
from tests.bundles import bert_base_layer_bundle

TARGET_CYCLES_PER_SECOND = 200_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4, help="block units R")
    parser.add_argument("--lanes", type=int, default=8, help="token lanes T")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_bundle(bert_base_layer_bundle(), folder / "pruned.pt")
        start = time.perf_counter()
        build(folder / "pruned.pt", folder / "build",
              PlanRequest(rows=options.rows, lanes=options.lanes, tokens=128))
        generated = time.perf_counter() - start
        opened = open_build(folder / "build")
        start = time.perf_counter()
        build_harness(opened.verilog, opened.directory / SIM_DIRECTORY)
        compiled = time.perf_counter() - start
        result = simulate_layers(opened, SimulationRequest(layers="*.query", tokens=128))
    # Processor time: the same on a machine that others use as well.
    speed = result.cycles / result.cpu_seconds
    verdict = "met" if speed >= TARGET_CYCLES_PER_SECOND else "missed"
    print(f"{opened.plan.spec.array.multipliers} MACs: generated in {generated:.1f} s, "
          f"compiled in {compiled:.1f} s, {result.cycles:,} cycles in {result.wall_seconds:.2f} s: "
          f"{speed:,.0f} cycles a second of processor time (target {TARGET_CYCLES_PER_SECOND:,}: {verdict})")
    return int(bool(result.problems()))


if __name__ == "__main__":
    raise SystemExit(main())
