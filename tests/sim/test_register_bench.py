"""The cocotb test of registers that a build brings: it passes, and finds a description that is not true."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hwgen.toolchain import ToolError, find_tool
from sim.cocotb_bench import run_cocotb

TESTS = ("registers_after_reset", "fields_keep_what_may_be_written", "other_addresses_read_0",
         "a_run_starts_and_ends")


def run_register_test(build, registers, monkeypatch, **arguments):
    """Result of ``test_registers.py`` in the folder ``registers`` on the build's Verilog."""
    with monkeypatch.context() as patch:
        patch.syspath_prepend(registers)
        return run_cocotb(build.verilog, None, build.directory / "sim" / "cocotb", module="test_registers",
                          **arguments)


def test_the_verilog_has_every_field(small_build, monkeypatch):
    outcome = run_register_test(small_build, small_build.directory / "registers", monkeypatch)
    assert outcome.messages == {}
    assert outcome.passed == TESTS


def test_its_makefile_runs_it(small_build, tmp_path):
    """In Icarus, with nothing of this project on the way."""
    try:
        find_tool("iverilog")
    except ToolError as error:
        pytest.skip(str(error))
    for name in ("registers", "rtl"):
        shutil.copytree(small_build.directory / name, tmp_path / name)
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("MAKEFLAGS", "PYTHONPATH")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(["make", "-C", tmp_path / "registers"], env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TESTS=4 PASS=4 FAIL=0 SKIP=0" in done.stdout


@pytest.mark.parametrize(("changes", "failing"), [
    ([(r'("sequences": \{\s*"value": \(0, 32, "rw", )0x1', r"\g<1>0x2")], TESTS[:1]),
    ([(r'("output_stride": \{\s*"value": \(0, 32, )"rw"', r'\g<1>"ro"'),
      (r'    "input_stride": 0x58,\n', ""), (r'    "input_stride": \{\s*"value": .*\n    \},\n', ""),
      (r'("done": \(1, 1, )"rc"', r'\g<1>"ro"')], TESTS[1:]),
])
def test_a_wrong_description_is_found(small_build, tmp_path, monkeypatch, changes, failing):
    folder = tmp_path / "registers"
    shutil.copytree(small_build.directory / "registers", folder)
    text = (folder / "accelerator_registers.py").read_text()
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, pattern
    (folder / "accelerator_registers.py").write_text(text)
    outcome = run_register_test(small_build, folder, monkeypatch, tests="|".join(failing))
    assert outcome.failed == failing
    assert all("reads" in message or "after a run" in message for message in outcome.messages.values())
