"""What ``hwgen sim`` and ``hwgen eval`` do, as functions. They keep what they find in the build."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from compressor.text_file import StrPath
from hwgen import api
from hwgen.design_points import Evaluation
from hwgen.plan import PlanError
from hwgen.report.refresh import refresh_report
from hwgen.results import record, record_timeline, timeline_path
from sim import evaluation
from sim.encoder_run import EncoderRequest, simulate_encoder
from sim.harness import MemoryTiming
from sim.hls_run import HlsResult, simulate_hls_encoder, simulate_hls_layers
from sim.open_build import OpenBuild, open_build
from sim.recording import Recording
from sim.results import Progress, Result, SimulationResult
from sim.runner import SimulationRequest, simulate_layers

NOMINAL = MemoryTiming()


def simulate(build: StrPath, *, bench: str = "harness", layers: str = "all", every_layer: bool = False,
             data: StrPath = "random", limit: int = 1, tokens: int | None = None, stalls: int = 0,
             read_latency: int = NOMINAL.read_latency, write_latency: int = NOMINAL.write_latency,
             seed: int = 0, trace: StrPath | None = None, timeline: StrPath | None = None,
             trace_cycles: tuple[int, int] | None = None,
             progress: Progress | None = None) -> SimulationResult:
    """Simulate a build's Verilog and compare every output word with the golden model: `hwgen sim`.

    The result is kept in the build, and its report written anew.

    Parameters
    ----------
    build : path
    bench : str
        ``harness``: C++ (fast); ``cocotb``: that, and cocotb with AXI models besides (for small builds).
    layers : str
        Linear layers to run, a glob pattern; ``all``: the whole encoder where the build has its units, else
        every linear layer.
    every_layer : bool
        Whole encoder: compare the output of every layer.
    data : str or path
        ``random``, ``synthetic`` (sentences of the generated task), or a .jsonl, .jsonl.gz, .tsv or .csv
        file.
    limit : int
        Runs: sentences, or random inputs.
    tokens : int, optional
        Sequence length; what the build holds unless given.
    stalls : int
        Seed of random waits on every AXI channel, under which words are compared as well; 0: none. Cycles
        always come from a run with the nominal memory.
    read_latency, write_latency : int
        Of the nominal memory, in clock cycles.
    seed : int
        Of random inputs.
    trace : path, optional
        Folder for ``wave.fst`` and ``trace.json`` of the first run.
    timeline : path, optional
        SVG file of what each unit does in the first run.
    trace_cycles : (int, int), optional
        First cycle, and the one behind the last, of wave and timeline.
    progress : callable(str, int, int), optional

    Returns
    -------
    SimulationResult
        ``passed`` if every word is equal and the cycles are those that were predicted.

    Raises
    ------
    BuildError, PlanError, BundleError, TaskError, ToolError, SimulationError
    """
    opened = open_build(build)
    whole = _is_whole(opened, layers, every_layer)
    picture = Path(timeline) if timeline is not None else None
    if whole and bench == "harness" and picture is None:
        picture = timeline_path(opened.directory)
    timing = MemoryTiming(read_latency=read_latency, write_latency=write_latency, stalls=stalls)
    recording = Recording(timeline=picture, cycles=trace_cycles)
    if trace is not None:
        recording = replace(recording, wave=Path(trace) / "wave.fst", trace=Path(trace) / "trace.json")
    recording.make_folders()  # before the simulator is built, which takes a while
    if whole:
        found = simulate_encoder(opened, EncoderRequest(
            bench=bench, data=str(data), limit=limit, tokens=tokens, seed=seed, every_layer=every_layer,
            timing=timing, recording=recording), progress=progress)
    else:
        found = simulate_layers(opened, SimulationRequest(
            bench=bench, layers=layers, data=str(data), limit=limit, tokens=tokens, seed=seed, timing=timing,
            recording=recording), progress=progress)
    _keep(opened, "encoder" if whole else "layers", {
        "bench": bench, "layers": layers, "every_layer": every_layer, "data": str(data), "limit": limit,
        "tokens": tokens, "stalls": stalls, "read_latency": read_latency, "write_latency": write_latency,
        "seed": seed}, found, picture)
    return found


def simulate_hls(build: StrPath, *, layers: str = "all", every_layer: bool = False, data: StrPath = "random",
                 limit: int = 1, tokens: int | None = None, seed: int = 0,
                 progress: Progress | None = None) -> HlsResult:
    """Run a build's HLS C++ with g++ and compare every output word: `hwgen sim --bench hls`.

    The result is kept in the build, and its report written anew. C simulation has no cycles.

    Parameters
    ----------
    build : path
    every_layer : bool
        Whole encoder: compare every operator of every layer, on golden inputs.
    layers, data, limit, tokens, seed, progress
        As for :func:`simulate`.

    Returns
    -------
    HlsResult

    Raises
    ------
    BuildError, PlanError, BundleError, TaskError, ToolError, SimulationError
    """
    opened = open_build(build)
    if _is_whole(opened, layers, every_layer):
        found = simulate_hls_encoder(opened, EncoderRequest(
            data=str(data), limit=limit, tokens=tokens, seed=seed, every_layer=every_layer),
            progress=progress)
    else:
        found = simulate_hls_layers(opened, SimulationRequest(
            layers=layers, data=str(data), limit=limit, tokens=tokens, seed=seed), progress=progress)
    _keep(opened, "hls", {"bench": "hls", "layers": layers, "every_layer": every_layer, "data": str(data),
                          "limit": limit, "tokens": tokens, "stalls": 0, "seed": seed}, found)
    return found


def evaluate(build: StrPath, data: StrPath, *, limit: int = 64, sequences: int = 8,
             progress: Progress | None = None) -> evaluation.EvaluationResult:
    """Accuracy of a build's Verilog, its golden model, and both torch models: `hwgen eval`.

    The result is kept in the build, and its report written anew.

    Parameters
    ----------
    build : path
    data : str or path
        Labelled rows: a .jsonl, .jsonl.gz, .tsv or .csv file, or ``synthetic``.
    limit : int
        Rows at most, from the first.
    sequences : int
        Rows that the accelerator runs in one go, 1 to 1024.
    progress : callable(str, int, int), optional

    Returns
    -------
    EvaluationResult
        ``passed`` if Verilog and golden model agree in every word.

    Raises
    ------
    BuildError, PlanError, BundleError, TaskError, ToolError, SimulationError
    """
    opened = open_build(build)
    found = evaluation.evaluate_build(opened, data, limit=limit, sequences=sequences, progress=progress)
    _keep(opened, "evaluation", {"data": str(data), "limit": limit}, found)
    return found


def confirm(model: StrPath, evaluated: Evaluation, out: StrPath, *, device: str,
            tokens: int) -> dict[str, Any]:
    """Build a design point and simulate one random sequence on it: `hwgen explore --confirm`.

    Parameters
    ----------
    model : path
        The bundle.
    evaluated : hwgen.design_points.Evaluation
        The point, and the cycles that simulation must give.
    out : path
        Directory for the build.
    device : str
    tokens : int

    Returns
    -------
    dict
        ``directory``, ``words``, ``mismatches``, ``cycles`` (simulated) and ``evaluated_cycles``.

    Raises
    ------
    BundleError, PlanError, BuildError, ToolError, SimulationError
        PlanError also if a word differs, or the cycles are not those evaluated.
    """
    point = evaluated.point
    api.build(model, out, device=device, tokens=tokens, rows=point.rows, lanes=point.lanes,
              bus_bits=point.bus_bits, pool=point.pool, accumulation=point.accumulation)
    found = simulate(out)
    if not found.passed or found.cycles != evaluated.cycles:
        raise PlanError(f"{out}: the simulation does not confirm the plan; run hwgen sim {out}")
    return {"directory": str(out), "words": found.words, "mismatches": found.mismatches,
            "cycles": found.cycles, "evaluated_cycles": evaluated.cycles}


def _is_whole(build: OpenBuild, layers: str, every_layer: bool) -> bool:
    """Whether a simulation runs the whole encoder; PlanError if that is asked for and it does not."""
    whole = bool(build.plan.attention) and layers == "all"
    if every_layer and not whole:
        raise PlanError("--every-layer is for whole encoders; this run has linear layers alone")
    return whole


def _keep(build: OpenBuild, kind: str, request: dict[str, Any], found: Result,
          timeline: Path | None = None) -> None:
    """Write a result down in its build, and the build's report anew."""
    record(build.directory, kind, request, found.to_dict())
    if timeline is not None:
        record_timeline(build.directory, timeline)
    refresh_report(build.directory, build.bundle)
