"""From a recipe to proven Verilog for structures other than patterns."""

import pytest

from compressor.export import export
from compressor.recipes import Recipe
from compressor.tasks import load_task
from compressor.training_run import run_training
from hwgen.packaging import build
from hwgen.planner import PlanRequest
from sim.encoder_run import EncoderRequest, simulate_encoder
from sim.open_build import open_build


@pytest.mark.parametrize(("section", "stored"), [
    ({"kind": "nm", "keep": 2, "group": 4}, "nm"),
    pytest.param({"kind": "unstructured", "density": 0.5}, "dense", marks=pytest.mark.nightly),
    pytest.param({"kind": "nm", "keep": 1, "group": 4}, "nm", marks=pytest.mark.nightly),
])
def test_train_export_build_and_simulate(section, stored, tmp_path):
    data = load_task("synthetic", train_rows=64, validation_rows=16)
    recipe = Recipe.from_dict({
        "schema_version": 1, "structure": section,
        "training": {"learning_rate": 1e-3, "batch": 16, "max_tokens": 16},
        "stages": [{"method": "admm", "epochs": 1, "interval": 2}, {"method": "retrain", "epochs": 1}]})
    run_training(recipe, model_name="tiny", data=data, out=tmp_path / "model")
    bundle = export(tmp_path / "model", tmp_path / "pruned.pt", task=data.task, rows=data.train[:16])
    assert {layer.structure for layer in bundle.layers.values()} == {stored}
    build(tmp_path / "pruned.pt", tmp_path / "build", PlanRequest(rows=1, lanes=4))
    result = simulate_encoder(open_build(tmp_path / "build"), EncoderRequest(limit=2, every_layer=True))
    assert result.passed, result.first_mismatch
    assert result.words == 2 * 2 * 4 * 16  # sequences, layers, token groups, words of 64 channels
