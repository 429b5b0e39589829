"""Builds are whole or absent, never destroy what is not theirs, and depend on nothing but their inputs."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.bundle import BundleError, load_bundle, save_bundle
from hwgen import packaging
from hwgen.image_reader import read_image
from hwgen.packaging import BuildError, build, load_plan, verify_build
from hwgen.plan import PlanError
from hwgen.plan_request import PlanRequest
from hwgen.program import linear_program
from rtl_templates.array_spec import PoolStorage
from rtl_templates.program_format import Descriptor
from tests.bundles import random_bundle

SMALL = PlanRequest(rows=2, lanes=4, tokens=9)
FILES = {"README.md", "bundle.pt", "manifest.json", "plan.json", "program/program.bin", "program/program.txt",
         "report/cost.json", "report/cost.md", "rtl/accelerator.v", "rtl/files.f", "weights/layout.json",
         "weights/weights.bin", "accelerator.core", "component.xml", "ecp5/Makefile",
         "ecp5/accelerator_chain.v", "ecp5/move_registers.py", "ecp5/synth.ys",
         "litex/accelerator_litex.py",
         "edalize/make_project.py", "edalize/quartus.eda.yml", "edalize/vivado.eda.yml",
         "quartus/accelerator.qip", "quartus/accelerator.sdc", "quartus/accelerator_hw.tcl",
         "quartus/accelerator_platform.v", "registers/accelerator.h", "registers/accelerator.html",
         "registers/accelerator.rdl", "registers/accelerator.xml", "registers/accelerator_registers.py",
         "registers/Makefile", "registers/test_registers.py",
         "vitis/kernel.xml", "vitis/package_xo.tcl", "vivado/block_design.tcl", "vivado/constraints.xdc",
         "vivado/package_ip.tcl", "vivado/synth_ooc.tcl", "vivado/xgui.tcl", "driver/bert_accel.c",
         "driver/bert_accel.h", "driver/bert_accel_build.h", "driver/classify.py"}

REPORT = {"report/index.html", "report/summary.json", "report/summary.md"}
"""Not in the manifest: they also tell what has run since."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "pruned.pt"
    save_bundle(random_bundle(hidden=16, heads=2, ffn=32, layers=1, absent_blocks=0.3), path)
    return path


@pytest.fixture(scope="module")
def built(model, tmp_path_factory):
    return build(model, tmp_path_factory.mktemp("built") / "accelerator", SMALL)


