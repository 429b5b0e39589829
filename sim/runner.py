"""Runs the programs of a build and compares them with the golden model and with the predicted cycles."""

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hwgen.cost import cost_report, predict_program, stream_tiles
from hwgen.program import Program, linear_program
from sim.activity import cycle_breakdown
from sim.case import BenchCase
from sim.cocotb_bench import run_cocotb
from sim.harness import (
    HarnessContext,
    MemoryTiming,
    RunRequest,
    SimulationError,
    build_harness,
    run_harness,
)
from sim.open_build import OpenBuild, choose_layers, program_bytes, stream_beats, stream_file
from sim.recording import Recording
from sim.results import LayerResult, Progress, SimulationResult
from sim.sentences import read_sentences, sentence_vectors
from sim.vectors import Comparison, compare_outputs, count_saturations, pack_inputs, random_vectors

SIM_DIRECTORY = "sim"
"""Folder inside a build that keeps compiled benches."""

STALLED_FACTOR = 60
"""A run with random waits is given up after this many times the predicted cycles."""

WATCHDOG_CYCLES = 1 << 20

PREDICTED_COUNTERS = {"busy_cycles": "busy", "weight_wait_cycles": "weight_wait",
                      "drain_wait_cycles": "drain_wait", "load_cycles": "load", "store_cycles": "store"}
"""Registers, and the fields of a prediction that they must equal."""


@dataclass(frozen=True, kw_only=True)
class SimulationRequest:
    """What to simulate.

    Parameters
    ----------
    bench : str
        ``harness`` (C++, fast) or ``cocotb``.
    layers : str
        ``all``, or a glob pattern of layer names.
    data : str
        ``random``, ``synthetic`` (sentences of the generated task), or a file of sentences.
    limit : int
        Runs: sentences, or random inputs.
    tokens : int, optional
        Sequence length S; the longest that the build holds unless given.
    seed : int
        Of random inputs.
    timing : MemoryTiming
        With stalls, words are compared under random waits and cycles come from a nominal run besides.
    recording : sim.recording.Recording
        Of the first nominal run.
    """

    bench: str = "harness"
    layers: str = "all"
    data: str = "random"
    limit: int = 1
    tokens: int | None = None
    seed: int = 0
    timing: MemoryTiming = field(default_factory=MemoryTiming)
    recording: Recording = field(default_factory=Recording)


def simulate_layers(build: OpenBuild, request: SimulationRequest, *, program: Program | None = None,
                    progress: Progress | None = None) -> SimulationResult:
    """Simulate the linear layers of a build.

    Parameters
    ----------
    build : OpenBuild
    request : SimulationRequest
    program : hwgen.program.Program, optional
        Instead of the linear program of the chosen layers; then data must be ``random``.
    progress : callable(str, int, int), optional
        Called with what is going on, and the cycles simulated and to simulate.

    Returns
    -------
    SimulationResult

    Raises
    ------
    PlanError, TaskError, BundleError, ToolError
        If the request does not fit the build, its data cannot be read, or a tool is missing.
    SimulationError
        If a run broke an AXI rule, hung, or ended with an error status.
    """
    progress = progress or (lambda what, done, total: None)
    plan = build.plan
    if program is None:
        program = linear_program(plan, choose_layers(plan, request.layers), request.tokens)
    sets = vector_sets(build, program, request)
    nominal = request.timing.nominal
    try:
        prediction = predict_program(plan, program, nominal)
    except ValueError as error:  # a latency beyond what is predicted exactly
        raise SimulationError(str(error)) from error
    progress("compiling", 0, 0)
    executable = build_harness(build.verilog, build.directory / SIM_DIRECTORY,
                               context=HarnessContext(wave=request.recording.wave is not None))
    bench = _Bench(build, program, prediction, executable, progress, request)
    with tempfile.TemporaryDirectory(prefix="hwgen-weights-") as scratch:
        bench.weights = stream_file(build, program, Path(scratch))
        for index, vectors in enumerate(sets):
            bench.run(index, vectors, Recording() if index else request.recording)
    return bench.result(cost_report(plan, program, nominal))


