"""All proofs, one after the other: ``python -m formal``."""

import sys
import time

from formal import beat_fifo, bursts, control_registers, paired_sums, requantizer
from formal.prover import ProofError

MODULES = (beat_fifo, bursts, control_registers, paired_sums, requantizer)


def main():
    """Prints a line for each proof; the exit code is the number that failed."""
    failed = 0
    for proof in (proof for module in MODULES for proof in module.PROOFS):
        begin = time.perf_counter()
        try:
            proof.run()
            result = "proven"
        except ProofError as error:
            failed += 1
            result = f"FAILED: {error}"
        print(f"{result}, {proof.method} {proof.cycles}, {time.perf_counter() - begin:.1f} s: {proof.claim}",
              flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
