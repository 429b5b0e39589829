"""Integer attention and map pruning against torch's attention, stage by stage and whole."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.intops import quantize_multiplier
from compressor.intops.attention import IntegerAttention, context_constants, merge_heads, split_heads
from compressor.intops.map_pruning import IntegerMapPruning, from_blocks, to_blocks
from compressor.intops.softmax import IntegerSoftmax, exp_table

STRIPES = np.array([[(key in pair) for _ in range(4) for key in range(4)]
                    for pair in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))], np.uint8)
CHECKER = np.array([[(query + key) % 2 for query in range(4) for key in range(4)]], np.uint8)
POOL = np.concatenate([STRIPES, CHECKER, 1 - CHECKER])


def attention(*, heads=2, size=8, scales=(0.05, 0.05, 0.04), score_scale=0.1, context_scale=0.04,
              pruning=None):
    """Integer attention of real scales of q, k and v."""
    multiplier, shift = quantize_multiplier(
        np.full(heads, scales[0] * scales[1] / math.sqrt(size) / score_scale))
    numerator, exponent = context_constants(scales[2] / context_scale)
    return IntegerAttention(
        heads=heads, score_multiplier=multiplier, score_shift=shift,
        softmax=IntegerSoftmax(table=exp_table(score_scale)),
        context_numerator=numerator, context_exponent=exponent, pruning=pruning)


def qkv(rng, batch, tokens, channels, limit=127):
    return tuple(rng.integers(-limit, limit + 1, (batch, tokens, channels)) for _ in range(3))


@pytest.mark.parametrize("ratio", [2.0**-14, 0.3, 0.999999, 1.0, 1.0000001, 3.7, 2.0**13.9])
def test_context_constants_are_precise(ratio):
    numerator, exponent = context_constants(ratio)
    assert 1 << 30 <= numerator < 1 << 31
    assert abs(numerator * 2.0**-exponent / ratio - 1) < 2.0**-29


@pytest.mark.parametrize("tokens", [1, 3, 17, 64])
def test_scores_are_within_half_a_step_of_torch(tokens):
    q, k, _ = qkv(np.random.default_rng(seed=tokens), 2, tokens, 16)
    unit = attention(score_scale=0.2)
    qf, kf = (torch.tensor(split_heads(x, 2) * 0.05) for x in (q, k))
    true = (qf @ kf.transpose(2, 3) / math.sqrt(8)).numpy() / 0.2
    # The multiplier is off by at most 2**-16, that is 127 * 2**-16 steps.
    assert np.abs(unit.scores(q, k) - np.clip(true, -127, 127)).max() <= 0.5 + 127 * 2.0**-16


@pytest.mark.parametrize("context_scale", [0.01, 0.04, 0.3])
def test_context_is_within_half_a_step_of_the_weighted_mean(context_scale):
    rng = np.random.default_rng(seed=5)
    unit = attention(context_scale=context_scale)
    weights = rng.integers(0, 128, (3, 2, 40, 40))
    weights[0, 0, 0] = 0
    v = rng.integers(-127, 128, (3, 40, 16))
    sums = weights.sum(axis=-1)
    true = merge_heads(weights @ split_heads(v, 2) / np.maximum(sums, 1)[..., None]) * 0.04 / context_scale
    got = unit.context(weights, sums, v)
    assert np.abs(got - np.clip(true, -127, 127)).max() <= 0.5 + 127 * 2.0**-13
    assert not got[0, 0, :8].any()


@pytest.mark.parametrize(("tokens", "batch"), [(7, 3), (64, 2), (512, 1)])
def test_whole_attention_is_close_to_torch(tokens, batch):
    rng = np.random.default_rng(seed=tokens)
    q, k, v = qkv(rng, batch, tokens, 16, limit=36)
    lengths = np.array([tokens, max(1, tokens // 2), 2][:batch])
    valid = np.arange(tokens) < lengths[:, None]
    real = (torch.tensor(split_heads(x, 2) * scale) for x, scale in ((q, 0.05), (k, 0.05), (v, 0.04)))
    true = torch.nn.functional.scaled_dot_product_attention(
        *real, attn_mask=torch.tensor(valid)[:, None, None, :]).transpose(1, 2).flatten(2) / 0.04
    error = np.abs(attention(score_scale=0.08).compute(q, k, v, lengths) - true.numpy())[valid]
    # Half a score step moves each weight by up to 4 %, so the mean of values up to 36 by twice that.
    assert error.max() < 36 * 2 * 0.04 + 36 / 127 + 0.5
    assert error.mean() < 0.5


def test_extreme_values_fill_the_range_and_no_more():
    unit = attention(score_scale=1.0)
    ones = np.full((1, 512, 16), 127)
    assert (unit.compute(ones, ones, ones, [512]) == 127).all()
    assert (unit.compute(ones, -ones, -ones, [512]) == -127).all()
    alternating = np.where(np.arange(512) % 2, 127, -127)[None, :, None] * np.ones(16, np.int64)
    assert (unit.compute(ones, ones, alternating, [512]) == 0).all()
    first = np.where(np.arange(512) < 1, -127, 0)[:, None]
    assert (unit.compute(ones, ones, alternating, [1]) == first).all()


def test_sequences_of_length_0_give_zeros():
    q, k, v = qkv(np.random.default_rng(seed=1), 2, 9, 16)
    for pruning in (None, IntegerMapPruning(patterns=POOL)):
        assert not attention(pruning=pruning).compute(q, k, v, [0, 0]).any()


@settings(deadline=None)
@given(st.integers(1, 19), st.integers(0, 8), st.booleans(), st.integers(0, 2**31 - 1))
def test_padding_never_matters(length, extra, pruned, seed):
    """Neither how far a sequence is padded nor what the padding contains changes a valid token."""
    rng = np.random.default_rng(seed=seed)
    unit = attention(pruning=IntegerMapPruning(patterns=POOL, power=2) if pruned else None)
    q, k, v = qkv(rng, 1, length + extra, 16)
    full = unit.compute(q, k, v, [length])
    short = unit.compute(q[:, :length], k[:, :length], v[:, :length], [length])
    assert (full[:, :length] == short).all()
    assert not full[:, length:].any()


@settings(deadline=None)
@given(st.integers(1, 19), st.integers(0, 5), st.integers(1, 2), st.integers(0, 2**31 - 1))
def test_pruning_keeps_the_best_pattern_of_each_block(length, extra, power, seed):
    rng = np.random.default_rng(seed=seed)
    pruning = IntegerMapPruning(patterns=POOL, power=power)
    dense, pruned = attention(), attention(pruning=pruning)
    scores = rng.integers(-60, 61, (1, 2, length + extra, length + extra))
    before, _, _ = dense.weights(scores, [length])
    after, sums, ids = pruned.weights(scores, [length])
    if length < 4:
        assert (after == before).all()
        return
    kept = np.zeros((ids.shape[2] * 4, ids.shape[3] * 4), bool)
    for head in range(2):
        padded = np.zeros_like(kept, np.int64)
        padded[: length + extra, : length + extra] = before[0, head]
        for row, column in np.ndindex(ids.shape[2:]):
            at = np.s_[4 * row:4 * row + 4, 4 * column:4 * column + 4]
            energies = [int((pattern.reshape(4, 4) * padded[at] ** power).sum()) for pattern in POOL]
            assert ids[0, head, row, column] == energies.index(max(energies))
            kept[at] = POOL[ids[0, head, row, column]].reshape(4, 4)
        dropped = ~kept[: length + extra, : length + extra]
        assert not after[0, head][dropped].any()
    valid = np.arange(length + extra) < length
    assert (after.max(axis=-1) == np.where(valid, 127, 0)).all()
    assert (sums == after.sum(axis=-1)).all()


def test_pruned_map_is_the_softmax_of_the_kept_scores():
    """Pruning and then normalizing equals scores of minus infinity before the softmax."""
    rng = np.random.default_rng(seed=9)
    scores = rng.integers(-50, 51, (1, 2, 32, 32))
    unit = attention(pruning=IntegerMapPruning(patterns=POOL), score_scale=0.08)
    weights, sums, ids = unit.weights(scores, [32])
    kept = torch.tensor(unit.pruning.mask(ids, 32, 32))
    true = torch.softmax(torch.tensor(scores * 0.08).masked_fill(~kept, -math.inf), dim=-1).numpy()
    assert np.abs(weights / sums[..., None] - true).max() < (0.5 + 0.5 * 16) / 127
    assert (kept.sum(-1) == 16).all()


def test_equal_scores_take_the_lowest_id():
    unit = attention(pruning=IntegerMapPruning(patterns=POOL))
    weights, _, ids = unit.weights(np.zeros((1, 2, 8, 8), np.int64), [8])
    assert (ids == 0).all()
    assert (weights == np.tile([127, 127, 0, 0], 2)).all()


def test_blocks_round_trip():
    maps = np.random.default_rng(seed=2).integers(0, 100, (2, 3, 7, 10))
    assert to_blocks(maps).shape == (2, 3, 2, 3, 16)
    assert (from_blocks(to_blocks(maps), 7, 10) == maps).all()


def test_dict_round_trip():
    q, k, v = qkv(np.random.default_rng(seed=4), 2, 12, 16)
    for pruning in (None, IntegerMapPruning(patterns=POOL, power=2)):
        unit = attention(pruning=pruning)
        again = IntegerAttention.from_dict(unit.to_dict())
        assert (again.compute(q, k, v, [12, 5]) == unit.compute(q, k, v, [12, 5])).all()
        assert again.to_dict().keys() == unit.to_dict().keys()


@pytest.mark.parametrize(("patterns", "message"), [
    (np.zeros((2, 16), np.uint8), "pattern 0 keeps no key of one of its queries"),
    (np.concatenate([POOL, [[1] * 12 + [0] * 4]]), "pattern 8 keeps no key"),
    (np.full((1, 16), 2, np.uint8), "only 0 and 1"),
    (np.ones((1, 9), np.uint8), r"shape \(P, 16\)"),
    (np.ones((65, 16), np.uint8), "1 to 64 patterns, not 65"),
])
def test_pool_refusals(patterns, message):
    with pytest.raises(ValueError, match=message):
        IntegerMapPruning(patterns=patterns)


@pytest.mark.parametrize(("change", "message"), [
    ({"heads": 0}, "at least 1 head"),
    ({"heads": 3}, r"score_multiplier must have shape \(3,\)"),
    ({"score_shift": np.zeros(2, np.int64)}, "shifts must be 1 to 47"),
    ({"context_numerator": 1 << 31}, "context_numerator must be"),
    ({"context_exponent": 16}, "context_exponent must be 17 to 47"),
])
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        replace(attention(), **change)
