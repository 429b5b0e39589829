"""Whole encoder layers of BERT-base, S = 128: simulated and predicted cycles.

One layer with half the weights on 256 and on 1,024 MACs, the same layer dense, and twelve layers chained
in one run. Attention, softmax, GELU and both LayerNorms included; every word of every layer's output is
compared. Run: ``python -m benchmarks.encoder_layer``.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.linear_layers import verdict
from compressor.bundle import save_bundle
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from sim.encoder_run import EncoderRequest, simulate_encoder
from sim.open_build import open_build
from tests.bundles import random_encoder_bundle

HIDDEN, FEED_FORWARD, HEADS, TOKENS = 768, 3072, 12, 128

TARGET_UTILIZATION = 0.95
TARGET_SPEEDUP = 1.9
TARGET_CYCLES = 500_000
"""Of one layer on 1,024 MACs."""


@dataclass(frozen=True)
class Case:
    """Block units R, lanes T, bus width in bits, structure, encoder layers in one run."""

    rows: int
    lanes: int
    bus_bits: int
    structure: str
    layers: int = 1


@dataclass(frozen=True)
class Measured:
    """Multipliers, useful MACs / (multipliers x cycles), and the simulation's result."""

    multipliers: int
    utilization: float
    result: object


def measure(case):
    """Build and simulate one case."""
    bundle = random_encoder_bundle(hidden=HIDDEN, layers=case.layers, heads=HEADS, ffn=FEED_FORWARD,
                                   structure=case.structure, max_tokens=TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(bundle, Path(folder) / "pruned.pt")
        request = PlanRequest(rows=case.rows, lanes=case.lanes, bus_bits=case.bus_bits, tokens=TOKENS)
        cost = build(Path(folder) / "pruned.pt", Path(folder) / "build", request).cost
        result = simulate_encoder(open_build(Path(folder) / "build"), EncoderRequest(every_layer=True))
    useful = cost.useful_macs + case.layers * 2 * TOKENS * TOKENS * HIDDEN  # scores and context
    return Measured(cost.multipliers, useful / (cost.multipliers * result.cycles), result)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12, help="Layers of the chained run.")
    options = parser.parse_args()
    print("  MACs  layers  structure      words  wrong       cycles    predicted  utilization  seconds")
    small, dense, large, chained = (report(case) for case in (
        Case(4, 8, 128, "pattern"), Case(4, 8, 128, "dense"), Case(8, 16, 256, "pattern"),
        Case(8, 16, 256, "pattern", layers=options.layers)))
    print(f"256 MACs: utilization {verdict(small.utilization, TARGET_UTILIZATION)}; dense / pattern cycles "
          f"{verdict(dense.result.cycles / small.result.cycles, TARGET_SPEEDUP)}\n1,024 MACs, one layer: "
          f"{TARGET_CYCLES:,} / cycles {verdict(TARGET_CYCLES / large.result.cycles, 1.0)}")
    return int(not all(one.result.passed for one in (small, dense, large, chained)))


def report(case):
    """Measure a case and print its row; seconds are those of the bench alone."""
    one = measure(case)
    result = one.result
    print(f"{one.multipliers:6}  {case.layers:6}  {case.structure:9}  {result.words:9,}  "
          f"{result.mismatches:5}  {result.cycles:11,}  {result.predicted_cycles:11,}  "
          f"{one.utilization:11.4f}  {result.wall_seconds:7.1f}", flush=True)
    return one


if __name__ == "__main__":
    raise SystemExit(main())
