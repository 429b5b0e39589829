"""The least-squares fit of pruned layers and encoders, against numpy's least squares and known solutions."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from compressor.activation_norms import input_norms
from compressor.encoder_fit import fit_encoder
from compressor.group_structures import Blocks
from compressor.model_dir import check_model, read_compression
from compressor.output_fit import InputMoments, OutputFit, solve_masked
from compressor.pools import build_pool
from compressor.recipes import Recipe, RecipeError
from compressor.removed_units import RemovedUnits
from compressor.run_guards import TrainingError
from compressor.structures import NM, Dense, Pattern, Unstructured
from compressor.targets import target_layers
from compressor.tasks import load_task
from compressor.training_run import run_training
from tests.compressor.test_methods import assert_resumes_exactly, recipe_of
from tests.compressor.test_whole_encoders import ENCODERS

STRUCTURES = [Pattern(build_pool("reed_muller")), NM(), Unstructured(0.5), Blocks(4, 8, 0.5)]
FIT = {"method": "retrain", "epochs": 1, "fit_rows": 48}


@pytest.fixture(scope="module")
def data():
    return load_task("synthetic", train_rows=64, validation_rows=40)


@pytest.fixture
def tokens():
    """Correlated inputs of a layer with a mean, shape (4000, 64), and the layer: 32 rows, a bias."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.eye(64) + 0.2 * torch.randn(64, 64, generator=generator)
    mix *= torch.logspace(0.5, -0.5, 64)[:, None]
    x = torch.randn(4000, 64, generator=generator) @ mix + torch.randn(64, generator=generator)
    return x, torch.randn(32, 64, generator=generator), torch.randn(32, generator=generator)


def moments_of(x, y):
    moments = InputMoments(x.shape[1], y.shape[1])
    for part in torch.arange(len(x)).split(1500):
        moments.add(x[part], y[part])
    return moments


def output_error(x, y, weight, bias):
    return float((x @ weight.T + bias - y).square().mean())


def test_rows_are_solved_on_their_masks_as_numpy_solves_them(tokens):
    x, weight, bias = tokens
    generator = torch.Generator().manual_seed(1)
    y = x @ weight.T + bias + torch.randn(len(x), 32, generator=generator)
    mask = torch.rand(32, 64, generator=generator) < torch.linspace(0, 1, 32)[:, None]  # row 0 keeps nothing
    moments = moments_of(x, y)
    found = solve_masked(*moments.covariances(), mask)
    assert not found[~mask].any()
    for row in range(32):
        kept = mask[row].nonzero().flatten().numpy()
        inputs = np.column_stack([x[:, kept].double().numpy(), np.ones(len(x))])
        *expected, constant = np.linalg.lstsq(inputs, y[:, row].double().numpy(), rcond=None)[0]
        np.testing.assert_allclose(found[row, kept].numpy(), expected, rtol=1e-2, atol=1e-3)
        x_mean, y_mean = moments.means()
        assert float(y_mean[row] - found[row] @ x_mean) == pytest.approx(constant, abs=1e-2)


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda one: one.name)
def test_masks_have_the_structure_and_beat_those_of_scores(structure, tokens):
    x, weight, bias = tokens
    y = x @ weight.T + bias
    found = OutputFit(moments_of(x, y)).fit(weight, structure)
    structure.verify(found.weight)
    assert not found.weight[~found.mask].any()
    norms = x.square().mean(dim=0).sqrt()
    mask = structure.project(weight, norms)[1].mask
    assert found.mask.sum() == mask.sum()
    solved = solve_masked(*moments_of(x, y).covariances(), mask)
    refitted = output_error(x, y, solved, (y - x @ solved.T).mean(dim=0))
    best = output_error(x, y, found.weight, found.bias)
    assert best < refitted < 0.9 * output_error(x, y, weight * mask, bias)


