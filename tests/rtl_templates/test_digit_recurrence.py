"""SquareRoot and Divider against the golden recurrences, and their exact cycles."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.intops.reciprocal import inverse_sqrt, normalized_quotient
from rtl_templates.digit_recurrence import Divider, RecurrenceSpec, SquareRoot


def run(dut, inputs, outputs, gaps):
    """Feed one dict of inputs per start, ``gaps[i]`` idle cycles before start i; a row of outputs each."""
    results = []

    async def testbench(ctx):
        for values, gap in zip(inputs, gaps, strict=True):
            for _ in range(gap):
                await ctx.tick()
                assert not ctx.get(dut.done)
                assert [ctx.get(value) for value in outputs] == results[-1]  # kept until the next start
            for name, value in values.items():
                ctx.set(getattr(dut, name), value)
            ctx.set(dut.start, 1)
            cycles = 0
            while not cycles or not ctx.get(dut.done):
                await ctx.tick()
                cycles += 1
                ctx.set(dut.start, 0)
                for name, value in values.items():  # operands are read in the cycle of start only
                    ctx.set(getattr(dut, name), [0] * len(value) if isinstance(value, list) else 0)
                assert cycles <= dut.spec.cycles
            assert cycles == dut.spec.cycles
            results.append([ctx.get(value) for value in outputs])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return np.array(results)


def roots(lanes, radicands, gaps):
    dut = SquareRoot(RecurrenceSpec(lanes=lanes))
    return run(dut, [{"radicand": row.tolist()} for row in radicands], list(dut.root), gaps)


def quotients(lanes, numerators, divisors, gaps):
    dut = Divider(RecurrenceSpec(lanes=lanes))
    inputs = [{"numerator": int(numerator), "divisor": row.tolist()}
              for numerator, row in zip(numerators, divisors, strict=True)]
    return run(dut, inputs, list(dut.quotient), gaps)


def test_roots_of_squares_and_their_neighbours():
    """Every step's comparison is tied somewhere: exact squares, and one above and below."""
    square = np.array([0, 1, 2, 2**15, 2**15 + 1, 46341, 65534, 65535], np.int64)**2
    radicands = np.clip(np.stack([square - 1, square, square + 1, 2**32 - 1 - square], axis=1), 0, 2**32 - 1)
    spec = RecurrenceSpec(lanes=4)
    assert (roots(4, radicands, np.zeros(len(square), int)) == spec.root(radicands)).all()


def test_quotients_at_the_edges():
    """Smallest and largest divisors and numerators, exact quotients, and divisors that are not normalized."""
    edges = np.array([0, 1, 2**15 - 1, 2**15, 2**15 + 1, 2**16 - 1, 40000, 2**15], np.int64)
    numerators = np.array([2**31 - 1, 2**30, 2**30 + 1, 40000 * 30000, 40000 * 30000 - 1], np.int64)
    divisors = np.tile(edges, (len(numerators), 1))
    expected = RecurrenceSpec(lanes=8).quotient(numerators[:, None], divisors)
    assert (quotients(8, numerators, divisors, np.zeros(len(numerators), int)) == expected).all()
    normal = divisors >= 2**15
    assert (expected[normal] == (numerators[:, None] // np.maximum(divisors, 1))[normal]).all()
    assert (expected[~normal] == 0).all()


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), lanes=st.integers(1, 5))
def test_inverse_square_roots(seed, lanes):
    """Root, then reciprocal of the root: the golden inverse_sqrt of radicands of 31 and 32 bits."""
    rng = np.random.default_rng(seed)
    radicands = rng.integers(2**30, 2**32, (6, lanes))
    gaps = np.concatenate([[0], rng.integers(0, 3, 5)])
    root = roots(lanes, radicands, gaps)
    reciprocal = quotients(lanes, np.full(6, 2**31 - 1), root, gaps)
    assert (reciprocal == inverse_sqrt(radicands)[0]).all()


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), lanes=st.integers(1, 5))
def test_context_multipliers(seed, lanes):
    """The softmax's division, with sums of every length and fully masked rows."""
    rng = np.random.default_rng(seed)
    sums = rng.integers(0, 65025, (6, lanes)) >> rng.integers(0, 17, (6, lanes))
    numerators = rng.integers(2**30, 2**31, 6)
    expected, length = normalized_quotient(numerators[:, None], sums)
    got = quotients(lanes, numerators, sums << (16 - length), np.concatenate([[0], rng.integers(0, 3, 5)]))
    assert (got == expected).all()


@pytest.mark.parametrize("after", [1, 6, 16])
def test_start_in_the_middle_begins_anew(after):
    dut = SquareRoot(RecurrenceSpec(lanes=1))

    async def testbench(ctx):
        for radicand in (123456789, 2**32 - 1):
            ctx.set(dut.start, 1)
            ctx.set(dut.radicand, [radicand])
            await ctx.tick()
            assert not ctx.get(dut.done)
            ctx.set(dut.start, 0)
            for _ in range(after - 1):
                await ctx.tick()
                assert not ctx.get(dut.done)
        for _ in range(dut.spec.cycles - after):
            assert not ctx.get(dut.done)
            await ctx.tick()
        assert ctx.get(dut.done)
        assert ctx.get(dut.root[0]) == 65535

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def test_lanes_are_checked():
    with pytest.raises(ValueError, match="lanes must be 1 to 64, not 0"):
        RecurrenceSpec(lanes=0)
