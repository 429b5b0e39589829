"""Sequencer: fetch, order and conditions of dispatch, states at the end of a run."""

from dataclasses import replace

import numpy as np
import pytest

from rtl_templates.array_spec import EncoderSpec
from rtl_templates.program_format import Descriptor, Opcode, Unit
from rtl_templates.register_map import Status
from rtl_templates.sequencer import Sequencer
from tests.rtl_templates.accelerator_reference import small_spec
from tests.rtl_templates.stream_bench import always, pattern, send, simulate

SPECS = {bus_bits: small_spec(bus_bits=bus_bits, lanes=16, units=8, watchdog_bits=6,
                              activation_words=200000)
         for bus_bits in (32, 128, 512)}
END = Descriptor(opcode=Opcode.END)


class Bench:
    """Starts a program and feeds it; records dispatches as (cycle, index, what)."""

    def __init__(self, spec, descriptors, share=1.0):
        self.spec, self.dut = spec, Sequencer(spec)
        self.descriptors = descriptors
        self.share = share
        self.dispatches, self.fetched = [], None
        self.dispatching = None
        self.cycle = 0

    async def feed(self, ctx):
        raw = b"".join(descriptor.pack() for descriptor in self.descriptors)
        size = self.spec.bus_bits // 8
        raw += bytes(-len(raw) % size)
        beats = [int.from_bytes(raw[i:i + size], "little") for i in range(0, len(raw), size)]
        while not ctx.get(self.dut.launch):
            await ctx.tick()
        assert ctx.get(self.dut.program_beats) == len(beats)
        await ctx.tick()
        offer = always if self.share == 1 else pattern(np.random.default_rng(1), self.share)
        ctx.set(self.dut.progress, 1)
        await send(ctx, self.dut.program, beats, offer)
        ctx.set(self.dut.progress, 0)
        self.fetched = self.cycle

    async def begin(self, ctx, **registers):
        for name in ("load_idle", "array_idle", "store_idle", "sequences"):
            ctx.set(getattr(self.dut, name), 1)
        ctx.set(self.dut.quiet, 7)
        ctx.set(self.dut.matmul.ready, 1)
        ctx.set(self.dut.input_pointer, 0x1_FFFF_F000)
        ctx.set(self.dut.output_pointer, 0x2_0000_2000)
        ctx.set(self.dut.program_length, len(self.descriptors))
        for name, value in registers.items():
            ctx.set(getattr(self.dut, name), value)
        for _ in range(2):  # as long as the bus takes from a register to the start
            await ctx.tick()
        ctx.set(self.dut.start, 1)
        await ctx.tick()
        ctx.set(self.dut.start, 0)

    async def step(self, ctx):
        dut = self.dut
        _, _, go, index, load, store, matmul, transfer, command = await ctx.tick().sample(
            dut.dispatched, dut.index, dut.load, dut.store, dut.matmul.valid, dut.transfer,
            dut.matmul.payload)
        assert load + store + matmul <= (self.dispatching is not None)
        if self.dispatching is not None:
            what = "load" if load else "store" if store else "matmul" if matmul else "end"
            self.dispatches.append((*self.dispatching, what, command if matmul else transfer))
        self.dispatching = (self.cycle, index) if go else None
        self.cycle += 1

    async def run(self, ctx, limit=400):
        """Until done; returns the status."""
        while not ctx.get(self.dut.done):
            await self.step(ctx)
            assert self.cycle < limit, "no end"
        await self.step(ctx)
        assert ctx.get(self.dut.clear)
        return ctx.get(self.dut.status)


@pytest.mark.parametrize("bus_bits", SPECS)
@pytest.mark.parametrize("share", [1, 0.4])
def test_dispatches_in_order(bus_bits, share):
    """Operands of every descriptor; one in DISPATCH_INTERVAL cycles, the first FETCH_TO_DISPATCH after."""
    spec = SPECS[bus_bits]
    descriptors = [
        Descriptor(opcode=Opcode.LOAD, length=9, destination=5, offset=0x3000),
        Descriptor(opcode=Opcode.MATMUL, groups=3, tiles=4, source=7, destination=11, source_stride=300,
                   destination_stride=65535),
        Descriptor(opcode=Opcode.STORE, length=199994, source=6, offset=0xFFFF_FFFF_0000), END]
    bench = Bench(spec, descriptors, share)
    status = []

    async def testbench(ctx):
        await bench.begin(ctx)
        status.append(await bench.run(ctx))

    simulate(bench.dut, testbench, background=[bench.feed])
    assert status == [Status.OK]
    cycles, indices, kinds, operands = zip(*bench.dispatches, strict=True)
    dut = bench.dut
    assert indices == (0, 1, 2, 3)
    assert kinds == ("load", "matmul", "store", "end")
    if share == 1:
        first = bench.fetched + dut.FETCH_TO_DISPATCH
        assert cycles == tuple(first + i * dut.DISPATCH_INTERVAL for i in range(4))
    load, matmul, store, _ = operands
    assert (load.address, load.length, load.destination) == (0x2_0000_2000, 9, 5)
    assert load.beats == 9 * spec.beats_per_word
    assert {name: matmul[name] for name in ("groups", "tiles", "source", "destination", "source_stride",
                                            "destination_stride")} == {
        "groups": 3, "tiles": 4, "source": 7, "destination": 11, "source_stride": 300,
        "destination_stride": 65535}
    assert (store.address, store.length, store.source) == (0x2_0000_2000 + 0xFFFF_FFFF_0000, 199994, 6)
    assert store.beats == 199994 * spec.beats_per_word


