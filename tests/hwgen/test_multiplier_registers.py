"""Registers that move into ECP5's multipliers: which do, and that the netlist computes the same."""

import json
import subprocess
import sys

import pytest

from hwgen.templates import render
from hwgen.toolchain import ToolError, run_tool
from hwgen.vendor import lattice

DESIGN = """
module top(input clk, input enable, input reset, input signed [5:0] a, b,
           output reg signed [11:0] product, square, cleared, output reg signed [5:0] seen);
  reg signed [5:0] held, plain, again, zeroed;
  always @(posedge clk) begin
    if (enable) held <= a;
    plain <= b;
    again <= a ^ b;
    zeroed <= reset ? 6'd0 : b;
    product <= held * plain;
    square <= again * again;
    cleared <= zeroed * plain;
    seen <= held;
  end
endmodule
"""

CYCLES = 6
"""More than a bit of the inputs is on its way."""


def model():
    """A multiplier that hands on the bits of both operands in turns.

    What registers do to them then shows as it is.
    """
    pins = {name: [f"{name}{index}" for index in range(width)]
            for name, width in (("A", 18), ("B", 18), ("P", 36))}
    vectors = {name: "{" + ", ".join(reversed(bits)) + "}" for name, bits in pins.items()}
    outputs = "\n".join(f"  assign P{2 * index} = first[{index}], P{2 * index + 1} = second[{index}];"
                        for index in range(18))
    others = [*(f"C{index}" for index in range(18)), "SIGNEDA", "SIGNEDB", "SOURCEA", "SOURCEB", "RST0"]
    return f"""
module MULT18X18D(input {", ".join(pins["A"] + pins["B"] + others)}, CLK0, CE0, CE1,
                  output {", ".join(pins["P"])});
  parameter REG_INPUTA_CLK = "NONE", REG_INPUTA_CE = "CE0", REG_INPUTA_RST = "RST0";
  parameter REG_INPUTB_CLK = "NONE", REG_INPUTB_CE = "CE0", REG_INPUTB_RST = "RST0", GSR = "ENABLED";
  reg [17:0] a = 0, b = 0;
  wire a_enable = REG_INPUTA_CE == "CE1" ? CE1 : CE0, b_enable = REG_INPUTB_CE == "CE1" ? CE1 : CE0;
  always @(posedge CLK0) begin
    if (a_enable) a <= {vectors["A"]};
    if (b_enable) b <= {vectors["B"]};
  end
  wire [17:0] first = REG_INPUTA_CLK == "CLK0" ? a : {vectors["A"]};
  wire [17:0] second = REG_INPUTB_CLK == "CLK0" ? b : {vectors["B"]};
{outputs}
endmodule
"""


def move_registers(folder):
    """The script on ``folder / "accelerator.json"``; what it printed."""
    script = folder / lattice.REGISTERS_SCRIPT
    context = lattice.LatticeContext(generated="A test.", part="", options="", inputs=0, outputs=0, places=())
    script.write_text(render(lattice.FILES[f"{lattice.DIRECTORY}/{lattice.REGISTERS_SCRIPT}"], context))
    return subprocess.run([sys.executable, script.name, "accelerator.json"], cwd=folder, check=True,
                          capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def netlists(tmp_path_factory):
    """A folder with a netlist before (``before.json``) and after the script, and what the script printed."""
    folder = tmp_path_factory.mktemp("registers")
    (folder / "top.v").write_text(DESIGN)
    run_tool("yosys", ["-q", "-p", "read_verilog top.v; synth_ecp5 -top top -json accelerator.json"],
             cwd=folder)
    (folder / "before.json").write_text((folder / "accelerator.json").read_text())
    return folder, move_registers(folder)


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["modules"]["top"]["cells"].values()
            if cell["type"] == kind]


def test_operands_without_reset_move(netlists):
    folder, printed = netlists
    after = cells(folder / "accelerator.json", "MULT18X18D")
    assert len(after) == 3
    registered = [cell for cell in after if cell["parameters"].get("REG_INPUTA_CLK") == "CLK0"]
    assert len(registered) == 2
    # 6 bits of the square's operand are needed by nothing else; the others feed `seen` and a multiplier
    # that keeps its flip-flops, since one operand has a reset.
    assert "2 multipliers have their operands' registers inside, 6 flip-flops are gone" in printed
    before, left = (len(cells(folder / name, "TRELLIS_FF")) for name in ("before.json", "accelerator.json"))
    assert before - left == 6
    enables = {cell["connections"][port][0] for cell in registered for port in ("CE0", "CE1")}
    assert "1" in enables
    assert len(enables) == 2


def prove_equal(folder, changed):
    """Equal outputs for all inputs of the first cycles, by Yosys' SAT solver; ToolError if not."""
    (folder / "model.v").write_text(model())
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


@pytest.mark.parametrize(("right", "wrong"), [('"REG_INPUTA_CE": "CE0"', '"REG_INPUTA_CE": "CE1"'),
                                          ('"REG_INPUTB_CLK": "CLK0"', '"REG_INPUTB_CLK": "NONE"')])
def test_another_netlist_does_not(netlists, right, wrong):
    folder, _ = netlists
    text = (folder / "accelerator.json").read_text()
    assert right in text
    (folder / "wrong.json").write_text(text.replace(right, wrong))
    with pytest.raises(ToolError, match="proof did fail"):
        prove_equal(folder, "wrong.json")
