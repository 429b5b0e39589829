"""Whole encoders in simulation: hidden states in, hidden states out, every word against the golden model."""

import tempfile
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from compressor.golden_model import GoldenModel
from hwgen.build_directory import BuildError
from hwgen.cost import encoder_macs
from hwgen.encoder_memory import input_memory, output_states, strides
from hwgen.encoder_program import encoder_program
from hwgen.encoder_stream import encoder_packets, stream_beats, stream_items
from hwgen.memory_image import write_packets
from rtl_templates.prediction import predict
from rtl_templates.register_map import LENGTHS
from sim.activity import cycle_breakdown
from sim.encoder_case import compare_in_cocotb
from sim.harness import HarnessContext, MemoryTiming, RunRequest, SimulationError, build_harness, run_harness
from sim.open_build import OpenBuild
from sim.recording import Recording
from sim.results import Progress, SimulationResult
from sim.runner import PREDICTED_COUNTERS, SIM_DIRECTORY, STALLED_FACTOR, WATCHDOG_CYCLES
from sim.sentences import read_sentences
from sim.vectors import compare_words


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderOutput:
    """What one run of the accelerator gave.

    Parameters
    ----------
    words : dict of str to list of uint8 arrays
        Bytes in word order of each output, by encoder layer; one array a sequence.
    hidden : int64 array, shape (sequences, tokens, hidden)
        Last hidden states.
    report : sim.harness.RunReport
    predicted_cycles : int
        With the nominal memory.
    prediction_mismatches : int
        Descriptors of the last sequence that were not dispatched in the predicted cycle, and counters that
        differ from the prediction; meaningless under random waits.
    """

    words: dict
    hidden: np.ndarray
    report: object
    predicted_cycles: int
    prediction_mismatches: int


