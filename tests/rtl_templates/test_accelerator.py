"""The whole accelerator against the reference, over AXI."""

import numpy as np
import pytest

from rtl_templates.accelerator import emit_verilog
from rtl_templates.array_spec import Accumulation, PoolStorage
from rtl_templates.program_format import Descriptor, Opcode, Unit
from rtl_templates.register_map import Status
from tests.rtl_templates.accelerator_bench import configure, fill, lite_write, run_program, run_programs
from tests.rtl_templates.accelerator_reference import random_tile, small_spec
from tests.rtl_templates.axi_memory import random_stalls

MASTERS = ("m_axi_gmem0", "m_axi_gmem1")
COLUMNS = 16


def words_of(rng, spec, count):
    """Bytes of ``count`` random activation words."""
    return rng.integers(-127, 128, count * spec.array.word_bits // 8).astype(np.int8).tobytes()


def linear_program(rng, spec, *, groups=2, sizes=((2, 12), (1, 3), (2, 5))):
    """LOAD, one MATMUL, STORE, END: descriptors, tiles, inputs."""
    words = sum(count for count, _ in sizes)
    descriptors = [
        Descriptor(opcode=Opcode.LOAD, length=groups * COLUMNS, destination=3),
        Descriptor(opcode=Opcode.MATMUL, wait=Unit.LOAD, groups=groups, tiles=len(sizes), source=3,
                   source_stride=COLUMNS, destination=64, destination_stride=words),
        Descriptor(opcode=Opcode.STORE, wait=Unit.ARRAY, source=64, length=groups * words),
        Descriptor(opcode=Opcode.END)]
    tiles = [random_tile(rng, spec, ksteps, count, COLUMNS) for count, ksteps in sizes]
    return descriptors, tiles, words_of(rng, spec, groups * COLUMNS)


def busy_program(rng, spec):
    """Two products back to back, results of one read by another, transfers beside the array."""
    load, matmul, store = Opcode.LOAD, Opcode.MATMUL, Opcode.STORE
    layout = {"source_stride": 16, "destination_stride": 4, "groups": 2}
    descriptors = [
        Descriptor(opcode=load, length=32),
        Descriptor(opcode=matmul, wait=Unit.LOAD, tiles=2, source=0, destination=64, **layout),
        Descriptor(opcode=matmul, tiles=3, source=0, destination=72, **layout),
        Descriptor(opcode=load, length=32, destination=32, offset=128 * spec.bus_bits // 8),
        Descriptor(opcode=store, wait=Unit.ARRAY, source=64, length=16, offset=spec.bus_bits // 8),
        Descriptor(opcode=matmul, wait=Unit.LOAD, tiles=2, source=32, destination=80, **layout),
        Descriptor(opcode=matmul, wait=Unit.ARRAY, tiles=1, source=72, destination=88, groups=1),
        Descriptor(opcode=store, wait=Unit.ARRAY, source=80, length=12, offset=4096 - spec.bus_bits // 8),
        Descriptor(opcode=Opcode.END)]
    sizes = [(2, 3), (2, 17), (2, 1), (1, 24), (1, 6), (2, 8), (2, 9)]
    tiles = [random_tile(rng, spec, ksteps, words, COLUMNS) for words, ksteps in sizes]
    return descriptors, [*tiles, random_tile(rng, spec, 5, 2, 8)], words_of(rng, spec, 600)


def test_one_product():
    rng = np.random.default_rng(1)
    spec = small_spec()
    run = run_program(spec, *linear_program(rng, spec))
    assert run.status == Status.OK
    assert run.output == run.expected
    assert any(run.expected)
    assert run.registers["tiles"] == 3
    assert run.registers["busy_cycles"] == 2 * (12 + 3 + 5)
    assert run.registers["descriptor"] == 3
    values = np.frombuffer(run.expected, np.int8)
    assert run.registers["saturations"] >= (np.abs(values) == 127).sum() * 0.9 > 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bus_bits", [32, 64])
def test_random_stalls(bus_bits, seed):
    """Every output word is right whatever the memory does, in two runs without a reset in between."""
    rng = np.random.default_rng(seed)
    spec = small_spec(bus_bits=bus_bits)
    programs = [busy_program(rng, spec), linear_program(rng, spec)]
    share = (0.3, 0.6, 0.8)[seed]
    for run in run_programs(spec, programs, read_latency=1 + 20 * seed, write_latency=1 + 9 * seed,
                            stalls=random_stalls(seed, *MASTERS, share=share)):
        assert run.status == Status.OK
        assert run.output == run.expected


@pytest.mark.parametrize("sizes", [
    {"bus_bits": 128, "lanes": 4},
    {"bus_bits": 64, "lanes": 6, "units": 4},
    {"bus_bits": 32, "slots": 1, "units": 3, "program_depth": 9},
    {"bus_bits": 128, "lanes": 4, "slots": 4, "units": 2},
    {"bus_bits": 512, "lanes": 16, "units": 8},
    {"storage": PoolStorage.RAM},
    {"storage": PoolStorage.STREAM, "patterns": 20},
    {"accumulation": Accumulation.PAIRED, "lanes": 4, "bus_bits": 128},
    {"accumulation": Accumulation.PAIRED, "storage": PoolStorage.RAM},
], ids=lambda sizes: "-".join(f"{name}{value}" for name, value in sizes.items()))
def test_shapes(sizes):
    rng = np.random.default_rng(2)
    spec = small_spec(**sizes)
    run = run_program(spec, *busy_program(rng, spec), stalls=random_stalls(7, *MASTERS, share=0.3))
    assert run.status == Status.OK
    assert run.output == run.expected


def test_shortest_passes():
    """As many passes in flight as there can be: a word each, four cycles apart, in a row of token groups."""
    rng = np.random.default_rng(6)
    spec, groups = small_spec(), 20
    descriptors = [
        Descriptor(opcode=Opcode.LOAD, length=2 * groups),
        Descriptor(opcode=Opcode.MATMUL, wait=Unit.LOAD, groups=groups, tiles=3, source=0, source_stride=2,
                   destination=64, destination_stride=3),
        Descriptor(opcode=Opcode.STORE, wait=Unit.ARRAY, source=64, length=3 * groups),
        Descriptor(opcode=Opcode.END)]
    tiles = [random_tile(rng, spec, ksteps, 1, 2) for ksteps in (1, 4, 2)]
    run = run_program(spec, descriptors, tiles, words_of(rng, spec, 2 * groups))
    assert run.status == Status.OK
    assert run.output == run.expected


def test_reset_in_the_middle_of_a_run():
    """A reset at any time leaves nothing behind: the next run has right results and predicted cycles."""
    rng = np.random.default_rng(3)
    spec = small_spec()
    program = linear_program(rng, spec)
    undisturbed = run_program(spec, *program)
    for cycle in (20, 60, 110, 150):
        async def disturb(ctx, dut, memory, cycle=cycle):
            beats = fill(memory, spec, *program)
            await configure(ctx, dut, program_length=len(program[0]), weights_beats=beats)
            await lite_write(ctx, dut, 0, 1)
            for _ in range(cycle):
                await ctx.tick()
            ctx.set(dut.ap_rst_n, 0)
            for _ in range(2):
                await ctx.tick()

        (run,) = run_programs(spec, [program], disturb=disturb)
        assert run.output == run.expected
        assert run.registers == undisturbed.registers


def test_runs_are_alike():
    """Nothing of a run shows in the next: same registers, same dispatch times."""
    rng = np.random.default_rng(4)
    spec = small_spec()
    program = busy_program(rng, spec)
    first, second = run_programs(spec, [program, program])
    assert first == second


def test_verilog_is_reproducible_and_flat():
    spec = small_spec()
    text = emit_verilog(spec)
    assert text == emit_verilog(spec)
    assert "src =" not in text
    for port in ("ap_clk", "ap_rst_n", "interrupt", "s_axi_control_awaddr", "m_axi_gmem0_wdata",
                 "m_axi_gmem1_araddr"):
        assert f" {port};" in text
