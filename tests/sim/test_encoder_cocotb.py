"""A whole encoder in the cocotb bench: AXI models that wait at random on every channel, several sequences."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from hwgen.cli import main
from sim.cocotb_bench import run_cocotb
from sim.encoder_case import encoder_case
from sim.encoder_run import EncoderBench
from tests.sim.encoder_campaign import inputs_of

LENGTHS = (5, 0, 3)


@pytest.fixture(scope="module")
def case(tiny_encoder):
    x = inputs_of(np.random.default_rng(6), tiny_encoder.plan.tokens, 8, len(LENGTHS))
    with EncoderBench(tiny_encoder) as bench:
        return encoder_case(bench, x, LENGTHS)


def test_words_reset_and_second_run(tiny_encoder, case):
    outcome = run_cocotb(tiny_encoder.verilog, case, tiny_encoder.directory / "sim" / "cocotb",
                         stalls=(0, 1, 2), tests="program_is_bit_exact|second_run|share=0.3")
    assert outcome.messages == {}
    assert len(outcome.passed) == 5
    words = [layer["words"] for report in outcome.reports for layer in report["layers"].values()]
    assert words == [4] * len(words)  # 2 token groups of 2 words
    assert len(words) == 6 * len(LENGTHS)  # the second run's test runs twice


@pytest.mark.nightly
def test_command_compares_in_both_benches(tiny_encoder):
    result = CliRunner().invoke(main, ["sim", str(tiny_encoder.directory), "--bench", "cocotb",
                                       "--stalls", "4", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["passed"]
    assert found["words"] >= 2 * 4  # both benches, 2 token groups of 2 words
    assert found["mismatches"] == 0


def test_a_wrong_expectation_fails(tiny_encoder, case):
    name, (offset, y) = list(case.outputs.items())[1]
    wrong = y.copy()
    wrong[4, 7] ^= 1
    changed = type(case)(**{**vars(case), "outputs": {**case.outputs, name: (offset, wrong)}})
    outcome = run_cocotb(tiny_encoder.verilog, changed, tiny_encoder.directory / "sim" / "cocotb",
                         tests="program_is_bit_exact")
    assert "encoder.layer.0, sequence 1: token 4, channel 7" in outcome.messages[outcome.failed[0]]
