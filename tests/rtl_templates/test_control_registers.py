"""Control registers: access policy of every register, interrupt, counters, profile, pool."""

import itertools

import numpy as np
import pytest

from rtl_templates.array_spec import EncoderSpec, PoolStorage
from rtl_templates.control_registers import COUNTERS, ControlRegisters
from rtl_templates.register_map import (
    IDENTITY,
    LENGTHS,
    LENGTHS_BASE,
    MAP_VERSION,
    POOL_BASE,
    PROFILE_BASE,
    REGISTERS,
    address_of,
)
from tests.rtl_templates.accelerator_reference import small_spec
from tests.rtl_templates.axi_memory import lite_read, lite_write
from tests.rtl_templates.stream_bench import simulate

SPEC = small_spec(configuration=0x12345678)
MASKS = {"interrupt_global": 1, "interrupt_enable": 3}


async def pulse(ctx, signal):
    ctx.set(signal, 1)
    await ctx.tick()
    ctx.set(signal, 0)


def test_access_policy():
    """Every register from reset, after a write of ones, after a write of two bytes; nothing else changes."""
    dut = ControlRegisters(SPEC)
    fixed = {"control": 4, "sequences": 1, "id": IDENTITY, "version": MAP_VERSION,
             "configuration": 0x12345678}

    async def everything(ctx):
        return {register.name: await lite_read(ctx, dut, register.address) for register in REGISTERS}

    async def testbench(ctx):
        initial = {register.name: fixed.get(register.name, 0) for register in REGISTERS}
        assert await everything(ctx) == initial
        for register in REGISTERS:
            if register.access == "special":
                continue
            mask = MASKS.get(register.name, 0xFFFFFFFF) if register.access == "rw" else 0
            await lite_write(ctx, dut, register.address, 0xFFFFFFFF)
            assert await everything(ctx) == initial | {register.name: mask or initial[register.name]}
            await lite_write(ctx, dut, register.address, 0x12345678, strobe=0b0101)
            if mask == 0xFFFFFFFF:
                assert await lite_read(ctx, dut, register.address) == 0xFF34FF78
            await lite_write(ctx, dut, register.address, initial[register.name])
        for address in (0x18, 0x44, 0x84 + 0x100, 0xFFC):
            await lite_write(ctx, dut, address, 0xFFFFFFFF)
            assert await lite_read(ctx, dut, address) == 0
        assert await everything(ctx) == initial

    simulate(dut, testbench)


def test_channels_in_any_order():
    dut = ControlRegisters(SPEC)

    async def testbench(ctx):
        for value, (data, address, response) in enumerate(itertools.product((0, 1, 3), repeat=3), 1):
            await lite_write(ctx, dut, address_of("program_length"), value, data_delay=data,
                             address_delay=address, b_delay=response)
            assert await lite_read(ctx, dut, address_of("program_length"), r_delay=response) == value

    simulate(dut, testbench)


def test_pointers():
    dut = ControlRegisters(SPEC)

    async def testbench(ctx):
        for number, name in enumerate(("program", "weights", "input", "output"), 1):
            await lite_write(ctx, dut, address_of(f"{name}_low"), number << 12)
            await lite_write(ctx, dut, address_of(f"{name}_high"), number)
            assert ctx.get(getattr(dut, name)) == number << 32 | number << 12

    simulate(dut, testbench)


def test_start_and_done():
    """start stays until taken; done and ready are cleared by reading, idle follows running."""
    dut = ControlRegisters(SPEC)

    async def testbench(ctx):
        await lite_write(ctx, dut, 0, 1)
        assert ctx.get(dut.start)
        assert await lite_read(ctx, dut, 0) == 0b0101
        ctx.set(dut.taken, 1)
        await ctx.tick()
        ctx.set(dut.taken, 0)
        ctx.set(dut.running, 1)
        assert not ctx.get(dut.start)
        assert await lite_read(ctx, dut, 0) == 0
        await pulse(ctx, dut.done)
        ctx.set(dut.running, 0)
        assert await lite_read(ctx, dut, 0xC0) > 0
        assert await lite_read(ctx, dut, 0) == 0b1110
        assert await lite_read(ctx, dut, 0) == 0b0100

    simulate(dut, testbench)


