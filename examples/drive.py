"""Drives an accelerator from Python: the simulated one of a build, or a board's if a bitstream is given.

Classifies sentences of the demo's task with the accelerator that `make demo` generates:

    python examples/drive.py
    python examples/drive.py --build build/sst2 "a gem of a film" "what a waste of time"
    python examples/drive.py --build build/sst2/accelerator.bit "a gem of a film"
"""

import argparse
import time
from pathlib import Path

from compressor.synthetic_task import generate
from hwgen.driver import Accelerator
from sim import SimulatedDevice


def main():
    """Load, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=Path("build/demo/accelerator"),
                        help="directory of a build, simulated; or a bitstream inside of one")
    parser.add_argument("--model", type=Path, help="bundle to run, if not the build's own")
    parser.add_argument("sentences", nargs="*")
    arguments = parser.parse_args()
    sentences = arguments.sentences or [row["sentence"] for row in generate(8, seed=2)]
    device = SimulatedDevice(arguments.build) if arguments.build.is_dir() else None
    with Accelerator(arguments.build, device) as accelerator:
        accelerator.load(arguments.model)
        start = time.monotonic()
        predictions = accelerator.predict(sentences)
        seconds = time.monotonic() - start
        for sentence, name in zip(sentences, predictions.label_names, strict=True):
            print(f"{name:10s} {sentence}")
        print(f"{len(sentences)} sentences in {seconds:.2f} s; "
              f"{accelerator.counters()['cycles']:,} cycles in the last run")


if __name__ == "__main__":
    main()
