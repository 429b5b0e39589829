"""cocotb side of the accelerator: AXI models around it, random stalls, registers by name, one run."""

import logging
import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer
from cocotbext.axi import (
    AddressSpace,
    AxiBus,
    AxiLiteBus,
    AxiLiteMaster,
    AxiReadBus,
    AxiSlave,
    AxiSlaveRead,
    MemoryRegion,
)

from rtl_templates.register_map import LENGTHS_BASE, POOL_BASE, PROFILE_BASE, address_of

CLOCK_NS = 10
BASES = {"program": 0x1_0000_0000, "weights": 0x2_0000_0000, "input": 0x3_0000_0000, "output": 0x4_0000_0000}
"""Where the bench puts the four memories: beyond 32 bits, so that the high halves of pointers matter."""

NEVER_WRITTEN = 0x80
"""What output memory starts with: -128, which no output ever is."""


def stall_pattern(seed):
    """Endless booleans, True to wait: phases of random length that flow, stop or stutter."""
    generator = random.Random(seed)
    while True:
        probability = generator.choice((0.0, 0.5, 0.875, 1.0))
        for _ in range(generator.randrange(1, 24 if probability == 1.0 else 96)):
            yield generator.random() < probability


class FaultyRegion(MemoryRegion):
    """Memory that answers with an error from the ``fail_at``-th access on (1 is the first; 0 is never)."""

    def __init__(self, content):
        size = -(-len(content) // 4096) * 4096
        super().__init__(size, mem=bytearray(bytes(content).ljust(size, b"\0")))
        self.fail_at = 0
        self.accesses = 0

    def _count(self):
        self.accesses += 1
        if self.fail_at and self.accesses >= self.fail_at:
            raise ValueError("fault asked for by the test")

    async def _read(self, address, length, **kwargs):
        self._count()
        return await super()._read(address, length, **kwargs)

    async def _write(self, address, data, **kwargs):
        self._count()
        await super()._write(address, data, **kwargs)


class Testbench:
    """The accelerator with its memories.

    Parameters
    ----------
    dut : cocotb handle of the top module
    case : sim.case.BenchCase
    stalls : int
        Seed of random waits on every channel; 0 is none.
    """

    __test__ = False  # pytest: a bench, not a test class

    def __init__(self, dut, case, *, stalls=0):
        logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.WARNING)
        self.dut, self.case = dut, case
        output = np.full(case.output_bytes, NEVER_WRITTEN, np.uint8)
        self.memory = {"program": FaultyRegion(case.program), "weights": FaultyRegion(case.weights),
                       "input": FaultyRegion(case.input), "output": FaultyRegion(output)}
        space = AddressSpace(2**64)
        for name, region in self.memory.items():
            space.register_region(region, BASES[name])
        clock = {"clock": dut.ap_clk, "reset": dut.ap_rst_n, "reset_active_level": False}
        self.control = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi_control"), **clock)
        self.memory0 = AxiSlave(AxiBus.from_prefix(dut, "m_axi_gmem0"), target=space, **clock)
        self.memory1 = AxiSlaveRead(AxiReadBus.from_prefix(dut, "m_axi_gmem1"), target=space, **clock)
        if stalls:
            dut._log.info(f"random stalls, seed {stalls}")
            for index, channel in enumerate(self._channels()):
                channel.set_pause_generator(stall_pattern(stalls * 64 + index))

    @classmethod
    async def start(cls, dut, case, *, stalls=0):
        """A bench with its clock running, after reset."""
        # The models look at every clock edge unless they saw a reset begin; before it outputs can be X.
        dut.ap_rst_n.value = 1
        dut.ap_clk.value = 0
        await Timer(1, "ns")
        bench = cls(dut, case, stalls=stalls)
        await Timer(1, "ns")
        dut.ap_rst_n.value = 0
        await Timer(1, "ns")
        cocotb.start_soon(Clock(dut.ap_clk, CLOCK_NS, unit="ns").start())
        await bench.reset()
        return bench

    async def reset(self):
        """Eight cycles of reset; what was outstanding on AXI is forgotten, as an interconnect would."""
        self.dut.ap_rst_n.value = 0
        await ClockCycles(self.dut.ap_clk, 8)
        self.dut.ap_rst_n.value = 1
        await ClockCycles(self.dut.ap_clk, 2)

    async def read(self, name):
        """Value of a register, by name or byte address."""
        return await self.control.read_if.read_dword(self._address(name))

    async def write(self, name, value):
        """Write a register, by name or byte address."""
        await self.control.write_if.write_dword(self._address(name), value)

    async def configure(self):
        """Pattern memory, pointers and lengths; the interrupt on done is enabled."""
        for index, word in enumerate(self.case.pool.view("<u4")):
            await self.write(POOL_BASE + 4 * index, int(word))
        for name, base in BASES.items():
            await self.write(f"{name}_low", base & 0xFFFFFFFF)
            await self.write(f"{name}_high", base >> 32)
        await self.write("program_length", len(self.case.program) // 32)
        await self.write("weights_beats", self.case.weights_beats)
        for name in ("sequences", "input_stride", "output_stride"):
            await self.write(name, getattr(self.case, name))
        for index, length in enumerate(self.case.lengths):
            await self.write(LENGTHS_BASE + 4 * index, int(length))
        await self.write("interrupt_enable", 1)
        await self.write("interrupt_global", 1)

    async def run(self):
        """Start, wait for the interrupt, clear it; returns the status code."""
        await self.write("control", 1)
        await self.wait_interrupt()
        assert await self.read("control") & 0b110 == 0b110, "done and idle must be set after the interrupt"
        assert await self.read("control") & 0b10 == 0, "done must be cleared by reading"
        await self.write("interrupt_status", 1)
        await ClockCycles(self.dut.ap_clk, 2)
        assert int(self.dut.interrupt.value) == 0, "the interrupt must fall when its status bit is toggled"
        return await self.read("status")

    async def wait_interrupt(self):
        """Until the interrupt output rises; AssertionError after ``case.max_cycles``."""
        if int(self.dut.interrupt.value):
            return
        limit = ClockCycles(self.dut.ap_clk, self.case.max_cycles)
        first = await First(RisingEdge(self.dut.interrupt), limit)
        assert first is not limit, (f"no interrupt within {self.case.max_cycles} cycles; "
                                    f"status {await self.read('status')}, "
                                    f"descriptor {await self.read('descriptor')}")

    async def profile(self):
        """Dispatch cycle of each descriptor."""
        return [await self.read(PROFILE_BASE + 4 * i) for i in range(len(self.case.program) // 32)]

    def output(self):
        """Output memory: uint8 array."""
        return np.frombuffer(bytes(self.memory["output"].mem), np.uint8)

    def _address(self, name):
        return name if isinstance(name, int) else address_of(name)

    def _channels(self):
        write, read = self.control.write_if, self.control.read_if
        yield from (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel)
        write, read = self.memory0.write_if, self.memory0.read_if
        yield from (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel)
        yield from (self.memory1.ar_channel, self.memory1.r_channel)
