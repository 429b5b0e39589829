"""Fixed point against Python's exact integers and fractions, which know no overflow."""

import subprocess
import sys
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.intops import quantize_multiplier, requantize, round_half_up_shift, saturate

INT32 = st.integers(-(2**31), 2**31 - 1)
MULTIPLIER = st.integers(0, 2**16 - 1)
SHIFT = st.integers(1, 47)


def exact(acc, multiplier, shift, limit=127):
    """The contract in fractions: floor(acc * multiplier / 2**shift + 1/2), then clip."""
    value = floor(Fraction(acc * multiplier, 2**shift) + Fraction(1, 2))
    return max(-limit, min(limit, value))


def one(acc, multiplier, shift, **arguments):
    return int(requantize(np.array([[acc]], np.int64), np.array([multiplier]), np.array([shift]),
                          **arguments)[0, 0])


@given(INT32, MULTIPLIER, SHIFT)
def test_requantize_equals_fractions(acc, multiplier, shift):
    assert one(acc, multiplier, shift) == exact(acc, multiplier, shift)


@given(INT32, MULTIPLIER, SHIFT, st.integers(1, 31))
def test_requantize_to_other_limits(acc, multiplier, shift, bits):
    limit = 2**bits - 1
    assert one(acc, multiplier, shift, limit=limit) == exact(acc, multiplier, shift, limit)


@pytest.mark.parametrize("acc", [-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 1])
@pytest.mark.parametrize("multiplier", [0, 1, 2**15, 2**16 - 1])
@pytest.mark.parametrize("shift", [1, 2, 16, 31, 32, 46, 47])
def test_requantize_at_the_extremes(acc, multiplier, shift):
    assert one(acc, multiplier, shift) == exact(acc, multiplier, shift)


@pytest.mark.parametrize("shift", range(1, 48))
def test_ties_go_up(shift):
    half = 2**(shift - 1)
    odd = np.array([-5, -3, -1, 1, 3, 5])  # odd halves: exact ties
    assert round_half_up_shift(odd * half, shift).tolist() == [-2, -1, 0, 1, 2, 3]
    assert round_half_up_shift(odd * half - 1, shift).tolist() == [-3, -2, -1, 0, 1, 2]


def test_ties_differ_from_rounding_to_even():
    ties = np.array([[-5, -3, -1, 1, 3, 5]])
    one_half = np.full(6, 1)
    up = requantize(ties, one_half, one_half)
    assert up.tolist() == [[-2, -1, 0, 1, 2, 3]]
    assert np.rint(ties / 2).tolist() == [[-2, -2, 0, 0, 2, 2]]


@given(st.lists(INT32, min_size=3, max_size=3), MULTIPLIER, SHIFT)
def test_requantize_is_monotonic(accs, multiplier, shift):
    values = [one(acc, multiplier, shift) for acc in sorted(accs)]
    assert values == sorted(values)


def test_each_channel_has_its_own_multiplier_and_shift():
    acc = np.array([[100, 100, 100], [-100, -100, -100]])
    assert requantize(acc, np.array([1, 3, 2**15]), np.array([1, 4, 16])).tolist() == [
        [50, 19, 50], [-50, -19, -50]]


def test_saturate_is_symmetric():
    assert saturate(np.array([-1000, -128, -127, 127, 128]), 127).tolist() == [-127, -127, -127, 127, 127]


@given(st.floats(2.0**-32, 2.0**15, exclude_max=True))
def test_multiplier_has_sixteen_significant_bits(ratio):
    multiplier, shift = quantize_multiplier(ratio)
    assert 2**15 <= multiplier < 2**16
    assert 1 <= shift <= 47
    error = abs(Fraction(int(multiplier), 2**int(shift)) - Fraction(ratio)) / Fraction(ratio)
    assert error <= Fraction(1, 2**16)


@given(st.floats(0, 2.0**-32))
def test_small_ratios_keep_the_largest_shift(ratio):
    multiplier, shift = quantize_multiplier(ratio)
    assert shift in (46, 47)
    assert abs(Fraction(int(multiplier), 2**int(shift)) - Fraction(ratio)) <= Fraction(1, 2**48)


def test_multiplier_that_rounds_up_to_the_next_power_of_two():
    ratio = 1 - 2.0**-20
    multiplier, shift = quantize_multiplier(np.array([ratio]))
    assert (multiplier.tolist(), shift.tolist()) == ([2**15], [15])


def test_requantized_value_is_within_one_step_of_the_real_one():
    """The stated bound: half a step from rounding, and 2**-16 of the value from the multiplier."""
    rng = np.random.default_rng(3)
    acc = rng.integers(-(2**24), 2**24, 20_000)
    ratio = rng.uniform(1e-6, 1e-4, acc.size)
    multiplier, shift = quantize_multiplier(ratio)
    real = np.clip(acc * ratio, -127, 127)
    error = np.abs(requantize(acc, multiplier, shift) - real)
    assert (error <= 0.5 + np.abs(real) * 2.0**-16 + 1e-9).all()
    assert error.max() > 0.49


@pytest.mark.parametrize(("acc", "multiplier", "shift", "error", "message"), [
    (np.zeros((1, 1), np.int32), 1, 1, TypeError,
     "acc must be int64, not int32; cast it before calling"),
    (np.zeros((1, 1), np.int64), 65536, 1, ValueError, "multipliers must be 0 to 65535, not 65536 to 65536"),
    (np.zeros((1, 1), np.int64), -1, 1, ValueError, "multipliers must be 0 to 65535, not -1 to -1"),
    (np.zeros((1, 1), np.int64), 1, 0, ValueError, "shifts must be 1 to 47 bits, not 0 to 0"),
    (np.zeros((1, 1), np.int64), 1, 48, ValueError, "shifts must be 1 to 47 bits, not 48 to 48"),
])
def test_requantize_refuses(acc, multiplier, shift, error, message):
    with pytest.raises(error) as caught:
        requantize(acc, np.array([multiplier]), np.array([shift]))
    assert str(caught.value) == message


@pytest.mark.parametrize("ratio", [-0.1, float("nan"), float("inf"), 2.0**15])
def test_quantize_multiplier_refuses(ratio):
    with pytest.raises(ValueError, match=r"^rescaling ratios must be finite, 0 to below 2\*\*15, not "):
        quantize_multiplier(np.array([ratio]))


def test_the_golden_model_does_not_load_torch():
    code = "import sys, compressor.intops; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
