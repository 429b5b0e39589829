"""A run of an encoder in the cocotb bench."""

import numpy as np

from hwgen.encoder_memory import input_memory, strides
from sim.case import BenchCase
from sim.cocotb_bench import run_cocotb
from sim.harness import SimulationError
from sim.runner import SIM_DIRECTORY, STALLED_FACTOR
from sim.vectors import Comparison


def encoder_case(bench, x, lengths):
    """The case of one run of sequences for the cocotb bench.

    Parameters
    ----------
    bench : sim.encoder_run.EncoderBench
    x : int8 array, shape (sequences, tokens, hidden)
    lengths : int array, shape (sequences,)

    Returns
    -------
    BenchCase
        Its outputs are named by layer and sequence.
    """
    build, program = bench.build, bench.program
    input_stride, output_stride = strides(program)
    golden = bench.golden(x, lengths)
    outputs = {f"{tensor.name}, sequence {index}": (index * output_stride + tensor.offset,
                                                    golden[tensor.name][index].astype(np.int8))
               for index in range(len(x)) for tensor in program.outputs}
    return BenchCase(
        program=np.frombuffer(program.pack(), np.uint8), weights=np.fromfile(bench.weights, np.uint8),
        input=input_memory(program, x, build.lanes).ravel(), pool=np.frombuffer(build.pool, np.uint8),
        weights_beats=bench.beats, lanes=build.lanes,
        max_cycles=STALLED_FACTOR * bench.predict(lengths).cycles + 100_000,
        configuration=build.plan.spec.configuration, outputs=outputs,
        lengths=np.asarray(lengths, np.uint32), sequences=len(x), input_stride=input_stride,
        output_stride=output_stride)


def compare_in_cocotb(bench, x, lengths, *, stalls=0):
    """One run of sequences in the cocotb bench.

    Parameters
    ----------
    bench, x, lengths
        As in :func:`encoder_case`.
    stalls : int
        Seed of random waits on every AXI channel; 0 is none.

    Returns
    -------
    comparisons : list of sim.vectors.Comparison
        One an output.
    cycles : int

    Raises
    ------
    ToolError, SimulationError
        If the bench cannot run, or the run does not end well.
    """
    outcome = run_cocotb(bench.build.verilog, encoder_case(bench, x, lengths),
                         bench.build.directory / SIM_DIRECTORY / "cocotb", tests="program_is_bit_exact",
                         stalls=(stalls,))
    if not outcome.reports:
        raise SimulationError(f"cocotb: {'; '.join(outcome.messages.values()) or 'no run was reported'}")
    report = outcome.reports[0]
    return [Comparison(**found) for found in report["layers"].values()], report["counters"]["cycles"]
