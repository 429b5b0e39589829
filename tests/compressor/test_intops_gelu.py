"""Integer GELU against torch, for every code."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.intops.gelu import IntegerGelu, gelu_table

CODES = np.arange(-127, 128)


@pytest.mark.parametrize(("input_scale", "output_scale"),
                         [(0.02, 0.01), (0.05, 0.05), (0.2, 0.17), (0.001, 1.0)])
@pytest.mark.parametrize(("input_center", "output_zero"), [(0.0, 0), (2.3, 30)])
def test_every_code_is_within_half_a_step_of_torch(input_scale, output_scale, input_center, output_zero):
    unit = IntegerGelu(table=gelu_table(input_scale, output_scale, input_center=input_center,
                                        output_zero=output_zero))
    x = torch.tensor(CODES * input_scale + input_center)
    true = torch.nn.functional.gelu(x).numpy() / output_scale - output_zero
    assert np.abs(unit.compute(CODES) - np.clip(true, -127, 127)).max() <= 0.5 + 1e-9


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 0.2), st.integers(0, 2**31 - 1))
def test_error_of_a_real_value_is_half_a_step_of_input_and_of_output(scale, seed):
    """GELU's slope is at most 1.13; saturation ends where the codes do."""
    x = np.random.default_rng(seed=seed).uniform(-127 * scale, 127 * scale, 500)
    unit = IntegerGelu(table=gelu_table(scale, scale))
    got = unit.compute(np.floor(x / scale + 0.5).astype(np.int64)) * scale
    true = torch.nn.functional.gelu(torch.tensor(x)).numpy()
    assert np.abs(got - true).max() <= scale * (0.5 * 1.13 + 0.5) + 1e-9


def test_zero_stays_zero_and_extremes_saturate():
    unit = IntegerGelu(table=gelu_table(0.5, 0.1))
    assert unit.compute(np.array([0, 127, -127, 1])).tolist() == [0, 127, 0, 3]


def test_outlier_channels_have_their_own_table():
    usual, coarse = gelu_table(0.03, 0.02), gelu_table(0.2, 0.2)
    unit = IntegerGelu(table=usual, outlier_table=coarse, outliers=np.array([False, True, False]))
    x = np.stack([CODES] * 3, axis=1)
    got = unit.compute(x)
    for channel, table in enumerate((usual, coarse, usual)):
        assert (got[:, channel] == IntegerGelu(table=table).compute(CODES)).all()
    again = IntegerGelu.from_dict(unit.to_dict())
    assert (again.compute(x) == got).all()


def test_shape_is_kept():
    x = np.random.default_rng(seed=1).integers(-127, 128, (2, 3, 4))
    assert IntegerGelu(table=np.zeros(256, np.int8)).compute(x).shape == (2, 3, 4)


def test_dict_round_trip():
    unit = IntegerGelu(table=gelu_table(0.03, 0.02))
    assert (IntegerGelu.from_dict(unit.to_dict()).compute(CODES) == unit.compute(CODES)).all()


def test_refusals():
    unit = IntegerGelu(table=gelu_table(0.1, 0.1))
    for value in (-128, 128):
        with pytest.raises(ValueError, match="-128 is not used"):
            unit.compute(np.array([value]))
    with pytest.raises(ValueError, match="256 entries, not"):
        IntegerGelu(table=np.zeros(255, np.int8))
    with pytest.raises(ValueError, match="-128 is not used"):
        IntegerGelu(table=np.full(256, -128, np.int8))
    with pytest.raises(ValueError, match="given together"):
        IntegerGelu(table=unit.table, outliers=np.zeros(4, bool))
    with pytest.raises(ValueError, match="above 0, not 0"):
        gelu_table(0.0, 1.0)
