"""Record memory: beats in, records out, for records above and below a beat."""

import numpy as np
import pytest

from rtl_templates.record_memory import RecordMemory, RecordSpec
from tests.rtl_templates.stream_bench import simulate


@pytest.mark.parametrize(("record_bits", "bus_bits", "records", "banks"), [
    (32, 128, 10, 2), (96, 32, 5, 2), (64, 64, 7, 4), (8, 64, 20, 1), (64, 512, 8, 4), (256, 128, 1, 1)])
def test_reads_what_was_written(record_bits, bus_bits, records, banks):
    rng = np.random.default_rng(records)
    spec = RecordSpec(record_bits=record_bits, bus_bits=bus_bits, records=records, banks=banks)
    dut = RecordMemory(spec)
    width = spec.parts * bus_bits
    rows = {(bank, row): int.from_bytes(rng.bytes(width // 8), "little")
            for bank in range(banks) for row in range(spec.rows)}
    order = [(bank, index) for bank in range(banks) for index in range(records)]
    rng.shuffle(order)
    got = []

    async def testbench(ctx):
        ctx.set(dut.write, 1)
        for (bank, row), value in rows.items():
            for part in range(spec.parts):
                ctx.set(dut.write_bank, bank)
                ctx.set(dut.write_row, row)
                ctx.set(dut.write_part, part)
                ctx.set(dut.data, value >> part * bus_bits & (1 << bus_bits) - 1)
                await ctx.tick()
        ctx.set(dut.write, 0)
        ctx.set(dut.data, 0)
        await ctx.tick()
        for bank, index in [*order, *[(0, 0)] * dut.LATENCY]:
            got.append(ctx.get(dut.record))
            ctx.set(dut.read_bank, bank)
            ctx.set(dut.read_index, index)
            await ctx.tick()

    simulate(dut, testbench)
    per_row = spec.records_per_row
    expected = [rows[bank, index // per_row] >> index % per_row * record_bits & (1 << record_bits) - 1
                for bank, index in order]
    # The value seen before the address of a step is set belongs to the address LATENCY steps before.
    assert got[dut.LATENCY:] == expected


def test_sizes_must_divide():
    with pytest.raises(ValueError, match="one must be a multiple"):
        RecordSpec(record_bits=96, bus_bits=64, records=4, banks=1)
