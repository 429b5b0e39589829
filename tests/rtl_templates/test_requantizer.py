"""RowRequantizer against the golden requantize, corners first."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.intops import requantize
from rtl_templates.array_spec import ArraySpec
from rtl_templates.requantizer import RowRequantizer
from rtl_templates.slot_assignment import SlotAssignment

ASSIGNMENT = SlotAssignment.balanced(np.ones((1, 16)), 4)


def check_rows(lanes, bits, sums, bias, multiplier, shift, idle):
    """Feed rows (``idle[i]`` idle cycles before row i) and compare values, clip counts and cycles."""
    dut = RowRequantizer(ArraySpec(units=1, lanes=lanes, assignment=ASSIGNMENT, accumulator_bits=bits))
    feed = []
    for row in range(len(sums)):
        feed += [None] * int(idle[row]) + [row]
    got, expected = [], []

    async def testbench(ctx):
        for cycle in range(len(feed) + dut.LATENCY + 1):
            row = feed[cycle] if cycle < len(feed) else None
            if row is None:
                ctx.set(dut.i.valid, 0)
            else:
                ctx.set(dut.i, {"valid": 1, "bias": int(bias[row]), "multiplier": int(multiplier[row]),
                                "shift": int(shift[row]), "sums": sums[row].tolist()})
            if ctx.get(dut.o.valid):
                got.append((cycle, [ctx.get(value) for value in dut.o.values], ctx.get(dut.o.saturated)))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    accumulators = sums + bias[:, None]
    values = requantize(accumulators.T, multiplier, shift).T
    wide = requantize(accumulators.T, multiplier, shift, limit=1 << 60).T
    for row in range(len(sums)):
        clips = int((np.abs(wide[row]) > 127).sum())
        expected.append((feed.index(row) + dut.LATENCY, values[row].tolist(), clips))
    assert got == expected


@pytest.mark.parametrize("bits", [16, 28, 32])
def test_corners(bits):
    """Extreme sums at every shift, ties of both signs, both edges of saturation."""
    top = 2**(bits - 1) - 1
    shift = np.repeat(np.arange(1, 48), 3)
    rows = len(shift)
    multiplier = np.tile([1, 32768, 65535], 47).astype(np.int64)
    rng = np.random.default_rng(bits)
    near = np.array([-128.5, -127.5, -127, -1.5, -0.5, 0.5, 1.5, 126.5, 127.5, 128.5])
    ties = np.floor(near[:, None] * 2.0**shift / multiplier)
    chosen = ties[rng.integers(len(near), size=(rows, 3)), np.arange(rows)[:, None]]
    chosen = np.clip(chosen + rng.integers(-1, 2, (rows, 3)), -top, top).astype(np.int64)
    sums = np.concatenate([np.tile([top, -top - 1], (rows, 1)), chosen], axis=1)
    check_rows(5, bits, sums, np.zeros(rows, np.int64), multiplier, shift, np.zeros(rows))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), lanes=st.integers(1, 4), bits=st.integers(16, 32))
def test_random_rows_with_idle_cycles(seed, lanes, bits):
    rng = np.random.default_rng(seed)
    rows = 40
    magnitude = 2**rng.integers(4, bits - 1, (rows, 1))
    sums = rng.integers(-magnitude // 2, magnitude // 2, (rows, lanes))
    bias = rng.integers(-(2**(bits - 2)) + 1, 2**(bits - 2), rows) >> rng.integers(0, bits - 2, rows)
    multiplier = rng.integers(0, 2**16, rows)
    # Around the shift that brings sums to 8 bits, so that most rows are neither 0 nor clipped.
    shift = np.clip(np.log2(magnitude[:, 0]).astype(int) + 16 - 9 + rng.integers(-2, 3, rows), 1, 47)
    check_rows(lanes, bits, sums, bias, multiplier, shift, rng.integers(0, 3, rows))
