"""Drives a unit in Amaranth's simulator between its buffers; those that run from start to done."""

import numpy as np
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

WATCHDOG = 20000


class BufferModel:
    """Words behind a unit's ports: read latency as given, rubbish on the data lines between words.

    ``reads`` names the data of each read port; a unit without ``write`` only reads.
    """

    def __init__(self, unit, words, reads, read_latency):
        self.unit = unit
        self.words = words
        self.reads = reads
        self.latency = read_latency
        self.written = []
        self.enabled = {name: [] for name in reads}
        self.pending = {name: {} for name in reads}
        self.rng = np.random.default_rng(1)

    def step(self, ctx, cycle):
        """Sample the ports in this cycle, and drive the data of this cycle."""
        for name, data_name in self.reads.items():
            port = getattr(self.unit, name)
            if ctx.get(port.enable):
                self.enabled[name].append(cycle)
                self.pending[name][cycle + self.latency] = self.words[ctx.get(port.address)]
            word = self.pending[name].pop(cycle, None)
            if word is None:
                word = int.from_bytes(self.rng.bytes(self.words[0].size), "little")
            else:
                word = int.from_bytes(word.tobytes(), "little")
            ctx.set(getattr(self.unit, data_name).as_value(), word)
        port = getattr(self.unit, "write", None)
        if port is not None and ctx.get(port.enable):
            self.written.append((cycle, ctx.get(port.address)))
            raw = ctx.get(port.data.as_value()).to_bytes(self.words[0].size, "little")
            self.words[ctx.get(port.address)] = np.frombuffer(raw, np.uint8)


def run_commands(unit, buffer, commands, tables=(), gap=0, reset_at=None):
    """Run commands one after the other; cycles from each one's start to its done.

    Parameters
    ----------
    unit : component with ``start``, ``command``, ``busy``, ``done``, ``table`` and buffer ports
    buffer : BufferModel
    commands : list of dict
    tables : list of (bank, values)
        Written before the first command.
    gap : int
        Cycles in which the unit is idle before the next start.
    reset_at : int
        Cycle of a reset; the command that runs is dropped, and the next one starts in the cycle after.
    """
    lengths = []
    reset = Signal()

    async def testbench(ctx):
        await write_tables(ctx, unit, tables)
        cycle = 0
        for command in commands:
            ctx.set(unit.start, 1)
            ctx.set(unit.command, command)
            started = cycle
            while True:
                buffer.step(ctx, cycle)
                assert ctx.get(unit.busy) == (cycle > started), "busy must span start + 1 to done"
                done = ctx.get(unit.done)
                ctx.set(reset, cycle == reset_at)
                await ctx.tick()
                cycle += 1
                ctx.set(unit.start, 0)
                ctx.set(unit.command, {name: 0 for name in command})  # read in the cycle of start only
                if done or cycle - 1 == reset_at:
                    break
                assert cycle - started < WATCHDOG
            if cycle - 1 == reset_at:
                ctx.set(reset, 0)
                continue
            lengths.append(cycle - 1 - started)
            for _ in range(gap):
                buffer.step(ctx, cycle)
                assert not ctx.get(unit.busy)
                assert not ctx.get(unit.done)
                await ctx.tick()
                cycle += 1

    simulate_with_reset(unit, reset, testbench)
    return lengths


async def write_tables(ctx, unit, tables):
    """Write (bank, values) pairs through ``unit.table``, an entry a cycle."""
    for bank, values in tables:
        for address, value in enumerate(values):
            ctx.set(unit.table, {"enable": 1, "bank": bank, "address": address, "data": int(value)})
            await ctx.tick()
        ctx.set(unit.table, {"enable": 0})


def simulate_with_reset(unit, reset, testbench):
    """Run a testbench of a unit that the signal ``reset`` resets."""
    simulator = Simulator(ResetInserter(reset)(unit))
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
