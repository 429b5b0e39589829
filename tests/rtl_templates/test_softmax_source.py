"""Softmax source against TileFormat.pack of the golden softmax, byte for byte and to the cycle."""

import numpy as np
import pytest

from compressor.intops.map_pruning import to_blocks
from compressor.intops.reciprocal import RESULT_BITS, normalized_quotient
from compressor.intops.softmax import IntegerSoftmax, exp_table
from rtl_templates.softmax_source import SoftmaxSource
from rtl_templates.softmax_source_spec import SoftmaxSourceSpec
from rtl_templates.word_format import pack_words
from tests.rtl_templates.source_testing import dense_fields, geometry, run_source, tile_rows

TABLES = [exp_table(0.05), exp_table(0.3)]
UNUSED = 99


def padded(values, height, width):
    """Zero-filled to a shape."""
    result = np.zeros((height, width), np.int64)
    result[:values.shape[0], :values.shape[1]] = values
    return result


def golden_packets(spec, scores, fields):
    """Bytes of every tile of one command; ``scores`` are (padded queries, 4 * columns)."""
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
    return np.concatenate(packets)


def check(spec, cases, seed=0, **conditions):
    """Cases are (tokens, valid length, pruning, scores or None); commands one after the other."""
    rng = np.random.default_rng(seed)
    words = np.zeros((0, 4 * spec.lanes), np.uint8)
    commands, expected, cycles = [], [], []
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
        expected.append(golden_packets(spec, full, fields))
        commands.append((fields, len(expected[-1]) * 8 // spec.tiles.bus_bits))
        cycles.append(spec.cycles(groups, columns, pruned=spec.prunes(pruning, valid_length)))
    got, lengths = run_source(SoftmaxSource(spec), words, commands, tables=list(enumerate(TABLES)), seed=seed,
                              **conditions)
    for command, (packet, goal) in enumerate(zip(got, expected, strict=True)):
        wrong = np.flatnonzero(packet != goal)
        assert not len(wrong), (f"command {command}: bytes {wrong[:8].tolist()} of {len(goal)} differ: "
                                f"{packet[wrong[:8]].tolist()}, not {goal[wrong[:8]].tolist()}")
    if not conditions:
        assert lengths == cycles


CASES = [(1, 1, 0, None), (9, 9, 0, None), (40, 37, 0, None), (7, 0, 0, None), (6, 3, 0, None),
         (16, 4, 0, np.full((16, 16), -127)), (5, 5, 0, np.diag([254] * 5) - 127)]
GEOMETRIES = [(4, 1, 64), (4, 2, 128), (4, 4, 64), (8, 1, 64), (8, 2, 128), (8, 4, 64), (8, 4, 128)]


@pytest.mark.parametrize(("lanes", "units", "bus_bits"), GEOMETRIES)
def test_dense_packets_are_those_of_the_format(lanes, units, bus_bits):
    spec = SoftmaxSourceSpec(**geometry(lanes=lanes, units=units, bus_bits=bus_bits), columns=10,
                             address_bits=10)
    check(spec, CASES, seed=units)


@pytest.mark.parametrize(("lanes", "units", "bus_bits", "power"), [
    (*sizes, 1 + number % 2) for number, sizes in enumerate(GEOMETRIES)])
def test_pruned_packets_are_those_of_the_format(lanes, units, bus_bits, power):
    spec = SoftmaxSourceSpec(**geometry(lanes=lanes, units=units, bus_bits=bus_bits), columns=10,
                             address_bits=10, map_entries=tuple(range(8)), map_power=power)
    check(spec, [(tokens, length, 1, scores) for tokens, length, _, scores in CASES] + CASES[1:2], seed=units)
