"""One small build for all simulation tests; benches are compiled once in it."""

from dataclasses import replace

import pytest

from compressor.bundle import save_bundle
from hwgen import packaging
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from sim.open_build import open_build
from tests.bundles import random_bundle, random_encoder_bundle
from tests.sim.driver_testing import REQUEST, make_built


@pytest.fixture(scope="session", autouse=True)
def _fast_compilation():
    """Compiling takes longer than running."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sim.harness.OPTIMIZE", "-O0")
        patch.setattr("sim.hls_bench.OPTIMIZE", "-O0")
        yield


def make_build(directory, request, *, make=random_bundle, emit=("verilog",), **bundle):
    """Random bundle and its build, opened."""
    save_bundle(make(**bundle), directory / "pruned.pt")
    build(directory / "pruned.pt", directory / "build", request, emit=emit)
    return open_build(directory / "build")


@pytest.fixture(scope="session")
def small_build(tmp_path_factory):
    """R = 2, T = 4: 6 rows of blocks do not divide into tiles, 9 tokens do not divide into lanes."""
    return make_build(tmp_path_factory.mktemp("small"), PlanRequest(rows=2, lanes=4, bus_bits=64, tokens=16),
                      hidden=24, layers=1, heads=2, ffn=40, absent_blocks=0.2, max_tokens=16)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """One layer of 8 channels on the smallest array that attention can use, 5 tokens; HLS C++ as well."""
    return make_build(tmp_path_factory.mktemp("tiny"), PlanRequest(rows=2, lanes=4, bus_bits=64),
                      make=random_encoder_bundle, emit=("verilog", "hls"),
                      hidden=8, layers=1, heads=2, ffn=8, max_tokens=5)


@pytest.fixture(scope="session")
def driver_build(tmp_path_factory):
    """The driver's accelerator: its Verilog is compiled once."""
    return make_built(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def other_driver_build(tmp_path_factory):
    """The files of another accelerator, T = 4, patterns in the logic; its Verilog is never looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaging, "write_verilog", lambda plan, directory: directory.mkdir())
        return make_built(tmp_path_factory.mktemp("other"), seed=1,
                          request=replace(REQUEST, lanes=4, storage=None))
