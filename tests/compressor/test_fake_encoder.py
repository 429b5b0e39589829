"""The torch twin of the whole encoder: every integer equal to the golden model's, and useful gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaModel

from compressor.architectures import ARCHITECTURES
from compressor.encoder_quantization import calibrate_encoder, quantize_encoder
from compressor.encoder_scales import ActivationScales, EncoderScales
from compressor.fake_attention import FakeAttention
from compressor.fake_encoder import FakeEncoder, FakeEncoderLayer, TrainedEncoder
from compressor.fake_gelu import FakeGelu, table_slope
from compressor.fake_layernorm import FakeLayerNorm, inverse_sqrt
from compressor.fake_quantization import FakeLinear
from compressor.golden_model import GoldenModel
from compressor.host import BertHost
from compressor.intops import IntegerLinear, requantize
from compressor.intops import reciprocal as golden_reciprocal
from compressor.intops.gelu import IntegerGelu, gelu_table
from compressor.intops.layernorm import IntegerLayerNorm
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.layer_weights import ROLES, layer_name
from compressor.pools import build_pool
from compressor.quantized_model import compute_in_float, embed, to_quantized_model, train_in_integers
from compressor.straight_through import requantize as fake_requantize
from compressor.structures import NM, Dense, Pattern
from tests.bundles import random_batches, random_encoder_bundle

POOL = build_pool("reed_muller")
CPU = torch.device("cpu")


def traces_equal(golden, twin, x, lengths):
    """Compare two encoders tensor by tensor; returns the number of values."""
    values = 0
    twin = twin.trace(torch.tensor(x, dtype=torch.float32), torch.tensor(lengths))
    for index, (one, other) in enumerate(zip(golden.trace(x, lengths), twin, strict=True)):
        assert list(one) == list(other)
        for name, expected in one.items():
            np.testing.assert_array_equal(other[name].detach().numpy(), expected, f"layer {index}: {name}")
            values += expected.size
    return values


def inputs(tokens, hidden, seed=0):
    """Codes of six sequences of very different length."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-127, 128, (6, tokens, hidden))
    x[5] = x[4, :1]  # all tokens equal: flat scores
    return x, np.array([0, 1, min(3, tokens), tokens // 2, tokens, tokens])


# --- equality --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [
    {"structure": "pattern"}, {"structure": "dense", "outliers": False}, {"structure": "nm"},
    {"structure": "mixed", "hidden": 48, "ffn": 72, "heads": 3},
    {"structure": "pattern", "absent_blocks": True},
    {"structure": "pattern", "map_pruning": True}, {"structure": "dense", "map_pruning": True, "heads": 1},
], ids=str)
@pytest.mark.parametrize("gradients", [False, True])
def test_twin_equals_the_golden_model_on_every_integer(arguments, gradients):
    absent = arguments.get("absent_blocks")
    bundle = random_encoder_bundle(**{k: v for k, v in arguments.items() if k != "absent_blocks"})
    golden = bundle.encoder
    if absent:  # whole blocks of weights are zero, a whole row of them in one layer
        q = golden.layers[0].q.weight.copy()
        q[:4], q[8:16, 4:24] = 0, 0
        layers = (replace(golden.layers[0], q=replace(golden.layers[0].q, weight=q)), *golden.layers[1:])
        golden = replace(golden, layers=layers)
    with torch.set_grad_enabled(gradients):
        twin = FakeEncoder.of(golden)
        for tokens in (1, 3, 6, 16, 37):
            assert traces_equal(golden, twin, *inputs(tokens, golden.layers[0].hidden, seed=tokens)) > 0


@pytest.mark.parametrize("power", [1, 2])
def test_map_pruning_takes_the_same_patterns_on_ties(power):
    """Few distinct weights, so that many patterns keep the same sum."""
    attention = random_encoder_bundle(map_pruning=True).encoder.layers[0].attention
    attention = replace(attention, pruning=IntegerMapPruning(patterns=POOL.patterns.astype(np.uint8),
                                                             power=power))
    scores = np.random.default_rng(3).integers(0, 3, (3, attention.heads, 19, 19)) * 20
    lengths = np.array([19, 10, 3])
    expected = attention.weights(scores, lengths)
    found = FakeAttention.of(attention).weights(torch.tensor(scores).float(), torch.tensor(lengths))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(other.numpy(), one)
    assert len(np.unique(expected[2])) > 4


