"""Quantization of a whole encoder: choices of scales, folding, calibration."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from compressor.activation_scales import (
    aligned_scales,
    channel_scales,
    gelu_scales,
    outlier_channels,
    square_error,
    tensor_scale,
)
from compressor.calibration import SAMPLE_VALUES, TensorObserver, observe_encoder
from compressor.encoder_quantization import (
    calibrate_encoder,
    folding_path,
    layernorm_constants,
    quantize_encoder,
    to_tensors,
)
from compressor.folding import Folding
from compressor.intops.gelu import gelu
from compressor.intops.layernorm import IntegerLayerNorm
from compressor.pools import build_pool
from compressor.structures import Dense, Pattern


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(3)
    model = BertModel(BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                 intermediate_size=24, max_position_embeddings=16)).eval()
    for parameter in model.encoder.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def batch(seed, tokens=7, length=5):
    ids = torch.randint(1, 30, (4, tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": (torch.arange(tokens) < length).long().expand(4, -1)}


def test_tensor_scale_is_better_than_its_neighbours():
    x = np.random.default_rng(seed=1).standard_t(3, (4000, 8))
    scale = tensor_scale(x)
    assert scale < np.abs(x).max() / 127
    for factor in (0.8, 1.25):
        assert square_error(x.reshape(-1), scale) < square_error(x.reshape(-1), scale * factor)
    assert tensor_scale(np.zeros((3, 4))) == 1.0


def test_channel_scales_follow_outliers():
    x = np.random.default_rng(seed=2).normal(0, 1, (500, 16))
    x[:, 5] *= 6
    scale, exponents = channel_scales(x, np.abs(x).max(axis=0))
    assert exponents[5] >= 2
    assert np.delete(exponents, 5).max() <= 1
    assert square_error(x, scale * 2.0**exponents) < square_error(x, tensor_scale(x)) / 3


@pytest.mark.parametrize("reference", [1e-3, 0.02, 1.0])
@pytest.mark.parametrize("spread", [0, 3, 7])
def test_aligned_scales_leave_shifts_of_0_to_7(reference, spread):
    x = np.random.default_rng(seed=spread).normal(0, 1, (300, 16)) * np.geomspace(0.1, 50, 16)
    power, exponents = aligned_scales(x, np.abs(x).max(axis=0), reference, spread, 7)
    raise_by = 7 - max(spread, int(exponents.max()) + power)
    shifts = [raise_by, raise_by + spread, *(exponents + power + raise_by)]
    assert min(shifts) >= 0
    assert max(shifts) == 7


def test_gelu_scales_use_all_codes():
    for highest in (0.1, 2.0, 24.0):
        scales = gelu_scales(highest)
        top = 127 * scales.input_scale + scales.input_center
        assert top >= highest
        code = gelu(top) / scales.output_scale - scales.output_zero
        assert 126 < code < 128
        assert -127 <= np.floor(-0.17 / scales.output_scale + 0.5) - scales.output_zero <= -124
        assert gelu(-127 * scales.input_scale + scales.input_center) > -1e-3


def test_outliers_are_the_largest_channels():
    highest = np.r_[np.linspace(1, 4, 60), 20, 25]
    assert outlier_channels(highest).nonzero()[0].tolist() == [60, 61]
    assert not outlier_channels(np.full(8, 3.0)).any()


@pytest.mark.parametrize("structure", [Dense(), Pattern(build_pool("reed_muller"))])
def test_folding_is_undone(structure):
    rng = np.random.default_rng(seed=5)
    weight, _ = structure.project(torch.tensor(rng.normal(0, 0.1, (8, 12))))
    weight, bias = weight.numpy(), rng.normal(0, 1, 8)
    folding = Folding.of((8, 12), column_factor=2.0 ** rng.integers(0, 4, 12),
                         row_factor=rng.uniform(1, 5, 8), input_zero=rng.integers(0, 127, 12),
                         output_center=rng.normal(0, 2, 8))
    layer = folding.quantize("encoder.layer.0.output.dense", "ffn2", weight, bias, structure=structure,
                             input_scale=0.01, output_scale=0.05)
    for again in (folding, Folding.from_dict(folding.to_dict())):
        real_weight, real_bias = again.unfold(layer)
        row = np.abs(weight * folding.column_factor).max(axis=1, keepdims=True) / folding.column_factor
        assert (np.abs(real_weight - weight) <= row / 127 * 0.5001).all()
        assert (real_weight[weight == 0] == 0).all()
        assert np.abs(real_bias - bias).max() < 0.01
    # The integers compute the original layer between the channels' own scales.
    codes = rng.integers(-127, 128, (20, 12))
    x = (codes + folding.input_zero) * 0.01 * folding.column_factor
    true = (x @ weight.T + bias - folding.output_center) / (0.05 * folding.row_factor)
    weight_error = np.abs(x).sum(axis=1, keepdims=True) * np.abs(real_weight - weight).max(axis=1)
    got = layer.linear.compute(codes)
    bound = 0.5 + (weight_error + 0.01) / (0.05 * folding.row_factor) + 0.01
    assert (np.abs(got - np.clip(true, -127, 127)) <= bound).all()


def test_a_folding_without_values_changes_nothing():
    folding = Folding.of((4, 8))
    weight, bias = np.random.default_rng(seed=1).normal(0, 1, (4, 8)), np.ones(4)
    layer = folding.quantize("x", "q", weight, bias, structure=Dense(), input_scale=0.1, output_scale=0.1)
    assert np.allclose(folding.unfold(layer)[0], layer.dequantized())


def test_too_small_an_output_scale_is_refused():
    with pytest.raises(ValueError, match="x: output scale 1e-09 is too small"):
        Folding.of((4, 8)).quantize("x", "q", np.ones((4, 8)), np.zeros(4), structure=Dense(),
                                    input_scale=1.0, output_scale=1e-9)


def test_layernorm_constants_are_as_fine_as_they_can_be():
    rng = np.random.default_rng(seed=2)
    gamma, beta = rng.normal(1, 0.3, 64), rng.normal(0, 0.2, 64)
    norm = layernorm_constants(gamma, beta, 1e-5, step=0.01, residual_shift=np.full(64, 4),
                               branch_shift=np.full(64, 3), output_steps=np.full(64, 0.03))
    assert isinstance(norm, IntegerLayerNorm)
    assert np.abs(norm.gamma.astype(np.int64)).max() >= 1 << 14
    assert norm.epsilon == round(64 * 1e-5 / 0.01**2)
    residual, branch = rng.integers(-127, 128, (2, 50, 64))
    z = torch.tensor((residual * 16 + branch * 8) * 0.01)
    true = torch.nn.functional.layer_norm(z, (64,), torch.tensor(gamma), torch.tensor(beta), 1e-5) / 0.03
    assert np.abs(norm.compute(residual, branch) - np.clip(true.numpy(), -127, 127)).max() < 0.6


def test_padding_never_counts(bert):
    """Garbage in padded positions changes no observer."""
    first, second = batch(1), batch(1)
    second["input_ids"] = torch.where(second["attention_mask"].bool(), second["input_ids"], 3)
    for one, other in zip(observe_encoder(bert, [first]), observe_encoder(bert, [second]), strict=True):
        for name, observer in one.items():
            assert np.allclose(observer.sample, other[name].sample, atol=1e-5)
            assert observer.sample.shape[0] == (4 * 25 if name == "scores" else 4 * 5)


def test_observed_tensors_are_those_of_the_model(bert):
    inputs = batch(2, length=7)
    observed = observe_encoder(bert, [inputs])[0]
    with torch.no_grad():
        states = bert(**inputs, output_hidden_states=True).hidden_states
    assert np.allclose(observed["input"].sample, states[0].reshape(-1, 16), atol=1e-6)
    assert np.allclose(observed["output"].sample, states[1].reshape(-1, 16), atol=1e-6)
    assert observed["scores"].sample.shape == (4 * 49, 2)
    assert np.allclose(observed["output"].largest, states[1].abs().reshape(-1, 16).max(dim=0).values)


def test_an_observer_keeps_an_even_sample():
    observer = TensorObserver()
    rows = SAMPLE_VALUES // 8
    for start in range(0, 5 * rows, rows):
        observer.observe(torch.arange(start, start + rows)[:, None] * torch.ones(8))
    sample = observer.sample[:, 0]
    assert SAMPLE_VALUES / 4 <= observer.sample.size <= SAMPLE_VALUES
    assert np.unique(np.diff(sample)).tolist() == [8]
    assert observer.highest.tolist() == [5 * rows - 1] * 8


def test_operators_are_plain_and_survive_a_file(bert, tmp_path):
    quantized = quantize_encoder(bert, calibrate_encoder(bert, [batch(1), batch(2)]))
    torch.save(to_tensors(quantized.operators), tmp_path / "operators.pt")
    loaded = torch.load(tmp_path / "operators.pt", weights_only=True)
    again = type(quantized)(layers=quantized.layers, operators=loaded)
    x = np.random.default_rng(seed=1).integers(-127, 128, (1, 6, 16))
    assert (again.integer.compute(x, [6]) == quantized.integer.compute(x, [6])).all()
    assert (again.input.steps == quantized.input.steps).all()


def test_unfolded_weights_are_the_models(bert):
    quantized = quantize_encoder(bert, calibrate_encoder(bert, [batch(1), batch(2)]))
    for name, layer in quantized.layers.items():
        folding = Folding.from_dict(quantized.operators[folding_path(name)])
        weight, bias = folding.unfold(layer)
        module = bert.get_submodule(name)
        scale = np.abs(module.weight.detach().numpy()).max()
        assert np.abs(weight - module.weight.detach().numpy()).max() < scale * 0.06
        assert np.abs(bias - module.bias.detach().numpy()).max() < 0.1


def test_refusals(bert):
    with pytest.raises(ValueError, match="padding_side"):
        observe_encoder(bert, [{**batch(1), "attention_mask": torch.tensor([[0, 1, 1, 1, 1, 1, 1]] * 4)}])
    with pytest.raises(ValueError, match="calibration saw no tokens"):
        observe_encoder(bert, [])
    other = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                                 intermediate_size=8, hidden_act="relu"))
    with pytest.raises(ValueError, match="hidden_act is 'relu'"):
        calibrate_encoder(other, [batch(1)])
