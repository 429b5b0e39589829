"""cocotb tests of the whole accelerator: registers, programs under random stalls, errors, reset, interrupt.

The file named by HWGEN_CASE says what to run and what to expect; HWGEN_STALLS lists the seeds
(0: no stalls); what each run gave goes to HWGEN_REPORT.
"""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from rtl_templates.register_map import IDENTITY, MAP_VERSION, REGISTERS, RUN_COUNTERS, Status, status_text
from sim.case import BenchCase
from sim.testbench import NEVER_WRITTEN, Testbench
from sim.vectors import compare_words

CASE = BenchCase.load(os.environ["HWGEN_CASE"]) if "HWGEN_CASE" in os.environ else None
SEEDS = [int(seed) for seed in os.environ.get("HWGEN_STALLS", "0").split(",")]
HEADER_MARKER_BYTE = 3
CLOCKS = {"timeout_time": 100, "timeout_unit": "ms"}


@cocotb.test(**CLOCKS)
@cocotb.parametrize(stalls=SEEDS)
async def program_is_bit_exact(dut, stalls):
    """Every output word equals the golden model, whatever the memory's timing; two runs give the same."""
    bench = await Testbench.start(dut, CASE, stalls=stalls)
    await bench.configure()
    await run_and_compare(bench, stalls)


@cocotb.test(**CLOCKS)
async def second_run_needs_no_reset(dut):
    """A start after a finished run does the whole program again."""
    bench = await Testbench.start(dut, CASE)
    await bench.configure()
    await run_and_compare(bench)
    bench.memory["output"].mem[:] = bytes([NEVER_WRITTEN]) * bench.memory["output"].size
    await run_and_compare(bench)


@cocotb.test(**CLOCKS)
@cocotb.parametrize(stalls=[0, 3])
async def registers_keep_what_is_written(dut, stalls):
    """Pointers and lengths read back, byte by byte too; read-only registers do not change."""
    bench = await Testbench.start(dut, CASE, stalls=stalls)
    plain = [register for register in REGISTERS
             if register.access == "rw" and not register.name.startswith("interrupt")]
    for index, register in enumerate(plain):
        await bench.write(register.name, 0x01020304 * (index + 1) & 0xFFFFFFFF)
    for index, register in enumerate(plain):
        got = await bench.read(register.name)
        assert got == 0x01020304 * (index + 1) & 0xFFFFFFFF, f"{register.name} reads {got:#x}"
    await bench.write("program_high", 0x11223344)
    await bench.control.write(REGISTERS_BY_NAME["program_high"].address + 1, b"\xAA")
    assert await bench.read("program_high") == 0x1122AA44, "a byte strobe must change its byte alone"
    expected = {"id": IDENTITY, "version": MAP_VERSION, "configuration": CASE.configuration}
    for name, value in expected.items():
        await bench.write(name, 0xFFFFFFFF)
        assert await bench.read(name) == value, f"{name} must read {value:#x}"


@cocotb.test(**CLOCKS)
async def interrupt_needs_both_enables(dut):
    """The output stays low unless the global and the done enable are set; the status bit rises anyway."""
    bench = await Testbench.start(dut, CASE)
    await bench.configure()
    await bench.write("interrupt_global", 0)
    await bench.write("control", 1)
    while not await bench.read("control") & 2:
        assert int(dut.interrupt.value) == 0, "interrupt while the global enable is 0"
    assert await bench.read("interrupt_status") & 1
    await bench.write("interrupt_global", 1)
    await ClockCycles(dut.ap_clk, 2)
    assert int(dut.interrupt.value) == 1, "the interrupt must rise once it is enabled"
    await bench.write("interrupt_status", 1)
    await ClockCycles(dut.ap_clk, 2)
    assert int(dut.interrupt.value) == 0


