"""The C++ bench against a small engine that copies memory: it must see every broken rule."""

import dataclasses
import re
from pathlib import Path

import jinja2
import jinja2.meta
import numpy as np
import pytest

from rtl_templates.register_map import Status
from sim.harness import (
    SIM_DIRECTORY,
    HarnessContext,
    MemoryTiming,
    RunRequest,
    SimulationError,
    build_harness,
    run_harness,
)

ENGINE = Path(__file__).parent / "copy_engine.v"
BEATS = 16 * 20
CONTENT = np.random.default_rng(1).integers(0, 256, 4 * BEATS, dtype=np.uint8).tobytes()
FAULTS = {
    1: "4 KB boundary",
    2: "leaves its memory|changed before ready",
    3: "leaves its memory: program 0x100000000 to .*, input 0x300000000 to 0x3000004ff",
    4: "size is not the bus width",
    5: "not INCR",
    6: "write data, strobe, last or valid changed before ready",
    7: "WLAST is 1 with 2 beats of the burst left",
    8: "did not end within 9000 cycles",
}
"""What the engine does wrong, by the number it is given, and what the bench says."""


@pytest.fixture(scope="module")
def executable(tmp_path_factory):
    return build_harness(ENGINE, tmp_path_factory.mktemp("bench"))


def request_of(*, fault=0, stalls=0, **changes):
    # The length of the program is what tells the engine its fault.
    values = dict(program=bytes(32 * (fault + 1)), weights=CONTENT, input=CONTENT, weights_beats=BEATS,
                  output_bytes=4 * BEATS, max_cycles=9000, timing=MemoryTiming(stalls=stalls))
    return RunRequest(**{**values, **changes})


def test_template_variables_are_the_fields_of_the_context():
    source = (SIM_DIRECTORY / "harness.cpp.j2").read_text()
    variables = jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(source))
    assert variables == {field.name for field in dataclasses.fields(HarnessContext)}


@pytest.mark.parametrize("stalls", [0, 1, 2, 3])
def test_memory_arrives(executable, stalls):
    report, output = run_harness(executable, request_of(stalls=stalls))
    assert report.error is None
    assert output.tobytes() == CONTENT
    assert report.status == Status.OK
    assert report.read_beats == [BEATS, BEATS]
    assert report.write_beats == BEATS
    assert report.profile == [7]


def test_a_seed_gives_the_same_run_and_another_seed_another(executable):
    cycles = [run_harness(executable, request_of(stalls=seed))[0].counters["cycles"] for seed in (4, 4, 5)]
    assert cycles[0] == cycles[1] != cycles[2]


def test_latencies_are_those_asked_for(executable):
    """The engine reads, then writes, one burst at a time: each cycle of latency costs one cycle a burst."""
    def cycles(read, write):
        timing = MemoryTiming(read_latency=read, write_latency=write)
        return run_harness(executable, request_of(timing=timing))[0].counters["cycles"]

    bursts = BEATS // 16
    assert cycles(21, 8) - cycles(20, 8) == bursts
    assert cycles(20, 9) - cycles(20, 8) == 1  # only the last answer is waited for


WITHOUT_STALLS = [fault for fault in FAULTS if fault != 6]  # nominal memory never makes write data wait


@pytest.mark.parametrize(("fault", "stalls"), [*((fault, 0) for fault in WITHOUT_STALLS),
                                               *((fault, 5) for fault in FAULTS)])
def test_broken_rules_are_seen(executable, fault, stalls):
    report, output = run_harness(executable, request_of(fault=fault, stalls=stalls))
    assert output is None
    assert report.error is not None
    assert re.search(FAULTS[fault], report.error), report.error


@pytest.mark.parametrize(("fault", "status"), [({"fail_read0": 10}, "INPUT_READ_ERROR"),
                                               ({"fail_write": 3}, "OUTPUT_WRITE_ERROR")])
def test_error_responses_are_reported(executable, fault, status):
    report, output = run_harness(executable, request_of(), **fault)
    assert output is None
    assert f"({status}) at descriptor" in report.error


@pytest.mark.parametrize("reset_at", [1, 60, 200, 1000])
def test_reset_in_mid_run(executable, reset_at):
    report, output = run_harness(executable, request_of(stalls=6), reset_at=reset_at)
    assert report.error is None
    assert output.tobytes() == CONTENT


def test_progress_is_reported(executable, monkeypatch):
    monkeypatch.setattr("sim.harness.PROGRESS_CYCLES", 500)
    seen = []
    report, _ = run_harness(executable, request_of(), progress=seen.append)
    assert seen == list(range(500, report.clock_cycles, 500))


def test_missing_file_is_one_clear_line(executable, tmp_path):
    with pytest.raises(SimulationError, match=r"exit code 2: harness: cannot read .*nothing"):
        run_harness(executable, request_of(weights=tmp_path / "nothing"))


def test_a_bench_is_compiled_once(executable):
    before = executable.stat().st_mtime_ns
    assert build_harness(ENGINE, executable.parent) == executable
    assert executable.stat().st_mtime_ns == before
    assert [path.name for path in executable.parent.iterdir()] == [executable.name]
