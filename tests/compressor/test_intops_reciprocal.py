"""Digit recurrences against Python's integers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.intops.reciprocal import bit_length, floor_sqrt, inverse_sqrt, normalized_quotient

EDGES = sorted({max(0, (1 << bits) + step) for bits in range(32) for step in (-1, 0, 1)})


def test_bit_length_is_pythons():
    values = [*EDGES, (1 << 62) - 1, 1 << 62]
    assert bit_length(np.array(values)).tolist() == [value.bit_length() for value in values]


def test_floor_sqrt_around_every_perfect_square():
    roots = np.arange(1, 1 << 16, dtype=np.int64)
    squares = roots * roots
    assert (floor_sqrt(squares) == roots).all()
    assert (floor_sqrt(squares - 1) == roots - 1).all()
    assert floor_sqrt(np.array([(1 << 32) - 1])) == (1 << 16) - 1


@given(numerator=st.integers(1 << 30, (1 << 31) - 1), divisor=st.integers(1, (1 << 16) - 1))
def test_quotient_is_the_floor_and_fits_16_bits(numerator, divisor):
    quotient, length = normalized_quotient(numerator, np.array([divisor]))
    assert length == divisor.bit_length()
    assert quotient == numerator // (divisor << (16 - divisor.bit_length()))
    assert 1 << 14 <= quotient < 1 << 16
    relative = 1 - quotient[0] * 2.0 ** (16 - length[0]) / (numerator / divisor)
    assert 0 <= relative < 2.0**-14


def test_quotient_of_zero_and_too_wide_divisors():
    quotient, length = normalized_quotient(1 << 30, np.array([0]))
    assert (quotient, length) == (0, 0)
    with pytest.raises(ValueError, match="at most 16 bits, not 17"):
        normalized_quotient(1 << 30, np.array([1 << 16]))


@given(st.integers(1, (1 << 48) - 1))
def test_inverse_sqrt_is_within_its_bound(x):
    reciprocal, shift = inverse_sqrt(np.array([x]))
    assert (1 << 15) - 1 <= reciprocal < 1 << 16
    assert 16 <= shift <= 39
    assert abs(reciprocal[0] * 2.0 ** -shift[0] * math.sqrt(x) - 1) < 2.0**-14


@pytest.mark.parametrize("x", [EDGES[1:], [(1 << 48) - 1, 1 << 47, (1 << 46) + 1]])
def test_inverse_sqrt_at_the_edges_of_its_ranges(x):
    reciprocal, shift = inverse_sqrt(np.array(x))
    true = 1 / np.sqrt(np.array(x, np.float64))
    assert np.abs(reciprocal * 2.0 ** -shift.astype(float) / true - 1).max() < 2.0**-14


@pytest.mark.parametrize("x", [0, -1, 1 << 48])
def test_inverse_sqrt_refuses_what_it_cannot_do(x):
    with pytest.raises(ValueError, match="inverse_sqrt takes 1 to"):
        inverse_sqrt(np.array([x]))