class EncoderBench:
    """The generated Verilog of a build, ready to run its encoder; use it as a context manager.

    Parameters
    ----------
    build : sim.open_build.OpenBuild
    tokens : int, optional
        Sequence length; the longest that the build holds unless given.
    every_layer : bool
        Store every layer's output, not the last one's alone.
    timing : MemoryTiming
    wave : bool
        Whether runs can be recorded as waves (slower).
    """

    def __init__(self, build, *, tokens=None, every_layer=False, timing=None, wave=False):
        self.build, self.plan = build, build.plan
        self.timing = timing or MemoryTiming()
        self.program = encoder_program(self.plan, tokens, every_layer=every_layer)
        self.items = stream_items(self.plan, self.program.tokens)
        self.beats = stream_beats(self.plan, self.items)
        self.wave = wave
        self._scratch = tempfile.TemporaryDirectory(prefix="hwgen-encoder-")
        self.weights = self._stream()

    @cached_property
    def executable(self):
        """The C++ bench; compiled when first needed."""
        return build_harness(self.build.verilog, self.build.directory / SIM_DIRECTORY,
                             context=HarnessContext(wave=self.wave))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._scratch.cleanup()

    def predict(self, lengths):
        """Prediction (:mod:`rtl_templates.prediction`) of a run of sequences with these valid lengths."""
        return predict(self.plan.spec, self.program.descriptors, self.items, self.timing.nominal,
                       [int(length) for length in lengths])

    def run(self, x, lengths, *, timing=None, recording=None, progress=None):
        """Run sequences one after another, without the host between them.

        Parameters
        ----------
        x : int8 array, shape (sequences, tokens, hidden)
        lengths : int array, shape (sequences,)
            Valid tokens.
        timing : MemoryTiming, optional
            Of this run, instead of the bench's.
        recording : sim.recording.Recording, optional
        progress : callable(int), optional
            Called with the clock cycles simulated so far.

        Returns
        -------
        EncoderOutput

        Raises
        ------
        SimulationError
            If the run broke an AXI rule, hung, or ended with an error status.
        """
        program, lanes, count = self.program, self.build.lanes, len(x)
        timing, recording = timing or self.timing, recording or Recording()
        if not 1 <= count <= LENGTHS:
            raise ValueError(f"a run takes 1 to {LENGTHS} sequences, not {count}")
        input_stride, output_stride = strides(program)
        try:
            prediction = self.predict(lengths)
        except ValueError as error:  # a latency beyond what is predicted exactly
            raise SimulationError(str(error)) from error
        factor = STALLED_FACTOR if timing.stalls else 1
        request = RunRequest(
            program=program.pack(), weights=self.weights, input=input_memory(program, x, lanes).tobytes(),
            weights_beats=self.beats, output_bytes=count * output_stride, pool=self.build.pool,
            lengths=np.asarray(lengths, "<u4").tobytes(), sequences=count, input_stride=input_stride,
            output_stride=output_stride, timing=timing,
            max_cycles=factor * prediction.cycles + 2 * WATCHDOG_CYCLES)
        executable = self.executable
        with tempfile.TemporaryDirectory(prefix="hwgen-recording-") as scratch:
            report, output = run_harness(executable, request, progress=progress,
                                         **recording.arguments(scratch))
            if report.error:
                raise SimulationError(f"encoder of {count} sequences: {report.error}")
            recording.write(scratch, self.plan, program, self.items, count)
        sequences = output.reshape(count, output_stride)
        words = {tensor.name: [one[tensor.offset:tensor.offset + tensor.bytes] for one in sequences]
                 for tensor in program.outputs}
        wrong = sum(got != expected for got, expected
                    in zip(report.profile, prediction.dispatches, strict=True))
        wrong += sum(report.counters[name] != getattr(prediction, one)
                     for name, one in PREDICTED_COUNTERS.items())
        return EncoderOutput(words=words, hidden=output_states(program, sequences, lanes), report=report,
                             predicted_cycles=prediction.cycles, prediction_mismatches=wrong)

    def golden(self, x, lengths):
        """Outputs of the golden model by encoder layer, int64 arrays (sequences, tokens, hidden)."""
        trace = self.build.bundle.encoder.trace(x, lengths)
        return {attention.name: layer["output"]
                for attention, layer in zip(self.plan.attention, trace, strict=True)}

    def compare(self, output, x, lengths):
        """Comparison of every output with the golden model: list of (layer, sim.vectors.Comparison)."""
        golden = self.golden(x, lengths)
        return [(name, compare_words(name, one, expected, self.build.lanes))
                for name, sequences in output.words.items()
                for one, expected in zip(sequences, golden[name], strict=True)]

    def _stream(self):
        expected = self.beats * self.plan.spec.bus_bits // 8
        stored = self.build.directory / "weights" / "weights.bin"
        if self.program.tokens == self.plan.tokens:
            if stored.stat().st_size != expected:
                raise BuildError(f"{stored} has {stored.stat().st_size} bytes; the plan says {expected}: "
                                 "build again")
            return stored
        path = Path(self._scratch.name) / "weights"
        write_packets(encoder_packets(self.build.bundle, self.plan, self.program.tokens),
                      self.plan.spec.bus_bits, path)
        return path


@dataclass(frozen=True, kw_only=True)
class EncoderRequest:
    """What to simulate of a whole encoder; fields as in :class:`sim.runner.SimulationRequest`.

    ``every_layer`` compares each layer's output; ``sequences`` is how many run in one go. Words of the cocotb
    bench are compared besides those of the C++ bench, whose cycles count.
    """

    bench: str = "harness"
    data: str = "random"
    limit: int = 1
    tokens: int | None = None
    seed: int = 0
    every_layer: bool = False
    sequences: int = 1
    timing: MemoryTiming = field(default_factory=MemoryTiming)
    recording: Recording = field(default_factory=Recording)


