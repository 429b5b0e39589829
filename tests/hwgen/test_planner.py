"""Plans fit what they were made for, survive JSON, and refuse the impossible with numbers."""

import json
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.intops.linear import accumulator_bound
from compressor.pools import build_pool
from hwgen.devices import BRAM36, DEVICES, EBR18
from hwgen.model_sizes import CANDIDATE_LANES
from hwgen.plan import Plan, PlanError, configuration_hash
from hwgen.plan_request import PlanRequest
from hwgen.planner import CANDIDATE_ROWS, USABLE, make_plan
from hwgen.program import linear_program
from hwgen.resource_model import modelled_resources, routing_luts
from rtl_templates.array_spec import Accumulation, PoolStorage
from tests.bundles import random_bundle as uncached_random_bundle
from tests.bundles import random_encoder_bundle

random_bundle = cache(uncached_random_bundle)
UNBALANCED = build_pool("frequency", size=8, balance="none")


@settings(max_examples=40, deadline=None)
@given(structure=st.sampled_from(["pattern", "dense", "nm", "mixed"]), rows=st.integers(1, 9),
       lanes=st.integers(1, 9), tokens=st.integers(1, 70), absent=st.sampled_from([0.0, 0.7]))
def test_plans_of_any_size_hold_their_own_program(structure, rows, lanes, tokens, absent):
    bundle = random_bundle(structure=structure, absent_blocks=absent)
    plan = make_plan(bundle, PlanRequest(rows=rows, lanes=lanes, tokens=tokens))
    spec, array = plan.spec, plan.spec.array
    assert (array.units, array.lanes, plan.tokens) == (rows, lanes, tokens)
    assert array.storage is (PoolStorage.STREAM if structure in ("nm", "mixed") else PoolStorage.ROM)
    program = linear_program(plan)  # raises if a size is too small
    assert program.buffer_words == spec.activation_words
    assert spec.tile_ksteps == max(ksteps for layer in plan.layers for ksteps in layer.ksteps)
    assert max(layer.columns for layer in plan.layers) <= 1 << spec.column_bits
    assert spec.bus_bits == min(128, 32 * (lanes & -lanes), 64 * (rows & -rows))
    assert [layer.name for layer in plan.layers] == list(bundle.layers)
    for layer in plan.layers:
        words = [words for words, _ in layer.tiles(rows)]
        assert sum(words) == layer.rows // 4
        assert all(count == rows for count in words[:-1])
    assert Plan.from_json(plan.to_json()) == plan


def test_accumulator_bits_hold_the_worst_sum_and_no_more():
    bundle = random_bundle()
    worst = max(int(accumulator_bound(layer.weight, layer.bias).max()) for layer in bundle.layers.values())
    bits = make_plan(bundle).spec.array.accumulator_bits
    assert worst < 1 << bits - 1
    assert worst >= 1 << bits - 2


def test_without_sizes_there_are_256_multipliers():
    plan = make_plan(random_bundle())
    assert plan.spec.array.multipliers == 256
    assert plan.tokens == 64


@pytest.mark.parametrize(("keep", "slots"), [(4, 1), (8, 2), (16, 4)])
def test_slots_come_from_the_pool(keep, slots):
    pool = build_pool("frequency", size=1 if keep == 16 else 6, keep=keep)
    array = make_plan(random_bundle(pool=pool)).spec.array
    assert (array.assignment.slots, array.assignment.is_routed) == (slots, False)


def test_unbalanced_pools_are_routed_and_cost_more():
    routed = make_plan(random_bundle(pool=UNBALANCED)).spec.array.assignment
    assert routed.is_routed
    assert routing_luts(routed) > 0
    assert routing_luts(make_plan(random_bundle()).spec.array.assignment) == 0


def fits(plan, device):
    return all(plan.modelled[key] <= share * getattr(device, key) for key, share in USABLE.items())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("structure", ["pattern", "dense", "nm"])
