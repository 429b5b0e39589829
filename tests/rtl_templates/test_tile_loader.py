"""Tile loader and banks: what a packet holds comes out of the memories; no packet overtakes a free bank."""

from itertools import pairwise

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring

from rtl_templates.array_spec import EncoderSpec, PoolStorage
from rtl_templates.register_map import Status
from rtl_templates.tile_banks import BANKS, SLOTS, TileBanks
from rtl_templates.tile_format import TILE_MARKER, Table
from rtl_templates.tile_loader import ENTRY_BITS, TileLoader
from tests.rtl_templates.accelerator_reference import random_tile, small_spec
from tests.rtl_templates.stream_bench import always, pattern, send, simulate


class LoaderWithBanks(wiring.Component):
    """The two components, wired as in the accelerator."""

    def __init__(self, spec):
        super().__init__({})
        self.loader, self.banks = TileLoader(spec), TileBanks(spec)

    def elaborate(self, platform):
        m = Module()
        m.submodules.loader, m.submodules.banks = self.loader, self.banks
        m.d.comb += self.banks.write.eq(self.loader.write)
        return m


def marked(spec, beats):
    """Beats as the loader takes them from memory; see ``tile_loader.marked``."""
    return [beat | (beat >> 24 & 0xFF == TILE_MARKER) << spec.bus_bits for beat in beats]


def beats_of(spec, tile):
    raw = tile.pack(spec).tobytes()
    size = spec.bus_bits // 8
    return [int.from_bytes(raw[i:i + size], "little") for i in range(0, len(raw), size)]


async def read(ctx, banks, section, bank, index):
    """One record of a section, as a whole number."""
    names = {"constants": ("constants_slot", "constants_row"), "index": ("index_bank", "index_kstep"),
             "weights": ("weights_bank", "weights_kstep")}[section]
    ctx.set(getattr(banks, names[0]), bank)
    ctx.set(getattr(banks, names[1]), index)
    await ctx.tick()
    await ctx.tick()
    value = getattr(banks, section)
    return ctx.get(value.as_value() if section == "index" else value)


async def check_tile(ctx, banks, spec, tile, bank, slot):
    assignment = spec.array.assignment
    for row in range(4 * tile.words):
        packed = await read(ctx, banks, "constants", slot, row)
        assert packed & 0xFFFFFFFF == int(tile.bias[row]) & 0xFFFFFFFF
        assert packed >> 32 & 0xFFFF == tile.multiplier[row]
        assert packed >> 48 == tile.shift[row]
    for k in range(tile.ksteps):
        index = await read(ctx, banks, "index", bank, k)
        assert index & (1 << spec.column_bits) - 1 == tile.columns[k]
        index >>= spec.column_bits
        if spec.tiles.has_dense_bit:
            assert index & 1 == tile.dense[k]
            index >>= 1
        for unit in range(spec.array.units):
            assert index >> unit * spec.tiles.control_bits & (1 << spec.tiles.control_bits) - 1 == (
                tile.controls[k, unit])
        weights = await read(ctx, banks, "weights", bank, k)
        raw = weights.to_bytes(spec.array.units * assignment.multipliers, "little")
        assert np.frombuffer(raw, np.int8).tolist() == tile.weights[k].ravel().tolist()


@pytest.mark.parametrize("sizes", [
    {}, {"bus_bits": 32}, {"bus_bits": 128, "units": 4, "lanes": 4}, {"storage": PoolStorage.STREAM},
    {"storage": PoolStorage.STREAM, "bus_bits": 32, "units": 3},
    {"slots": 1, "bus_bits": 32, "tile_ksteps": 1}],
    ids=lambda sizes: "-".join(f"{name}{value}" for name, value in sizes.items()) or "64 bits")
