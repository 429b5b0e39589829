"""The commands ``hwgen explore`` and ``hwgen fit``: here, because a chosen point can be simulated."""

import json
import math
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hwgen.devices import DEVICES
from hwgen.plan import PlanError
from sim.command import one_line_errors

MODEL = click.option("--model", required=True, type=click.Path(path_type=Path), help="The bundle, pruned.pt.")
DEVICE = click.option("--device", required=True, help=f"One of {', '.join(DEVICES)}.")
TOKENS = click.option("--tokens", type=click.IntRange(min=1), help="Sequence length.  [default: the model's]")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
SHOWN = 20
"""Points of the front that are printed."""

FRONT_HEAD = (f"{'R':>3s} {'T':>3s} {'bus':>4s} {'pool':6s} {'sums':6s} {'cycles':>12s} {'ms':>8s} "
              f"{'LUT':>9s} {'DSP':>6s} {'RAM':>5s} {'bytes':>12s}")

CONFIRM = click.option("--confirm", "confirming", is_flag=True, help="Build the best point and simulate it.")


@click.command("explore")
@click.option("--model", "models", required=True, multiple=True, type=click.Path(path_type=Path),
              help="The bundle, pruned.pt. Several of one task are compared, with the accuracies that their "
                   "exports measured.")
@DEVICE
@TOKENS
@click.option("--recipe", "recipes", multiple=True, metavar="RECIPE",
              help="Prune the dense --model by this preset or file, without training, and explore that as "
                   "well; may be repeated.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE,VALUE...",
              help="Values to try in each recipe (pool.size=16,32); repeated options are combined.")
@click.option("--train-from", metavar="MODEL",
              help="With --recipe: the dense model, from which the printed commands train.")
@click.option("--points", type=click.IntRange(min=1), default=2000, show_default=True,
              help="Different points to evaluate, of each model; fewer if there are no more.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("exploration"),
              show_default=True, help="Directory for page, data and database.")
@click.option("--storage", metavar="URL",
              help="Database, for workers on several machines; needs its driver.  [default: sqlite in --out]")
@click.option("--study", help="Name in the database.  [default: device and tokens]")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True,
              help="Processes on this machine.")
@CONFIRM
@JSON
def explore_command(models, device, recipes, changes, train_from, points, confirming, as_json, **options):
    """Search the sizes of an accelerator: cycles against resources and memory traffic.

    Several models, or recipes, are searched one after the other; points of different models compete by the
    measured accuracy, or by the retained energy of what is not trained.

    Interrupted, it goes on where it stopped; a search with the same --storage and --study joins in.
    """
    from compressor.recipes import RecipeError, parse_changes
    from hwgen import search_api
    from hwgen.report.explore_page import explore_data
    from hwgen.report.variants_page import variants_data
    from sim.api import confirm

    out, alone = options["out"], len(models) == 1 and not (recipes or changes or train_from)
    with one_line_errors(as_json, RecipeError):
        if confirming and not alone:
            raise PlanError("--confirm builds the best point of one model; with several, run the command of "
                            "the point that you choose")
        tried = parse_changes(changes)
        models_tried = len(models) + len(recipes) * math.prod(len(values) for values in tried.values())
        with _bar("points", points * models_tried) as show:
            if alone:
                found = search_api.explore(models[0], device, points=points, progress=show, **options)
                data = explore_data(found)
            else:
                data = variants_data(search_api.explore_variants(
                    models, device, recipes=recipes, changes=tried, train_from=train_from,
                    points=points, progress=show, **options))
        if confirming:
            data["confirmed"] = confirm(models[0], found.thriftiest, out / "confirmed", device=device,
                                        tokens=found.tokens)
    if as_json:
        click.echo(json.dumps(data))
        return
    for line in explore_lines(data) if alone else variant_lines(data):
        click.echo(line)
    if alone and found.points_per_second:
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
    from hwgen import search_api
    from sim.api import confirm

    with one_line_errors(as_json):
        with _bar("points", None) as show:
            found = search_api.fit(model, device, latency_ms, tokens=tokens, clock_mhz=clock_mhz,
                                   progress=show)
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
    yield FRONT_HEAD
    yield from map(_front_line, data["front"][:SHOWN])
    yield from _rest(data["front"])
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


def variant_lines(data):
    """What `hwgen explore` prints of several models or recipes."""
    from hwgen.report.variants_page import quality_text

    yield (f"{data['points']:,} points of {len(data['variants'])} models evaluated, "
           f"{data['points_that_fit']:,} fit {data['device']} at {data['tokens']} tokens, "
           f"{len(data['front'])} on the Pareto front")
    width = max(len(one["name"]) for one in data["variants"])
    yield (f"{'':{width}s} {'':>8s} {'':>8s} {'default':>23s} {'fewest cycles':>23s} "
           f"{'least LUTs x cycles':>23s}")
    yield (f"{'':{width}s} {'quality':>8s} {'kept':>8s}" + f" {'cycles':>12s} {'LUT':>10s}" * 3)
    for one in data["variants"]:
        best = "".join(f" {'none fits':>12s} {'':10s}" if one[key] is None else
                       f" {one[key]['cycles']:12,} {one[key]['luts']:10,}"
                       for key in ("default", "fastest", "thriftiest"))
        yield f"{one['name']:{width}s} {quality_text(one['quality']):>8s} {100 * one['kept']:6.1f} %{best}"
    yield f"quality: {data['measure'] or 'no export measured it; each model has a front of its own'}"
    yield f"{'':{width}s} {FRONT_HEAD}"
    for one in data["front"][:SHOWN]:
        yield f"{one['variant']:{width}s} {_front_line(one)}"
    yield from _rest(data["front"])
    yield "commands are in the page and in explore.json"


def _front_line(one):
    point = one["point"]
    return (f"{point['rows']:3d} {point['lanes']:3d} {point['bus_bits']:4d} {point['pool']:6s} "
            f"{point['accumulation']:6s} {one['cycles']:12,} {one['milliseconds']:8.3f} "
            f"{one['luts']:9,} {one['dsps']:6,} {one['rams']:5,} {one['bytes']:12,}")


def _rest(front):
    if len(front) > SHOWN:
        yield f"and {len(front) - SHOWN} more, in the page"
    yield "cycles are exact with the nominal memory, resources are modelled, the clock is assumed"


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
