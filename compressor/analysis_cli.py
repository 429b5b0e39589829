"""The commands ``compress compare``, ``sensitivity`` and ``sweep``. They load torch only when run."""

import json
from pathlib import Path

import click

from compressor.command_errors import one_line_errors
from compressor.training_cli import data_options


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path),
              help="Draw the first metric over the weights kept, as SVG.")
def compare(runs, as_json, plot):
    """Put the results of several RUNS side by side: model directories that `compress train` left."""
    from compressor.comparison import compare_runs, glue_averages, markdown_table
    from compressor.pictures import comparison_picture
    from compressor.text_file import write_text

    with one_line_errors():
        rows = compare_runs(runs)
        if plot:
            write_text(plot, comparison_picture(rows))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    click.echo(markdown_table(rows))
    for mean in glue_averages(rows):
        click.echo(f"GLUE, geometric mean of eight: {mean['average']:.1f} ({mean['structure']}; "
                   f"{mean['method']}; seed {mean['seed']})")


@click.command()
@click.argument("recipe")
@click.option("--model", "model_name", required=True, help="A model that was fine-tuned on the task.")
@data_options
@click.option("--density", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.5,
              show_default=True, help="Density at which a structure that has one is measured.")
@click.option("--retrain-steps", type=click.IntRange(min=0), default=0, show_default=True,
              help="Steps of training, at the recipe's batch and rate, before each loss.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path),
              help="File for a recipe's budget.sensitivity.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def sensitivity(recipe, model_name, task, data, train_rows, validation_rows, density, retrain_steps, out,
                as_json):
    """Prune one layer after the other by RECIPE's structure, and print what each costs in the task's loss.

    The loss is that of the validation rows. With --retrain-steps, what is left of the model is trained
    after each pruning; the whole model is then measured after as many steps.
    """
    from compressor import api

    with one_line_errors():
        found = api.measure_layers(recipe, model=model_name, task=task, data=data, train_rows=train_rows,
                                   validation_rows=validation_rows, density=density,
                                   retrain_steps=retrain_steps, out=out)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"loss of the whole model: {found['loss']:.4f}")
    for name, layer in sorted(found["layers"].items(), key=lambda item: -item[1]["loss_increase"]):
        click.echo(f"{layer['loss_increase']:+.4f}  {name} ({100 * layer['removed']:.1f} % of its energy "
                   "removed)")


@click.command()
@click.argument("recipe")
@click.option("--set", "changes", multiple=True, required=True, metavar="KEY=VALUE,VALUE...",
              help="Key of the recipe with dots, stages by their number from 0, and the values to try "
                   "(stages.1.strength=1e-5,1e-4); repeated options are combined.")
@click.option("--model", "model_name", required=True, help="As for `compress train`.")
@data_options
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Directory for the runs; those that are finished are kept.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def sweep(recipe, changes, model_name, task, data, train_rows, validation_rows, out, as_json):
    """Train RECIPE once for each value of a key, and compare the runs: seeds, lambda, densities."""
    from compressor import api
    from compressor.comparison import compare_runs, markdown_table
    from compressor.recipes import parse_changes

    with one_line_errors():
        rows = compare_runs(api.sweep(recipe, parse_changes(changes), model=model_name, task=task, out=out,
                                      data=data, train_rows=train_rows, validation_rows=validation_rows))
    click.echo(json.dumps(rows, indent=1) if as_json else markdown_table(rows))


@click.command()
@click.argument("models", nargs=-1, required=True)
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="The picture, SVG.")
@click.option("--bins", type=click.IntRange(min=8, max=400), default=80, show_default=True,
              help="Bars of each distribution.")
@click.option("--json", "as_json", is_flag=True, help="Print the distributions as JSON.")
def weights(models, out, bins, as_json):
    """Draw the distribution of the encoder weights of MODELS: before and after pruning, say."""
    from compressor.pictures import weight_histogram, weight_picture
    from compressor.text_file import write_text

    with one_line_errors():
        found = [weight_histogram(model, bins=bins) for model in models]
        write_text(out, weight_picture(found))
    if as_json:
        click.echo(json.dumps([{"title": histogram.title, "zeros": histogram.zeros,
                                "deviation": histogram.deviation, "counts": histogram.counts.tolist()}
                               for histogram in found]))
        return
    for histogram in found:
        click.echo(f"{histogram.title}: {100 * histogram.zeros:.1f} % zero, deviation of the others "
                   f"{histogram.deviation:.4f}")
