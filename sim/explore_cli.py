"""The commands ``hwgen explore`` and ``hwgen fit``: here, because a chosen point can be simulated."""

import json
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from compressor.bundle import load_bundle
from compressor.text_file import write_text
from hwgen.design_points import Evaluator
from hwgen.devices import DEVICES
from hwgen.packaging import build
from hwgen.plan import PlanError
from hwgen.planner import PlanRequest
from hwgen.report.explore_page import explore_data, explore_page
from hwgen.report.files import render
from rtl_templates.array_spec import Accumulation, PoolStorage
from sim.command import keep, one_line_errors

MODEL = click.option("--model", required=True, type=click.Path(path_type=Path), help="The bundle, pruned.pt.")
DEVICE = click.option("--device", required=True, help=f"One of {', '.join(DEVICES)}.")
TOKENS = click.option("--tokens", type=click.IntRange(min=1), help="Sequence length.  [default: the model's]")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
CONFIRM = click.option("--confirm", is_flag=True, help="Build the best point and simulate it.")


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
def explore_command(model, device, tokens, points, out, storage, study, workers, confirm, as_json):
    """Search the sizes of an accelerator: cycles against resources and memory traffic.

    Interrupted, it goes on where it stopped; a search with the same --storage and --study joins in.
    """
    from hwgen.explore import ExploreRequest, explore

    with one_line_errors(as_json):
        evaluator = Evaluator(load_bundle(model), device, tokens)
        out.mkdir(parents=True, exist_ok=True)
        request = ExploreRequest(
            model=str(model), device=device, tokens=evaluator.tokens, points=points,
            storage=storage or f"sqlite:///{(out / 'explore.db').resolve()}",
            study=study or f"{device}-{evaluator.tokens}")
        with _bar("points", points) as show:
            found = explore(evaluator, request, workers=workers, progress=show)
        data = explore_data(found, evaluator, model)
        if not found.front:
            raise PlanError(f"none of {len(found.evaluations)} points fits {device}; use fewer --tokens or a "
                            "larger device")
        write_text(out / "explore.json", json.dumps(data, indent=1, sort_keys=True) + "\n")
        write_text(out / "explore.html", render("explore.html", explore_page(found, data)))
        if confirm:
            data["confirmed"] = _confirm(model, found.thriftiest.point, evaluator, out / "confirmed")
    if as_json:
        click.echo(json.dumps(data))
        return
    for line in explore_lines(data):
        click.echo(line)
    if evaluator.seconds:
        click.echo(f"{evaluator.points_per_second:,.0f} points evaluated in a second of processor time")
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
def fit_command(model, device, tokens, latency_ms, clock_mhz, out, confirm, as_json):
    """Find the smallest accelerator that meets a latency; exit code 1, with the reason, if none does."""
    from hwgen.smallest import smallest

    with one_line_errors(as_json):
        evaluator = Evaluator(load_bundle(model), device, tokens)
        clock = clock_mhz or evaluator.device.assumed_clock_mhz
        with _bar("points", None) as show:
            fit = smallest(evaluator, int(latency_ms * clock * 1e3), show)
        if fit.found is None:
            raise PlanError(_reason(fit, evaluator, latency_ms, clock))
        one = fit.found
        data = {**one.to_dict(), "milliseconds": one.cycles / clock / 1e3, "clock_mhz": clock,
                "command": one.point.command(model, "BUILD", device, evaluator.tokens)}
        if confirm:
            data["confirmed"] = _confirm(model, one.point, evaluator, out)
    if as_json:
        click.echo(json.dumps(data))
        return
    click.echo(f"{_point(data)}: {data['milliseconds']:.3f} ms at {clock:g} MHz "
               f"({'given' if clock_mhz else 'assumed'}), {one.cycles:,} cycles (exact), {one.luts:,} LUT, "
               f"{one.dsps:,} DSP, {one.rams:,} RAM (modelled)")
    click.echo(data["command"])
    if confirm:
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


def _reason(fit, evaluator, latency_ms, clock):
    """Why nothing meets a latency, and what sparsity would."""
    asked = f"no accelerator on {evaluator.device.name} meets {latency_ms:g} ms at {clock:g} MHz"
    if fit.fastest is None:
        return f"{asked}: none fits the device at {evaluator.tokens} tokens; use fewer --tokens"
    one, bundle = fit.fastest, evaluator.bundle
    line = (f"{asked}, {fit.limit:,} cycles: the fastest that fits, R = {one.point.rows} and "
            f"T = {one.point.lanes}, takes {one.cycles:,} ({one.cycles / clock / 1e3:.3f} ms)")
    if fit.needed_share is None:
        return (f"{line}; no sparsity of the linear layers would: without their weights it still takes "
                f"{fit.least_cycles:,}; use fewer --tokens or a larger device")
    kept = bundle.kept_weights / bundle.weights
    return (f"{line}; with {100 * fit.needed_share * kept:.0f} % of the weights kept instead of "
            f"{100 * kept:.0f} % it would (by the cost model); prune more, use fewer --tokens or a larger "
            "device")


def _confirm(model, point, evaluator, out):
    """Build a point, simulate one random sequence, and say what came out."""
    from sim.encoder_run import EncoderRequest, simulate_encoder
    from sim.open_build import open_build
    from sim.runner import SimulationRequest, simulate

    built = build(model, out, PlanRequest(
        device=evaluator.device.name, tokens=evaluator.tokens, rows=point.rows, lanes=point.lanes,
        bus_bits=point.bus_bits, storage=PoolStorage(point.pool),
        accumulation=Accumulation(point.accumulation)))
    opened, whole = open_build(out), bool(built.plan.attention)
    result = simulate_encoder(opened, EncoderRequest()) if whole else simulate(opened, SimulationRequest())
    keep(opened, "encoder" if whole else "layers",
         {"bench": "harness", "data": "random", "seed": 0, "stalls": 0}, result)
    if not result.passed:
        raise PlanError(f"{out}: the simulation does not confirm the plan; run hwgen sim {out}")
    return {"directory": str(out), "words": result.words, "mismatches": result.mismatches,
            "cycles": result.cycles, "evaluated_cycles": evaluator(point).cycles}


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
