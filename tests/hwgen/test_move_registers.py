"""Registers that move into multipliers and block RAMs of ECP5: which do, and that nothing else changes."""

import json
import subprocess
import sys

import pytest

from hwgen.templates import render
from hwgen.toolchain import ToolError, run_tool
from hwgen.vendor import lattice

DESIGN = """
module top(input clk, input enable, input reset, input signed [5:0] a, b, input [10:0] address,
           output reg signed [11:0] product, square, cleared, output reg signed [5:0] seen,
           output reg [7:0] word, kept);
  reg signed [5:0] held, plain, again, zeroed;
  (* no_rw_check *) reg [7:0] memory [0:2047], other [0:2047];
  reg [7:0] read, read_other;
  always @(posedge clk) begin
    if (enable) held <= a;
    plain <= b;
    again <= a ^ b;
    zeroed <= reset ? 6'd0 : b;
    product <= held * plain;
    square <= again * again;
    cleared <= zeroed * plain;
    seen <= held;
    if (enable) begin memory[{a, b[4:0]}] <= {a, b}; other[{a, b[4:0]}] <= {b, a}; end
    if (!reset) read <= memory[address];
    read_other <= other[address];
    word <= read;
    if (enable) kept <= read_other;
  end
endmodule
"""

CYCLES = 6
"""More than a bit of the inputs is on its way."""


@pytest.fixture(scope="module")
def netlists(tmp_path_factory):
    """A folder with a netlist before (``before.json``) and after the script, and what the script printed."""
    folder = tmp_path_factory.mktemp("registers")
    (folder / "top.v").write_text(DESIGN)
    run_tool("yosys", ["-q", "-p", "read_verilog top.v; synth_ecp5 -top top -json accelerator.json"],
             cwd=folder)
    (folder / "before.json").write_text((folder / "accelerator.json").read_text())
    script = folder / lattice.REGISTERS_SCRIPT
    context = lattice.LatticeContext(generated="A test.", part="", options="", inputs=0, outputs=0, places=())
    script.write_text(render(lattice.FILES[f"{lattice.DIRECTORY}/{lattice.REGISTERS_SCRIPT}"], context))
    printed = subprocess.run([sys.executable, script.name, "accelerator.json"], cwd=folder, check=True,
                             capture_output=True, text=True).stdout
    return folder, printed


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["modules"]["top"]["cells"].values()
            if cell["type"] == kind]


def test_operands_without_reset_move(netlists):
    folder, printed = netlists
    after = cells(folder / "accelerator.json", "MULT18X18D")
    assert len(after) == 3
    registered = [cell for cell in after if cell["parameters"].get("REG_INPUTA_CLK") == "CLK0"]
    assert len(registered) == 2
    # Only the square's operand is needed by nothing else; the others feed `seen` and a multiplier that
    # keeps its flip-flops, since one operand has a reset.
    assert "2 multipliers have registers inside, 6 flip-flops are gone" in printed
    enables = {cell["connections"][port][0] for cell in registered for port in ("CE0", "CE1")}
    assert "1" in enables
    assert len(enables) == 2


def test_outputs_without_enable_move(netlists):
    folder, printed = netlists
    modes = sorted({cell["parameters"][f"REGMODE_{side}"] for side in "AB"}
                   for cell in cells(folder / "accelerator.json", "DP16KD"))
    assert [sorted(of_cell) for of_cell in modes] == [["NOREG"], ["NOREG", "OUTREG"]]
    assert "1 ports of block RAMs have registers inside, 8 flip-flops are gone" in printed
    before, left = (len(cells(folder / name, "TRELLIS_FF")) for name in ("before.json", "accelerator.json"))
    assert before - left == 6 + 8


def module(folder, kind, body):
    """Verilog of a model with all ports and parameters of a kind of cell in both netlists."""
    found = [cell for name in ("before.json", "accelerator.json") for cell in cells(folder / name, kind)]
    ports = {port: direction for cell in found for port, direction in cell["port_directions"].items()}
    parameters = sorted({name for cell in found for name in cell["parameters"]})
    header = ", ".join(f"{direction} {port}" for port, direction in ports.items())
    return f"module {kind}({header});\n" + "".join(
        f"  parameter {name} = 0;\n" for name in parameters) + body + "endmodule\n"


def bits(name, width):
    return "{" + ", ".join(f"{name}{index}" for index in reversed(range(width))) + "}"


def multiplier(folder):
    """Hands on the bits of both operands in turns: what registers do to them then shows as it is."""
    body = "  reg [17:0] a = 0, b = 0;\n"
    for name in "AB":
        low = name.lower()
        body += (f'  wire {low}_enable = REG_INPUT{name}_CE == "CE1" ? CE1 : CE0;\n'
                 f"  always @(posedge CLK0) if ({low}_enable) {low} <= {bits(name, 18)};\n"
                 f'  wire [17:0] {low}_used = REG_INPUT{name}_CLK == "CLK0" ? {low} : {bits(name, 18)};\n')
    return module(folder, "MULT18X18D", body + "".join(
        f"  assign P{2 * index} = a_used[{index}], P{2 * index + 1} = b_used[{index}];\n"
        for index in range(18)))


def block_ram(folder):
    """Reads its address: the words do not matter to the registers behind them."""
    body = ""
    for side in "AB":
        body += (f"  reg [17:0] word{side} = 0, late{side} = 0;\n"
                 f"  always @(posedge CLK{side}) if (CE{side}) word{side} <= {bits(f'AD{side}', 14)};\n"
                 f"  always @(posedge CLK{side}) if (OCE{side}) late{side} <= word{side};\n"
                 f"  assign {bits(f'DO{side}', 18)} =\n"
                 f'    REGMODE_{side} == "OUTREG" ? late{side} : word{side};\n')
    return module(folder, "DP16KD", body)


def prove_equal(folder, changed):
    """Equal outputs for all inputs of the first cycles, by Yosys' SAT solver; ToolError if not."""
    (folder / "model.v").write_text(multiplier(folder) + block_ram(folder))
    steps = []
    for name, netlist in (("gold", "before.json"), ("gate", changed)):
        steps += [f"read_json {netlist}", "delete =A:blackbox =A:whitebox",
                  "read_verilog -overwrite +/lattice/cells_sim_ecp5.v", "read_verilog -overwrite model.v",
                  "hierarchy -check -top top", "proc", "flatten", "opt_clean", f"rename top {name}",
                  f"design -stash {name}"]
    steps += ["design -copy-from gold gold", "design -copy-from gate gate",
              "miter -equiv -flatten -make_assert gold gate miter", "hierarchy -top miter", "async2sync",
              f"sat -verify -prove-asserts -seq {CYCLES} miter"]
    return run_tool("yosys", ["-p", "; ".join(steps)], cwd=folder)


def test_the_netlist_computes_the_same(netlists):
    folder, _ = netlists
    prove_equal(folder, "accelerator.json")


@pytest.mark.parametrize(("right", "wrong"), [
    ('"REG_INPUTA_CE": "CE0"', '"REG_INPUTA_CE": "CE1"'),
    ('"REG_INPUTB_CLK": "CLK0"', '"REG_INPUTB_CLK": "NONE"'),
    ('"OUTREG"', '"NOREG"')])
def test_another_netlist_does_not(netlists, right, wrong):
    folder, _ = netlists
    text = (folder / "accelerator.json").read_text()
    assert right in text
    (folder / "wrong.json").write_text(text.replace(right, wrong))
    with pytest.raises(ToolError, match="proof did fail"):
        prove_equal(folder, "wrong.json")
