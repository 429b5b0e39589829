"""Every error ends in a status code, an interrupt and an idle accelerator that can run again."""

from dataclasses import replace

import numpy as np
import pytest

from rtl_templates.program_format import Descriptor, Opcode, Unit
from rtl_templates.register_map import Status
from tests.rtl_templates.accelerator_bench import run_programs
from tests.rtl_templates.accelerator_reference import random_tile, small_spec
from tests.rtl_templates.axi_memory import random_stalls

MASTERS = ("m_axi_gmem0", "m_axi_gmem1")
SPEC = small_spec(watchdog_bits=9)


def good_program():
    rng = np.random.default_rng(1)
    sizes = [(2, 12), (1, 3), (2, 20), (2, 24), (2, 24)]
    descriptors = [Descriptor(opcode=Opcode.LOAD, length=100),
                   Descriptor(opcode=Opcode.MATMUL, wait=Unit.LOAD, groups=1, tiles=5, source_stride=16,
                              destination=100),
                   Descriptor(opcode=Opcode.STORE, wait=Unit.ARRAY, source=20, length=90),
                   Descriptor(opcode=Opcode.END)]
    tiles = [random_tile(rng, SPEC, ksteps, words) for words, ksteps in sizes]
    return descriptors, tiles, rng.integers(-127, 128, 1000).astype(np.int8).tobytes()


class RawTile:
    """A packet with bits of its header turned over."""

    def __init__(self, tile, flip):
        self.tile = tile
        self.flip = flip

    def pack(self, spec):
        raw = self.tile.pack(spec)
        raw[:4] = (raw[:4].view("<u4") ^ np.uint32(self.flip)).view(np.uint8)
        return raw


class RawDescriptor:
    """A descriptor with another opcode byte."""

    def __init__(self, descriptor, opcode):
        self.descriptor = descriptor
        self.opcode = opcode

    def pack(self):
        return bytes([self.opcode]) + self.descriptor.pack()[1:]


def statuses(*programs, **options):
    """Statuses of runs without a reset in between; the last, of a good program, must be right."""
    *runs, last = run_programs(SPEC, [*programs, good_program()], **options)
    assert last.status == Status.OK
    assert last.output == last.expected
    assert all(run.registers["control"] & 2 for run in runs), "an error must raise done"
    return [run.status for run in runs]


def with_descriptors(change):
    descriptors, tiles, inputs = good_program()
    return change(descriptors), tiles, inputs


def with_header(tile, flip):
    descriptors, tiles, inputs = good_program()
    tiles[tile] = RawTile(tiles[tile], flip)
    return descriptors, tiles, inputs


def test_bad_descriptors():
    """Unknown opcodes; counts of 0, which would never end."""
    changes = [lambda d, opcode=opcode: [d[0], RawDescriptor(d[1], opcode), *d[2:]]
               for opcode in (0, 4, 254)]
    changes += [lambda d, fields=fields: [replace(d[0], **fields), *d[1:]] for fields in (
        {"length": 0}, {"opcode": Opcode.STORE, "length": 0},
        {"opcode": Opcode.MATMUL, "tiles": 0, "groups": 1}, {"opcode": Opcode.MATMUL, "tiles": 1})]
    assert set(statuses(*map(with_descriptors, changes))) == {Status.BAD_OPCODE}


def test_bad_program_lengths():
    """Without END: what an earlier, longer program left behind is not executed. Longer than the memory."""
    end = Descriptor(opcode=Opcode.END)
    full = [Descriptor(opcode=Opcode.LOAD, length=1)] * (SPEC.program_depth - 1) + [end]
    assert statuses(good_program(), with_descriptors(lambda d: d[:1]), with_descriptors(lambda d: []),
                    with_descriptors(lambda d: [end, *full]), with_descriptors(lambda d: full)) == [
        Status.OK, Status.BAD_OPCODE, Status.BAD_OPCODE, Status.BAD_OPCODE, Status.OK]


def test_bad_tiles():
    """Marker; K-steps 0 and 28 (24 fit); words 0, 3, 6 (2 are there)."""
    headers = [(0, 1 << 24), (2, 1 << 31), (1, 3), (0, 16), (0, 2 << 16), (0, 1 << 16), (1, 7 << 16)]
    assert set(statuses(*(with_header(*header) for header in headers))) == {Status.BAD_TILE}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("error", [
    ("m_axi_gmem0", 0), ("m_axi_gmem0", 15), ("m_axi_gmem0", 16), ("m_axi_gmem0", 115),
    ("m_axi_gmem1", 0), ("m_axi_gmem1", 80)], ids=str)
def test_read_errors(error, seed):
    """On the program (the first 16 beats), an input or the weights, with bursts still under way."""
    stalls = random_stalls(seed, *MASTERS, share=0.4) if seed else {}
    assert statuses(good_program(), read_errors={error}, read_latency=30, stalls=stalls) == [
        Status.READ_ERROR]


@pytest.mark.parametrize("response", [0, 1])
def test_write_errors(response):
    assert statuses(good_program(), write_errors={("m_axi_gmem0", response)}) == [Status.WRITE_ERROR]


def test_error_while_transfers_are_under_way():
    """Bursts that were promised are completed before the accelerator reports an error."""
    for descriptor in (Descriptor(opcode=Opcode.STORE, length=90), Descriptor(opcode=Opcode.LOAD, length=90)):
        program = with_descriptors(lambda d, first=descriptor: [first, RawDescriptor(d[0], 7)])
        assert statuses(program, stalls=random_stalls(3, *MASTERS, share=0.5)) == [Status.BAD_OPCODE]


def test_watchdog():
    """The last dispatched descriptor says where a run hangs."""
    run, = run_programs(SPEC, [good_program()], weights_beats=20)
    assert run.status == Status.WATCHDOG
    assert run.registers["descriptor"] == 1


def test_watchdog_without_answers():
    """A memory that never answers cannot be waited for: the accelerator gives up, and wants a reset."""
    run, = run_programs(SPEC, [good_program()], stalls={"m_axi_gmem0_r": lambda cycle: True})
    assert run.status == Status.WATCHDOG
    assert 2 << SPEC.watchdog_bits < run.registers["cycles"] < 3 << SPEC.watchdog_bits


def test_more_weights_than_the_program_takes():
    descriptors, tiles, inputs = good_program()
    assert statuses((descriptors, tiles * 3, inputs)) == [Status.OK]
