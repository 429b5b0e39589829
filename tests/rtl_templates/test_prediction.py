"""The recursion of rtl_templates.prediction against simulation: cycles, every dispatch, every counter."""

import time

import numpy as np
import pytest

from rtl_templates.array_spec import Accumulation
from rtl_templates.prediction import predict
from rtl_templates.program_format import Descriptor, Opcode, Unit
from rtl_templates.timing import NominalMemory, Timing
from tests.rtl_templates.accelerator_bench import run_program
from tests.rtl_templates.accelerator_reference import random_tile, small_spec

COLUMNS = 16
SOURCE, RESULT = 3, 64
LOAD, MATMUL, STORE, END = Opcode.LOAD, Opcode.MATMUL, Opcode.STORE, Opcode.END


def check(spec, descriptors, sizes, *, read_latency=4, write_latency=2):
    """Simulate and predict one program; ``sizes`` are (words, ksteps) of its tiles."""
    rng = np.random.default_rng(len(sizes))
    tiles = [random_tile(rng, spec, ksteps, words, COLUMNS) for words, ksteps in sizes]
    inputs = rng.integers(-127, 128, 0x2000).astype(np.int8).tobytes()
    latencies = {"read_latency": read_latency, "write_latency": write_latency}
    run = run_program(spec, descriptors, tiles, inputs, **latencies)
    predicted = predict(spec, descriptors, sizes, NominalMemory(**latencies))
    assert run.output == run.expected
    assert run.dispatched == predicted.dispatches
    counters = {name: run.registers[name] for name in (
        "cycles", "busy_cycles", "weight_wait_cycles", "drain_wait_cycles", "load_cycles", "store_cycles")}
    assert counters == {
        "cycles": predicted.cycles, "busy_cycles": predicted.busy,
        "weight_wait_cycles": predicted.weight_wait, "drain_wait_cycles": predicted.drain_wait,
        "load_cycles": predicted.load, "store_cycles": predicted.store}
    return predicted


def product(groups, sizes, **fields):
    """A MATMUL over tiles of the given sizes, results at RESULT."""
    words = sum(words for words, _ in sizes)
    fields = {"source": SOURCE, "destination": RESULT, "source_stride": COLUMNS,
              "destination_stride": words} | fields
    return Descriptor(opcode=MATMUL, groups=groups, tiles=len(sizes), **fields)


def linear(groups, sizes, **load):
    """LOAD, MATMUL, STORE, END."""
    words = sum(words for words, _ in sizes)
    return [Descriptor(opcode=LOAD, length=groups * COLUMNS, destination=SOURCE, **load),
            product(groups, sizes, wait=Unit.LOAD),
            Descriptor(opcode=STORE, wait=Unit.ARRAY, source=RESULT, length=groups * words, offset=64),
            Descriptor(opcode=END)]


@pytest.mark.parametrize(("groups", "sizes"), [
    (1, [(1, 1)]),
    (2, [(2, 12), (1, 3)]),  # fewer words than block units in the last tile
    (3, [(1, 1), (2, 20), (2, 1), (1, 1), (1, 2), (2, 1), (1, 24), (1, 1), (1, 1)]),
    (3, [(2, 2)] * 3),  # results take longer than K-steps
], ids=["one K-step", "two tiles", "mixed", "drain"])
def test_one_product(groups, sizes):
    check(small_spec(), linear(groups, sizes), sizes)


def test_row_constant_slots():
    """Tiles so small that a fourth is loaded before the results of the first have drained."""
    sizes = [(1, 1)] * 12
    check(small_spec(units=1), linear(1, sizes), sizes)


def test_memory_bound_beyond_the_fifo():
    """More beats than may be under way, and a latency that all of them just hide."""
    sizes = [(2, 24)] * 9
    spec = small_spec(bus_bits=32)
    assert sum(spec.tiles.beats(k) for _, k in sizes) > 2 * 512
    predicted = check(spec, linear(1, sizes), sizes, read_latency=Timing(spec).read_latency_limit - 1)
    assert predicted.weight_wait > 500


