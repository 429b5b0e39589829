"""MLPruning: learned scores and thresholds, removed heads and neurons, both steps, reload and export."""

import copy
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from compressor.bundle import load_bundle
from compressor.encoder_quantization import calibrate_encoder, quantize_encoder
from compressor.encoder_scales import EncoderScales
from compressor.golden_model import GoldenModel
from compressor.learned_topk import LearnedTopK, block_groups, head_and_row_groups, penalty_weight
from compressor.model_dir import check_model, load_model_dir, read_compression
from compressor.model_export import export_model
from compressor.quantized_model import to_quantized_model, train_in_integers
from compressor.recipe_stages import LearnedTopKStage
from compressor.recipes import RecipeError
from compressor.reload import encode, to_model
from compressor.removed_units import compact, find_units, shrink
from compressor.targets import target_layers
from compressor.tasks import load_task
from compressor.tiny_model import build_tiny_model
from compressor.training_plan import plan_training
from compressor.training_run import run_training
from tests.compressor.test_export import OTHERS
from tests.compressor.test_methods import RETRAIN, assert_resumes_exactly, recipe_of
from tests.compressor.test_trainer import trainer_of

STAGE = {"method": "learned_topk", "remaining": 0.4, "score_rate": 4.0}
HEADS = {"kind": "heads_rows"}
BLOCKS = {"kind": "blocks", "rows": 8, "columns": 4}


@pytest.fixture(scope="module")
def data():
    return load_task("synthetic", train_rows=64, validation_rows=40)


@pytest.fixture(scope="module")
def tiny(data):
    return build_tiny_model(data.task, data.train, max_tokens=24)


def stage_of(**changes):
    return LearnedTopKStage(epochs=1, **(STAGE | changes))


def topk_of(model, unit=None, **changes):
    targets = target_layers(model)
    head_size = model.config.hidden_size // model.config.num_attention_heads
    groups = block_groups(targets, unit) if unit else head_and_row_groups(targets, head_size)
    return LearnedTopK(targets, groups, stage_of(**changes))


def some_batch(tokenizer, rows):
    batch = dict(tokenizer([row["sentence"] for row in rows], padding=True, return_tensors="pt"))
    return batch | {"labels": torch.tensor([row["label"] for row in rows])}


def remove_some(model, heads=(1,), neurons=(3, 4, 9, 200)):
    """Set heads and neurons of the first layer to zero, as training leaves them."""
    layer = model.base_model.encoder.layer[0]
    size = model.config.hidden_size // model.config.num_attention_heads
    with torch.no_grad():
        for head in heads:
            rows = slice(head * size, (head + 1) * size)
            for linear in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
                linear.weight[rows], linear.bias[rows] = 0, 0
            layer.attention.output.dense.weight[:, rows] = 0
        layer.intermediate.dense.weight[list(neurons)] = 0
        layer.intermediate.dense.bias[list(neurons)] = 0
        layer.output.dense.weight[:, list(neurons)] = 0


def test_penalty_weight_is_the_papers():
    assert penalty_weight(1.0 * (1 - 0.3) ** 2, 0.3, 20000, 50) == 20000  # R = 1: lambda_max
    assert penalty_weight((0.5 - 0.3) ** 2, 0.3, 20000, 50) == pytest.approx(20000 * (0.2 / 0.7) ** 2)
    assert penalty_weight(4e-4, 0.3, 2000, 50) == 50
    assert penalty_weight(2e-4, 0.3, 20000, 50) == 10


def test_remaining_share_is_the_papers(tiny):
    """R of equations 5 and 6 with units 3, 1, 4, 4 for q, k and v; o; ffn1; ffn2."""
    topk = topk_of(copy.deepcopy(tiny[0]))
    assert topk.remaining_share().item() == pytest.approx(1, abs=2e-4)
    shares = {"heads": 0.5, "attention.output.dense": 0.7, "intermediate.dense": 0.25, "output.dense": 0.9}
    for name, threshold in topk.thresholds.items():
        share = next(value for end, value in shares.items() if name.endswith(end))
        threshold.data.fill_(math.log(share / (1 - share)))
    expected = (3 * 0.5 + 0.5 * 0.7 + 4 * 0.25 + 4 * 0.25 * 0.9) / 12
    assert topk.remaining_share().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("unit", [None, (8, 4)])
