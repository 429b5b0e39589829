"""The generated accelerator in the C++ bench: bit-exact, in the predicted cycle, and seen to fail."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

from compressor.pools import build_pool
from hwgen.build_directory import BuildError
from hwgen.plan import PlanError
from hwgen.plan_request import PlanRequest
from hwgen.program import chained_program, linear_program
from rtl_templates.array_spec import PoolStorage
from sim.cli import sim
from sim.harness import MemoryTiming, SimulationError
from sim.open_build import open_build, stream_file
from sim.runner import SimulationRequest, simulate_layers
from tests.sim.conftest import make_build


def run_command(build, *arguments):
    return CliRunner().invoke(sim, [str(build.directory), *map(str, arguments)])


def test_every_word_and_every_cycle(small_build):
    result = simulate_layers(small_build, SimulationRequest(limit=2))
    assert result.problems() == []
    program = linear_program(small_build.plan)
    assert result.words == 2 * sum(tensor.bytes for tensor in program.outputs) // 16
    assert result.cycles == result.predicted_cycles == 2 * small_build.plan.predicted_cycles
    assert result.prediction_mismatches == 0
    assert [layer.name for layer in result.layers] == list(small_build.bundle.layers)
    assert all(layer.cycles == layer.predicted_cycles for layer in result.layers)
    assert result.macs == 2 * 16 * small_build.bundle.kept_weights


@pytest.mark.parametrize("tokens", [1, 3, 4, 9])
def test_any_number_of_tokens(small_build, tokens):
    result = simulate_layers(small_build, SimulationRequest(tokens=tokens))
    assert result.problems() == []
    lanes = small_build.lanes
    rows = sum(layer.rows for layer in small_build.bundle.layers.values())
    assert result.padding_values == (-tokens % lanes) * rows


@pytest.mark.parametrize("seed", range(1, 6))
def test_random_waits_change_no_word(small_build, seed):
    result = simulate_layers(small_build, SimulationRequest(tokens=6, timing=MemoryTiming(stalls=seed)))
    assert result.problems() == []
    assert result.stalled_cycles > result.cycles
    assert result.words == 2 * sum(t.bytes for t in linear_program(small_build.plan, tokens=6).outputs) // 16


@pytest.mark.parametrize(("read", "write"), [(1, 1), (7, 30), (200, 90)])
def test_cycles_are_predicted_for_any_latency(small_build, read, write):
    timing = MemoryTiming(read_latency=read, write_latency=write)
    assert simulate_layers(small_build, SimulationRequest(timing=timing)).problems() == []


def test_some_of_the_layers(small_build):
    result = simulate_layers(small_build, SimulationRequest(layers="*output.dense"))
    assert result.problems() == []
    assert [layer.name for layer in result.layers] == ["encoder.layer.0.attention.output.dense",
                                                       "encoder.layer.0.output.dense"]


def test_chained_layers(small_build):
    for tokens in (16, 5):
        program = chained_program(small_build.plan, tokens=tokens)
        assert simulate_layers(small_build, SimulationRequest(limit=3), program=program).problems() == []


def test_sentences(small_build, tmp_path):
    """Text goes through the bundle's own tokenizer and float model to the layers' inputs."""
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"sentence": f"word{i} word{i + 1}"}) + "\n"
                                                 for i in range(3)))
    result = simulate_layers(small_build, SimulationRequest(data=tmp_path / "data.jsonl", limit=2, tokens=5))
    assert result.problems() == []
    assert (result.runs, result.tokens) == (2, 5)


def test_json_has_the_promised_keys(small_build):
    outcome = run_command(small_build, "--json", "--tokens", 5, "--layers", "*query")
    assert outcome.exit_code == 0, outcome.output
    values = json.loads(outcome.stdout)
    for part in (values, *values["layers"]):
        assert {"words", "mismatches", "cycles", "predicted_cycles", "utilization", "macs"} <= set(part)
    assert values["passed"] is True
    assert 0 < values["utilization"] <= 1
    assert sum(values["breakdown"].values()) == values["cycles"]


def test_table_ends_with_the_verdict(small_build):
    outcome = run_command(small_build, "--tokens", 5, "--stalls", 9)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.splitlines()[-1].startswith("passed: ")
    assert "random waits (seed 9)" in outcome.stdout


MUTATIONS = {
    "mux selects of a pattern decoder swapped": (
        "accelerator.array.unit0.decoder", r"assign column0_0 (.*)\n(.*)assign column0_1 ",
        r"assign column0_1 \1\n\2assign column0_0 "),
    "bias subtracted": ("accelerator.requantizer", r"\) \+ \$signed\(i", r") - $signed(i"),
    "clipped values miscounted": ("accelerator.requantizer", r" \+ clip", " - clip"),
    "one pass too few or too many": ("accelerator.controller", r" - 1'h1", " - 2'h2"),
    "activation address off by one": ("accelerator.fetch", r" \+ ", " - "),
}
"""Name: module, and what is replaced by what, once, in its Verilog."""


@pytest.mark.parametrize("name", [
    "mux selects of a pattern decoder swapped",
    *(pytest.param(name, marks=pytest.mark.nightly) for name in list(MUTATIONS)[1:])])
def test_a_mutated_design_fails(small_build, tmp_path, name):
    """One changed line of the Verilog: exit code 1, and a line that says what differs."""
    module, pattern, replacement = MUTATIONS[name]
    shutil.copytree(small_build.directory, tmp_path / "build", ignore=shutil.ignore_patterns("sim"))
    build = open_build(tmp_path / "build")
    before, text = build.verilog.read_text().split(f"module \\{module} (")
    text, changes = re.subn(pattern, replacement, text, count=1)
    assert changes == 1
    build.verilog.write_text(f"{before}module \\{module} ({text}")
    outcome = run_command(build, "--json", "--tokens", 8)
    assert outcome.exit_code == 1
    values = json.loads(outcome.stdout)
    assert values["passed"] is False
    assert "warning: " in outcome.stderr  # the manifest has another hash for the Verilog
    assert re.search("golden model|predicted|the run ended|did not end", outcome.stderr)


def test_wrong_weights_fail(small_build, tmp_path):
    """One flipped bit of one weight is one wrong channel."""
    directory = tmp_path / "build"
    shutil.copytree(small_build.directory, directory)
    path = directory / "weights" / "weights.bin"
    stream = bytearray(path.read_bytes())
    spec = small_build.plan.spec
    constants = spec.tiles.constant_beats * spec.bus_bits // 8  # the last section of a packet
    stream[-constants - 1] ^= 0x40
    path.write_bytes(stream)
    result = simulate_layers(open_build(directory), SimulationRequest(tokens=4))
    assert result.mismatches > 0
    assert [layer.mismatches > 0 for layer in result.layers] == [False] * 5 + [True]


def test_wrong_prediction_fails(small_build, monkeypatch):
    predict = __import__("hwgen.cost", fromlist=["predict_program"]).predict_program
    monkeypatch.setattr("sim.runner.predict_program",
                        lambda *a: replace(predict(*a), cycles=predict(*a).cycles + 1))
    result = simulate_layers(small_build, SimulationRequest(tokens=4))
    assert not result.passed
    assert "predicted" in result.problems()[0]


def test_broken_tile_ends_with_a_status(small_build, tmp_path):
    directory = tmp_path / "build"
    shutil.copytree(small_build.directory, directory)
    path = directory / "weights" / "weights.bin"
    stream = bytearray(path.read_bytes())
    stream[3] ^= 0xFF
    path.write_bytes(stream)
    with pytest.raises(SimulationError, match=r"run 1: the run ended with status 11 \(BAD_PACKET\)"):
        simulate_layers(open_build(directory), SimulationRequest(tokens=4))
    outcome = run_command(open_build(directory), "--tokens", 4, "--json")
    assert outcome.exit_code == 1
    assert "BAD_PACKET" in json.loads(outcome.stdout)["error"]


@pytest.mark.parametrize(("arguments", "message"), [
    (("--tokens", 17), "17 tokens do not fit"),
    (("--layers", "nothing*"), "no layer matches 'nothing*'; the layers are encoder.layer.0"),
    (("--data", "absent.jsonl"), "absent.jsonl: cannot read"),
])
def test_impossible_requests_are_one_line(small_build, arguments, message):
    outcome = run_command(small_build, *arguments)
    assert outcome.exit_code == 1
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_truncated_weights_are_refused(small_build, tmp_path):
    directory = tmp_path / "build"
    shutil.copytree(small_build.directory, directory, ignore=shutil.ignore_patterns("sim"))
    path = directory / "weights" / "weights.bin"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(BuildError, match="the plan says"):
        stream_file(open_build(directory), linear_program(small_build.plan), tmp_path)


def test_not_a_build(tmp_path):
    outcome = CliRunner().invoke(sim, [str(tmp_path)])
    assert outcome.exit_code == 1
    assert "is not a build" in outcome.stderr


def test_choosing_no_layer_is_a_plan_error(small_build):
    with pytest.raises(PlanError, match="no layer matches"):
        simulate_layers(small_build, SimulationRequest(layers="x"))


@pytest.mark.nightly
@pytest.mark.parametrize("structure", ["pattern", "dense", "nm", "mixed"])
@pytest.mark.parametrize(("rows", "lanes", "bus_bits"), [(1, 2, 64), (3, 8, 32), (4, 4, 128)])
def test_sizes_and_structures(tmp_path, structure, rows, lanes, bus_bits):
    request = PlanRequest(rows=rows, lanes=lanes, bus_bits=bus_bits, tokens=11)
    build = make_build(tmp_path, request, hidden=40, layers=2, heads=4, ffn=72, structure=structure,
                       absent_blocks=0.3, max_tokens=16)
    for seed in (1, 2, 3):
        request = SimulationRequest(timing=MemoryTiming(stalls=seed), seed=seed)
        assert simulate_layers(build, request).problems() == []
    assert simulate_layers(build, SimulationRequest(), program=chained_program(build.plan)).problems() == []


@pytest.mark.nightly
def test_pool_in_memory(tmp_path):
    request = PlanRequest(rows=2, lanes=4, bus_bits=64, tokens=11, storage=PoolStorage.RAM)
    build = make_build(tmp_path, request, hidden=32, layers=1, heads=4, ffn=64, max_tokens=16)
    assert build.pool
    assert simulate_layers(build, SimulationRequest(timing=MemoryTiming(stalls=1))).problems() == []


@pytest.mark.nightly
@pytest.mark.parametrize(("builder", "keep", "balance"), [
    ("kmeans", 8, "none"), ("frequency", 8, "none"), ("greedy", 4, "row"), ("greedy", 12, "row"),
    ("reed_muller", 8, "bank")])
def test_other_pools(tmp_path, builder, keep, balance):
    """Patterns whose rows are not balanced need routing; 4 and 12 of 16 need other numbers of slots."""
    pool = build_pool(builder, size=12, keep=keep, balance=balance)
    build = make_build(tmp_path, PlanRequest(rows=2, lanes=4, bus_bits=32, tokens=11), pool=pool,
                       hidden=32, layers=1, heads=4, ffn=48, max_tokens=16)
    assert simulate_layers(build, SimulationRequest(timing=MemoryTiming(stalls=1))).problems() == []


@pytest.mark.nightly
def test_trace_is_a_wave_and_a_trace(small_build, tmp_path):
    outcome = run_command(small_build, "--tokens", 2, "--layers", "*query", "--trace", tmp_path / "trace",
                          "--timeline", tmp_path / "timeline.svg", "--trace-cycles", "100:149")
    assert outcome.exit_code == 0, outcome.output
    assert b"m_axi_gmem1_rdata" in (tmp_path / "trace" / "wave.fst").read_bytes()
    trace = json.loads((tmp_path / "trace" / "trace.json").read_text())
    names = {event["name"] for event in trace["traceEvents"]}
    assert "encoder.layer.0.attention.self.query" in names
    assert "50 cycles" in (tmp_path / "timeline.svg").read_text()


@pytest.mark.parametrize("cycles", ["7", "9:3", "a:b", ":4"])
def test_a_range_of_cycles_is_two_numbers(small_build, cycles):
    outcome = run_command(small_build, "--trace-cycles", cycles)
    assert outcome.exit_code == 2
    assert "is no range of cycles" in outcome.stderr
