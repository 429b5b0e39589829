"""The table of methods on real tasks: runs its rows, in several processes, sessions and machines; prints it.

``python -m benchmarks.task_tables run --model DIR --data DIR --out DIR`` runs what is not finished yet;
``python -m benchmarks.task_tables table --out DIR`` prints the table of what is.
How to spread it over sessions and machines: docs/howto/task_tables.md.
"""

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import click

from benchmarks.task_rows import ROWS, plan_jobs

KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
"""glibc then keeps what a step frees for the next: 32 x 12 tokens on a CPU take 0.16 s instead of 0.20."""


class List(click.ParamType):
    """Values with commas between them, each one of ``allowed`` if that is given."""

    name = "list"

    def __init__(self, kind=str, allowed=None):
        self.kind, self.allowed = kind, allowed

    def convert(self, value, param, ctx):
        try:
            found = [self.kind(part.strip()) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is no list of numbers", param, ctx)
        for part in found if self.allowed else ():
            if part not in self.allowed:
                self.fail(f"unknown: {part}; use {', '.join(self.allowed)}", param, ctx)
        return found


@click.group()
def main():
    """Methods of the compressor on real tasks."""


@main.command()
@click.option("--model", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Directory of the pretrained encoder.")
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder with one folder for each task.")
@click.option("--tasks", type=List(), default="cola,mrpc,sst2", show_default=True)
@click.option("--rows", type=List(allowed=ROWS),
              default=",".join(name for name, row in ROWS.items() if row.shown), show_default="all of them")
@click.option("--seeds", type=List(int), default="0,1,2", show_default=True)
@click.option("--text", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Sentences for rows that recover an encoder, as for `compress recover`; may be repeated.")
@click.option("--text-rows", type=click.IntRange(min=2), help="Use this many sentences.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Directory for results and models.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True,
              help="Runs at once, in processes of their own, on one GPU if there is one.")
@click.option("--epoch-share", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True,
              help="Share of every recipe's epochs.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32",
              show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True),
              help="Stop after this long, with checkpoints; the same command goes on from there.")
def run(model, data, tasks, rows, seeds, text, text_rows, out, jobs, epoch_share, precision, minutes):
    """Run rows of the table; those that are finished in --out are kept."""
    from benchmarks.task_runs import Settings

    planned = plan_jobs(rows, tasks, seeds)
    if any(job.row.on_text for job in planned) and not text:
        raise click.UsageError("some of these rows recover an encoder; give --text FILE")
    settings = Settings(model=model.resolve(), data=data.resolve(), out=out.resolve(), precision=precision,
                        text=tuple(path.resolve() for path in text), text_rows=text_rows,
                        epoch_share=epoch_share)
    try:
        settings.claim()
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    failed = _work(settings, planned, jobs=jobs, seconds=None if minutes is None else 60 * minutes)
    left = [job.name for job in planned if not settings.result(job).is_file()]
    click.echo(f"{len(planned) - len(left)} of {len(planned)} runs are finished in {out}")
    if failed:
        raise click.ClickException("some runs failed, see above")


def _work(settings, planned, *, jobs, seconds):
    """Run the plan in processes of their own; whether any of them failed. Ctrl-C reaches them by itself."""
    from benchmarks.task_runs import work

    context = multiprocessing.get_context("spawn")
    os.environ.update(KEEP_MEMORY | os.environ)
    workers = [context.Process(target=work, args=(settings, planned)) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    end = None if seconds is None else time.monotonic() + seconds
    try:
        for worker in workers:
            worker.join(None if end is None else max(0.0, end - time.monotonic()))
        for worker in workers:
            if worker.is_alive():
                os.kill(worker.pid, signal.SIGINT)
    except KeyboardInterrupt:
        pass
    for worker in workers:
        worker.join()
    return any(worker.exitcode for worker in workers)


@main.command()
@click.option("--out", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="The directory of `run`.")
def table(out):
    """Print the table of the finished runs as Markdown, and what ran where."""
    from benchmarks.task_report import read_results, report

    try:
        results = read_results(out)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(report(results, list(ROWS.values())))


if __name__ == "__main__":
    sys.exit(main())
