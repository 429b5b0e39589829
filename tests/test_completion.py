"""Tab completion: scripts for each shell, and what the shells get; JSON and help everywhere."""

import click
import pytest
from click.testing import CliRunner

from compressor.cli import main as compress
from hwgen.cli import main as hwgen

COMMANDS = {"hwgen": hwgen, "compress": compress}


def ask(name, instruction, words=""):
    """What a command answers to a shell: an instruction, and the words typed so far."""
    environment = {f"_{name.upper()}_COMPLETE": instruction, "COMP_WORDS": words,
                   "COMP_CWORD": str(len(words.split()) - 1)}
    if instruction.startswith("fish"):  # fish sends the last word itself
        environment["COMP_CWORD"] = words.split()[-1] if words else ""
    return CliRunner().invoke(COMMANDS[name], [], prog_name=name, env=environment).stdout


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(("shell", "registers"), [
    ("bash", "complete -o nosort -F _{name}_completion {name}"),
    ("zsh", "compdef _{name}_completion {name}"),
    ("fish", 'complete --no-files --command {name} --arguments "(_{name}_completion)"')])
def test_the_script_registers_the_command(shell, name, registers):
    script = ask(name, f"{shell}_source")
    assert f"_{name.upper()}_COMPLETE={shell}_complete" in script
    assert registers.format(name=name) in script


@pytest.mark.parametrize(("words", "found"), [
    ("hwgen bu", {"build"}), ("hwgen e", {"eval", "explore"}), ("hwgen build --po", {"--pool"}),
    ("hwgen build --pool r", {"rom", "ram"}), ("hwgen sim --bench h", {"harness", "hls"}),
    ("compress tr", {"train"}), ("compress export --lin", {"--linear-only"}), ("hwgen x", set())])
def test_words_are_completed(words, found):
    answer = ask(words.split()[0], "bash_complete", words)
    assert {line.partition(",")[2] for line in answer.split()} == found


def commands(group):
    """Every command of a group by its name."""
    context = click.Context(group)
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, main in COMMANDS.items()
                                             for name in commands(main)])
def test_every_command_prints_json_and_explains_its_options(group, name):
    options = [one for one in commands(COMMANDS[group])[name].params if isinstance(one, click.Option)]
    assert ["--json"] in [one.opts for one in options]
    assert all(one.help for one in options)
    assert commands(COMMANDS[group])[name].help