def test_requantize_at_ties_and_the_widest_sums():
    rng = np.random.default_rng(1)
    sums = rng.integers(-(1 << 31), 1 << 31, (400, 64))
    multiplier, shift = rng.integers(0, 1 << 16, 64), rng.integers(1, 48, 64)
    sums[:200] = rng.integers(-3000, 3000, (200, 64))
    multiplier[:32], shift[:32] = 1 << 15, rng.integers(16, 24, 32)  # ties
    found = fake_requantize(torch.tensor(sums).double(), torch.tensor(np.ldexp(1.0 * multiplier, -shift)))
    np.testing.assert_array_equal(found.numpy(), requantize(sums, multiplier, shift))


def test_wide_layers_are_summed_in_float64():
    rng = np.random.default_rng(2)
    linear = IntegerLinear(weight=np.full((4, 3072), 127, np.int8),
                           bias=np.array([1 << 30, -5, 0, 7], np.int32),
                           multiplier=np.array([40000, 65535, 32768, 1]), shift=np.array([33, 40, 35, 47]))
    twin = FakeLinear.of(linear)
    assert twin.weight.dtype == torch.float64
    x = rng.integers(100, 128, (20, 3072))
    np.testing.assert_array_equal(twin.compute(torch.tensor(x).float()).numpy(), linear.compute(x))


def test_inverse_square_roots_are_exact():
    """Around every square, and everywhere in 48 bits."""
    rng = np.random.default_rng(4)
    root = np.r_[np.arange(1, 3000), rng.integers(1, 1 << 24, 20000)]
    x = np.r_[root**2 - 1, root**2, root**2 + 1, rng.integers(1, 1 << 48, 20000), (1 << 48) - 1]
    x = x[(x > 0) & (x < 1 << 48)]
    for one, other in zip(golden_reciprocal.inverse_sqrt(x), inverse_sqrt(torch.tensor(x).double()),
                          strict=True):
        np.testing.assert_array_equal(other.numpy(), one)


