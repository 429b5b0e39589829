"""Descriptor check: refuses what its software twin refuses, and hwgen's programs pass."""

from collections import Counter

import numpy as np
import pytest

from hwgen.encoder_program import encoder_program
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.program import linear_program
from rtl_templates.array_spec import EncoderSpec
from rtl_templates.descriptor_check import DescriptorCheck
from rtl_templates.descriptor_rules import fault, rules
from rtl_templates.program_format import SIDE_BANK, Descriptor, Opcode, Unit
from rtl_templates.register_map import Status
from tests.bundles import random_bundle, random_encoder_bundle
from tests.rtl_templates.accelerator_reference import small_spec
from tests.rtl_templates.stream_bench import simulate


def encoder_spec(lanes, **encoder):
    return small_spec(lanes=lanes, bus_bits=128, activation_words=1000, encoder=EncoderSpec(
        side_words=700, columns=24, key_columns=6, tokens=40, **encoder))


SPECS = {"linear": small_spec(activation_words=900), "8 lanes": encoder_spec(8),
         "12 lanes": encoder_spec(12, map_entries=(0, 1))}


def random_descriptor(rng, spec):
    """A descriptor of which about half can be executed: one field in a few is out of the ordinary."""
    opcode = Opcode(int(rng.choice(list(rules(spec)))))
    rule = rules(spec)[opcode]
    odd = rng.random() < 0.5

    def pick(usual, strange):
        return int(rng.choice(strange)) if odd and rng.random() < 0.2 else int(rng.choice(usual))

    side = {True: SIDE_BANK, False: 0, None: SIDE_BANK * int(rng.integers(2))}
    groups = pick([1, 2, 3], [0, 4, 5, 6, 65535])
    length = pick([1, 5, 6], [0, 7, 10, 11, 12, 25, 65536, 1 << 31])
    offset = pick([0, 128], [4, 8, (1 << 63) + 16])
    if opcode is Opcode.KEYS:
        offset = pick([1, 47], [0, 48, 1 << 16]) << 16 | 0xFFFF
    elif opcode is Opcode.SOFTMAX:
        offset = pick([0, 63], [64, 1 << 31]) << 32
    elif opcode is Opcode.NORM:
        offset = int(rng.integers(0, 700)) | pick([SIDE_BANK], [0])
    return Descriptor(
        opcode=opcode, wait=Unit(pick([0, 7], [8, 64, 127])), groups=groups, length=length, offset=offset,
        tiles=pick([1, 2], [0, 9]), flags=pick([0], [1, 2, 3, 4]),
        source=int(rng.integers(0, rule.source or 9)) | pick([side[rule.source_side]], [0, SIDE_BANK]),
        destination=int(rng.integers(0, 700)) | pick([side[rule.destination_side]], [0, SIDE_BANK, 1 << 30]),
        source_stride=pick([0, 6, 100, 325], [65535]), destination_stride=pick([0, 3, 100, 325], [65535]))


def checked(spec, cases):
    """Status code that the hardware gives for each (descriptor, valid length)."""
    dut, found = DescriptorCheck(spec), []

    async def testbench(ctx):
        for descriptor, valid_length in cases:
            word = int.from_bytes(descriptor.pack(), "little")
            if spec.encoder is not None:
                ctx.set(dut.valid_length, valid_length)
            ctx.set(dut.record.as_value(), word)
            ctx.set(dut.latch, 1)
            await ctx.tick()
            ctx.set(dut.latch, 0)
            ctx.set(dut.record.as_value(), 0)
            ctx.set(dut.descriptor.as_value(), word)
            ctx.set(dut.decode, 1)
            await ctx.tick()
            ctx.set(dut.decode, 0)
            code = ctx.get(dut.refusal)
            for _ in range(dut.LATENCY - 1):
                assert not ctx.get(dut.outside)
                await ctx.tick()
            found.append(code or ctx.get(dut.outside) * Status.BAD_DESCRIPTOR)

    simulate(dut, testbench)
    return found


