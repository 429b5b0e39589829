"""Key source against TileFormat.pack of the keys, byte for byte and to the cycle."""

import numpy as np
import pytest

from rtl_templates.array_spec import PoolStorage
from rtl_templates.key_source import KeySource, KeySourceSpec
from rtl_templates.word_format import pack_words
from tests.rtl_templates.source_testing import (
    check_packets,
    check_times,
    dense_fields,
    geometry,
    run_source,
    tile_rows,
)


def command_of(spec, tokens, channels, valid_length, words, rng):
    """A command and its expected packets; its keys are added to the buffer ``words``."""
    keys = rng.integers(-127, 128, (tokens, channels))
    packed = pack_words(keys, spec.lanes)
    groups, columns = packed.shape[:2]
    gap = int(rng.integers(3))
    source = len(words) + gap
    fields = {"source": source, "source_stride": columns + gap, "groups": groups, "columns": columns,
              "multiplier": int(rng.integers(1 << 16)), "shift": int(rng.integers(1, 48)),
              "valid_length": valid_length}
    area = rng.integers(0, 256, (gap + groups * (columns + gap), packed.shape[2]), np.uint8)
    for group in range(groups):
        area[gap + group * (columns + gap):][:columns] = packed[group]
    padded = np.zeros((groups * spec.lanes, channels), np.int64)
    padded[:min(tokens, valid_length)] = keys[:valid_length]
    rows = 4 * spec.units
    packets = [spec.tiles.pack(words=present, **dense_fields(tile, spec), bias=np.zeros(rows, np.int64),
                               multiplier=np.full(rows, fields["multiplier"]),
                               shift=np.full(rows, fields["shift"]))
               for tile, present in tile_rows(padded, spec)]
    assert len(packets) == spec.tile_count(groups)
    return fields, packets, np.concatenate([words, area])


def check(spec, shapes, seed=0, stall=0.0, hold=0, reset_at=None):
    """Shapes are (tokens, channels, valid length); several commands, one after the other."""
    rng = np.random.default_rng(seed)
    words = np.zeros((0, 4 * spec.lanes), np.uint8)
    commands, expected = [], []
    for shape in shapes:
        fields, packets, words = command_of(spec, *shape, words, rng)
        commands.append((fields, len(packets), len(packets[0]) * 8 // spec.tiles.bus_bits))
        expected.append(np.concatenate(packets))
    got, times = run_source(KeySource(spec), words, commands, seed=seed, stall=stall, hold=hold,
                            reset_at=reset_at)
    check_packets(got, expected)
    for (fields, *_), taken in zip(commands, times, strict=True):
        if not stall:
            columns = fields["columns"]
            check_times(taken, spec.times(columns), hold)
            assert hold or taken[-1, -1] == spec.cycles(fields["groups"], columns)


GEOMETRIES = [(4, 1, 64), (4, 2, 128), (4, 4, 64), (8, 1, 64), (8, 2, 128), (8, 4, 64), (8, 4, 128),
              (12, 1, 32)]


@pytest.mark.parametrize(("lanes", "units", "bus_bits"), GEOMETRIES)
def test_packets_are_those_of_the_format(lanes, units, bus_bits):
    """One and several token groups a tile, tiles that share words, a last tile with absent blocks."""
    spec = KeySourceSpec(**geometry(lanes=lanes, units=units, bus_bits=bus_bits), columns=4, address_bits=10)
    check(spec, [(1, 8, 1), (9, 16, 9), (20, 8, 18), (13, 4, 0)], seed=units)


def test_longer_sequences():
    spec = KeySourceSpec(**geometry(lanes=8, units=4, bus_bits=128), columns=4, address_bits=10)
    check(spec, [(40, 16, 37), (40, 8, 40)])


@pytest.mark.parametrize(("stall", "hold"), [(0.3, 0), (0.8, 9), (0.0, 5)])
def test_beats_wait_for_the_consumer(stall, hold):
    """Random back-pressure loses no beat and changes none; a header that waits delays the rest as long."""
    spec = KeySourceSpec(**geometry(lanes=4, units=2, bus_bits=64), columns=16, address_bits=10,
                         read_latency=3)
    check(spec, [(10, 64, 9), (8, 4, 8)], seed=3, stall=stall, hold=hold)


def test_reset_in_the_middle_is_clean():
    spec = KeySourceSpec(**geometry(lanes=4, units=2, bus_bits=64), columns=4, address_bits=10)
    check(spec, [(10, 16, 9), (8, 4, 8)], reset_at=25)


@pytest.mark.parametrize("change", [
    {"slots": 1, "masks": np.zeros((0, 16)), "units": 4}, {"slots": 4, "masks": np.ones((1, 16))},
    {"storage": PoolStorage.STREAM}, {"storage": PoolStorage.RAM, "column_bits": 12}, {"units": 8}])
def test_other_arrays(change):
    """1 and 4 slots a row, control words in the index, index records wider than a beat."""
    sizes = {"lanes": 8, "units": 2, "bus_bits": 64} | change
    spec = KeySourceSpec(**geometry(**sizes), columns=3, address_bits=10, read_latency=1)
    check(spec, [(10, 12, 10), (8, 4, 5)], seed=5)


@pytest.mark.parametrize(("change", "message"), [
    ({"lanes": 6}, "lanes must be a multiple of 4, not 6"),
    ({"units": 3}, "3 units and 2 blocks of tokens"),
    ({"units": 8, "bus_bits": 512}, "512-bit bus must divide the activation word of 256 bits"),
    ({"column_bits": 1}, "4 columns do not fit 1 column bits")])
def test_spec_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        KeySourceSpec(**geometry(**({"lanes": 8, "units": 4, "bus_bits": 64} | change)), columns=4,
                      address_bits=10)
