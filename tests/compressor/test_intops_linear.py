"""Integer linear layers against torch's integer products, torch's fake quantization, and float."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compressor.intops import IntegerLinear, exact_matmul, quantize_multiplier
from compressor.quantization import quantize

INT8 = st.integers(-127, 127)


def linear(weight, bias=0, multiplier=1, shift=1):
    rows = len(weight)
    return IntegerLinear(weight=np.asarray(weight, np.int8), bias=np.full(rows, bias, np.int32),
                         multiplier=np.full(rows, multiplier), shift=np.full(rows, shift))


@st.composite
def problems(draw):
    tokens, inner, rows = (draw(st.integers(1, 9)) for _ in range(3))
    x = draw(arrays.arrays(np.int64, (tokens, inner), elements=INT8))
    weight = draw(arrays.arrays(np.int8, (rows, inner), elements=INT8))
    bias = draw(arrays.arrays(np.int32, rows, elements=st.integers(-(2**30), 2**30)))
    multiplier = draw(arrays.arrays(np.int64, rows, elements=st.integers(0, 2**16 - 1)))
    shift = draw(arrays.arrays(np.int64, rows, elements=st.integers(1, 47)))
    return x, IntegerLinear(weight=weight, bias=bias, multiplier=multiplier, shift=shift)


@given(problems())
@settings(max_examples=60, deadline=None)
def test_equals_python_integers(problem):
    """Every sum, product and shift once more in Python's own integers."""
    x, layer = problem
    expected = []
    for token in x.tolist():
        row_values = []
        for row in range(len(layer.bias)):
            total = sum(a * int(w) for a, w in zip(token, layer.weight[row], strict=True))
            total += int(layer.bias[row])
            assert -(2**31) <= total < 2**31
            shift = int(layer.shift[row])
            value = (total * int(layer.multiplier[row]) + 2**(shift - 1)) >> shift
            row_values.append(max(-127, min(127, value)))
        expected.append(row_values)
    assert layer.compute(x).tolist() == expected


@pytest.mark.parametrize("inner", [32, 768, 1041, 3072])
def test_sums_equal_torch_integer_product(inner):
    """torch._int_mm multiplies int8 into int32; 127s reach sums that float32 cannot hold."""
    rng = np.random.default_rng(inner)
    inner = inner // 8 * 8
    x = rng.integers(-127, 128, (32, inner)).astype(np.int8)
    weight = rng.integers(-127, 128, (64, inner)).astype(np.int8)
    x[0], weight[0] = 127, 127
    expected = torch._int_mm(torch.tensor(x), torch.tensor(weight).T.contiguous()).numpy()
    sums = linear(weight).accumulate(x.astype(np.int64))
    assert (sums == expected).all()
    assert sums[0, 0] == inner * 127 * 127


def test_sums_beyond_float32_are_exact():
    # Above 2**25 float32 holds multiples of 4 only, and this sum is none.
    weight = np.full((1, 3072), 127, np.int8)
    x = np.full((1, 3072), 127, np.int64)
    x[0, 0], weight[0, 1] = 126, 126
    assert linear(weight).accumulate(x)[0, 0] == 3072 * 127 * 127 - 2 * 127
    assert int(np.float32(3072 * 127 * 127 - 2 * 127)) != 3072 * 127 * 127 - 2 * 127


def test_equals_torch_fake_quantization_up_to_ties():
    """torch.fake_quantize rounds ties to even and scales in float32; elsewhere the integers agree."""
    rng = np.random.default_rng(11)
    x = rng.integers(-127, 128, (200, 64)).astype(np.int64)
    weight = rng.integers(-127, 128, (48, 64)).astype(np.int8)
    bias = rng.integers(-5000, 5000, 48).astype(np.int32)
    input_scale, output_scale = 0.02, 0.05
    weight_scale = rng.uniform(1e-4, 4e-3, 48)
    multiplier, shift = quantize_multiplier(input_scale * weight_scale / output_scale)
    layer = IntegerLinear(weight=weight, bias=bias, multiplier=multiplier, shift=shift)
    real = torch.tensor((x @ weight.T.astype(np.int64) + bias) * (input_scale * weight_scale))
    twin = torch.fake_quantize_per_tensor_affine(real.float(), output_scale, 0, -127, 127)
    difference = layer.compute(x) - torch.round(twin / output_scale).numpy().astype(np.int64)
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 2e-3  # values within 2**-16 * 127 of a tie
    assert (np.abs(layer.compute(x)) == 127).any()


