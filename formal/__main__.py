"""All proofs, one after the other: ``python -m formal``."""

import sys
import time

from formal import (
    beat_fifo,
    bursts,
    control_registers,
    load_unit,
    packet_writer,
    paired_sums,
    read_master,
    requantizer,
    result_writer,
    store_unit,
    write_master,
)
from formal.prover import ProofError

MODULES = (beat_fifo, packet_writer, result_writer, bursts, read_master, write_master, load_unit, store_unit,
           control_registers, requantizer, paired_sums)


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
