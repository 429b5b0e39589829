"""Drives a PatternArray in Amaranth's simulator and computes what it must deliver."""

from dataclasses import dataclass

import numpy as np
from amaranth.sim import Simulator

from rtl_templates.array_spec import PoolStorage
from rtl_templates.pattern_array import PatternArray


@dataclass(frozen=True, eq=False)
class Pass:
    """K-steps of one pass: entries (K, R), weights (K, R, 4n), words to drain, activations (K, 4, T)."""

    entries: np.ndarray
    weights: np.ndarray
    activations: np.ndarray
    words: int
    slot: int
    gaps: tuple[int, ...]
    """Idle cycles before each K-step."""
    tail: int
    """Idle cycles after the last K-step; `last` then comes with the last of them."""

    def sums(self, spec):
        """Golden sums, int64, shape (4 * words, T)."""
        steps, units = self.entries.shape
        total = np.zeros((units, 4, self.activations.shape[2]), np.int64)
        for k in range(steps):
            for u in range(units):
                entry = self.entries[k, u]
                rows, columns = spec.assignment.rows[entry], spec.assignment.columns[entry]
                for slot, (row, column) in enumerate(zip(rows, columns, strict=True)):
                    if row >= 0:
                        total[u, row] += int(self.weights[k, u, slot]) * self.activations[k, column]
        return total.reshape(4 * units, -1)[:4 * self.words]


def random_pass(spec, rng, *, ksteps, words, extreme=False, gap=0):
    """A pass with random entries (all patterns or all parts of dense blocks in a K-step) and idle cycles."""
    assignment = spec.assignment
    entries = np.empty((ksteps, spec.units), int)
    for k in range(ksteps):
        dense = assignment.patterns == 0 or rng.random() < 0.3
        entries[k] = rng.integers(*((assignment.patterns, assignment.entries) if dense
                                    else (0, assignment.patterns)), size=spec.units)

    def draw(shape):
        values = rng.choice([-127, 127], shape) if extreme else rng.integers(-127, 128, shape)
        return values.astype(np.int64)
    weights = draw((ksteps, spec.units, assignment.multipliers))
    weights[np.asarray(assignment.rows)[entries] < 0] = 0
    return Pass(entries, weights, draw((ksteps, 4, spec.lanes)), words, int(rng.integers(4)),
                tuple(int(g) for g in rng.integers(0, gap + 1, ksteps)), int(rng.integers(0, gap + 1)))


def cycles_of(spec, passes):
    """What to apply in each cycle, with the idle cycles that draining needs; and the cycles of the lasts.

    Idle cycles carry arbitrary data, as the output of a memory would.
    """
    idle = {**_kstep(spec, passes[0], 0), "valid": 0, "words": spec.units, "slot": 3}
    cycles, lasts = [], []
    for index, one in enumerate(passes):
        steps = []
        for k, gap in enumerate(one.gaps):
            steps += [idle] * gap
            steps.append(_kstep(spec, one, k))
        steps += [idle] * one.tail
        if index:
            steps = [idle] * (4 * passes[index - 1].words - len(steps)) + steps
        steps[-1] = {**steps[-1], "last": 1, "words": one.words, "slot": one.slot}
        cycles += steps
        lasts.append(len(cycles) - 1)
    return cycles, lasts


def _kstep(spec, one, k):
    entries = one.entries[k]
    codes = [spec.entry_code(int(entry)) for entry in entries]
    stream = spec.storage is PoolStorage.STREAM
    controls = ([spec.assignment.control_word(int(entry)) for entry in entries] if stream
                else [code % (1 << spec.control_bits) for code in codes])
    dense = 0 if stream else codes[0] >> spec.control_bits
    return {"valid": 1, "first": int(k == 0), "dense": dense, "controls": controls,
            "weights": one.weights[k].tolist(), "activations": one.activations[k].tolist()}


def run_passes(spec, passes, hardware=None):
    """Results that the array delivers, list of (cycle, row, last, slot, sums), and the cycle of each last.

    ``hardware``: spec to generate from, if it is not ``spec`` (a RAM pool that was made for other patterns).
    """
    dut = PatternArray(hardware or spec)
    cycles, lasts = cycles_of(spec, passes)
    got = []

    async def testbench(ctx):
        if spec.storage is PoolStorage.RAM:
            for entry in range(spec.assignment.entries):
                ctx.set(dut.pool, {"write": 1, "code": spec.entry_code(entry),
                                   "word": spec.assignment.control_word(entry)})
                await ctx.tick()
            ctx.set(dut.pool, {"write": 0})
        for cycle in range(len(cycles) + spec.latency + 4 * spec.units + 2):
            ctx.set(dut.kstep, cycles[cycle] if cycle < len(cycles) else {})
            result = dut.result
            if ctx.get(result.valid):
                got.append((cycle, ctx.get(result.row), ctx.get(result.last), ctx.get(result.slot),
                            [ctx.get(result.sums[lane]) for lane in range(spec.lanes)]))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return got, lasts


def check_passes(spec, passes, hardware=None):
    """Assert that rows, their order, their cycles and their sums are exactly the golden ones."""
    got, lasts = run_passes(spec, passes, hardware)
    expected = []
    for one, last in zip(passes, lasts, strict=True):
        sums = one.sums(spec)
        expected += [(last + spec.latency + row, row, int(row == len(sums) - 1), one.slot, sums[row].tolist())
                     for row in range(len(sums))]
    assert len(got) == len(expected)
    for index, (ours, golden) in enumerate(zip(got, expected, strict=True)):
        assert ours == golden, f"result {index} (cycle, row, last, slot, sums): {ours}, expected {golden}"
