"""Reweighted group Lasso: gradients, the proximal step, milestones, whole runs."""

import itertools

import pytest
import torch

from compressor.group_lasso import GroupLasso
from compressor.group_structures import Blocks, RowsAndColumns, unit_sums
from compressor.model_dir import read_compression
from compressor.recipes import RecipeError
from compressor.tasks import load_task
from compressor.training_plan import plan_training
from compressor.training_run import run_training
from tests.compressor.test_methods import RETRAIN, assert_resumes_exactly, recipe_of
from tests.compressor.test_trainer import trainer_of


@pytest.fixture(scope="module")
def data():
    return load_task("synthetic", train_rows=64, validation_rows=40)


LASSO = {"method": "group_lasso", "epochs": 2, "strength": 1e-3, "reweight_epochs": 0.5}
ROWS_COLUMNS = {"kind": "rows_columns", "rows": 16, "columns": 16, "density": 0.5}
BLOCKS = {"kind": "blocks", "rows": 8, "columns": 4}


def weight_of(rows=16, inner=16):
    return torch.nn.Parameter(torch.randn(rows, inner, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("structure", [Blocks(4, 8), RowsAndColumns(8, 8)])
def test_the_penalty_gradient_is_that_of_the_loss(structure):
    """lambda times the sum of gamma ||g||, over all kinds of units, by automatic differentiation."""
    weight = weight_of()
    lasso = GroupLasso({"w": weight}, structure, strength=0.3)
    loss = 0.0
    for unit in structure.units:
        norms = unit_sums(weight.square(), unit).sqrt()
        gamma = 1 / (norms.detach() + 1e-3 * norms.detach().median())
        loss = loss + 0.3 * (gamma * norms).sum()
    expected, = torch.autograd.grad(loss, weight)
    weight.grad = torch.ones_like(weight)
    norm = lasso.add_penalty_gradient()
    assert torch.allclose(weight.grad, expected + 1, rtol=1e-4)
    assert norm == pytest.approx(float(expected.norm()), rel=1e-4)
    assert lasso.report()["penalty"] == pytest.approx(float(loss.detach()) / 0.3, rel=1e-4)


def test_the_proximal_step_lowers_norms_to_zero():
    weight = weight_of()
    with torch.no_grad():
        weight[:4, :8] *= 1e-3
    lasso = GroupLasso({"w": weight}, Blocks(4, 8), strength=0.5)
    before = unit_sums(weight.detach().square(), (4, 8)).sqrt()
    lasso.proximal_step(0.2)
    after = unit_sums(weight.detach().square(), (4, 8)).sqrt()
    gamma = 1 / (before + 1e-3 * before.median())
    assert torch.allclose(after, (before - 0.5 * 0.2 * gamma).clamp(min=0), rtol=1e-4, atol=1e-6)
    assert after[0, 0] == 0
    assert lasso.report()["zero"] == 1 / 8


def test_gammas_move_at_milestones_alone(data, tmp_path):
    trainer = trainer_of(recipe_of(BLOCKS | {"density": 0.5}, LASSO), data, tmp_path)
    seen, name = [], "0/encoder.layer.0.output.dense"
    inner = trainer.stages.after_optimizer_step

    def after_step(*args):
        seen.append(trainer.stages.method.gammas[name].clone())
        inner(*args)

    trainer.stages.after_optimizer_step = after_step
    trainer.train()
    changes = [not torch.equal(*pair) for pair in itertools.pairwise(seen)]
    assert changes == [False, True] * 3 + [False]  # every second of 8 steps


@pytest.mark.parametrize(("structure", "solver", "stops"), [
    pytest.param(ROWS_COLUMNS, "penalty", (3, 8), marks=pytest.mark.nightly), (BLOCKS, "proximal", (5,))])
def test_interrupted_run_equals_uninterrupted(structure, solver, stops, data, tmp_path):
    stage = LASSO | {"solver": solver, "strength": 0.08}
    whole = assert_resumes_exactly(recipe_of(structure, stage, RETRAIN), data, tmp_path, stops)
    logs = [record for record in whole.state.log_history if "lasso_zero" in record]
    assert (logs[-1]["lasso_zero"] > 0) == (solver == "proximal")


def test_lasso_makes_the_removed_units_smaller(data, tmp_path):
    """Against the same training without a penalty, projections remove less."""
    kept = []
    for strength in (1e-9, 0.01):
        stage = LASSO | {"strength": strength, "solver": "proximal"}
        result = trainer_of(recipe_of(ROWS_COLUMNS, stage, RETRAIN), data, tmp_path / str(strength))
        result.train()
        kept += [record["frozen_retained_energy"] for record in result.state.log_history
                 if "frozen_retained_energy" in record]
    assert kept[1] > kept[0] + 0.02


def test_model_directories_say_what_was_removed(data, tmp_path):
    recipe = recipe_of(BLOCKS, LASSO | {"solver": "proximal", "strength": 0.08})
    result = run_training(recipe, model_name="tiny", data=data, out=tmp_path / "out")
    info = read_compression(tmp_path / "out")
    assert info.structure == Blocks(8, 4)
    assert result.metrics["nonzero_weights"] < result.metrics["encoder_weights"]
    present = result.metrics["compressed_int8_bits"] - result.metrics["encoder_weights"] // 16
    assert present == 8 * result.metrics["nonzero_weights"]


def test_contradictions_are_refused():
    with pytest.raises(RecipeError, match=r"a stage group_lasso needs structure: \{kind: blocks\}"):
        recipe_of({"kind": "nm"}, LASSO)
    with pytest.raises(RecipeError, match=r"structure\.density is needed: no stage decides by itself"):
        recipe_of(BLOCKS, LASSO)


def test_a_plan_says_that_units_are_never_reweighted(data):
    warning = ("stage group_lasso: its units are never reweighted: reweight_epochs is 2, and the stage has 2 "
               "epochs; set it to 1 or less")
    for epochs, warnings in ((2, [warning]), (1.5, [])):
        recipe = recipe_of(ROWS_COLUMNS, LASSO | {"reweight_epochs": epochs}, RETRAIN)
        assert plan_training(recipe, model_name="tiny", data=data)["warnings"] == warnings