@pytest.mark.parametrize("share", [1, 0.5])
def test_tiles_reach_the_banks(sizes, share):
    rng = np.random.default_rng(1)
    spec = small_spec(**sizes)
    tiles = [random_tile(rng, spec, int(rng.integers(1, spec.tile_ksteps + 1)),
                         int(rng.integers(1, spec.array.units + 1))) for _ in range(6)]
    dut = LoaderWithBanks(spec)
    loader = dut.loader

    async def feed(ctx):
        beats = marked(spec, [beat for tile in tiles for beat in beats_of(spec, tile)])
        await send(ctx, loader.i, beats, always if share == 1 else pattern(rng, share))

    async def consume(ctx):
        for number, tile in enumerate(tiles):
            while not ctx.get(loader.tile.valid):
                await ctx.tick()
            assert ctx.get(loader.tile.p.bank) == number % BANKS
            assert ctx.get(loader.tile.p.slot) == number % SLOTS
            assert ctx.get(loader.tile.p.words) == tile.words
            assert ctx.get(loader.tile.p.last_kstep) == tile.ksteps - 1
            ctx.set(loader.tile.ready, 1)
            await ctx.tick()
            ctx.set(loader.tile.ready, 0)
            await check_tile(ctx, dut.banks, spec, tile, number % BANKS, number % SLOTS)
            ctx.set(loader.release, 1)
            ctx.set(loader.drained, 1)
            await ctx.tick()
            ctx.set(loader.release, 0)
            ctx.set(loader.drained, 0)

    simulate(dut, feed, consume)


def test_waits_for_a_bank_and_for_a_slot():
    """Two packets go in at one beat a cycle; the third begins in the cycle after the release."""
    rng = np.random.default_rng(2)
    spec = small_spec()
    tiles = [random_tile(rng, spec, 4, 2) for _ in range(6)]
    beats = marked(spec, [beat for tile in tiles for beat in beats_of(spec, tile)])
    size = spec.tiles.beats(4)
    dut = TileLoader(spec)
    taken, offered = [], []

    async def testbench(ctx):
        ctx.set(dut.tile.ready, 1)
        ctx.set(dut.i.valid, 1)
        for cycle in range(340):
            ctx.set(dut.i.payload, beats[len(taken)])
            ctx.set(dut.release, cycle in (100, 200, 201))
            ctx.set(dut.drained, cycle == 300)
            _, _, ready, valid = await ctx.tick().sample(dut.i.ready, dut.tile.valid)
            if ready:
                taken.append(cycle)
            if valid:
                offered.append(cycle)

    simulate(dut, testbench)
    starts = [0, size, 101, 201, 301]
    assert taken == [start + beat for start in starts for beat in range(size)]
    assert offered == [start + size - 1 + dut.LOADED for start in starts]


TILE, TABLE, LOCAL = 0xA5 << 24, 0xA6 << 24, 0xA7 << 24
ENCODER = small_spec(encoder=EncoderSpec(side_words=64, columns=4, key_columns=2, tokens=8))
BAD_HEADERS = [
    *((header | TILE, Status.BAD_TILE) for header in (2 << 16, 25 | 2 << 16, 5, 5 | 3 << 16)),
    *((header, Status.BAD_PACKET) for header in (5 | 2 << 16 | 0xA4 << 24, 0, 0xFFFFFFFF))]
BAD_TABLES = [
    *((table << 16 | beats | TABLE, Status.BAD_TABLE)
      for table, beats in ((0, 1), (5, 1), (9, 1), (15, 1), (1, 0), (1, 65), (2, 33), (3, 21), (4, 21),
                           (1 | 1 << 5, 1), (1 | 1 << 7, 1))),
    (LOCAL, Status.BAD_LOCAL)]


def error_of(spec, header):
    """Error and readiness of the loader soon after a header."""
    dut, found = TileLoader(spec), []

    async def testbench(ctx):
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.i.payload, marked(spec, [header])[0])
        for _ in range(3):
            await ctx.tick()
        found.append((ctx.get(dut.error), ctx.get(dut.i.ready)))

    simulate(dut, testbench)
    return found[0]