@pytest.mark.parametrize("hidden", [4, 36, 1024])
def test_layernorm_at_its_limits(hidden):
    rng = np.random.default_rng(hidden)
    for epsilon, shift, spread in ((1, 1, 1), ((1 << 40) - 1, 20, 127), (77, 14, 127), (12345, 30, 9)):
        norm = IntegerLayerNorm(
            gamma=rng.integers(-32767, 32768, hidden).astype(np.int16),
            beta=rng.integers(-(1 << 30) + 1, 1 << 30, hidden).astype(np.int32),
            residual_shift=rng.integers(0, 8, hidden).astype(np.uint8),
            branch_shift=rng.integers(0, 8, hidden).astype(np.uint8), output_shift=shift, epsilon=epsilon)
        residual, branch = rng.integers(-spread, spread + 1, (2, 40, hidden))
        residual[0], branch[0] = 0, 0  # zero variance
        residual[1], branch[1] = 127, 127
        residual[2, : hidden // 2], branch[2, : hidden // 2] = 127, 127
        residual[2, hidden // 2:], branch[2, hidden // 2:] = -127, -127
        for narrow in (norm, replace(norm, beta=norm.beta >> 16)):
            found = FakeLayerNorm.of(narrow).compute(torch.tensor(residual).float(),
                                                     torch.tensor(branch).float())
            np.testing.assert_array_equal(found.numpy(), narrow.compute(residual, branch))


# --- the model around it ---------------------------------------------------------------------------


@pytest.mark.parametrize("map_pruning", [False, True])
def test_quantized_model_gives_the_golden_models_predictions(map_pruning):
    bundle = random_encoder_bundle(structure="mixed", map_pruning=map_pruning, seed=4)
    model, golden = to_quantized_model(bundle), GoldenModel.of(bundle)
    for batch in random_batches(bundle, batches=3, sentences=8, tokens=13, seed=5):
        x, lengths = golden.inputs(batch)
        with torch.no_grad():
            states = model.bert(**batch).last_hidden_state.numpy()
            logits = model(**batch).logits.numpy()
        np.testing.assert_allclose(states, golden.host.hidden(golden.encoder.compute(x, lengths)), rtol=1e-6)
        np.testing.assert_allclose(logits, golden.logits(batch), atol=1e-5)
        assert (logits.argmax(axis=1) == golden.logits(batch).argmax(axis=1)).all()


def test_embeddings_whose_positions_follow_padding():
    """RoBERTa's: position 2 for the first token where padding is token 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = RobertaModel(RobertaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, pad_token_id=1,
                                           num_attention_heads=2, intermediate_size=16,
                                           max_position_embeddings=20, initializer_range=0.5))
        ids = torch.randint(2, 40, (4, 9))
    ids[1, 5:], ids[2, 1:] = 1, 1
    scales = ActivationScales(scale=0.02, exponents=np.arange(16) % 3)
    host = BertHost.from_state_dict(
        {f"roberta.{name}": value for name, value in model.state_dict().items()},
        config={"model_type": "roberta", "pad_token_id": 1, "layer_norm_eps": model.config.layer_norm_eps},
        encoder_input=scales, encoder_output=scales)
    found = embed(model.embeddings, ARCHITECTURES["roberta"], 1, scales.steps, ids)
    np.testing.assert_array_equal(found.detach().numpy(), host.embed(ids.numpy()))


# --- training --------------------------------------------------------------------------------------


def make_bert(structure=None, seed=7):
    """A random classifier with outliers, so that exponents and the second GELU table occur."""
    config = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=64, max_position_embeddings=16, initializer_range=0.12,
                        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config)
        for parameter in model.bert.encoder.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.bert.encoder.layer[0].intermediate.dense.bias.data[5] = 14
    model.bert.encoder.layer[1].output.dense.bias.data[3] = 30
    for index in range(2 if structure else 0):
        for role in ROLES:
            linear = model.bert.get_submodule(layer_name(index, role))
            linear.weight.data = structure.project(linear.weight.data)[0]
    return model.eval()


def batch_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([16, 9, 5, 12, 16, 2])
    return {"input_ids": torch.randint(5, 64, (6, 16), generator=generator),
            "attention_mask": (torch.arange(16) < lengths[:, None]).long(),
            "labels": torch.tensor([0, 1, 1, 0, 1, 0])}


@pytest.mark.parametrize("structure", [Dense(), Pattern(POOL), NM()], ids=lambda one: one.name)
@pytest.mark.parametrize("map_pruning", [
    None, IntegerMapPruning(patterns=POOL.patterns[:8].astype(np.uint8))], ids=["whole-maps", "pruned-maps"])
def test_training_sees_the_integers_that_are_exported(structure, map_pruning):
    """After some steps, with scales from before them, masks kept."""
    model = make_bert(structure)
    scales = calibrate_encoder(model, [batch_of(1), batch_of(2)])
    train_in_integers(model, scales, map_pruning)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    names = [layer_name(index, role) for index in range(2) for role in ROLES]
    masks = {name: model.bert.get_submodule(name).weight != 0 for name in names}
    before = model.bert.encoder.layer[0].output.dense.weight.clone()
    losses = []
    for step in range(4):
        loss = model(**batch_of(step % 2)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        for name, mask in masks.items():
            model.bert.get_submodule(name).weight.data.mul_(mask)
    assert losses[-2] < losses[0]
    assert not torch.equal(before, model.bert.encoder.layer[0].output.dense.weight)
    quantized = quantize_encoder(model, EncoderScales.from_json(scales.to_json()),
                                 structure_of=dict.fromkeys(names, structure), map_pruning=map_pruning)
    for name, layer in quantized.layers.items():
        assert not layer.weight[~masks[name].numpy()].any()
    twin = TrainedEncoder(model, scales, map_pruning).encoder(CPU)
    for tokens in (5, 16):
        assert traces_equal(quantized.integer, twin, *inputs(tokens, 32, seed=tokens)) > 0


def test_gradients_are_those_of_the_float_model():
    """Directions agree wherever the float model has a gradient; the key's bias has none."""
    model = make_bert()
    scales = calibrate_encoder(model, [batch_of()])

    def gradients():
        model.zero_grad()
        model(**batch_of()).loss.backward()
        return {name: parameter.grad.flatten() for name, parameter in model.named_parameters()}

    real = gradients()
    train_in_integers(model, scales)
    found = gradients()
    compute_in_float(model)
    again = gradients()
    for name, gradient in real.items():
        assert torch.equal(again[name], gradient)
        if not name.endswith("key.bias"):
            assert torch.cosine_similarity(gradient, found[name], dim=0) > 0.9, name
            assert 0.75 < found[name].norm() / gradient.norm() < 1.33, name


def test_no_gradient_passes_saturation():
    x = torch.tensor([-300.0, -127.0, 5.0, 127.0, 300.0], requires_grad=True)
    fake_requantize(x, torch.ones((), dtype=torch.float64)).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_pruned_map_entries_get_no_gradient():
    layer = random_encoder_bundle(map_pruning=True).encoder.layers[0]
    attention = FakeAttention.of(layer.attention)
    generator = torch.Generator().manual_seed(1)
    scores = torch.randint(-40, 40, (2, layer.attention.heads, 9, 9), generator=generator).float()
    scores.requires_grad_()
    weights, _, ids = attention.weights(scores, torch.tensor([9, 6]))
    (weights * torch.rand(weights.shape, generator=generator)).sum().backward()
    kept = layer.attention.pruning.mask(ids.numpy(), 9, 9)
    assert not scores.grad.numpy()[~kept].any()
    assert (scores.grad != 0).any()
    assert not scores.grad[1, :, :, 6:].any()


def test_slopes_of_the_tables():
    table = gelu_table(0.05, 0.035, input_center=1.0, output_zero=115)
    slope = table_slope(table)
    real = np.arange(-100, 100) * 0.05 + 1.0
    codes = torch.tensor(real, requires_grad=True)
    torch.nn.functional.gelu(codes).sum().backward()
    wanted = codes.grad.numpy() * 0.05 / 0.035
    assert np.abs(slope[np.arange(-100, 100) & 0xFF] - wanted).max() < 0.15
    gelu = FakeGelu.of(IntegerGelu(table=table))
    x = torch.arange(-127.0, 128.0, requires_grad=True)
    gelu.compute(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), slope[np.arange(-127, 128) & 0xFF], rtol=1e-6)


def test_weights_that_outgrow_their_scales_are_refused():
    model = make_bert()
    scales = calibrate_encoder(model, [batch_of()])
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight.mul_(1e9)
    with pytest.raises(ValueError, match=r"^encoder\.layer\.1\.output\.dense: output scale .* is too small"):
        TrainedEncoder(model, scales).encoder(CPU)
    with torch.no_grad():
        model.bert.encoder.layer[0].intermediate.dense.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"^encoder\.layer\.0\.intermediate\.dense: weights hold NaN"):
        TrainedEncoder(model, scales).encoder(CPU)


