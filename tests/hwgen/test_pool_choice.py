"""`hwgen pools`: what pools keep of a model, and what they cost."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from compressor import synthetic_task
from compressor.patterns import retained_energy
from compressor.pools import PoolError, build_pool
from compressor.tasks import TASKS
from compressor.tiny_model import build_tiny_model
from hwgen.cli import main
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.pool_choice import model_blocks, pool_choices
from tests.bundles import random_bundle

BLOCKS = np.random.default_rng(0).standard_normal((4000, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def choices():
    return {(choice.balance, choice.size): choice for choice in pool_choices(BLOCKS, sizes=(16, 24, 32, 64))}


def test_every_balance_and_size_in_order(choices):
    assert list(choices) == [(balance, size) for balance in ("row", "bank", "none")
                             for size in (16, 24, 32, 64)]


def test_banks_halve_the_multiplexers_and_twice_the_patterns_make_up_for_it(choices):
    assert {choices["bank", size].luts for size in (16, 32, 64)} == {4.0}
    assert {choices["row", size].luts for size in (32, 64)} == {8.0}
    assert choices["none", 32].luts > 8
    assert choices["bank", 64].retained_energy > choices["row", 32].retained_energy - 0.005
    assert choices["bank", 64].id_bits == choices["row", 32].id_bits + 1


def test_the_recipe_line_makes_the_pool_whose_energy_is_told(choices):
    choice = choices["bank", 32]
    assert choice.recipe_line == "pool: {build: reed_muller, size: 32, keep: 8, balance: bank}"
    pool = build_pool("reed_muller", BLOCKS, size=32, balance="bank")
    assert choice.retained_energy == retained_energy(pool.patterns, BLOCKS)


def test_the_front(choices):
    for choice in choices.values():
        better = [other for other in choices.values()
                  if other.retained_energy >= choice.retained_energy and other.luts <= choice.luts
                  and other.id_bits <= choice.id_bits and other != choice]
        assert choice.on_front == (not better)
    assert choices["bank", 32].on_front
    assert choices["row", 64].on_front
    assert not choices["row", 24].on_front  # 32 patterns have ids of 5 bits as well


def test_the_resource_model_knows_the_smaller_multiplexers():
    plans = [make_plan(random_bundle(pool=build_pool("reed_muller", balance=balance)),
                       PlanRequest(rows=2, lanes=4)) for balance in ("row", "bank")]
    row, bank = (plan.modelled["luts"] for plan in plans)
    assert row - bank == 4 * plans[0].spec.array.multipliers


def test_sizes_that_a_balance_does_not_have_are_left_out():
    found = pool_choices(BLOCKS, sizes=(4, 200), keep=4, balances=("bank", "row"))
    assert {(choice.balance, choice.size) for choice in found} == {
        (balance, size) for balance in ("bank", "row") for size in (4, 200)}
    with pytest.raises(PoolError, match="no pool of 32 patterns"):
        pool_choices(BLOCKS, sizes=(32,), keep=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    rows = synthetic_task.generate(32, 0)
    made, tokenizer = build_tiny_model(TASKS["synthetic"], rows, max_tokens=16)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_command_looks_at_the_weights_of_the_encoder(model):
    blocks = model_blocks(model)
    assert blocks.shape[1] == 16
    outcome = CliRunner().invoke(main, ["pools", str(model), "--sizes", "16", "--balance", "bank", "--json"])
    assert outcome.exit_code == 0, outcome.output
    [choice] = json.loads(outcome.stdout)
    pool = build_pool("reed_muller", blocks, size=16, balance="bank")
    assert choice["retained_energy"] == pytest.approx(retained_energy(pool.patterns, blocks), abs=0.01)
    table = CliRunner().invoke(main, ["pools", str(model), "--sizes", "16"]).output
    assert "balance: bank}" in table


@pytest.mark.parametrize(("arguments", "message"), [
    (["nowhere"], "Error: nowhere: "), (["nowhere", "--sizes", "a"], "'a' are no numbers"),
    ([".", "--keep", "17"], "17 is not in the range")])
def test_bad_input_is_one_line(arguments, message):
    outcome = CliRunner().invoke(main, ["pools", *arguments])
    assert outcome.exit_code != 0
    assert message in outcome.stderr
