"""Bundles with operators: the whole encoder in integers, from export to logits, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from compressor.attention_maps import map_pruning_of, set_map_pruning
from compressor.bundle import BundleError, check_bundle, load_bundle, save_bundle
from compressor.calibration import DEFAULT_METHODS
from compressor.cli import main
from compressor.encoder_quantization import folding_path
from compressor.fake_quantization import QuantizedLinear
from compressor.golden_model import GoldenModel
from compressor.golden_vectors import linear_vectors
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.model_dir import ModelDirError
from compressor.model_export import export_model
from compressor.pools import build_pool
from compressor.quantized_model import to_quantized_model
from compressor.reload import encode, encoder_of, to_model, to_tokenizer
from compressor.structures import Dense, Pattern
from tests.bundles import random_batches, random_encoder_bundle
from tests.compressor.test_export import ROWS, SENTENCES, TASK, make_model_dir


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model and the bundle that export wrote of it, read again."""
    folder = tmp_path_factory.mktemp("operators")
    model, _ = make_model_dir(folder / "model", Pattern(build_pool("reed_muller")))
    bundle = export_model(folder / "model", folder / "pruned.pt", task=TASK, rows=ROWS, validation=ROWS[:20])
    return model, bundle, load_bundle(folder / "pruned.pt")


def test_the_file_alone_gives_the_golden_models_logits(exported):
    model, _, bundle = exported
    batch = next(encode(to_tokenizer(bundle), SENTENCES, 24, batch_size=len(SENTENCES)))
    with torch.no_grad():
        true = model(**batch).logits.numpy()
    logits = GoldenModel.of(bundle).logits(batch)
    assert np.corrcoef(logits.ravel(), true.ravel())[0, 1] > 0.99
    compared = bundle.metrics["quantization"]
    predicted = logits[:20].argmax(axis=1)
    assert compared["prediction_changes"] == (predicted != true[:20].argmax(axis=1)).sum()
    labels = [row["label"] for row in ROWS[:20]]
    assert compared["quantized"]["accuracy"] == pytest.approx((predicted == labels).mean())


def test_padding_changes_no_logit(exported):
    bundle = exported[2]
    golden, tokenizer = GoldenModel.of(bundle), to_tokenizer(bundle)
    sentences = sorted(SENTENCES, key=len)[:3]
    longest = max(len(ids) for ids in tokenizer(sentences)["input_ids"])
    wide, narrow = (golden.logits(next(encode(tokenizer, sentences, tokens))) for tokens in (24, longest))
    np.testing.assert_array_equal(wide, narrow)


def test_saved_operators_are_those_that_were_made(exported):
    _, made, read = exported
    x = np.random.default_rng(1).integers(-127, 128, (2, 9, 64))
    np.testing.assert_array_equal(made.encoder.compute(x, [9, 4]), read.encoder.compute(x, [9, 4]))


def test_the_rebuilt_model_has_the_original_weights(exported):
    model, _, bundle = exported
    rebuilt = encoder_of(to_model(bundle))
    for name in bundle.layers:
        weight = encoder_of(model).get_submodule(name).weight
        error = (rebuilt.get_submodule(name).weight - weight).abs().max()
        assert error < 0.02 * weight.abs().max(), name


def test_fake_quantized_layers_compute_the_golden_integers(exported):
    bundle = exported[2]
    encoder = encoder_of(to_model(bundle))
    batches = [next(encode(to_tokenizer(bundle), SENTENCES[:2], 24))]
    inputs = {}
    for name in bundle.layers:
        encoder.get_submodule(name).register_forward_pre_hook(
            lambda _module, arguments, name=name: inputs.update({name: arguments[0]}))
    for name, x, y in linear_vectors(bundle, batches, model=encoder):
        twin = QuantizedLinear(bundle.layers[name], bundle.folding(name))
        np.testing.assert_array_equal(twin.quantize(inputs[name]).reshape(x.shape).numpy(), x)
        np.testing.assert_array_equal(twin.linear.compute(torch.tensor(x)).numpy(), y)


