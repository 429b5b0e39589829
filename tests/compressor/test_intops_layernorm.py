"""Integer residual and LayerNorm against torch, on the same integers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.intops.layernorm import BETA_MAX, IntegerLayerNorm
from compressor.intops.layernorm import UNIT_BITS as FRACTION


def layernorm(gamma, beta, *, residual_shift=4, branch_shift=3, output_scale=0.05, epsilon=1):
    """Integer LayerNorm of real gamma and beta."""
    hidden = len(gamma)
    gamma = gamma * math.sqrt(hidden) / output_scale / 2.0**FRACTION
    shift = int(np.floor(np.log2(32767 / np.abs(gamma).max())))
    return IntegerLayerNorm(
        gamma=np.floor(gamma * 2.0**shift + 0.5).astype(np.int16),
        beta=np.floor(beta / output_scale * 2.0**shift + 0.5).astype(np.int32),
        residual_shift=np.broadcast_to(residual_shift, hidden).astype(np.uint8),
        branch_shift=np.broadcast_to(branch_shift, hidden).astype(np.uint8),
        output_shift=shift, epsilon=epsilon)


def error_bound(norm, z, output_scale, gamma):
    """Bound in output steps: its rounding, gamma's and beta's, the mean's, the unit's, the root's."""
    deviation = np.maximum(z.std(axis=-1, keepdims=True), 1e-9)
    center = z.mean(axis=-1, keepdims=True)
    mean = 0.5 + np.abs(center) * 2.0**-15
    value = np.abs(z - center) / deviation
    # The squared deviation from a mean that is off by d is larger by d^2.
    root = 2.0**-13 + mean**2 / (2 * deviation**2)
    unit = 0.5 * 2.0**-FRACTION * math.sqrt(len(gamma))
    constants = 2.0**-norm.output_shift * (0.5 * 2.0**FRACTION + 0.5)
    return 0.5 + constants + np.abs(gamma) / output_scale * (mean / deviation + unit + value * root)


@pytest.mark.parametrize("hidden", [4, 12, 64, 384, 768, 1020, 1024])
@pytest.mark.parametrize("spread", [3, 40, 127])
def test_close_to_torch(hidden, spread):
    rng = np.random.default_rng(seed=hidden)
    gamma, beta = rng.normal(1, 0.4, hidden), rng.normal(0, 0.3, hidden)
    norm = layernorm(gamma, beta)
    residual, branch = (rng.integers(-spread, spread + 1, (40, hidden)) for _ in range(2))
    z = torch.tensor(residual * 16 + branch * 8, dtype=torch.float64)
    true = torch.nn.functional.layer_norm(
        z, (hidden,), torch.tensor(gamma), torch.tensor(beta), eps=1 / hidden).numpy() / 0.05
    got = norm.compute(residual, branch)
    bound = error_bound(norm, z.numpy(), 0.05, gamma)
    assert (np.abs(got - np.clip(true, -127, 127)) <= bound).all()
    if spread > 3 and hidden >= 64:
        assert np.abs(got - np.clip(true, -127, 127)).max() < 0.6


def test_shifts_of_single_channels():
    """A channel with an outlier gets a larger scale; the sum is what it says."""
    residual, branch = np.array([[1, 2, 3, 4]]), np.array([[5, -6, 7, -8]])
    norm = layernorm(np.ones(4), np.zeros(4), residual_shift=[0, 1, 2, 7], branch_shift=[7, 0, 3, 1])
    assert norm.add(residual, branch).tolist() == [[1 + 640, 4 - 6, 12 + 56, 512 - 16]]


def test_zero_variance_gives_beta():
    beta = np.linspace(-3, 3, 8)
    norm = layernorm(np.full(8, 2.0), beta)
    expected = np.floor(beta / 0.05 + 0.5)
    for value in (-127, 0, 1, 127):
        assert (norm.compute(np.full((1, 8), value), np.full((1, 8), value)) == expected).all()