@pytest.mark.parametrize("last", Unit)
@pytest.mark.parametrize("wait", [0, 2, 5, 7])
@pytest.mark.parametrize("opcode", [Opcode.LOAD, Opcode.MATMUL, Opcode.STORE, Opcode.END])
def test_waits(opcode, wait, last):
    """A descriptor waits for its mask and for what it always needs, and for nothing else.

    The units become idle one after the other, those that are not needed first, ``last`` after the rest.
    """
    needs = {Opcode.LOAD: Unit.LOAD | Unit.STORE, Opcode.STORE: Unit.LOAD | Unit.STORE,
             Opcode.MATMUL: Unit(0), Opcode.END: Unit.LOAD | Unit.ARRAY | Unit.STORE}[opcode] | Unit(wait)
    descriptor = Descriptor(opcode=opcode, wait=Unit(wait), length=1, groups=1, tiles=1)
    bench = Bench(SPECS[128], [descriptor, END])
    lines = {Unit.LOAD: "load_idle", Unit.ARRAY: "array_idle", Unit.STORE: "store_idle"}

    async def testbench(ctx):
        await bench.begin(ctx)
        for line in lines.values():
            ctx.set(getattr(bench.dut, line), 0)
        idle = Unit(0)
        for unit in (None, *sorted(lines, key=lambda unit: (unit in needs, unit is last))):
            if unit is not None:
                idle |= unit
                ctx.set(getattr(bench.dut, lines[unit]), 1)
            for _ in range(20):
                await bench.step(ctx)
            assert bool(bench.dispatches) == (needs & ~idle == 0), f"idle: {idle}"

    simulate(bench.dut, testbench, background=[bench.feed])


@pytest.mark.parametrize("unit", list(Unit)[3:])
def test_waits_for_the_units_of_encoders(unit):
    """While this unit works nothing is dispatched; the others do not matter."""
    spec = replace(SPECS[128], encoder=EncoderSpec(side_words=64, columns=4, key_columns=4, tokens=16))
    bench = Bench(spec, [Descriptor(opcode=Opcode.MATMUL, wait=unit, length=1, groups=1, tiles=1), END])
    line = unit >> 3

    async def testbench(ctx):
        await bench.begin(ctx)
        ctx.set(bench.dut.units_idle, 0b1111 & ~line)
        for _ in range(30):
            await bench.step(ctx)
        assert not bench.dispatches
        ctx.set(bench.dut.units_idle, line)
        for _ in range(3):
            await bench.step(ctx)
        assert [what for _, _, what, _ in bench.dispatches] == ["matmul"]

    simulate(bench.dut, testbench, background=[bench.feed])


def test_matmul_waits_until_it_is_accepted():
    bench = Bench(SPECS[128], [Descriptor(opcode=Opcode.MATMUL, groups=1, tiles=1), END])

    async def testbench(ctx):
        await bench.begin(ctx)
        ctx.set(bench.dut.matmul.ready, 0)
        for _ in range(30):
            await bench.step(ctx)
        assert not bench.dispatches
        ctx.set(bench.dut.matmul.ready, 1)
        assert await bench.run(ctx) == Status.OK

    simulate(bench.dut, testbench, background=[bench.feed])


@pytest.mark.parametrize(("line", "code"), [
    ("stream_error", Status.BAD_TILE), ("stream_error", Status.BAD_LOCAL),
    ("read_error", Status.INPUT_READ_ERROR), ("weight_error", Status.WEIGHT_READ_ERROR),
    ("write_error", Status.OUTPUT_WRITE_ERROR)])
@pytest.mark.parametrize("when", [4, 12, 30])
def test_errors_end_the_run(line, code, when):
    """In fetch, in dispatch and in a wait: abort until the masters are quiet, then done and clear."""
    bench = Bench(SPECS[128], [Descriptor(opcode=Opcode.LOAD, length=1),
                               Descriptor(opcode=Opcode.LOAD, length=1), END])

    async def testbench(ctx):
        await bench.begin(ctx)
        ctx.set(bench.dut.load_idle, 0)
        for _ in range(when):
            await bench.step(ctx)
        expected = Status.PROGRAM_READ_ERROR if line == "read_error" and when == 4 else code
        ctx.set(bench.dut.quiet, 0)
        ctx.set(getattr(bench.dut, line), code if line == "stream_error" else 1)
        await bench.step(ctx)
        ctx.set(getattr(bench.dut, line), 0)
        for _ in range(2):
            await bench.step(ctx)
        for _ in range(20):
            assert ctx.get(bench.dut.abort)
            assert not ctx.get(bench.dut.done)
            await bench.step(ctx)
        ctx.set(bench.dut.quiet, 7)
        assert await bench.run(ctx) == expected
        await bench.step(ctx)
        assert not ctx.get(bench.dut.running)

    simulate(bench.dut, testbench, background=[bench.feed])