def test_layers_with_one_input_are_fitted_as_if_they_were_alone(tokens):
    x, weight, bias = tokens
    y = x @ weight.T + bias
    together = OutputFit(moments_of(x, torch.cat([y, 2 * y], dim=1)))
    alone = OutputFit(moments_of(x, 2 * y)).fit(2 * weight, NM())
    found = together.fit(2 * weight, NM(), first_row=32)
    assert torch.equal(found.mask, alone.mask)
    torch.testing.assert_close(found.weight, alone.weight)
    torch.testing.assert_close(found.bias, alone.bias)


def test_removed_weights_stay_away_and_what_is_left_makes_up_for_them(tokens):
    x, weight, bias = tokens
    allowed = torch.ones_like(weight, dtype=torch.bool)
    allowed[:4, :8] = False
    fit = OutputFit(moments_of(x, x @ weight.T + bias))
    found = fit.fit(weight, NM(), allowed=allowed)
    assert not found.weight[~allowed].any()
    cut = fit.fit(weight, NM())
    y = x @ weight.T + bias
    assert output_error(x, y, found.weight, found.bias) < output_error(x, y, cut.weight * allowed, cut.bias)


def test_channels_that_never_vary_do_no_harm():
    x = torch.zeros(100, 8)
    x[:, :4] = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(4, 8)
    found = OutputFit(moments_of(x, x @ weight.T)).fit(weight, NM())
    assert torch.isfinite(found.weight).all()
    assert torch.isfinite(OutputFit(moments_of(0 * x, 0 * x[:, :4])).fit(weight, NM()).weight).all()


@pytest.mark.parametrize("architecture", ENCODERS)
@pytest.mark.parametrize("structure", [STRUCTURES[0], NM()], ids=lambda one: one.name)
def test_a_fitted_encoder_is_nearer_than_a_projected_one(architecture, structure):
    torch.manual_seed(0)
    model = ENCODERS[architecture]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)
    batches = sentences(model.config.vocab_size)
    fitted, projected = copy.deepcopy(model), copy.deepcopy(model)
    targets = target_layers(fitted)
    masks, error = fit_encoder(fitted, targets, structure, batches)
    norms = input_norms(model, target_layers(model), batches)
    with torch.no_grad():
        for name, target in target_layers(projected).items():
            target.module.weight.copy_(structure.project(target.module.weight, norms[name])[0])
    for name, target in targets.items():
        structure.verify(target.module.weight)
        assert not target.module.weight[~masks[name]].any()
    assert error == pytest.approx(hidden_error(fitted, model, batches), rel=1e-3)
    assert error < 0.75 * hidden_error(projected, model, batches)


def sentences(vocabulary):
    """40 batches of model inputs, padding included."""
    generator = torch.Generator().manual_seed(2)
    return [{"input_ids": torch.randint(5, vocabulary, (8, 12), generator=generator),
             "attention_mask": (torch.arange(12) < torch.randint(2, 13, (8, 1), generator=generator)).long()}
            for _ in range(40)]


@torch.no_grad()
def hidden_error(model, dense, batches):
    """Relative error of the last hidden states over real tokens."""
    error = size = 0.0
    for batch in batches:
        real = batch["attention_mask"].bool()
        found, wanted = (one.eval().base_model(**batch).last_hidden_state[real] for one in (model, dense))
        error += float((found - wanted).square().sum())
        size += float(wanted.square().sum())
    return (error / size) ** 0.5


@pytest.mark.parametrize("architecture", ENCODERS)
def test_an_encoder_that_has_the_structure_stays_as_it_is(architecture):
    """Targets that were wrong by a residual or a bias would move it."""
    torch.manual_seed(0)
    model = ENCODERS[architecture]()
    with torch.no_grad():
        for target in target_layers(model).values():
            target.module.weight.copy_(NM().project(8 * target.module.weight)[0])
            target.module.bias.normal_()
    before = copy.deepcopy(model)
    _, error = fit_encoder(model, target_layers(model), NM(), sentences(model.config.vocab_size))
    assert error < 1e-3
    for name, target in target_layers(before).items():
        found = target_layers(model)[name].module
        torch.testing.assert_close(found.weight, target.module.weight, rtol=1e-2, atol=1e-2)
        assert torch.equal(found.weight != 0, target.module.weight != 0), name