def test_gradients_are_straight_through(unit, tiny, data):
    """Scores get the gradient of their mask by automatic differentiation, thresholds its sum."""
    model, tokenizer = copy.deepcopy(tiny[0]), tiny[1]
    topk = topk_of(model, unit)
    for threshold in topk.thresholds.values():
        threshold.data.fill_(0.4)
    topk.refresh()
    batch = some_batch(tokenizer, data.train[:8])
    chosen, masks = {}, topk.current
    for name in topk.groups:
        chosen[name] = topk.units(name).float().requires_grad_()
    pruned = {}
    for name, group in topk.groups.items():
        for member in group.members:
            weight = topk.weights[member].detach()
            grid = chosen[name].reshape(weight.shape[0] // group.unit[0], -1)
            spread = grid.repeat_interleave(group.unit[0], 0).repeat_interleave(group.unit[1], 1)
            pruned[f"{member}.weight"] = weight * spread
            if member in topk.biases:
                pruned[f"{member}.bias"] = topk.biases[member].detach() * spread[:, 0]
    names = {f"{model.base_model_prefix}.{name}": value for name, value in pruned.items()}
    torch.func.functional_call(model, names, kwargs=batch).loss.backward()
    topk.before_forward(None, 0)
    model(**batch).loss.backward()
    dense = {name: value.clone() for name, value in topk.hidden._dense.items()}
    share = topk.remaining_share()
    weight_of_penalty = penalty_weight((share - 0.4).item() ** 2, 0.4, 10_000, 50)
    slopes = torch.autograd.grad(weight_of_penalty * (share - 0.4) ** 2, list(topk.thresholds.values()))
    topk.before_clipping(None)
    for (name, scores), slope in zip(topk.scores.items(), slopes, strict=True):
        assert torch.allclose(scores.grad, chosen[name].grad, rtol=1e-3, atol=1e-6), name
        kept = float((chosen[name].grad * chosen[name].detach()).sum())
        assert float(topk.thresholds[name].grad) == pytest.approx(kept + float(slope), rel=1e-3, abs=1e-6)
    for name, parameter in topk.hidden.parameters.items():
        assert torch.equal(parameter, dense[name])
        if name in masks:
            assert not parameter.grad[~masks[name]].any()


def test_weight_decay_leaves_scores_and_thresholds_alone(data, tmp_path):
    """They are not among what AdamW decays: at a rate that moves no weight, the decay changes nothing."""
    found = []
    for decay in (0.0, 1.0):
        recipe = recipe_of(HEADS, STAGE | {"epochs": 1, "learning_rate": 1e-12}, training={
            "batch": 16, "max_tokens": 24, "weight_decay": decay})
        trainer = trainer_of(recipe, data, tmp_path / str(decay))
        trainer.train()
        found.append(trainer.stages.method.tensors())
        own = {id(value) for value in (*trainer.stages.method.scores.values(),
                                       *trainer.stages.method.thresholds.values())}
        assert not own & {id(value) for group in trainer.optimizer.param_groups for value in group["params"]}
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_the_smallest_units_go_first_and_counts_round_up(tiny):
    model = copy.deepcopy(tiny[0])
    topk = topk_of(model)
    name = "encoder.layer.0.intermediate.dense"
    topk.thresholds[name].data.fill_(-1.0)  # 0.2689 of 256: 68.8
    norms = model.base_model.encoder.layer[0].intermediate.dense.weight.detach().norm(dim=1)
    assert set(topk.units(name).nonzero().flatten().tolist()) == set(norms.topk(69).indices.tolist())
    assert int(topk.units(name, 16).sum()) == 80
    masks = topk.masks(16)
    assert torch.equal(masks[f"{name}.bias"], masks["encoder.layer.0.output.dense"].any(dim=0))
    topk.thresholds[name].data.fill_(-30.0)
    assert int(topk.units(name).sum()) == 1


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_shrunken_models_compute_the_same(kind, tiny, data):
    """Without their removed heads and neurons, and with these behind the others.

    In float64, since the order of sums differs; their rounding to float32 does not, and no integer does.
    """
    tokenizer = tiny[1]
    model = copy.deepcopy(tiny[0]) if kind == "bert" else OTHERS[kind](len(tokenizer))
    model.double().eval()
    topk = topk_of(model)
    for name, threshold in topk.thresholds.items():
        threshold.data.fill_(-0.6 if name.endswith("heads") else 0.1)
    with torch.no_grad():
        for name, parameter in topk.hidden.parameters.items():
            parameter.mul_(topk.masks(4)[name])
    batch = {key: value for key, value in some_batch(tokenizer, data.train[:8]).items()
             if key in ("input_ids", "attention_mask")}
    units = find_units(model)
    assert {found.counts for found in units} == {(2, 136)} or kind != "bert"
    with torch.no_grad():
        expected = model(**batch).logits
        moved = copy.deepcopy(model)
        compact(moved)
        assert [found.counts for found in find_units(moved)] == [found.counts for found in units]
        assert all(bool(found.heads[0]) and not found.heads[-1] for found in find_units(moved))
        assert torch.equal(moved(**batch).logits.float(), expected.float())
        whole = copy.deepcopy(model)
        left = shrink(model)
        assert torch.equal(model(**batch).logits.float(), expected.float())
    scales = calibrate_encoder(whole.float(), [batch])
    integers = [quantize_encoder(*one).integer for one in ((whole, scales),
                                                           (model.float(), scales.of_units(left)))]
    assert [one.layers[0].ffn1.weight.shape[0] for one in integers] == [256, left[0].counts[1]]
    states = np.random.default_rng(0).integers(-127, 128, (3, 9, model.config.hidden_size))
    assert np.array_equal(*(one.compute(states, [9, 5, 1]) for one in integers))
    shapes = [tuple(target.module.weight.shape) for target in target_layers(model).values()][:6]
    heads, neurons = left[0].counts
    size = model.config.hidden_size // model.config.num_attention_heads
    assert shapes[3:5] == [(model.config.hidden_size, heads * size), (neurons, model.config.hidden_size)]


def test_padding_and_alignment_of_shrunken_layers(tiny):
    model = copy.deepcopy(tiny[0])
    remove_some(model, heads=(0, 1, 2, 3), neurons=(3, 4, 5, 6, 7, 9))
    left = shrink(copy.deepcopy(model))
    assert left[0].counts == (1, 252)  # one head stays, 250 neurons become a multiple of 4
    assert left[1].counts == (4, 256)
    assert shrink(model, aligned={0})[0].neurons.nonzero().flatten().tolist() == [*range(4), *range(8, 256)]


@pytest.mark.parametrize(("structure", "stages", "stops"), [
    (HEADS, (STAGE | {"epochs": 2}, RETRAIN), (3, 8)),
    pytest.param(BLOCKS, (STAGE | {"epochs": 1},), (1, 3), marks=pytest.mark.nightly)])
def test_interrupted_run_equals_uninterrupted(structure, stages, stops, data, tmp_path):
    whole = assert_resumes_exactly(recipe_of(structure, *stages), data, tmp_path, stops)
    shares = [record["topk_remaining"] for record in whole.state.log_history if "topk_remaining" in record]
    assert 0 < shares[-1] < 0.99


def test_both_steps_reload_and_export(data, tmp_path):
    """Heads and rows, then blocks taught by the first step's model: directories, bundle, golden model."""
    first = recipe_of(HEADS, STAGE | {"epochs": 4}, RETRAIN)
    result = run_training(first, model_name="tiny", data=data, out=tmp_path / "first")
    info = read_compression(tmp_path / "first")
    assert info.units is not None
    assert all(heads >= 1 and neurons % 4 == 0 for heads, neurons in info.units)
    assert result.metrics["nonzero_weights"] < 0.7 * result.metrics["encoder_weights"]
    second = recipe_of(BLOCKS, STAGE | {"epochs": 4, "remaining": 0.5}, RETRAIN,
                       distillation={"teacher": "model"})
    run_training(second, model_name=str(tmp_path / "first"), data=data, out=tmp_path / "second")
    after = read_compression(tmp_path / "second")
    assert all(new[0] <= old[0] and new[1] <= old[1]
               for new, old in zip(after.units, info.units, strict=True))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "second").eval()
    check_model(plain, after)
    model, tokenizer, _ = load_model_dir(tmp_path / "second")
    sentences = [row["sentence"] for row in data.train[:16]]
    batch = next(encode(tokenizer, sentences, 24))
    with torch.no_grad():
        assert torch.equal(plain(**batch).logits, model.eval()(**batch).logits)

    bundle = export_model(tmp_path / "second", tmp_path / "pruned.pt", task=data.task, rows=data.train)
    loaded = load_bundle(tmp_path / "pruned.pt")
    heads = [layer.attention.heads for layer in loaded.encoder.layers]
    assert heads == [counts[0] for counts in after.units]
    assert loaded.layers["encoder.layer.0.intermediate.dense"].rows == max(4, -(-after.units[0][1] // 4) * 4)
    small = to_model(bundle)
    with torch.no_grad():
        golden = GoldenModel.of(loaded).logits(batch)
        assert np.allclose(golden, to_quantized_model(loaded)(**batch).logits.numpy(), atol=1e-4)
        assert (small(**batch).logits - plain(**batch).logits).abs().max() < 0.1


def test_training_in_integers_survives_the_removal(data, tmp_path):
    """The scales of the full-size model are those of the smaller layers."""
    recipe = recipe_of(HEADS, STAGE | {"epochs": 4}, {"method": "quantize", "epochs": 1})
    run_training(recipe, model_name="tiny", data=data, out=tmp_path / "out")
    model, tokenizer, info = load_model_dir(tmp_path / "out")
    assert info.units != ((4, 256),) * 2
    bundle = export_model(tmp_path / "out", tmp_path / "pruned.pt", task=data.task, rows=data.train[:8])
    assert bundle.metrics["calibration"] == {"scales": "trained"}
    train_in_integers(model, EncoderScales.load(tmp_path / "out", model))
    batch = next(encode(tokenizer, [row["sentence"] for row in data.train[:16]], 24))
    with torch.no_grad():
        assert np.allclose(model.eval()(**batch).logits, GoldenModel.of(bundle).logits(batch), atol=1e-4)


@pytest.mark.parametrize(("structure", "stages", "sections", "message"), [
    (HEADS, [RETRAIN], {}, "heads_rows} needs a stage learned_topk"),
    ({"kind": "nm"}, [STAGE | {"epochs": 1}], {}, "a stage learned_topk needs structure: {kind: heads_rows}"),
    (HEADS, [STAGE | {"epochs": 1}], {"targets": {"roles": ["q", "k", "v"]}}, "name all of them"),
    (BLOCKS, [RETRAIN], {}, "structure.density is needed"),
    (BLOCKS | {"density": 0.5}, [STAGE | {"epochs": 1}], {}, "whose `remaining` says what is kept"),
    (HEADS, [{"method": "admm", "epochs": 1}, STAGE | {"epochs": 1}], {},
     "dense, reconstruct, retrain and quantize alone"),
])
def test_recipes_that_contradict_themselves(structure, stages, sections, message):
    with pytest.raises(RecipeError, match=message):
        recipe_of(structure, *stages, **sections)


def test_a_plan_says_when_thresholds_cannot_fall(data, tmp_path):
    recipe = recipe_of(HEADS, {"method": "learned_topk", "remaining": 0.4, "epochs": 1})
    found = plan_training(recipe, model_name="tiny", data=data)["warnings"]
    assert found[0].startswith("stage learned_topk: the score rates add up to 0.02")
