"""Time to project all of BERT-base onto a pattern pool: 5.3 million blocks, 32 patterns.

Prints the times; the target is below 2 s on 2 cores. Run: ``python benchmarks/projection.py``.
"""

import argparse
import time

import torch

from compressor.pools import build_pool
from compressor.structures import Pattern

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
    weights = [torch.randn(shape) for shape in shapes]
    structure = Pattern(build_pool("reed_muller"))
    blocks = LAYERS * sum(weight.numel() // 16 for weight in weights)
    structure.project(weights[0])
    times, processor_times = [], []
    for _ in range(options.repeats):
        start, processor_start = time.perf_counter(), time.process_time()
        for _ in range(LAYERS):
            energies = [structure.project(weight)[1].retained_energy for weight in weights]
        times.append(time.perf_counter() - start)
        processor_times.append(time.process_time() - processor_start)
    best = min(times)
    print(f"{blocks:,} blocks, {structure.pool.size} patterns, {options.threads} threads: "
          f"{best:.2f} s best, {max(times):.2f} s worst of {options.repeats}; "
          f"processor time {min(processor_times):.2f} s")
    print(f"{1e9 * best / blocks:.0f} ns a block; target {TARGET_SECONDS} s: "
          f"{'met' if best < TARGET_SECONDS else 'missed'}; "
          f"retained energy of normally distributed weights {sum(energies) / len(energies):.4f}")


if __name__ == "__main__":
    main()