def simulate_encoder(build: OpenBuild, request: EncoderRequest, *,
                     progress: Progress | None = None) -> SimulationResult:
    """Run the encoder of a build and compare every output word with the golden model.

    Parameters
    ----------
    build : sim.open_build.OpenBuild
    request : EncoderRequest
    progress : callable(str, int, int), optional

    Returns
    -------
    sim.results.SimulationResult

    Raises
    ------
    PlanError, TaskError, BundleError, ToolError, SimulationError
    """
    progress = progress or (lambda what, done, total: None)
    progress("compiling", 0, 0)
    timing = request.timing
    comparisons, outputs, stalled_cycles, wall, cpu = [], [], 0, 0.0, 0.0
    with EncoderBench(build, tokens=request.tokens, every_layer=request.every_layer, timing=timing.nominal,
                      wave=request.recording.wave is not None) as bench:
        x, lengths = encoder_inputs(build, request, bench.program.tokens)
        for start in range(0, len(x), request.sequences):
            part = slice(start, start + request.sequences)
            total = bench.predict(lengths[part]).cycles

            def run(what, total=total, part=part, **how):
                output = bench.run(x[part], lengths[part], **how,
                                   progress=lambda done: progress(what, done, total))
                comparisons.extend(one for _, one in bench.compare(output, x[part], lengths[part]))
                return output

            outputs.append(run(f"run {start + 1}", recording=None if start else request.recording))
            runs = outputs[-1:]
            seed = timing.stalls + start if timing.stalls else 0
            if request.bench == "cocotb":
                progress(f"run {start + 1}, cocotb", 0, 0)
                found, cycles = compare_in_cocotb(bench, x[part], lengths[part], stalls=seed)
                comparisons.extend(found)
                stalled_cycles += cycles
            elif seed:
                runs.append(run(f"run {start + 1}, random waits",
                                timing=replace(timing, stalls=seed)))
                stalled_cycles += runs[-1].report.counters["cycles"]
            wall += sum(one.report.wall_seconds for one in runs)
            cpu += sum(one.report.cpu_seconds for one in runs)
    first = next((one.first for one in comparisons if one.first), None)
    cycles = sum(one.report.counters["cycles"] for one in outputs)
    macs = len(x) * encoder_macs(build.plan, bench.program.tokens)
    return SimulationResult(
        bench=request.bench, whole_encoder=True, data=str(request.data), runs=len(x),
        tokens=bench.program.tokens,
        read_latency=timing.read_latency, write_latency=timing.write_latency, stalls=timing.stalls,
        stalled_cycles=stalled_cycles or None,
        words=sum(one.words for one in comparisons), mismatches=sum(one.mismatches for one in comparisons),
        padding_values=sum(one.padding_values for one in comparisons),
        first_mismatch=str(first) if first else None, cycles=cycles,
        predicted_cycles=sum(one.predicted_cycles for one in outputs), macs=macs,
        utilization=macs / (build.plan.spec.array.multipliers * cycles),
        breakdown=cycle_breakdown(one.report for one in outputs),
        prediction_mismatches=sum(one.prediction_mismatches for one in outputs),
        saturations=sum(one.report.counters["saturations"] for one in outputs), expected_saturations=None,
        wall_seconds=wall, cpu_seconds=cpu, sequences_per_second=len(x) / max(wall, 1e-9))


def encoder_inputs(build, request, tokens):
    """Inputs, int8 (sequences, tokens, hidden), and their lengths: random, or from sentences."""
    if request.data == "random":
        rng = np.random.default_rng(request.seed)
        hidden = build.bundle.model["config"]["hidden_size"]
        x = np.clip(np.rint(rng.normal(0, 40, (request.limit, tokens, hidden))), -127, 127).astype(np.int8)
        lengths = rng.integers(1, tokens + 1, request.limit)
        lengths[0] = tokens
        return x, lengths
    from compressor.reload import encode, to_tokenizer

    sentences = read_sentences(build.bundle, request.data, request.limit)
    golden, parts = GoldenModel.of(build.bundle), []
    for batch in encode(to_tokenizer(build.bundle), sentences, tokens):
        parts.append(golden.inputs(batch))
    return tuple(np.concatenate(one) for one in zip(*parts, strict=True))
