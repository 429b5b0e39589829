"""Costs are exact sums: passes, traffic, useful work."""

from functools import cache

import numpy as np
import pytest

from hwgen.cost import array_cycles, cost_report, dense_array_cycles, predict_program, stream_tiles
from hwgen.memory_image import weight_image
from hwgen.plan import LayerPlan
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.program import chained_program, linear_program
from tests.bundles import random_bundle as uncached_random_bundle

random_bundle = cache(uncached_random_bundle)


def layer(rows, inner, ksteps):
    return LayerPlan(name="layer", role="q", structure="pattern", rows=rows, inner=inner, ksteps=ksteps,
                     kept_weights=0)


@pytest.mark.parametrize(("rows", "ksteps", "cycles"), [
    (32, (100, 60), 5 * 160),
    (32, (10, 3), 5 * (16 + 16)),  # draining 4 words of 4 rows takes 16 cycles
    (20, (10, 3), 5 * (16 + 4)),
])
def test_a_pass_takes_its_ksteps_or_its_drain(rows, ksteps, cycles):
    assert array_cycles(layer(rows, 400, ksteps), units=4, groups=5) == cycles


def test_dense_takes_two_ksteps_for_each_column():
    plan = make_plan(random_bundle())
    first = plan.layers[0]
    assert dense_array_cycles(first, plan.spec.array, groups=8) == 8 * 4 * 2 * 16
    assert array_cycles(first, 4, groups=8) == 8 * 4 * 16


@pytest.mark.parametrize("structure", ["pattern", "dense", "nm", "mixed"])
@pytest.mark.parametrize("build", [linear_program, chained_program])
def test_cost_report_adds_up(structure, build):
    bundle = random_bundle(structure=structure, absent_blocks=0.4)
    plan = make_plan(bundle, PlanRequest(rows=3, lanes=4, tokens=30))
    program = build(plan)
    cost = cost_report(plan, program)
    image = weight_image(bundle, plan.spec, program.layers)
    assert cost.weight_bytes == image.size
    assert cost.input_bytes == sum(tensor.bytes for tensor in program.inputs)
    assert cost.output_bytes == sum(tensor.bytes for tensor in program.outputs)
    assert cost.program_bytes == len(program.pack())
    kept = sum(int(layer.kept(bundle.pool).sum()) for layer in bundle.layers.values())
    assert cost.useful_macs == 30 * kept
    assert cost.multipliers == 3 * 4 * 8
    assert cost.utilization == pytest.approx(30 * kept / (96 * cost.cycles))
    assert cost.cycles == predict_program(plan, program).cycles
    first = predict_program(plan, program).dispatches[program.matmuls[program.layers[0]]]
    assert first + sum(layer.cycles for layer in cost.layers) == cost.cycles
    assert cost.array_cycles <= cost.cycles


def test_useful_macs_are_kept_positions_even_where_the_weight_is_zero():
    bundle = random_bundle()
    plan = make_plan(bundle)
    assert plan.layers[0].kept_weights == 64 * 64 // 2
    assert np.count_nonzero(bundle.layers[plan.layers[0].name].weight) < 64 * 64 // 2


def test_patterns_halve_the_cycles_of_dense():
    costs = {}
    for structure in ("pattern", "dense"):
        plan = make_plan(random_bundle(hidden=128, ffn=512, layers=1, structure=structure))
        costs[structure] = cost_report(plan, linear_program(plan))
    assert costs["dense"].array_cycles == 2 * costs["pattern"].array_cycles
    assert costs["pattern"].dense_array_cycles == costs["dense"].array_cycles
    assert costs["dense"].useful_macs == 2 * costs["pattern"].useful_macs


def test_stream_tiles_follow_the_program():
    plan = make_plan(random_bundle(), PlanRequest(rows=5))
    names = [plan.layers[3].name, plan.layers[0].name]
    assert stream_tiles(plan, linear_program(plan, names)) == [(5, 16), (5, 16), (5, 16), (1, 16)] * 2
