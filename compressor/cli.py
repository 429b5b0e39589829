"""The command ``compress``. Commands parse, call the library and report; they load torch only when run."""

from pathlib import Path

import click

from compressor.export_cli import export, verify


@click.group()
@click.version_option(package_name="hwgen")
def main():
    """Prune and quantize a BERT so that the generated hardware computes it."""


@main.command()
@click.argument("recipe")
@click.option("--model", "model_name", required=True,
              help='Directory or hub id of a BERT, RoBERTa or DistilBERT; "tiny" builds a small BERT.')
@click.option("--task", required=True, help="GLUE task (sst2, mnli, ...), or the generated: synthetic.")
@click.option("--data", type=click.Path(path_type=Path),
              help="Folder with train* and validation* files (.jsonl, .jsonl.gz, .csv, .tsv); "
                   "without it, GLUE comes from the hub.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path),
              help="Directory for the compressed model.")
@click.option("--resume", is_flag=True, help="Go on from the latest checkpoint in --out.")
@click.option("--overwrite", is_flag=True, help="Delete an earlier run in --out first.")
@click.option("--train-rows", type=click.IntRange(min=1), help="Use this many training rows.")
@click.option("--validation-rows", type=click.IntRange(min=1), help="Use this many validation rows.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
def train(recipe, model_name, task, data, out, resume, overwrite, train_rows, validation_rows, threads):
    """Train and prune a model by RECIPE: a YAML file, or a preset (see `compress presets`)."""
    from compressor.recipes import load_recipe

    try:
        checked = load_recipe(recipe)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    import torch

    from compressor.tasks import load_task
    from compressor.training_run import run_training

    if threads:
        torch.set_num_threads(threads)
    try:
        rows = load_task(task, data=data, train_rows=train_rows, validation_rows=validation_rows,
                         seed=checked.training.seed)
        result = run_training(checked, model_name=model_name, data=rows, out=out, resume=resume,
                              overwrite=overwrite)
    except ValueError as error:  # RecipeError, TaskError, OutputError, ...: all say one line
        raise click.ClickException(str(error)) from error
    if not result.finished:
        raise click.ClickException(f"stopped at step {result.step} of {result.steps}; "
                                   "go on with the same command and --resume")
    report(out, result.metrics)


def report(out, metrics):
    """Print what a finished run has reached and what it has shrunk."""
    for key, value in metrics.items():
        if key.startswith("eval_") and not key.endswith("loss"):
            click.echo(f"{key.removeprefix('eval_').replace('_', ' ')}: {value:.4f}")
    kept = metrics["nonzero_weights"] / metrics["encoder_weights"]
    ratio = metrics["dense_int8_bits"] / metrics["compressed_int8_bits"]
    click.echo(f"encoder weights kept: {metrics['nonzero_weights']:,} of "
               f"{metrics['encoder_weights']:,} ({100 * kept:.1f} %)")
    click.echo(f"structure: {metrics['structure']}; stored as {metrics['stored_as']}")
    click.echo(f"int8 storage with indices: 1/{ratio:.2f} of dense int8")
    click.echo(f"model directory: {out}")


@main.command()
@click.argument("name", required=False)
def presets(name):
    """List the recipes that come with the package, or print one: `compress presets NAME`."""
    from compressor.recipes import PRESET_DIR, RecipeError, preset_names

    if name is None:
        for preset in preset_names():
            first_line = (PRESET_DIR / f"{preset}.yaml").read_text(encoding="utf-8").splitlines()[0]
            click.echo(f"{preset:24} {first_line.lstrip('# ')}")
        return
    if name not in preset_names():
        raise click.ClickException(str(RecipeError(
            f"unknown preset {name!r}; use one of {', '.join(preset_names())}")))
    click.echo((PRESET_DIR / f"{name}.yaml").read_text(encoding="utf-8"), nl=False)


main.add_command(export)
main.add_command(verify)
