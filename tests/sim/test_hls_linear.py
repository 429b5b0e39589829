"""Linear layers of the HLS C++ in C simulation; and that a broken design is found."""

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
from click.testing import CliRunner

from compressor.pools import build_pool
from hwgen.build_directory import BuildError
from hwgen.cli import main
from hwgen.toolchain import find_tool
from rtl_templates.array_spec import PoolStorage
from sim.hls_run import simulate_hls_layers
from sim.runner import SimulationRequest
from tests.bundles import random_bundle
from tests.sim.hls_testing import hls_builds, mutated

bundle = partial(random_bundle, hidden=24, layers=1, heads=2, ffn=40, max_tokens=16)
UNBALANCED = build_pool("frequency", size=8, balance="none")
LINEAR_DESIGNS = {
    "pattern": (partial(bundle, absent_blocks=0.3), {"rows": 2, "lanes": 4}),
    "mixed": (partial(bundle, structure="mixed", absent_blocks=0.2), {"rows": 4, "lanes": 2, "bus_bits": 32}),
    "dense": (partial(bundle, structure="dense"), {"rows": 1, "lanes": 8, "storage": PoolStorage.RAM}),
    "unbalanced": (partial(bundle, pool=UNBALANCED), {"rows": 2, "lanes": 4}),
    "unbalanced mixed": (partial(bundle, pool=UNBALANCED, structure="mixed"), {"rows": 2, "lanes": 4}),
    "keep 4": (partial(bundle, pool=build_pool("greedy", size=8, keep=4)),
               {"rows": 2, "lanes": 3, "bus_bits": 32}),
}


@pytest.fixture(scope="module")
def linear_build(tmp_path_factory):
    return hls_builds(LINEAR_DESIGNS, tmp_path_factory, tokens=13)


@pytest.mark.parametrize("design", LINEAR_DESIGNS)
def test_linear_layers(linear_build, design):
    result = simulate_hls_layers(linear_build(design), SimulationRequest(tokens=11, limit=2))
    assert result.passed
    assert (result.mismatches, len(result.layers), result.problems()) == (0, 6, [])
    lanes = LINEAR_DESIGNS[design][1]["lanes"]
    assert result.words == 2 * -(-11 // lanes) * (5 * 24 + 40) // 4
    assert result.padding_values == 2 * (-11 % lanes) * (5 * 24 + 40)


LINEAR_MUTATIONS = {
    "truncation": ("fixedpoint.h", "return (x + half) >> shift;", "return (x + half - half) >> shift;"),
    "saturation": ("fixedpoint.h", "if (x > limit)\n    return limit;", ""),
    "bias": ("linear.h", "+ constant.bias", ""),
    "wrong slot": ("linear.h", "m / SLOTS", "(m + 1) / SLOTS % CHANNELS"),
    "wrong column": ("linear.h", "ENTRY_COLUMN[number][m]", "ENTRY_COLUMN[number][m] ^ (m == 0)"),
    "wrong pattern": ("linear.h", "int(index.control[unit]);", "int(index.control[unit]) ^ (unit == 1);"),
    "last K-step": ("linear.h", "multiply(index, weights, steps,", "multiply(index, weights, steps - 1,"),
    "wrong token group": ("linear.h", "x[group * columns + ", "x[0 * group * columns + "),
}


@pytest.mark.parametrize("mutation", LINEAR_MUTATIONS)
def test_a_broken_linear_layer_is_found(linear_build, tmp_path, mutation):
    broken = mutated(linear_build("pattern"), tmp_path, LINEAR_MUTATIONS[mutation])
    result = simulate_hls_layers(broken, SimulationRequest(limit=4))
    assert not result.passed
    assert "output words differ from the golden model" in result.problems()[0]
    assert "expected" in result.problems()[1]


def test_the_command(linear_build):
    opened = linear_build("pattern")
    done = CliRunner().invoke(main, ["sim", str(opened.directory), "--bench", "hls", "--layers", "*dense"])
    assert done.exit_code == 0
    assert "C/RTL co-simulation, and cycles, need the vendor's HLS tool" in done.stdout
    assert "passed: " in done.stdout
    done = CliRunner().invoke(main, ["sim", str(opened.directory), "--bench", "hls", "--json"])
    result = json.loads(done.stdout)
    assert (result["passed"], result["mismatches"], result["cycles"]) == (True, 0, None)
    assert result["words"] == sum(layer["words"] for layer in result["layers"])


def test_the_command_fails_on_a_broken_design(linear_build, tmp_path):
    broken = mutated(linear_build("pattern"), tmp_path, LINEAR_MUTATIONS["truncation"])
    done = CliRunner().invoke(main, ["sim", str(broken.directory), "--bench", "hls"])
    assert done.exit_code == 1
    assert "FAILED: " in done.stdout
    assert "warning: " in done.stderr
    assert "hls/fixedpoint.h differs from manifest.json" in done.stderr


def test_a_missing_compiler_is_named(linear_build, tmp_path, monkeypatch):
    opened = linear_build("pattern")
    shutil.copytree(opened.directory, tmp_path / "build", ignore=shutil.ignore_patterns("sim"))
    monkeypatch.setenv("PATH", str(tmp_path))
    find_tool.cache_clear()
    done = CliRunner().invoke(main, ["sim", str(tmp_path / "build"), "--bench", "hls"])
    find_tool.cache_clear()
    assert done.exit_code == 1
    assert "Error: g++: g++ was not found in " in done.stderr
    assert "install your system's C++ compiler (package g++)" in done.stderr


def test_a_build_without_hls_is_refused(linear_build, tmp_path):
    opened = linear_build("pattern")
    shutil.copytree(opened.directory, tmp_path / "build", ignore=shutil.ignore_patterns("hls"))
    with pytest.raises(BuildError, match=r"has no HLS C\+\+; build again with --emit hls"):
        simulate_hls_layers(replace(opened, directory=tmp_path / "build"), SimulationRequest())
    done = CliRunner().invoke(main, ["sim", str(opened.directory)])
    assert done.exit_code == 1
    assert "has no Verilog; build again with --emit verilog" in done.stderr
