"""One whole encoder layer of BERT-base, S = 128, half the weights: simulated and predicted cycles.

Attention, softmax, GELU and both LayerNorms included; 256 and 1,024 MACs pattern-pruned, and 256 MACs
dense on the same hardware. Every word of the last hidden states is compared.
Run: ``python -m benchmarks.encoder_layer``.
"""

import argparse
import tempfile
from pathlib import Path

from compressor.bundle import save_bundle
from hwgen.packaging import build
from hwgen.planner import PlanRequest
from sim.encoder_run import EncoderRequest, simulate_encoder
from sim.open_build import open_build
from tests.bundles import random_encoder_bundle

HIDDEN, FEED_FORWARD, HEADS, TOKENS = 768, 3072, 12, 128

CASES = ((4, 8, 128, "pattern"), (4, 8, 128, "dense"), (8, 16, 256, "pattern"))
"""Block units R, lanes T, bus width in bits, structure."""


def measure(rows, lanes, bus_bits, structure):
    """Build and simulate one case: (cost report, simulation result)."""
    bundle = random_encoder_bundle(hidden=HIDDEN, layers=1, heads=HEADS, ffn=FEED_FORWARD,
                                   structure=structure, max_tokens=TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(bundle, Path(folder) / "pruned.pt")
        request = PlanRequest(rows=rows, lanes=lanes, bus_bits=bus_bits, tokens=TOKENS)
        built = build(Path(folder) / "pruned.pt", Path(folder) / "build", request)
        return built.cost, simulate_encoder(open_build(Path(folder) / "build"), EncoderRequest())


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    attention_macs = 2 * TOKENS * TOKENS * HIDDEN  # scores and context
    print("  MACs  structure      words  wrong       cycles    predicted  utilization")
    failed = 0
    for case in CASES:
        cost, result = measure(*case)
        utilization = (cost.useful_macs + attention_macs) / (cost.multipliers * result.cycles)
        print(f"{cost.multipliers:6}  {case[3]:9}  {result.words:9,}  {result.mismatches:5}  "
              f"{result.cycles:11,}  {result.predicted_cycles:11,}  {utilization:11.4f}", flush=True)
        failed |= not result.passed
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
