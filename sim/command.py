"""What the commands of this package share: errors in one line, progress bars, the result's form."""

import json
import sys
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from compressor.bundle_checks import BundleError
from compressor.command_errors import error_line
from compressor.task_files import TaskError
from hwgen.build_directory import BuildError
from hwgen.plan import PlanError
from hwgen.toolchain import ToolError
from sim.harness import SimulationError

ERRORS = (BundleError, BuildError, PlanError, TaskError, ToolError, SimulationError, OSError)
"""What a user can mend; everything else keeps its traceback."""


@contextmanager
def one_line_errors(as_json, *others):
    """Turn :data:`ERRORS` and ``others`` into one line and exit code 1, with ``as_json`` also into JSON."""
    try:
        yield
    except (*ERRORS, *others) as error:
        if as_json:
            click.echo(json.dumps({"passed": False, "error": error_line(error)}))
        raise click.ClickException(error_line(error)) from error


def finish(result, text, as_json):
    """Print a result and what is wrong with it; exit code 1 unless it passed.

    Parameters
    ----------
    result : sim.results.Result
    text : callable(result)
        What is printed without ``as_json``.
    as_json : bool
    """
    click.echo(json.dumps(result.to_dict()) if as_json else text(result))
    for line in result.problems():
        click.echo(f"FAILED: {line}", err=True)
    if not result.passed:
        sys.exit(1)


@contextmanager
def progress_bars(runs=None):
    """Callback of :func:`sim.runner.simulate_layers` that draws bars on standard error."""
    amount = "{task.completed:,.0f} cycles" if runs else "{task.completed} rows"
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn(amount),
               TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("starting", total=None)

        def show(what, done, total):
            bars.update(bar, description=f"{what} of {runs}" if runs and what.startswith("run") else what,
                        completed=done, total=total or None)

        yield show
