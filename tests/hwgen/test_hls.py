"""HLS C++ of a build: complete, reproducible, and accepted by g++ file by file."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from importlib import resources
from pathlib import Path

import jinja2
import jinja2.meta
import pytest

from compressor.bundle import save_bundle
from compressor.pools import build_pool
from hwgen.hls.contexts import control_ports
from hwgen.hls.files import COMPILER_FLAGS, hls_contexts
from hwgen.memory_image import LayerImage
from hwgen.packaging import EMITTERS, BuildError, build, verify_build, verilog_files
from hwgen.plan import PlanError
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.templates import render
from rtl_templates.array_spec import PoolStorage
from tests.bundles import random_bundle, random_encoder_bundle

SIZES = {"hidden": 16, "heads": 2, "ffn": 32, "layers": 1, "max_tokens": 16}
SMALL = PlanRequest(rows=2, lanes=4, tokens=9)
UNBALANCED = build_pool("frequency", size=8, balance="none")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hls")
    save_bundle(random_encoder_bundle(**SIZES, map_pruning=True), directory / "pruned.pt")
    return build(directory / "pruned.pt", directory / "build", SMALL, emit=("hls",)).directory


def contexts(request=SMALL, bundle=None, **arguments):
    bundle = bundle or random_bundle(**SIZES, **arguments)
    plan = make_plan(bundle, request)
    return hls_contexts(bundle, plan, [LayerImage(name=layer.name, offset=0, bytes=0, beats=0, tiles=0)
                                       for layer in plan.layers])


def test_a_templates_variables_are_its_contexts_fields():
    folder = resources.files("rtl_templates").joinpath("hls")
    templates = {path.name.removesuffix(".j2") for path in folder.iterdir()}
    found = contexts(bundle=random_encoder_bundle(**SIZES))
    assert set(found) == templates
    assert set(contexts()) < templates
    for name, context in found.items():
        tree = jinja2.Environment().parse(folder.joinpath(f"{name}.j2").read_text())
        assert jinja2.meta.find_undeclared_variables(tree) == {field.name for field in fields(context)}, name


def test_templates_do_no_arithmetic():
    for path in resources.files("rtl_templates").joinpath("hls").iterdir():
        for expression in re.findall(r"\{\{-?(.*?)-?\}\}|\{%(.*?)%\}", path.read_text()):
            code = re.sub(r'"[^"]*"', "", "".join(expression))
            assert not re.search(r"[*/%+]|\d\s*-|-\s*\d|//", code), (path.name, code)


def test_a_build_with_hls_alone_says_so(built):
    manifest = json.loads((built / "manifest.json").read_text())["files"]
    assert {"hls/config.h", "hls/linear.h", "hls/Makefile", "hls/run_hls.tcl", "hls/vectors/linear.txt",
            "hls/vectors/linear0.input.bin"} <= set(manifest)
    assert not any(name.startswith("rtl/") for name in manifest)
    readme = (built / "README.md").read_text()
    assert "`hls/`" in readme
    assert "`rtl/accelerator.v`" not in readme
    verify_build(built)
    with pytest.raises(BuildError, match=r"has no Verilog; build again with --emit verilog"):
        verilog_files(built)


def test_a_second_build_has_the_same_bytes(built, tmp_path):
    again = build(built / "bundle.pt", tmp_path / "again", SMALL, emit=("hls",)).directory
    assert (again / "manifest.json").read_text() == (built / "manifest.json").read_text()


@pytest.mark.parametrize("emit", [(), ("vhdl",), ("verilog", "")])
def test_unknown_emitters_are_refused(built, tmp_path, emit):
    with pytest.raises(BuildError, match=f"give one or more of {', '.join(EMITTERS)}"):
        build(built / "bundle.pt", tmp_path / "out", SMALL, emit=emit)


def test_every_file_compiles_on_its_own(built):
    for path in sorted((built / "hls").glob("*.h")) + sorted((built / "hls").glob("*.cpp")):
        subprocess.run(["g++", *COMPILER_FLAGS, "-fsyntax-only", "-include", path.name, "-x", "c++",
                        os.devnull], check=True, cwd=path.parent)


def test_make_runs_the_testbenches(built, tmp_path):
    shutil.copytree(built / "hls", tmp_path / "hls")
    shutil.copytree(built / "weights", tmp_path / "weights")
    result = subprocess.run(["make", "-C", tmp_path / "hls", "CXXFLAGS=-O0"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\npassed\n") == 3
    assert result.stdout.count(": 9 tokens, 0 values differ") == 6
    assert "encoder: 2 sequences of 9 tokens, 0 values differ\n" in result.stdout
    assert result.stdout.count(", encoder layer 0: 0 values differ\n") == 6
    for name in ("linear3", "encoder", "softmax0"):
        vector = tmp_path / "hls" / "vectors" / f"{name}.expected.bin"
        vector.write_bytes(bytes([vector.read_bytes()[0] ^ 1]) + vector.read_bytes()[1:])
    for bench in ("linear", "encoder", "operators"):
        result = subprocess.run([f"./tb_{bench}", "../weights/weights.bin", "vectors"], text=True,
                                capture_output=True, cwd=tmp_path / "hls")
        assert result.returncode == 1
        assert result.stdout.count(" 1 values differ\n") == 1
        assert result.stdout.endswith("FAILED\n")


def test_pragmas_name_what_is_there(built):
    for path in (built / "hls").iterdir():
        if path.suffix in (".h", ".cpp"):
            text = path.read_text()
            for name in re.findall(r"#pragma HLS .*?(?:variable|port) = (\w+)", text):
                assert len(re.findall(rf"\b{name}\b", text)) > 1 or name == "return", (path.name, name)


def test_loops_of_variable_length_say_how_long_they_get(built):
    """Without it the tool's report has a question mark for every latency above."""
    variable_loop = re.compile(r"for \(int \w+ = 0; \w+ < ([^;]*[a-z][^;]*);.*\n((?: *#pragma.*\n)*)")
    counted = 0
    for path in (built / "hls").iterdir():
        if path.suffix not in (".h", ".cpp") or path.name.startswith(("tb_", "cases")):
            continue
        for loop in variable_loop.finditer(path.read_text()):
            counted += 1
            assert "LOOP_TRIPCOUNT max = " in loop[2], (path.name, loop[0])
    assert counted == 23


