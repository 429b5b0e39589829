"""C simulation of a build's HLS C++: every output word against the golden model, no cycles."""

import tempfile
import time
from dataclasses import asdict, dataclass
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
from sim.encoder_run import encoder_inputs
from sim.hls_bench import compile_bench
from sim.open_build import choose_layers
from sim.runner import vector_sets
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
class HlsResult:
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

    @property
    def passed(self):
        """Every word equal to the golden model."""
        return self.words > 0 and self.mismatches == 0

    def to_dict(self):
        """Plain values, for JSON."""
        return {"passed": self.passed, **asdict(self)}


def simulate_hls_layers(build, request, *, progress=None, include=None):
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
    progress = progress or (lambda what, done, total: None)
    plan = build.plan
    names = choose_layers(plan, request.layers)
    program = linear_program(plan, names, request.tokens)
    indices = {layer.name: index for index, layer in enumerate(plan.layers)}
    progress("compiling", 0, 0)
    bench = compile_bench(build, "tb_linear", include=include)
    found, runs, wall = {name: [] for name in names}, 0, 0.0
    for vectors in vector_sets(build, program, request):
        progress(f"run {runs + 1}", runs, request.limit)
        with tempfile.TemporaryDirectory(prefix="hwgen-hls-") as scratch:
            cases = [LinearCase(layer=indices[name], name=f"linear{indices[name]}", x=vectors[name].x,
                                y=vectors[name].y) for name in names]
            write_linear_cases(cases, build.lanes, scratch)
            wall += _timed(bench, scratch)
            for name, case in zip(names, cases, strict=True):
                found[name].append(compare_words(name, _output(scratch, case.name), case.y, build.lanes))
        runs += 1
    return _result(found, request.data, runs, program.tokens, wall)


def simulate_hls_encoder(build, request, *, progress=None, include=None):
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
    progress = progress or (lambda what, done, total: None)
    tokens = build.plan.tokens if request.tokens is None else request.tokens
    build.plan.groups(tokens)  # refuses what does not fit
    progress("compiling", 0, 0)
    bench = compile_bench(build, "tb_encoder", include=include)
    operators = compile_bench(build, "tb_operators", include=include) if request.every_layer else None
    x, lengths = encoder_inputs(build, request, tokens)
    found, wall = {"encoder": []}, 0.0
    for start in range(0, len(x), request.sequences):
        part = slice(start, start + request.sequences)
        progress(f"run {start + 1}", start, len(x))
        golden = build.bundle.encoder.compute(x[part], lengths[part])
        with tempfile.TemporaryDirectory(prefix="hwgen-hls-") as scratch:
            case = EncoderCase(name="encoder", x=x[part], y=golden, lengths=lengths[part])
            write_encoder_case(case, build.lanes, scratch)
            wall += _timed(bench, scratch)
            outputs = np.split(_output(scratch, case.name), len(golden))
        found["encoder"] += [compare_words("encoder", one, expected, build.lanes)
                             for one, expected in zip(outputs, golden, strict=True)]
    if operators:
        for index, length in enumerate(lengths):
            wall += _run_operators(build, operators, x[index], int(length), found)
    return _result(found, request.data, len(x), tokens, wall)


def _run_operators(build, bench, x, length, found):
    """Run every operator on one sequence's tensors, add the comparisons to ``found``; seconds taken."""
    cases = list(operator_cases(build.bundle.encoder, x.astype(np.int64), length))
    with tempfile.TemporaryDirectory(prefix="hwgen-hls-") as scratch:
        write_operator_cases(cases, build.lanes, scratch)
        wall = _timed(bench, scratch)
        for case in cases:
            name = f"{build.plan.attention[case.layer].name}: {case.operator}"
            compare = _compare_map if case.y.ndim == 3 else compare_words
            found.setdefault(name, []).append(
                compare(name, _output(scratch, case.name), case.y, build.lanes))
    return wall


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


def _timed(bench, folder):
    start = time.perf_counter()
    bench.run(folder)
    return time.perf_counter() - start


def _output(folder, name):
    return np.fromfile(Path(folder) / f"{name}.output.bin", np.uint8)


def _result(found, data, runs, tokens, wall):
    parts = []
    for name, comparisons in found.items():
        first = next((one.first for one in comparisons if one.first), None)
        parts.append(HlsPart(name=name, words=sum(one.words for one in comparisons),
                             mismatches=sum(one.mismatches for one in comparisons),
                             padding_values=sum(one.padding_values for one in comparisons),
                             first_mismatch=str(first) if first else None))
    first = next((part.first_mismatch for part in parts if part.first_mismatch), None)
    return HlsResult(data=str(data), runs=runs, tokens=tokens, words=sum(part.words for part in parts),
                     mismatches=sum(part.mismatches for part in parts),
                     padding_values=sum(part.padding_values for part in parts), first_mismatch=first,
                     wall_seconds=wall, layers=tuple(parts))


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


def hls_problems(result):
    """What is wrong with a C simulation, one line each; empty if it passed."""
    if result.passed:
        return []
    lines = [f"{result.mismatches:,} of {result.words:,} output words differ from the golden model"]
    return lines + [part.first_mismatch for part in result.layers if part.first_mismatch][:10]