@pytest.mark.parametrize("name", SPECS)
def test_equals_its_software_twin(name):
    spec, rng = SPECS[name], np.random.default_rng(5)
    cases = [(random_descriptor(rng, spec), int(rng.choice([0, 7, 20, 24, 25, 44, 45, 65535])))
             for _ in range(1500)]
    expected = [fault(descriptor, spec, length) for descriptor, length in cases]
    got = checked(spec, cases)
    assert [(cases[i], expected[i], got[i]) for i in range(len(cases)) if got[i] != expected[i]] == []
    seen = Counter(expected)
    assert min(seen[Status.OK], seen[Status.BAD_DESCRIPTOR]) > 200
    if spec.encoder is not None:
        assert seen[Status.BAD_LENGTH] > 20


def test_the_last_word_of_a_bank():
    """One word more than the bank has is refused, the last one is not: every range of every opcode."""
    spec, cases, expected = SPECS["12 lanes"], [], []
    side = SIDE_BANK
    two, three = {"groups": 2, "source_stride": 100}, {"groups": 3, "source_stride": 200, "tiles": 1}
    product = {"groups": 3, "tiles": 1, "destination_stride": 200}
    transposition = {**two, "length": 4, "tiles": 5, "destination_stride": 100}
    norm = {**two, "length": 24, "destination_stride": 100}
    fits = [
        (Opcode.LOAD, {"length": 10, "destination": 990}, "destination"),
        (Opcode.STORE, {"length": 10, "source": 990}, "source"),
        (Opcode.MATMUL, {**three, "source": 400}, "source"),
        (Opcode.MATMUL, {**three, "source": 580, "length": 20}, "source"),
        (Opcode.MATMUL, {**product, "destination": 400}, "destination"),
        (Opcode.MATMUL, {**product, "destination": side | 100}, "destination"),
        (Opcode.KEYS, {**two, "length": 6, "source": side | 594, "offset": 1 << 16}, "source"),
        (Opcode.SOFTMAX, {**two, "length": 10, "source": side | 590}, "source"),
        (Opcode.TRANSPOSE, {**transposition, "source": side | 596, "destination": 895}, "source"),
        (Opcode.TRANSPOSE, {**transposition, "source": side, "destination": 895}, "destination"),
        (Opcode.NORM, {**norm, "source": 876, "offset": side}, "source"),
        (Opcode.NORM, {**norm, "offset": side | 576}, "offset"),
        (Opcode.NORM, {**norm, "offset": side, "destination": 876}, "destination")]
    for opcode, fields, field in fits:
        for more, code in ((0, Status.OK), (1, Status.BAD_DESCRIPTOR)):
            cases.append((Descriptor(opcode=opcode, **{**fields, field: fields[field] + more}), 0))
            expected.append(code)
    assert [fault(case[0], spec) for case in cases] == expected
    assert checked(spec, cases) == expected


def test_unknown_opcodes_and_the_end_of_the_program():
    dut, found = DescriptorCheck(SPECS["linear"]), []

    async def testbench(ctx):
        for opcode, beyond in ((0, 0), (4, 0), (200, 0), (255, 0), (255, 1), (4, 1)):
            ctx.set(dut.descriptor.opcode, opcode)
            ctx.set(dut.beyond, beyond)
            ctx.set(dut.decode, 1)
            await ctx.tick()
            found.append(ctx.get(dut.refusal))

    simulate(dut, testbench)
    assert found == [Status.BAD_OPCODE] * 3 + [Status.OK] + [Status.BAD_PROGRAM] * 2


@pytest.mark.parametrize("map_pruning", [False, True])
def test_programs_of_encoders_pass(map_pruning):
    plan = make_plan(random_encoder_bundle(map_pruning=map_pruning), PlanRequest(rows=2, lanes=8, tokens=11))
    for tokens in (1, 4, 11):
        program = encoder_program(plan, tokens, every_layer=True)
        assert {fault(d, plan.spec, -(-tokens // 4) * 4) for d in program.descriptors} == {Status.OK}


def test_programs_of_linear_layers_pass():
    plan = make_plan(random_bundle(hidden=24, heads=2, ffn=40), PlanRequest(rows=2, lanes=4, tokens=9))
    assert {fault(d, plan.spec) for d in linear_program(plan, tokens=7).descriptors} == {Status.OK}
