"""FIFO: order, latency, throughput, depth."""

import gc

import numpy as np
import pytest

from rtl_templates.beat_fifo import BeatFifo
from tests.rtl_templates.stream_bench import always, pattern, receive, send, simulate


@pytest.mark.parametrize(("offered", "accepted"), [(1, 1), (0.3, 1), (1, 0.3), (0.6, 0.6)])
@pytest.mark.parametrize("depth", [2, 8])
def test_order(depth, offered, accepted):
    rng = np.random.default_rng(depth)
    values = rng.integers(0, 256, 100).tolist()
    dut, received = BeatFifo(8, depth), []

    async def producer(ctx):
        await send(ctx, dut.i, values, always if offered == 1 else pattern(rng, offered))

    async def consumer(ctx):
        accept = always if accepted == 1 else pattern(np.random.default_rng(3), accepted)
        received.extend(await receive(ctx, dut.o, len(values), accept))

    simulate(dut, producer, consumer)
    assert [value for _, value in received] == values
    if offered == accepted == 1 and depth == 8:
        assert [cycle for cycle, _ in received] == list(range(dut.LATENCY, dut.LATENCY + 100))


def test_holds_its_depth():
    dut, taken = BeatFifo(8, 4), []

    async def producer(ctx):
        ctx.set(dut.i.valid, 1)
        for _ in range(20):
            _, _, ready = await ctx.tick().sample(dut.i.ready)
            taken.append(ready)

    simulate(dut, producer)
    assert 4 <= sum(taken) <= 4 + 3  # three more are on their way out


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_depth_must_be_a_power_of_two():
    with pytest.raises(ValueError, match="power of two"):
        BeatFifo(8, 6)
    gc.collect()  # of the half-made component, here, where the warning about it is expected
