"""K-step fetch, row constants and result writer: the static schedule around the array."""

import numpy as np

from rtl_templates.activation_buffer import ActivationBuffer
from rtl_templates.kstep_fetch import KStepFetch
from rtl_templates.record_memory import RecordMemory
from rtl_templates.result_writer import ResultWriter, passes_in_flight
from rtl_templates.row_constants import RowConstants
from tests.rtl_templates.accelerator_reference import small_spec
from tests.rtl_templates.stream_bench import simulate

SPEC = small_spec(units=3, bus_bits=32)


def test_fetch_brings_everything_together():
    """Memories answer after their latency with values that name the address; every K-step fits its issue."""
    rng = np.random.default_rng(1)
    dut = KStepFetch(SPEC)
    history, checked = [], 0

    async def testbench(ctx):
        nonlocal checked
        addresses = {"index": [], "weights": [], "activation": []}
        for cycle in range(200):
            issue = {name: int(rng.integers(bound)) for name, bound in {
                "valid": 2, "first": 2, "last": 2, "bank": 2, "kstep": 24, "base": 128, "words": 4,
                "slot": 4}.items()}
            history.append(issue)
            for name, value in issue.items():
                ctx.set(dut.issue[name], value)
            addresses["index"].append(ctx.get(dut.index_bank) << 5 | ctx.get(dut.index_kstep))
            addresses["weights"].append(ctx.get(dut.weights_bank) << 5 | ctx.get(dut.weights_kstep))
            addresses["activation"].append(ctx.get(dut.activation_address))
            if cycle >= max(RecordMemory.LATENCY, ActivationBuffer.READ_LATENCY):
                index = addresses["index"][-1 - RecordMemory.LATENCY]
                ctx.set(dut.index.column, index)
                ctx.set(dut.index.dense, index & 1)
                for unit in range(3):
                    ctx.set(dut.index.controls[unit], index + unit)
                ctx.set(dut.weights, addresses["weights"][-1 - RecordMemory.LATENCY])
                ctx.set(dut.activation, addresses["activation"][-1 - ActivationBuffer.READ_LATENCY])
            if cycle >= dut.LATENCY + 2:
                asked = history[cycle - dut.LATENCY]
                place = asked["bank"] << 5 | asked["kstep"]
                for name in ("valid", "first", "last", "words", "slot"):
                    assert ctx.get(dut.kstep[name]) == asked[name]
                assert ctx.get(dut.kstep.dense) == place & 1
                assert [ctx.get(dut.kstep.controls[unit]) for unit in range(3)] == [
                    place + unit & (1 << SPEC.array.control_bits) - 1 for unit in range(3)]
                assert ctx.get(dut.kstep.weights.as_value()) == place
                column = place & (1 << SPEC.column_bits) - 1
                assert ctx.get(dut.kstep.activations.as_value()) == (asked["base"] + column) % 128
                checked += 1
            await ctx.tick()

    simulate(dut, testbench)
    assert checked > 150


def test_constants_meet_their_rows():
    """A memory that answers after two cycles with (slot, row); passes as close as the drain allows."""
    rng = np.random.default_rng(2)
    dut = RowConstants(SPEC)
    latency = KStepFetch.LATENCY + SPEC.array.latency
    expected, seen = {}, 0

    async def testbench(ctx):
        nonlocal seen
        asked, due = [], 0
        for cycle in range(400):
            last = cycle >= due and rng.random() < 0.5
            words, slot = int(rng.integers(1, 4)), int(rng.integers(4))
            if last:
                due = cycle + 4 * words
                expected.update({cycle + latency + row: (slot, row) for row in range(4 * words)})
            ctx.set(dut.issue.last, last)
            ctx.set(dut.issue.words, words)
            ctx.set(dut.issue.slot, slot)
            asked.append((ctx.get(dut.slot), ctx.get(dut.row)))
            if cycle >= 2:
                at_slot, row = asked[-3]
                ctx.set(dut.packed, (1000 * at_slot + row) | (row + 1) << 32 | (at_slot + 1) << 48)
            if cycle in expected:
                at_slot, row = expected[cycle]
                assert ctx.get(dut.constants.bias) == 1000 * at_slot + row
                assert ctx.get(dut.constants.multiplier) == row + 1
                assert ctx.get(dut.constants.shift) == at_slot + 1
                seen += 1
            await ctx.tick()

    simulate(dut, testbench)
    assert seen > 200


def test_rows_become_words():
    """Passes announced long before their rows, as many as can be in flight; rows with and without gaps."""
    rng = np.random.default_rng(3)
    dut = ResultWriter(SPEC)
    lanes = SPEC.array.lanes
    passes = [(int(rng.integers(100)), int(rng.integers(1, 4)), bool(rng.integers(2))) for _ in range(30)]
    rows = [rng.integers(-127, 128, lanes).astype(np.int8) for _ in range(4 * sum(p[1] for p in passes))]
    expected, used = [], 0
    for destination, words, tile_end in passes:
        for word in range(words):
            raw = np.concatenate(rows[used:used + 4]).tobytes()
            expected.append((destination + word, int.from_bytes(raw, "little"),
                             tile_end and word == words - 1))
            used += 4
    written, in_flight = [], passes_in_flight(SPEC) - 1

    async def testbench(ctx):
        announced, completed, sent = 0, 0, 0
        boundaries = np.cumsum([4 * p[1] for p in passes])
        while sent < len(rows):
            announce = announced < len(passes) and announced - completed < in_flight
            ctx.set(dut.finished.valid, announce)
            if announce:
                for name, value in zip(("destination", "words", "tile_end"), passes[announced], strict=True):
                    ctx.set(dut.finished.p[name], value)
            valid = announced > completed and rng.random() < 0.9
            ctx.set(dut.row.valid, valid)
            if valid:
                for lane in range(lanes):
                    ctx.set(dut.row["values"][lane], int(rows[sent][lane]))
            assert ctx.get(dut.idle) == (announced == completed)
            _, _, wrote, word, drained = await ctx.tick().sample(
                dut.word.valid, dut.word.payload, dut.drained)
            if wrote:
                written.append((word.address, word.word, bool(drained)))
            else:
                assert not drained
            announced += announce
            sent += valid
            completed = int(np.searchsorted(boundaries, sent, side="right"))
        ctx.set(dut.row.valid, 0)
        assert ctx.get(dut.idle)

    simulate(dut, testbench)
    assert written == expected