def test_layers_of_other_sizes():
    """A head less in one layer, and its own feed-forward size."""
    golden = random_encoder_bundle(layers=1).encoder.layers[0]
    keep = slice(0, 24)
    attention = replace(golden.attention, heads=3, score_multiplier=golden.attention.score_multiplier[:3],
                        score_shift=golden.attention.score_shift[:3])

    def rows(linear, part):
        return replace(linear, weight=linear.weight[part], bias=linear.bias[part],
                       multiplier=linear.multiplier[part], shift=linear.shift[part])

    smaller = replace(
        golden, q=rows(golden.q, keep), k=rows(golden.k, keep), v=rows(golden.v, keep), attention=attention,
        o=replace(golden.o, weight=golden.o.weight[:, keep]), ffn1=rows(golden.ffn1, slice(0, 40)),
        gelu=replace(golden.gelu, outliers=golden.gelu.outliers[:40]),
        ffn2=replace(golden.ffn2, weight=golden.ffn2.weight[:, :40]))
    x, lengths = inputs(9, 32)
    twin = FakeEncoderLayer.of(smaller).trace(torch.tensor(x).float(), torch.tensor(lengths))
    for name, expected in smaller.trace(x, lengths).items():
        np.testing.assert_array_equal(twin[name].numpy(), expected, name)


# --- scales ----------------------------------------------------------------------------------------


def test_scales_survive_a_file_and_are_checked(tmp_path):
    model = make_bert()
    scales = calibrate_encoder(model, [batch_of()])
    assert EncoderScales.load(tmp_path, model) is None
    scales.save(tmp_path)
    again = EncoderScales.load(tmp_path, model)
    assert again.to_json() == scales.to_json()
    for one, other in zip(scales.entrances(), again.entrances(), strict=True):
        np.testing.assert_array_equal(one.steps, other.steps)
    assert scales.layers[0].gelu.outliers[5]
    assert max(int(layer.ffn2.exponents.max()) for layer in scales.layers) > 2
    text = scales.to_json()
    for damaged, message in [
            ("{", "damaged: JSONDecodeError"), ("[]", "damaged: TypeError"),
            (text.replace('"schema_version": 1', '"schema_version": 9'), "version 9; this program reads"),
            (text.replace('"scores"', '"score"'), "LayerScales has the keys"),
            (text.replace('"scores": ', '"scores": -'), "scores is -"),
            (text.replace('"layers": [', '"layers": [], "x": ['), "scales of 0 layers; the model has 2")]:
        (tmp_path / "activation_scales.json").write_text(damaged)
        with pytest.raises(ValueError, match=message) as caught:
            EncoderScales.load(tmp_path, model)
        assert "delete it to calibrate again" in str(caught.value)
    other = BertForSequenceClassification(BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64))
    with pytest.raises(ValueError, match=r"layer 0: o has \(32,\) channels; the model has 16"):
        scales.check(other)
