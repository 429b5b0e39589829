"""The commands ``compress export`` and ``compress verify``. They load torch only when run."""

import json
from pathlib import Path

import click

from compressor.command_errors import one_line_errors


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
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export(model_dir, out, threads, as_json, **options):
    """Quantize the model in MODEL_DIR and write it as a bundle."""
    import torch

    from compressor import api

    if threads:
        torch.set_num_threads(threads)
    with one_line_errors():
        bundle = api.export(model_dir, out, note=lambda line: click.echo(line, err=True), **options)
    compared = bundle.metrics.get("quantization", {})
    if as_json:
        click.echo(json.dumps({"bundle": str(out), **bundle.summary(), "quantization": compared}))
        return
    report(out, bundle.summary())
    for kind in ("float", "quantized"):
        for name, value in compared.get(kind, {}).items():
            click.echo(f"{name.replace('_', ' ')}, {kind}: {value:.4f}")


@click.command()
@click.argument("bundle_file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(bundle_file, as_json):
    """Check every block, range, key and checksum of BUNDLE_FILE, and rebuild its model."""
    from compressor import api
    from compressor.bundle import BundleError

    try:
        result = api.verify(bundle_file).summary()
    except BundleError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "error": str(error)}))
            raise SystemExit(1) from error
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps({"ok": True, **result}))
    else:
        report(bundle_file, result)


def report(path, values):
    """Print what :meth:`compressor.bundle.Bundle.summary` says."""
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
