"""Encoders and operators of the HLS C++ in C simulation, their edges, and that broken designs are found."""

import importlib.util
import os
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from compressor.intops import requantize
from compressor.intops.fixedpoint import round_half_up_shift
from compressor.intops.reciprocal import floor_sqrt, inverse_sqrt, normalized_quotient
from compressor.pools import build_pool
from hwgen.cli import main
from hwgen.hls.vectors import OperatorCase, write_operator_cases
from sim.encoder_run import EncoderRequest
from sim.hls_bench import compile_bench
from sim.hls_run import simulate_hls_encoder, simulate_hls_layers
from sim.runner import SimulationRequest
from tests.bundles import random_encoder_bundle
from tests.sim.hls_testing import hls_builds, mutated

TOKENS = 11


def squared(bundle):
    """The bundle with map pruning by squared weights."""
    operators = {name: {**entry, "map_power": 2} if entry.get("kind") == "attention" else entry
                 for name, entry in bundle.operators.items()}
    return replace(bundle, operators=operators)


DESIGNS = {
    "pattern": (partial(random_encoder_bundle, layers=1, heads=2, hidden=16, ffn=32),
                {"rows": 2, "lanes": 8}),
    "maps": (partial(random_encoder_bundle, structure="mixed", map_pruning=True), {"rows": 2, "lanes": 4}),
    "banks": (partial(random_encoder_bundle, layers=1, map_pruning=True,
                      pool=build_pool("reed_muller", size=64, balance="bank")), {"rows": 2, "lanes": 4}),
    "maps by squares": (lambda: squared(random_encoder_bundle(structure="dense", layers=1, map_pruning=True,
                                                              outliers=False)), {"rows": 1, "lanes": 8}),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return hls_builds(DESIGNS, tmp_path_factory, tokens=TOKENS)


@pytest.mark.parametrize("design", DESIGNS)
def test_encoders_and_every_operator(built, design):
    opened = built(design)
    result = simulate_hls_encoder(opened, EncoderRequest(limit=5, sequences=3, every_layer=True))
    assert result.passed
    assert (result.runs, result.tokens, result.mismatches, result.problems()) == (5, TOKENS, 0, [])
    layers = len(opened.plan.attention)
    assert [part.name for part in result.layers[:2]] == ["encoder", "encoder.layer.0: scores"]
    assert len(result.layers) == 1 + 6 * layers
    hidden = opened.bundle.model["config"]["hidden_size"]
    groups = -(-TOKENS // opened.lanes)
    assert result.layers[0].words == 5 * groups * hidden // 4
    assert result.layers[1].words == 5 * opened.plan.attention[0].heads * groups**2 * opened.lanes // 4


def test_fewer_tokens_than_the_build_holds(built):
    assert simulate_hls_encoder(built("maps"), EncoderRequest(limit=3, sequences=3, tokens=6)).passed


def test_linear_layers_of_an_encoder(built):
    result = simulate_hls_layers(built("maps"), SimulationRequest(layers="*output*"))
    assert result.passed
    assert len(result.layers) == 4


def run_operators(opened, cases, directory):
    """Outputs of the cases by ``tb_operators``, int8 bytes, and what they should be."""
    write_operator_cases(cases, opened.lanes, directory)
    compile_bench(opened, "tb_operators").run(directory)
    for case in cases:
        got, expected = (np.fromfile(directory / f"{case.name}.{kind}.bin", np.int8)
                         for kind in ("output", "expected"))
        yield case, got, expected


@pytest.mark.parametrize("design", ["pattern", "maps by squares"])
def test_softmax_with_every_length_and_extreme_scores(built, tmp_path, design):
    for case, got, expected in softmax_of_every_length(built(design), tmp_path):
        np.testing.assert_array_equal(got, expected, case.name)


def test_short_sequences_that_are_pruned_are_found(built, tmp_path):
    broken = mutated(built("maps by squares"), tmp_path, ("softmax.h", "length >= CHANNELS", "length >= 0"))
    wrong = {case.length for case, got, expected in softmax_of_every_length(broken, tmp_path)
             if (got != expected).any()}
    assert wrong
    assert max(wrong) < 4


def softmax_of_every_length(opened, directory):
    attention, rng, cases = opened.bundle.encoder.layers[0].attention, np.random.default_rng(3), []
    for length in range(TOKENS + 1):
        for kind, scores in {"random": rng.integers(-127, 128, (attention.heads, TOKENS, TOKENS)),
                             "equal": np.full((attention.heads, TOKENS, TOKENS), -127)}.items():
            weights, _, _ = attention.weights(scores[None], [length])
            cases.append(OperatorCase(operator="softmax", layer=0, name=f"{kind}{length}", length=length,
                                      inputs={"scores": scores}, y=weights[0]))
    return list(run_operators(opened, cases, directory))


def test_norms_with_zero_variance_and_extremes(built, tmp_path):
    opened = built("pattern")
    layer, hidden = opened.bundle.encoder.layers[0], opened.bundle.model["config"]["hidden_size"]
    inputs = {"zero": np.zeros((8, hidden), np.int64), "equal": np.full((8, hidden), 127),
              "least": np.full((8, hidden), -127), "one": np.eye(8, hidden, dtype=np.int64),
              "alternating": np.full((8, hidden), 127) * (-1)**np.arange(hidden)}
    cases = [OperatorCase(operator=operator, layer=0, name=f"{operator}-{left}-{right}", length=8,
                          inputs={"residual": inputs[left], "branch": inputs[right]},
                          y=getattr(layer, operator).compute(inputs[left], inputs[right]))
             for operator in ("attention_norm", "output_norm") for left in inputs for right in inputs]
    for case, got, expected in run_operators(opened, cases, tmp_path):
        np.testing.assert_array_equal(got, expected, case.name)


OPERATOR_MUTATIONS = {
    "wrong place": {
        "scores": ("attention.h", "const int first = head * layer.key_columns;",
                   "const int first = 0 * head;"),
        "softmax": ("map_mask.h", "block * CHANNELS + key < length", "block * CHANNELS + key < TOKENS"),
        "context": ("attention.h", "const int first = head * layer.value_columns;",
                    "const int first = 0 * head;"),
        "norm": ("layernorm.h", "+ int_t<50>(constants.beta)", ""),
        "gelu": ("gelu.h", "outlier ? GELU_ENTRIES + index : index", "0 * outlier + index"),
    },
    "wrong number": {
        "scores": ("attention.h", "layer.score_shift[head]", "layer.score_shift[head] + 1"),
        "softmax": ("map_mask.h", "if (sum > most)", "if (sum >= most)"),
        "context": ("attention.h", "- RESULT_BITS + result", "- RESULT_BITS + (lane == 1) + result"),
        "norm": ("layernorm.h", "2 * int_t<50>(total)", "3 * int_t<50>(total)"),
        "gelu": ("gelu.h", "int(x) & (GELU_ENTRIES - 1)", "(int(x) + 1) & (GELU_ENTRIES - 1)"),
    },
}


@pytest.mark.parametrize("mutation", OPERATOR_MUTATIONS)
def test_broken_operators_are_found(built, tmp_path, mutation):
    broken = mutated(built("maps"), tmp_path, *OPERATOR_MUTATIONS[mutation].values())
    result = simulate_hls_encoder(broken, EncoderRequest(limit=3, every_layer=True))
    assert not result.passed
    wrong = {part.name.split(": ")[-1] for part in result.layers if part.mismatches}
    assert wrong == {"encoder", "scores", "softmax", "context", "attention_norm", "gelu", "output_norm"}
    assert all("expected" in line for line in result.problems()[1:])


ENCODER_MUTATIONS = {
    "lengths": ("encoder.cpp", "lengths[sequence]", "lengths[0 * sequence]"),
    "residual": ("encoder.cpp", "layer_norm(output_norm, normed,", "layer_norm(output_norm, hidden,"),
    "no GELU": ("encoder.cpp", "gelu_table, true", "gelu_table, false"),
}


@pytest.mark.parametrize("mutation", ENCODER_MUTATIONS)
def test_a_broken_encoder_is_found(built, tmp_path, mutation):
    broken = mutated(built("maps"), tmp_path, ENCODER_MUTATIONS[mutation])
    assert not simulate_hls_encoder(broken, EncoderRequest(limit=6, sequences=6)).passed


def test_the_command(built):
    done = CliRunner().invoke(main, ["sim", str(built("maps").directory), "--bench", "hls", "--every-layer"])
    assert done.exit_code == 0
    assert "encoder.layer.1: output_norm" in done.stdout
    done = CliRunner().invoke(main, ["sim", str(built("maps").directory), "--bench", "hls", "--stalls", "1"])
    assert done.exit_code == 1
    assert "--stalls, --trace and --timeline are for Verilog; C simulation has no cycles" in done.stderr


PRIMITIVES = """
#include <iostream>
#include "reciprocal.h"
using namespace hwgen;
int main() {
  long long a, b, c;
  for (std::string what; std::cin >> what >> a >> b >> c;) {
    if (what == "round") std::cout << (long long)round_half_up_shift<50>(a, c) << "\\n";
    if (what == "requantize") std::cout << int(requantize(a, b, c)) << "\\n";
    if (what == "sqrt") std::cout << int(floor_sqrt(a)) << "\\n";
    if (what == "inverse") std::cout << int(inverse_sqrt(a).reciprocal) << " "
                                     << int(inverse_sqrt(a).shift) << "\\n";
    if (what == "quotient") std::cout << int(normalized_quotient(a, b).quotient) << " "
                                      << normalized_quotient(a, b).length << "\\n";
  }
}
"""


@pytest.mark.parametrize("mutation", [None, ("fixedpoint.h", "(x + half)", "(x + half - (x < 0))"),
                                      ("fixedpoint.h", "return lowest;", "return lowest - 1;"),
                                      ("reciprocal.h", "trial * trial <= x", "trial * trial < x"),
                                      ("reciprocal.h", "0x7fffffff", "0x80000000u - (x > 1)"),
                                      ("reciprocal.h", "divisor == 0 ?", "divisor <= 1 ?")])
def test_primitives_on_ties_and_limits(built, tmp_path, mutation):
    folder = mutated(built("pattern"), tmp_path, *([mutation] if mutation else [])).directory / "hls"
    (folder / "primitives.cpp").write_text(PRIMITIVES)
    subprocess.run(["g++", "-std=c++17", "-Wno-unknown-pragmas", "-w", "-o", "primitives", "primitives.cpp"],
                   cwd=folder, check=True)
    rng = np.random.default_rng(0)
    cases = []
    for x in [-3, -1, 0, 1, 3, *rng.integers(-1000, 1000, 50).tolist()]:
        for shift in (1, 2, 5, 47):
            cases.append(("round", x, 0, shift, f"{round_half_up_shift(x, shift)}"))
    for acc in [-2**31, -129, -128, -127, -3, -1, 0, 1, 3, 127, 128, 2**31 - 1]:
        for multiplier, shift in ((1, 1), (1, 2), (32768, 16), (65535, 47), (65535, 16), (0, 1)):
            expected = requantize(np.array([acc]), np.array([multiplier]), np.array([shift]))
            cases.append(("requantize", acc, multiplier, shift, f"{expected[0]}"))
    squares = [x * x for x in (1, 2, 3, 255, 256, 65535)]
    for x in [*squares, *(x - 1 for x in squares), 2**32 - 1, *rng.integers(1, 2**32, 50).tolist()]:
        cases.append(("sqrt", x, 0, 0, f"{floor_sqrt(x)}"))
    for x in [1, 2, 3, 4, 2**31, 2**32, 2**40, 2**48 - 1, *rng.integers(1, 2**48, 50).tolist()]:
        reciprocal, shift = inverse_sqrt(x)
        cases.append(("inverse", x, 0, 0, f"{reciprocal} {shift}"))
    for divisor in [0, 1, 127, 128, 65024, 65535, *rng.integers(1, 2**16, 50).tolist()]:
        for numerator in (2**30, 2**31 - 1, 1610612736):
            quotient, length = normalized_quotient(numerator, np.array(divisor))
            cases.append(("quotient", numerator, divisor, 0, f"{quotient} {length}"))
    text = "".join(f"{what} {a} {b} {c}\n" for what, a, b, c, _ in cases)
    done = subprocess.run([folder / "primitives"], input=text, capture_output=True, text=True, check=True)
    same = done.stdout.splitlines() == [case[-1] for case in cases]
    assert same == (mutation is None)


@pytest.mark.nightly
def test_exact_widths_with_the_vendors_headers(built, tmp_path):
    """Where a package on this machine carries them; standard integers cannot show a width too small."""
    folder = vendor_headers()
    if folder is None:
        pytest.skip("no ap_int.h here: AP_TYPES names no folder that holds it and hls4ml is not installed")
    result = simulate_hls_encoder(built("maps"), EncoderRequest(limit=3, sequences=3, every_layer=True),
                                  include=folder)
    assert result.passed
    assert simulate_hls_layers(built("maps"), SimulationRequest(), include=folder).passed


def vendor_headers():
    """Folder of ap_int.h: the environment variable AP_TYPES, or inside an installed hls4ml."""
    spec = importlib.util.find_spec("hls4ml")
    installed = Path(spec.origin).parent / "templates" / "vivado" / "ap_types" if spec else "no folder"
    folder = Path(os.environ.get("AP_TYPES", installed)).resolve()
    return folder if (folder / "ap_int.h").is_file() else None