class _Bench:
    """Runs one program again and again and adds up what it finds."""

    def __init__(self, build, program, prediction, executable, progress, request):
        self.build, self.program, self.prediction = build, program, prediction
        self.executable, self.progress, self.request = executable, progress, request
        self.weights = None
        self.bytes = program_bytes(build, program)
        self.comparisons = {name: [] for name in program.layers}
        self.layer_cycles = dict.fromkeys(program.layers, 0)
        self.runs = self.cycles = self.stalled_cycles = 0
        self.prediction_mismatches = self.saturations = self.expected_saturations = 0
        self.wall_seconds = self.cpu_seconds = 0.0
        self.reports = []

    def run(self, index, vectors, recording):
        """A nominal run, whose cycles count, and with stalls or cocotb one more; both compare every word."""
        memory = pack_inputs(self.program, vectors, self.build.lanes).tobytes()
        nominal = self.request.timing.nominal
        with tempfile.TemporaryDirectory(prefix="hwgen-recording-") as scratch:
            report = self._harness(f"run {index + 1}", memory, nominal, vectors,
                                   **recording.arguments(scratch))
            recording.write(scratch, self.build.plan, self.program,
                            stream_tiles(self.build.plan, self.program))
        self._count_cycles(report)
        self.expected_saturations += count_saturations(self.build.bundle, self.program, vectors,
                                                       self.build.lanes)
        if self.request.bench == "cocotb":
            self._cocotb(index, memory, vectors)
        elif self.request.timing.stalls:
            timing = replace(self.request.timing, stalls=self.request.timing.stalls + index)
            report = self._harness(f"run {index + 1}, random waits", memory, timing, vectors)
            self.stalled_cycles += report.counters["cycles"]
        self.runs += 1

    def _harness(self, what, memory, timing, vectors, **extra):
        program, expected = self.program, self.prediction.cycles
        limit = expected * (STALLED_FACTOR if timing.stalls else 1) + 2 * WATCHDOG_CYCLES
        request = RunRequest(
            program=self.bytes, weights=self.weights, input=memory, pool=self.build.pool, timing=timing,
            weights_beats=stream_beats(self.build.plan, program.layers),
            output_bytes=program.output_bytes, max_cycles=limit)
        report, output = run_harness(self.executable, request, **extra,
                                     progress=lambda done: self.progress(what, done, expected))
        self.progress(what, expected, expected)
        if report.error:
            raise SimulationError(f"{what}: {report.error}")
        self.wall_seconds += report.wall_seconds
        self.cpu_seconds += report.cpu_seconds
        for name, comparison in compare_outputs(program, vectors, output, self.build.lanes).items():
            self.comparisons[name].append(comparison)
        return report

    def _cocotb(self, index, memory, vectors):
        """The same program in the cocotb bench; a failure of the bench itself is an error."""
        case = bench_case(self.build, self.program, vectors, memory=memory, weights=self.weights)
        seed = self.request.timing.stalls + index if self.request.timing.stalls else 0
        self.progress(f"run {index + 1}, cocotb", 0, 0)
        outcome = run_cocotb(self.build.verilog, case, self.build.directory / SIM_DIRECTORY / "cocotb",
                             tests="program_is_bit_exact", stalls=(seed,))
        if not outcome.reports:
            raise SimulationError(f"cocotb: {'; '.join(outcome.messages.values()) or 'no run was reported'}")
        self.stalled_cycles += outcome.reports[0]["counters"]["cycles"]
        for name, found in outcome.reports[0]["layers"].items():
            self.comparisons[name].append(Comparison(**found))

    def _count_cycles(self, report):
        cycles, profile = report.counters["cycles"], report.profile
        self.reports.append(report)
        self.cycles += cycles
        self.saturations += report.counters["saturations"]
        self.prediction_mismatches += sum(got != expected for got, expected
                                          in zip(profile, self.prediction.dispatches, strict=True))
        self.prediction_mismatches += sum(report.counters[name] != getattr(self.prediction, field)
                                          for name, field in PREDICTED_COUNTERS.items())
        starts = [profile[self.program.matmuls[name]] for name in self.program.layers]
        for name, start, end in zip(self.program.layers, starts, [*starts[1:], cycles], strict=True):
            self.layer_cycles[name] += end - start

    def result(self, cost):
        """Everything so far as a SimulationResult."""
        request, multipliers = self.request, cost.multipliers
        layers = tuple(self._layer(layer, multipliers) for layer in cost.layers)
        macs = sum(layer.macs for layer in layers)
        waited = request.timing.stalls or request.bench == "cocotb"
        return SimulationResult(
            bench=request.bench, whole_encoder=False, data=str(request.data), runs=self.runs,
            tokens=self.program.tokens,
            read_latency=request.timing.read_latency, write_latency=request.timing.write_latency,
            stalls=request.timing.stalls, stalled_cycles=self.stalled_cycles if waited else None,
            words=sum(layer.words for layer in layers), mismatches=sum(layer.mismatches for layer in layers),
            padding_values=sum(layer.padding_values for layer in layers), cycles=self.cycles,
            predicted_cycles=self.runs * self.prediction.cycles,
            utilization=macs / (multipliers * self.cycles) if self.cycles else 0.0, macs=macs,
            prediction_mismatches=self.prediction_mismatches, saturations=self.saturations,
            expected_saturations=self.expected_saturations,
            wall_seconds=self.wall_seconds, cpu_seconds=self.cpu_seconds, layers=layers,
            first_mismatch=next((layer.first_mismatch for layer in layers if layer.first_mismatch), None),
            breakdown=cycle_breakdown(self.reports),
            sequences_per_second=self.runs / max(self.wall_seconds, 1e-9))

    def _layer(self, cost, multipliers):
        found, cycles = self.comparisons[cost.name], self.layer_cycles[cost.name]
        macs = self.runs * cost.useful_macs
        first = next((comparison.first for comparison in found if comparison.first), None)
        return LayerResult(
            name=cost.name, words=sum(c.words for c in found), mismatches=sum(c.mismatches for c in found),
            padding_values=sum(c.padding_values for c in found), cycles=cycles,
            predicted_cycles=self.runs * cost.cycles, macs=macs,
            utilization=macs / (multipliers * cycles) if cycles else 0.0,
            first_mismatch=str(first) if first else None)


