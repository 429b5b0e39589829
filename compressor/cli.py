"""The command ``compress``. Commands parse, call the library and report; they load torch only when run."""

import click

from compressor.analysis_cli import compare, sensitivity, sweep, weights
from compressor.export_cli import export, verify
from compressor.training_cli import recover, train


@click.group()
@click.version_option(package_name="hwgen")
def main():
    """Prune and quantize a BERT so that the generated hardware computes it."""


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


for command in (train, recover, sensitivity, sweep, compare, weights, export, verify):
    main.add_command(command)


if __name__ == "__main__":
    main()