@pytest.mark.parametrize(("header", "code"), BAD_HEADERS)
@pytest.mark.parametrize("spec", [small_spec(), ENCODER], ids=["linear", "encoder"])
def test_bad_headers(spec, header, code):
    assert error_of(spec, header) == (code, 0)


@pytest.mark.parametrize(("header", "code"), BAD_TABLES)
def test_bad_tables_and_local_headers(header, code):
    """Unknown tables, also those whose low bits are a table's; 0 beats, one too many; unused bits."""
    assert error_of(ENCODER, header) == (code, 0)
    assert error_of(small_spec(), header) == (Status.BAD_PACKET, 0)


@pytest.mark.parametrize("header", [1 << 16 | 64 | TABLE, 2 << 16 | 32 | TABLE, 3 << 16 | 20 | TABLE,
                                    4 << 16 | 20 | TABLE, 1 << 16 | 1 << 20 | 64 | TABLE, 1 | LOCAL])
def test_tables_that_fit(header):
    assert error_of(ENCODER, header)[0] == Status.OK


def to_beats(spec, data):
    size = spec.bus_bits // 8
    return [int.from_bytes(data[i:i + size].tobytes(), "little") for i in range(0, len(data), size)]


@pytest.mark.parametrize("bus_bits", [64, 128])
def test_tables_and_local_tiles(bus_bits):
    """Every entry of every table, one a cycle; as many tiles from the units as a local header says."""
    spec = small_spec(bus_bits=bus_bits, lanes=4, units=2,
                      encoder=EncoderSpec(side_words=64, columns=4, key_columns=2, tokens=8))
    rng, dut = np.random.default_rng(bus_bits), TileLoader(spec)
    tables = [(table, bank, rng.integers(0, 256, size).astype(np.uint8)) for table, bank, size in (
        (Table.GELU, 0, 16), (Table.ATTENTION_NORM, 0, 48), (Table.EXP, 1, 32), (Table.OUTPUT_NORM, 1, 16))]
    local = [random_tile(rng, spec, ksteps, 1, 16) for ksteps in (1, 3, 2)]
    last = random_tile(rng, spec, 4, 2, 16)
    stream = [beat for table, bank, payload in tables
              for beat in to_beats(spec, spec.tiles.pack_table(table=table, bank=bank, payload=payload))]
    stream += to_beats(spec, spec.tiles.pack_local(2)) + to_beats(spec, spec.tiles.pack_local(1))
    stream += beats_of(spec, last)
    written, offered = [], []

    async def watch(ctx):
        cycle = 0
        ctx.set(dut.tile.ready, 1)
        while True:
            _, _, entry, valid, tile = await ctx.tick().sample(dut.table, dut.tile.valid, dut.tile.payload)
            if entry.enable:
                written.append((cycle, entry.id, entry.bank, entry.address, entry.data))
            if valid:
                offered.append((tile.last_kstep + 1, tile.words))
            ctx.set(dut.release, valid)
            ctx.set(dut.drained, valid)
            cycle += 1
            assert cycle < 1000, "the loader stopped"

    async def feed_local(ctx):
        for tile in local:
            await send(ctx, dut.local, beats_of(spec, tile))

    async def testbench(ctx):
        await send(ctx, dut.i, marked(spec, stream))
        for _ in range(4):
            await ctx.tick()
        assert not ctx.get(dut.error)
        assert not ctx.get(dut.holding)

    simulate(dut, testbench, background=[watch, feed_local])
    expected = [(table, bank, place, int.from_bytes(payload[at:at + width].tobytes(), "little"))
                for table, bank, payload in tables for width in [ENTRY_BITS[table] // 8]
                for place, at in enumerate(range(0, len(payload), width))]
    assert [entry[1:] for entry in written] == expected
    for before, after in pairwise(written):
        assert after[0] - before[0] == (1 if after[1] == before[1] else 2)  # a header lies between tables
    assert offered == [(1, 1), (3, 1), (2, 1), (4, 2)]
