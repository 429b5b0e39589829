"""Whole encoders at run time: every fault ends in its status code, the next run is right; other bundles."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from compressor.pools import build_pool
from hwgen.encoder_program import encoder_program
from hwgen.encoder_stream import encoder_packets, stream_items
from hwgen.fitting import fit_plan
from hwgen.memory_image import pattern_memory
from hwgen.plan import Plan
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from rtl_templates.accelerator import emit_verilog
from rtl_templates.array_spec import PoolStorage
from rtl_templates.prediction import predict
from rtl_templates.program_format import SIDE_BANK, Descriptor, Opcode
from rtl_templates.register_map import LENGTHS, Status
from rtl_templates.word_format import pack_words, unpack_words
from sim.harness import MemoryTiming, RunRequest, build_harness, run_harness
from tests.bundles import random_activations, random_encoder_bundle

TOKENS, LANES, WATCHDOG_BITS = 11, 8, 10
SEQUENCE_LENGTHS = (11, 5)
MODEL = {"layers": 1, "heads": 2, "hidden": 16, "ffn": 32}


@dataclass(frozen=True)
class Accelerator:
    """A compiled accelerator with a program of two sequences, and what it should store."""

    plan: Plan
    executable: object
    program: tuple
    request: RunRequest
    expected: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, bundle, plan, executable):
        """Random inputs of a bundle, in memory."""
        program, hidden = encoder_program(plan), bundle.model["config"]["hidden_size"]
        rng = np.random.default_rng(3)
        x = np.stack([random_activations(plan.tokens, hidden, rng) for _ in SEQUENCE_LENGTHS])
        lengths = np.minimum(SEQUENCE_LENGTHS, plan.tokens)
        weights = np.concatenate([packet for _, packet in encoder_packets(bundle, plan)])
        inputs = np.zeros((len(x), 4096), np.uint8)
        inputs[:, :program.input_bytes] = [pack_words(one, LANES).ravel() for one in x]
        request = RunRequest(
            program=program.pack(), weights=weights.tobytes(), input=inputs.tobytes(),
            weights_beats=weights.size * 8 // plan.spec.bus_bits, output_bytes=4096 * len(x),
            max_cycles=30000, pool=pattern_memory(plan.spec.array).tobytes(),
            lengths=lengths.astype("<u4").tobytes(), sequences=len(x), input_stride=4096, output_stride=4096)
        expected = bundle.encoder.trace(x, lengths)[-1]["output"]
        return cls(plan, executable, program.descriptors, request, expected, weights)

    def run(self, request=None, **faults):
        """Report of a run after faults, in which every word must be right."""
        report, output = run_harness(self.executable, request or self.request, **faults)
        assert report.error is None, report.error
        _, tokens, hidden = self.expected.shape
        words = output.reshape(len(self.expected), -1)[:, :-(-tokens // LANES) * LANES * hidden]
        got = [unpack_words(one.reshape(-1, hidden // 4, 4 * LANES), LANES, tokens) for one in words]
        np.testing.assert_array_equal(got, self.expected)
        return report

    def status(self, **changes):
        """Status of a run with another request."""
        report, _ = run_harness(self.executable, replace(self.request, **changes))
        assert "did not end" not in (report.error or ""), report.error
        return report.status

    def with_descriptor(self, index, **fields):
        """Status of the program with other fields in one descriptor."""
        program = list(self.program)
        program[index] = replace(program[index], **fields)
        return self.status(program=b"".join(descriptor.pack() for descriptor in program))

    def index(self, opcode):
        """Of the first descriptor of that kind."""
        return next(i for i, descriptor in enumerate(self.program) if descriptor.opcode is opcode)


@pytest.fixture(scope="module")
def accelerator(tmp_path_factory):
    bundle = random_encoder_bundle(**MODEL)
    plan = make_plan(bundle, PlanRequest(rows=2, lanes=LANES, tokens=TOKENS, storage=PoolStorage.RAM))
    plan = replace(plan, spec=replace(plan.spec, watchdog_bits=WATCHDOG_BITS))
    directory = tmp_path_factory.mktemp("runtime")
    (directory / "accelerator.v").write_text(emit_verilog(plan.spec))
    return Accelerator.of(bundle, plan, build_harness(directory / "accelerator.v", directory))


@pytest.fixture(scope="module")
def clean(accelerator):
    """Report of a run without faults."""
    return accelerator.run()


@pytest.mark.parametrize("model", [
    {"seed": 5}, {"seed": 6, "pool": build_pool("frequency", size=24)},
    {"hidden": 8, "heads": 1, "ffn": 24, "pool": build_pool("greedy")}, {"max_tokens": 7}], ids=str)
def test_another_bundle_on_the_same_verilog(accelerator, model):
    """Other weights, scales, patterns and sizes, in the executable that was compiled for the first bundle."""
    bundle = random_encoder_bundle(**{**MODEL, **model})
    plan = fit_plan(bundle, accelerator.plan)
    other = Accelerator.of(bundle, plan, accelerator.executable)
    assert other.request.weights != accelerator.request.weights
    assert other.run().counters["cycles"] == predict(
        plan.spec, other.program, stream_items(plan), MemoryTiming(), [11, 5]).cycles
    accelerator.run()


def test_a_reset_in_every_phase(accelerator, clean):
    """In each descriptor of the last sequence, in the first sequence, and while the program is read."""
    first = clean.counters["cycles"] - (clean.profile[-1] - clean.profile[0])
    times = [3, first // 4, first // 2, *(time + 5 for time in clean.profile)]
    for number, time in enumerate(times):
        request = replace(accelerator.request, timing=MemoryTiming(stalls=number % 3))
        report = accelerator.run(request, reset_at=time)
        if not request.timing.stalls:
            assert report.counters == clean.counters


@pytest.mark.parametrize("code", [Status.PROGRAM_READ_ERROR, Status.INPUT_READ_ERROR,
                                  Status.WEIGHT_READ_ERROR, Status.OUTPUT_WRITE_ERROR])
def test_error_responses(accelerator, clean, code):
    """At the first beat, the last and one between, of each channel; the next run needs no reset."""
    program = len(accelerator.request.program) * 8 // accelerator.plan.spec.bus_bits
    fault, first, last = {
        Status.PROGRAM_READ_ERROR: ("fail_read0", 1, program),
        Status.INPUT_READ_ERROR: ("fail_read0", program + 1, clean.read_beats[0]),
        Status.WEIGHT_READ_ERROR: ("fail_read1", 1, clean.read_beats[1]),
        Status.OUTPUT_WRITE_ERROR: ("fail_write", 1, 2)}[code]
    for beat in sorted({first, (first + last) // 2, last}):
        for stalls in (0, beat + 1):
            request = replace(accelerator.request, timing=MemoryTiming(stalls=stalls))
            report = accelerator.run(request, **{fault: beat, "then_again": 1})
            assert report.first_status == code, (beat, stalls, report.first_status)


STOPPED = {"ar0": Status.READ_TIMEOUT, "r0": Status.READ_TIMEOUT, "ar1": Status.WEIGHT_TIMEOUT,
           "r1": Status.WEIGHT_TIMEOUT, "aw": Status.WRITE_TIMEOUT, "w": Status.WRITE_TIMEOUT,
           "b": Status.WRITE_TIMEOUT}


@pytest.mark.parametrize("channel", STOPPED)
def test_a_channel_that_stops(accelerator, clean, channel):
    """From the start and later; once the memory answers again no reset is needed."""
    later = {"ar1": 0, "r1": 60}.get(channel, clean.profile[0] - 20)  # of the second sequence
    for time in {0, later}:
        report = accelerator.run(stop=channel, stop_at=time, then_again=1)
        assert report.first_status == STOPPED[channel], time


def test_descriptors_that_no_unit_can_execute(accelerator):
    """Counts, lengths, flags, banks and words that are not there, in the descriptor of each unit."""
    side = accelerator.plan.spec.encoder.side_words
    wrong = {
        Opcode.KEYS: [{"groups": 0}, {"length": 0}, {"groups": 3}, {"length": 3}, {"source": 0},
                      {"source": side | SIDE_BANK}, {"source_stride": 65535}, {"flags": 1}, {"offset": 0},
                      {"offset": 48 << 16}, {"offset": 1 << 40}],
        Opcode.SOFTMAX: [{"groups": 0}, {"length": 0}, {"groups": 3}, {"length": 5}, {"source": 4},
                         {"source": SIDE_BANK | side - 2}, {"flags": 2}, {"offset": 1 << 38}],
        Opcode.TRANSPOSE: [{"groups": 0}, {"length": 0}, {"tiles": 0}, {"length": 65536}, {"source": 0},
                           {"groups": 65535}, {"destination": SIDE_BANK},
                           {"length": 8, "destination_stride": 65535},
                           {"destination": accelerator.plan.spec.activation_words}],
        Opcode.NORM: [{"groups": 0}, {"length": 0}, {"length": 5}, {"offset": 0}, {"source": SIDE_BANK},
                      {"offset": SIDE_BANK | side}, {"flags": 4}, {"groups": 4000}, {"destination": 1 << 30}],
        Opcode.MATMUL: [{"groups": 0}, {"tiles": 0}, {"source": SIDE_BANK}, {"flags": 4},
                        {"source_stride": 60000}, {"destination": SIDE_BANK | side - 1}],
        Opcode.END: [{"wait": 128}]}
    for opcode, changes in wrong.items():
        for fields in changes:
            found = accelerator.with_descriptor(accelerator.index(opcode), **fields)
            assert found == Status.BAD_DESCRIPTOR, (opcode, fields, found)


def test_programs_and_streams_that_do_not_belong_together(accelerator):
    """A product without its source, a source without its product, tiles too few and too many."""
    program, keys = accelerator.program, accelerator.index(Opcode.KEYS)
    without_keys = [*program[:keys], *program[keys + 1:]]
    assert accelerator.status(program=b"".join(d.pack() for d in without_keys)) == Status.WATCHDOG
    alone = [program[0], *program[keys:keys + 1], Descriptor(opcode=Opcode.END)]
    assert accelerator.status(program=b"".join(d.pack() for d in alone)) == Status.WATCHDOG
    beats = accelerator.request.weights_beats
    assert accelerator.status(weights_beats=beats - 1, sequences=1) == Status.WATCHDOG
    assert accelerator.status(weights_beats=beats - 1) == Status.BAD_PACKET  # of the second sequence
    longer = np.concatenate([accelerator.weights, accelerator.weights]).tobytes()
    assert accelerator.status(weights=longer, weights_beats=beats + 1) in (
        Status.WEIGHTS_LEFT, Status.WATCHDOG, Status.BAD_TILE, Status.BAD_PACKET)
    assert accelerator.status(weights=longer, weights_beats=beats + 1, sequences=1) == Status.WEIGHTS_LEFT
    assert accelerator.status(weights=longer, weights_beats=2 * beats, sequences=1) == Status.WEIGHTS_LEFT


@pytest.mark.parametrize(("old", "new", "code"), [
    (1, 7, Status.BAD_TABLE), (2, 0, Status.BAD_TABLE), (3, 12, Status.BAD_TABLE)])
def test_tables_that_are_not_there(accelerator, old, new, code):
    assert accelerator.status(weights=_with_header(accelerator, 0xA6, table=(old, new))) == code


@pytest.mark.parametrize(("tiles", "code"), [(0, Status.BAD_LOCAL), (1, Status.WATCHDOG),
                                             (65535, Status.WATCHDOG)])
def test_local_headers_that_count_wrong(accelerator, tiles, code):
    assert accelerator.status(weights=_with_header(accelerator, 0xA7, count=tiles)) == code


def _with_header(accelerator, marker, *, table=None, count=None):
    """The weight stream with another table id or count in a header of that marker."""
    raw, spec = accelerator.weights.copy(), accelerator.plan.spec
    beat, position = spec.bus_bits // 8, 0
    while position < raw.size:
        header = int(raw[position:position + 4].view("<u4")[0])
        kind, low, id_ = header >> 24, header & 0xFFFF, header >> 16 & 15
        if kind == marker and (table is None or id_ == table[0]):
            header = header & ~0xF0000 | table[1] << 16 if table else header & ~0xFFFF | count
            raw[position:position + 4] = np.array([header], "<u4").view(np.uint8)
            return raw.tobytes()
        position += beat * {0xA5: spec.tiles.beats(low), 0xA6: 1 + low, 0xA7: 1}[kind]
    raise AssertionError("no such packet")


def test_lengths_and_sequences(accelerator):
    """Lengths up to the program's blocks of 4 tokens are taken, longer ones never."""
    def of(*lengths):
        return np.array(lengths, "<u4").tobytes()

    taken = [accelerator.status(lengths=of(*lengths)) for lengths in ((0, 12), (12, 1))]
    assert taken == [Status.OK, Status.OK]
    for lengths in ((13, 1), (1, 13), (65536, 1), (1, (1 << 31) + 3), (65535, 0)):
        assert accelerator.status(lengths=of(*lengths)) == Status.BAD_LENGTH
    for sequences in (0, LENGTHS + 1, (1 << 32) - 1):
        assert accelerator.status(sequences=sequences) == Status.BAD_SEQUENCES
    assert accelerator.status(input_stride=4095) == Status.BAD_POINTER
