"""The generated C driver: compiled as C and C++ without a warning, run against the simulated accelerator."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from hwgen.toolchain import find_tool
from rtl_templates.register_map import Status, status_text
from sim.simulated_device import SimulatedDevice
from tests.bundles import random_activations
from tests.sim.driver_testing import MODEL, TOKENS

HOST = Path(__file__).with_name("driver_host.c")
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")
LENGTHS = (11, 4)
OK, BUSY, FAILED, TIMEOUT, OTHER_CONFIGURATION, BAD_ARGUMENT, TOO_LONG = 0, 1, 2, 3, 6, 7, 8


def compile_host(build, out):
    """The test host with the C driver of a build."""
    compiler, driver = find_tool("g++").path, build / "driver"
    objects = [out.with_suffix(f".{index}.o") for index in range(2)]
    for source, made in zip((HOST, driver / "bert_accel.c"), objects, strict=True):
        subprocess.run([compiler, "-x", "c", "-std=c11", *STRICT, f"-I{driver}", "-c", source, "-o", made],
                       check=True)
    subprocess.run([compiler, *objects, "-o", out], check=True)
    return out


def run_host(host, build, inputs, folder):
    """Lines that the host prints, with ``build`` simulated and its files loaded."""
    x, lengths = inputs
    (folder / "x").write_bytes(x.tobytes())
    (folder / "lengths").write_bytes(np.asarray(lengths, "<u4").tobytes())
    device = SimulatedDevice(build)
    try:
        finished = subprocess.run(
            [host, build / "program/program.bin", build / "weights/weights.bin", build / "weights/pool.bin",
             folder / "lengths", folder / "x", folder / "out"], check=True, text=True, stderr=subprocess.PIPE,
            stdin=device.process.stdout, stdout=device.process.stdin)
    finally:
        device.close()
    return finished.stderr.splitlines()


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(5)
    return np.stack([random_activations(TOKENS, MODEL["hidden"], rng) for _ in LENGTHS]), LENGTHS


def test_the_c_driver_runs_the_encoder(driver_build, inputs, tmp_path):
    """Every word is the golden model's; misuse and a damaged weight stream give their results."""
    host = compile_host(driver_build.directory, tmp_path / "host")
    lines = run_host(host, driver_build.directory, inputs, tmp_path)
    cycles = next(int(line.split()[3]) for line in lines if line.startswith("status 0"))
    assert lines == [
        f"init {OK}", f"load {BAD_ARGUMENT}", f"load {OK}", f"start {TOO_LONG}", f"start {BAD_ARGUMENT}",
        f"start {OK}", f"start {BUSY}", f"wait {TIMEOUT}", f"wait {OK}", f"status 0 cycles {cycles}",
        f"start {OK}", f"wait {FAILED}", f"status {status_text(Status.BAD_PACKET)}",
        f"start {OK}", f"wait {OK}: done"]
    found = np.fromfile(tmp_path / "out", np.int8).reshape(len(LENGTHS), TOKENS, -1)
    assert np.array_equal(found, driver_build.golden.encoder.compute(*inputs))


def test_the_c_driver_of_another_build_refuses(driver_build, other_driver_build, inputs, tmp_path):
    host = compile_host(other_driver_build.directory, tmp_path / "host")
    assert run_host(host, driver_build.directory, inputs, tmp_path) == [f"init {OTHER_CONFIGURATION}"]


def test_the_c_driver_is_cpp_too(driver_build, tmp_path):
    source = driver_build.directory / "driver" / "bert_accel.c"
    subprocess.run([find_tool("g++").path, "-x", "c++", "-std=c++17", *STRICT, "-c", source,
                    "-o", tmp_path / "object"], check=True)
