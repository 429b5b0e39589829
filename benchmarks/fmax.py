"""Clock frequency of a whole accelerator on an ECP5: placed and routed by nextpnr, three seeds.

A small encoder accelerator, everything in it: array, softmax with map pruning, GELU, LayerNorm, transposer,
loaders, registers. Some minutes a seed. Run: ``python -m benchmarks.fmax``; needs the extra ``ecp5``.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.linear_layers import verdict
from compressor.bundle import save_bundle
from hwgen.packaging import build
from hwgen.placement import place, placement_lines
from hwgen.plan_request import PlanRequest
from hwgen.toolchain import ToolError, find_tool
from tests.bundles import random_encoder_bundle

TARGET_MHZ = 110


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    try:
        find_tool("nextpnr-ecp5")
    except ToolError as error:
        print(f"not measured: {error}")
        return 0
    bundle = random_encoder_bundle(hidden=options.hidden, layers=1, heads=4, ffn=4 * options.hidden,
                                   map_pruning=True, max_tokens=options.tokens)
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(bundle, Path(folder) / "pruned.pt")
        request = PlanRequest(rows=options.rows, lanes=options.lanes, tokens=options.tokens, bus_bits=64)
        plan = build(Path(folder) / "pruned.pt", Path(folder) / "build", request).plan
        placement = place(Path(folder) / "build", range(1, options.seeds + 1),
                          lambda step: print(step, file=sys.stderr, flush=True))
    print(f"R = {options.rows}, T = {options.lanes}, {plan.spec.array.multipliers} MACs, "
          f"hidden {options.hidden}, {options.tokens} tokens, pruned attention maps")
    for line in placement_lines(placement):
        print(line)
    print(f"median MHz / {TARGET_MHZ} {verdict(placement.median_mhz / TARGET_MHZ, 1.0)}")
    return int(placement.median_mhz < TARGET_MHZ)


if __name__ == "__main__":
    raise SystemExit(main())
