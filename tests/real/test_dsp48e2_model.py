"""A row of DSP48E2 primitives against its behavioural twin, in the vendor's own model of the primitive.

The model is no part of this project. With a folder that holds ``DSP48E2.v`` (the unisims of a Vivado
installation, or of XilinxUnisimLibrary on GitHub) in the variable UNISIMS, Icarus simulates both::

    UNISIMS=FOLDER pytest tests/real/test_dsp48e2_model.py
"""

import os
import subprocess
from pathlib import Path

import pytest

from hwgen.toolchain import find_tool, run_tool
from rtl_templates.dsp48e2 import Dsp48e2Row
from rtl_templates.emission import emit_row
from rtl_templates.paired_row import PairedRow

BENCH = """\
`timescale 1 ps / 1 ps
module glbl; wire GSR = 1'b0; endmodule
module bench;
  reg clk = 0, accumulate = 0, first = 0;
  reg [WIDTH-1:0] high = 0, low = 0, weights = 0;
  wire [47:0] twin_total, dsp_total;
  integer cycle, slot, errors = 0, moves = 0;
  twin twin (.clk(clk), .rst(1'b0), .high(high), .low(low), .weights(weights), .accumulate(accumulate),
             .first(first), .total(twin_total));
  primitives dsp (.clk(clk), .rst(1'b0), .high(high), .low(low), .weights(weights),
                  .accumulate(accumulate), .first(first), .total(dsp_total));
  function [7:0] draw(input integer ignored);
    case ($urandom % 4)
      0: draw = 8'h80; 1: draw = 8'h7f; default: draw = $urandom;
    endcase
  endfunction
  initial begin
    for (cycle = 0; cycle < 20000; cycle = cycle + 1) begin
      #500 clk = 1; #250;
      if (twin_total !== dsp_total) errors = errors + 1;
      if (accumulate) moves = moves + 1;
      for (slot = 0; slot < WIDTH / 8; slot = slot + 1) begin
        high[8*slot +: 8] = draw(0); low[8*slot +: 8] = draw(0); weights[8*slot +: 8] = draw(0);
      end
      accumulate = $urandom % 4 != 0; first = $urandom % 16 == 0;
      #250 clk = 0;
    end
    $display("errors %0d of %0d, %0d K-steps", errors, cycle, moves);
    $finish;
  end
endmodule
"""


@pytest.mark.skipif("UNISIMS" not in os.environ, reason="UNISIMS names no folder with DSP48E2.v")
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_primitives_equal_the_behavioural_row_in_the_vendors_model(slots, tmp_path):
    (tmp_path / "top.v").write_text(emit_row(Dsp48e2Row(slots), "primitives")
                                    + emit_row(PairedRow(slots), "twin")
                                    + BENCH.replace("WIDTH", str(8 * slots)))
    model = Path(os.environ["UNISIMS"]).absolute() / "DSP48E2.v"
    run_tool("iverilog", ["-g2012", "-o", "bench", "-s", "bench", "-s", "glbl", "top.v", model], cwd=tmp_path)
    vvp = find_tool("iverilog").path.with_name("vvp")
    printed = subprocess.run([vvp, "bench"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "errors 0 of 20000" in printed, printed
