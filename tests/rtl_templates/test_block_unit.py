"""PatternDecoder and BlockUnit by themselves."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from compressor.patterns import BALANCES, candidate_patterns
from rtl_templates.array_spec import Accumulation, ArraySpec, PoolStorage
from rtl_templates.block_unit import BlockUnit
from rtl_templates.pattern_decoder import PatternDecoder, column_choices, selects_of_entry
from rtl_templates.slot_assignment import SlotAssignment


def make_spec(storage, *, balance="row", accumulation=Accumulation.TREE, patterns=6):
    candidates = np.random.default_rng(1).permutation(candidate_patterns(8, balance))[:patterns]
    make = SlotAssignment.solve if balance == "none" else SlotAssignment.balanced
    return ArraySpec(units=1, lanes=2, assignment=make(candidates, 2), storage=storage,
                     accumulation=accumulation, accumulator_bits=20)


def simulate(dut, testbench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


async def load_pool(ctx, dut, spec):
    if spec.storage is PoolStorage.RAM:
        for entry in range(spec.assignment.entries):
            ctx.set(dut.pool, {"write": 1, "code": spec.entry_code(entry),
                               "word": spec.assignment.control_word(entry)})
            await ctx.tick()
        ctx.set(dut.pool.write, 0)


def apply_entry(ctx, dut, spec, entry):
    if spec.storage is PoolStorage.STREAM:
        ctx.set(dut.control, spec.assignment.control_word(entry))
    else:
        ctx.set(dut.control, spec.entry_code(entry) % (1 << spec.control_bits))
        ctx.set(dut.dense, spec.entry_code(entry) >> spec.control_bits)


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("storage", PoolStorage)
def test_decoder_delivers_every_entry_one_cycle_later(storage, balance):
    spec = make_spec(storage, balance=balance)
    dut = PatternDecoder(spec)

    async def testbench(ctx):
        await load_pool(ctx, dut, spec)
        for entry in range(spec.assignment.entries):
            apply_entry(ctx, dut, spec, entry)
            await ctx.tick()
            expected = selects_of_entry(spec, entry)
            for name, _ in dut.selects.shape():
                assert ctx.get(dut.selects[name]) == expected[name], (entry, name)

    simulate(dut, testbench)


def test_rom_multiplexers_have_only_the_columns_of_the_pool():
    masks = np.tile([1, 1, 0, 0], (1, 4))
    spec = ArraySpec(units=1, lanes=1, assignment=SlotAssignment.balanced(masks, 2))
    assert [column_choices(spec, m) for m in range(2)] == [(0, 2), (1, 3)]
    dense = ArraySpec(units=1, lanes=1, assignment=SlotAssignment.balanced(np.ones((1, 16)), 4))
    assert [column_choices(dense, m) for m in range(4)] == [(0,), (1,), (2,), (3,)]
    ram = ArraySpec(units=1, lanes=1, assignment=SlotAssignment.balanced(masks, 2), storage=PoolStorage.RAM)
    assert column_choices(ram, 0) == (0, 1, 2, 3)


@pytest.mark.parametrize(("balance", "accumulation"), [("row", Accumulation.TREE), ("row", Accumulation.DSP),
                                                       ("bank", Accumulation.TREE),
                                                       ("none", Accumulation.TREE)])
def test_unit_accumulates_only_when_told_and_in_the_stated_cycle(balance, accumulation):
    """Three K-steps of weight 1 and activation 1: counted, ignored, then the first of a new pass."""
    spec = make_spec(PoolStorage.ROM, balance=balance, accumulation=accumulation)
    dut = BlockUnit(spec)
    entry = 0
    counts = spec.assignment.masks[entry].sum(axis=1)
    ones = [int(row >= 0) for row in spec.assignment.rows[entry]]

    async def testbench(ctx):
        def row_sums():
            return [sum(ctx.get(dut.sums[row][part][1]) for part in range(spec.partial_sums))
                    for row in range(4)]

        ctx.set(dut.weights, ones)
        ctx.set(dut.word, [[1, 2]] * 4)
        apply_entry(ctx, dut, spec, entry)
        flags = {0: (1, 1), 1: (1, 0), 2: (0, 1), 3: (1, 0), 4: (1, 1)}  # accumulate, first of each K-step
        expected = [1, 2, 2, 3, 1]
        for cycle in range(spec.sum_latency + len(flags)):
            accumulate, first = flags.get(cycle - spec.sum_latency, (0, 0))
            ctx.set(dut.accumulate, accumulate)
            ctx.set(dut.first, first)
            await ctx.tick()
            kstep = cycle - spec.sum_latency
            if kstep >= 0:
                assert row_sums() == (2 * expected[kstep] * counts).tolist()

    simulate(dut, testbench)
