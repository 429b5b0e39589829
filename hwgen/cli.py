"""The command line ``hwgen``: parse, call the library, report."""

import functools
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from compressor.bundle import BundleError, load_bundle
from hwgen import reports
from hwgen.costs import cost_table, write_costs
from hwgen.devices import DEVICES
from hwgen.doctor import examine
from hwgen.inspection import inspect_bundle, inspect_lines
from hwgen.packaging import EMITTERS, BuildError, build, load_plan, verify_build, verilog_files
from hwgen.placement import place, placement_lines
from hwgen.plan import PlanError
from hwgen.planner import PlanRequest
from hwgen.results import record, refresh_report
from hwgen.synthesis import FAMILIES, synthesize
from hwgen.toolchain import ToolError
from hwgen.vendor import lattice
from rtl_templates.array_spec import Accumulation, PoolStorage

EXPECTED_ERRORS = (BundleError, PlanError, BuildError, ToolError, OSError)
"""Errors that end in one line; anything else is a defect and keeps its traceback."""

LAZY_COMMANDS = {"sim": "sim.cli:sim", "eval": "sim.eval_cli:evaluate_command",
                 "explore": "sim.explore_cli:explore_command", "fit": "sim.explore_cli:fit_command"}
"""Commands of packages that hwgen itself must not import."""


class _Group(click.Group):
    """Loads the commands of other packages only when they are asked for."""

    def list_commands(self, context):
        return sorted([*super().list_commands(context), *LAZY_COMMANDS])

    def get_command(self, context, name):
        if name not in LAZY_COMMANDS:
            return super().get_command(context, name)
        module, attribute = LAZY_COMMANDS[name].split(":")
        return getattr(importlib.import_module(module), attribute)


def one_line_errors(command):
    """Turn expected errors into one line on standard error and exit code 1."""
    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except EXPECTED_ERRORS as error:
            raise click.ClickException(" ".join(str(error).split("\n"))) from error
    return wrapped


def progress_bar():
    """A progress display on standard error; silent unless that is a terminal."""
    console = Console(stderr=True)
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
                    console=console, transient=True, disable=not console.is_terminal)


@click.group(cls=_Group)
@click.version_option(package_name="hwgen", message="%(package)s %(version)s")
def main():
    """Generate and prove FPGA accelerators for compressed BERT models."""


@main.command("build")
@click.option("--model", required=True, type=click.Path(path_type=Path), help="The bundle, pruned.pt.")
@click.option("--out", required=True, type=click.Path(path_type=Path),
              help="Directory for the build; an earlier build there is replaced.")
@click.option("--for", "hardware", type=click.Path(path_type=Path), metavar="BUILD",
              help="Make program, weights and patterns for the Verilog of this build, unchanged.")
@click.option("--device", help=f"Choose the sizes for a device: {', '.join(DEVICES)}.")
@click.option("--rows", type=int, help="Block units R: 4R output rows at a time.  [default: 4]")
@click.option("--lanes", type=int, help="Token lanes T.  [default: 8]")
@click.option("--pool", type=click.Choice(["rom", "ram"]),
              help="Pattern pool in logic, or loaded at run time.  [default: rom]")
@click.option("--tokens", type=int,
              help="Longest sequence.  [default: the model's, or what fits the device]")
@click.option("--bus-bits", type=int,
              help="Width of the memory ports.  [default: up to the device's, or 128]")
@click.option("--accumulation", type=click.Choice([a.value for a in Accumulation]),
              help="Sums in adder trees, inside the DSPs, or two lanes in a DSP48E2.  [default: by device]")
