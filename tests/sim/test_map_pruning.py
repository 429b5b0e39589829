"""A model trained with pruned attention maps, through every command to the accuracy of its Verilog."""

import json

from click.testing import CliRunner

from compressor.bundle import load_bundle
from compressor.cli import main as compress
from hwgen.cli import main as hwgen

RECIPE = """
schema_version: 1
attention_maps: {size: 4, power: 2}
training: {learning_rate: 1.0e-3, batch: 16, max_tokens: 16}
stages:
  - {method: dense, epochs: 1}
  - {method: retrain, epochs: 1}
"""


def run(command, *arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_from_training_to_the_accuracy_of_the_verilog(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    model, bundle, build = (tmp_path / name for name in ("model", "pruned.pt", "build"))
    run(compress, "train", tmp_path / "recipe.yaml", "--model", "tiny", "--task", "synthetic",
        "--train-rows", 64, "--validation-rows", 16, "--out", model)
    run(compress, "export", model, "-o", bundle, "--rows", 16, "--validation-rows", 0)
    described = json.loads(run(compress, "verify", bundle, "--json"))
    assert described["attention_maps"] == {"layers": 2, "patterns": 4, "power": 2, "padded_tokens": 16}
    run(hwgen, "build", "--model", bundle, "--out", build, "--rows", 1, "--lanes", 8)
    found = json.loads(run(hwgen, "eval", build, "--data", "synthetic", "--limit", 4, "--sequences", 3,
                           "--json"))
    assert found["passed"]
    assert found["rows"] == 4
    assert found["words"] == 4 * 2 * 16
    assert found["word_mismatches"] == found["prediction_mismatches"] == 0
    assert found["metrics"]["rtl"] == found["metrics"]["golden"]
    assert load_bundle(bundle).encoder.layers[0].attention.pruning.power == 2
