"""The register map in its five forms is the one that the RTL has."""

import re
import runpy
import shutil
import subprocess
from dataclasses import dataclass
from xml.etree import ElementTree

import pytest
from systemrdl.node import MemNode

from hwgen.vendor.registers import compile_rdl
from rtl_templates.control_registers import ControlRegisters
from rtl_templates.register_map import STATUS_HELP, status_text
from tests.hwgen.vendor_build import SPEC, write_files
from tests.rtl_templates.axi_memory import lite_read, lite_write
from tests.rtl_templates.stream_bench import simulate

IPXACT = "{http://www.accellera.org/XMLSchema/IPXACT/1685-2014}"
SPIRIT = "{http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009}"


@dataclass(frozen=True)
class Bits:
    """A field, as every form can state it."""

    address: int
    register: str
    name: str
    low: int
    width: int
    reset: int
    writable: bool
    on_write: str | None
    on_read: str | None


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("vendor") / "build")


@pytest.fixture(scope="module")
def described(build):
    """Fields that SystemRDL has."""
    found = []
    top = compile_rdl(build / "registers" / "accelerator.rdl").top
    for register in top.get_child_by_name("registers").registers():
        for field in register.fields():
            on_write, on_read = field.get_property("onwrite"), field.get_property("onread")
            found.append(Bits(
                register.absolute_address, register.inst_name, field.inst_name, field.low, field.width,
                field.get_property("reset"), field.is_sw_writable,
                on_write and {"woset": "oneToSet", "wot": "oneToToggle"}[on_write.name],
                on_read and {"rclr": "clear"}[on_read.name]))
    return found


def test_hardware_has_every_field(described):
    """Resets, what a write of ones and then of zeros leaves, and bits without a field, by simulation."""
    dut = ControlRegisters(SPEC)
    registers = {field.address: [] for field in described}
    for field in described:
        registers[field.address].append(field)

    def word(fields, values):
        return sum(value << field.low for field, value in zip(fields, values, strict=True))

    async def testbench(ctx):
        for address, fields in registers.items():
            reset = word(fields, [field.reset for field in fields])
            assert await lite_read(ctx, dut, address) == reset, fields
        for address, fields in registers.items():
            await lite_write(ctx, dut, address, 0xFFFFFFFF)
            ones = [(1 << field.width) - 1 if field.writable else field.reset for field in fields]
            assert await lite_read(ctx, dut, address) == word(fields, ones), fields
            await lite_write(ctx, dut, address, 0)
            kept = [one if field.on_write or not field.writable else 0
                    for field, one in zip(fields, ones, strict=True)]
            assert await lite_read(ctx, dut, address) == word(fields, kept), fields
            await lite_write(ctx, dut, address, 0xFFFFFFFF)
            again = [0 if field.on_write == "oneToToggle" else one
                     for field, one in zip(fields, ones, strict=True)]
            assert await lite_read(ctx, dut, address) == word(fields, again), fields
        ctx.set(dut.done, 1)
        await ctx.tick()
        ctx.set(dut.done, 0)
        (cleared,) = {field.address for field in described if field.on_read}
        mask = word(registers[cleared], [field.on_read == "clear" for field in registers[cleared]])
        assert await lite_read(ctx, dut, cleared) & mask == mask
        assert await lite_read(ctx, dut, cleared) & mask == 0

    simulate(dut, testbench)


def test_every_other_address_reads_0(described):
    dut = ControlRegisters(SPEC)
    unused = sorted(set(range(0, 0x100, 4)) - {field.address for field in described})

    async def testbench(ctx):
        for address in unused:
            await lite_write(ctx, dut, address, 0xFFFFFFFF)
            assert await lite_read(ctx, dut, address) == 0, hex(address)

    simulate(dut, testbench)


def test_windows(build):
    top = compile_rdl(build / "registers" / "accelerator.rdl").top
    windows = {node.inst_name: (node.absolute_address, node.get_property("mementries"),
                                {"r": "ro", "w": "wo"}[node.get_property("sw").name])
               for node in top.children() if isinstance(node, MemNode)}
    assert windows == {"lengths": (0x3000, 1024, "wo"), "profile": (0x4000, 16, "ro"),
                       "pool": (0x8000, 32, "wo")}
    assert runpy.run_path(build / "registers" / "accelerator_registers.py")["WINDOWS"] == windows


def test_python_agrees(build, described):
    module = runpy.run_path(build / "registers" / "accelerator_registers.py")
    access = {(True, None, None): "rw", (False, None, None): "ro", (False, None, "clear"): "rc",
              (True, "oneToSet", None): "w1s", (True, "oneToToggle", None): "w1t"}
    assert module["REGISTERS"] == {field.register: field.address for field in described}
    assert module["FIELDS"] == {register: {
        field.name: (field.low, field.width, access[field.writable, field.on_write, field.on_read],
                     field.reset)
        for field in described if field.register == register} for register in module["REGISTERS"]}
    assert module["STATUS"] == {int(status): status_text(status) for status in STATUS_HELP}


def test_html_agrees(build, described):
    rows = re.findall(r"<tr><td><code>(0x..)</code></td><td><code>(\w+)</code></td><td>(\d+):(\d+)</td>"
                      r"<td><code>(\w+)</code></td><td>\w+</td><td><code>(\w+)</code>",
                      (build / "registers" / "accelerator.html").read_text())
    assert [(int(address, 16), register, name, int(low), int(high) - int(low) + 1, int(reset, 16))
            for address, register, high, low, name, reset in rows] == [
        (field.address, field.register, field.name, field.low, field.width, field.reset)
        for field in described]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_c_header_agrees(build, described, tmp_path):
    lines = ["#include <stddef.h>", '#include "accelerator.h"', "int main(void) {"]
    for field in described:
        macro = f"ACCELERATOR__REGISTERS__{field.register.upper()}__{field.name.upper()}"
        lines += [f"_Static_assert(offsetof(accelerator_t, registers.{field.register}) == {field.address}, "
                  f'"{macro}");']
        lines += [f'_Static_assert({macro}_{what} == {value}, "{macro}");' for what, value in (
            ("bp", field.low), ("bw", field.width), ("reset", field.reset))]
    for window, address in (("lengths", 0x3000), ("profile", 0x4000), ("pool", 0x8000)):
        lines.append(f'_Static_assert(offsetof(accelerator_t, {window}) == {address}, "{window}");')
    (tmp_path / "check.c").write_text("\n".join([*lines, "return 0; }"]) + "\n")
    done = subprocess.run(["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I",
                           str(build / "registers"), str(tmp_path / "check.c")],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("file", "ns"), [("registers/accelerator.xml", IPXACT), ("component.xml", SPIRIT)])
def test_ip_xact_agrees(build, described, file, ns):
    found = []
    for register in ElementTree.parse(build / file).iter(f"{ns}register"):
        def text(node, name):
            return node.findtext(f"{ns}{name}")
        whole = register.findtext(f"{ns}reset/{ns}value")
        for field in register.iter(f"{ns}field"):
            low, width = int(text(field, "bitOffset")), int(text(field, "bitWidth"))
            reset = (int(whole, 16) >> low & ((1 << width) - 1) if whole else
                     number(field.findtext(f"{ns}resets/{ns}reset/{ns}value")))
            found.append(Bits(number(text(register, "addressOffset")), text(register, "name"),
                              text(field, "name"), low, width, reset, "write" in text(field, "access"),
                              text(field, "modifiedWriteValue"), text(field, "readAction")))
    assert found == described


def number(text):
    return int(text.replace("'h", "0x"), 16)
