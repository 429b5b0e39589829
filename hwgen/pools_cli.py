"""The command ``hwgen pools``. Apart from the others because it loads torch and a model."""

import json
from dataclasses import asdict

import click
import numpy as np

from compressor.blocks import to_blocks
from compressor.patterns import BALANCES
from compressor.pools import PoolError
from hwgen.cli import one_line_errors, progress_bar
from hwgen.pool_choice import SIZES, choice_lines, pool_choices


def model_blocks(name):
    """The 4x4 blocks of a model's encoder: float32 array, shape (n, 16).

    Parameters
    ----------
    name : str or path
        A model directory, or a name on the hub.

    Raises
    ------
    ValueError
        If it cannot be loaded, or is no encoder that the compressor knows; one line.
    """
    from transformers import AutoModel

    from compressor.targets import target_layers

    try:
        layers = target_layers(AutoModel.from_pretrained(name))
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: {' '.join(str(error).split())[:300]}") from error
    return np.concatenate([to_blocks(layer.module.weight.detach().float()).numpy()
                           for layer in layers.values()])


@click.command("pools")
@click.argument("model")
@click.option("--sizes", default=",".join(map(str, SIZES)), show_default=True, metavar="LIST",
              help="Numbers of patterns, with commas between.")
@click.option("--keep", type=click.IntRange(1, 16), default=8, show_default=True,
              help="Weights of every 4x4 block that are kept.")
@click.option("--balance", "balances", multiple=True, type=click.Choice(BALANCES),
              help="Only pools of this balance; may be given several times.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print the choices as JSON.")
@one_line_errors
def pools_command(model, sizes, keep, balances, as_json):
    """Pattern pools for MODEL, a dense one: what each keeps of its weights, and what it costs in logic."""
    try:
        sizes = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise click.BadParameter(f"{sizes!r} are no numbers with commas between",
                                 param_hint="--sizes") from None
    try:
        blocks = model_blocks(model)
        with progress_bar() as bar:
            task = bar.add_task("hwgen pools", total=None)
            choices = pool_choices(blocks, sizes=sizes, keep=keep, balances=balances or BALANCES,
                                   progress=lambda step: bar.update(task, description=step))
    except (PoolError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([asdict(choice) for choice in choices], indent=2))
        return
    for line in choice_lines(choices):
        click.echo(line)
