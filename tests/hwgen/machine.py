"""A model of the accelerator in plain Python, written from the formats: what a program computes, and when.

It shares no code with hwgen.program, hwgen.hazards or hwgen.memory_image.
"""

import numpy as np

from compressor.intops import requantize
from hwgen.image_reader import read_image
from rtl_templates.program_format import Opcode, Unit

UNIT = {Opcode.LOAD: Unit.LOAD, Opcode.MATMUL: Unit.ARRAY, Opcode.STORE: Unit.STORE}


def execute(plan, program, image, inputs):
    """Output memory after a run, descriptor by descriptor: uint8 array.

    ``inputs`` is the contents of input memory; words of the buffer that nothing wrote are 0x80.
    """
    spec = plan.spec
    word_bytes, lanes = spec.array.word_bits // 8, spec.array.lanes
    planned = [plan.layer(name) for name in program.layers]
    layers = iter(read_image(image, spec, [(layer.rows, layer.inner) for layer in planned]))
    buffer = np.full((spec.activation_words, word_bytes), 0x80, np.uint8)
    outputs = np.full(program.output_bytes, 0x80, np.uint8)
    for d in program.descriptors:
        if d.opcode is Opcode.LOAD:
            data = inputs[d.offset:d.offset + d.length * word_bytes]
            buffer[d.destination:d.destination + d.length] = data.reshape(d.length, word_bytes)
        elif d.opcode is Opcode.STORE:
            data = buffer[d.source:d.source + d.length]
            outputs[d.offset:d.offset + data.size] = data.ravel()
        elif d.opcode is Opcode.MATMUL:
            layer = next(layers)
            assert d.tiles == len(layer.ksteps)
            for group in range(d.groups):
                first = d.source + group * d.source_stride
                words = buffer[first:first + layer.weight.shape[1] // 4].view(np.int8).astype(np.int64)
                x = words.reshape(-1, 4, lanes).transpose(2, 0, 1).reshape(lanes, -1)
                y = requantize(x @ layer.weight.T + layer.bias, layer.multiplier, layer.shift)
                first = d.destination + group * d.destination_stride
                y = y.reshape(lanes, -1, 4).transpose(1, 2, 0).astype(np.int8)
                buffer[first:first + y.shape[0]] = y.reshape(y.shape[0], -1).view(np.uint8)
    return outputs


def conflicts(descriptors, duration):
    """Pairs of descriptors that touch the same words at the same time, under one choice of durations.

    A unit is busy from dispatch to its end. A MATMUL reads until its end but for DRAIN cycles; from then on
    the next MATMUL may be dispatched, while this one still writes.

    Parameters
    ----------
    descriptors : sequence of Descriptor
    duration : callable(index) -> int
        Cycles of each descriptor, above DRAIN.
    """
    now, end, issued, spans = 0, {unit: 0 for unit in Unit}, 0, []
    for index, d in enumerate(descriptors):
        unit = UNIT.get(d.opcode)
        waits = [end[other] for other in Unit if other & d.wait]
        if unit is None:
            waits = list(end.values())
        elif unit is Unit.ARRAY:
            waits.append(issued)
        else:
            waits.append(end[unit])
        now = max([now + 1, *waits])
        if unit is None:
            break
        finish = max(now + duration(index), end[unit])
        if unit is Unit.ARRAY:
            issued = finish - DRAIN
            spans.append((index, now, issued, False, _words(d.source, d.groups, d.source_stride)))
            spans.append((index, now, finish, True, _words(d.destination, d.groups, d.destination_stride)))
        elif unit is Unit.LOAD:
            spans.append((index, now, finish, True, set(range(d.destination, d.destination + d.length))))
        else:
            spans.append((index, now, finish, False, set(range(d.source, d.source + d.length))))
        end[unit] = finish
    return {(a[0], b[0]) for a in spans for b in spans
            if a[0] < b[0] and (a[3] or b[3]) and b[1] < a[2] and a[1] < b[2]
            and not (_both_arrays_in_order(descriptors, a, b)) and a[4] & b[4]}


DRAIN = 5


def _both_arrays_in_order(descriptors, a, b):
    # The array works in order: a later product's writes cannot overtake an earlier one's accesses.
    return (descriptors[a[0]].opcode is Opcode.MATMUL and descriptors[b[0]].opcode is Opcode.MATMUL
            and b[3])


def _words(start, groups, stride):
    return {start + group * stride + word for group in range(groups) for word in range(stride)}
