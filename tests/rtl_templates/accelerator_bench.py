"""Runs programs on the whole accelerator in Amaranth's simulator."""

from dataclasses import dataclass

import numpy as np
from amaranth.sim import Simulator

from rtl_templates.accelerator import Accelerator
from rtl_templates.array_spec import PoolStorage
from rtl_templates.register_map import POOL_BASE, PROFILE_BASE, REGISTERS, Status, address_of
from tests.rtl_templates.accelerator_reference import execute
from tests.rtl_templates.axi_memory import AxiMemory, lite_read, lite_write

PROGRAM, WEIGHTS, INPUTS, OUTPUTS = 0x1000, 0x10000, 0x30000, 0x40000
OUTPUT_BYTES = 0x8000
MEMORY_BYTES = 0x50000
BASE = 0x7_0000_0000
"""Address of the memory, beyond 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Registers after a run, dispatch time of each descriptor, output memory as it is and should be."""

    registers: dict
    dispatched: list
    output: bytes
    expected: bytes

    @property
    def status(self):
        return self.registers["status"]


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
    pointers = {"program": PROGRAM, "weights": WEIGHTS, "input": INPUTS, "output": OUTPUTS}
    values = {f"{name}_low": BASE + offset & 0xFFFFFFFF for name, offset in pointers.items()}
    values |= {f"{name}_high": BASE + offset >> 32 for name, offset in pointers.items()}
    for name, value in {**values, "program_length": program_length, "weights_beats": weights_beats,
                        "interrupt_global": 1, "interrupt_enable": 1}.items():
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


def run_program(spec, descriptors, tiles, inputs, **options):
    """One run from reset: :class:`Run`."""
    (run,) = run_programs(spec, [(descriptors, tiles, inputs)], **options)
    return run


def run_programs(spec, programs, *, weights_beats=None, disturb=None, **memory_options):
    """Runs without a reset in between, each from memory of its own: list of :class:`Run`.

    ``programs`` are (descriptors, tiles, inputs); ``disturb(ctx, dut, memory)`` comes before the first run
    and is simulated from reset to reset.
    """
    memory = AxiMemory(MEMORY_BYTES, BASE, **memory_options)
    dut = Accelerator(spec)
    runs = []

    async def testbench(ctx):
        await out_of_reset(ctx, dut)
        if disturb is not None:
            await disturb(ctx, dut, memory)
            memory.reset()
            await out_of_reset(ctx, dut)
        for descriptors, tiles, inputs in programs:
            memory.data[:] = bytes(MEMORY_BYTES)
            beats = fill(memory, spec, descriptors, tiles, inputs)
            await configure(ctx, dut, program_length=len(descriptors),
                            weights_beats=beats if weights_beats is None else weights_beats)
            registers = await run_to_interrupt(ctx, dut)
            assert not ctx.get(dut.interrupt), "the interrupt stays after it was acknowledged"
            assert registers["control"] & 4, "the accelerator is not idle after its interrupt"
            dispatched = [await lite_read(ctx, dut, PROFILE_BASE + 4 * i) for i in range(len(descriptors))]
            complete = registers["status"] == Status.OK
            runs.append(Run(
                registers=registers, dispatched=dispatched,
                output=bytes(memory.data[OUTPUTS:OUTPUTS + OUTPUT_BYTES]),
                expected=bytes(execute(spec, descriptors, tiles, inputs, OUTPUT_BYTES) if complete else b"")))

    simulate(dut, memory, testbench)
    return runs
