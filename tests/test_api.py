"""The functions that users call from Python: complete, light to import, and what the commands do."""

import json
import pkgutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

import compressor
import hwgen
import sim
from compressor.cli import main as compress_command
from hwgen.cli import main as hwgen_command

RECIPE = {"schema_version": 1, "training": {"learning_rate": 1e-3, "batch": 8, "max_tokens": 12},
          "stages": [{"method": "admm", "epochs": 1, "interval": 5}, {"method": "retrain", "epochs": 1}]}
ROWS = {"train_rows": 64, "validation_rows": 32}
HEAVY = ("torch", "transformers", "amaranth", "scipy", "pydantic", "optuna")
TIMES = ("seconds", "per_second")
"""Ends of the names of figures that differ from run to run."""


@pytest.fixture(autouse=True)
def _fast_compilation(monkeypatch):
    monkeypatch.setattr("sim.harness.OPTIMIZE", "-O0")


def run(command, *arguments):
    """What a command prints with --json."""
    done = CliRunner().invoke(command, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def timeless(values):
    """JSON values without the times and without where they were written."""
    return {key: value for key, value in json.loads(json.dumps(values)).items()
            if not key.endswith(TIMES) and key not in ("directory", "bundle")}


@pytest.mark.parametrize("package", [compressor, hwgen, sim])
def test_every_public_name_is_there(package):
    assert dir(package) == sorted(package.__all__)
    submodules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert submodules & set(package.__all__) == set()  # importing one would replace the function
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'x'"):
        package.x  # noqa: B018


def test_packages_are_light_until_they_are_used():
    code = ("import sys, compressor, hwgen, sim, hwgen.cli, compressor.cli; "
            f"print(sorted(set({HEAVY}) & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_python_and_commands_give_the_same(tmp_path):
    trained = compressor.compress(RECIPE, model="tiny", task="synthetic", out=tmp_path / "model", **ROWS)
    assert trained.finished
    bundle = compressor.export(trained.directory, tmp_path / "pruned.pt", rows=16, validation_rows=16)
    assert compressor.verify(tmp_path / "pruned.pt").summary() == bundle.summary()
    built = hwgen.build(tmp_path / "pruned.pt", tmp_path / "build", rows=2, lanes=4, bus_bits=64)
    simulated = sim.simulate(built.directory, data="synthetic", limit=2, every_layer=True)
    evaluated = sim.evaluate(built.directory, "synthetic", limit=4)
    assert simulated.passed
    assert simulated.words > 0
    assert evaluated.passed

    (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE))
    again = run(compress_command, "train", tmp_path / "recipe.yaml", "--model", "tiny", "--task", "synthetic",
                "--out", tmp_path / "again", "--train-rows", 64, "--validation-rows", 32)
    assert again["metrics"].pop("train_seconds", None) == trained.metrics.pop("train_seconds", None)
    assert timeless(again) == timeless(trained.to_dict())
    exported = run(compress_command, "export", tmp_path / "again", "-o", tmp_path / "again.pt", "--rows", 16,
                   "--validation-rows", 16)
    assert timeless(exported) == timeless({**bundle.summary(),
                                           "quantization": bundle.metrics["quantization"]})
    command = run(hwgen_command, "build", "--model", tmp_path / "pruned.pt", "--out", tmp_path / "second",
                  "--rows", 2, "--lanes", 4, "--bus-bits", 64)
    assert timeless(command) == timeless(built.to_dict())
    assert (tmp_path / "second/manifest.json").read_bytes() == (tmp_path / "build/manifest.json").read_bytes()
    command = run(hwgen_command, "sim", built.directory, "--data", "synthetic", "--limit", 2, "--every-layer")
    assert timeless(command) == timeless(simulated.to_dict())
    command = run(hwgen_command, "eval", built.directory, "--data", "synthetic", "--limit", 4)
    assert timeless(command) == timeless(evaluated.to_dict())


def test_rows_that_are_loaded_already_take_no_options(tmp_path):
    rows = compressor.load_task("synthetic", train_rows=64, validation_rows=8)
    plan = compressor.plan_compression(RECIPE, model="tiny", task=rows)
    assert plan["training_rows"] == 64
    with pytest.raises(TypeError, match="leave them out"):
        compressor.plan_compression(RECIPE, model="tiny", task=rows, train_rows=8)
    with pytest.raises(compressor.RecipeError, match="recipe: stages: this key is required"):
        compressor.plan_compression({"schema_version": 1}, model="tiny", task=rows)
