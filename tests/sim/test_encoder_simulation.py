"""Whole encoders in the simulated accelerator: results of the golden model, cycles of the prediction."""

from functools import cache

import numpy as np
import pytest

import sim.harness
from compressor.pools import build_pool
from hwgen.encoder_program import encoder_program
from hwgen.encoder_stream import encoder_packets, stream_items
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from rtl_templates.accelerator import emit_verilog
from rtl_templates.prediction import predict
from rtl_templates.timing import NominalMemory
from rtl_templates.word_format import pack_words, unpack_words
from sim.harness import MemoryTiming, RunRequest, build_harness, run_harness
from tests.bundles import extreme_encoder_bundle, random_activations, random_encoder_bundle

DESIGNS = {
    "pattern": ({"layers": 1, "heads": 2, "hidden": 16, "ffn": 32}, {"rows": 2, "lanes": 8}),
    "maps": ({"map_pruning": True, "pool": build_pool("reed_muller", size=64, balance="bank")},
             {"rows": 4, "lanes": 4}),
    "extremes": ({"structure": "dense", "layers": 3, "head_counts": (3, 4, 1), "ffn_sizes": (40, 8, 64),
                  "absent_blocks": 0.2}, {"rows": 1, "lanes": 8}),
}
TOKENS = 11


@cache
def make_bundle(design):
    make = extreme_encoder_bundle if design == "extremes" else random_encoder_bundle
    return make(**DESIGNS[design][0])


@pytest.fixture(scope="module", autouse=True)
def without_optimization():
    """Compiling takes longer than running."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim.harness, "OPTIMIZE", "-O0")
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Bundle, plan and compiled bench of a design."""
    @cache
    def build(design):
        sizes = DESIGNS[design][1]
        bundle = make_bundle(design)
        plan = make_plan(bundle, PlanRequest(tokens=TOKENS, **sizes))
        directory = tmp_path_factory.mktemp(design)
        (directory / "accelerator.v").write_text(emit_verilog(plan.spec))
        return bundle, plan, build_harness(directory / "accelerator.v", directory)
    return build


def simulate(built, tokens, lengths, timing):
    """Report of a run over random sequences, what it stored, and what it should have."""
    bundle, plan, executable = built
    lanes, hidden = plan.spec.array.lanes, bundle.model["config"]["hidden_size"]
    program = encoder_program(plan, tokens, every_layer=True)
    rng = np.random.default_rng(tokens)
    x = np.stack([random_activations(tokens, hidden, rng) for _ in lengths])
    golden = bundle.encoder.trace(x, lengths)
    inputs = np.stack([pack_words(one, lanes).ravel() for one in x])
    inputs = np.pad(inputs, ((0, 0), (0, -inputs.shape[1] % 4096)))
    stream = np.concatenate([packet for _, packet in encoder_packets(bundle, plan, tokens)])
    step = -(-program.output_bytes // 4096) * 4096
    request = RunRequest(
        program=b"".join(descriptor.pack() for descriptor in program.descriptors), weights=stream.tobytes(),
        input=inputs.tobytes(), weights_beats=len(stream) * 8 // plan.spec.bus_bits,
        output_bytes=step * len(lengths), max_cycles=200000, lengths=np.array(lengths, "<u4").tobytes(),
        sequences=len(lengths), input_stride=inputs.shape[1], output_stride=step, timing=timing)
    report, output = run_harness(executable, request)
    assert report.error is None
    results = []
    for sequence in range(len(lengths)):
        for tensor in program.outputs:
            start = sequence * step + tensor.offset
            words = output[start:start + tensor.bytes].reshape(-1, tensor.channels // 4, 4 * lanes)
            results.append(unpack_words(words, lanes, tokens))
    expected = [layer["output"][sequence] for sequence in range(len(lengths)) for layer in golden]
    return report, program, np.stack(results), np.stack(expected)


CASES = [("pattern", 11, [11]), ("pattern", 9, [3, 9, 1, 0, 7]), ("maps", 11, [9, 3, 11]),
         ("extremes", 6, [5, 6, 2, 0])]


@pytest.mark.parametrize(("design", "tokens", "lengths"), CASES)
def test_results_and_cycles(built, design, tokens, lengths):
    plan = built(design)[1]
    report, program, results, expected = simulate(built(design), tokens, lengths, MemoryTiming())
    np.testing.assert_array_equal(results, expected)
    predicted = predict(plan.spec, program.descriptors, stream_items(plan, tokens), NominalMemory(), lengths)
    assert report.profile == predicted.dispatches
    assert report.counters["cycles"] == predicted.cycles
    for name in ("busy", "weight_wait", "drain_wait", "load", "store"):
        assert report.counters[f"{name}_cycles"] == getattr(predicted, name), name


def test_extremes_are_what_they_say():
    bundle = make_bundle("extremes")
    x = np.stack([random_activations(6, 32, np.random.default_rng(6))])
    clipped, equal, flat = bundle.encoder.trace(x, [6])
    assert all((np.abs(clipped[name]) == 127).mean() > 0.4 for name in ("q", "v", "o", "ffn2"))
    assert (equal["scores"] == equal["scores"][..., :1]).all()
    assert (equal["weights"] == 127).all()
    assert not flat["attention_norm"].any()
    assert not flat["ffn2"].any()
    assert [layer.attention.heads for layer in bundle.encoder.layers] == [3, 4, 1]


@pytest.mark.parametrize("stalls", [1, 2])
@pytest.mark.parametrize(("design", "tokens", "lengths"), [CASES[1], CASES[2]])
def test_results_whatever_the_memory_does(built, design, tokens, lengths, stalls):
    _, _, results, expected = simulate(built(design), tokens, lengths, MemoryTiming(stalls=stalls))
    np.testing.assert_array_equal(results, expected)
