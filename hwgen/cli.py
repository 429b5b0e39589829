"""The command line ``hwgen``: parse, call :mod:`hwgen.api`, print.

What computes is imported by the commands that need it, so that help and completion come at once.
"""

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from compressor.bundle_checks import BundleError
from compressor.command_errors import one_line_errors
from compressor.patterns import BALANCES
from compressor.pools import PoolError
from hwgen.build_directory import EMITTERS, BuildError, load_plan
from hwgen.devices import DEVICES
from hwgen.plan import PlanError
from hwgen.synthesis import FAMILIES
from hwgen.toolchain import ToolError
from hwgen.vendor import lattice
from rtl_templates.array_spec import Accumulation

EXPECTED_ERRORS = (BundleError, PoolError, PlanError, BuildError, ToolError, OSError)
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


def progress_bar():
    """A progress display on standard error; silent unless that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

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
@one_line_errors(EXPECTED_ERRORS)
def build_command(model, out, hardware, device, rows, lanes, pool, tokens, bus_bits, accumulation, emit,
                  as_json):
    """Generate an accelerator for a compressed model."""
    from hwgen import api, reports

    with progress_bar() as bar:
        task = bar.add_task("hwgen build", total=None)
        built = api.build(model, out, device=device, rows=rows, lanes=lanes, tokens=tokens, pool=pool,
                          bus_bits=bus_bits, accumulation=accumulation, emit=emit.split(","),
                          hardware=hardware, progress=lambda step: bar.update(task, description=step))
    if as_json:
        _print_json(built.to_dict())
        return
    click.echo(f"{built.directory}: configuration {built.plan.configuration_hash[:8]}"
               + (f", the Verilog of {hardware}" if hardware else ""))
    for line in reports.summary_lines(built.plan, built.cost):
        click.echo(f"  {line}")


@main.command("inspect")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--rows", type=int, help="Block units R for the cycle counts.  [default: 4]")
@click.option("--lanes", type=int, help="Token lanes T for the cycle counts.  [default: 8]")
@click.option("--tokens", type=int, help="Sequence length for the cycle counts.  [default: the model's]")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@one_line_errors(EXPECTED_ERRORS)
def inspect_command(model, rows, lanes, tokens, as_json):
    """Verify the bundle MODEL; print its layers and what its patterns cost."""
    from hwgen import api
    from hwgen.inspection import inspect_lines

    facts = api.inspect(model, rows=rows, lanes=lanes, tokens=tokens)
    if as_json:
        _print_json(facts)
        return
    for line in inspect_lines(facts):
        click.echo(line)


@main.command("pools")
@click.argument("model")
@click.option("--sizes", default="16,32,64,128", show_default=True, metavar="LIST",
              help="Numbers of patterns, with commas between.")
@click.option("--keep", type=click.IntRange(1, 16), default=8, show_default=True,
              help="Weights of every 4x4 block that are kept.")
@click.option("--balance", "balances", multiple=True, type=click.Choice(BALANCES),
              help="Only pools of this balance; may be given several times.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print the choices as JSON.")
@one_line_errors(EXPECTED_ERRORS)
def pools_command(model, sizes, keep, balances, as_json):
    """Pattern pools for the dense MODEL: what each keeps of its weights, and what it costs in logic."""
    from hwgen import api
    from hwgen.pool_choice import choice_lines

    try:
        numbers = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise click.BadParameter(f"{sizes!r} are no numbers with commas between",
                                 param_hint="--sizes") from None
    with progress_bar() as bar:
        task = bar.add_task("hwgen pools", total=None)
        choices = api.pools(model, sizes=numbers, keep=keep, balances=balances or BALANCES,
                            progress=lambda step: bar.update(task, description=step))
    if as_json:
        _print_json([asdict(choice) for choice in choices])
        return
    for line in choice_lines(choices):
        click.echo(line)


@main.command("costs")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="The file to write, for `budget: {costs: FILE}` in a recipe.")
@click.option("--device", help=f"Sizes as for this device: {', '.join(DEVICES)}.")
@click.option("--rows", type=int, help="Block units R.  [default: 4]")
@click.option("--lanes", type=int, help="Token lanes T.  [default: 8]")
@click.option("--tokens", type=int, help="Sequence length.  [default: the model's]")
@click.option("--json", "as_json", is_flag=True, help="Print the costs as JSON.")
@one_line_errors(EXPECTED_ERRORS)
def costs_command(model, out, device, rows, lanes, tokens, as_json):
    """Write what K-steps cost on the accelerator of the bundle MODEL, or of others with its sizes."""
    from hwgen import api

    values = api.cost_table(model, out, device=device, rows=rows, lanes=lanes, tokens=tokens)
    if as_json:
        _print_json(values)
        return
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
@one_line_errors(EXPECTED_ERRORS)
def synth_command(directory, family, placing, seeds, as_json):
    """Count the resources of the build in DIRECTORY with Yosys."""
    from hwgen import api
    from hwgen.placement import placement_lines

    if placing:
        if family is not None:
            raise ToolError(f"--family {family} cannot be placed here; --place is for {lattice.DEVICE.part}")
        with progress_bar() as bar:
            task = bar.add_task("hwgen synth", total=None)
            placement = api.place(directory, seeds=seeds, progress=lambda what: bar.update(
                task, description=f"{what}; takes minutes"))
        if as_json:
            _print_json({"configuration_hash": load_plan(directory).configuration_hash, **asdict(placement)})
        else:
            for line in placement_lines(placement):
                click.echo(line)
        return
    plan = load_plan(directory)
    family = family or api.synthesis_family(plan)
    with progress_bar() as bar:
        bar.add_task(f"yosys, {family}; minutes for large arrays", total=None)
        counts = asdict(api.synthesize(directory, family=family))
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
@one_line_errors(EXPECTED_ERRORS)
def report_command(directory, as_json):
    """Write report/index.html, summary.json and summary.md of BUILD, with everything that has run on it."""
    from hwgen.report.refresh import refresh_report

    data = refresh_report(directory)
    if as_json:
        _print_json(data)
        return
    click.echo(f"{directory / 'report' / 'index.html'}")
    for one in data["missing"]:
        click.echo(f"  {one['what']}: {one['command']}")


@main.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor_command(as_json):
    """Say which tools are here and what each missing one disables."""
    from hwgen.doctor import examine

    findings = examine()
    if as_json:
        _print_json([asdict(finding) for finding in findings])
        return
    for finding in findings:
        click.echo(str(finding))


def _print_json(values):
    json.dump(values, sys.stdout, indent=1)
    sys.stdout.write("\n")
