"""The whole path on a small model: prune, export, generate, simulate, compare.

Runs the same commands a person would type, prints each, and stops at the first that fails.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent


def demo_commands(out):
    """Commands of the demo in order, as lists of words; ``out`` is the directory they write to."""
    model, bundle, accelerator = out / "model", out / "pruned.pt", out / "accelerator"
    return [
        ["compress", "train", "demo", "--model", "tiny", "--task", "synthetic", "--overwrite",
         "--out", model],
        ["compress", "export", model, "-o", bundle],
        ["compress", "verify", bundle],
        ["hwgen", "build", "--model", bundle, "--out", accelerator, "--rows", "4", "--lanes", "8"],
        ["hwgen", "sim", accelerator, "--data", "synthetic", "--limit", "8"],
        ["hwgen", "eval", accelerator, "--data", "synthetic", "--limit", "64"],
    ]


def main():
    """Run every command; exit with the status of the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="directory for the results")
    out = parser.parse_args().out
    start = time.monotonic()
    for command in demo_commands(out):
        words = [str(word) for word in command]
        print(f"\n$ {shlex.join(words)}", flush=True)
        finished = subprocess.run([BIN / words[0], *words[1:]], check=False)
        if finished.returncode:
            return finished.returncode
    print(f"\nDone in {time.monotonic() - start:.0f} s: {out}/pruned.pt, {out}/accelerator/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
