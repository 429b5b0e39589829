"""Patterns or N:M in what an earlier recipe has left of heads, rows and blocks."""

import copy

import pytest
import torch

from compressor.blocks import to_blocks
from compressor.group_structures import Blocks, HeadsRows
from compressor.model_dir import describe, load_model_dir, read_compression, write_model_dir
from compressor.model_export import export_model
from compressor.pools import build_pool
from compressor.removed_units import RemovedUnits, row_group, shrink
from compressor.stages import StageState
from compressor.structures import NM, Pattern
from compressor.targets import target_layers
from compressor.tasks import load_task
from compressor.tiny_model import build_tiny_model
from compressor.training_plan import plan_training
from compressor.training_run import run_training
from tests.compressor.test_methods import RETRAIN, recipe_of
from tests.compressor.test_mlpruning import remove_some

BLOCKS = {"kind": "blocks", "rows": 16, "columns": 4, "density": 0.5}
STAGES = {"admm": {"method": "admm", "epochs": 1, "interval": 2, "rho": 0.1},
          "sr_ste": {"method": "sr_ste", "epochs": 1},
          "dense": {"method": "dense", "epochs": 1}}


@pytest.fixture(scope="module")
def data():
    return load_task("synthetic", train_rows=64, validation_rows=16)


@pytest.fixture(scope="module")
def blocks(data, tmp_path_factory):
    """A model half of whose blocks of 16x4 are gone."""
    folder = tmp_path_factory.mktemp("blocks") / "model"
    run_training(recipe_of(BLOCKS, RETRAIN), model_name="tiny", data=data, out=folder)
    return folder


def present(model):
    """Which 4x4 blocks of every linear layer are not zero, by name."""
    return {name: (to_blocks(target.module.weight.detach()) != 0).any(dim=1)
            for name, target in target_layers(model).items()}


@pytest.mark.parametrize(("kind", "stages"), [
    ("pattern", ("admm",)), ("pattern", ("dense", "sr_ste")), ("nm", ("admm", "sr_ste"))])
def test_removed_blocks_stay_away_and_the_rest_gets_patterns(kind, stages, blocks, data, tmp_path):
    recipe = recipe_of({"kind": kind}, *(STAGES[name] for name in stages), RETRAIN)
    plan = plan_training(recipe, model_name=str(blocks), data=data)
    result = run_training(recipe, model_name=str(blocks), data=data, out=tmp_path / "both")
    before = load_model_dir(blocks)[0]
    model, _, info = load_model_dir(tmp_path / "both")
    assert isinstance(info.structure, Pattern if kind == "pattern" else NM)
    assert info.units == read_compression(blocks).units is not None
    for (name, left), own in zip(present(model).items(), present(before).values(), strict=True):
        assert torch.equal(left, own), name
        assert int(own.sum()) * 2 == own.numel()
        info.structure.verify(target_layers(model)[name].module.weight.detach())
    weights = result.metrics["encoder_weights"]
    assert result.metrics["nonzero_weights"] * 4 == weights
    bits = (4 * {"pattern": 69, "nm": 80}[kind] + 8) * weights // 128  # of eight blocks four, and a bit each
    assert result.metrics["compressed_int8_bits"] == bits < plan["compressed_int8_bits"]

    # And they stay away in whatever comes next, which knows of the patterns alone.
    third = recipe_of({"kind": "model"}, RETRAIN)
    run_training(third, model_name=str(tmp_path / "both"), data=data, out=tmp_path / "third")
    after = load_model_dir(tmp_path / "third")[0]
    for name, left in present(after).items():
        assert torch.equal(left, present(before)[name]), name
    bundle = export_model(tmp_path / "third", tmp_path / "pruned.pt", task=data.task, rows=data.train[:16])
    assert {layer.structure for layer in bundle.layers.values()} == {kind}
    stored = sum(int(layer.block_mask.sum()) for layer in bundle.layers.values())
    assert 0.95 * weights / 32 < stored <= weights / 32


@pytest.fixture(scope="module")
def heads(data, tmp_path_factory):
    """A model whose first layer has lost a head and a few neurons, here and there."""
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    remove_some(model)
    info = describe(model, structure=HeadsRows(), pruned=target_layers(model), task=data.task, max_tokens=24,
                    removed=True)
    folder = tmp_path_factory.mktemp("heads") / "model"
    recipe = recipe_of({"kind": "heads_rows"}, {"method": "learned_topk", "epochs": 1, "remaining": 0.9})
    write_model_dir(folder, model=model, tokenizer=tokenizer, info=info, recipe=recipe, metrics={})
    return folder


