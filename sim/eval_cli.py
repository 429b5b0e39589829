"""The command ``hwgen eval``."""

from pathlib import Path

import click

from sim.command import finish, one_line_errors, progress_bars
from sim.results import breakdown_text


@click.command("eval")
@click.argument("build", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", required=True, metavar="FILE|synthetic",
              help="Labelled rows: a .jsonl[.gz], .tsv or .csv file, or rows of the generated task.")
@click.option("--limit", type=click.IntRange(min=1), default=64, show_default=True, help="Rows at most.")
@click.option("--sequences", type=click.IntRange(1, 1024), default=8, show_default=True,
              help="Rows that the accelerator runs in one go.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def evaluate_command(build, data, limit, sequences, as_json):
    """The task's metrics of the generated Verilog in BUILD, of its golden model, and of both torch models.

    Exit code 1 if the Verilog differs from the golden model in a word.
    """
    from sim import api

    with one_line_errors(as_json), progress_bars() as progress:
        result = api.evaluate(build, data, limit=limit, sequences=sequences, progress=progress)
    finish(result, evaluation_text, as_json)


def evaluation_text(result):
    """What the command prints."""
    lines = [f"{metric.replace('_', ' ')}, {name.replace('_', ' '):15s} {found[metric]:.4f}"
             for metric in result.metrics["rtl"] for name, found in result.metrics.items()]
    lines += breakdown_text(result.breakdown)
    verdict = "passed" if result.passed else "FAILED"
    lines.append(f"{verdict}: {result.rows} rows of {result.tokens} tokens; "
                 f"{result.words:,} words compared, {result.word_mismatches:,} mismatches, "
                 f"{result.prediction_mismatches} other predictions; {result.cycles:,} cycles, "
                 f"{result.sentences_per_second:.2f} sentences/s of simulation")
    return "\n".join(lines)
