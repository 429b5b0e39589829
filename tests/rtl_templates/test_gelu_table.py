"""GeluTable against the golden IntegerGelu: every code, outliers, both banks, and rows that pass by."""

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.intops.gelu import IntegerGelu, gelu_table
from rtl_templates.gelu_table import GeluTable, GeluTableSpec

CHANNELS = 7

def check(lanes, tables, rows, look_up, bank, valid, rewrite=None):
    """Load both banks, feed a row per cycle, compare each output; ``rewrite`` replaces bank 1 meanwhile.

    Row i is channel ``i % channels`` of the layer, as far as outliers are concerned.
    """
    dut = GeluTable(GeluTableSpec(lanes=lanes))
    expected, got = [], []
    for row, values in enumerate(rows):
        if look_up[row]:
            channel = row % CHANNELS
            values = tables[bank[row]].compute(np.tile(values[:, None], CHANNELS))[:, channel]
        expected.append((int(valid[row]), (7 * row) % (lanes + 1), values.tolist()))

    async def testbench(ctx):
        for number, golden in enumerate(tables):
            for address, entry in enumerate(dut.spec.table(golden)):
                ctx.set(dut.table, {"enable": 1, "bank": number, "address": address, "data": int(entry)})
                await ctx.tick()
        ctx.set(dut.table, {"enable": 0})
        for cycle in range(len(rows) + dut.LATENCY):
            row = min(cycle, len(rows) - 1)
            ctx.set(dut.i, {"valid": int(valid[row]), "saturated": (7 * row) % (lanes + 1),
                            "values": rows[row].tolist()})
            ctx.set(dut.look_up, int(look_up[row]))
            outliers = tables[bank[row]].outliers
            ctx.set(dut.outlier, int(outliers is not None and outliers[row % CHANNELS]))
            ctx.set(dut.bank, int(bank[row]))
            if rewrite is not None:
                address = cycle % 512
                ctx.set(dut.table, {"enable": 1, "bank": 1, "address": address,
                                    "data": int(dut.spec.table(rewrite)[address])})
            if cycle >= dut.LATENCY:
                values = [ctx.get(value) for value in dut.o.values]
                got.append((ctx.get(dut.o.valid), ctx.get(dut.o.saturated), values))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert got == expected


def random_table(rng):
    return IntegerGelu(table=rng.integers(-127, 128, 256).astype(np.int8),
                       outlier_table=rng.integers(-127, 128, 256).astype(np.int8),
                       outliers=rng.integers(0, 2, CHANNELS).astype(bool))


def test_every_code_of_a_gelu():
    tables = [IntegerGelu(table=gelu_table(*scales)) for scales in ((0.05, 0.03), (0.02, 0.025))]
    rows = np.stack([np.arange(-127, 128), np.arange(127, -128, -1)], axis=1)
    bank = np.arange(510) % 2  # 255 rows, so that the second half uses the other bank
    check(2, tables, np.concatenate([rows, rows]), np.ones(510), bank, np.ones(510))


def test_loading_a_bank_leaves_the_other_alone():
    rng = np.random.default_rng(3)
    rows = rng.integers(-127, 128, (512, 1))
    check(1, [random_table(rng), random_table(rng)], rows, np.ones(512), np.zeros(512, int), np.ones(512),
          rewrite=random_table(rng))


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), lanes=st.sampled_from([1, 3, 8]))
def test_rows_that_pass_by(seed, lanes):
    """Looked up, passed and idle rows in any order keep their cycle."""
    rng = np.random.default_rng(seed)
    flags = rng.integers(0, 2, (3, 40))
    check(lanes, [random_table(rng), random_table(rng)], rng.integers(-127, 128, (40, lanes)), *flags)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="lanes must be 1 to 64, not 65"):
        GeluTableSpec(lanes=65)
    with pytest.raises(TypeError, match="not list"):
        GeluTableSpec(lanes=1).table([])
