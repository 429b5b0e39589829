"""From the recipe of every method to proven Verilog, and what each saves on the same array."""

import pytest

from compressor.model_export import export_model
from compressor.recipes import Recipe
from compressor.tasks import load_task
from compressor.text_data import load_text
from compressor.training_run import run_training
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from sim.encoder_run import EncoderRequest, simulate_encoder
from sim.open_build import open_build
from sim.runner import SIM_DIRECTORY

ADMM = {"method": "admm", "epochs": 1, "interval": 2}
RETRAIN = {"method": "retrain", "epochs": 1}
PATTERN, NM, MODEL = ({"kind": kind} for kind in ("pattern", "nm", "model"))
BLOCKS = {"kind": "blocks", "rows": 4, "columns": 4, "density": 0.4}
LASSO = {"method": "group_lasso", "epochs": 1, "solver": "proximal", "strength": 0.02}
TOPK = {"method": "learned_topk", "epochs": 4, "remaining": 0.3, "score_rate": 4.0}
TEACHER = {"teacher": "model", "labels": 0, "logits": 0, "attention": 0}


def recipe(structure, *stages, **sections):
    return {"structure": structure, "stages": list(stages), **sections}


ALWAYS = {
    "2:4 by ADMM": ("nm", 0.5, recipe(NM, ADMM, RETRAIN)),
    "blocks, then patterns in what is left": ("pattern", 0.2, recipe(BLOCKS, LASSO),
                                              recipe(PATTERN, ADMM, RETRAIN)),
    "heads and rows (MLPruning)": ("dense", (0.02, 0.5), recipe({"kind": "heads_rows"}, TOPK)),
}
"""Methods that every test run proves: how layers are stored, share of a dense model's array cycles (or its
range), recipes one after the other."""

NIGHTLY = {
    "dense": ("dense", 1.0, recipe(PATTERN, {"method": "dense", "epochs": 1})),
    "patterns by ADMM": ("pattern", 0.5, recipe(PATTERN, ADMM, RETRAIN)),
    "patterns in one step": ("pattern", 0.5, recipe(PATTERN, RETRAIN)),
    "patterns by SR-STE": ("pattern", 0.5, recipe(PATTERN, {"method": "sr_ste", "epochs": 1}, RETRAIN)),
    "patterns, taught by the dense model": ("pattern", 0.5, recipe(
        PATTERN, {"method": "dense", "epochs": 1}, ADMM, RETRAIN, distillation={})),
    "patterns and attention maps": ("pattern", 0.5, recipe(PATTERN, ADMM, RETRAIN, attention_maps={})),
    "patterns and int8 by ADMM": ("pattern", 0.5, recipe(PATTERN, ADMM | {"values": "int8"}, RETRAIN)),
    "int8 by ADMM": ("dense", 1.0, recipe({"kind": "dense"}, ADMM | {"values": "int8"}, RETRAIN)),
    "patterns, trained in integers": ("pattern", 0.5, recipe(PATTERN, ADMM,
                                                             {"method": "quantize", "epochs": 1})),
    "patterns, recovered on plain text": ("pattern", 0.5, recipe(
        PATTERN, {"method": "reconstruct", "epochs": 1}, RETRAIN, distillation=TEACHER, text=True),
        recipe(MODEL, RETRAIN)),
    "2:4 in one step (ASP)": ("nm", 0.5, recipe(NM, RETRAIN)),
    "1:4 by ADMM": ("nm", 0.5, recipe({"kind": "nm", "keep": 1, "group": 4}, ADMM)),
    "unstructured by ADMM": ("dense", 1.0, recipe({"kind": "unstructured"}, ADMM)),
    "unstructured, gradually": ("dense", 1.0, recipe({"kind": "unstructured"},
                                                     {"method": "gradual", "epochs": 1, "interval": 2})),
    # Rows and columns of 16 leave something in every 4x4 block.
    "rows and columns by group Lasso": ("dense", 1.0, recipe(
        {"kind": "rows_columns", "rows": 16, "columns": 16, "density": 0.5}, LASSO | {"solver": "penalty"},
        RETRAIN)),
    "blocks by group Lasso": ("dense", 0.4, recipe(BLOCKS, LASSO)),
    "blocks, then 2:4 in what is left": ("nm", 0.2, recipe(BLOCKS, LASSO), recipe(NM, ADMM, RETRAIN)),
    "heads and rows, then blocks (MLPruning)": ("dense", (0.01, 0.25), recipe({"kind": "heads_rows"}, TOPK),
                                                recipe({"kind": "blocks", "rows": 4, "columns": 4},
                                                       TOPK | {"remaining": 0.5}, RETRAIN,
                                                       distillation={"teacher": "model"})),
    "heads and rows, then patterns": ("pattern", (0.01, 0.25), recipe({"kind": "heads_rows"}, TOPK),
                                      recipe(PATTERN, ADMM, RETRAIN)),
}
"""The others."""


def trained(recipes, data, folder):
    """The model directory that the last of several recipes leaves."""
    model = "tiny"
    for number, sections in enumerate(recipes):
        rows, sections = data, dict(sections)
        if sections["structure"] == PATTERN:
            sections["pool"] = {"size": 24}  # none depends on the weights: every model gets the same array
        if sections.pop("text", False):
            (folder / "text.txt").write_text("\n".join(row["sentence"] for row in data.train))
            rows = load_text([folder / "text.txt"])
        checked = Recipe.from_dict({"schema_version": 1, **sections, "training": {
            "learning_rate": 1e-3, "batch": 16, "max_tokens": 16}})
        run_training(checked, model_name=str(model), data=rows, out=folder / f"model{number}")
        model = folder / f"model{number}"
    return model


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """Where compiled benches are kept: methods whose models have the same sizes share one."""
    return tmp_path_factory.mktemp("benches")


@pytest.mark.parametrize("method", [*ALWAYS, *(pytest.param(name, marks=pytest.mark.nightly)
                                               for name in NIGHTLY)])
def test_train_export_build_and_simulate(method, benches, tmp_path):
    """Every word is proven, and what is removed takes fewer cycles than the same model whole."""
    stored, expected, *recipes = (ALWAYS | NIGHTLY)[method]
    data = load_task("synthetic", train_rows=64, validation_rows=16)
    bundle = export_model(trained(recipes, data, tmp_path), tmp_path / "pruned.pt", task=data.task,
                          rows=data.train[:16])
    assert {layer.structure for layer in bundle.layers.values()} == {stored}
    cost = build(tmp_path / "pruned.pt", tmp_path / "build", PlanRequest(rows=1, lanes=4)).cost
    whole = sum(rows * inner for rows, inner in (4 * [(64, 64)] + [(256, 64), (64, 256)])) * 2
    dense_cycles = whole // 16 * 2 * 4  # 4x4 blocks, two K-steps each, four token groups
    share = cost.array_cycles / dense_cycles
    if isinstance(expected, tuple):
        assert expected[0] < share < expected[1]
    else:
        assert share == pytest.approx(expected, abs=0.02)
    (tmp_path / "build" / SIM_DIRECTORY).symlink_to(benches)
    result = simulate_encoder(open_build(tmp_path / "build"), EncoderRequest(limit=2, every_layer=True))
    assert result.passed, result.first_mismatch
    assert result.words == 2 * 2 * 4 * 16  # sequences, layers, token groups, words of 64 channels