def damaged(bundle, path, **values):
    operators = {name: dict(entry) for name, entry in bundle.operators.items()}
    operators[path] |= values
    return replace(bundle, operators=operators)


ATTENTION, NORM = "encoder.layer.0.attention.self", "encoder.layer.1.output.LayerNorm"
GELU = "encoder.layer.0.intermediate.intermediate_act_fn"
FOLDING = folding_path("encoder.layer.0.output.dense")


@pytest.mark.parametrize(("path", "values", "message"), [
    (ATTENTION, {"heads": 3}, "must have shape"),
    (ATTENTION, {"heads": True}, "heads: is True"),
    (ATTENTION, {"exp_table": torch.zeros(256, dtype=torch.uint8)}, "exp table must start at 127"),
    (ATTENTION, {"context_exponent": 60}, "context_exponent must be 17 to 47"),
    (ATTENTION, {"extra": 1}, "unknown key 'extra'"),
    (NORM, {"kind": "gelu"}, "kind: is 'gelu'"),
    (NORM, {"gamma": torch.zeros(32, dtype=torch.int32)}, "a tensor of dtype int16"),
    (NORM, {"gamma": torch.zeros(8, dtype=torch.int16)}, "must have"),
    (NORM, {"epsilon": 0}, "epsilon must be 1"),
    (GELU, {"table": torch.full((256,), -128, dtype=torch.int8)}, "-128 is not used"),
    (GELU, {"outliers": torch.zeros(3, dtype=torch.uint8)}, r"\[64\] fits the layer"),
    (FOLDING, {"row_factor": torch.zeros(32, dtype=torch.float64)}, "row_factor: holds a value"),
    (FOLDING, {"column_factor": torch.ones(5, dtype=torch.float64)}, r"\[64\] fits the layer"),
    ("encoder", {"input_scale": -1.0}, "a finite positive float"),
    ("encoder", {"output_exponents": torch.full((32,), 99, dtype=torch.uint8)}, "0 to 15"),
])
def test_damaged_operators_are_refused(path, values, message):
    with pytest.raises(BundleError, match=message) as caught:
        check_bundle(damaged(random_encoder_bundle(), path, **values))
    assert "\n" not in str(caught.value)


def test_missing_operators_are_refused(tmp_path):
    bundle = random_encoder_bundle()
    operators = dict(bundle.operators)
    del operators[GELU]
    with pytest.raises(BundleError, match="is missing"):
        save_bundle(replace(bundle, operators=operators), tmp_path / "pruned.pt")


def test_a_bundle_without_operators_has_no_golden_model():
    bundle = replace(random_encoder_bundle(), operators={})
    with pytest.raises(ValueError, match="--linear-only"):
        GoldenModel.of(bundle)


# --- attention maps --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert"])
def pruned_maps(request, tmp_path_factory):
    """A model trained without pruned maps, and its bundle with them."""
    folder = tmp_path_factory.mktemp("maps")
    make_model_dir(folder / "model", Pattern(build_pool("reed_muller")), request.param)
    export_model(folder / "model", folder / "pruned.pt", task=TASK, rows=ROWS, attention_maps=True)
    return folder, load_bundle(folder / "pruned.pt")


def test_maps_are_pruned_in_every_model_of_the_bundle(pruned_maps):
    bundle = pruned_maps[1]
    assert bundle.attention_maps == {"layers": 2, "patterns": 8, "power": 1, "padded_tokens": 24}
    assert bundle.metrics["calibration"]["map_patterns"] == 8
    pruning = bundle.encoder.layers[0].attention.pruning
    for model in (to_model(bundle), to_quantized_model(bundle)):
        assert [one.patterns.tolist() for one in map_pruning_of(model)] == [pruning.patterns.tolist()] * 2
    batch = next(encode(to_tokenizer(bundle), SENTENCES, 24, batch_size=len(SENTENCES)))
    model, golden = to_model(bundle), GoldenModel.of(bundle).logits(batch)
    with torch.no_grad():
        pruned = model(**batch).logits.numpy()
        set_map_pruning(model, None)
        whole = model(**batch).logits.numpy()
    assert np.linalg.norm(golden - pruned) < 0.5 * np.linalg.norm(golden - whole)