def test_other_layers_stay_as_they_are():
    torch.manual_seed(0)
    model = ENCODERS["bert"]().train()
    before = copy.deepcopy(model.state_dict())
    targets = target_layers(model, ("k", "ffn1"))
    masks, _ = fit_encoder(model, targets, NM(), sentences(model.config.vocab_size))
    moved = {name.rsplit(".", 1)[0] for name, value in model.state_dict().items()
             if not torch.equal(value, before[name])}
    assert moved == {f"bert.{name}" for name in masks} == {f"bert.{name}" for name in targets}
    assert model.training
    masks, error = fit_encoder(model, targets, Dense(), sentences(model.config.vocab_size))
    assert error == 0
    assert all(mask.all() for mask in masks.values())


def test_a_damaged_model_is_one_line():
    torch.manual_seed(0)
    model = ENCODERS["bert"]()
    with torch.no_grad():
        model.bert.encoder.layer[1].intermediate.dense.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="what enters or leaves ffn1 of encoder layer 1 is not finite"):
        fit_encoder(model, target_layers(model), NM(), sentences(model.config.vocab_size))


def test_a_recipe_fits_and_resumes_exactly(data, tmp_path, capsys):
    recipe = recipe_of({"kind": "pattern"}, {"method": "dense", "epochs": 1}, FIT)
    whole = assert_resumes_exactly(recipe, data, tmp_path, (3, 6))
    logs = {key: value for record in whole.state.log_history for key, value in record.items()}
    assert 0 < logs["fit_hidden_error"] < 0.5
    assert "fit: encoder layer 2 of 2, 0 s left" in capsys.readouterr().err
    run_training(recipe, model_name="tiny", data=data, out=tmp_path / "out")
    info = read_compression(tmp_path / "out")
    assert info.structure.name == "pattern"
    check_model(AutoModelForSequenceClassification.from_pretrained(tmp_path / "out"), info)


def test_blocks_that_are_gone_stay_away(data, tmp_path):
    blocks = {"kind": "blocks", "rows": 8, "columns": 8, "density": 0.5}
    run_training(recipe_of(blocks, FIT), model_name="tiny", data=data, out=tmp_path / "blocks")
    run_training(recipe_of({"kind": "nm"}, FIT), model_name=str(tmp_path / "blocks"), data=data,
                 out=tmp_path / "both")
    before, after = (AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
                     for name in ("blocks", "both"))
    kept = RemovedUnits(target_layers(before))
    for name, target in target_layers(after).items():
        assert not target.module.weight[~kept.weight_mask(name)].any()
        NM().verify(target.module.weight)


@pytest.mark.parametrize(("structure", "stages"), [
    ({"kind": "nm"}, [{"method": "admm", "epochs": 1}, FIT]),
    ({"kind": "model"}, [FIT]),
    ({"kind": "nm"}, [FIT | {"name": "first", "fit_rows": None}, FIT]),
])
def test_recipes_that_cannot_fit(structure, stages):
    with pytest.raises(RecipeError, match="fit_rows chooses what is kept: it belongs in a stage retrain"):
        Recipe.from_dict({"schema_version": 1, "structure": structure, "stages": stages})
    with pytest.raises(RecipeError, match="fit_rows chooses by the layers' outputs, not by scores"):
        recipe_of({"kind": "nm", "score": "activation"}, FIT)
    with pytest.raises(RecipeError, match=r"stages.0.fit_rows: Input should be greater than or equal to 1"):
        recipe_of({"kind": "nm"}, FIT | {"fit_rows": 0})
