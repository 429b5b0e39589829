"""The folder ``registers/``: the register map as SystemRDL, C header, Python, HTML and IP-XACT, and its test.

SystemRDL is made from :mod:`rtl_templates.register_map`; the PeakRDL tools make header and IP-XACT from it.
"""

from dataclasses import dataclass

from peakrdl_cheader.exporter import CHeaderExporter
from peakrdl_ipxact import IPXACTExporter
from systemrdl import RDLCompiler

from hwgen.templates import render
from hwgen.vendor.names import LIBRARY, VENDOR, VERSION
from rtl_templates.register_map import (
    STATUS_HELP,
    Access,
    Register,
    Window,
    registers,
    status_text,
    windows,
)

DIRECTORY = "registers"
"""Folder of a build."""
RENDERED = ("accelerator.rdl", "accelerator_registers.py", "accelerator.html", "test_registers.py",
            "Makefile")
"""Files made from a template each."""

RDL_ACCESS = {
    Access.READ_WRITE: "sw = rw; hw = r;",
    Access.READ_ONLY: "sw = r; hw = w;",
    Access.READ_CLEARS: "sw = r; onread = rclr; hw = w;",
    Access.WRITE_1_SETS: "sw = rw; onwrite = woset; hw = rw;",
    Access.WRITE_1_TOGGLES: "sw = rw; onwrite = wot; hw = rw;",
}
"""SystemRDL properties of a field."""
WINDOW_ACCESS = {Access.READ_ONLY: "r", Access.WRITE_ONLY: "w"}


@dataclass(frozen=True, kw_only=True)
class RegistersContext:
    """Variables of the templates in ``rtl_templates/registers``."""

    generated: str
    configuration: str
    registers: tuple[Register, ...]
    windows: tuple[Window, ...]
    status: tuple[tuple[int, str], ...]
    rdl_access: dict[Access, str]
    window_access: dict[Access, str]


def registers_context(plan, generated):
    """Variables for a plan; ``generated`` is the line that says what a file was made from."""
    return RegistersContext(
        generated=generated, configuration=plan.configuration_hash[:8], registers=registers(plan.spec),
        windows=windows(plan.spec), rdl_access=RDL_ACCESS, window_access=WINDOW_ACCESS,
        status=tuple((int(status), status_text(status)) for status in STATUS_HELP))


def compile_rdl(path):
    """The elaborated top node of a SystemRDL file."""
    compiler = RDLCompiler()
    compiler.compile_file(str(path))
    return compiler.elaborate()


def write_registers(context, directory):
    """Write the register files into a directory that does not exist yet."""
    directory.mkdir()
    for name in RENDERED:
        (directory / name).write_text(render(f"registers/{name}", context))
    root = compile_rdl(directory / "accelerator.rdl")
    CHeaderExporter().export(root, str(directory / "accelerator.h"))
    IPXACTExporter(vendor=VENDOR, library=LIBRARY, version=VERSION).export(
        root, str(directory / "accelerator.xml"), component_name="accelerator")
