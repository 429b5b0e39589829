"""Projections onto a structure and int8 at once, and ADMM with them."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from compressor.blocks import to_blocks
from compressor.calibration import DEFAULT_METHODS
from compressor.group_structures import Blocks
from compressor.model_export import export_model
from compressor.pools import build_pool
from compressor.quantization import quantize_layer
from compressor.recipes import RecipeError
from compressor.structures import NM, Dense, Pattern, Unstructured
from compressor.tasks import load_task
from compressor.training_run import run_training
from compressor.weight_grid import IntegerGrid
from tests.compressor.test_methods import ADMM, RETRAIN, SR_STE, assert_resumes_exactly, recipe_of
from tests.compressor.test_trainer import trainer_of

PATTERN = Pattern(build_pool("reed_muller"))
BASES = [Dense(), PATTERN, Pattern(build_pool("reed_muller", balance="none")), NM(), Unstructured(0.4),
         Blocks(4, 4, 0.5)]
ON_GRID = ADMM | {"values": "int8"}


def random_weight(rows=16, inner=24, seed=0):
    return torch.randn(rows, inner, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("base", BASES)
def test_the_exporter_stores_the_projection_exactly(base):
    projected, found = IntegerGrid(base).project(random_weight())
    base.verify(projected)
    layer = quantize_layer("0.q", "q", projected.numpy(), np.zeros(16), structure=base, input_scale=0.02,
                           output_scale=0.05)
    stored = layer.weight * layer.weight_scale[:, None].astype(np.float64)
    np.testing.assert_allclose(stored, projected.numpy(), rtol=1e-6, atol=0)
    assert np.abs(layer.weight).max(axis=1).tolist() == [127] * 16
    again, found_again = IntegerGrid(base).project(projected)
    assert torch.equal(found_again.mask & (projected != 0), projected != 0)
    torch.testing.assert_close(again, projected, rtol=1e-6, atol=0)
    assert found.retained_energy == pytest.approx(
        float((random_weight() * found.mask).square().sum() / random_weight().square().sum()), rel=1e-5)


def test_it_is_the_nearest_for_given_scales():
    """A large weight in every row, which every near pattern keeps, fixes the scales; brute force agrees."""
    weight = random_weight(8, 40) / 2
    weight[:, :4] = torch.tensor([40.0, 40.0, 0.0, 0.0])  # scale 40 / 127: other weights have few integers
    projected, found = IntegerGrid(PATTERN).project(weight)
    assert torch.equal(projected[:, :2], torch.full((8, 2), 40.0))
    scale = 40 / 127
    for block, own in zip(to_blocks(weight), to_blocks(projected), strict=True):
        rounded = torch.floor(block / scale + 0.5) * scale
        distances = [float((block - rounded * torch.tensor(pattern)).square().sum())
                     for pattern in PATTERN.pool.patterns]
        assert float((block - own).square().sum()) == pytest.approx(min(distances), rel=1e-5)
    by_size = PATTERN.project(weight)[1].mask
    assert not torch.equal(found.mask, by_size), "the test's weights do not tell the two choices apart"


def test_norms_weigh_the_rounding_errors():
    weight = torch.tensor([[10.0, 0.0, 1.0, 1.2]]).repeat(4, 1)
    found = IntegerGrid(NM()).project(weight, torch.tensor([1.0, 1.0, 5.0, 1.0]))[1]
    assert found.mask[0].tolist() == [True, False, True, False]


@pytest.fixture(scope="module")
def data():
    return load_task("synthetic", train_rows=64, validation_rows=40)


def grid_error(weight):
    """Largest distance from a multiple of the row's largest weight over 127, in such multiples."""
    scaled = weight / (weight.abs().amax(dim=1, keepdim=True) / 127)
    return float((scaled - scaled.round()).abs().max())


@pytest.mark.parametrize("structure", [{"kind": "pattern"}, {"kind": "dense"}])
def test_training_ends_on_the_grid(data, tmp_path, structure):
    trainer = trainer_of(recipe_of(structure, ON_GRID), data, tmp_path)
    trainer.train()
    trainer.finalize()
    for name, weight in trainer.stages.weights.items():
        assert grid_error(weight.detach()) < 1e-3, name
        assert trainer.stages.structure.of_layer(name).verify(weight.detach()) is None


def test_without_it_training_ends_off_the_grid(data, tmp_path):
    trainer = trainer_of(recipe_of({"kind": "pattern"}, ADMM), data, tmp_path)
    trainer.train()
    trainer.finalize()
    assert min(grid_error(weight.detach()) for weight in trainer.stages.weights.values()) > 0.1


@pytest.mark.parametrize("structure", [{"kind": "pattern"}, {"kind": "dense"}])
def test_an_interrupted_run_goes_on_exactly(data, tmp_path, structure):
    assert_resumes_exactly(recipe_of(structure, ON_GRID | {"epochs": 2}, RETRAIN), data, tmp_path,
                           stops=(3, 9))


def test_the_result_reloads_and_exports(data, tmp_path):
    recipe = recipe_of({"kind": "dense"}, {"method": "dense", "epochs": 1}, ON_GRID)
    run_training(recipe, model_name="tiny", data=data, out=tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    bundle = export_model(tmp_path / "out", tmp_path / "dense.pt", task=data.task, rows=data.train[:16],
                    methods=DEFAULT_METHODS)
    layer = bundle.layers["encoder.layer.0.intermediate.dense"]
    weight = model.get_submodule("bert.encoder.layer.0.intermediate.dense").weight.detach().numpy()
    np.testing.assert_allclose(layer.weight * layer.weight_scale[:, None], weight, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("structure", "stages", "message"), [
    ({"kind": "dense"}, (ADMM,), "prunes nothing: it needs a stage admm with values: int8"),
    ({"kind": "pattern"}, (ON_GRID, SR_STE), "cannot be followed by sr_ste")])
def test_recipes_that_make_no_sense_are_refused(structure, stages, message):
    with pytest.raises(RecipeError, match=message):
        recipe_of(structure, *stages)
