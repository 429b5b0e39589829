"""The commands ``compress export`` and ``compress verify``. They load torch only when run."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("model_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--out", default="pruned.pt", show_default=True,
              type=click.Path(dir_okay=False, path_type=Path), help="The bundle to write.")
@click.option("--task", help="Task whose rows calibrate the scales; the model's own unless given.")
@click.option("--data", type=click.Path(path_type=Path),
              help="Folder with train* and validation* files; without it, GLUE comes from the hub.")
@click.option("--rows", type=click.IntRange(min=1), default=128, show_default=True,
              help="Training rows to calibrate on.")
@click.option("--validation-rows", type=click.IntRange(min=0), default=1000, show_default=True,
              help="Validation rows on which the quantized model is compared; 0 skips it.")
@click.option("--linear-only", is_flag=True,
              help="Quantize the linear layers alone; softmax, GELU and LayerNorm stay in float.")
@click.option("--attention-maps/--no-attention-maps", default=None,
              help="Prune attention maps, or leave them whole.  [default: as the model was trained]")
@click.option("--input-method", help="Calibration of layer inputs: max, mse, percentile:99.99.")
@click.option("--output-method", help="Calibration of layer outputs: max, mse, percentile:99.99.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
def export(model_dir, out, task, data, rows, validation_rows, linear_only, attention_maps, input_method,
           output_method, threads):
    """Quantize the model in MODEL_DIR and write it as a bundle."""
    import torch
    from transformers.utils import logging as transformers_logging

    from compressor.calibration import DEFAULT_METHODS, Methods
    from compressor.export import export as export_model
    from compressor.model_dir import read_compression
    from compressor.tasks import load_task

    transformers_logging.disable_progress_bar()
    if threads:
        torch.set_num_threads(threads)
    if (input_method or output_method) and not linear_only:
        raise click.ClickException("--input-method and --output-method need --linear-only; "
                                   "scales of whole encoders minimize the square error")
    try:
        methods = linear_only and Methods(inputs=input_method or DEFAULT_METHODS.inputs,
                          outputs=output_method or DEFAULT_METHODS.outputs)
        task_data = load_task(task or read_compression(model_dir).task, data=data, train_rows=rows,
                              validation_rows=validation_rows or 1)
        first_split = next(iter(task_data.validation.values()))
        bundle = export_model(model_dir, out, task=task_data.task, rows=task_data.train,
                              validation=first_split[:validation_rows], methods=methods or None,
                              attention_maps=attention_maps,
                              note=lambda line: click.echo(line, err=True))
    except (ValueError, OSError) as error:  # BundleError, ModelDirError, TaskError: all say one line
        raise click.ClickException(str(error)) from error
    report(out, summary(bundle))
    for kind in ("float", "quantized"):
        for name, value in bundle.metrics.get("quantization", {}).get(kind, {}).items():
            click.echo(f"{name.replace('_', ' ')}, {kind}: {value:.4f}")


@click.command()
@click.argument("bundle_file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(bundle_file, as_json):
    """Check every block, range, key and checksum of BUNDLE_FILE, and rebuild its model."""
    from compressor.bundle import BundleError, load_bundle

    try:
        bundle = load_bundle(bundle_file)
        rebuild(bundle, bundle_file)
    except BundleError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "error": str(error)}))
            raise SystemExit(1) from error
        raise click.ClickException(str(error)) from error
    result = summary(bundle)
    if as_json:
        click.echo(json.dumps({"ok": True, **result}))
    else:
        report(bundle_file, result)


def rebuild(bundle, path):
    """Rebuild model and tokenizer from the bundle alone; BundleError names the file."""
    from compressor.bundle import BundleError
    from compressor.reload import to_model, to_tokenizer

    try:
        to_model(bundle)
        to_tokenizer(bundle)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def summary(bundle):
    """Plain values that describe a bundle."""
    layers = bundle.layers.values()
    structures = {}
    for layer in layers:
        structures[layer.structure] = structures.get(layer.structure, 0) + 1
    return {"task": bundle.model["task"], "max_tokens": bundle.model["max_tokens"],
            "layers": len(bundle.layers), "structures": structures, "patterns": bundle.pool.size,
            "keep": bundle.pool.keep, "balance": bundle.pool.balance,
            "row_balanced": bundle.pool.is_row_balanced, "weights": bundle.weights,
            "kept_weights": bundle.kept_weights,
            "accumulator_bits": max(layer.linear.accumulator_bits for layer in layers),
            "attention_maps": bundle.attention_maps}


def report(path, values):
    """Print what :func:`summary` says."""
    structures = ", ".join(f"{count} {name}" for name, count in values["structures"].items())
    click.echo(f"bundle: {path}")
    click.echo(f"task: {values['task']}, up to {values['max_tokens']} tokens")
    click.echo(f"linear layers: {values['layers']} ({structures}); pool of {values['patterns']} "
               f"patterns, keep {values['keep']} of 16, balance {values['balance']}")
    click.echo(f"weights kept: {values['kept_weights']:,} of {values['weights']:,} "
               f"({100 * values['kept_weights'] / values['weights']:.1f} %)")
    maps = values["attention_maps"]
    if maps:
        click.echo(f"attention maps: pruned in {maps['layers']} layers with {maps['patterns']} patterns "
                   f"of the pool, power {maps['power']}; 4x4 blocks from token 0, up to "
                   f"{maps['padded_tokens']} tokens with padding")
    click.echo(f"widest accumulator: {values['accumulator_bits']} bits of 32")
