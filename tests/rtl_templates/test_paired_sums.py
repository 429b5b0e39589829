"""Two lanes in one multiplier: against separate products, and the DSP48E2 form against the behavioural one.

The vendor's model of the DSP48E2 is no part of this project: with a folder that holds ``DSP48E2.v`` (the
unisims of a Vivado installation, or of XilinxUnisimLibrary on GitHub) in the variable UNISIMS, Icarus
simulates both forms side by side.
"""

import itertools
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwgen.synthesis import READ_PRIMITIVES
from hwgen.toolchain import find_tool, run_tool
from rtl_templates.dsp48e2 import Dsp48e2Row
from rtl_templates.emission import emit_component, emit_row
from rtl_templates.paired_row import FIRST_LATENCY, PairedRow
from rtl_templates.paired_sums import PairedSums, separate

CORNERS = (-128, -127, -1, 0, 1, 127)


def run_ksteps(slots, bits, ksteps):
    """Sums (low, high) after each of the ``ksteps``, (high, low, weights, accumulate, first) each."""
    dut = PairedSums(slots, bits)
    delay = FIRST_LATENCY + slots - 1
    got = []

    async def testbench(ctx):
        for cycle in range(len(ksteps) + delay + 1):
            if cycle > delay:
                got.append(tuple(ctx.get(lane) for lane in separate(dut.sums)))
            arriving = ksteps[cycle - delay] if delay <= cycle < len(ksteps) + delay else (0, 0, 0, 0, 0)
            ctx.set(dut.accumulate, arriving[3])
            ctx.set(dut.first, arriving[4])
            if cycle < len(ksteps):
                for port, values in zip((dut.high, dut.low, dut.weights), ksteps[cycle], strict=False):
                    ctx.set(port, [int(value) for value in values])
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return got


def expected_sums(ksteps):
    """What separate accumulators hold after each K-step."""
    low = high = 0
    for high_values, low_values, weights, accumulate, first in ksteps:
        if accumulate:
            low, high = (0, 0) if first else (low, high)
            low += int(np.dot(low_values, weights))
            high += int(np.dot(high_values, weights))
        yield low, high


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_all_corners_of_a_single_product(slots):
    rng = np.random.default_rng(0)
    ksteps = []
    for index, (high, low, weight) in enumerate(itertools.product(CORNERS, repeat=3)):
        operands = np.zeros((3, slots), int)
        operands[:, index % slots] = high, low, weight
        ksteps.append((*operands, 1, int(rng.random() < 0.5)))
    ksteps[0] = (*ksteps[0][:4], 1)
    assert run_ksteps(slots, 28, ksteps) == list(expected_sums(ksteps))


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("extreme", [False, True])
def test_random_passes_with_idle_cycles(slots, extreme):
    """Long passes run over many times, up and down; idle cycles carry rubbish."""
    rng = np.random.default_rng(slots)

    def operands():
        if extreme:
            return rng.choice(CORNERS, size=(3, slots))
        return rng.integers(-128, 128, size=(3, slots))
    ksteps = [(*operands(), int(rng.random() < 0.8), int(rng.random() < 0.02)) for _ in range(1500)]
    ksteps[0] = (*ksteps[0][:3], 1, 1)
    assert run_ksteps(slots, 28, ksteps) == list(expected_sums(ksteps))


@pytest.mark.parametrize("signs", list(itertools.product((-128, 127), repeat=3)))
def test_the_largest_steps_wrap_as_often_as_they_must(signs):
    """300 K-steps of the largest products: 2**16 a K-step is the most that four slots can add."""
    ksteps = [(*([value] * 4 for value in signs), 1, int(k == 0)) for k in range(300)]
    got = run_ksteps(4, 28, ksteps)
    assert got == list(expected_sums(ksteps))
    assert max(abs(value) for value in got[-1]) > 300 * 4 * 127 * 127 - 1


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_yosys_knows_every_port_and_parameter_of_the_primitives(slots, tmp_path):
    (tmp_path / "top.v").write_text(emit_component(PairedSums(slots, 28), "top"))
    counted = run_tool("yosys", ["-p", f"{READ_PRIMITIVES}; read_verilog top.v; hierarchy -check -top top; "
                                       "proc; flatten; check -assert; select -assert-count "
                                       f"{slots} t:DSP48E2"], cwd=tmp_path)
    assert "ERROR" not in counted


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
