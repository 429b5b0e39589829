"""Integer encoder against transformers, and its own invariants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel

from compressor.encoder_quantization import calibrate_encoder, quantize_encoder
from compressor.intops.encoder import IntegerEncoder
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.quantization import quantize
from tests.compressor.test_intops_attention import POOL

HIDDEN, TOKENS = 32, 12


@pytest.fixture(scope="module")
def bert():
    """A random BERT whose second layer has fewer heads and neurons, with one outlier neuron and channel."""
    torch.manual_seed(5)
    model = BertModel(BertConfig(
        vocab_size=50, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=32)).eval()
    for parameter in model.encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for layer in model.encoder.layer:  # attention that matters: scores of several units
        layer.attention.self.query.weight.data *= 4
        layer.attention.self.value.weight.data *= 4
    second = model.encoder.layer[1]
    attention = second.attention.self
    for linear in (attention.query, attention.key, attention.value):
        shrink_rows(linear, 24)
    shrink_columns(second.attention.output.dense, 24)
    attention.num_attention_heads, attention.all_head_size = 3, 24
    shrink_rows(second.intermediate.dense, 40)
    shrink_columns(second.output.dense, 40)
    first = model.encoder.layer[0]
    first.intermediate.dense.bias.data[7] = 12
    first.output.dense.weight.data[3, 7] = 2.5
    return model


def shrink_rows(linear, rows):
    linear.weight.data, linear.bias.data = linear.weight.data[:rows], linear.bias.data[:rows]
    linear.out_features = rows


def shrink_columns(linear, columns):
    linear.weight.data, linear.in_features = linear.weight.data[:, :columns], columns


def batch(seed, sentences=6, tokens=TOKENS):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, tokens + 1, (sentences,), generator=generator)
    lengths[0] = tokens
    return {"input_ids": torch.randint(0, 50, (sentences, tokens), generator=generator),
            "attention_mask": (torch.arange(tokens) < lengths[:, None]).long()}


@pytest.fixture(scope="module")
def quantized(bert):
    return quantize_encoder(bert, calibrate_encoder(bert, [batch(seed) for seed in range(8)]))


@pytest.fixture(scope="module")
def pruned(bert):
    return quantize_encoder(bert, calibrate_encoder(bert, [batch(seed) for seed in range(4)]),
                            map_pruning=IntegerMapPruning(patterns=POOL))


def float_states(bert, inputs):
    with torch.no_grad():
        return [state.numpy() for state in bert(**inputs, output_hidden_states=True).hidden_states]


def test_close_to_transformers(bert, quantized):
    inputs = batch(99, sentences=40)
    states = float_states(bert, inputs)
    lengths = inputs["attention_mask"].sum(dim=1).numpy()
    got = quantized.integer.compute(quantize(states[0], quantized.input.steps), lengths)
    valid = inputs["attention_mask"].bool().numpy()
    error = (got * quantized.output.steps - states[-1])[valid]
    assert np.sqrt(np.square(error).mean() / np.square(states[-1][valid]).mean()) < 0.015
    assert np.abs(error).max() < 0.12


def test_sizes_differ_per_layer(quantized):
    first, second = quantized.integer.layers
    assert (first.attention.heads, second.attention.heads) == (4, 3)
    assert (first.ffn1.weight.shape[0], second.ffn1.weight.shape[0]) == (64, 40)
    assert first.gelu.outliers[7]


@settings(deadline=None, max_examples=15)
@given(st.integers(0, TOKENS), st.integers(0, 6), st.booleans(), st.integers(0, 2**31 - 1))
def test_padding_and_batch_never_matter(quantized, pruned, length, extra, with_pruning, seed):
    encoder = (pruned if with_pruning else quantized).integer
    rng = np.random.default_rng(seed=seed)
    x = rng.integers(-127, 128, (2, length + extra, HIDDEN))
    full = encoder.compute(x, [length, length + extra])
    short = encoder.compute(x[:1, :length], [length])
    assert (full[0, :length] == short[0]).all()
    assert (full[1] == encoder.compute(x[1:], [length + extra])[0]).all()
    assert np.abs(full).max(initial=0) <= 127


def test_extreme_inputs_stay_activations(quantized):
    for value in (-127, 127, 0):
        got = quantized.integer.compute(np.full((1, 5, HIDDEN), value), [5])
        assert np.abs(got).max() <= 127
        assert (got == got[:, :1]).all()


def test_trace_holds_every_tensor_and_the_layers_chain(pruned):
    x = np.random.default_rng(seed=3).integers(-127, 128, (2, 9, HIDDEN))
    traces = pruned.integer.trace(x, [9, 4])
    assert list(traces[0]) == ["q", "k", "v", "scores", "weights", "sums", "pattern_ids", "context", "o",
                               "attention_norm", "ffn1", "gelu", "ffn2", "output"]
    again = pruned.integer.layers[1].trace(traces[0]["output"], np.array([9, 4]))
    for name, tensor in again.items():
        assert (tensor == traces[1][name]).all()
        assert tensor.dtype == np.int64


def test_parts_round_trip(pruned):
    encoder = pruned.integer
    linears = {name: layer.linear for name, layer in pruned.layers.items()}
    again = IntegerEncoder.from_parts(linears, encoder.operators())
    x = np.random.default_rng(seed=4).integers(-127, 128, (1, 10, HIDDEN))
    assert (again.compute(x, [10]) == encoder.compute(x, [10])).all()


def test_refusals(quantized):
    linears = {name: layer.linear for name, layer in quantized.layers.items()}
    operators = quantized.integer.operators()
    for parts, name in ((linears, "encoder.layer.1.output.dense"),
                        (operators, "encoder.layer.0.attention.self")):
        part = parts.pop(name)
        with pytest.raises(ValueError, match=f"{name} is missing"):
            IntegerEncoder.from_parts(linears, operators)
        parts[name] = part
    linears["encoder.layer.1.attention.self.key"] = linears["encoder.layer.0.attention.self.key"]
    with pytest.raises(ValueError, match=r"encoder\.layer\.1: k must have shape \(24, 32\)"):
        IntegerEncoder.from_parts(linears, operators)
    x = np.zeros((1, 4, HIDDEN), np.int64)
    with pytest.raises(ValueError, match="lengths must be 0 to 4, not 5"):
        quantized.integer.compute(x, [5])
    with pytest.raises(ValueError, match=r"not \(4, 32\) and \(1,\)"):
        quantized.integer.compute(x[0], [4])
