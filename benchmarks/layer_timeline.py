"""Draws the picture of one encoder layer of BERT-base in docs/architecture.md, from simulation.

S = 128, half the weights, 256 MACs. Run: ``python -m benchmarks.layer_timeline FILE.svg``.
"""

import argparse
import tempfile
from pathlib import Path

from compressor.bundle import save_bundle
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from sim.encoder_run import EncoderRequest, simulate_encoder
from sim.open_build import open_build
from sim.recording import Recording
from sim.results import breakdown_text
from tests.bundles import random_encoder_bundle

TOKENS = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="SVG to write")
    options = parser.parse_args()
    bundle = random_encoder_bundle(hidden=768, layers=1, heads=12, ffn=3072, max_tokens=TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(bundle, Path(folder) / "pruned.pt")
        build(Path(folder) / "pruned.pt", Path(folder) / "build",
              PlanRequest(rows=4, lanes=8, bus_bits=128, tokens=TOKENS))
        result = simulate_encoder(open_build(Path(folder) / "build"),
                                  EncoderRequest(recording=Recording(timeline=options.file)))
    print("\n".join(breakdown_text(result.breakdown)))
    print(f"{result.cycles:,} cycles, {result.words:,} words compared, {result.mismatches} mismatches")
    return int(not result.passed)


if __name__ == "__main__":
    raise SystemExit(main())
