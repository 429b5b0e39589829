"""C simulation of a build's HLS C++: every output word against the golden model, no cycles."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwgen.hls.vectors import (
    EncoderCase,
    LinearCase,
    operator_cases,
    pack_tensor,
    write_encoder_case,
    write_linear_cases,
    write_operator_cases,
)
from hwgen.program import linear_program
from sim.encoder_run import EncoderRequest, encoder_inputs
from sim.hls_bench import compile_bench
from sim.open_build import OpenBuild, choose_layers
from sim.results import Progress, Result
from sim.runner import SimulationRequest, vector_sets
from sim.vectors import Comparison, compare_words

COSIMULATION = "not run: C/RTL co-simulation, and cycles, need the vendor's HLS tool"


@dataclass(frozen=True, kw_only=True)
class HlsPart:
    """One linear layer, operator or encoder, summed over runs; fields as in :class:`HlsResult`."""

    name: str
    words: int
    mismatches: int
    padding_values: int
    first_mismatch: str | None


@dataclass(frozen=True, kw_only=True)
class HlsResult(Result):
    """A C simulation. Keys are those of the Verilog benches, where they mean something here.

    Parameters
    ----------
    data : str
        Where the inputs came from.
    runs, tokens : int
        Runs, and tokens in each.
    words, mismatches, padding_values : int
        Output words compared with the golden model, words with a wrong value, and values of lanes past
        the last token, which are not compared.
    first_mismatch : str or None
    wall_seconds : float
        Time that the C++ ran.
    layers : tuple of HlsPart
    bench : str
    cycles : None
        C simulation has none.
    cosimulation : str
        What was not done.
    """

    data: str
    runs: int
    tokens: int
    words: int
    mismatches: int
    padding_values: int
    first_mismatch: str | None
    wall_seconds: float
    layers: tuple[HlsPart, ...]
    bench: str = "hls"
    cycles: None = None
    cosimulation: str = COSIMULATION

    def problems(self) -> list[str]:
        """What is wrong, one line each; empty if every word equals the golden model.

        The first mismatches are named, at most ten of them.
        """
        if not self.words:
            return ["no output word was compared"]
        if not self.mismatches:
            return []
        return [f"{self.mismatches:,} of {self.words:,} output words differ from the golden model",
                *[part.first_mismatch for part in self.layers if part.first_mismatch][:10]]


def simulate_hls_layers(build: OpenBuild, request: SimulationRequest, *,
                        progress: Progress | None = None,
                        include: Path | None = None) -> HlsResult:
    """Run linear layers, each on an input of its own.

    Parameters
    ----------
    build : sim.open_build.OpenBuild
    request : sim.runner.SimulationRequest
    progress : callable(str, int, int), optional
    include : Path, optional
        See :func:`sim.hls_bench.compile_bench`.

    Returns
    -------
    HlsResult

    Raises
    ------
    PlanError, TaskError, BundleError, BuildError, ToolError, SimulationError
    """
    plan = build.plan
    names = choose_layers(plan, request.layers)
    program = linear_program(plan, names, request.tokens)
    indices = {layer.name: index for index, layer in enumerate(plan.layers)}
    runs = _Runs(build, progress, include)
    bench = runs.compile("tb_linear")
    for index, vectors in enumerate(vector_sets(build, program, request)):
        runs.progress(f"run {index + 1}", index, request.limit)
        cases = [LinearCase(layer=indices[name], name=f"linear{indices[name]}", x=vectors[name].x,
                            y=vectors[name].y) for name in names]
        outputs = runs.run(bench, write_linear_cases, cases, [case.name for case in cases])
        for name, case, output in zip(names, cases, outputs, strict=True):
            runs.add(compare_words(name, output, case.y, build.lanes), name)
    return runs.result(request.data, index + 1, program.tokens)


def simulate_hls_encoder(build: OpenBuild, request: EncoderRequest, *,
                         progress: Progress | None = None,
                         include: Path | None = None) -> HlsResult:
    """Run the encoder of a build; with ``every_layer`` each operator of each layer too, on golden inputs.

    Parameters
    ----------
    build : sim.open_build.OpenBuild
    request : sim.encoder_run.EncoderRequest
    progress, include
        As in :func:`simulate_hls_layers`.

    Returns
    -------
    HlsResult

    Raises
    ------
    PlanError, TaskError, BundleError, BuildError, ToolError, SimulationError
    """
    tokens = build.plan.tokens if request.tokens is None else request.tokens
    build.plan.groups(tokens)  # refuses what does not fit
    runs = _Runs(build, progress, include)
    bench = runs.compile("tb_encoder")
    operators = runs.compile("tb_operators") if request.every_layer else None
    x, lengths = encoder_inputs(build, request, tokens)
    for start in range(0, len(x), request.sequences):
        part = slice(start, start + request.sequences)
        runs.progress(f"run {start + 1}", start, len(x))
        golden = build.bundle.encoder.compute(x[part], lengths[part])
        case = EncoderCase(name="encoder", x=x[part], y=golden, lengths=lengths[part])
        (output,) = runs.run(bench, write_encoder_case, case, [case.name])
        for one, expected in zip(np.split(output, len(golden)), golden, strict=True):
            runs.add(compare_words("encoder", one, expected, build.lanes), "encoder")
    if operators:
        for one, length in zip(x, lengths, strict=True):
            _run_operators(runs, operators, one, int(length))
    return runs.result(request.data, len(x), tokens)


def _run_operators(runs, bench, x, length):
    """Run every operator of every layer on the golden tensors of one sequence."""
    build = runs.build
    cases = list(operator_cases(build.bundle.encoder, x.astype(np.int64), length))
    outputs = runs.run(bench, write_operator_cases, cases, [case.name for case in cases])
    for case, output in zip(cases, outputs, strict=True):
        name = f"{build.plan.attention[case.layer].name}: {case.operator}"
        compare = _compare_map if case.y.ndim == 3 else compare_words
        runs.add(compare(name, output, case.y, build.lanes), name)


class _Runs:
    """Compiles testbenches of a build, runs them and adds up comparisons and seconds."""

    def __init__(self, build, progress, include):
        self.build, self.include = build, include
        self.progress = progress or (lambda what, done, total: None)
        self.comparisons, self.wall_seconds = {}, 0.0

    def compile(self, bench):
        """Executable of a testbench: a :class:`sim.hls_bench.HlsBench`."""
        self.progress("compiling", 0, 0)
        return compile_bench(self.build, bench, include=self.include)

    def run(self, bench, write, cases, names):
        """Write cases by ``write(cases, lanes, folder)``, run them; returns the output bytes by name."""
        with tempfile.TemporaryDirectory(prefix="hwgen-hls-") as scratch:
            write(cases, self.build.lanes, scratch)
            start = time.perf_counter()
            bench.run(scratch)
            self.wall_seconds += time.perf_counter() - start
            return [np.fromfile(Path(scratch) / f"{name}.output.bin", np.uint8) for name in names]

    def add(self, comparison, part):
        """Count a comparison of a layer, an operator or the encoder."""
        self.comparisons.setdefault(part, []).append(comparison)

    def result(self, data, runs, tokens):
        """Everything so far as an HlsResult."""
        parts = []
        for name, found in self.comparisons.items():
            first = next((one.first for one in found if one.first), None)
            parts.append(HlsPart(name=name, words=sum(one.words for one in found),
                                 mismatches=sum(one.mismatches for one in found),
                                 padding_values=sum(one.padding_values for one in found),
                                 first_mismatch=str(first) if first else None))
        return HlsResult(data=str(data), runs=runs, tokens=tokens, words=sum(part.words for part in parts),
                         mismatches=sum(part.mismatches for part in parts),
                         padding_values=sum(part.padding_values for part in parts),
                         first_mismatch=next((part.first_mismatch for part in parts if part.first_mismatch),
                                             None),
                         wall_seconds=self.wall_seconds, layers=tuple(parts))


def _compare_map(name, output, expected, lanes):
    """Comparison of an attention map; its lanes and keys past the last token must be 0."""
    golden = pack_tensor(expected, lanes)
    wrong = (output != golden).reshape(-1, 4 * lanes).any(axis=1)
    first = None
    if wrong.any():
        byte = int((output != golden).argmax())
        first = (f"{name}: word {byte // (4 * lanes)}, byte {byte % (4 * lanes)}: "
                 f"got {output.view(np.int8)[byte]}, expected {golden.view(np.int8)[byte]}")
    return Comparison(words=len(wrong), mismatches=int(wrong.sum()), padding_values=0, first=first)


def hls_text(result):
    """What ``hwgen sim --bench hls`` prints."""
    width = max(len(part.name) for part in result.layers)
    lines = [f"{'':{width}}  {'words':>12}  mismatches"]
    lines += [f"{part.name:{width}}  {part.words:12,}  {part.mismatches:10,}" for part in result.layers]
    lines += ["", f"C simulation of the HLS C++ with g++, {result.runs} run{'s' * (result.runs != 1)} of "
                  f"{result.tokens} tokens, data: {result.data}"]
    if result.padding_values:
        lines.append(f"{result.padding_values:,} values of lanes past the last token were not compared")
    lines.append(result.cosimulation)
    verdict = "passed" if result.passed else "FAILED"
    lines.append(f"{verdict}: {result.words:,} output words compared, {result.mismatches:,} mismatches")
    return "\n".join(lines)