def test_float_linear_within_the_stated_bound():
    """A float layer and its integers differ by quantization only.

    Input error s_x/2 times sum|w|, weight error s_w/2 times sum|x|, their product, bias error s_x*s_w/2,
    rounding s_y/2, and the multiplier's 2**-16 of the value.
    """
    rng = np.random.default_rng(5)
    weight, bias = rng.normal(0, 0.05, (96, 384)), rng.normal(0, 0.1, 96)
    x = rng.normal(0, 1, (64, 384)).clip(-4, 4)
    real = x @ weight.T + bias
    input_scale, output_scale = 4 / 127, np.abs(real).max() / 127
    weight_scale = np.abs(weight).max(axis=1) / 127
    multiplier, shift = quantize_multiplier(input_scale * weight_scale / output_scale)
    layer = IntegerLinear(
        weight=quantize(weight, weight_scale[:, None]),
        bias=np.floor(bias / (input_scale * weight_scale) + 0.5).astype(np.int32),
        multiplier=multiplier, shift=shift)
    error = np.abs(layer.compute(quantize(x, input_scale).astype(np.int64)) * output_scale - real)
    bound = (input_scale / 2 * np.abs(weight).sum(axis=1) + weight_scale / 2 * np.abs(x).sum(axis=1)[:, None]
             + 384 * input_scale * weight_scale / 4 + input_scale * weight_scale / 2 + output_scale / 2
             + (np.abs(real) + output_scale) * 2.0**-15)
    assert (error <= bound).all()
    # The bound is a worst case; the error that occurs is far smaller, about 1 % of the range.
    assert error.mean() < 0.01 * np.abs(real).max()


@given(arrays.arrays(np.int64, (3, 5), elements=INT8), arrays.arrays(np.int64, (5, 4), elements=INT8))
def test_exact_matmul_equals_integer_product(a, b):
    assert (exact_matmul(a, b) == a @ b).all()


def test_exact_matmul_refuses_what_float64_cannot_hold():
    big = np.full((1, 4), 2**26)
    with pytest.raises(OverflowError, match=r"^matrix product could exceed 2\*\*53 and would not be exact$"):
        exact_matmul(big, big.T)


def test_accumulator_bits_are_proven_from_the_weights():
    assert linear([[1, -1]], bias=1).accumulator_bits == 9  # 2 * 127 + 1 = 255
    assert linear([[1, -1]], bias=2).accumulator_bits == 10  # 256


@given(st.integers(1, 5000))
@settings(max_examples=20)
def test_accumulator_bound_is_reached(inner):
    layer = linear(np.full((1, inner), -127))
    largest = layer.accumulate(np.full((1, inner), -127))[0, 0]
    assert largest == inner * 127 * 127
    assert int(largest).bit_length() + 1 == layer.accumulator_bits


@pytest.mark.parametrize(("arguments", "message"), [
    ({"weight": np.array([[-128, 0]], np.int8)}, "weights must be -127 to 127; -128 is not used"),
    ({"bias": np.zeros(2, np.int32)}, "bias must have shape (1,), not (2,)"),
    ({"shift": np.array([0])}, "shifts must be 1 to 47 bits, not 0 to 0"),
    ({"multiplier": np.array([65536])}, "multipliers must be 0 to 65535, not 65536 to 65536"),
    ({"bias": np.array([2**31 - 1], np.int32)}, "a sum can need 33 bits; 32 are allowed"),
])
def test_constructor_refuses(arguments, message):
    fields = {"weight": np.array([[1, 2]], np.int8), "bias": np.zeros(1, np.int32),
              "multiplier": np.array([1]), "shift": np.array([1])} | arguments
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        IntegerLinear(**fields)


@pytest.mark.parametrize(("x", "message"), [
    (np.zeros((1, 3), np.int64), "input has 3 channels; the weights have 2"),
    (np.array([[0, -128]]), "activations must be -127 to 127; -128 is not used"),
])
def test_compute_refuses(x, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        linear([[1, 2]]).compute(x)
