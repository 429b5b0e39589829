"""The command `compress`: a whole small run, Ctrl-C and --resume, and one-line errors."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from compressor.cli import main
from compressor.recipes import Recipe, preset_names

RECIPE = """
schema_version: 1
training: {learning_rate: 1.0e-3, batch: 8, max_tokens: 24}
stages:
  - {method: admm, epochs: EPOCHS, interval: 5}
  - {method: retrain, epochs: 1}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("EPOCHS", "1"))
    return path


def compress(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def train_arguments(recipe, out):
    return ["train", str(recipe), "--model", "tiny", "--task", "synthetic", "--out", str(out),
            "--train-rows", "64", "--validation-rows", "32", "--threads", "1"]


def test_train_leaves_a_model_that_others_load(recipe, tmp_path):
    out = tmp_path / "out"
    result = compress(*train_arguments(recipe, out))
    assert result.exit_code == 0, result.output
    assert "encoder weights kept: 49,152 of 98,304 (50.0 %)" in result.output
    assert "int8 storage with indices: 1/1.86 of dense int8" in result.output
    model = AutoModelForSequenceClassification.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    tokens = tokenizer("about food : soup very tasty", return_tensors="pt")
    assert tokens["input_ids"].shape == (1, 8)
    with torch.no_grad():
        assert model(**tokens).logits.isfinite().all()

    again = compress(*train_arguments(recipe, out))
    assert again.exit_code == 1
    assert "not empty; use --resume to go on, --overwrite to start again" in again.output
    finished = compress(*train_arguments(recipe, out), "--resume")
    assert "this run is finished" in finished.output
    # A model directory is a model: it can be trained further.
    result = compress(*train_arguments(recipe, tmp_path / "second"), "--model", str(out))
    assert result.exit_code == 0, result.output
    assert compress(*train_arguments(recipe, out), "--overwrite").exit_code == 0


def test_interrupt_keeps_a_checkpoint_and_resume_ends_the_run(tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(RECIPE.replace("EPOCHS", "500"))
    command = [sys.executable, "-c", "from compressor.cli import main; main()",
               *train_arguments(recipe, out)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                           env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    log = out / "train_log.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and "admm_primal" in log.read_text()):
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "stopping after this step" in errors
    assert "go on with the same command and --resume" in errors
    assert "Traceback" not in errors
    assert not (out / "compression.json").exists()
    checkpoint, = (out / "checkpoints").glob("checkpoint-*")
    step = int(checkpoint.name.split("-")[1])

    # The rest of 4000 steps would take too long here: it is enough that the run goes on at that step.
    run = subprocess.Popen([*command, "--resume"], stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                           env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    before = sum(1 for _ in log.open())
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and sum(1 for _ in log.open()) < before + 2:
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.1)
    run.send_signal(signal.SIGTERM)  # as batch systems do before they take a machine away
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "go on with the same command and --resume" in errors
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps[before] > step - 5

    recipe.write_text(RECIPE.replace("EPOCHS", "2"))
    other = compress(*train_arguments(recipe, out), "--resume")
    assert "the run there has another recipe" in other.output


@pytest.mark.parametrize(("changes", "message"), [
    (["--model", "no/such/place"], "Error: --model no/such/place: "),
    (["--task", "sst3"], "Error: unknown task 'sst3'; use one of synthetic, sst2"),
    (["--task", "sst2", "--data", "nowhere"], "Error: nowhere: no such folder"),
])
def test_errors_are_one_line(changes, message, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = compress(*train_arguments(recipe, tmp_path / "out"), *changes)
    assert result.exit_code == 1
    assert result.output.startswith(message)
    assert result.output.count("\n") == 1


def test_recipe_errors_come_before_everything_else(recipe, tmp_path):
    recipe.write_text("schema_version: 1\nstagess: []\n")
    result = compress(*train_arguments(recipe, tmp_path / "out"))
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "stages: this key is required (and 1 more)" in result.output
    result = compress(*train_arguments("no-such-preset", tmp_path / "out"))
    assert "no such recipe file or preset; presets: admm-2to4, admm-pattern-50, " in result.output


def test_values_of_the_recipe_can_be_set(recipe, tmp_path):
    out = tmp_path / "out"
    changes = ("--set", "training.seed=7", "--set", "pool.size=16", "--set", "stages.0.rho=0.01")
    result = compress(*train_arguments(recipe, out), *changes)
    assert result.exit_code == 0, result.output
    trained = Recipe.from_yaml(out / "recipe.yaml")
    assert (trained.training.seed, trained.pool.size, trained.stages[0].rho) == (7, 16, 0.01)
    assert len(json.loads((out / "compression.json").read_text())["pool"]["patterns"]) == 16


@pytest.mark.parametrize(("change", "message"), [
    ("training.seed", "Error: --set training.seed: not KEY=VALUE, a key of the recipe and its value"),
    ("stages.2.rho=1", "Error: stages.2.rho=1: no such place in the recipe (list index out of range)"),
    ("training.sed=1", "Error: training.sed=1: training.sed: unknown key"),
    ("pool.size=0", "Error: pool.size=0: pool.size: "),
])
def test_what_is_set_is_checked_first(change, message, recipe, tmp_path):
    result = compress(*train_arguments(recipe, tmp_path / "out"), "--set", change)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert result.output.startswith(message)
    assert not (tmp_path / "out").exists()


def test_too_many_tokens_for_the_model(recipe, tmp_path):
    assert compress(*train_arguments(recipe, tmp_path / "out")).exit_code == 0
    recipe.write_text(RECIPE.replace("EPOCHS", "1").replace("24", "48"))
    result = compress(*train_arguments(recipe, tmp_path / "more"), "--model", tmp_path / "out")
    assert "training.max_tokens is 48, but model" in result.output
    assert "has positions for 24" in result.output


def test_foreign_directories_are_not_deleted(recipe, tmp_path):
    out = tmp_path / "photos"
    out.mkdir()
    (out / "a.jpg").write_text("x")
    result = compress(*train_arguments(recipe, out), "--overwrite")
    assert "not the output of compress train; it is not overwritten" in result.output
    assert (out / "a.jpg").exists()


def test_every_command_is_registered():
    assert set(main.commands) == {"train", "recover", "sensitivity", "sweep", "compare", "weights", "presets",
                                  "export", "verify"}


def test_presets_are_listed_and_printed():
    listed = compress("presets").output
    assert [line.split()[0] for line in listed.splitlines()] == preset_names()
    assert "schema_version: 1" in compress("presets", "demo").output
    assert compress("presets", "none").exit_code == 1
    assert list(json.loads(compress("presets", "--json").output)) == preset_names()
    assert Recipe.from_dict(json.loads(compress("presets", "demo", "--json").output)) == Recipe.preset("demo")


def test_help_and_import_load_nothing_heavy():
    code = ("import sys; import compressor, compressor.cli, compressor.intops;"
            "print(sorted({'torch', 'transformers', 'scipy', 'pydantic'} & set(sys.modules)))")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
