"""All measurements, one after the other: ``python -m benchmarks``.

About an hour and a half, most of it synthesis and placement.
"""

import subprocess
import sys

BENCHMARKS = ("projection", "admm_step", "quantize_step", "harness_speed", "linear_layers", "encoder_layer",
              "map_pruning", "array_resources", "fmax", "device_plans")


def main():
    """Run each benchmark in a process of its own; exit with the number that failed."""
    failed = 0
    for name in BENCHMARKS:
        print(f"\n== {name}", flush=True)
        failed += bool(subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode)
    return failed


if __name__ == "__main__":
    sys.exit(main())
