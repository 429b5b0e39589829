"""Time to choose a pattern pool for BERT-base, and to project its weights: 5.3 million blocks, 32 patterns.

Weights are normally distributed; the target of the projection is below 2 s on 2 cores. Run:
``python -m benchmarks.projection``.
"""

import argparse
import time
from functools import partial

import torch

from compressor.pool_search import BUILDERS
from compressor.recipe_structure import recipe_structure
from compressor.recipes import Recipe

LAYERS, HIDDEN, FEED_FORWARD = 12, 768, 3072
TARGET_SECONDS = 2.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    shapes = 4 * [(HIDDEN, HIDDEN)] + [(FEED_FORWARD, HIDDEN), (HIDDEN, FEED_FORWARD)]
    weights = {f"layer.{layer}.{number}": torch.randn(shape)
               for layer in range(LAYERS) for number, shape in enumerate(shapes)}
    blocks = sum(weight.numel() // 16 for weight in weights.values())
    print(f"{blocks:,} blocks, {options.threads} threads, best and worst of {options.repeats}", flush=True)
    for build in BUILDERS:
        for balance in ("row", "none"):
            times, (structure, _) = _timed(partial(recipe_structure, _recipe(build, balance), weights),
                                           options.repeats)
            print(f"pool of {structure.pool.size}, {build}, balance {balance}: {_range(times)}", flush=True)
    structure, _ = recipe_structure(_recipe("reed_muller", "row"), weights)
    times, energies = _timed(lambda: [structure.project(weight)[1].retained_energy
                                      for weight in weights.values()], options.repeats)
    print(f"projection on {structure.pool.size} patterns: {_range(times)}, "
          f"{1e9 * min(times) / blocks:.0f} ns a block; "
          f"target {TARGET_SECONDS} s: {'met' if min(times) < TARGET_SECONDS else 'missed'}; "
          f"retained energy {sum(energies) / len(energies):.4f}")


def _recipe(build, balance):
    return Recipe.model_validate({"schema_version": 1, "pool": {"build": build, "balance": balance},
                                  "stages": [{"method": "retrain", "epochs": 1}]})


def _timed(call, repeats):
    """Seconds of every repetition, and the last one's result; one more runs first."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return times, result


def _range(times):
    return f"{min(times):.2f} s, {max(times):.2f} s"


if __name__ == "__main__":
    main()