def test_extremes_fit_the_stated_widths():
    hidden = 1024
    norm = layernorm(np.ones(hidden), np.zeros(hidden), residual_shift=7, branch_shift=7)
    signs = np.where(np.arange(hidden) % 2, 127, -127)
    steps = (np.where(np.arange(hidden) < first, 127, -127) for first in (1, 512, 1023))
    for row in (signs, *steps):
        x = row[None].astype(np.int64)
        z = norm.add(x, x)
        assert np.abs(z).max() <= 32512
        assert (z * z).sum() < 1 << 41
        true = torch.nn.functional.layer_norm(torch.tensor(z, dtype=torch.float64), (hidden,)) / 0.05
        assert np.abs(norm.compute(x, x) - np.clip(true.numpy(), -127, 127)).max() < 0.6


def test_one_single_large_value():
    """The normalized deviation reaches sqrt(H), its largest value."""
    x = np.zeros((1, 1024), np.int64)
    x[0, 5] = 127
    got = layernorm(np.ones(1024), np.zeros(1024), output_scale=0.26).compute(x, x)
    assert got[0, 5] == round(math.sqrt(1023) / 0.26)
    assert np.abs(np.delete(got, 5)).max() == 0


def test_epsilon_counts():
    x = np.array([[1, -1, 1, -1]])
    plain = layernorm(np.ones(4), np.zeros(4)).compute(x, x)
    damped = layernorm(np.ones(4), np.zeros(4), epsilon=4 * 24 * 24 * 3).compute(x, x)
    assert plain.tolist() == [[20, -20, 20, -20]]
    assert damped.tolist() == [[10, -10, 10, -10]]


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(0, 2**31 - 1), st.integers(0, 7), st.integers(0, 7))
def test_results_are_activations_whatever_comes(quarter, seed, residual_shift, branch_shift):
    rng = np.random.default_rng(seed=seed)
    hidden = 4 * quarter
    norm = IntegerLayerNorm(
        gamma=rng.integers(-32767, 32768, hidden).astype(np.int16),
        beta=rng.integers(-BETA_MAX, BETA_MAX + 1, hidden).astype(np.int32),
        residual_shift=np.full(hidden, residual_shift, np.uint8),
        branch_shift=np.full(hidden, branch_shift, np.uint8),
        output_shift=int(rng.integers(1, 32)), epsilon=int(rng.integers(1, 1 << 20)))
    residual, branch = (rng.integers(-127, 128, (3, hidden)) for _ in range(2))
    got = norm.compute(residual, branch)
    assert np.abs(got).max() <= 127
    assert (got == np.stack([norm.compute(residual[i], branch[i]) for i in range(3)])).all()
    again = IntegerLayerNorm.from_dict(norm.to_dict())
    assert (again.compute(residual, branch) == got).all()


@pytest.mark.parametrize(("change", "message"), [
    ({"gamma": np.full(4, -32768, np.int16)}, "gamma must be -32767 to 32767"),
    ({"beta": np.full(4, 1 << 30, np.int32)}, "beta must be"),
    ({"branch_shift": np.full(4, 8, np.uint8)}, "branch_shift must be 0 to 7"),
    ({"residual_shift": np.zeros(5, np.uint8)}, r"residual_shift must have shape \(4,\)"),
    ({"output_shift": 0}, "output_shift must be 1 to 47"),
    ({"epsilon": 0}, "epsilon must be 1"),
    ({"gamma": np.ones(6, np.int16)}, "multiple of 4 up to 1024, not 6"),
])
def test_refusals(change, message):
    parts = layernorm(np.ones(4), np.zeros(4)).to_dict()
    parts.pop("kind")
    with pytest.raises(ValueError, match=message):
        IntegerLayerNorm(**(parts | change))


def test_refuses_minus_128():
    with pytest.raises(ValueError, match="-128 is not used"):
        layernorm(np.ones(4), np.zeros(4)).compute(np.full((1, 4), -128), np.zeros((1, 4), np.int64))