def test_patterns_in_what_heads_and_rows_have_left(heads, data, tmp_path):
    run_training(recipe_of({"kind": "pattern"}, STAGES["admm"], RETRAIN), model_name=str(heads), data=data,
                 out=tmp_path / "second")
    assert read_compression(tmp_path / "second").units == ((3, 252), (4, 256))
    bundle = export_model(tmp_path / "second", tmp_path / "pruned.pt", task=data.task, rows=data.train[:16])
    assert [layer.weight.shape for layer in bundle.layers.values()] == [
        (48, 64), (48, 64), (48, 64), (64, 48), (252, 64), (64, 252),
        (64, 64), (64, 64), (64, 64), (64, 64), (256, 64), (64, 256)]
    assert {layer.structure for layer in bundle.layers.values()} == {"pattern"}


def test_what_is_left_moves_together_once(heads, data, tmp_path):
    """Before there are patterns on it, but not when these go on training."""
    run_training(recipe_of({"kind": "pattern"}, RETRAIN), model_name=str(heads), data=data,
                 out=tmp_path / "second")
    model, tokenizer, info = load_model_dir(tmp_path / "second")
    neurons = model.base_model.encoder.layer[0].output.dense
    assert (neurons.weight != 0).any(dim=0).tolist() == 252 * [True] + 4 * [False]
    with torch.no_grad():
        neurons.weight[:, 100] = 0
    write_model_dir(tmp_path / "changed", model=model, tokenizer=tokenizer, info=describe(
        model, structure=info.structure, pruned=info.layers, task=data.task, max_tokens=24, removed=True),
        recipe=recipe_of({"kind": "pattern"}, RETRAIN), metrics={})
    run_training(recipe_of({"kind": "model"}, RETRAIN), model_name=str(tmp_path / "changed"), data=data,
                 out=tmp_path / "third")
    after = load_model_dir(tmp_path / "third")[0].base_model.encoder.layer[0].output.dense.weight
    assert (after != 0).any(dim=0).nonzero().flatten().tolist() == [*range(100), *range(101, 252)]


def test_pools_are_built_from_the_blocks_that_are_left(blocks):
    """The most frequent patterns would else be led by the one that blocks of zeros choose."""
    model = load_model_dir(blocks)[0]
    pool = {"build": "frequency", "size": 4, "balance": "none"}
    recipe = recipe_of({"kind": "pattern"}, RETRAIN, pool=pool)
    found = StageState(model, recipe, given_removed=True).planned_structure().pool
    left = torch.cat([to_blocks(target.module.weight.detach()) for target in target_layers(model).values()])
    left = left[left.any(dim=1)].numpy()
    assert found == build_pool("frequency", left, size=4, keep=8, balance="none", seed=0)


def test_missing_blocks_stay_together_when_neurons_are_taken_out(data):
    """A tile of 16 rows skips a K-step only where all its blocks are gone."""
    model, _ = build_tiny_model(data.task, data.train, max_tokens=24)
    layer = model.base_model.encoder.layer[0]
    with torch.no_grad():
        layer.intermediate.dense.weight.copy_(Blocks(16, 4, 0.5).project(layer.intermediate.dense.weight)[0])
        layer.output.dense.weight[:, 20:24] = 0
        layer.output.dense.weight[:, 32:48] = 0
        layer.output.dense.weight[:, 241:] = 0
    left = shrink(model)
    assert left[0].neurons.nonzero().flatten().tolist() == [*range(32), *range(48, 244)]
    assert row_group(layer.intermediate.dense.weight[:224]) == 16
    assert row_group(model.base_model.encoder.layer[1].intermediate.dense.weight) == 1


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_gradients_of_removed_blocks_do_not_count_when_clipping(stage, blocks, data):
    """ADMM's penalty has none there either."""
    model = load_model_dir(blocks)[0]
    state = StageState(model, recipe_of({"kind": "pattern"}, stage, RETRAIN), given_removed=True)
    stage = state.recipe.stages[0]
    state.enter(stage)
    state.before_forward(stage, 0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.before_clipping(stage)
    for name, left in present(model).items():
        gradients = to_blocks(target_layers(model)[name].module.weight.grad)
        assert not gradients[~left].any()
        assert gradients[left].any(dim=1).all()


def test_removed_blocks_survive_a_checkpoint(data):
    model, _ = build_tiny_model(data.task, data.train, max_tokens=24)
    targets = target_layers(model)
    with torch.no_grad():
        for target in targets.values():
            target.module.weight.copy_(Blocks(8, 8, 0.3).project(target.module.weight)[0])
    removed, gone = RemovedUnits(targets), present(model)
    later = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in later.parameters():
            parameter.add_(1.0)
    again = RemovedUnits(target_layers(later))
    again.load(removed.tensors())
    again.apply()
    assert all(torch.equal(left, gone[name]) for name, left in present(later).items())
    with pytest.raises(KeyError):
        again.load({})
