"""A model of the accelerator with encoder units: executes descriptors and decodes the weight stream.

Written from the formats; it shares no code with hwgen.encoder_program, hwgen.encoder_stream or hwgen.hazards.
"""

import numpy as np

from compressor.intops import requantize
from compressor.intops.layernorm import IntegerLayerNorm
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.intops.reciprocal import normalized_quotient
from compressor.intops.softmax import IntegerSoftmax
from hwgen.image_reader import StreamReader
from rtl_templates.program_format import Opcode
from rtl_templates.tile_format import Table

SIDE = 1 << 31
UNWRITTEN = -128


class EncoderMachine:
    """Executes a program; ``written`` then has the tensor that each descriptor wrote, by its index.

    Tensors are int64 arrays of shape (groups * T, channels).
    """

    def __init__(self, spec, stream, inputs, length, output_bytes):
        self.spec, self.lanes, self.length = spec, spec.array.lanes, length
        self.stream = StreamReader(stream, spec)
        self.inputs, self.outputs = inputs, np.full(output_bytes, 0x80, np.uint8)
        self.main, self.side = (np.full((words, 4, self.lanes), UNWRITTEN, np.int8)
                                for words in (spec.activation_words, spec.encoder.side_words))
        self.tables, self.made, self.local_left = {}, [], 0
        self.written = {}

    def run(self, descriptors):
        """Execute; returns output memory, uint8."""
        for index, d in enumerate(descriptors):
            if d.opcode is Opcode.END:
                break
            self.written[index] = getattr(self, d.opcode.name.lower())(d)
        self.stream.finish()
        assert not self.made
        assert not self.local_left
        return self.outputs

    def load(self, d):
        size = 4 * self.lanes
        raw = self.inputs[d.offset:d.offset + d.length * size]
        self.main[d.destination:d.destination + d.length] = raw.view(np.int8).reshape(-1, 4, self.lanes)

    def store(self, d):
        raw = self.main[d.source:d.source + d.length].reshape(-1).view(np.uint8)
        self.outputs[d.offset:d.offset + raw.size] = raw

    def matmul(self, d):
        assert not d.source & SIDE, "the array reads the main bank"
        if not self.local_left:
            for packet in self.stream.tables():
                self.tables[packet.table, packet.bank] = packet.payload
            if self.stream.at_local:
                self.local_left = self.stream.local().tiles
        if self.local_left:
            self.local_left -= d.tiles
            tiles, self.made = self.made[:d.tiles], self.made[d.tiles:]
            assert len(tiles) == d.tiles
            weight, multiplier, shift = (np.concatenate(part) for part in zip(*tiles, strict=True))
            bias, outlier = np.zeros(len(weight), np.int64), np.zeros(len(weight), bool)
        else:
            layer = self.stream.layer(4 * d.destination_stride, 4 * d.source_stride)
            assert len(layer.ksteps) == d.tiles
            weight, bias, multiplier, shift = layer.weight, layer.bias, layer.multiplier, layer.shift
            outlier = layer.outlier
        x = self._read(d.source, d.groups, d.source_stride, weight.shape[1] // 4)
        y = requantize(x @ weight.T + bias, multiplier, shift)
        if d.flags & 1:
            table = self.tables[Table.GELU, d.flags >> 1 & 1].view(np.int8)
            y = table[(y & 0xFF) + 256 * outlier].astype(np.int64)
        self._write(d.destination, d.destination_stride, y)
        return y

    def keys(self, d):
        k = self._read(d.source, d.groups, d.source_stride, d.length)
        k[self.length:] = 0
        rows = len(k)
        self._make(k, np.full(rows, d.offset & 0xFFFF), np.full(rows, d.offset >> 16))

    def softmax(self, d):
        scores = self._read(d.source, d.groups, d.source_stride, d.length)
        softmax = IntegerSoftmax(table=self.tables[Table.EXP, d.flags & 1][:256])
        queries, keys = (np.arange(n) < self.length for n in scores.shape)
        valid = queries[:, None] & keys
        scores = np.where(valid, scores, 0)
        weights, sums = softmax.compute(scores, valid)
        if d.flags >> 1 & 1 and self.length >= 4:
            encoder = self.spec.encoder
            masks = self.spec.array.assignment.masks[list(encoder.map_entries)].reshape(-1, 16)
            pruning = IntegerMapPruning(patterns=masks.astype(np.uint8), power=encoder.map_power)
            kept = pruning.mask(pruning.select(weights), *weights.shape)
            weights, sums = softmax.compute(scores, valid & kept)
        quotient, length = normalized_quotient(d.offset & 0xFFFFFFFF, sums)
        self._make(weights, quotient, (d.offset >> 32) - 16 + length)

    def transpose(self, d):
        x = self._read(d.source, d.groups, d.source_stride, d.length).T
        y = np.zeros((-(-len(x) // self.lanes) * self.lanes, x.shape[1]), np.int64)
        y[:len(x)] = x
        self._write(d.destination, d.destination_stride, y[:, :4 * d.tiles])
        return y

    def norm(self, d):
        bank, output = d.flags & 1, d.flags >> 1 & 1
        raw = self.tables[Table.OUTPUT_NORM if output else Table.ATTENTION_NORM, bank]
        records = raw[32:32 + 32 * d.length].view(np.dtype(
            [("gamma", "<i2"), ("beta", "<i4"), ("residual_shift", "u1"), ("branch_shift", "u1")]))
        golden = IntegerLayerNorm(**{name: records[name].copy() for name in records.dtype.names},
                                  epsilon=int.from_bytes(raw[:5].tobytes(), "little"),
                                  output_shift=int(raw[5]))
        assert not d.source & SIDE
        assert d.offset & SIDE
        y = golden.compute(self._read(d.source, d.groups, d.source_stride, d.length),
                           self._read(d.offset, d.groups, d.source_stride, d.length))
        self._write(d.destination, d.destination_stride, y)
        return y

    def _bank(self, address):
        return (self.side if address & SIDE else self.main), address & ~SIDE

    def _read(self, address, groups, stride, columns):
        bank, first = self._bank(address)
        words = np.stack([bank[first + g * stride:first + g * stride + columns] for g in range(groups)])
        assert words.shape == (groups, columns, 4, self.lanes)
        assert (words != UNWRITTEN).all(), "a word is read that nothing wrote"
        return words.transpose(0, 3, 1, 2).reshape(groups * self.lanes, 4 * columns).astype(np.int64)

    def _write(self, address, stride, values):
        bank, first = self._bank(address)
        words = values.reshape(-1, self.lanes, values.shape[1] // 4, 4).transpose(0, 2, 3, 1)
        for group, part in enumerate(words):
            bank[first + group * stride:first + group * stride + len(part)] = part

    def _make(self, weight, multiplier, shift):
        rows = 4 * self.spec.array.units
        for start in range(0, len(weight), rows):
            part = slice(start, start + rows)
            self.made.append((weight[part], multiplier[part], shift[part]))
            ksteps = weight.shape[1] // 4 * 4 // self.spec.array.assignment.slots
            assert ksteps <= self.spec.tile_ksteps
            assert weight.shape[1] // 4 <= 1 << self.spec.column_bits


ARRAY, LOAD, STORE, DRAIN = "MATMUL", "LOAD", "STORE", 5


def conflicts(descriptors, lanes, duration):
    """Pairs of descriptors that use the same words or ports at once, under one choice of durations.

    ``duration(index)`` gives cycles above DRAIN; the rules of dispatch are those of
    :func:`tests.hwgen.machine.conflicts`.
    """
    now, end, issued, spans = 0, {}, 0, []
    for index, d in enumerate(descriptors):
        name = d.opcode.name
        if d.opcode is Opcode.END:
            break
        waits = [end.get(unit, 0) for unit, bit in BITS.items() if d.wait & bit]
        waits.append(issued if name == ARRAY else end.get(name, 0))
        now = max([now + 1, *waits])
        finish = max(now + duration(index), end.get(name, 0))
        read_end = finish
        if name == ARRAY:
            read_end = issued = finish - DRAIN
        for writes, words in touched(d, lanes):
            spans.append((index, name, now, finish if writes else read_end, writes, words))
        end[name] = finish
    return {(a[0], b[0]) for i, a in enumerate(spans) for b in spans[i + 1:]
            if a[0] != b[0] and b[2] < a[3] and a[2] < b[3] and _collide(a, b)}


BITS = {"LOAD": 1, "MATMUL": 2, "STORE": 4, "KEYS": 8, "SOFTMAX": 16, "TRANSPOSE": 32, "NORM": 64}


def _collide(a, b):
    if a[1] == b[1] == ARRAY:  # in order: only results that are read too early matter
        return a[4] and not b[4] and bool(a[5] & b[5])
    if (a[4] or b[4]) and a[5] & b[5]:
        return True
    same_port = a[4] == b[4] and (min(a[5]) >= SIDE) == (min(b[5]) >= SIDE)
    return same_port and {a[1], b[1]} not in ({ARRAY, LOAD}, {ARRAY, STORE})


def touched(d, lanes):
    """(writes, set of words) of each access of a descriptor, word by word."""
    def words(first, groups, stride, count):
        return {first + g * stride + w for g in range(groups) for w in range(count)}
    length = d.length or d.source_stride
    match d.opcode:
        case Opcode.LOAD:
            return [(True, words(d.destination, 1, 0, d.length))]
        case Opcode.STORE:
            return [(False, words(d.source, 1, 0, d.length))]
        case Opcode.TRANSPOSE:
            written = words(d.destination, -(-4 * d.length // lanes), d.destination_stride, d.tiles)
        case Opcode.NORM | Opcode.MATMUL:
            written = words(d.destination, d.groups, d.destination_stride, d.destination_stride)
        case _:
            written = set()
    accesses = [(False, words(d.source, d.groups, d.source_stride, length))]
    if d.opcode is Opcode.NORM:
        accesses.append((False, words(d.offset, d.groups, d.source_stride, length)))
    return accesses + ([(True, written)] if written else [])
