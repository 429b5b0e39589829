"""The command ``compress``. Commands parse, call the library and report; they load torch only when run."""

import json

import click

from compressor.analysis_cli import compare, sensitivity, sweep, weights
from compressor.command_errors import one_line_errors
from compressor.export_cli import export, verify
from compressor.training_cli import recover, train


@click.group()
@click.version_option(package_name="hwgen")
def main():
    """Prune and quantize a BERT so that the generated hardware computes it."""


@main.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print descriptions by name, or the recipe, as JSON.")
def presets(name, as_json):
    """List the recipes that come with the package, or print one: `compress presets NAME`."""
    from compressor.recipes import PRESET_DIR, Recipe, preset_names

    texts = {preset: (PRESET_DIR / f"{preset}.yaml").read_text(encoding="utf-8") for preset in preset_names()}
    if name is None:
        lines = {preset: text.splitlines()[0].lstrip("# ") for preset, text in texts.items()}
        click.echo(json.dumps(lines) if as_json else
                   "\n".join(f"{preset:24} {line}" for preset, line in lines.items()))
        return
    with one_line_errors():
        recipe = Recipe.preset(name)
    click.echo(json.dumps(recipe.to_dict()) if as_json else texts[name].rstrip("\n"))


for command in (train, recover, sensitivity, sweep, compare, weights, export, verify):
    main.add_command(command)


if __name__ == "__main__":
    main()
