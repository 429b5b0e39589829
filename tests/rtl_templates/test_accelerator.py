"""The whole accelerator against the reference, over AXI."""

import numpy as np
from accelerator_bench import run_program
from accelerator_reference import random_tile, small_spec

from rtl_templates.accelerator import emit_verilog
from rtl_templates.program_format import Descriptor, Opcode, Unit
from rtl_templates.register_map import Status


def words_of(rng, spec, count):
    """Bytes of ``count`` random activation words."""
    return rng.integers(-127, 128, count * spec.array.word_bits // 8).astype(np.int8).tobytes()


def linear_program(*, groups, tiles, words, columns=16):
    """LOAD, one MATMUL, STORE, END: all token groups of one product."""
    return [Descriptor(opcode=Opcode.LOAD, length=groups * columns, destination=3),
            Descriptor(opcode=Opcode.MATMUL, wait=Unit.LOAD, groups=groups, tiles=tiles, source=3,
                       source_stride=columns, destination=64, destination_stride=words),
            Descriptor(opcode=Opcode.STORE, wait=Unit.ARRAY, source=64, length=groups * words),
            Descriptor(opcode=Opcode.END)]


def test_one_product():
    rng = np.random.default_rng(1)
    spec = small_spec()
    tiles = [random_tile(rng, spec, 12, 2), random_tile(rng, spec, 3, 1)]
    run = run_program(spec, linear_program(groups=2, tiles=2, words=3), tiles, words_of(rng, spec, 32))
    assert run.output == run.expected
    assert any(run.expected)
    assert run.registers["status"] == Status.OK
    assert run.registers["tiles"] == 2
    assert run.registers["busy_cycles"] == 2 * (12 + 3)


def test_verilog_is_reproducible_and_flat():
    spec = small_spec()
    text = emit_verilog(spec)
    assert text == emit_verilog(spec)
    assert "/" + "work" not in text
    for port in ("ap_clk", "ap_rst_n", "interrupt", "s_axi_control_awaddr", "m_axi_gmem0_wdata",
                 "m_axi_gmem1_araddr"):
        assert f" {port};" in text