def test_device_plans_fit_the_device(device, structure):
    plan = make_plan(random_bundle(structure=structure), PlanRequest(device=device))
    device = DEVICES[device]
    assert fits(plan, device)
    assert plan.device == device.name
    assert plan.tokens == 64
    assert plan.spec.bus_bits <= device.bus_bits
    assert plan.modelled == modelled_resources(plan.spec, device.family, device.urams)
    expected = {"xc7": Accumulation.DSP, "xcup": Accumulation.PAIRED, "ecp5": Accumulation.TREE}
    assert plan.spec.array.accumulation is expected[device.family]


def test_lanes_are_paired_where_there_are_two_and_no_routing():
    for request_, pool in ((PlanRequest(device="kv260", lanes=1), None),
                           (PlanRequest(device="kv260"), UNBALANCED), (PlanRequest(lanes=8), None)):
        plan = make_plan(random_bundle(pool=pool), request_)
        assert plan.spec.array.accumulation is Accumulation.TREE
    with pytest.raises(PlanError, match="paired lanes need an even number of them, not 3"):
        make_plan(random_bundle(), PlanRequest(lanes=3, accumulation=Accumulation.PAIRED))
    with pytest.raises(PlanError, match=r"DSP48E2 of UltraScale.*arty-a7-100 does not have"):
        make_plan(random_bundle(), PlanRequest(device="arty-a7-100", lanes=2, rows=1,
                                               accumulation=Accumulation.PAIRED))


def test_no_fixed_size_that_fits_is_much_faster_than_the_chosen_one():
    bundle, device = random_bundle(), DEVICES["arty-a7-100"]
    chosen = make_plan(bundle, PlanRequest(device=device.name)).predicted_cycles
    for rows in CANDIDATE_ROWS[:8]:
        for lanes in CANDIDATE_LANES[:5]:
            try:
                plan = make_plan(bundle, PlanRequest(device=device.name, rows=rows, lanes=lanes))
            except PlanError:
                continue
            assert chosen <= 1.1 * plan.predicted_cycles, (rows, lanes)


def test_a_sequence_too_long_for_the_device_is_shortened_unless_it_was_asked_for():
    bundle = random_bundle(hidden=256, ffn=1024, layers=1, max_tokens=4096)
    plan = make_plan(bundle, PlanRequest(device="ecp5-85k"))
    assert plan.tokens < 4096
    assert fits(plan, DEVICES["ecp5-85k"])
    with pytest.raises(PlanError, match=r"ecp5-85k is too small: .* 4096 tokens need [\d,]+ RAM blocks; "
                                        r"of its 208, 187 are usable; use fewer --tokens"):
        make_plan(bundle, PlanRequest(device="ecp5-85k", tokens=4096))


@pytest.mark.parametrize(("request_", "message"), [
    (PlanRequest(device="zcu999"), r"unknown device 'zcu999'; known are zcu104, kv260"),
    (PlanRequest(device="kv260", rows=64, lanes=64),
     r"kv260 is too small: R = 64, T = 64 and 64 tokens need 16,512 DSPs; of its 1,248, 1,185 are usable"),
    (PlanRequest(rows=65), r"units must be 1 to 64, not 65"),
    (PlanRequest(rows=0), r"units must be 1 to 64, not 0"),
    (PlanRequest(lanes=-1), r"lanes must be 1 to 64, not -1"),
    (PlanRequest(lanes=3, bus_bits=128), r"128-bit bus must divide the activation word of 96 bits"),
    (PlanRequest(rows=1, bus_bits=128), r"weights of a K-step, 64 bits, must be a multiple of the 128"),
    (PlanRequest(bus_bits=100), r"--bus-bits must be one of 32, 64, 128, 256, 512, 1024, not 100"),
    (PlanRequest(bus_bits=0), r"--bus-bits must be one of"),
    (PlanRequest(tokens=0), r"--tokens must be 1 to 65535, not 0"),
    (PlanRequest(tokens=1 << 20), r"--tokens must be 1 to 65535"),
])
def test_impossible_requests_are_refused(request_, message):
    with pytest.raises(PlanError, match=message):
        make_plan(random_bundle(), request_)


