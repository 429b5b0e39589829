"""Every error ends in a status code, an interrupt and an idle accelerator that can run again."""

from dataclasses import replace

import numpy as np
import pytest

from rtl_templates.program_format import Descriptor, Opcode, Unit
from rtl_templates.register_map import Status
from tests.rtl_templates.accelerator_bench import configure, fill, run_programs, run_to_interrupt
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
    assert not any(run.owed for run in runs), "done came before the bus had settled"
    return [run.status for run in runs]


def with_descriptors(change):
    descriptors, tiles, inputs = good_program()
    return change(descriptors), tiles, inputs


def with_header(tile, flip):
    descriptors, tiles, inputs = good_program()
    tiles[tile] = RawTile(tiles[tile], flip)
    return descriptors, tiles, inputs


def test_unknown_opcodes():
    """0, and those of units that an accelerator of linear layers lacks."""
    changes = [lambda d, opcode=opcode: [d[0], RawDescriptor(d[1], opcode), *d[2:]]
               for opcode in (0, 4, 5, 6, 7, 254)]
    assert set(statuses(*map(with_descriptors, changes))) == {Status.BAD_OPCODE}


def test_bad_descriptors():
    """Counts of 0, which would never end; words that are not there; bad alignment; GELU without a table."""
    first = [{"length": 0}, {"opcode": Opcode.STORE, "length": 0}, {"offset": 4}, {"length": 129},
             {"opcode": Opcode.MATMUL, "tiles": 0, "groups": 1}, {"opcode": Opcode.MATMUL, "tiles": 1},
             {"destination": 29}, {"destination": 1 << 31}, {"flags": 1}, {"wait": 8}]
    second = [{"source": 113}, {"groups": 9, "destination_stride": 4},
              {"groups": 3, "destination_stride": 11}, {"groups": 65535, "source_stride": 65535},
              {"flags": 1}, {"source": 1 << 31}]
    changes = [lambda d, fields=fields: [replace(d[0], **fields), *d[1:]] for fields in first]
    changes += [lambda d, fields=fields: [d[0], replace(d[1], **fields), *d[2:]] for fields in second]
    assert statuses(*map(with_descriptors, changes)) == [Status.BAD_DESCRIPTOR] * len(changes)


def test_bad_program_lengths():
    """Without END: what an earlier, longer program left behind is not executed. Longer than the memory."""
    end = Descriptor(opcode=Opcode.END)
    full = [Descriptor(opcode=Opcode.LOAD, length=1)] * (SPEC.program_depth - 1) + [end]
    assert statuses(good_program(), with_descriptors(lambda d: d[:1]), with_descriptors(lambda d: []),
                    with_descriptors(lambda d: [end, *full])) == [Status.OK] + [Status.BAD_PROGRAM] * 3
    _, _, inputs = good_program()
    assert statuses((full, [], inputs)) == [Status.OK]


def test_bad_tiles():
    """K-steps 0 and 28 (24 fit); words 0, 3, 6 (2 are there). A marker that is none."""
    headers = [(1, 3), (0, 16), (0, 2 << 16), (0, 1 << 16), (1, 7 << 16)]
    assert set(statuses(*(with_header(*header) for header in headers))) == {Status.BAD_TILE}
    assert set(statuses(with_header(0, 1 << 24), with_header(2, 1 << 31))) == {Status.BAD_PACKET}


@pytest.mark.parametrize(("error", "seed"), [
    (("m_axi_gmem0", 15), 0), (("m_axi_gmem0", 16), 1), (("m_axi_gmem0", 115), 2),
    (("m_axi_gmem1", 0), 0), (("m_axi_gmem1", 80), 3)], ids=str)
def test_read_errors(error, seed):
    """On the program (the first 16 beats), an input or the weights, with bursts still under way."""
    stalls = random_stalls(seed, *MASTERS, share=0.4) if seed else {}
    expected = (Status.WEIGHT_READ_ERROR if error[0] == "m_axi_gmem1" else
                Status.PROGRAM_READ_ERROR if error[1] < 16 else Status.INPUT_READ_ERROR)
    assert statuses(good_program(), read_errors={error}, read_latency=30, stalls=stalls) == [expected]


@pytest.mark.parametrize("response", [0, 1])
def test_write_errors(response):
    assert statuses(good_program(), write_errors={("m_axi_gmem0", response)}) == [Status.OUTPUT_WRITE_ERROR]


def test_error_while_transfers_are_under_way():
    """Bursts that were promised are completed before the accelerator reports an error."""
    for descriptor in (Descriptor(opcode=Opcode.STORE, length=90), Descriptor(opcode=Opcode.LOAD, length=90)):
        descriptors, _, inputs = good_program()
        program = [descriptor, RawDescriptor(descriptors[0], 7)], [], inputs
        assert statuses(program, stalls=random_stalls(3, *MASTERS, share=0.5)) == [Status.BAD_OPCODE]


def test_watchdog():
    """The last dispatched descriptor says where a run hangs."""
    run, = run_programs(SPEC, [good_program()], weights_beats=20)
    assert run.status == Status.WATCHDOG
    assert run.registers["descriptor"] == 1


@pytest.mark.parametrize(("channel", "code"), [
    ("m_axi_gmem0_ar", Status.READ_TIMEOUT), ("m_axi_gmem1_r", Status.WEIGHT_TIMEOUT),
    ("m_axi_gmem0_w", Status.WRITE_TIMEOUT)])
def test_a_memory_that_stops_answering(channel, code):
    """The accelerator gives up and breaks no AXI rule; a start meets the same status, at once.

    When the memory answers at last the accelerator recovers by itself, without a reset.
    """
    stopped = [False]
    descriptors, tiles, inputs = good_program()
    found = []

    def stall(cycle):
        return stopped[0]

    async def disturb(ctx, dut, memory):
        beats = fill(memory, SPEC, descriptors, tiles, inputs)
        await configure(ctx, dut, program_length=len(descriptors), weights_beats=beats)
        stopped[0] = True
        for _ in range(2):
            found.append((await run_to_interrupt(ctx, dut, memory))[0])
        stopped[0] = False
        for _ in range(300):
            await ctx.tick()
        found.append((await run_to_interrupt(ctx, dut, memory))[0])

    run, = run_programs(SPEC, [(descriptors, tiles, inputs)], disturb=disturb, stalls={channel: stall})
    assert [registers["status"] for registers in found] == [code, code, Status.OK]
    assert found[0]["cycles"] < 4 << SPEC.watchdog_bits
    assert found[1]["cycles"] == 0
    assert (run.status, run.output) == (Status.OK, run.expected)


def test_more_weights_than_the_program_takes():
    """Tiles that were loaded, and tiles that are still in memory."""
    descriptors, tiles, inputs = good_program()
    assert statuses((descriptors, tiles + tiles[:1], inputs), (descriptors, tiles + tiles[::-1] * 2, inputs)
                    ) == [Status.WEIGHTS_LEFT] * 2
