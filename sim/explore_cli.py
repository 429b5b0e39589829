"""The commands ``hwgen explore`` and ``hwgen fit``: here, because a chosen point can be simulated."""

import json
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hwgen.devices import DEVICES
from sim.command import one_line_errors

MODEL = click.option("--model", required=True, type=click.Path(path_type=Path), help="The bundle, pruned.pt.")
DEVICE = click.option("--device", required=True, help=f"One of {', '.join(DEVICES)}.")
TOKENS = click.option("--tokens", type=click.IntRange(min=1), help="Sequence length.  [default: the model's]")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
CONFIRM = click.option("--confirm", "confirming", is_flag=True, help="Build the best point and simulate it.")


@click.command("explore")
@MODEL
@DEVICE
@TOKENS
@click.option("--points", type=click.IntRange(min=1), default=2000, show_default=True,
              help="Different points to evaluate; fewer if there are no more.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("exploration"),
              show_default=True, help="Directory for page, data and database.")
@click.option("--storage", metavar="URL",
              help="Database, for workers on several machines; needs its driver.  [default: sqlite in --out]")
@click.option("--study", help="Name in the database.  [default: device and tokens]")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True,
              help="Processes on this machine.")
@CONFIRM
@JSON
def explore_command(model, device, tokens, points, out, storage, study, workers, confirming, as_json):
    """Search the sizes of an accelerator: cycles against resources and memory traffic.

    Interrupted, it goes on where it stopped; a search with the same --storage and --study joins in.
    """
    from hwgen import api
    from hwgen.report.explore_page import explore_data
    from sim.api import confirm

    with one_line_errors(as_json):
        with _bar("points", points) as show:
            found = api.explore(model, device, tokens=tokens, points=points, out=out, storage=storage,
                                study=study, workers=workers, progress=show)
        data = explore_data(found)
        if confirming:
            data["confirmed"] = confirm(model, found.thriftiest, out / "confirmed", device=device,
                                        tokens=found.tokens)
    if as_json:
        click.echo(json.dumps(data))
        return
    for line in explore_lines(data):
        click.echo(line)
    if found.points_per_second:
        click.echo(f"{found.points_per_second:,.0f} points evaluated in a second of processor time")
    click.echo(f"{out / 'explore.html'}")


@click.command("fit")
@MODEL
@DEVICE
@TOKENS
@click.option("--latency-ms", required=True, type=click.FloatRange(min=0, min_open=True),
              help="What a sequence may take, in milliseconds.")
@click.option("--clock-mhz", type=click.FloatRange(min=1), help="Clock frequency.  [default: the device's, "
                                                                "assumed]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("fitted"),
              show_default=True, help="Directory of the build, with --confirm.")
@CONFIRM
@JSON
def fit_command(model, device, tokens, latency_ms, clock_mhz, out, confirming, as_json):
    """Find the smallest accelerator that meets a latency; exit code 1, with the reason, if none does."""
    from hwgen import api
    from sim.api import confirm

    with one_line_errors(as_json):
        with _bar("points", None) as show:
            found = api.fit(model, device, latency_ms, tokens=tokens, clock_mhz=clock_mhz, progress=show)
        one, data = found.evaluation, found.to_dict()
        if confirming:
            data["confirmed"] = confirm(model, one, out, device=device, tokens=found.tokens)
    if as_json:
        click.echo(json.dumps(data))
        return
    click.echo(f"{_point(data)}: {data['milliseconds']:.3f} ms at {found.clock_mhz:g} MHz "
               f"({'given' if clock_mhz else 'assumed'}), {one.cycles:,} cycles (exact), {one.luts:,} LUT, "
               f"{one.dsps:,} DSP, {one.rams:,} RAM (modelled)")
    click.echo(data["command"])
    if confirming:
        click.echo(_confirmed(data["confirmed"]))


def explore_lines(data):
    """What `hwgen explore` prints."""
    yield (f"{data['points']:,} points evaluated, {data['points_that_fit']:,} fit {data['device']} at "
           f"{data['tokens']} tokens, {len(data['front'])} on the Pareto front")
    yield f"{'R':>3s} {'T':>3s} {'bus':>4s} {'pool':6s} {'sums':6s} {'cycles':>12s} {'ms':>8s} {'LUT':>9s} " \
          f"{'DSP':>6s} {'RAM':>5s} {'bytes':>12s}"
    for one in data["front"][:20]:
        point = one["point"]
        yield (f"{point['rows']:3d} {point['lanes']:3d} {point['bus_bits']:4d} {point['pool']:6s} "
               f"{point['accumulation']:6s} {one['cycles']:12,} {one['milliseconds']:8.3f} "
               f"{one['luts']:9,} {one['dsps']:6,} {one['rams']:5,} {one['bytes']:12,}")
    if len(data["front"]) > 20:
        yield f"and {len(data['front']) - 20} more, in the page"
    yield "cycles are exact with the nominal memory, resources are modelled, the clock is assumed"
    for key, name in (("default", "the planner's default"), ("fastest", "fewest cycles"),
                      ("thriftiest", "least LUTs x cycles among the fast")):
        one = data[key]
        if one is None:
            continue
        ratios = data.get(f"{key}_against_default")
        yield (f"{name}: {_point(one)}: {one['cycles']:,} cycles, {one['luts']:,} LUT"
               + (f"; {ratios['cycles']:.3f} of the default's cycles, {ratios['luts_x_cycles']:.3f} of its "
                  "LUTs x cycles" if ratios else ""))
        yield f"  {one['command']}"
    if "confirmed" in data:
        yield _confirmed(data["confirmed"])


def _confirmed(data):
    return (f"confirmed by simulation in {data['directory']}: {data['cycles']:,} cycles, "
            f"{data['evaluated_cycles']:,} evaluated; {data['words']:,} words, {data['mismatches']:,} "
            "mismatches")


def _point(data):
    point = data["point"]
    return (f"R = {point['rows']}, T = {point['lanes']}, {point['bus_bits']}-bit bus, "
            f"pool in {point['pool']}, sums by {point['accumulation']}")


@contextmanager
def _bar(what, total):
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bars.add_task(what, total=total)

    with bars:
        yield lambda done: bars.update(task, completed=done)
