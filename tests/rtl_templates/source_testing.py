"""Drives a packet source in Amaranth's simulator: commands in, beats out; what its packets must hold."""

import numpy as np
from amaranth.hdl import Signal

from rtl_templates.array_spec import ArraySpec
from rtl_templates.slot_assignment import SlotAssignment
from rtl_templates.tile_format import TileFormat
from tests.rtl_templates.unit_testing import WATCHDOG, BufferModel, simulate_with_reset, write_tables

BALANCED = np.array([[1, 1, 0, 0] * 4, [0, 0, 1, 1] * 4, [1, 0, 0, 1] * 4, [0, 1, 1, 0] * 4,
                     [1, 0, 1, 0, 0, 1, 0, 1] * 2, [0, 1, 0, 1, 1, 0, 1, 0] * 2, [1, 1, 0, 0, 0, 0, 1, 1] * 2,
                     [0, 1, 1, 0, 1, 0, 0, 1] * 2], np.uint8)
"""Patterns of 8 of 16, two in each row."""


def geometry(*, lanes, units, bus_bits, slots=2, column_bits=6, masks=BALANCED, **array):
    """Array and tile format of a source's spec."""
    array = ArraySpec(units=units, lanes=lanes, assignment=SlotAssignment.balanced(masks, slots), **array)
    tiles = TileFormat(units=units, multipliers=array.assignment.multipliers, control_bits=array.control_bits,
                       has_dense_bit=array.storage != "stream", column_bits=column_bits, bus_bits=bus_bits)
    return {"array": array, "tiles": tiles}


def run_source(unit, words, commands, *, tables=(), stall=0.0, seed=0, hold=0, reset_at=None):
    """Bytes of each command, and when they were taken.

    Parameters
    ----------
    unit : component with ``command``, ``busy``, ``read``, ``read_data``, ``o``, perhaps ``table``
    words : uint8 array, shape (depth, bytes of a word)
        The buffer.
    commands : list of (dict, tiles, beats)
        A command, its tiles, and the beats of each.
    tables : list of (bank, values)
        Written before the first command.
    stall : float
        Share of the cycles in which no beat is taken.
    hold : int
        Cycles for which each header has to wait.
    reset_at : int
        Cycles after the first command at which it is dropped by a reset; then it is given again.

    Returns
    -------
    list of uint8 array, list of int array of shape (tiles, beats)
        Cycles from a command's being taken to each beat's.
    """
    rng = np.random.default_rng(seed)
    width = len(unit.o.payload) // 8
    buffer = BufferModel(unit, words, {"read": "read_data"}, unit.spec.read_latency)
    results, times = [], []
    reset = Signal()

    async def testbench(ctx):
        await write_tables(ctx, unit, tables)
        cycle, reset_after = 0, reset_at
        for fields, tiles, beats in commands:
            ctx.set(unit.command.payload, fields)
            ctx.set(unit.command.valid, 1)
            packet, taken, began, offered, held = [], [], None, False, 0
            while len(packet) < tiles * beats:
                ready = rng.random() >= stall
                if len(packet) % beats == 0 and held < hold:
                    held, ready = held + ctx.get(unit.o.valid), False
                ctx.set(unit.o.ready, int(ready))
                buffer.step(ctx, cycle)
                valid, payload = ctx.get(unit.o.valid), ctx.get(unit.o.payload)
                if offered:
                    assert (valid, payload) == (1, offered[0]), "a beat on offer must stay"
                offered = (payload,) if valid and not ready else False
                assert ctx.get(unit.busy) == (began is not None)
                if began is None and ctx.get(unit.command.ready):
                    began = cycle
                if valid and ready:
                    packet.append(payload.to_bytes(width, "little"))
                    taken.append(cycle)
                    held = 0
                ctx.set(reset, began is not None and cycle - began == reset_after)
                await ctx.tick()
                if ctx.get(reset):
                    packet, taken, began, offered, held, reset_after = [], [], None, False, 0, None
                    ctx.set(unit.command.payload, fields)
                    ctx.set(unit.command.valid, 1)
                    ctx.set(reset, 0)
                if began == cycle:
                    ctx.set(unit.command.valid, 0)
                    ctx.set(unit.command.payload, {name: 0 for name in fields})
                cycle += 1
                assert began is None or cycle - began < WATCHDOG
            results.append(np.frombuffer(b"".join(packet), np.uint8))
            times.append((np.array(taken) - began).reshape(tiles, beats))
            assert not ctx.get(unit.busy)
            assert not ctx.get(unit.o.valid)

    simulate_with_reset(unit, reset, testbench)
    return results, times


def check_packets(got, expected):
    """Assert that the bytes of every command are as expected."""
    for command, (packets, goal) in enumerate(zip(got, expected, strict=True)):
        wrong = np.flatnonzero(packets != goal)
        assert not len(wrong), (f"command {command}: bytes {wrong[:8].tolist()} of {len(goal)} differ: "
                                f"{packets[wrong[:8]].tolist()}, not {goal[wrong[:8]].tolist()}")


def check_times(times, model, hold):
    """Assert when headers and last beats of one command were taken; ``model``: the ``times`` of its spec."""
    expected = []
    for _ in times:
        header = model.offered + hold
        expected.append((header, model.taken(header)))
    assert [(tile[0], tile[-1]) for tile in times.tolist()] == expected


def dense_weights(rows, spec):
    """Weights in slot order of dense columns, int8 array (ksteps, R, 4n); ``rows``: (4R, 4 * columns)."""
    slots, units = spec.array.assignment.slots, spec.units
    blocks = rows.reshape(units, 4, -1, 4 // slots, slots)  # unit, row, column, part, slot
    return blocks.transpose(2, 3, 0, 1, 4).reshape(-1, units, 4 * slots).astype(np.int8)


def dense_fields(rows, spec):
    """``columns``, ``dense``, ``controls`` and ``weights`` of a tile of dense columns."""
    weights = dense_weights(rows, spec)
    parts = spec.parts
    columns = np.repeat(np.arange(len(weights) // parts), parts)
    part = np.arange(len(weights)) % parts
    entries = np.array([spec.control(entry) for entry in spec.array.assignment.dense_entries])
    return {"columns": columns, "dense": np.ones_like(columns), "weights": weights,
            "controls": np.repeat(entries[part][:, None], spec.units, axis=1)}


def tile_rows(tensor, spec):
    """Tiles of a padded tensor (tokens, channels): yields (rows of a tile, blocks present)."""
    height = 4 * spec.units
    for start in range(0, len(tensor), height):
        rows = np.zeros((height, tensor.shape[1]), np.int64)
        present = tensor[start:start + height]
        rows[:len(present)] = present
        yield rows, len(present) // 4
