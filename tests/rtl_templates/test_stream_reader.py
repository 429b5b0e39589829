"""Stream reader and writer: order, credit, responses, abort."""

import numpy as np
import pytest

from rtl_templates.axi import OUTSTANDING_BEATS
from rtl_templates.stream_reader import StreamReader
from rtl_templates.stream_writer import StreamWriter
from tests.rtl_templates.stream_bench import always, pattern, receive, send, simulate
from tests.rtl_templates.test_burst_generator import bursts_of

BUS_BITS = 32


def begin(ctx, dut, address, beats):
    ctx.set(dut.address, address)
    ctx.set(dut.beats, beats)
    ctx.set(dut.start, 1)


class ReadBench:
    """A memory whose beats hold their own addresses; counts what is asked for and what has come."""

    def __init__(self, dut, share=1.0, error_at=None):
        self.dut, self.error_at = dut, error_at
        self.flip = always if share == 1 else pattern(np.random.default_rng(2), share)
        self.asked, self.sent, self.beats = 0, 0, []

    async def answer(self, ctx):
        dut, valid = self.dut, False
        while True:
            ar_ready = self.flip()
            ctx.set(dut.ar.ready, ar_ready)
            valid = bool(self.beats) and (valid or self.flip())
            ctx.set(dut.r.valid, valid)
            if valid:
                address, last = self.beats[0]
                ctx.set(dut.r.p.data, address & 0xFFFFFFFF)
                ctx.set(dut.r.p.last, last)
                ctx.set(dut.r.p.response, 2 if self.sent == self.error_at else 0)
            _, _, asked, burst, r_ready = await ctx.tick().sample(
                dut.ar.valid, dut.ar.payload.as_value(), dut.r.ready)
            if valid and r_ready:
                self.beats.pop(0)
                self.sent += 1
                valid = False
            if asked and ar_ready:
                count = (burst >> 64) + 1
                address = burst & (1 << 64) - 1
                self.asked += count
                self.beats += [(address + 4 * i, i == count - 1) for i in range(count)]


@pytest.mark.parametrize(("share", "first", "beats"), [(1.0, 0, 700), (0.5, 60, 200), (0.8, 63, 2)])
def test_reader_delivers_in_order(share, first, beats):
    dut = StreamReader(BUS_BITS)
    bench = ReadBench(dut, share)
    got = []

    async def testbench(ctx):
        begin(ctx, dut, 4 * first, beats)
        await ctx.tick()
        ctx.set(dut.start, 0)
        got.extend(await receive(ctx, dut.o, beats, pattern(np.random.default_rng(1), 0.7)))
        await ctx.tick()
        assert ctx.get(dut.quiet)

    async def give_back(ctx):
        while True:
            _, _, valid, ready = await ctx.tick().sample(dut.o.valid, dut.o.ready)
            ctx.set(dut.taken, valid & ready)

    simulate(dut, testbench, background=[bench.answer, give_back])
    assert [value for _, value in got] == [4 * (first + i) for i in range(beats)]


def test_reader_keeps_within_its_credit():
    """Without room given back, exactly OUTSTANDING_BEATS are asked for; then burst by burst."""
    dut = StreamReader(BUS_BITS)
    bench = ReadBench(dut)
    asked = []

    async def testbench(ctx):
        begin(ctx, dut, 0, 5000)
        ctx.set(dut.o.ready, 1)
        for cycle in range(1200):
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.taken, 600 <= cycle < 700)
            if cycle in (599, 1199):
                asked.append(bench.asked)
                assert not ctx.get(dut.quiet) or bench.sent == bench.asked

    simulate(dut, testbench, background=[bench.answer])
    assert asked == [OUTSTANDING_BEATS, OUTSTANDING_BEATS + 64]


