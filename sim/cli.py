"""The command ``hwgen sim``."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from compressor.bundle import BundleError
from compressor.task_files import TaskError
from hwgen.packaging import BuildError, verify_build
from hwgen.plan import PlanError
from hwgen.toolchain import ToolError
from sim.harness import MemoryTiming, SimulationError
from sim.results import SimulationResult, encoder_problems, problems

ERRORS = (BundleError, BuildError, PlanError, TaskError, ToolError, SimulationError)


@click.command("sim")
@click.argument("build", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--bench", type=click.Choice(("harness", "cocotb", "hls")), default="harness",
              show_default=True,
              help="C++ bench (fast); cocotb with AXI models besides (slow; for small builds); or C "
                   "simulation of the build's HLS C++ (no cycles).")
@click.option("--layers", default="all", show_default=True, metavar="GLOB",
              help="Linear layers to run, for example '*attention*'; all: the whole encoder where the build "
                   "has its units, else every linear layer.")
@click.option("--every-layer", is_flag=True,
              help="Whole encoder: compare the output of every layer; with --bench hls, of every operator "
                   "of every layer on golden inputs.")
@click.option("--data", default="random", show_default=True, metavar="FILE|random|synthetic",
              help="Inputs: sentences of a .jsonl[.gz], .tsv or .csv file, random values, or sentences "
                   "of the generated task.")
@click.option("--limit", type=click.IntRange(min=1), default=1, show_default=True,
              help="Runs: sentences, or random inputs.")
@click.option("--tokens", type=click.IntRange(min=1), help="Sequence length; default: what the build holds.")
@click.option("--stalls", type=click.IntRange(0, 2**32 - 1), default=0, metavar="SEED",
              help="Compare words under random waits on every AXI channel as well. Cycles still come "
                   "from a run with the nominal memory.")
@click.option("--read-latency", type=click.IntRange(min=1), default=MemoryTiming().read_latency,
              show_default=True, help="Of the nominal memory, in clock cycles.")
@click.option("--write-latency", type=click.IntRange(min=1), default=MemoryTiming().write_latency,
              show_default=True, help="Of the nominal memory, in clock cycles.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of random inputs.")
@click.option("--trace", type=click.Path(dir_okay=False, path_type=Path), help="Write a wave file (VCD).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def sim(build, bench, layers, every_layer, data, limit, tokens, stalls, read_latency, write_latency, seed,
        trace, as_json):
    """Simulate the generated Verilog (or HLS C++) in BUILD; compare every output word with the golden model.

    Exit code 1 if a word differs, or if the cycles are not those that were predicted.
    """
    from sim.encoder_run import EncoderRequest, EncoderResult, simulate_encoder
    from sim.hls_run import HlsResult, hls_problems, hls_text, simulate_hls_encoder, simulate_hls_layers
    from sim.open_build import open_build
    from sim.runner import SimulationRequest, simulate

    timing = MemoryTiming(read_latency=read_latency, write_latency=write_latency, stalls=stalls)
    common = {"data": data, "limit": limit, "tokens": tokens, "seed": seed, "timing": timing, "trace": trace}
    try:
        opened = open_build(build)
        _warn_of_changes(build)
        whole = opened.plan.attention and layers == "all"
        if every_layer and not whole:
            raise PlanError("--every-layer is for whole encoders; this run has linear layers alone")
        if bench == "hls" and (stalls or trace):
            raise PlanError("--stalls and --trace are for Verilog; C simulation has no cycles")
        with progress_bars(limit) as progress:
            if bench == "hls" and whole:
                result = simulate_hls_encoder(opened, EncoderRequest(every_layer=every_layer, **common),
                                              progress=progress)
            elif bench == "hls":
                result = simulate_hls_layers(opened, SimulationRequest(layers=layers, **common),
                                             progress=progress)
            elif whole:
                request = EncoderRequest(bench=bench, every_layer=every_layer, **common)
                result = simulate_encoder(opened, request, progress=progress)
            else:
                result = simulate(opened, SimulationRequest(bench=bench, layers=layers, **common),
                                  progress=progress)
    except ERRORS as error:
        if as_json:
            click.echo(json.dumps({"passed": False, "error": str(error)}))
        raise click.ClickException(str(error)) from error
    text, faults = {EncoderResult: (encoder_text, encoder_problems), HlsResult: (hls_text, hls_problems),
                    SimulationResult: (result_text, problems)}[type(result)]
    click.echo(json.dumps(result.to_dict()) if as_json else text(result))
    if not result.passed:
        for line in faults(result):
            click.echo(f"FAILED: {line}", err=True)
        sys.exit(1)


def _warn_of_changes(build):
    """A changed file is simulated as it is: finding out what a change does is what a simulator is for."""
    try:
        verify_build(build)
    except BuildError as error:
        click.echo(f"warning: {error}", err=True)


def encoder_text(result):
    """What the command prints of a whole encoder."""
    lines = [f"whole encoder, {result.runs} run{'s' * (result.runs != 1)} of {result.tokens} tokens, "
             f"data: {result.data}"]
    if result.stalls:
        lines.append(f"under random waits (seed {result.stalls})")
    if result.padding_values:
        lines.append(f"{result.padding_values:,} values of lanes past the last token were not compared")
    verdict = "passed" if result.passed else "FAILED"
    lines.append(f"{verdict}: {result.words:,} output words compared, {result.mismatches:,} mismatches; "
                 f"{result.cycles:,} cycles, {result.predicted_cycles:,} predicted; "
                 f"{result.sequences_per_second:.2f} sequences/s of simulation")
    return "\n".join(lines)


def result_text(result):
    """The table that the command prints."""
    rows = [("layer", "words", "mismatches", "cycles", "predicted", "utilization")]
    rows += [_row(layer.name, layer) for layer in result.layers]
    rows.append(_row("all, start to done", result))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) if not column else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows]
    lines += ["", f"{result.runs} run{'s' * (result.runs != 1)} of {result.tokens} tokens, "
                  f"data: {result.data}; {result.macs:,} useful MACs",
              f"nominal memory: {result.read_latency} cycles to the first word read, "
              f"{result.write_latency} to the answer of a write"]
    if result.stalled_cycles is not None:
        what = f"random waits (seed {result.stalls})" if result.stalls else "the models of the cocotb bench"
        lines.append(f"words were compared with {what} too: {result.stalled_cycles:,} cycles; "
                     "the cycles above are those of the nominal memory")
    if result.padding_values:
        lines.append(f"{result.padding_values:,} values of lanes past the last token were not compared")
    verdict = "passed" if result.passed else "FAILED"
    lines.append(f"{verdict}: {result.words:,} output words compared, {result.mismatches:,} mismatches; "
                 f"{result.cycles:,} cycles, {result.predicted_cycles:,} predicted")
    return "\n".join(lines)


def _row(name, result):
    return (name, f"{result.words:,}", f"{result.mismatches:,}", f"{result.cycles:,}",
            f"{result.predicted_cycles:,}", f"{100 * result.utilization:.1f} %")


@contextmanager
def progress_bars(runs=None):
    """Callback of :func:`sim.runner.simulate` that draws bars on standard error."""
    amount = "{task.completed:,.0f} cycles" if runs else "{task.completed} rows"
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn(amount),
               TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("starting", total=None)

        def show(what, done, total):
            bars.update(bar, description=f"{what} of {runs}" if runs and what.startswith("run") else what,
                        completed=done, total=total or None)

        yield show