def test_watchdog():
    """2**watchdog_bits cycles without progress; any progress begins the count anew."""
    bench = Bench(SPECS[128], [Descriptor(opcode=Opcode.LOAD, length=1), END])
    limit = 1 << SPECS[128].watchdog_bits

    async def testbench(ctx):
        await bench.begin(ctx)
        ctx.set(bench.dut.load_idle, 0)
        for _ in range(5):
            ctx.set(bench.dut.progress, 1)
            await bench.step(ctx)
            ctx.set(bench.dut.progress, 0)
            for _ in range(limit - 3):
                await bench.step(ctx)
            assert ctx.get(bench.dut.status) == Status.RUNNING
        bench.cycle = 0
        assert await bench.run(ctx, limit=10) == Status.WATCHDOG

    simulate(bench.dut, testbench, background=[bench.feed])


@pytest.mark.parametrize(("quiet", "code"), [(6, Status.READ_TIMEOUT), (5, Status.WEIGHT_TIMEOUT),
                                             (3, Status.WRITE_TIMEOUT), (0, Status.READ_TIMEOUT)])
def test_a_bus_that_does_not_settle(quiet, code):
    """done comes nevertheless; a start is answered at once, and taken for good when the bus is quiet."""
    bench = Bench(SPECS[128], [END])

    async def testbench(ctx):
        dut = bench.dut
        await bench.begin(ctx)
        ctx.set(dut.quiet, quiet)
        while not ctx.get(dut.done):
            await bench.step(ctx)
        assert 1 << SPECS[128].watchdog_bits < bench.cycle < 2 << SPECS[128].watchdog_bits
        for _ in range(3):
            await bench.step(ctx)
            assert ctx.get(dut.status) == code
            assert ctx.get(dut.abort)
            assert not ctx.get(dut.clear)
            assert not ctx.get(dut.running)
            ctx.set(dut.start, 1)
            await ctx.delay(1e-9)
            assert ctx.get(dut.taken)
            assert ctx.get(dut.done)
            await bench.step(ctx)
            ctx.set(dut.start, 0)
            await ctx.delay(1e-9)
            assert not ctx.get(dut.done)
        ctx.set(dut.quiet, 7)
        await bench.step(ctx)
        await bench.step(ctx)
        assert ctx.get(dut.clear)
        for _ in range(2):
            await bench.step(ctx)
        ctx.set(dut.start, 1)
        await ctx.delay(1e-9)
        assert ctx.get(dut.taken)
        await bench.step(ctx)
        assert ctx.get(dut.launch)

    simulate(bench.dut, testbench, background=[bench.feed])


@pytest.mark.parametrize(("register", "value", "code"), [
    ("program_length", 0, Status.BAD_PROGRAM), ("program_length", 17, Status.BAD_PROGRAM),
    ("sequences", 0, Status.BAD_SEQUENCES), ("misaligned", 1, Status.BAD_POINTER)])
def test_registers_with_which_no_run_begins(register, value, code):
    """Nothing is read: no launch."""
    bench = Bench(SPECS[128], [END])

    async def testbench(ctx):
        await bench.begin(ctx, **{register: value})
        while not ctx.get(bench.dut.done):
            assert not ctx.get(bench.dut.launch)
            await bench.step(ctx)
            assert bench.cycle < 10
        assert ctx.get(bench.dut.status) == code

    simulate(bench.dut, testbench)


def test_weights_left_at_the_end():
    bench = Bench(SPECS[128], [END])

    async def testbench(ctx):
        await bench.begin(ctx)
        ctx.set(bench.dut.weights_left, 1)
        assert await bench.run(ctx) == Status.WEIGHTS_LEFT

    simulate(bench.dut, testbench, background=[bench.feed])


def test_start_is_taken_once_and_only_when_idle():
    bench = Bench(SPECS[128], [END])

    async def testbench(ctx):
        dut = bench.dut
        await bench.begin(ctx)
        ctx.set(dut.start, 1)
        while not ctx.get(dut.done):
            assert not ctx.get(dut.taken)
            await bench.step(ctx)
        cycles = 0
        while not ctx.get(dut.taken):
            await bench.step(ctx)
            cycles += 1
        assert cycles == 3  # done, clear, settle: the core is out of reset again
        await bench.step(ctx)
        assert ctx.get(dut.launch)

    simulate(bench.dut, testbench, background=[bench.feed])