def test_export_takes_the_maps_of_the_training(pruned_maps, tmp_path):
    bundle = pruned_maps[1]
    pruning = IntegerMapPruning(patterns=bundle.pool.patterns[4:9], power=2)
    make_model_dir(tmp_path / "model", Pattern(build_pool("reed_muller")), map_pruning=pruning)
    found = {}
    for name, choice in {"trained": None, "on": True, "off": False}.items():
        exported = export_model(tmp_path / "model", tmp_path / "pruned.pt", task=TASK, rows=ROWS[:8],
                          attention_maps=choice)
        found[name] = exported.encoder.layers[1].attention.pruning
    assert found["off"] is None
    for name in ("trained", "on"):
        np.testing.assert_array_equal(found[name].patterns, pruning.patterns)
        assert found[name].power == 2
    with pytest.raises(ModelDirError, match="--no-attention-maps, or leave out --linear-only"):
        export_model(tmp_path / "model", tmp_path / "pruned.pt", task=TASK, rows=ROWS[:8],
                     methods=DEFAULT_METHODS)
    export_model(tmp_path / "model", tmp_path / "pruned.pt", task=TASK, rows=ROWS[:8],
                 methods=DEFAULT_METHODS, attention_maps=False)


def test_a_dense_model_carries_the_pool_of_its_maps(tmp_path):
    make_model_dir(tmp_path / "model", Dense())
    bundle = export_model(tmp_path / "model", tmp_path / "pruned.pt", task=TASK, rows=ROWS[:8],
                          attention_maps=True)
    np.testing.assert_array_equal(bundle.pool.patterns, bundle.encoder.layers[0].attention.pruning.patterns)


def test_weights_whose_pool_cannot_serve_maps(tmp_path):
    make_model_dir(tmp_path / "model", Pattern(build_pool("frequency", size=8, balance="none")))
    with pytest.raises(ModelDirError, match="attention maps use patterns of the weights' pool, which must"):
        export_model(tmp_path / "model", tmp_path / "pruned.pt", task=TASK, rows=ROWS[:8],
                     attention_maps=True)


@pytest.mark.parametrize(("change", "message"), [
    ({"map_patterns": torch.eye(4, dtype=torch.uint8).reshape(1, 16)},
     "has 1000010000100001; patterns of the pool are allowed"),
    ({"map_power": 2}, "differs from another layer's, or its power does; all layers must have the same"),
])
def test_maps_that_hardware_cannot_prune_are_refused(pruned_maps, change, message):
    bundle = pruned_maps[1]
    paths = [path for path, values in bundle.operators.items() if values["kind"] == "attention"]
    changed = dict(bundle.operators)
    for path in paths[:1] if "map_power" in change else paths:
        changed[path] = changed[path] | change
    with pytest.raises(BundleError) as caught:
        check_bundle(replace(bundle, operators=changed))
    assert str(caught.value).endswith(f".attention.self: map_patterns: {message}")


def test_maps_need_rows_that_fill_the_slots():
    pool = build_pool("greedy", size=8, keep=12)
    with pytest.raises(BundleError, match="has patterns, but the pool has balance 'row' and keeps 12; "):
        random_encoder_bundle(pool=pool, map_pruning=True)


def test_verify_says_how_maps_are_pruned(pruned_maps):
    result = CliRunner().invoke(main, ["verify", str(pruned_maps[0] / "pruned.pt")])
    assert "attention maps: pruned in 2 layers with 8 patterns of the pool, power 1; " in result.output


def test_inputs_of_the_encoder():
    bundle = random_encoder_bundle()
    batch = next(random_batches(bundle, sentences=4, tokens=8))
    x, lengths = GoldenModel.of(bundle).inputs(batch)
    assert x.shape == (4, 8, 32)
    assert x.dtype == np.int8
    assert lengths.tolist() == [8, 8, 6, 6]
