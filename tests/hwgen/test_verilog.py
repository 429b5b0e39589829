"""Every tool that a user may have accepts the generated Verilog: Verilator, Icarus, Yosys and slang."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from compressor.pools import build_pool
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.synthesis import READ_PRIMITIVES
from hwgen.toolchain import ToolError, find_tool
from hwgen.verilog import TOP, tidy, write_verilog
from rtl_templates.array_spec import Accumulation, PoolStorage
from tests.bundles import random_bundle, random_encoder_bundle

WAIVERS = Path(__file__).parents[2] / "sim" / "waivers.vlt"

CASES = {
    "balanced, rom": ({}, PlanRequest(rows=2, lanes=4)),
    "balanced, ram, sums in dsp": ({}, PlanRequest(rows=1, lanes=2, storage=PoolStorage.RAM,
                                                   accumulation=Accumulation.DSP)),
    "paired lanes": ({}, PlanRequest(rows=2, lanes=2, accumulation=Accumulation.PAIRED)),
    "paired lanes, n = 1": ({"pool": build_pool("frequency", size=4, keep=4)}, PlanRequest(
        rows=1, lanes=2, accumulation=Accumulation.PAIRED)),
    "2:4": ({"structure": "mixed"}, PlanRequest(rows=3, lanes=3)),
    "unbalanced, rom": ({"pool": build_pool("frequency", size=6, balance="none")},
                        PlanRequest(rows=2, lanes=2)),
    "encoder": ({"make": random_encoder_bundle}, PlanRequest(rows=1, lanes=8, tokens=11)),
    "encoder with pruned maps": ({"make": random_encoder_bundle, "map_pruning": True},
                                 PlanRequest(rows=4, lanes=4, tokens=11)),
    "one unit, one lane": ({"pool": build_pool("frequency", size=4, keep=4)}, PlanRequest(rows=1, lanes=1)),
}


@pytest.fixture(scope="module", params=CASES)
def verilog(request, tmp_path_factory):
    arguments, sizes = CASES[request.param]
    arguments = {"make": random_bundle, "hidden": 16, "heads": 2, "ffn": 32, "layers": 1} | arguments
    bundle = arguments.pop("make")(**arguments)
    directory = tmp_path_factory.mktemp("verilog")
    write_verilog(make_plan(bundle, sizes), directory)
    return directory / f"{TOP}.v"


def run(tool, *arguments, cwd):
    found = find_tool(tool)
    return subprocess.run([str(found.path), *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, **found.environment})


def test_verilator_lints_clean_with_the_written_waivers(verilog):
    result = run("verilator", "--lint-only", "-Wall", "--language", "1364-2005", "--top-module", TOP,
                 WAIVERS, verilog, cwd=verilog.parent)
    assert (result.returncode, result.stderr) == (0, "")


def test_every_waiver_has_a_reason_above_it():
    lines = WAIVERS.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("lint_off"):
            above = [other for other in lines[:number] if not other.startswith("lint_off")]
            assert above[-1].startswith("//"), line


def test_icarus_compiles_it_without_warnings(verilog):
    try:
        result = run("iverilog", "-g2005", "-Wall", "-t", "null", "-s", TOP, verilog.name, cwd=verilog.parent)
    except ToolError as error:
        pytest.skip(str(error))
    assert result.returncode == 0, result.stderr
    unexpected = [line for line in result.stderr.splitlines() if "timescale" not in line]
    assert not unexpected


YOSYS_SCRIPT = f"{READ_PRIMITIVES}; read_verilog {TOP}.v; hierarchy -check -top {TOP}; proc; check -assert"


def test_yosys_finds_no_loops_conflicts_or_undriven_wires(verilog):
    """With the primitives: Yosys defines the macro that chooses them."""
    result = run("yosys", "-q", "-p", YOSYS_SCRIPT, cwd=verilog.parent)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.skipif(shutil.which("yosys") is None, reason="this system has no Yosys of its own")
def test_the_systems_older_yosys_agrees(verilog):
    result = subprocess.run(["yosys", "-q", "-p", YOSYS_SCRIPT], cwd=verilog.parent, capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_slang_elaborates_it_without_errors(verilog):
    pyslang = pytest.importorskip("pyslang")
    from pyslang.ast import Compilation
    from pyslang.syntax import SyntaxTree

    compilation = Compilation()
    compilation.addSyntaxTree(SyntaxTree.fromFile(str(verilog)))
    diagnostics = compilation.getAllDiagnostics()
    engine = pyslang.DiagnosticEngine(compilation.sourceManager)
    assert not [d for d in diagnostics if d.isError()], engine


def test_ports_are_flat_and_have_the_names_that_vendor_tools_infer(verilog):
    text = verilog.read_text()
    header = re.search(rf"^module {TOP}\((.*?)\);", text, re.DOTALL | re.MULTILINE)[1]
    ports = re.findall(r"\w+", header)
    assert {"ap_clk", "ap_rst_n", "interrupt"} <= set(ports)
    prefixes = ("s_axi_control_", "m_axi_gmem0_", "m_axi_gmem1_")
    assert all(port.startswith(prefixes) or port in ("ap_clk", "ap_rst_n", "interrupt") for port in ports)
    channels = {prefix: {port[len(prefix):] for port in ports if port.startswith(prefix)}
                for prefix in prefixes}
    read = {"araddr", "arvalid", "arready", "rdata", "rresp", "rvalid", "rready"}
    write = {"awaddr", "awvalid", "awready", "wdata", "wstrb", "wvalid", "wready",
             "bresp", "bvalid", "bready"}
    burst = {"arlen", "arsize", "arburst", "rlast"}
    assert channels["s_axi_control_"] >= read | write
    assert channels["m_axi_gmem0_"] >= read | write | burst | {"awlen", "awsize", "awburst", "wlast"}
    assert channels["m_axi_gmem1_"] >= read | burst


def test_the_text_names_no_file_of_the_machine_that_made_it(verilog):
    text = verilog.read_text()
    assert "src =" not in text
    assert str(Path(__file__).parents[2]) not in text


def test_tidy_drops_empty_wires_and_shortens_zeros_only():
    kept = "  wire [0:0] one;\n  initial begin\n    data[0] = 8'h00;\n    data[1] = 8'h01;\n  end\n"
    assert tidy("  wire [-1:0] \\a.b ;\n  wire [-1:0] c;\n" + kept) == kept
