"""Programs compute the golden outputs, never violate a hazard, and wait for nothing in vain."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwgen.hazards import with_waits
from hwgen.memory_image import weight_image
from hwgen.plan import PlanError
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.program import chained_program, linear_buffer_words, linear_program, listing
from rtl_templates.program_format import Descriptor, Opcode, Unit
from rtl_templates.word_format import pack_words, unpack_words
from tests.bundles import random_activations
from tests.bundles import random_bundle as uncached_random_bundle
from tests.hwgen.machine import DRAIN, UNIT, conflicts, execute

random_bundle = cache(uncached_random_bundle)
BUILDERS = {"linear": linear_program, "chained": chained_program}


@cache
def small_plan(rows=2, lanes=4, tokens=7, structure="mixed"):
    bundle = random_bundle(hidden=16, heads=2, ffn=40, layers=2, structure=structure, absent_blocks=0.3)
    return bundle, make_plan(bundle, PlanRequest(rows=rows, lanes=lanes, tokens=tokens))


def run(bundle, plan, program):
    """Golden and computed outputs of every layer: (name, golden, computed)."""
    rng = np.random.default_rng(5)
    lanes = plan.spec.array.lanes
    memory, inputs, golden = np.zeros(program.input_bytes, np.uint8), {}, {}
    for tensor in program.inputs:
        inputs[tensor.name] = random_activations(tensor.tokens, tensor.channels, rng)
        memory[tensor.offset:tensor.offset + tensor.bytes] = pack_words(inputs[tensor.name], lanes).ravel()
    for name in program.layers:
        source = program.sources[name]
        x = inputs[program.input_of(name).name] if source is None else golden[source]
        golden[name] = bundle.layers[name].linear.compute(x.astype(np.int64))
    outputs = execute(plan, program, weight_image(bundle, plan.spec, program.layers), memory)
    for tensor in program.outputs:
        words = outputs[tensor.offset:tensor.offset + tensor.bytes]
        words = words.reshape(-1, tensor.channels // 4, 4 * lanes)
        yield tensor.name, golden[tensor.name], unpack_words(words, lanes, tensor.tokens)


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("tokens", [1, 4, 7])
def test_programs_compute_the_golden_outputs_of_every_layer(kind, tokens):
    bundle, plan = small_plan()
    program = BUILDERS[kind](plan, tokens=tokens)
    seen = []
    for name, golden, computed in run(bundle, plan, program):
        np.testing.assert_array_equal(computed, golden, err_msg=name)
        seen.append(name)
    assert sorted(seen) == sorted(bundle.layers)


@pytest.mark.parametrize("spare", [0, 5, 20])
def test_a_small_buffer_costs_overlap_not_results(spare):
    bundle, plan = small_plan()
    words = linear_buffer_words(plan.layers, plan.groups(7), overlap=False) + spare
    assert words < plan.spec.activation_words
    plan = replace(plan, spec=replace(plan.spec, activation_words=words))
    for name, golden, computed in run(bundle, plan, linear_program(plan)):
        np.testing.assert_array_equal(computed, golden, err_msg=name)


def test_a_program_of_some_layers_computes_them():
    bundle, plan = small_plan()
    names = [name for name in bundle.layers if "output" in name]
    for name, golden, computed in run(bundle, plan, linear_program(plan, names, tokens=3)):
        np.testing.assert_array_equal(computed, golden, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(sorted(BUILDERS)), rows=st.integers(1, 4), lanes=st.sampled_from([2, 8]),
       tokens=st.integers(1, 9), shrink=st.booleans(), data=st.data())
def test_no_program_violates_a_hazard(kind, rows, lanes, tokens, shrink, data):
    _, plan = small_plan(rows, lanes, tokens)
    if shrink:
        groups = plan.groups(tokens)
        words = groups * max(layer.columns + layer.output_words for layer in plan.layers)
        plan = replace(plan, spec=replace(plan.spec, activation_words=words))
        names = [layer.name for layer in plan.layers] if kind == "linear" else [plan.layers[0].name]
    else:
        names = data.draw(st.lists(st.sampled_from([layer.name for layer in plan.layers]), min_size=1,
                                   unique=True)) if kind == "linear" else None
    program = BUILDERS[kind](plan, names)
    seed = data.draw(st.integers(0, 2**32 - 1))
    for _ in range(5):
        durations = np.random.default_rng(seed).choice([DRAIN + 1, 50, 3000], len(program.descriptors))
        assert not conflicts(program.descriptors, durations.__getitem__)
        seed += 1
    assert program.buffer_words <= plan.spec.activation_words


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_wait_is_needed(kind):
    """Dropping any one bit of a wait mask lets some choice of durations violate a hazard."""
    _, plan = small_plan()
    descriptors = BUILDERS[kind](plan).descriptors
    dropped = 0
    for index, descriptor in enumerate(descriptors):
        for unit in Unit:
            if unit & descriptor.wait:
                weaker = list(descriptors)
                weaker[index] = replace(descriptor, wait=descriptor.wait & ~unit)
                slow = [5000 if UNIT.get(d.opcode) is unit else DRAIN + 1 for d in descriptors]
                assert conflicts(weaker, slow.__getitem__), f"descriptor {index} need not wait for {unit!r}"
                dropped += 1
    assert dropped >= 10


def load(destination, length=4):
    return Descriptor(opcode=Opcode.LOAD, destination=destination, length=length)


def store(source, length=4):
    return Descriptor(opcode=Opcode.STORE, source=source, length=length)


def matmul(source, destination):
    return Descriptor(opcode=Opcode.MATMUL, groups=2, tiles=1, source=source, destination=destination,
                      source_stride=2, destination_stride=2)


@pytest.mark.parametrize(("descriptors", "waits"), [
    ([load(0), matmul(0, 4)], [0, Unit.LOAD]),
    ([matmul(0, 4), store(4)], [0, Unit.ARRAY]),
    ([matmul(0, 4), matmul(4, 8)], [0, Unit.ARRAY]),
    ([matmul(0, 4), matmul(0, 8)], [0, 0]),
    ([matmul(4, 0), matmul(8, 4)], [0, 0]),
    ([matmul(0, 4), load(0)], [0, Unit.ARRAY]),
    ([matmul(0, 4), load(4)], [0, Unit.ARRAY]),
    ([store(0), load(0)], [0, Unit.STORE]),
    ([store(0), load(4)], [0, 0]),
    ([store(0), store(8), load(0)], [0, 0, 0]),
    ([store(0), store(0)], [0, 0]),
    ([load(0), store(3)], [0, Unit.LOAD]),
    ([load(0), store(8), matmul(0, 8)], [0, 0, Unit.LOAD | Unit.STORE]),
    ([load(0), matmul(0, 4), store(0)], [0, Unit.LOAD, 0]),
])
def test_wait_masks(descriptors, waits):
    assert [d.wait for d in with_waits(descriptors)] == waits


def test_loads_and_stores_run_beside_the_array():
    """In a linear program the array waits for the loads of its own inputs only."""
    _, plan = small_plan()
    waits = [d.wait for d in linear_program(plan).descriptors if d.opcode is Opcode.MATMUL]
    assert set(waits) == {Unit.LOAD}


def test_a_chain_waits_only_where_a_product_reads_the_one_before_it():
    _, plan = small_plan(structure="pattern")
    program = chained_program(plan)
    waits = {name: bool(program.descriptors[index].wait & Unit.ARRAY)
             for name, index in program.matmuls.items()}
    assert [waits[name] for name in program.layers] == [False, False, False, True, True, True,
                                                        True, False, False, True, True, True]
    stores = [d.wait for d in program.descriptors if d.opcode is Opcode.STORE]
    assert stores == [Unit(0)] * 11 + [Unit.ARRAY]
    assert [tensor.name for tensor in program.inputs] == [program.layers[0]]


def test_tensors_do_not_overlap_and_start_on_4_kb():
    _, plan = small_plan()
    program = linear_program(plan)
    for tensors, total in ((program.inputs, program.input_bytes), (program.outputs, program.output_bytes)):
        end = 0
        for tensor in tensors:
            assert tensor.offset >= end
            assert tensor.offset % 4096 == 0
            end = tensor.offset + tensor.bytes
        assert end == total


@pytest.mark.parametrize(("call", "message"), [
    (lambda plan: linear_program(plan, tokens=8), r"8 tokens do not fit: .* 1 to 7"),
    (lambda plan: linear_program(plan, tokens=0), r"0 tokens do not fit"),
    (lambda plan: linear_program(plan, ["pooler"]), r"no layer 'pooler'; it has encoder\.layer\.0"),
    (lambda plan: linear_program(plan, []), r"at least one layer"),
    (lambda plan: chained_program(plan, [plan.layers[0].name, plan.layers[5].name]),
     r"encoder\.layer\.0\.output\.dense reads 40 channels .* the input, which has 16"),
    (lambda plan: linear_program(replace(plan, spec=replace(plan.spec, program_depth=20))),
     r"needs 37 descriptors; this accelerator has 20"),
    (lambda plan: linear_program(replace(plan, spec=replace(plan.spec, activation_words=20))),
     r"words of activation buffer; this accelerator has 20"),
])
def test_refusals(call, message):
    with pytest.raises(PlanError, match=message):
        call(small_plan()[1])


def test_listing_has_one_line_for_each_descriptor():
    _, plan = small_plan()
    program = linear_program(plan)
    lines = listing(program).splitlines()
    assert len(lines) == 1 + len(program.descriptors)
    assert lines[2].split()[:3] == ["1", "matmul", "load"]
    assert lines[2].endswith(program.layers[0])
    assert len(program.pack()) == 32 * len(program.descriptors)