def tidy(folder, *sources):
    """A run of clang-tidy: its default checks, which the packaged one must be given by name."""
    command = [Path(sys.executable).parent / "clang-tidy", "--quiet", "--warnings-as-errors=*",
               "--checks=clang-diagnostic-*,clang-analyzer-*", *sources, "--", *COMPILER_FLAGS,
               "-DSTANDARD_INTEGERS"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_clang_tidy_finds_nothing(built):
    sources = sorted(path.name for path in (built / "hls").glob("*.cpp"))
    assert {"encoder.cpp", "linear_layer.cpp", "tb_encoder.cpp", "tb_linear.cpp"} <= set(sources)
    done = tidy(built / "hls", *sources)
    assert done.returncode == 0, done.stdout + done.stderr


def test_clang_tidy_would_find_something(tmp_path):
    (tmp_path / "wrong.cpp").write_text("int at(const int* p) { return p ? 0 : *p; }\n")
    done = tidy(tmp_path, "wrong.cpp")
    assert done.returncode != 0
    assert "clang-analyzer-core.NullDereference" in done.stdout


def test_the_pool_is_a_constant_table(built):
    config = (built / "hls" / "config.h").read_text()
    assert "constexpr int PATTERNS = 32;" in config
    assert len(re.findall(r"^    \{\d, \d, \d, \d, \d, \d, \d, \d\},$", config, re.MULTILINE)) == 34


def test_ports_of_a_control_word_are_where_the_assignment_puts_them():
    plan = make_plan(random_bundle(**SIZES, structure="mixed", pool=UNBALANCED), SMALL)
    assignment = plan.spec.array.assignment
    assert plan.spec.array.storage is PoolStorage.STREAM
    assert assignment.is_routed
    for entry in range(assignment.entries):
        word = assignment.control_word(entry)
        rows = [-1] * assignment.multipliers
        for port in control_ports(assignment):
            code = word >> port.first_bit & port.mask if port.width else 1
            if code:
                rows[port.candidates[code - 1]] = port.row
        used = [m for m in range(assignment.multipliers) if assignment.rows[entry][m] >= 0]
        assert [rows[m] for m in used] == [assignment.rows[entry][m] for m in used]


def test_too_wide_control_words_are_refused(monkeypatch):
    monkeypatch.setattr("hwgen.hls.contexts.CONTROL_BITS_MAX", 20)
    with pytest.raises(PlanError, match=r"up to 20 bits, this pool needs \d+; use a row-balanced pool"):
        contexts(structure="mixed", pool=UNBALANCED)


def test_the_script_has_the_devices_part_and_clock():
    assert "set_part xck26-sfvc784-2LV-c" in render("hls/run_hls.tcl", contexts(
        PlanRequest(device="kv260", tokens=9))["run_hls.tcl"])
    text = render("hls/run_hls.tcl", contexts(PlanRequest(device="ecp5-85k", tokens=9))["run_hls.tcl"])
    assert "set_part xczu7ev-ffvc1156-2-e" in text
    assert "create_clock -period 4.0 " in text


def test_the_script_runs_in_a_tcl_interpreter_and_names_files_that_exist(built):
    tcl, calls = pytest.importorskip("tkinter").Tcl(), []
    for name in ("open_project", "set_top", "add_files", "open_solution", "set_part", "create_clock",
                 "csim_design", "csynth_design", "cosim_design", "export_design", "exit"):
        tcl.createcommand(name, lambda *arguments, name=name: calls.append((name, *arguments)))
    script = (built / "hls" / "run_hls.tcl").read_text()
    for arguments, cosimulations in (("", 0), ("cosim", 1)):
        calls.clear()
        tcl.setvar("argv", arguments)
        tcl.eval(script)
        assert [name for name, *_ in calls].count("cosim_design") == cosimulations
        assert ("set_top", "encoder") in calls
        assert ("csim_design", "-argv", "weights.bin vectors") in calls
        assert calls[-1] == ("exit",)
        added = [next(word for word in words if not word.startswith("-"))
                 for name, *words in calls if name == "add_files"]
        assert added == ["encoder.cpp", "tb_encoder.cpp", "../weights/weights.bin", "vectors"]
        assert all((built / "hls" / name).exists() for name in added)
