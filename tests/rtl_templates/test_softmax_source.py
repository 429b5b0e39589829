"""Softmax source against TileFormat.pack of the golden softmax, byte for byte and to the cycle."""

import numpy as np
import pytest

from compressor.intops.map_pruning import to_blocks
from compressor.intops.reciprocal import RESULT_BITS, normalized_quotient
from compressor.intops.softmax import IntegerSoftmax, exp_table
from rtl_templates.array_spec import ArraySpec, PoolStorage
from rtl_templates.slot_assignment import SlotAssignment
from rtl_templates.softmax_source import SoftmaxSource
from rtl_templates.softmax_source_spec import SoftmaxSourceSpec
from rtl_templates.word_format import pack_words
from tests.rtl_templates.source_testing import (
    check_packets,
    check_times,
    dense_fields,
    geometry,
    run_source,
    tile_rows,
)

TABLES = [exp_table(0.002), exp_table(0.05)]
"""The first does not fall to 0: what is masked must not count on it."""


def padded(values, height, width):
    """Zero-filled to a shape."""
    result = np.zeros((height, width), np.int64)
    result[:values.shape[0], :values.shape[1]] = values
    return result


def golden_packets(spec, scores, fields):
    """Packet of every tile of one command; ``scores`` are (padded queries, 4 * columns)."""
    valid_length = fields["valid_length"]
    queries, keys = scores.shape
    valid = (np.arange(queries)[:, None] < valid_length) & (np.arange(keys) < valid_length)
    softmax = IntegerSoftmax(table=TABLES[fields["bank"]])
    weights, sums = softmax.compute(scores, valid)
    prunes = spec.prunes(fields["pruning"], valid_length)
    if prunes:
        pruning = spec.pruning()
        ids = pruning.select(weights)
        weights, sums = softmax.compute(scores, valid & pruning.mask(ids, queries, keys))
    packets, height, units = [], 4 * spec.units, spec.units
    for tile, (rows, present) in enumerate(tile_rows(weights, spec)):
        here = np.zeros(height, np.int64)
        part = sums[tile * height:(tile + 1) * height]
        here[:len(part)] = part
        quotient, length = normalized_quotient(fields["numerator"], here)
        content = dense_fields(rows, spec)
        if prunes:
            chosen = padded(ids[tile * units:(tile + 1) * units], units, keys // 4).T
            entries = np.asarray(spec.map_entries)[chosen]
            blocks = to_blocks(rows).transpose(1, 0, 2).reshape(-1, 4, 4)
            placed = spec.array.assignment.place(blocks, entries.ravel())
            columns = np.arange(keys // 4)
            content = {"columns": columns, "dense": np.zeros_like(columns),
                       "weights": placed.reshape(len(columns), units, -1),
                       "controls": np.vectorize(spec.control)(entries)}
        packets.append(spec.tiles.pack(words=present, **content, bias=np.zeros(height, np.int64),
                                       multiplier=quotient, shift=fields["exponent"] - RESULT_BITS + length))
    return packets


def check(spec, cases, seed=0, stall=0.0, hold=0, reset_at=None):
    """Cases are (tokens, valid length, pruning, scores or None); commands one after the other."""
    rng = np.random.default_rng(seed)
    words = np.zeros((0, 4 * spec.lanes), np.uint8)
    commands, expected = [], []
    for tokens, valid_length, pruning, scores in cases:
        if scores is None:
            scores = rng.integers(-127, 128, (tokens, tokens)) // int(rng.choice([1, 4, 16]))
        groups, columns, gap = -(-tokens // spec.lanes), -(-tokens // 4), int(rng.integers(3))
        full = rng.integers(-127, 128, (groups * spec.lanes, 4 * columns))  # rubbish where nothing is valid
        full[:tokens, :tokens] = scores
        fields = {"source": len(words) + gap, "source_stride": columns + gap, "groups": groups,
                  "columns": columns, "bank": int(rng.integers(2)), "pruning": pruning,
                  "numerator": int(rng.integers(1 << 30, 1 << 31)), "exponent": int(rng.integers(17, 48)),
                  "valid_length": valid_length}
        area = rng.integers(0, 256, (gap + groups * (columns + gap), 4 * spec.lanes), np.uint8)
        for group, packed in enumerate(pack_words(full, spec.lanes)):
            area[gap + group * (columns + gap):][:columns] = packed
        words = np.concatenate([words, area])
        packets = golden_packets(spec, full, fields)
        assert len(packets) == spec.tile_count(groups)
        expected.append(np.concatenate(packets))
        commands.append((fields, len(packets), len(packets[0]) * 8 // spec.tiles.bus_bits))
    got, times = run_source(SoftmaxSource(spec), words, commands, tables=list(enumerate(TABLES)), seed=seed,
                            stall=stall, hold=hold, reset_at=reset_at)
    check_packets(got, expected)
    for (fields, *_), taken in zip(commands, times, strict=True):
        if not stall:
            columns, pruned = fields["columns"], spec.prunes(fields["pruning"], fields["valid_length"])
            check_times(taken, spec.times(columns, pruned=pruned), hold)
            assert hold or taken[-1, -1] == spec.cycles(fields["groups"], columns, pruned=pruned)


CASES = [(1, 1, 1, None), (13, 11, 0, None), (18, 17, 1, None), (3, 0, 1, None), (6, 3, 1, None),
         (9, 4, 1, np.full((9, 9), -127)), (5, 5, 0, np.diag([254] * 5) - 127),
         (5, 5, 1, np.diag([254] * 5) - 127)]
"""Padding of every kind, lengths 0, 1, 3 and 4, equal rows, extremes, pruned and dense in turn."""


def uneven(tokens, rows):
    """Scores whose rows are far above and far below those of the tile before, ``rows`` a tile."""
    level = np.where(np.arange(tokens) // rows % 2, -90, 90)
    return level[:, None] + np.random.default_rng(tokens).integers(-37, 38, (tokens, tokens))


@pytest.mark.parametrize(("lanes", "units", "bus_bits"), [(4, 4, 128), (4, 8, 128), (8, 1, 32), (8, 4, 256)])
def test_nothing_of_another_tile_counts(lanes, units, bus_bits):
    """Maxima, smallest kept distances and sums begin anew; as many columns as a pass takes longest over."""
    spec = SoftmaxSourceSpec(**geometry(lanes=lanes, units=units, bus_bits=bus_bits), columns=12,
                             address_bits=10, map_entries=(5, 0, 3))
    tokens = min(45, 12 * units + 2)
    check(spec, [(tokens, tokens - 1, 1, uneven(tokens, 4 * units)),
                 (tokens, tokens, 0, uneven(tokens, 4 * units)),
                 (tokens, 6, 1, uneven(tokens, 4 * units))])


def test_without_map_pruning():
    """The flag is ignored."""
    spec = SoftmaxSourceSpec(**geometry(lanes=8, units=2, bus_bits=128), columns=10, address_bits=10)
    check(spec, CASES)


def test_longer_sequences():
    spec = SoftmaxSourceSpec(**geometry(lanes=8, units=4, bus_bits=128), columns=10, address_bits=10,
                             map_entries=tuple(range(8)))
    check(spec, [(40, 40, 1, None), (40, 37, 0, None), (29, 27, 1, None)])


@pytest.mark.parametrize(("lanes", "units", "bus_bits", "power"), [
    (4, 1, 64, 1), (4, 2, 128, 2), (4, 4, 64, 1), (8, 1, 64, 2), (8, 2, 128, 1), (8, 4, 64, 2),
    (8, 4, 256, 1)])
def test_packets_are_those_of_the_format(lanes, units, bus_bits, power):
    """One and several token groups a tile, tiles that share words; blocks of less and more than a beat."""
    spec = SoftmaxSourceSpec(**geometry(lanes=lanes, units=units, bus_bits=bus_bits), columns=10,
                             address_bits=10, map_entries=tuple(range(8)), map_power=power)
    check(spec, CASES, seed=units)


@pytest.mark.parametrize(("stall", "hold"), [(0.3, 0), (0.8, 9), (0.0, 5), (0.0, 150)])
def test_beats_wait_for_the_consumer(stall, hold):
    """Random back-pressure loses no beat and changes none; a header that waits delays its packet as long."""
    spec = SoftmaxSourceSpec(**geometry(lanes=4, units=2, bus_bits=64), columns=16, address_bits=10,
                             read_latency=3, map_entries=(0, 1, 2, 3, 4))
    check(spec, [(40, 9, 0, None), (18, 18, 1, None)], seed=3, stall=stall, hold=hold)


@pytest.mark.parametrize("reset_at", [10, 35, 75])
def test_reset_in_the_middle_is_clean(reset_at):
    """In the first pass, in the weights, in the division."""
    spec = SoftmaxSourceSpec(**geometry(lanes=4, units=2, bus_bits=64), columns=6, address_bits=10,
                             map_entries=(0, 1, 2, 3, 4))
    check(spec, [(18, 18, 1, None), (7, 7, 0, None)], reset_at=reset_at)


ROWS_OF_ONE = np.array([[1, 0, 0, 0, 0, 1, 0, 0] * 2, [0, 0, 1, 0, 0, 0, 0, 1] * 2], np.uint8)


@pytest.mark.parametrize("change", [
    {"slots": 1, "masks": ROWS_OF_ONE, "units": 4, "map_entries": (1, 0)},
    {"slots": 4, "masks": np.ones((1, 16), np.uint8), "map_entries": (0,)},
    {"map_entries": (6, 1, 3), "map_power": 2},
    {"storage": PoolStorage.STREAM, "units": 1, "map_entries": (3, 7)},
    {"storage": PoolStorage.RAM, "units": 8, "bus_bits": 128, "map_entries": (7, 5)},
    {"bus_bits": 32, "lanes": 12, "units": 3, "map_entries": (2, 4, 0)}])
def test_other_arrays(change):
    """1 and 4 slots a row, control words in the index, some of the pool's patterns."""
    maps = {"map_entries": (), "map_power": 1} | {
        name: value for name, value in change.items() if name.startswith("map")}
    sizes = {"lanes": 8, "units": 2, "bus_bits": 64} | {
        name: value for name, value in change.items() if name not in maps}
    spec = SoftmaxSourceSpec(**geometry(**sizes), columns=6, address_bits=10, read_latency=1, **maps)
    check(spec, [(18, 18, 1, None), (24, 22, 0, None), (11, 10, 1, None)], seed=5)


@pytest.mark.parametrize(("change", "message"), [
    ({"map_entries": (8,)}, "must be ids of the array's 8 patterns, not \\(8,\\)"),
    ({"columns": 129}, "columns must be at most 128, not 129"),
    ({"map_entries": (0,), "map_power": 3}, "power must be 1 or 2, not 3"),
    ({"map_entries": (0,), "storage": PoolStorage.STREAM}, "they have 128 bits, it has 64")])
def test_spec_is_checked(change, message):
    own = {"columns": 10, "address_bits": 10}
    sizes = {"lanes": 8, "units": 4, "bus_bits": 64, "column_bits": 8}
    for name, value in change.items():
        (sizes if name == "storage" else own)[name] = value
    with pytest.raises(ValueError, match=message):
        SoftmaxSourceSpec(**geometry(**sizes), **own)


def test_unbalanced_assignments_are_refused():
    sizes = geometry(lanes=8, units=4, bus_bits=64)
    masks = np.array([[1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]], np.uint8)
    array = ArraySpec(units=4, lanes=8, assignment=SlotAssignment.solve(masks, 2))
    with pytest.raises(ValueError, match="entry 0 must have 2 weights in each row"):
        SoftmaxSourceSpec(array=array, tiles=sizes["tiles"], columns=4, address_bits=10, map_entries=(0,))
