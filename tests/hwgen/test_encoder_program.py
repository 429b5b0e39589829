"""Programs of whole encoders compute every tensor of the golden model and never violate a hazard."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwgen.encoder_program import encoder_program
from hwgen.encoder_stream import encoder_packets, stream_beats, stream_items
from hwgen.plan import Plan, PlanError
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.program import linear_program
from rtl_templates.program_format import Descriptor, Opcode, Unit
from rtl_templates.word_format import pack_words, unpack_words
from tests.bundles import random_activations, random_encoder_bundle
from tests.hwgen.encoder_machine import DRAIN, EncoderMachine, conflicts

make_bundle = cache(random_encoder_bundle)
SHAPES = {
    "pattern": {},
    "dense": {"structure": "dense", "heads": 2, "ffn": 40},
    "mixed": {"structure": "mixed", "hidden": 16, "heads": 4, "ffn": 24},
    "maps": {"map_pruning": True},
}


@cache
def planned(shape, rows, lanes, tokens=11):
    bundle = make_bundle(**SHAPES[shape])
    return bundle, make_plan(bundle, PlanRequest(rows=rows, lanes=lanes, tokens=tokens))


def run(bundle, plan, tokens, length, *, seed=3):
    """Golden trace and the machine after a run, with the program and the packed stream."""
    program = encoder_program(plan, tokens, every_layer=True)
    stream = np.concatenate([packet for _, packet in encoder_packets(bundle, plan, tokens)])
    assert len(stream) == stream_beats(plan, stream_items(plan, tokens)) * plan.spec.bus_bits // 8
    x = random_activations(tokens, bundle.model["config"]["hidden_size"], np.random.default_rng(seed))
    trace = bundle.encoder.trace(x[None], [length])
    memory = pack_words(x, plan.spec.array.lanes).ravel()
    output_bytes = program.output_bytes
    machine = EncoderMachine(plan.spec, stream, memory, length, output_bytes)
    return trace, machine, program, machine.run([Descriptor.unpack(d.pack()) for d in program.descriptors])


@pytest.mark.parametrize(("shape", "rows", "lanes", "tokens", "length"), [
    ("pattern", 2, 8, 11, 11), ("pattern", 4, 4, 9, 5), ("pattern", 1, 8, 8, 3), ("pattern", 2, 16, 3, 2),
    ("dense", 2, 8, 11, 7), ("mixed", 2, 8, 6, 6), ("maps", 2, 8, 11, 9), ("maps", 2, 8, 11, 3)])
def test_every_tensor_equals_the_golden_model(shape, rows, lanes, tokens, length):
    bundle, plan = planned(shape, rows, lanes)
    trace, machine, program, outputs = run(bundle, plan, tokens, length)
    seen = set()
    for index, step in enumerate(program.steps):
        golden = golden_tensor(trace, program, index)
        if golden is not None:
            got = machine.written[index][:golden.shape[0], :golden.shape[1]]
            np.testing.assert_array_equal(got, golden, err_msg=f"{index}: {step}")
            seen.add(step.split("head")[0] + step.split(",")[-1])
    assert len(seen) == len(bundle.encoder.layers) * 11
    for tensor, golden in zip(program.outputs, trace, strict=True):
        words = outputs[tensor.offset:tensor.offset + tensor.bytes]
        words = words.reshape(-1, tensor.channels // 4, 4 * lanes)
        np.testing.assert_array_equal(unpack_words(words, lanes, tokens), golden["output"][0])


NAMES = {"query": "q", "key": "k", "value": "v", "attention.output.dense": "o", "intermediate.dense": "gelu",
         "output.dense": "ffn2", "attention norm": "attention_norm", "output norm": "output"}


def golden_tensor(trace, program, index):
    """What a descriptor must have written, of valid tokens and lanes; None for what has no name."""
    step = program.steps[index]
    if program.descriptors[index].opcode in (Opcode.LOAD, Opcode.STORE, Opcode.END):
        return None
    t = trace[int(step.split(".")[2].split(":")[0])]
    for suffix, name in NAMES.items():
        if step.endswith(suffix):
            return t[name][0]
    head = int(step.split("head ")[1].split(",")[0])
    if step.endswith("scores"):
        # Keys past the valid length are zero weights on chip; nothing reads their scores.
        valid = int((t["sums"][0, head] > 0).sum())
        return t["scores"][0, head][:, :valid]
    if step.endswith(", context"):
        context = t["context"][0]
        size = context.shape[1] // t["scores"].shape[1]
        return context[:, head * size:(head + 1) * size].T
    if step.endswith("values"):
        size = t["v"].shape[2] // t["scores"].shape[1]
        return t["v"][0, :, head * size:(head + 1) * size].T
    return None


@settings(max_examples=25, deadline=None)
@given(rows_lanes=st.sampled_from([(2, 8), (1, 4), (4, 8)]), tokens=st.integers(1, 11),
       seed=st.integers(0, 2**32 - 1))
def test_no_program_violates_a_hazard(rows_lanes, tokens, seed):
    _, plan = planned("pattern", *rows_lanes)
    descriptors = encoder_program(plan, tokens, every_layer=True).descriptors
    durations = np.random.default_rng(seed).choice([DRAIN + 1, 20, 300], len(descriptors))
    assert not conflicts(descriptors, plan.spec.array.lanes, lambda index: int(durations[index]))


def test_every_wait_is_needed():
    _, plan = planned("pattern", 2, 8)
    descriptors = encoder_program(plan, every_layer=True).descriptors
    for index, d in enumerate(descriptors[:-1]):
        for unit in Unit:
            if unit & d.wait:
                waiting = list(descriptors)
                waiting[index] = replace(d, wait=d.wait & ~unit)
                slow = [i for i in range(index) if UNITS[descriptors[i].opcode] == unit][-1]
                assert conflicts(waiting, 8, lambda i, slow=slow: 10_000 if i == slow else DRAIN + 1), \
                    (index, unit)


UNITS = {Opcode.LOAD: Unit.LOAD, Opcode.MATMUL: Unit.ARRAY, Opcode.STORE: Unit.STORE, Opcode.KEYS: Unit.KEYS,
         Opcode.SOFTMAX: Unit.SOFTMAX, Opcode.TRANSPOSE: Unit.TRANSPOSE, Opcode.NORM: Unit.NORM}


def test_plans_with_an_encoder_come_back_from_json():
    _, plan = planned("maps", 2, 8)
    assert Plan.from_json(plan.to_json()) == plan


def test_the_linear_layers_still_run_alone():
    _, plan = planned("pattern", 2, 8)
    assert linear_program(plan).buffer_words <= plan.spec.activation_words


@pytest.mark.parametrize(("arguments", "message"), [
    ({"lanes": 2}, "lanes must be a multiple of 4"),
    ({"rows": 3, "lanes": 8}, "one must be a multiple of the other"),
    ({"tokens": 513}, "attention takes up to 512 tokens"),
])
def test_sizes_that_attention_cannot_use(arguments, message):
    with pytest.raises(PlanError, match=message):
        make_plan(make_bundle(), PlanRequest(**arguments))


def test_what_a_unit_of_the_encoder_refuses_is_a_plan_error():
    bundle = make_bundle(structure="mixed", map_pruning=True)
    with pytest.raises(PlanError, match="map pruning needs index records no wider than the bus"):
        make_plan(bundle, PlanRequest(rows=8, lanes=4, bus_bits=128))


def test_a_plan_without_encoder_units_has_no_encoder_program():
    plan = make_plan(make_bundle(), PlanRequest(linear_only=True))
    assert plan.spec.encoder is None
    with pytest.raises(PlanError, match="linear layers alone"):
        encoder_program(plan)