def contents(directory):
    return {path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.fixture
def no_verilog(monkeypatch):
    """Skips the Verilog writer where a test is about files."""
    def write(plan, directory):
        directory.mkdir()
        (directory / "accelerator.v").write_text(plan.configuration_hash)
    monkeypatch.setattr(packaging, "write_verilog", write)


def test_a_build_has_its_files_and_a_true_manifest(built):
    files = contents(built.directory)
    assert set(files) == FILES | REPORT
    manifest = json.loads(files["manifest.json"])
    assert manifest["files"] == {name: hashlib.sha256(data).hexdigest()
                                 for name, data in files.items()
                                 if name not in {"manifest.json", *REPORT}}
    assert manifest["configuration_hash"] == built.plan.configuration_hash
    assert set(manifest["tools"]) == {"python", *packaging.TOOLS}
    verify_build(built.directory)


def test_the_files_of_a_build_agree_with_each_other(built, model):
    directory = built.directory
    plan, bundle = load_plan(directory), load_bundle(directory / "bundle.pt")
    assert plan == built.plan
    assert (directory / "bundle.pt").read_bytes() == model.read_bytes()
    program = linear_program(plan)
    raw = (directory / "program" / "program.bin").read_bytes()
    assert [Descriptor.unpack(raw[i:i + 32]) for i in range(0, len(raw), 32)] == list(program.descriptors)
    layout = json.loads((directory / "weights" / "layout.json").read_text())
    weights = (directory / "weights" / "weights.bin").read_bytes()
    assert layout["weights_beats"] * plan.spec.bus_bits == 8 * len(weights)
    for layer, decoded in zip(plan.layers, read_image(weights, plan.spec, [
            (layer.rows, layer.inner) for layer in plan.layers]), strict=True):
        assert (decoded.weight == bundle.layers[layer.name].weight).all()
    cost = json.loads((directory / "report" / "cost.json").read_text())
    assert cost["cycles"] == plan.predicted_cycles
    verilog = (directory / "rtl" / "accelerator.v").read_text()
    assert verilog.startswith("// accelerator: ")
    assert "module accelerator(" in verilog
    assert plan.configuration_hash in verilog
    for text in FILES - {"bundle.pt", "manifest.json", "rtl/files.f", "weights/weights.bin"}:
        if text.endswith(".md"):
            assert f"{plan.spec.array.multipliers} MACs" in (directory / text).read_text()
    readme = (directory / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in (FILES | REPORT) - {"README.md"})


def test_no_file_of_a_build_names_the_machine(built):
    for name, data in contents(built.directory).items():
        for word in (f"{Path.home()}/", str(built.directory), str(Path(packaging.__file__).parents[1])):
            assert word.encode() not in data, name


def test_a_build_in_another_process_has_the_same_bytes(built, model, tmp_path):
    script = ("import sys; from hwgen.packaging import build; from hwgen.plan_request import PlanRequest; "
              "build(sys.argv[1], sys.argv[2], PlanRequest(rows=2, lanes=4, tokens=9))")
    subprocess.run([sys.executable, "-c", script, str(model), str(tmp_path / "other")], check=True,
                   env={**os.environ, "PYTHONHASHSEED": "12345"})
    assert contents(tmp_path / "other") == contents(built.directory)


def test_a_pool_in_ram_comes_with_its_memory_image(model, tmp_path, no_verilog):
    request = PlanRequest(rows=2, lanes=4, tokens=9, storage=PoolStorage.RAM)
    out = build(model, tmp_path / "out", request).directory
    assert (out / "weights" / "pool.bin").stat().st_size == 8 * (32 + 2)
    assert "`weights/pool.bin`" in (out / "README.md").read_text()


def test_an_earlier_build_is_replaced(model, tmp_path, no_verilog):
    out = tmp_path / "out"
    first = build(model, out, SMALL)
    (out / "notes.txt").write_text("left by the user")
    second = build(model, out, PlanRequest(rows=1, lanes=2, tokens=9))
    assert load_plan(out) == second.plan != first.plan
    assert not (out / "notes.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_to_an_earlier_build_is_followed(model, tmp_path, no_verilog):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):
        assert build(model, tmp_path / "link", SMALL).directory == tmp_path / "link"
    assert (tmp_path / "link").is_symlink()
    assert load_plan(tmp_path / "real")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_build_may_take_its_model_from_the_build_it_replaces(model, tmp_path, no_verilog):
    out = tmp_path / "out"
    build(model, out, SMALL)
    build(out / "bundle.pt", out, SMALL)
    assert (out / "bundle.pt").read_bytes() == model.read_bytes()


def test_an_empty_directory_is_used(model, tmp_path, no_verilog):
    (tmp_path / "out").mkdir()
    assert load_plan(build(model, tmp_path / "out", SMALL).directory)


@pytest.mark.parametrize("name", ["thesis.tex", "manifest.json"])
def test_a_directory_of_someone_else_is_left_alone(model, tmp_path, name):
    (tmp_path / name).write_text('{"format": "other", "files": {}}')
    with pytest.raises(BuildError, match=r"is not empty and no hwgen build; it is left alone"):
        build(model, tmp_path, SMALL)
    assert list(contents(tmp_path)) == [name]


def test_a_file_is_not_overwritten(model, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BuildError, match=r"is a file"):
        build(model, tmp_path / "out", SMALL)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_build_that_fails_leaves_the_earlier_one(model, tmp_path, monkeypatch, no_verilog):
    out = tmp_path / "out"
    build(model, out, SMALL)
    before = contents(out)

    def fail(plan, cost):
        raise KeyboardInterrupt
    monkeypatch.setattr(packaging.reports, "cost_markdown", fail)
    with pytest.raises(KeyboardInterrupt):
        build(model, out, PlanRequest(rows=1, lanes=2, tokens=9))
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_progress_names_steps_and_layers(model, tmp_path, no_verilog):
    steps = []
    build(model, tmp_path / "out", SMALL, steps.append)
    assert steps[:3] == ["reading the bundle", "planning", "writing Verilog"]
    assert steps[3] == "packing weights: encoder.layer.0.attention.self.query"
    assert len(steps) == 9


def test_bad_models_and_requests_write_nothing(model, tmp_path):
    (tmp_path / "cut.pt").write_bytes(model.read_bytes()[:1000])
    with pytest.raises(BundleError):
        build(tmp_path / "cut.pt", tmp_path / "out", SMALL)
    with pytest.raises(PlanError):
        build(model, tmp_path / "out", PlanRequest(rows=99))
    assert [path.name for path in tmp_path.iterdir()] == ["cut.pt"]


@pytest.mark.parametrize("name", ["weights/weights.bin", "plan.json", "rtl/accelerator.v"])
def test_changed_and_missing_files_are_found(model, tmp_path, no_verilog, name):
    out = build(model, tmp_path / "out", SMALL).directory
    (out / name).write_bytes((out / name).read_bytes() + b" ")
    with pytest.raises(BuildError, match=f"{name} differs"):
        verify_build(out)
    (out / name).unlink()
    with pytest.raises(BuildError, match=f"{name} is missing"):
        verify_build(out)


def test_plans_of_directories_that_are_no_builds_are_refused(model, tmp_path, no_verilog):
    with pytest.raises(BuildError, match="is not a build"):
        load_plan(tmp_path)
    with pytest.raises(BuildError, match="is not a build"):
        verify_build(tmp_path / "nowhere")
    out = build(model, tmp_path / "out", SMALL).directory
    (out / "plan.json").write_text("{}")
    with pytest.raises(PlanError, match=r"out: plan.json: not a plan"):
        load_plan(out)
    (out / "plan.json").unlink()
    with pytest.raises(BuildError, match=r"plan.json cannot be read"):
        load_plan(out)
