"""Bundles with operators: the whole encoder in integers, from export to logits, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from compressor.bundle import BundleError, check_bundle, load_bundle, save_bundle
from compressor.encoder_quantization import folding_path
from compressor.export import export
from compressor.fake_quantization import QuantizedLinear
from compressor.golden_model import GoldenModel
from compressor.golden_vectors import linear_vectors
from compressor.pools import build_pool
from compressor.reload import encode, encoder_of, to_model, to_tokenizer
from compressor.structures import Pattern
from tests.bundles import random_batches, random_encoder_bundle
from tests.compressor.test_export import ROWS, SENTENCES, TASK, make_model_dir


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model and the bundle that export wrote of it, read again."""
    folder = tmp_path_factory.mktemp("operators")
    model, _ = make_model_dir(folder / "model", Pattern(build_pool("reed_muller")))
    bundle = export(folder / "model", folder / "pruned.pt", task=TASK, rows=ROWS, validation=ROWS[:20])
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


def test_inputs_of_the_encoder():
    bundle = random_encoder_bundle()
    batch = next(random_batches(bundle, sentences=4, tokens=8))
    x, lengths = GoldenModel.of(bundle).inputs(batch)
    assert x.shape == (4, 8, 32)
    assert x.dtype == np.int8
    assert lengths.tolist() == [8, 8, 6, 6]
