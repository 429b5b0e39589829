"""The command ``hwgen sim``."""

from pathlib import Path

import click

from hwgen.build_directory import BuildError, load_plan, verify_build
from hwgen.plan import PlanError
from sim.command import finish, one_line_errors, progress_bars
from sim.harness import MemoryTiming
from sim.recording import WAVE_CYCLES
from sim.results import breakdown_text


class CycleRange(click.ParamType):
    """Two cycles, ``FIRST:LAST``; the value is the first one and the one behind the last."""

    name = "FIRST:LAST"

    def convert(self, value, param, ctx):
        """Pair of int."""
        first, _, last = str(value).partition(":")
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            self.fail(f"{value!r} is no range of cycles; give two numbers, for example 0:19999", param, ctx)
        return int(first), int(last) + 1


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
@click.option("--trace", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write of the first run DIR/wave.fst (every signal) and DIR/trace.json (what each unit "
                   "does, for Perfetto and chrome://tracing).")
@click.option("--timeline", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Draw what each unit does in the first run as an SVG picture.")
@click.option("--trace-cycles", type=CycleRange(),
              help="Cycles in the wave and the picture.  [default: wave "
                   f"{WAVE_CYCLES[0]}:{WAVE_CYCLES[1] - 1}, picture the first encoder layer]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def sim(build, bench, layers, every_layer, data, limit, tokens, stalls, read_latency, write_latency, seed,
        trace, timeline, trace_cycles, as_json):
    """Simulate the generated Verilog (or HLS C++) in BUILD; compare every output word with the golden model.

    Exit code 1 if a word differs, or if the cycles are not those that were predicted.
    """
    from sim import api
    from sim.hls_run import HlsResult, hls_text

    common = {"layers": layers, "every_layer": every_layer, "data": data, "limit": limit, "tokens": tokens,
              "seed": seed}
    with one_line_errors(as_json):
        load_plan(build)  # raises for what is no build
        _warn_of_changes(build)
        if bench == "hls" and (stalls or trace or timeline):
            raise PlanError("--stalls, --trace and --timeline are for Verilog; C simulation has no cycles")
        with progress_bars(limit) as progress:
            if bench == "hls":
                result = api.simulate_hls(build, **common, progress=progress)
            else:
                result = api.simulate(build, bench=bench, stalls=stalls, read_latency=read_latency,
                                      write_latency=write_latency, trace=trace, timeline=timeline,
                                      trace_cycles=trace_cycles, **common, progress=progress)
    finish(result, hls_text if isinstance(result, HlsResult) else result_text, as_json)


def _warn_of_changes(build):
    """A changed file is simulated as it is: finding out what a change does is what a simulator is for."""
    try:
        verify_build(build)
    except BuildError as error:
        click.echo(f"warning: {error}", err=True)


def result_text(result):
    """What the command prints: a table of the layers, what ran, where the cycles went, the verdict."""
    lines = [*_table(result), ""] if result.layers else []
    what = "whole encoder, " if result.whole_encoder else ""
    lines += [f"{what}{result.runs} run{'s' * (result.runs != 1)} of {result.tokens} tokens, "
              f"data: {result.data}; {result.macs:,} useful MACs, "
              f"utilization {100 * result.utilization:.1f} %",
              f"nominal memory: {result.read_latency} cycles to the first word read, "
              f"{result.write_latency} to the answer of a write"]
    if result.stalled_cycles is not None:
        what = f"random waits (seed {result.stalls})" if result.stalls else "the models of the cocotb bench"
        lines.append(f"words were compared with {what} too: {result.stalled_cycles:,} cycles; "
                     "the cycles given here are those of the nominal memory")
    if result.padding_values:
        lines.append(f"{result.padding_values:,} values of lanes past the last token were not compared")
    lines += breakdown_text(result.breakdown)
    verdict = "passed" if result.passed else "FAILED"
    lines.append(f"{verdict}: {result.words:,} output words compared, {result.mismatches:,} mismatches; "
                 f"{result.cycles:,} cycles, {result.predicted_cycles:,} predicted; "
                 f"{result.sequences_per_second:.2f} sequences/s of simulation")
    return "\n".join(lines)


def _table(result):
    rows = [("layer", "words", "mismatches", "cycles", "predicted", "utilization")]
    rows += [_row(layer.name, layer) for layer in result.layers]
    rows.append(_row("all, start to done", result))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) if not column else cell.rjust(width)
                      for column, (cell, width) in enumerate(zip(row, widths, strict=True))) for row in rows]


def _row(name, result):
    return (name, f"{result.words:,}", f"{result.mismatches:,}", f"{result.cycles:,}",
            f"{result.predicted_cycles:,}", f"{100 * result.utilization:.1f} %")
