"""Files for Quartus and Platform Designer: component description, source list, constraints, wrapper."""

from dataclasses import dataclass

from hwgen.vendor.top_level import Bus, Port

CLOCK_PERIOD = 1e3 / 150
"""Assumed, in ns: no Intel device was placed."""

FILES = {
    "quartus/accelerator_hw.tcl": "quartus/accelerator_hw.tcl",
    "quartus/accelerator.qip": "quartus/accelerator.qip",
    "quartus/accelerator.sdc": "quartus/accelerator.sdc",
    "quartus/accelerator_platform.v": "quartus/accelerator_platform.v",
}
"""Path in the build, and template."""

_SIGNALS = (("id", "out", 1), ("addr", "out", 64), ("len", "out", 8), ("size", "out", 3), ("burst", "out", 2),
            ("lock", "out", 1), ("cache", "out", 4), ("prot", "out", 3), ("qos", "out", 4),
            ("valid", "out", 1), ("ready", "in", 1))


@dataclass(frozen=True, kw_only=True)
class TiedPort:
    """A port that Platform Designer asks for and the accelerator lacks; outputs have ``value``."""

    name: str
    direction: str
    width: int
    left: int
    signal: str
    value: int


@dataclass(frozen=True, kw_only=True)
class IntelContext:
    """Variables of the templates in ``rtl_templates/quartus``; ``clock_period`` in ns.

    ``interfaces`` maps a bus to the (port, role, direction, width) of the wrapper.
    """

    generated: str
    configuration: str
    version: str
    clock_period: float
    ports: tuple[Port, ...]
    buses: tuple[Bus, ...]
    tied: tuple[TiedPort, ...]
    interfaces: dict[str, tuple[tuple[str, str, str, int], ...]]


def intel_context(plan, top, generated, version):
    """Variables for a plan and its TopLevel."""
    tied = {bus.name: _tied_ports(bus) for bus in top.buses}
    directions = {"in": "Input", "out": "Output"}
    return IntelContext(
        generated=generated, configuration=plan.configuration_hash[:8], version=version,
        clock_period=round(CLOCK_PERIOD, 3), ports=top.ports, buses=top.buses,
        tied=tuple(port for ports in tied.values() for port in ports),
        interfaces={bus.name: tuple((port.name, port.signal, directions[port.direction], port.width)
                                    for port in (*bus.ports, *tied[bus.name])) for bus in top.buses})


def _tied_ports(bus):
    """``awprot`` and ``arprot`` of the slave; the write channels of a master that only reads."""
    if bus.kind == "lite":
        signals = [("awprot", "in", 3, 0), ("arprot", "in", 3, 0)]
    elif bus.writes:
        signals = []
    else:
        signals = [(f"aw{name}", direction, width, 0) for name, direction, width in _SIGNALS]
        signals += [("wdata", "out", bus.data_bits, 0), ("wstrb", "out", bus.data_bits // 8, 0),
                    ("wlast", "out", 1, 0), ("wvalid", "out", 1, 0), ("wready", "in", 1, 0),
                    ("bid", "in", 1, 0), ("bresp", "in", 2, 0), ("bvalid", "in", 1, 0),
                    ("bready", "out", 1, 1)]
    return tuple(TiedPort(name=f"{bus.name}_{name}", direction=direction, width=width, left=width - 1,
                          signal=name, value=value) for name, direction, width, value in signals)
