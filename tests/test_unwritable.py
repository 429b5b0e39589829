"""Outputs that cannot be written, and inputs of the wrong kind: one line, nothing left aside."""

import errno
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from compressor import cli
from compressor.bundle import save_bundle
from compressor.text_file import WriteError, make_folder, write_text
from hwgen import cli as hwgen_cli
from hwgen.packaging import build
from tests.bundles import random_encoder_bundle

ROWS = ("--train-rows", 32, "--validation-rows", 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a bundle, a build, a recipe; ``file`` stands where outputs ask for a folder."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "file").write_text("")
    (folder / "recipe.yaml").write_text("{schema_version: 1, training: {max_tokens: 24}, "
                                        "stages: [{method: retrain, epochs: 1}]}")
    found = run(cli.main, "train", folder / "recipe.yaml", "--model", "tiny", "--task", "synthetic", *ROWS,
                "--out", folder / "model")
    assert found.exit_code == 0, found.output
    save_bundle(random_encoder_bundle(layers=1), folder / "pruned.pt")
    build(folder / "pruned.pt", folder / "build")
    return folder


def run(main, *arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


COMMANDS = {
    "compare": (cli.main, ("compare", "model", "--plot"), "out.svg"),
    "weights": (cli.main, ("weights", "model", "-o"), "out.svg"),
    "sensitivity": (cli.main, ("sensitivity", "recipe.yaml", "--model", "model", "--task", "synthetic", *ROWS,
                               "-o"), "out.json"),
    "export": (cli.main, ("export", "model", "--rows", 4, "--validation-rows", 0, "-o"), "out.pt"),
    "costs": (hwgen_cli.main, ("costs", "pruned.pt", "-o"), "out.json"),
    "build": (hwgen_cli.main, ("build", "--model", "pruned.pt", "--out"), "out"),
    "explore": (hwgen_cli.main, ("explore", "--model", "pruned.pt", "--device", "kv260", "--points", 4,
                                 "--out"), "out"),
    "trace": (hwgen_cli.main, ("sim", "build", "--limit", 1, "--trace"), "out"),
    "timeline": (hwgen_cli.main, ("sim", "build", "--limit", 1, "--timeline"), "out/layer.svg"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_cannot_be_written_is_one_line(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    main, arguments, out = COMMANDS[name]
    found = run(main, *arguments, f"file/{out}")
    line = found.stderr.splitlines()[-1]
    assert (found.exit_code, found.stderr.count("Error")) == (1, 1), found.output
    assert line.startswith("Error: ")
    assert "file" in line
    assert ": cannot be written: Not a directory" in line


def test_a_model_directory_is_no_bundle(folder):
    found = run(hwgen_cli.main, "inspect", folder / "model")
    assert (found.exit_code, found.stderr.count("\n")) == (1, 1)
    assert f"{folder}/model: a folder, not a bundle; `compress export {folder}/model -o" in found.stderr


def test_pictures_of_weights_come_without_reports_on_loading(folder, tmp_path):
    found = run(cli.main, "weights", folder / "model", "-o", tmp_path / "weights.svg")
    assert (found.exit_code, found.stderr) == (0, "")


def test_a_simulation_that_is_refused_says_one_line(folder):
    found = run(hwgen_cli.main, "sim", folder / "build", "--layers", "none", "--json")
    assert (found.exit_code, found.stderr.count("\n")) == (1, 1)
    assert json.loads(found.stdout)["error"] in found.stderr


def test_nothing_is_left_aside(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(WriteError, match=r"/a\.json: cannot be written: No space left on device$"):
        write_text(tmp_path / "a.json", "{}")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"/file/in/it: cannot be written: Not a directory$"):
        make_folder(tmp_path / "file" / "in" / "it")
