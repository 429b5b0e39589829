"""Resource counts: on netlists small enough to count by hand."""

import pytest

from hwgen.synthesis import count_resources, synthesize
from hwgen.toolchain import ToolError

ACCUMULATOR = """
module top(input clk, input first, input signed [7:0] a, input signed [7:0] b, output reg signed [19:0] y);
  always @(posedge clk) y <= a * b + (first ? 20'sd0 : y);
endmodule
"""

WORD_MEMBERS = """
module top(input clk, input [15:0] word, output reg [7:0] y);
  wire [7:0] \\word[0] = word[7:0];
  wire [7:0] \\word[1] = word[15:8];
  always @(posedge clk) y <= \\word[0] & \\word[1] ;
endmodule
"""


def write(directory, text):
    file = directory / "design.v"
    file.write_text(text)
    return [file]


@pytest.mark.parametrize(("family", "sites", "ff"), [("xcup", 20, 20), ("xc7", 0, 0)])
def test_accumulator(tmp_path, family, sites, ff):
    """xcup: one site a bit, clear included, and a bare multiplier; xc7: all of it in the DSP."""
    resources = synthesize(write(tmp_path, ACCUMULATOR), "top", family)
    assert (resources.lut_sites, resources.ff, resources.dsp) == (sites, ff, 1)


def test_multiplier_in_luts(tmp_path):
    small = ACCUMULATOR.replace("[7:0] a", "[3:0] a").replace("[7:0] b", "[3:0] b").replace("[19:0]", "[9:0]")
    resources = synthesize(write(tmp_path, small), "top", "xc7", use_dsp=False)
    assert resources.dsp == 0
    assert resources.lut_sites > 20


def test_names_of_struct_members(tmp_path):
    """Wires named like bits of a port, as Amaranth writes them, once made Yosys fail."""
    resources = synthesize(write(tmp_path, WORD_MEMBERS), "top", "xcup")
    assert (resources.lut_sites, resources.lut_cells, resources.ff) == (8, 8, 8)


def cell(kind, outputs=("O", "CO"), **pins):
    return {"type": kind, "connections": {name: list(bits) for name, bits in pins.items()},
            "port_directions": {name: "output" if name in outputs else "input" for name in pins}}


def test_sites_of_a_carry_chain():
    """Two of four bits in use; one data LUT shares its site, the other needs six inputs and does not."""
    cells = {
        "sum0": cell("LUT4", I0=[10], I1=[11], I2=[12], I3=[13], O=[20]),
        "data0": cell("LUT2", I0=[10], I1=[14], O=[21]),
        "sum1": cell("LUT4", I0=[10], I1=[11], I2=[12], I3=[13], O=[22]),
        "data1": cell("LUT2", I0=[15], I1=[14], O=[23]),
        "carry": cell("CARRY4", S=[20, 22, "0", "0"], DI=[21, 23, "0", "0"], O=[30, 31, 32, 33],
                      CO=[34, 35, 36, 37]),
        "ff0": cell("FDRE", outputs="Q", D=[30], Q=[40]),
        "ff1": cell("FDRE", outputs="Q", D=[31], Q=[41]),
        "shift": cell("SRL16E", outputs="Q", D=[41], Q=[42]),
        "ram": cell("RAMB18E2", outputs="Q", D=[41], Q=[43]),
    }
    resources = count_resources({"cells": cells, "ports": {}})
    assert resources.lut_cells == 4
    assert resources.lut_sites == 2 + 1 + 1  # two carry bits, the data LUT that does not fit, the SRL
    assert (resources.ff, resources.lut_memory, resources.bram36, resources.carry) == (2, 1, 0.5, 1)


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="family must be xcup or xc7, not 'ice40'"):
        synthesize([], "top", "ice40")
    with pytest.raises(ToolError, match="yosys failed"):
        synthesize(write(tmp_path, "module top("), "top", "xcup")