@cocotb.test(**CLOCKS)
@cocotb.parametrize(share=[0.02, 0.3, 0.9])
async def reset_in_mid_run_is_clean(dut, share):
    """After a reset at any time, the next run is complete and right."""
    bench = await Testbench.start(dut, CASE)
    await bench.configure()
    await bench.run()
    cycles = await bench.read("cycles")
    await bench.write("control", 1)
    await ClockCycles(dut.ap_clk, max(1, int(cycles * share)))
    await bench.reset()
    assert await bench.read("control") & 0b111 == 0b100, "idle, not started and not done after reset"
    bench.memory["output"].mem[:] = bytes([NEVER_WRITTEN]) * bench.memory["output"].size
    await bench.configure()
    await run_and_compare(bench)


@cocotb.test(**CLOCKS)
@cocotb.parametrize(memory=["program", "input", "weights", "output"])
async def error_response_ends_the_run(dut, memory):
    """An AXI error response gives a status code, the interrupt and idle; then a reset makes it well again."""
    bench = await Testbench.start(dut, CASE)
    await bench.configure()
    bench.memory[memory].fail_at = 1 if memory == "program" else 3
    status = await bench.run()
    expected = {"program": Status.PROGRAM_READ_ERROR, "input": Status.INPUT_READ_ERROR,
                "weights": Status.WEIGHT_READ_ERROR, "output": Status.OUTPUT_WRITE_ERROR}[memory]
    assert status == expected, f"status {Status(status).name}, expected {expected.name}"
    bench.memory[memory].fail_at = 0
    await bench.reset()
    await bench.configure()
    await run_and_compare(bench)


@cocotb.test(**CLOCKS)
async def bad_opcode_is_reported(dut):
    """A descriptor with an unknown opcode ends the run; the last one dispatched is the one before it."""
    program = CASE.program.copy()
    program[32] = 77
    bench = await Testbench.start(dut, replace(CASE, program=program))
    await bench.configure()
    assert await bench.run() == Status.BAD_OPCODE
    assert await bench.read("descriptor") == 0


@cocotb.test(**CLOCKS)
async def bad_packet_is_reported(dut):
    """A packet without its marker ends the run."""
    weights = CASE.weights.copy()
    weights[HEADER_MARKER_BYTE] ^= 0xFF
    bench = await Testbench.start(dut, replace(CASE, weights=weights))
    await bench.configure()
    assert await bench.run() == Status.BAD_PACKET


REGISTERS_BY_NAME = {register.name: register for register in REGISTERS}


async def run_and_compare(bench, stalls=0):
    """One run; AssertionError unless it succeeds with every word right."""
    status = await bench.run()
    assert status == Status.OK, f"descriptor {await bench.read('descriptor')}: {status_text(status)}"
    memory = bench.output()
    report = {"stalls": stalls, "profile": await bench.profile(),
              "counters": {name: await bench.read(name) for name in RUN_COUNTERS}, "layers": {}}
    failures = []
    for layer, (offset, y) in bench.case.outputs.items():
        size = -(-len(y) // bench.case.lanes) * bench.case.lanes * y.shape[1]
        comparison = compare_words(layer, memory[offset:offset + size], y, bench.case.lanes)
        first = str(comparison.first) if comparison.first else None
        report["layers"][layer] = asdict(replace(comparison, first=first))
        if comparison.mismatches:
            failures.append(f"{comparison.mismatches} of {comparison.words} words differ; {comparison.first}")
    outside = np.ones(len(memory), bool)
    for offset, y in bench.case.outputs.values():
        size = -(-len(y) // bench.case.lanes) * bench.case.lanes * y.shape[1]
        outside[offset:offset + size] = False
    stray = np.flatnonzero(outside & (memory != NEVER_WRITTEN))
    if stray.size:
        failures.append(f"output memory changed at byte {stray[0]}, where no output lies")
    if "HWGEN_REPORT" in os.environ:
        with Path(os.environ["HWGEN_REPORT"]).open("a") as file:
            file.write(json.dumps(report) + "\n")
    assert not failures, "; ".join(failures)