def test_a_pool_in_rom_cannot_serve_2_of_4_layers():
    with pytest.raises(PlanError, match=r"attention.self.query is 2:4, .*leave --pool out"):
        make_plan(random_bundle(structure="nm"), PlanRequest(storage=PoolStorage.ROM))


def test_sums_in_the_dsp_need_a_balanced_pool():
    with pytest.raises(PlanError, match="row-balanced"):
        make_plan(random_bundle(pool=UNBALANCED), PlanRequest(accumulation=Accumulation.DSP))


def test_with_a_pool_in_ram_the_hardware_does_not_depend_on_weights_or_patterns():
    pools = [build_pool("reed_muller", size=12), build_pool("frequency", size=12)]
    bundles = [random_bundle(pool=pool, seed=seed, absent_blocks=0.5 * seed)
               for seed, pool in enumerate(pools)]
    plans = [make_plan(bundle, PlanRequest(storage=PoolStorage.RAM)) for bundle in bundles]
    ram = [plan.configuration_hash for plan in plans]
    assert [plan.spec.array.accumulator_bits for plan in plans] == [32, 32]
    rom = [make_plan(bundle, PlanRequest(storage=PoolStorage.ROM)).configuration_hash for bundle in bundles]
    assert ram[0] == ram[1]
    assert rom[0] != rom[1]
    assert ram[0] != rom[0]


def test_with_a_pool_in_ram_the_patterns_of_maps_still_shape_the_hardware():
    pools = [build_pool("reed_muller", size=12), build_pool("frequency", size=12)]
    request = PlanRequest(storage=PoolStorage.RAM)
    pruned, whole = ([make_plan(random_encoder_bundle(pool=pool, layers=1, map_pruning=maps), request)
                      for pool in pools] for maps in (True, False))
    assert pruned[0].spec.encoder == pruned[1].spec.encoder
    assert pruned[0].configuration_hash != pruned[1].configuration_hash
    assert whole[0].configuration_hash == whole[1].configuration_hash


def test_every_size_counts_in_the_configuration_hash():
    spec = make_plan(random_bundle()).spec
    changed = [replace(spec, program_depth=128), replace(spec, tile_ksteps=999),
               replace(spec, activation_words=9999), replace(spec, array=replace(spec.array, lanes=16)),
               replace(spec, array=replace(spec.array, accumulator_bits=32))]
    hashes = {configuration_hash(spec), *map(configuration_hash, changed)}
    assert len(hashes) == 6
    assert spec.configuration == int(configuration_hash(spec)[:8], 16)


@pytest.mark.parametrize(("change", "message"), [
    (lambda values: values.update(plan_version=9), "plan version is 9; 2 is read here"),
    (lambda values: values["spec"].update(tile_ksteps=1000), "do not match its configuration hash"),
    (lambda values: values["spec"]["array"].update(units=0), "units must be 1 to 64"),
    (lambda values: values["spec"].pop("bus_bits"), "not a plan: TypeError"),
    (lambda values: values.pop("layers"), "not a plan: KeyError"),
    (lambda values: values["spec"]["array"].update(storage="disk"), "not a plan: ValueError"),
])
def test_damaged_plans_are_refused(change, message):
    values = json.loads(make_plan(random_bundle()).to_json())
    change(values)
    with pytest.raises(PlanError, match=message):
        Plan.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '{"plan_version": 2}'])
def test_text_that_is_no_plan_is_refused(text):
    with pytest.raises(PlanError, match="not a plan"):
        Plan.from_json(text)


def test_memory_blocks_use_the_best_shape():
    assert BRAM36.blocks(72, 512) == 1
    assert BRAM36.blocks(73, 512) == 2
    assert BRAM36.blocks(128, 1024) == 4
    assert BRAM36.blocks(1, 32768) == 1
    assert EBR18.blocks(36, 1024) == 2
