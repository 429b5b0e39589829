"""Runs programs on the whole accelerator in Amaranth's simulator."""

from dataclasses import dataclass

import numpy as np
from accelerator_reference import execute
from amaranth.sim import Simulator
from axi_memory import AxiMemory, lite_read, lite_write

from rtl_templates.accelerator import Accelerator
from rtl_templates.array_spec import PoolStorage
from rtl_templates.register_map import POOL_BASE, PROFILE_BASE, REGISTERS, address_of

PROGRAM, WEIGHTS, INPUTS, OUTPUTS = 0x1000, 0x10000, 0x30000, 0x40000
OUTPUT_BYTES = 0x8000
MEMORY_BYTES = 0x50000


@dataclass(frozen=True, kw_only=True)
class Run:
    """Registers after a run, dispatch time of each descriptor, output memory."""

    registers: dict
    dispatched: list
    output: bytes
    expected: bytes
    interrupt: int


def fill(memory, spec, descriptors, tiles, inputs):
    """Put program, weight stream and inputs into memory; returns the beats of the weight stream."""
    program = b"".join(descriptor.pack() for descriptor in descriptors)
    stream = np.concatenate([tile.pack(spec) for tile in tiles]).tobytes() if tiles else b""
    for base, raw in ((PROGRAM, program), (WEIGHTS, stream), (INPUTS, bytes(inputs))):
        memory.data[base:base + len(raw)] = raw
    return len(stream) * 8 // spec.bus_bits


async def configure(ctx, dut, *, program_length, weights_beats):
    """Set pointers and lengths, enable the interrupt, load the pool if it is in RAM."""
    spec = dut.spec
    for name, value in {"program_low": PROGRAM, "weights_low": WEIGHTS, "input_low": INPUTS,
                        "output_low": OUTPUTS, "program_length": program_length,
                        "weights_beats": weights_beats, "interrupt_global": 1,
                        "interrupt_enable": 1}.items():
        await lite_write(ctx, dut, address_of(name), value)
    if spec.array.storage is PoolStorage.RAM:
        assignment = spec.array.assignment
        for entry in range(assignment.entries):
            address = POOL_BASE + 8 * spec.array.entry_code(entry)
            await lite_write(ctx, dut, address, assignment.control_word(entry) & 0xFFFFFFFF)
            await lite_write(ctx, dut, address + 4, assignment.control_word(entry) >> 32)


async def run_to_interrupt(ctx, dut, limit=20000):
    """Start, wait for the interrupt, acknowledge it; returns all registers."""
    await lite_write(ctx, dut, 0, 1)
    for _ in range(limit):
        if ctx.get(dut.interrupt):
            break
        await ctx.tick()
    else:
        raise AssertionError(f"no interrupt within {limit} cycles")
    await lite_write(ctx, dut, address_of("interrupt_status"), 1)
    return {register.name: await lite_read(ctx, dut, register.address) for register in REGISTERS}


async def out_of_reset(ctx, dut):
    """Four cycles of reset."""
    ctx.set(dut.ap_rst_n, 0)
    for _ in range(4):
        await ctx.tick()
    ctx.set(dut.ap_rst_n, 1)
    for _ in range(2):
        await ctx.tick()


def simulate(dut, memory, testbench):
    """Simulate the accelerator with a memory until ``testbench(ctx)`` returns."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(memory.reader(dut, "m_axi_gmem0"), background=True)
    simulator.add_testbench(memory.reader(dut, "m_axi_gmem1"), background=True)
    simulator.add_testbench(memory.writer(dut, "m_axi_gmem0"), background=True)
    simulator.add_testbench(testbench)
    simulator.run()


def run_program(spec, descriptors, tiles, inputs, *, weights_beats=None, **memory_options):
    """One run from reset: :class:`Run`."""
    memory = AxiMemory(MEMORY_BYTES, **memory_options)
    beats = fill(memory, spec, descriptors, tiles, inputs)
    dut = Accelerator(spec)
    results = {}

    async def testbench(ctx):
        await out_of_reset(ctx, dut)
        await configure(ctx, dut, program_length=len(descriptors),
                        weights_beats=beats if weights_beats is None else weights_beats)
        results["registers"] = await run_to_interrupt(ctx, dut)
        results["interrupt"] = ctx.get(dut.interrupt)
        results["dispatched"] = [await lite_read(ctx, dut, PROFILE_BASE + 4 * i)
                                 for i in range(len(descriptors))]

    simulate(dut, memory, testbench)
    return Run(output=bytes(memory.data[OUTPUTS:OUTPUTS + OUTPUT_BYTES]),
               expected=bytes(execute(spec, descriptors, tiles, inputs, OUTPUT_BYTES)), **results)
