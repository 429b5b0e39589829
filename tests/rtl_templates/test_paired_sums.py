"""Two lanes in one multiplier, against separate products; ports of the DSP48E2 form."""

import itertools

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwgen.synthesis import READ_PRIMITIVES
from hwgen.toolchain import run_tool
from rtl_templates.emission import emit_component
from rtl_templates.paired_row import FIRST_LATENCY
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
