"""The cocotb bench: the same program, AXI models that wait at random, errors, resets; in two simulators."""

import numpy as np
import pytest

from hwgen.program import linear_program
from hwgen.toolchain import ToolError, find_tool
from sim.cocotb_bench import run_cocotb
from sim.open_build import stream_file
from sim.runner import SimulationRequest, bench_case, simulate_layers
from sim.vectors import pack_inputs, random_vectors

TESTS = ("program_is_bit_exact", "second_run_needs_no_reset", "registers_keep_what_is_written",
         "interrupt_needs_both_enables", "reset_in_mid_run_is_clean", "error_response_ends_the_run",
         "bad_opcode_is_reported", "bad_packet_is_reported")


@pytest.fixture(scope="module")
def case(small_build, tmp_path_factory):
    program = linear_program(small_build.plan, tokens=7)
    vectors = random_vectors(small_build.bundle, program, seed=5)
    return bench_case(small_build, program, vectors,
                      memory=pack_inputs(program, vectors, small_build.lanes).tobytes(),
                      weights=stream_file(small_build, program, tmp_path_factory.mktemp("weights")))


def test_all_of_it_in_verilator(small_build, case):
    outcome = run_cocotb(small_build.verilog, case, small_build.directory / "sim" / "cocotb",
                         stalls=(0, 1, 2))
    assert outcome.messages == {}
    assert {name.split("/")[0] for name in outcome.passed} == set(TESTS)
    assert {report["stalls"] for report in outcome.reports} == {0, 1, 2}
    assert all(layer["words"] and not layer["mismatches"]
               for report in outcome.reports for layer in report["layers"].values())


def test_words_and_reset_in_icarus(small_build, case):
    """Four-state: an X that reached an output would end the run."""
    try:
        find_tool("iverilog")
    except ToolError as error:
        pytest.skip(str(error))
    outcome = run_cocotb(small_build.verilog, case, small_build.directory / "sim" / "icarus",
                         simulator="icarus", stalls=(0, 3), tests="program_is_bit_exact|share=0.3")
    assert outcome.messages == {}
    assert len(outcome.passed) == 3


def test_a_wrong_expectation_fails(small_build, case):
    """The bench itself must be able to fail: one expected value is changed."""
    name, (offset, y) = next(iter(case.outputs.items()))
    wrong = y.copy()
    wrong[6, 3] ^= 1
    changed = type(case)(**{**vars(case), "outputs": {**case.outputs, name: (offset, wrong)}})
    outcome = run_cocotb(small_build.verilog, changed, small_build.directory / "sim" / "cocotb",
                         tests="program_is_bit_exact")
    assert len(outcome.failed) == 1
    message = outcome.messages[outcome.failed[0]]
    assert f"1 of {2 * y.shape[1] // 4} words differ; {name}: token 6, channel 3" in message


def test_command_compares_in_both_benches(small_build):
    result = simulate_layers(small_build, SimulationRequest(bench="cocotb", tokens=5, layers="*query"))
    assert result.problems() == []
    assert result.words == 2 * int(np.ceil(5 / small_build.lanes)) * 24 // 4
    assert result.stalled_cycles > 0
