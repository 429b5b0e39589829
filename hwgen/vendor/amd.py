"""Files for Vivado and Vitis: IP package, constraints, scripts, kernel description."""

from dataclasses import dataclass

from hwgen.devices import DEVICES
from hwgen.vendor.names import LIBRARY, VENDOR, VERSION
from hwgen.vendor.top_level import Bus, Port
from rtl_templates.accelerator import CONTROL, INPUTS_AND_OUTPUTS, WEIGHTS
from rtl_templates.control_registers import NUMBERS, POINTERS
from rtl_templates.register_map import (
    ADDRESS_BITS,
    Access,
    Register,
    Window,
    address_of,
    registers,
    windows,
)

DEFAULT_DEVICE = "zcu104"
"""Part and clock of the scripts where the plan is for no AMD device."""
AMD_FAMILIES = ("xcup", "xc7")
BLOCK_DESIGN_DEVICES = ("zcu104", "kv260")
"""Devices with the processors that the block design connects to."""

VIVADO_FAMILIES = ("zynquplus", "virtexuplus", "virtexuplusHBM", "kintexuplus", "artixuplus", "zynq",
                   "artix7", "kintex7", "virtex7")

IPXACT_ACCESS = {Access.READ_WRITE: "read-write", Access.READ_ONLY: "read-only",
                 Access.READ_CLEARS: "read-only", Access.WRITE_1_SETS: "read-write",
                 Access.WRITE_1_TOGGLES: "read-write"}
IPXACT_WRITE = {Access.WRITE_1_SETS: "oneToSet", Access.WRITE_1_TOGGLES: "oneToToggle"}

FILES = {
    "component.xml": "vivado/component.xml",
    "vivado/xgui.tcl": "vivado/xgui.tcl",
    "vivado/package_ip.tcl": "vivado/package_ip.tcl",
    "vivado/synth_ooc.tcl": "vivado/synth_ooc.tcl",
    "vivado/constraints.xdc": "vivado/constraints.xdc",
    "vivado/block_design.tcl": "vivado/block_design.tcl",
    "vitis/kernel.xml": "vitis/kernel.xml",
    "vitis/package_xo.tcl": "vitis/package_xo.tcl",
}
"""Path in the build, and template."""


@dataclass(frozen=True, kw_only=True)
class KernelArgument:
    """A row of kernel.xml: ``offset`` is its register's byte address, ``size`` in bytes."""

    index: int
    name: str
    offset: int
    size: int
    port: str
    qualifier: int
    c_type: str


@dataclass(frozen=True, kw_only=True)
class AmdContext:
    """Variables of the templates in ``rtl_templates/vivado`` and ``rtl_templates/vitis``.

    ``clock_period`` in ns; ``control_range`` and ``memory_range`` in bytes; the ``block_design_`` ones are of
    a device with processors.
    """

    generated: str
    configuration: str
    vendor: str
    library: str
    version: str
    part: str
    clock_period: float
    block_design_part: str
    block_design_mhz: float
    families: tuple[str, ...]
    ports: tuple[Port, ...]
    buses: tuple[Bus, ...]
    bus_names: tuple[str, ...]
    masters: tuple[str, ...]
    registers: tuple[Register, ...]
    windows: tuple[Window, ...]
    ipxact_access: dict[Access, str]
    ipxact_write: dict[Access, str]
    access_of_register: dict[str, str]
    control_range: int
    memory_range: int
    arguments: tuple[KernelArgument, ...]


def amd_context(plan, top, generated):
    """Variables for a plan and its TopLevel."""
    device = amd_device(plan)
    board = device if device.name in BLOCK_DESIGN_DEVICES else DEVICES[DEFAULT_DEVICE]
    return AmdContext(
        generated=generated, configuration=plan.configuration_hash[:8], vendor=VENDOR, library=LIBRARY,
        version=VERSION, part=device.part, clock_period=1e3 / device.assumed_clock_mhz,
        block_design_part=board.part, block_design_mhz=board.assumed_clock_mhz, families=VIVADO_FAMILIES,
        ports=top.ports, buses=top.buses, bus_names=tuple(bus.name for bus in top.buses),
        masters=tuple(bus.name for bus in top.buses if bus.kind == "master"),
        registers=registers(plan.spec), windows=windows(plan.spec), ipxact_access=IPXACT_ACCESS,
        ipxact_write=IPXACT_WRITE,
        access_of_register={register.name: "read-only" if register.access == "ro" else "read-write"
                            for register in registers(plan.spec)},
        control_range=1 << ADDRESS_BITS, memory_range=1 << 64, arguments=kernel_arguments())


def amd_device(plan):
    """The plan's device, or :data:`DEFAULT_DEVICE` where that is none of AMD's."""
    device = DEVICES.get(plan.device)
    return device if device is not None and device.family in AMD_FAMILIES else DEVICES[DEFAULT_DEVICE]


def kernel_arguments():
    """Arguments of the Vitis kernel, in the order of their registers: tuple of KernelArgument."""
    ports = {name: WEIGHTS if name == "weights" else INPUTS_AND_OUTPUTS for name in POINTERS}
    found = [(address_of(f"{name}_low"), name, 8, ports[name], 1, "void*") for name in POINTERS]
    found += [(address_of(name), name, 4, CONTROL, 0, "unsigned int") for name in NUMBERS]
    return tuple(KernelArgument(index=index, name=name, offset=offset, size=size, port=port,
                                qualifier=qualifier, c_type=c_type)
                 for index, (offset, name, size, port, qualifier, c_type) in enumerate(sorted(found)))
