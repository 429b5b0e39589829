"""Says which tools are here, and what each missing one disables."""

import importlib.metadata
import shutil
from dataclasses import dataclass

from hwgen.toolchain import ToolError, find_tool


@dataclass(frozen=True)
class Finding:
    """One tool: its version or place, None if it is missing; and what it is for."""

    tool: str
    found: str | None
    purpose: str

    def __str__(self) -> str:
        if self.found:
            return f"{self.tool:12s} {self.found}"
        return f"{self.tool:12s} missing: {self.purpose}"


_FOUND_BY_TOOLCHAIN = (
    ("verilator", "no simulation (`hwgen sim`, `make demo`)"),
    ("g++", "no simulation: Verilator's output is C++; no C simulation of HLS C++"),
    ("make", "no simulation: Verilator builds with make"),
    ("perl", "no simulation: Verilator's driver is Perl"),
    ("iverilog", "no 4-state check in the tests; everything else works"),
    ("yosys", "no resource counts (`hwgen synth`)"),
    ("nextpnr-ecp5", "no placement (`hwgen synth --place`): pip install 'hwgen[ecp5]'"),
)
_PYTHON_PACKAGES = (
    ("psycopg", "no `hwgen explore` on a PostgreSQL: pip install 'hwgen[postgres]'"),
    ("datasets", "no tasks from a hub, only from files (`--data`): pip install 'hwgen[hub]'"),
    ("pyslang", "one lint test is skipped; everything else works"),
)
_VENDOR_TOOLS = (
    ("vivado", "no placed results for AMD devices; nothing here needs it"),
    ("vitis_hls", "no synthesis of HLS C++; nothing here needs it"),
    ("quartus_sh", "no placed results for Altera devices; nothing here needs it"),
)


def examine() -> list[Finding]:
    """Findings for every tool, in the order in which they matter."""
    findings = [Finding(name, _tool_version(name), purpose) for name, purpose in _FOUND_BY_TOOLCHAIN]
    findings += [Finding(name, _package_version(name), purpose) for name, purpose in _PYTHON_PACKAGES]
    findings += [Finding(name, shutil.which(name), purpose) for name, purpose in _VENDOR_TOOLS]
    return findings


def _tool_version(name: str) -> str | None:
    try:
        return find_tool(name).version
    except ToolError:
        return None


def _package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
