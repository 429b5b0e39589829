"""Integer softmax against torch in float64, and at its extremes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compressor.intops.softmax import KEYS_MAX, IntegerSoftmax, exp_table

SCORES = st.integers(-127, 127)


def softmax(scale):
    return IntegerSoftmax(table=exp_table(scale))


@pytest.mark.parametrize("scale", [1e-3, 0.02, 0.08, 0.35, 3.0])
@pytest.mark.parametrize("keys", [1, 5, 128, 512])
def test_normalized_weights_are_within_their_bound_of_torch(scale, keys):
    rng = np.random.default_rng(seed=keys)
    scores = rng.integers(-127, 128, (64, keys))
    weights, sums = softmax(scale).compute(scores, np.ones(keys, bool))
    true = torch.softmax(torch.tensor(scores * scale, dtype=torch.float64), dim=-1).numpy()
    error = np.abs(weights / sums[:, None] - true)
    # Each weight is off by at most 1/2, and so is each of the terms of the sum.
    assert (error <= (0.5 + 0.5 * keys * true) / sums[:, None] + 1e-12).all()


def test_every_table_entry_is_within_half_of_the_exponential():
    for scale in (0.001, 0.05, 1.0):
        error = exp_table(scale) - 127 * np.exp(-np.arange(256) * scale)
        assert np.abs(error).max() <= 0.5


def test_flat_rows_of_any_value_keep_all_their_weight():
    for value in (-127, 0, 127):
        weights, sums = softmax(0.1).compute(np.full((1, KEYS_MAX), value), np.True_)
        assert (weights == 127).all()
        assert sums.tolist() == [127 * KEYS_MAX]
        assert sums[0] < 1 << 16


def test_extreme_scores():
    weights, sums = softmax(1.0).compute(np.array([[127, -127, 127, 126]]), np.True_)
    assert weights.tolist() == [[127, 0, 127, 47]]
    assert sums.tolist() == [301]


def test_fully_masked_rows_are_zero():
    weights, sums = softmax(0.1).compute(np.full((2, 8), 5), np.array([[False], [True]]))
    assert weights[0].tolist() == [0] * 8
    assert sums.tolist() == [0, 8 * 127]


def test_a_row_without_keys_is_zero():
    weights, sums = softmax(0.1).compute(np.zeros((3, 0), np.int64), np.ones((3, 0), bool))
    assert weights.shape == (3, 0)
    assert sums.tolist() == [0, 0, 0]


@given(arrays(np.int64, 9, elements=SCORES), arrays(np.int64, 9, elements=SCORES), st.integers(1, 9))
def test_masked_scores_have_no_influence(scores, others, length):
    valid = np.arange(9) < length
    unit = softmax(0.05)
    weights, total = unit.compute(scores, valid)
    changed, changed_total = unit.compute(np.where(valid, scores, others), valid)
    short, short_total = unit.compute(scores[:length], np.True_)
    assert (weights == changed).all()
    assert total == changed_total == short_total
    assert (weights[:length] == short).all()
    assert not weights[length:].any()


@given(arrays(np.int64, 7, elements=st.integers(-60, 60)), st.integers(-60, 60))
def test_only_differences_matter(scores, offset):
    unit = softmax(0.05)
    weights, total = unit.compute(scores, np.True_)
    moved, moved_total = unit.compute(scores + offset, np.True_)
    assert (weights == moved).all()
    assert total == moved_total
    assert weights.max() == 127


def test_weights_relative_to_the_maximum_beat_normalized_int8_probabilities():
    """The reason to divide after the context product."""
    rng = np.random.default_rng(seed=3)
    scores, scale = rng.integers(-40, 41, (200, 128)), 0.05
    values = rng.integers(-127, 128, (128, 16))
    true = torch.softmax(torch.tensor(scores * scale, dtype=torch.float64), dim=-1).numpy()
    weights, sums = softmax(scale).compute(scores, np.True_)
    after = np.abs((weights @ values) / sums[:, None] - true @ values).mean()
    before = np.abs(np.floor(127 * true + 0.5) @ values / 127 - true @ values).mean()
    assert after < before / 10


def test_refusals():
    unit = softmax(0.1)
    with pytest.raises(ValueError, match="513 keys; 512"):
        unit.compute(np.zeros((1, 513), np.int64), np.True_)
    with pytest.raises(ValueError, match="-128 is not used"):
        unit.compute(np.array([[-128]]), np.True_)
    with pytest.raises(ValueError, match="above 0, not -1"):
        exp_table(-1)
    with pytest.raises(ValueError, match="256 entries"):
        IntegerSoftmax(table=np.full(10, 127, np.uint8))
    for table in (np.full(256, 126), np.where(np.arange(256) == 9, 127, 5)):
        table[0] = table[0] if table[0] == 126 else 127
        with pytest.raises(ValueError, match="start at 127 and fall"):
            IntegerSoftmax(table=table.astype(np.uint8))