def test_reader_reports_errors_and_settles_after_abort():
    dut = StreamReader(BUS_BITS)
    bench = ReadBench(dut, 0.5, error_at=9)
    errors = []

    async def testbench(ctx):
        begin(ctx, dut, 0, 1000)
        for cycle in range(2000):
            ctx.set(dut.o.ready, 1)
            ctx.set(dut.abort, bool(errors))
            _, _, error = await ctx.tick().sample(dut.error)
            ctx.set(dut.start, 0)
            if error:
                errors.append(cycle)
            if errors:
                assert not ctx.get(dut.o.valid) or not ctx.get(dut.abort)
                if ctx.get(dut.quiet):
                    break
        for _ in range(20):
            await ctx.tick()
            assert ctx.get(dut.quiet)

    simulate(dut, testbench, background=[bench.answer])
    assert len(errors) == 1
    assert bench.sent == bench.asked < 1000


class WriteBench:
    """A memory that records what is written; answers each burst after its last beat."""

    def __init__(self, dut, share=1.0, error_at=None):
        self.dut, self.error_at = dut, error_at
        self.flip = always if share == 1 else pattern(np.random.default_rng(4), share)
        self.bursts, self.words, self.answered = [], [], 0

    async def answer(self, ctx):
        dut, valid, place, done, finished = self.dut, False, 0, 0, 0
        while True:
            aw_ready, w_ready = self.flip(), self.flip()
            ctx.set(dut.aw.ready, aw_ready)
            ctx.set(dut.w.ready, w_ready)
            valid = self.answered < finished and (valid or self.flip())
            ctx.set(dut.b.valid, valid)
            ctx.set(dut.b.payload, 2 if self.answered == self.error_at else 0)
            _, _, asked, burst, offered, data, last, b_ready = await ctx.tick().sample(
                dut.aw.valid, dut.aw.payload.as_value(), dut.w.valid, dut.w.p.data, dut.w.p.last, dut.b.ready)
            if valid and b_ready:
                self.answered += 1
                valid = False
            if offered and w_ready:
                address, count = self.bursts[done]  # fails if a beat comes before its address
                assert last == (place == count - 1), "WLAST is wrong"
                self.words.append((address + 4 * place, data))
                place = 0 if last else place + 1
                done += last
                finished += last
            if asked and aw_ready:
                self.bursts.append((burst & (1 << 64) - 1, (burst >> 64) + 1))


@pytest.mark.parametrize(("share", "first", "beats"),
                         [(1.0, 0, 700), (0.5, 60, 200), (0.8, 63, 2), (1.0, 5, 1)])
def test_writer_delivers_in_order(share, first, beats):
    dut = StreamWriter(BUS_BITS)
    bench = WriteBench(dut, share)

    async def testbench(ctx):
        begin(ctx, dut, 4 * first, beats)
        await ctx.tick()
        ctx.set(dut.start, 0)
        assert ctx.get(dut.busy)
        await send(ctx, dut.i, range(beats), always if share == 1 else pattern(np.random.default_rng(5), 0.7))
        while ctx.get(dut.busy):
            await ctx.tick()
        assert bench.answered == len(bench.bursts)
        assert ctx.get(dut.quiet)

    simulate(dut, testbench, background=[bench.answer])
    assert bench.words == [(4 * (first + i), i) for i in range(beats)]
    assert bench.bursts == bursts_of(BUS_BITS, 4 * first, beats)


def test_writer_completes_promised_bursts_after_abort():
    dut = StreamWriter(BUS_BITS)
    bench = WriteBench(dut, 0.6, error_at=1)
    errors = []

    async def testbench(ctx):
        begin(ctx, dut, 0, 5000)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.i.valid, 1)
        for _ in range(3000):
            _, _, error = await ctx.tick().sample(dut.error)
            if error:
                errors.append(1)
                ctx.set(dut.abort, 1)
                ctx.set(dut.i.valid, 0)
            if errors and ctx.get(dut.quiet):
                break
        assert ctx.get(dut.quiet)

    simulate(dut, testbench, background=[bench.answer])
    assert len(errors) == 1
    assert len(bench.words) == sum(count for _, count in bench.bursts) < 5000
    assert bench.answered == len(bench.bursts)