@click.option("--emit", default="verilog", show_default=True, metavar="LIST",
              help=f"What to generate, with commas between: {', '.join(EMITTERS)} (Vitis HLS C++).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@one_line_errors
def build_command(model, out, hardware, device, rows, lanes, pool, tokens, bus_bits, accumulation, emit,
                  as_json):
    """Generate an accelerator for a compressed model."""
    sizes = {"--device": device, "--rows": rows, "--lanes": lanes, "--pool": pool, "--bus-bits": bus_bits,
             "--accumulation": accumulation}
    chosen = [name for name, value in sizes.items() if value is not None]
    if hardware is not None and chosen:
        raise PlanError(f"{chosen[0]} cannot be chosen with --for: the hardware is that of {hardware}")
    request = PlanRequest(device=device, rows=rows, lanes=lanes, tokens=tokens, bus_bits=bus_bits,
                          storage=PoolStorage(pool) if pool else None,
                          accumulation=Accumulation(accumulation) if accumulation else None)
    with progress_bar() as bar:
        task = bar.add_task("hwgen build", total=None)
        built = build(model, out, request, lambda step: bar.update(task, description=step),
                      emit=tuple(emit.split(",")), hardware=hardware)
    plan, cost = built.plan, built.cost
    if as_json:
        array = plan.spec.array
        _print_json({"directory": str(built.directory), "configuration_hash": plan.configuration_hash,
                     "device": plan.device, "rows": array.units, "lanes": array.lanes,
                     "slots": array.assignment.slots, "pool": array.storage, "bus_bits": plan.spec.bus_bits,
                     "macs": array.multipliers, "tokens": plan.tokens, "predicted_cycles": cost.cycles,
                     "utilization": cost.utilization, "modelled_resources": plan.modelled,
                     "layers": [asdict(layer) for layer in cost.layers]})
        return
    click.echo(f"{built.directory}: configuration {plan.configuration_hash[:8]}"
               + (f", the Verilog of {hardware}" if hardware else ""))
    for line in reports.summary_lines(plan, cost):
        click.echo(f"  {line}")


@main.command("inspect")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--rows", type=int, help="Block units R for the cycle counts.  [default: 4]")
@click.option("--lanes", type=int, help="Token lanes T for the cycle counts.  [default: 8]")
@click.option("--tokens", type=int, help="Sequence length for the cycle counts.  [default: the model's]")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@one_line_errors
def inspect_command(model, rows, lanes, tokens, as_json):
    """Verify the bundle MODEL; print its layers and what its patterns cost."""
    facts = inspect_bundle(load_bundle(model), PlanRequest(rows=rows, lanes=lanes, tokens=tokens))
    if as_json:
        _print_json(facts)
        return
    for line in inspect_lines(facts):
        click.echo(line)


@main.command("costs")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="The file to write, for `budget: {costs: FILE}` in a recipe.")
@click.option("--device", help=f"Sizes as for this device: {', '.join(DEVICES)}.")
@click.option("--rows", type=int, help="Block units R.  [default: 4]")
@click.option("--lanes", type=int, help="Token lanes T.  [default: 8]")
@click.option("--tokens", type=int, help="Sequence length.  [default: the model's]")
@one_line_errors
def costs_command(model, out, device, rows, lanes, tokens):
    """Write what K-steps cost on the accelerator of the bundle MODEL, or of others with its sizes."""
    request = PlanRequest(device=device, rows=rows, lanes=lanes, tokens=tokens)
    values = cost_table(load_bundle(model), request)
    write_costs(values, out)
    click.echo(f"{out}: {values['cycles']:,} cycles for this bundle, {values['fixed_cycles']:,} of them "
               f"outside the passes of its linear layers; a K-step runs {values['token_groups']} times")


@main.command("synth")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--family", type=click.Choice(FAMILIES), help="Device family.  [default: the build's, or xcup]")
@click.option("--place", "placing", is_flag=True,
              help=f"Place and route for {lattice.DEVICE.part} with nextpnr instead, and print the clock "
                   "frequency reached.")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True,
              help="Placements to take the median of; only with --place.")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@one_line_errors
def synth_command(directory, family, placing, seeds, as_json):
    """Count the resources of the build in DIRECTORY with Yosys."""
    verify_build(directory)
    plan = load_plan(directory)
    if placing:
        if family is not None:
            raise ToolError(f"--family {family} cannot be placed here; --place is for {lattice.DEVICE.part}")
        verilog_files(directory)  # raises for a build without
        _refuse_without_dsp48e2(plan, lattice.DEVICE.family)
        with progress_bar() as bar:
            task = bar.add_task("hwgen synth", total=None)
            placement = place(directory, range(1, seeds + 1),
                              lambda what: bar.update(task, description=f"{what}; takes minutes"))
        record(directory, "placement", {"seeds": seeds}, asdict(placement))
        refresh_report(directory)
        if as_json:
            _print_json({"configuration_hash": plan.configuration_hash, **asdict(placement)})
        else:
            for line in placement_lines(placement):
                click.echo(line)
        return
    device = DEVICES.get(plan.device)
    family = family or (device.family if device and device.family in FAMILIES else FAMILIES[0])
    _refuse_without_dsp48e2(plan, family)
    files = verilog_files(directory)
    with progress_bar() as bar:
        bar.add_task(f"yosys, {family}; minutes for large arrays", total=None)
        counts = asdict(synthesize(files, "accelerator", family,
                                   use_uram=bool(device and device.family == family and device.urams)))
    record(directory, "synthesis", {"family": family}, counts)
    refresh_report(directory)
    macs = plan.spec.array.multipliers
    if as_json:
        _print_json({"family": family, "macs": macs, **counts,
                     "per_mac": {name: count / macs for name, count in counts.items()}})
        return
    click.echo(f"{family}, {macs} MACs per cycle, counted by Yosys (not placed)")
    for name, count in counts.items():
        click.echo(f"  {name:12s} {count:10,g} {count / macs:10.2f} per MAC")


@main.command("report")
@click.argument("directory", metavar="BUILD", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the data of summary.json.")
@one_line_errors
def report_command(directory, as_json):
    """Write report/index.html, summary.json and summary.md of BUILD, with everything that has run on it."""
    data = refresh_report(directory)
    if as_json:
        _print_json(data)
        return
    click.echo(f"{directory / 'report' / 'index.html'}")
    for one in data["missing"]:
        click.echo(f"  {one['what']}: {one['command']}")


def _refuse_without_dsp48e2(plan, family):
    if plan.spec.array.accumulation is Accumulation.PAIRED and family != "xcup":
        raise PlanError(f"this build pairs lanes in DSP48E2, which family {family} does not have; "
                        "synthesize it for xcup, or build it with --accumulation tree")


@main.command("doctor")
def doctor_command():
    """Say which tools are here and what each missing one disables."""
    for finding in examine():
        click.echo(str(finding))


def _print_json(values):
    json.dump(values, sys.stdout, indent=1)
    sys.stdout.write("\n")