@pytest.mark.parametrize(("enable", "global_enable"), list(itertools.product(range(4), range(2))))
def test_interrupt(enable, global_enable):
    dut = ControlRegisters(SPEC)

    async def testbench(ctx):
        await lite_write(ctx, dut, address_of("interrupt_global"), global_enable)
        await lite_write(ctx, dut, address_of("interrupt_enable"), enable)
        await pulse(ctx, dut.done)
        assert await lite_read(ctx, dut, address_of("interrupt_status")) == enable
        assert ctx.get(dut.interrupt) == bool(enable and global_enable)
        await lite_write(ctx, dut, address_of("interrupt_status"), enable)
        assert await lite_read(ctx, dut, address_of("interrupt_status")) == 0
        assert not ctx.get(dut.interrupt)

    simulate(dut, testbench)


def test_counters():
    """Events count while the run lasts; the next start clears them."""
    rng = np.random.default_rng(1)
    dut = ControlRegisters(SPEC)

    async def testbench(ctx):
        for _ in range(2):
            await pulse(ctx, dut.taken)
            expected = dict.fromkeys([*COUNTERS, "cycles", "saturations"], 0)
            for _ in range(60):
                ctx.set(dut.running, 1)
                for name in COUNTERS:
                    event = int(rng.integers(2))
                    expected[name] += event
                    ctx.set(getattr(dut, name), event)
                saturated = int(rng.integers(SPEC.array.lanes + 1))
                expected["saturations"] += saturated
                expected["cycles"] += 1
                ctx.set(dut.saturated, saturated)
                await ctx.tick()
            ctx.set(dut.running, 0)
            ctx.set(dut.saturated, 0)
            for name, value in expected.items():
                assert await lite_read(ctx, dut, address_of(name)) == value

    simulate(dut, testbench)


def test_profile_and_descriptor():
    dut = ControlRegisters(SPEC)
    times = [3, 4, 9, 30]

    async def testbench(ctx):
        await pulse(ctx, dut.taken)
        ctx.set(dut.running, 1)
        for cycle in range(40):
            ctx.set(dut.dispatched, cycle in times)
            ctx.set(dut.index, sum(time < cycle for time in times))
            await ctx.tick()
        ctx.set(dut.running, 0)
        assert [await lite_read(ctx, dut, PROFILE_BASE + 4 * i) for i in range(4)] == times
        assert await lite_read(ctx, dut, address_of("descriptor")) == 3

    simulate(dut, testbench)


def test_pool_window():
    spec = small_spec(storage=PoolStorage.RAM)
    dut = ControlRegisters(spec)
    written, expected = [], []
    assignment = spec.array.assignment

    async def testbench(ctx):
        for entry in range(assignment.entries):
            word, code = assignment.control_word(entry), spec.array.entry_code(entry)
            expected.append((code, word))
            await lite_write(ctx, dut, POOL_BASE + 8 * code, word)
            await lite_write(ctx, dut, POOL_BASE + 8 * code + 4, 0)
        await lite_write(ctx, dut, address_of("program_length"), 5)

    async def watch(ctx):
        while True:
            _, _, write, code, word = await ctx.tick().sample(dut.pool.write, dut.pool.code, dut.pool.word)
            if write:
                written.append((code, word))

    simulate(dut, testbench, background=[watch])
    assert written == expected


def test_window_of_valid_lengths():
    """A length beyond 16 bits must not turn into one that is valid."""
    dut = ControlRegisters(small_spec(encoder=EncoderSpec(side_words=64, columns=4, key_columns=2, tokens=8)))
    written = {0: 5, 1: 65536, 2: 7, 511: 1 << 31, LENGTHS - 1: 65535}

    async def testbench(ctx):
        for sequence, length in written.items():
            await lite_write(ctx, dut, LENGTHS_BASE + 4 * sequence, length)
        for sequence, length in written.items():
            ctx.set(dut.sequence, sequence)
            await ctx.tick().repeat(2)
            assert ctx.get(dut.valid_length) == min(length, 65535)

    simulate(dut, testbench)
