"""Bursts: cover the range, in order, never cross a page, at the promised rate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl_templates.axi import PAGE_BYTES, burst_beats
from rtl_templates.burst_generator import BurstGenerator
from tests.rtl_templates.stream_bench import pattern, receive, simulate


def bursts_of(bus_bits, address, beats):
    """(address, beats) of the bursts of a range."""
    size, full = bus_bits // 8, burst_beats(bus_bits)
    result = []
    while beats:
        count = min(beats, full - address // size % full)
        result.append((address, count))
        address += count * size
        beats -= count
    return result


def start(ctx, dut, address, beats):
    ctx.set(dut.address, address)
    ctx.set(dut.beats, beats)
    ctx.set(dut.start, 1)


@settings(max_examples=12, deadline=None)
@given(bus_bits=st.sampled_from([32, 128, 1024]), first=st.integers(0, 200), beats=st.integers(1, 300),
       high=st.integers(0, 3), seed=st.integers(0, 9))
def test_covers_the_range(bus_bits, first, beats, high, seed):
    size = bus_bits // 8
    address = (high << 62) + (high << 32) - (high > 0) * PAGE_BYTES + first * size
    expected = bursts_of(bus_bits, address, beats)
    dut, received = BurstGenerator(bus_bits), []

    async def testbench(ctx):
        ctx.set(dut.enable, 1)
        start(ctx, dut, address, beats)
        await ctx.tick()
        ctx.set(dut.start, 0)
        accept = pattern(np.random.default_rng(seed), 0.5)
        for _, value in await receive(ctx, dut.o, len(expected), accept):
            received.append((value & (1 << 64) - 1, (value >> 64) + 1))
        for _ in range(6):
            await ctx.tick()
            assert not ctx.get(dut.o.valid), "a burst too many"

    simulate(dut, testbench)
    assert received == expected
    for begin, count in received:
        assert begin // PAGE_BYTES == (begin + count * size - 1) // PAGE_BYTES


def test_rate_enable_and_abort():
    dut = BurstGenerator(64)
    seen = []

    async def testbench(ctx):
        ctx.set(dut.enable, 1)
        ctx.set(dut.o.ready, 1)
        start(ctx, dut, 0, 64 * 20)
        for cycle in range(40):
            ctx.set(dut.enable, not 10 <= cycle < 20)
            ctx.set(dut.abort, cycle == 30)
            if ctx.get(dut.o.valid):
                seen.append(cycle)
            await ctx.tick()
            ctx.set(dut.start, 0)

    simulate(dut, testbench)
    assert seen == [2, 4, 6, 8, 10, 21, 23, 25, 27, 29]
    assert (dut.LATENCY, dut.INTERVAL) == (2, 2)


def test_an_offered_burst_survives_abort():
    dut = BurstGenerator(64)

    async def testbench(ctx):
        ctx.set(dut.enable, 1)
        start(ctx, dut, 0, 640)
        for _ in range(3):
            await ctx.tick()
            ctx.set(dut.start, 0)
        ctx.set(dut.abort, 1)
        for _ in range(3):
            await ctx.tick()
            assert ctx.get(dut.o.valid)
        ctx.set(dut.o.ready, 1)
        await ctx.tick()
        for _ in range(4):
            assert not ctx.get(dut.o.valid)
            await ctx.tick()

    simulate(dut, testbench)


def test_no_beats_no_burst():
    dut = BurstGenerator(64)

    async def testbench(ctx):
        ctx.set(dut.enable, 1)
        start(ctx, dut, 4096, 0)
        for _ in range(6):
            await ctx.tick()
            assert not ctx.get(dut.o.valid)

    simulate(dut, testbench)


@pytest.mark.parametrize(("bus_bits", "beats"), [(32, 64), (512, 64), (1024, 32)])
def test_full_burst_fits_a_page(bus_bits, beats):
    assert burst_beats(bus_bits) == beats
