"""Whole encoders in simulation: hidden states in, hidden states out, every word against the golden model."""

import tempfile
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from compressor.golden_model import GoldenModel
from hwgen.encoder_program import encoder_program
from hwgen.encoder_stream import encoder_packets, stream_beats, stream_items
from hwgen.memory_image import write_packets
from hwgen.packaging import BuildError
from rtl_templates.register_map import LENGTHS
from rtl_templates.timing import predict
from rtl_templates.word_format import unpack_words
from sim.encoder_case import compare_in_cocotb, input_memory, strides
from sim.harness import HarnessContext, MemoryTiming, RunRequest, SimulationError, build_harness, run_harness
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
    trace : Path, optional
        Wave file (VCD) of the next run.
    """

    def __init__(self, build, *, tokens=None, every_layer=False, timing=None, trace=None):
        self.build, self.plan = build, build.plan
        self.timing, self.trace = timing or MemoryTiming(), trace
        self.program = encoder_program(self.plan, tokens, every_layer=every_layer)
        self.items = stream_items(self.plan, self.program.tokens)
        self.beats = stream_beats(self.plan, self.items)
        self._scratch = tempfile.TemporaryDirectory(prefix="hwgen-encoder-")
        self.weights = self._stream()

    @cached_property
    def executable(self):
        """The C++ bench; compiled when first needed."""
        return build_harness(self.build.verilog, self.build.directory / SIM_DIRECTORY,
                             context=HarnessContext(trace=self.trace is not None))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._scratch.cleanup()

    def predict(self, lengths):
        """Exact cycles of a run of sequences with these valid lengths: rtl_templates.timing.Prediction."""
        return predict(self.plan.spec, self.program.descriptors, self.items, self.timing.nominal,
                       [int(length) for length in lengths])

    def run(self, x, lengths, *, progress=None):
        """Run sequences one after another, without the host between them.

        Parameters
        ----------
        x : int8 array, shape (sequences, tokens, hidden)
        lengths : int array, shape (sequences,)
            Valid tokens.
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
        if not 1 <= count <= LENGTHS:
            raise ValueError(f"a run takes 1 to {LENGTHS} sequences, not {count}")
        input_stride, output_stride = strides(program)
        try:
            prediction = self.predict(lengths)
        except ValueError as error:  # a latency beyond what is predicted exactly
            raise SimulationError(str(error)) from error
        factor = STALLED_FACTOR if self.timing.stalls else 1
        request = RunRequest(
            program=program.pack(), weights=self.weights, input=input_memory(program, x, lanes).tobytes(),
            weights_beats=self.beats, output_bytes=count * output_stride, pool=self.build.pool,
            lengths=np.asarray(lengths, "<u4").tobytes(), sequences=count, input_stride=input_stride,
            output_stride=output_stride, timing=self.timing,
            max_cycles=factor * prediction.cycles + 2 * WATCHDOG_CYCLES)
        executable = self.executable
        extra, self.trace = {"trace": self.trace} if self.trace else {}, None
        report, output = run_harness(executable, request, progress=progress, **extra)
        if report.error:
            raise SimulationError(f"encoder of {count} sequences: {report.error}")
        sequences = output.reshape(count, output_stride)
        words = {tensor.name: [one[tensor.offset:tensor.offset + tensor.bytes] for one in sequences]
                 for tensor in program.outputs}
        last = program.outputs[-1]
        hidden = [unpack_words(np.ascontiguousarray(one).reshape(-1, last.channels // 4, 4 * lanes), lanes,
                               last.tokens) for one in words[last.name]]
        wrong = sum(got != expected for got, expected
                    in zip(report.profile, prediction.dispatches, strict=True))
        wrong += sum(report.counters[name] != getattr(prediction, one)
                     for name, one in PREDICTED_COUNTERS.items())
        return EncoderOutput(words=words, hidden=np.stack(hidden).astype(np.int64), report=report,
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
    trace: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EncoderResult:
    """A simulation of whole sequences.

    Parameters
    ----------
    data : str
    runs, tokens : int
        Sequences, and tokens of each, padding included.
    words, mismatches, padding_values : int
        Output words compared with the golden model, words with a wrong value, and values of lanes past the
        last token, which are not compared.
    first_mismatch : str or None
    cycles, predicted_cycles : int
        Of all sequences: simulated, and predicted with the nominal memory.
    prediction_mismatches : int
        Dispatches and counters that differ from the prediction; 0 under random waits, where none is made.
    saturations : int
    stalls : int
        Seed of random waits; 0 is the nominal memory.
    wall_seconds, sequences_per_second : float
        Time of the bench, and its speed.
    """

    data: str
    runs: int
    tokens: int
    words: int
    mismatches: int
    padding_values: int
    first_mismatch: str | None
    cycles: int
    predicted_cycles: int
    prediction_mismatches: int
    saturations: int
    stalls: int
    wall_seconds: float
    sequences_per_second: float

    @property
    def passed(self):
        """Every word equal to the golden model; without random waits, every cycle as predicted."""
        exact = self.cycles == self.predicted_cycles and not self.prediction_mismatches
        return self.words > 0 and self.mismatches == 0 and (exact or self.stalls > 0)

    def to_dict(self):
        """Plain values, for JSON."""
        return {"passed": self.passed, **asdict(self)}


def simulate_encoder(build, request, *, progress=None):
    """Run the encoder of a build and compare every output word with the golden model.

    Parameters
    ----------
    build : sim.open_build.OpenBuild
    request : EncoderRequest
    progress : callable(str, int, int), optional

    Returns
    -------
    EncoderResult

    Raises
    ------
    PlanError, TaskError, BundleError, ToolError, SimulationError
    """
    progress = progress or (lambda what, done, total: None)
    progress("compiling", 0, 0)
    comparisons, outputs = [], []
    with EncoderBench(build, tokens=request.tokens, every_layer=request.every_layer, timing=request.timing,
                      trace=request.trace) as bench:
        x, lengths = encoder_inputs(build, request, bench.program.tokens)
        for start in range(0, len(x), request.sequences):
            part = slice(start, start + request.sequences)
            total = bench.predict(lengths[part]).cycles
            outputs.append(bench.run(x[part], lengths[part], progress=lambda done, start=start, total=total:
                                     progress(f"run {start + 1}", done, total)))
            comparisons += [one for _, one in bench.compare(outputs[-1], x[part], lengths[part])]
            if request.bench == "cocotb":
                progress(f"run {start + 1}, cocotb", 0, 0)
                seed = request.timing.stalls + start if request.timing.stalls else 0
                comparisons += compare_in_cocotb(bench, x[part], lengths[part], stalls=seed)
    wall = sum(one.report.wall_seconds for one in outputs)
    first = next((one.first for one in comparisons if one.first), None)
    return EncoderResult(
        data=str(request.data), runs=len(x), tokens=bench.program.tokens,
        words=sum(one.words for one in comparisons), mismatches=sum(one.mismatches for one in comparisons),
        padding_values=sum(one.padding_values for one in comparisons),
        first_mismatch=str(first) if first else None,
        cycles=sum(one.report.counters["cycles"] for one in outputs),
        predicted_cycles=sum(one.predicted_cycles for one in outputs),
        prediction_mismatches=0 if request.timing.stalls else sum(one.prediction_mismatches
                                                                  for one in outputs),
        saturations=sum(one.report.counters["saturations"] for one in outputs),
        stalls=request.timing.stalls, wall_seconds=wall, sequences_per_second=len(x) / max(wall, 1e-9))


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
