"""Scales, integers, calibration, and the fake-quantized twin."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compressor.bundle import check_bundle
from compressor.bundle_checks import check_layer
from compressor.calibration import Methods, TensorObserver, calibrate_linears
from compressor.fake_quantization import QuantizedLinear
from compressor.golden_vectors import linear_vectors
from compressor.pools import build_pool
from compressor.quantization import activation_scale, quantize, quantize_layer, weight_scales
from compressor.quantized_model import to_quantized_model
from compressor.reload import encoder_of, to_model
from compressor.structures import NM, Dense, Pattern, StructureError
from tests.bundles import random_activations, random_batches, random_bundle

POOL = build_pool("reed_muller")
STRUCTURES = {"pattern": Pattern(POOL), "dense": Dense(), "nm": NM()}
REALS = st.floats(-1e4, 1e4, width=32)


def layer_of(weight, bias=None, structure="dense", input_scale=0.02, output_scale=0.05):
    weight = np.asarray(weight, np.float64)
    bias = np.zeros(len(weight)) if bias is None else np.asarray(bias, np.float64)
    return quantize_layer("encoder.layer.0.output.dense", "ffn2", weight, bias,
                          structure=STRUCTURES[structure], input_scale=input_scale,
                          output_scale=output_scale)


# --- integers and scales ---------------------------------------------------------------------------


@given(REALS, st.floats(1e-4, 10))
def test_quantize_rounds_half_up(x, scale):
    expected = floor(Fraction(x / scale) + Fraction(1, 2))
    assert quantize(np.array([x]), scale)[0] == max(-127, min(127, expected))


def test_quantize_at_ties_and_ends():
    x = np.array([-200, -127.5, -2.5, -0.5, 0.5, 2.5, 126.5, 200])
    assert quantize(x, 1.0).tolist() == [-127, -127, -2, 0, 1, 3, 127, 127]


@given(arrays.arrays(np.float64, (4, 8), elements=REALS))
@settings(deadline=None)
def test_every_row_uses_its_own_range(weight):
    layer = layer_of(weight)
    largest = np.abs(weight).max(axis=1)
    used = largest > 1e-8
    assert (np.abs(layer.weight.astype(int)).max(axis=1)[used] == 127).all()
    error = np.abs(layer.dequantized() - weight)
    assert (error <= layer.weight_scale[:, None] * 0.5001 + 1e-12).all()


def test_scales_come_from_the_largest_kept_weight():
    weight = np.zeros((4, 4))
    weight[:, 0] = [1.27, -2.54, 0.0, 127.0]
    found = weight_scales(np.abs(weight).max(axis=1), np.zeros(4), 1.0)
    np.testing.assert_allclose(found[[0, 1, 3]], [0.01, 0.02, 1.0], rtol=1e-6)


def test_zero_rows_are_defined():
    """Without bias the row stays zero; with bias its output is the bias."""
    layer = layer_of(np.zeros((4, 8)), bias=[0, 2.0, -1.0, 100.0])
    assert not layer.weight.any()
    x = random_activations(3, 8, np.random.default_rng(0)).astype(np.int64)
    assert layer.linear.compute(x).tolist() == [[0, 40, -20, 127]] * 3
    assert (layer.weight_scale > 0).all()


@pytest.mark.parametrize("size", [1e-30, 1e-9, 1e-3, 1.0])
def test_bias_far_larger_than_the_weights_fits_32_bits(size):
    weight = np.full((4, 3072), size)
    layer = layer_of(weight, bias=[5.0, -5.0, 1e-6, 0.0])
    assert layer.linear.accumulator_bits <= 32
    np.testing.assert_allclose(layer.dequantized_bias()[:2], [5.0, -5.0], rtol=1e-3)


def test_output_that_never_varied_gets_a_ratio_that_fits():
    layer = layer_of(np.eye(4), output_scale=1e-30)
    assert layer.output_scale == float(layer.weight_scale.max()) * 0.02 / 2**14
    assert layer.linear.compute(np.full((1, 4), 127)).tolist() == [[127, 127, 127, 127]]


def test_activation_scale_of_zeros_is_one():
    assert activation_scale(0.0) == 1.0


@pytest.mark.parametrize("structure", STRUCTURES)
def test_pruned_entries_stay_zero_and_the_layer_is_sound(structure):
    rng = np.random.default_rng(4)
    weight, found = STRUCTURES[structure].project(torch.tensor(rng.normal(0, 1, (16, 32))))
    layer = layer_of(weight.numpy(), structure=structure)
    assert not layer.weight[~found.mask.numpy()].any()
    check_layer(layer, POOL)
    # Half the weights are kept, nearly all of them nonzero.
    density = 1.0 if structure == "dense" else 0.5
    assert layer.density(POOL) == density
    assert (layer.weight != 0).mean() > 0.95 * density


def test_blocks_that_round_to_zero_are_absent():
    weight = np.full((4, 8), 1.0)
    weight[:, 4:] = 1e-3
    assert layer_of(weight).block_mask.tolist() == [[True, False]]


def test_weight_that_breaks_its_structure_is_refused():
    with pytest.raises(StructureError, match=r"fits none of the 32 patterns"):
        layer_of(np.ones((4, 4)), structure="pattern")


def test_weight_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"^encoder\.layer\.0\.output\.dense: weights hold NaN or "
                                         r"infinity; train again with a lower rate$"):
        layer_of(np.full((4, 4), np.nan))


# --- observers -------------------------------------------------------------------------------------


@pytest.fixture
def normal_values():
    return torch.tensor(np.random.default_rng(8).normal(0, 1, (6250, 8)))


def observer_of(*tensors):
    observer = TensorObserver()
    for tensor in tensors:
        observer.observe(tensor)
    return observer


def test_observer_methods(normal_values):
    observer = observer_of(torch.zeros(0, 8), *normal_values.chunk(7))
    magnitudes = normal_values.float().abs().numpy()
    assert observer.clip("max") == magnitudes.max()
    for percentile in (90, 99, 99.9):
        clip = observer.clip(f"percentile:{percentile}")
        assert (magnitudes <= clip).mean() >= percentile / 100 > (magnitudes < clip).mean()
    assert observer.clip("percentile:100") == magnitudes.max()


def test_mse_is_the_least_of_the_candidates(normal_values):
    outlier = torch.tensor([[20.0] + [0.0] * 7])  # best clipped
    values = torch.cat([normal_values, outlier])
    chosen = observer_of(values).clip("mse")

    def error(clip):
        scale = activation_scale(clip)
        restored = quantize(values.numpy(), scale) * scale
        return np.square(restored - values.numpy()).mean()

    assert chosen < 19
    assert error(chosen) <= 1.01 * min(error(20 * share) for share in np.arange(0.05, 1.01, 0.05))


def test_observer_of_zeros():
    observer = observer_of(torch.zeros(10, 2), torch.zeros(3, 2))
    assert [observer.clip(method) for method in ("max", "mse", "percentile:99")] == [0, 0, 0]
    observer.observe(torch.tensor([[2.0, 0.0]]))
    assert observer.clip("max") == 2.0


def test_observer_refuses_nan():
    with pytest.raises(ValueError, match=r"^activations hold NaN or infinity; "):
        observer_of(torch.tensor([[1.0, float("nan")]]))


# --- calibration -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle():
    return random_bundle(hidden=32, layers=2, heads=2, ffn=64, structure="mixed", seed=2)


@pytest.mark.parametrize("methods", [Methods(inputs="max", outputs="max"),
                                     Methods(inputs="mse", outputs="percentile:99.9")])
def test_padding_never_counts(methods, bundle):
    """The padding embedding is made huge: with padding observed, every scale would change."""
    batches = list(random_batches(bundle, batches=2, sentences=4, tokens=12))
    before = calibrate_linears(to_model(bundle), batches, methods=methods)
    model = to_model(bundle)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[0, 7] = 900
    after = calibrate_linears(model, batches, methods=methods)
    for name, scales in before.items():
        assert after[name].input_scale == pytest.approx(scales.input_scale, rel=1e-5)
        assert after[name].output_scale == pytest.approx(scales.output_scale, rel=1e-5)
    unmasked = [{"input_ids": batch["input_ids"]} for batch in batches]
    seen = calibrate_linears(model, unmasked, methods=Methods(inputs="max", outputs="max"))
    name = "encoder.layer.0.attention.self.query"
    assert seen[name].input_scale > 1.2 * after[name].input_scale


def test_scales_are_those_of_the_real_tensors(bundle):
    model = to_model(bundle)
    batch = next(random_batches(bundle, sentences=1, tokens=9))  # one sentence: its second half is cut
    batch["attention_mask"][:] = 1
    scales = calibrate_linears(model, [batch], methods=Methods(inputs="max", outputs="max"))
    with torch.no_grad():
        embedded = model.bert.embeddings(input_ids=batch["input_ids"])
        queries = model.bert.encoder.layer[0].attention.self.query(embedded)
    for role in ("query", "key", "value"):
        name = f"encoder.layer.0.attention.self.{role}"
        assert scales[name].input_scale == pytest.approx(float(embedded.abs().max()) / 127)
    name = "encoder.layer.0.attention.self.query"
    assert scales[name].output_scale == pytest.approx(float(queries.abs().max()) / 127)


def test_calibration_leaves_the_model_as_it_was(bundle):
    model = to_model(bundle).train()
    calibrate_linears(model, random_batches(bundle))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_calibration_without_tokens_is_refused(bundle):
    with pytest.raises(ValueError, match=r"^calibration saw no tokens; give at least one sentence$"):
        calibrate_linears(to_model(bundle), [])


@pytest.mark.parametrize("method", ["median", "percentile", "percentile:49", "percentile:101", "max:1"])
def test_unknown_method_is_refused(method):
    with pytest.raises(ValueError, match=rf"^unknown calibration '{method}'; use max, mse, or "
                                         r"percentile:P with P in 50 to 100$"):
        Methods(inputs="max", outputs=method)


# --- the fake-quantized twin -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_twin_computes_the_golden_integers(seed):
    rng = np.random.default_rng(seed)
    bundle = random_bundle(hidden=64, layers=1, heads=2, ffn=128, structure="mixed", seed=seed)
    for layer in bundle.layers.values():
        twin = QuantizedLinear(layer)
        x = rng.integers(-127, 128, (50, layer.inner))
        x[0], x[1] = 127, -127
        assert (twin.linear.compute(torch.tensor(x)).numpy() == layer.linear.compute(x)).all()
        real = torch.tensor(rng.normal(0, 60 * layer.input_scale, (50, layer.inner)), dtype=torch.float32)
        assert (twin.quantize(real).numpy() == quantize(real.numpy(), layer.input_scale)).all()


def test_twin_is_exact_where_float32_is_not():
    weight = np.random.default_rng(0).choice([-1.0, 1.0], (8, 4096))
    layer = layer_of(weight, output_scale=1e5)
    twin = QuantizedLinear(layer)
    assert twin.linear.weight.dtype == torch.float64
    x = np.sign(weight[:4]).astype(np.int64) * 127
    x[:, 0] -= x[:, 0] // 127  # a sum near 4096 * 127 * 127 that float32 would round
    assert (twin.linear.compute(torch.tensor(x)).numpy() == layer.linear.compute(x)).all()
    assert QuantizedLinear(layer_of(weight[:, :1000])).linear.weight.dtype == torch.float32


def test_twin_rounds_ties_up():
    """Half of every sum: each odd sum is a tie, which round-to-even would send down half the time."""
    layer = replace(layer_of(np.eye(4)), multiplier=np.full(4, 2**15), shift=np.full(4, 16))
    x = np.arange(-20, 20).reshape(10, 4)
    layer = replace(layer, weight=np.eye(4, dtype=np.int8))
    twin = QuantizedLinear(layer).linear.compute(torch.tensor(x)).numpy()
    assert twin.tolist() == ((x + 1) // 2).tolist() == layer.linear.compute(x).tolist()


def test_quantized_model_is_near_the_float_model(bundle):
    batch = next(random_batches(bundle, sentences=4))
    scales = calibrate_linears(to_model(bundle), [batch])
    fitted = random_bundle_with(bundle, scales)
    with torch.no_grad():
        real, twin = to_model(fitted)(**batch).logits, to_quantized_model(fitted)(**batch).logits
    assert not torch.equal(real, twin)
    assert (real - twin).abs().max() < 0.1 * real.abs().max()


def random_bundle_with(bundle, scales):
    """The bundle with its layers quantized again at calibrated scales."""
    layers = {name: quantize_layer(name, layer.role, layer.dequantized(), layer.dequantized_bias(),
                                   structure=STRUCTURES[layer.structure],
                                   input_scale=scales[name].input_scale,
                                   output_scale=scales[name].output_scale)
              for name, layer in bundle.layers.items()}
    fitted = replace(bundle, layers=layers)
    check_bundle(fitted)
    return fitted


# --- golden vectors --------------------------------------------------------------------------------


def test_linear_vectors(bundle):
    batches = list(random_batches(bundle, batches=2, sentences=3, tokens=8))
    vectors = list(linear_vectors(bundle, batches))
    assert [name for name, _, _ in vectors] == list(bundle.layers) * 2
    for name, x, y in vectors:
        layer = bundle.layers[name]
        assert (x.dtype, y.dtype) == (np.int8, np.int8)
        assert (x.shape, y.shape) == ((24, layer.inner), (24, layer.rows))
        assert (y == layer.linear.compute(x)).all()
        assert len(np.unique(y)) > 8  # neither constant nor saturated throughout
    model = to_model(bundle)
    with torch.no_grad():
        embedded = model.bert.embeddings(input_ids=batches[0]["input_ids"]).reshape(24, 32)
    layer = bundle.layers["encoder.layer.0.attention.self.query"]
    assert (vectors[0][1] == quantize(embedded.numpy(), layer.input_scale)).all()
    assert not any(module._forward_pre_hooks for module in encoder_of(model).modules())
