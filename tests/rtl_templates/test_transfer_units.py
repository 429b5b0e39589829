"""Load and store units: words in order, fixed timing even when results take the port of the buffer."""

import numpy as np
import pytest

from rtl_templates.load_unit import LoadUnit, word_interval
from rtl_templates.store_unit import StoreUnit
from tests.rtl_templates.accelerator_reference import small_spec
from tests.rtl_templates.stream_bench import pattern, receive, send, simulate

SIZES = [{}, {"bus_bits": 32}, {"lanes": 6}]


def ids(sizes):
    return "-".join(f"{name}{value}" for name, value in sizes.items()) or "word per beat"


def result_slots(phase):
    """Results take the port in every fourth cycle."""
    return lambda cycle: cycle % 4 == phase


@pytest.mark.parametrize("sizes", SIZES, ids=ids)
@pytest.mark.parametrize("phase", [None, 0, 1, 2, 3, "random"])
def test_load(sizes, phase):
    rng = np.random.default_rng(1)
    spec = small_spec(**sizes)
    dut = LoadUnit(spec)
    parts, length = spec.beats_per_word, 20
    beats = [int.from_bytes(rng.bytes(spec.bus_bits // 8), "little") for _ in range(length * parts)]
    taken, written, idle = [], [], []

    async def feed(ctx):
        ctx.set(dut.destination, 9)
        ctx.set(dut.length, length)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        if phase == "random":
            await send(ctx, dut.beats, beats, pattern(np.random.default_rng(2), 0.5))
        else:
            await send(ctx, dut.beats, beats)

    async def port(ctx):
        for cycle in range(400):
            busy = phase not in (None, "random") and result_slots(phase)(cycle)
            ctx.set(dut.words.ready, not busy)
            _, _, valid, word, offered, accepted, working = await ctx.tick().sample(
                dut.words.valid, dut.words.payload, dut.beats.valid, dut.beats.ready, dut.busy)
            if valid and not busy:
                written.append((word.address, word.word))
            if offered and accepted:
                taken.append(cycle)
            if taken and not working and not idle:
                idle.append(cycle)

    simulate(dut, port, background=[feed])
    words = [sum(beats[i * parts + part] << part * spec.bus_bits for part in range(parts))
             for i in range(length)]
    assert written == [(9 + i, word) for i, word in enumerate(words)]
    assert idle == [taken[-1] + dut.LAST_BEAT_TO_IDLE]
    if phase != "random":
        assert taken[-1] - taken[0] == (length - 1) * word_interval(spec) + parts - 1


@pytest.mark.parametrize("sizes", SIZES, ids=ids)
@pytest.mark.parametrize("phase", [None, 0, 1, 2, 3, "random"])
def test_store(sizes, phase):
    rng = np.random.default_rng(1)
    spec = small_spec(**sizes)
    dut = StoreUnit(spec)
    parts, length = spec.beats_per_word, 20
    words = [int.from_bytes(rng.bytes(spec.array.word_bits // 8), "little") for _ in range(40)]
    sent = []

    async def buffer(ctx):
        answers, cycle = {}, 0
        while True:
            busy = phase not in (None, "random") and result_slots(phase)(cycle)
            ctx.set(dut.addresses.ready, not busy)
            ctx.set(dut.words.valid, cycle in answers)
            ctx.set(dut.words.payload, answers.pop(cycle, 0))
            _, _, asked, address = await ctx.tick().sample(dut.addresses.valid, dut.addresses.payload)
            if asked and not busy:
                answers[cycle + 3] = words[address]
            cycle += 1

    async def testbench(ctx):
        ctx.set(dut.source, 7)
        ctx.set(dut.length, length)
        ctx.set(dut.start, 1)

        async def release():
            await ctx.tick()
            ctx.set(dut.start, 0)

        ctx.set(dut.beats.ready, 1)
        await release()
        accept = pattern(np.random.default_rng(2), 0.5) if phase == "random" else lambda: True
        sent.extend(await receive(ctx, dut.beats, length * parts, accept))
        for _ in range(6):
            await ctx.tick()
            assert not ctx.get(dut.beats.valid)

    simulate(dut, testbench, background=[buffer])
    mask = (1 << spec.bus_bits) - 1
    assert [beat for _, beat in sent] == [words[7 + i] >> part * spec.bus_bits & mask
                                          for i in range(length) for part in range(parts)]
    if phase != "random":
        interval = word_interval(spec)
        assert [cycle + 1 for cycle, _ in sent] == [dut.LATENCY + i * interval + part
                                                    for i in range(length) for part in range(parts)]


@pytest.mark.parametrize("sizes", SIZES, ids=ids)
def test_an_aborted_store_changes_no_beat_that_may_be_on_the_bus(sizes):
    """A writer that is aborted offers what is shown, valid or not, until it is taken."""
    spec = small_spec(**sizes)
    dut = StoreUnit(spec)

    async def testbench(ctx):
        ctx.set(dut.length, 20)
        ctx.set(dut.addresses.ready, 1)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.abort, 1)
        shown = ctx.get(dut.beats.payload)
        for word in range(1, 2 * dut.LATENCY):
            ctx.set(dut.words.valid, word <= 4)
            ctx.set(dut.words.payload, (1 << spec.array.word_bits) - word)
            await ctx.tick()
            assert ctx.get(dut.beats.payload) == shown
            assert not ctx.get(dut.beats.valid)
        ctx.set(dut.abort, 0)
        await ctx.tick().repeat(2)
        assert ctx.get(dut.beats.valid), "words had come, so that there was something to hold back"

    simulate(dut, testbench)