def bench_case(build, program, vectors, *, memory, weights):
    """The case file of one run for the cocotb bench.

    Parameters
    ----------
    build : OpenBuild
    program : hwgen.program.Program
    vectors : dict of str to LayerVectors
    memory : bytes
        Input memory, see :func:`sim.vectors.pack_inputs`.
    weights : Path
        Weight stream, see :func:`stream_file`.

    Returns
    -------
    BenchCase
    """
    predicted = predict_program(build.plan, program).cycles
    return BenchCase(
        program=np.frombuffer(program.pack(), np.uint8), weights=np.fromfile(weights, np.uint8),
        input=np.frombuffer(memory, np.uint8), pool=np.frombuffer(build.pool, np.uint8),
        weights_beats=stream_beats(build.plan, program.layers),
        lanes=build.lanes, max_cycles=STALLED_FACTOR * predicted + 100_000,
        configuration=build.plan.spec.configuration,
        outputs={tensor.name: (tensor.offset, vectors[tensor.name].y) for tensor in program.outputs})


def vector_sets(build, program, request):
    """Yield the vectors of each run of a linear program: dict of str to :class:`sim.vectors.LayerVectors`."""
    if request.limit < 1:
        raise ValueError(f"limit must be at least 1, not {request.limit}")
    if request.data == "random":
        return (random_vectors(build.bundle, program, seed=request.seed + i) for i in range(request.limit))
    if any(program.sources[name] is not None for name in program.layers):
        raise ValueError("sentences need a program that loads every layer's input; use random data")
    sentences = read_sentences(build.bundle, request.data, request.limit)
    return sentence_vectors(build.bundle, sentences, program.tokens, set(program.layers))
