"""The commands ``compress train`` and ``compress recover``. They load torch only when run."""

import json
from pathlib import Path

import click

from compressor.command_errors import one_line_errors


def data_options(command):
    """Options of every command that reads a task."""
    for option in reversed((
        click.option("--task", required=True,
                     help="GLUE task (sst2, mnli, ...), squad, the generated synthetic, or a YAML file that "
                          "describes yours."),
        click.option("--data", type=click.Path(path_type=Path),
                     help="Folder with train* and validation* files (.jsonl, .jsonl.gz, .csv, .tsv); "
                          "without it, GLUE and SQuAD come from the hub."),
        click.option("--train-rows", type=click.IntRange(min=1), help="Use this many training rows."),
        click.option("--validation-rows", type=click.IntRange(min=1), help="Use this many validation rows."),
    )):
        command = option(command)
    return command


def _run_options(command):
    """Options of every command that trains."""
    for option in reversed((
        click.option("--set", "changes", multiple=True, metavar="KEY=VALUE",
                     help="Another value in the recipe, as YAML: key with dots, stages by their number "
                          "from 0 (training.seed=1, stages.0.epochs=2); may be repeated."),
        click.option("--model", "model_name", required=True,
                     help='Directory or hub id of a BERT, RoBERTa or DistilBERT; "tiny" builds a small '
                          "BERT."),
        click.option("--out", type=click.Path(file_okay=False, path_type=Path),
                     help="Directory for the compressed model."),
        click.option("--resume", is_flag=True, help="Go on from the latest checkpoint in --out."),
        click.option("--overwrite", is_flag=True, help="Delete an earlier run in --out first."),
        click.option("--dry-run", is_flag=True,
                     help="Print stages, steps, memory and storage; train nothing."),
        click.option("--costs", type=click.Path(dir_okay=False, path_type=Path),
                     help="File of `hwgen costs`: with --dry-run, print the expected cycles as well."),
        click.option("--threads", type=click.IntRange(min=1), help="CPU threads."),
        click.option("--json", "as_json", is_flag=True, help="Print the result, or the plan, as JSON."),
    )):
        command = option(command)
    return command


@click.command()
@click.argument("recipe")
@data_options
@_run_options
def train(recipe, task, data, train_rows, validation_rows, **run_options):
    """Train and prune a model by RECIPE: a YAML file, or a preset (see `compress presets`)."""
    _run("compress", "plan_compression", recipe, run_options, task=task, data=data, train_rows=train_rows,
         validation_rows=validation_rows)


@click.command()
@click.argument("recipe")
@click.option("--text", required=True, multiple=True, type=click.Path(path_type=Path),
              help="Sentences: .txt or .txt.gz, one a line, or rows (.jsonl, .jsonl.gz, .csv, .tsv); "
                   "may be repeated.")
@click.option("--rows", type=click.IntRange(min=2), help="Use this many sentences.")
@_run_options
def recover(recipe, text, rows, **run_options):
    """Prune an encoder and teach it its own hidden states on plain text: done once, for every task.

    RECIPE is a YAML file or a preset with `distillation`, such as recover-pattern-50. Then train a task
    on the result with `structure: {kind: model}`, as the preset retrain-recovered does.
    """
    _run("recover", "plan_recovery", recipe, run_options, text=text, rows=rows)


def _run(function, plan_function, recipe, options, **rows):
    """Call a function of :mod:`compressor.api`, or the one that only plans, and report."""
    out, dry_run, as_json = options["out"], options["dry_run"], options["as_json"]
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'; only --dry-run goes without.")
    if options["costs"] is not None and not dry_run:
        raise click.UsageError("--costs goes with --dry-run; a budget names its file in the recipe.")
    from compressor.recipes import changed_recipe, load_recipe, parse_change

    with one_line_errors():
        checked = load_recipe(recipe)  # before torch loads, which takes seconds
        if options["changes"]:
            checked = changed_recipe(checked, dict(map(parse_change, options["changes"])))
    import torch

    from compressor import api

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    with one_line_errors():
        if dry_run:
            plan = getattr(api, plan_function)(checked, model=options["model_name"], costs=options["costs"],
                                               **rows)
            if as_json:
                click.echo(json.dumps(plan))
            else:
                _report_plan(plan)
            return
        result = getattr(api, function)(checked, model=options["model_name"], out=out,
                                        resume=options["resume"], overwrite=options["overwrite"], **rows)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    if not result.finished:
        raise click.ClickException(f"stopped at step {result.step} of {result.steps}; "
                                   "go on with the same command and --resume")
    if not as_json:
        _report(out, result.metrics)


def _report(out, metrics):
    """Print what a finished run has reached and what it has shrunk."""
    for key, value in metrics.items():
        if key.startswith("eval_") and not key.endswith("loss"):
            click.echo(f"{key.removeprefix('eval_').replace('_', ' ')}: {value:.4f}")
    kept = metrics["nonzero_weights"] / metrics["encoder_weights"]
    click.echo(f"encoder weights kept: {metrics['nonzero_weights']:,} of "
               f"{metrics['encoder_weights']:,} ({100 * kept:.1f} %)")
    _report_storage(metrics)
    click.echo(f"model directory: {out}")


def _report_storage(values):
    ratio = values["dense_int8_bits"] / values["compressed_int8_bits"]
    click.echo(f"structure: {values['structure']}; stored as {values['stored_as']}")
    if "heads" in values:
        click.echo(f"heads left, layer by layer: {values['heads']}; neurons: {values['neurons']}")
    if "budget" in values:
        budget = values["budget"]
        click.echo(f"budget: {budget['budget']:,} {budget['unit']}; expected {budget['expected']:,}, dense "
                   f"{budget['dense']:,}")
    click.echo(f"int8 storage with indices: 1/{ratio:.2f} of dense int8")


def _report_plan(plan):
    click.echo(f"{plan['training_rows']:,} training rows, {plan['steps_per_epoch']:,} steps an epoch")
    for stage in plan["stages"]:
        notes = ""
        if "interval" in stage:
            notes = f"; ADMM interval every {stage['interval']} steps, "
            notes += (f"closes {100 * min(1, stage['reach']):.0f} % of the gap"
                      if stage["coupling"] == "decoupled" else
                      f"rates add up to {stage['reach']:.2g} of {stage['needed']:.2g} needed")
        click.echo(f"stage {stage['name']}: {stage['epochs']:g} epochs, {stage['steps']:,} steps, "
                   f"peak rate {stage['learning_rate']:g}{notes}")
    click.echo(f"pruned weights: {plan['pruned_weights']:,} of {plan['encoder_weights']:,} in the encoder")
    _report_storage(plan)
    if "cycles" in plan:
        expected, dense = plan["cycles"]["expected"], plan["cycles"]["dense"]
        click.echo(f"cycles: {dense:,} dense, " + (
            "known when training has chosen what is kept" if expected is None else
            f"{expected:,} expected ({100 * expected / dense:.0f} %), for the weights as they are"))
    held, activations = (plan["memory"][key] / 2**20 for key in ("held", "activations"))
    click.echo(f"memory of a process: {held:,.0f} MiB for weights, gradients, optimizer, teacher and method; "
               f"about {activations:,.0f} MiB more for activations, if all sentences are of the longest")
    for warning in plan["warnings"]:
        click.echo(f"warning: {warning}")
