"""Linear layers of BERT-base on one array, pattern-pruned beside dense: simulated and predicted cycles.

One accelerator of 256 and one of 1,024 MACs runs an encoder layer's six products (768 and 3072
channels, S = 128) with half the weights pruned by patterns, then the same products dense. Every output word
is compared. Run: ``python -m benchmarks.linear_layers``.
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from compressor.bundle import save_bundle
from compressor.layer_weights import ROLES, layer_name
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from hwgen.program import linear_program
from sim.open_build import open_build
from sim.runner import SimulationRequest, simulate_layers
from tests.bundles import random_bundle

TARGET_UTILIZATION = 0.985
TARGET_SPEEDUP = 1.95


@dataclass(frozen=True)
class Size:
    """An array: block units R, lanes T, bus width in bits."""

    rows: int
    lanes: int
    bus_bits: int


SIZES = (Size(4, 8, 128), Size(8, 16, 512))
"""256 and 1,024 MACs with two slots a row."""


def pattern_and_dense_bundle(hidden, ffn, heads, tokens):
    """Layer 0 pattern-pruned, layer 1 dense, so that one accelerator runs both."""
    arguments = dict(hidden=hidden, layers=2, heads=heads, ffn=ffn, max_tokens=tokens)
    pattern, dense = (random_bundle(structure=structure, **arguments) for structure in ("pattern", "dense"))
    second = [layer_name(1, role) for role in ROLES]
    return replace(pattern, layers={**pattern.layers, **{name: dense.layers[name] for name in second}})


def measure(size, bundle_path, tokens):
    """Simulate the pattern-pruned and the dense products: (multipliers, result, result)."""
    with tempfile.TemporaryDirectory() as folder:
        request = PlanRequest(rows=size.rows, lanes=size.lanes, bus_bits=size.bus_bits, tokens=tokens)
        build(bundle_path, Path(folder) / "build", request)
        opened = open_build(Path(folder) / "build")
        results = []
        for index in (0, 1):
            names = [layer_name(index, role) for role in ROLES]
            program = linear_program(opened.plan, names, tokens)
            results.append(simulate_layers(opened, SimulationRequest(), program=program))
        return opened.plan.spec.array.multipliers, *results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--ffn", type=int, default=3072)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    print(f"One encoder layer's linear products, H = {options.hidden}, F = {options.ffn}, "
          f"S = {options.tokens}; start to done, loads and stores included;\n"
          "cycles/s are those simulated in a second of processor time")
    print(f"{'MACs':>6}  {'structure':9}  {'words':>9}  {'wrong':>5}  {'cycles':>11}  {'predicted':>11}  "
          f"{'utilization':>11}  {'cycles/s':>9}")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.pt"
        save_bundle(pattern_and_dense_bundle(options.hidden, options.ffn, options.heads, options.tokens),
                    path)
        for size in SIZES:
            multipliers, pattern, dense = measure(size, path, options.tokens)
            for structure, result in (("pattern", pattern), ("dense", dense)):
                print(f"{multipliers:6}  {structure:9}  {result.words:9,}  {result.mismatches:5}  "
                      f"{result.cycles:11,}  {result.predicted_cycles:11,}  {result.utilization:11.4f}  "
                      f"{result.cycles / result.cpu_seconds:9,.0f}")
                failed |= bool(result.problems())
            speedup = dense.cycles / pattern.cycles
            print(f"{multipliers:6}  utilization {verdict(pattern.utilization, TARGET_UTILIZATION)}; "
                  f"dense / pattern cycles {verdict(speedup, TARGET_SPEEDUP)}", flush=True)
    return int(failed)


def verdict(value, target):
    """A value beside its target.

    >>> verdict(1.97, 1.95)
    '1.970 (target 1.950: met)'
    """
    return f"{value:.3f} (target {target:.3f}: {'met' if value >= target else 'missed'})"


if __name__ == "__main__":
    raise SystemExit(main())