@pytest.mark.parametrize("sizes", [
    {"lanes": 4, "bus_bits": 128},
    {"bus_bits": 32, "slots": 1, "units": 3},
    {"lanes": 4, "units": 4, "bus_bits": 128, "slots": 4},
    {"lanes": 6, "units": 4, "bus_bits": 64},
    {"lanes": 16, "units": 8, "bus_bits": 512},
    {"accumulation": Accumulation.PAIRED, "lanes": 4, "bus_bits": 128},
    {"accumulation": Accumulation.PAIRED, "slots": 4, "units": 4, "lanes": 4, "bus_bits": 128},
], ids=lambda sizes: "-".join(f"{name}{value}" for name, value in sizes.items()))
def test_shapes(sizes):
    tiles = [(2, 12), (1, 3), (2, 7)]
    check(small_spec(**sizes), linear(2, tiles), tiles, read_latency=9, write_latency=5)


def test_back_to_back_products():
    """The second product starts without a bubble: the array misses no cycle but for the first tile."""
    first, second = [(2, 24), (2, 24)], [(2, 24), (1, 24), (2, 16)]
    descriptors = [Descriptor(opcode=LOAD, length=32, destination=SOURCE),
                   product(2, first, wait=Unit.LOAD), product(2, second, destination=RESULT + 16),
                   Descriptor(opcode=STORE, wait=Unit.ARRAY, source=RESULT, length=32),
                   Descriptor(opcode=END)]
    predicted = check(small_spec(), descriptors, first + second)
    # From the first to the last K-step, weights apart, only the drain could cost a cycle.
    assert predicted.drain_wait == 0


def test_transfers_beside_the_array():
    """LOAD and STORE compete with results for a port of the buffer and still take the predicted time."""
    first, second = [(2, 6)] * 4, [(2, 5), (1, 9)]
    for bus_bits in (32, 64):
        beat = bus_bits // 8
        check(small_spec(bus_bits=bus_bits), [
            Descriptor(opcode=LOAD, length=32, destination=SOURCE),
            product(2, first, wait=Unit.LOAD),
            # Both transfers begin with a burst of a single beat.
            Descriptor(opcode=LOAD, wait=Unit.LOAD, length=16, destination=40, offset=1024 - beat),
            Descriptor(opcode=STORE, wait=Unit.ARRAY, source=RESULT, length=16, offset=8),
            product(2, second, wait=Unit.LOAD, destination=RESULT + 16, source=24),
            Descriptor(opcode=STORE, wait=Unit.ARRAY | Unit.STORE, source=RESULT, length=24,
                       offset=2048 - beat),
            Descriptor(opcode=END)], first + second)


def test_random_programs():
    rng = np.random.default_rng(5)
    for _ in range(3):
        spec = small_spec(bus_bits=int(rng.choice([32, 64])))
        sizes, descriptors = [], [Descriptor(opcode=LOAD, length=48, destination=SOURCE,
                                             offset=int(rng.integers(0, 64)) * 8)]
        for _ in range(3):
            tiles = [(int(rng.integers(1, 3)), int(rng.choice([1, 2, 5, 9, 24])))
                     for _ in range(rng.integers(1, 5))]
            groups = int(rng.integers(1, 4))
            descriptors += [
                product(groups, tiles, wait=Unit.LOAD | Unit.ARRAY | Unit.STORE),
                Descriptor(opcode=STORE, wait=Unit.ARRAY, source=RESULT, offset=8 * int(rng.integers(64)),
                           length=groups * sum(words for words, _ in tiles))]
            sizes += tiles
        check(spec, [*descriptors, Descriptor(opcode=END)], sizes, read_latency=int(rng.integers(1, 60)),
              write_latency=int(rng.integers(1, 30)))


def test_limits():
    spec = small_spec()
    with pytest.raises(ValueError, match="read_latency must be 1 to 383 cycles"):
        predict(spec, linear(1, [(1, 1)]), [(1, 1)], NominalMemory(read_latency=384))
    with pytest.raises(ValueError, match="consumes 2 tiles"):
        predict(spec, linear(1, [(1, 1)] * 2), [(1, 1)])


def test_speed():
    """A hundred thousand tiles well under a second on an idle core; the bound leaves room for a busy one."""
    descriptors = [*[Descriptor(opcode=MATMUL, groups=8, tiles=50000)] * 2, Descriptor(opcode=END)]
    begin = time.process_time()
    predict(small_spec(), descriptors, [(2, 24)] * 100000)
    assert time.process_time() - begin < 2
