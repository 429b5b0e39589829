"""From a recipe to proven Verilog for structures other than patterns."""

import pytest

from compressor.model_export import export_model
from compressor.recipes import Recipe
from compressor.tasks import load_task
from compressor.training_run import run_training
from hwgen.packaging import build
from hwgen.planner import PlanRequest
from sim.encoder_run import EncoderRequest, simulate_encoder
from sim.open_build import open_build

EXPECTED = {"nm": 0.5, "unstructured": 1.0, "blocks": 0.4, "rows_columns": 1.0}
"""Share of a dense model's array cycles: rows and columns of 16 leave something in every 4x4 block."""

ADMM = {"method": "admm", "epochs": 1, "interval": 2}
RETRAIN = {"method": "retrain", "epochs": 1}


@pytest.mark.parametrize(("section", "stages", "stored"), [
    ({"kind": "nm", "keep": 2, "group": 4}, [ADMM, RETRAIN], "nm"),
    ({"kind": "blocks", "rows": 4, "columns": 4, "density": 0.4},
     [{"method": "group_lasso", "epochs": 1, "solver": "proximal", "strength": 0.02}], "dense"),
    pytest.param({"kind": "rows_columns", "rows": 16, "columns": 16, "density": 0.5},
                 [{"method": "group_lasso", "epochs": 1}, RETRAIN], "dense", marks=pytest.mark.nightly),
    pytest.param({"kind": "unstructured", "density": 0.5}, [ADMM], "dense", marks=pytest.mark.nightly),
    pytest.param({"kind": "nm", "keep": 1, "group": 4}, [ADMM], "nm", marks=pytest.mark.nightly),
])
def test_train_export_build_and_simulate(section, stages, stored, tmp_path):
    """Every word is proven, and what is removed takes fewer cycles than the same model whole."""
    data = load_task("synthetic", train_rows=64, validation_rows=16)
    recipe = Recipe.from_dict({
        "schema_version": 1, "structure": section,
        "training": {"learning_rate": 1e-3, "batch": 16, "max_tokens": 16},
        "stages": stages})
    run_training(recipe, model_name="tiny", data=data, out=tmp_path / "model")
    bundle = export_model(tmp_path / "model", tmp_path / "pruned.pt", task=data.task, rows=data.train[:16])
    assert {layer.structure for layer in bundle.layers.values()} == {stored}
    cost = build(tmp_path / "pruned.pt", tmp_path / "build", PlanRequest(rows=1, lanes=4)).cost
    whole = sum(rows * inner for rows, inner in (4 * [(64, 64)] + [(256, 64), (64, 256)])) * 2
    dense_cycles = whole // 16 * 2 * 4  # 4x4 blocks, two K-steps each, four token groups
    assert cost.array_cycles / dense_cycles == pytest.approx(EXPECTED[section["kind"]], abs=0.02)
    result = simulate_encoder(open_build(tmp_path / "build"), EncoderRequest(limit=2, every_layer=True))
    assert result.passed, result.first_mismatch
    assert result.words == 2 * 2 * 4 * 16  # sequences, layers, token groups, words of 64 channels


def test_mlpruning_makes_smaller_layers(tmp_path):
    """Removed heads and neurons are gone from bundle, program and cycles; the Verilog computes the rest."""
    data = load_task("synthetic", train_rows=64, validation_rows=16)
    recipe = Recipe.from_dict({
        "schema_version": 1, "structure": {"kind": "heads_rows"},
        "training": {"learning_rate": 1e-3, "batch": 16, "max_tokens": 16},
        "stages": [{"method": "learned_topk", "epochs": 4, "remaining": 0.3, "score_rate": 4.0}]})
    run_training(recipe, model_name="tiny", data=data, out=tmp_path / "model")
    bundle = export_model(tmp_path / "model", tmp_path / "pruned.pt", task=data.task, rows=data.train[:16])
    assert all(layer.attention.heads < 4 for layer in bundle.encoder.layers)
    built = build(tmp_path / "pruned.pt", tmp_path / "build", PlanRequest(rows=1, lanes=4))
    assert built.cost.array_cycles < 0.5 * 2 * 49152 // 16 * 2 * 4  # weights of the whole model
    result = simulate_encoder(open_build(tmp_path / "build"), EncoderRequest(limit=2, every_layer=True))
    assert result.passed, result.first_mismatch
    assert result.words == 2 * 2 * 4 * 16
