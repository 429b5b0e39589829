"""The ports of a generated accelerator, grouped into buses, as the vendors' descriptions need them."""

from dataclasses import dataclass

from amaranth.hdl import Shape
from amaranth.lib.wiring import In

from rtl_templates.accelerator import CONTROL, INPUTS_AND_OUTPUTS, WEIGHTS, top_members
from rtl_templates.axi import ADDRESS_BITS as POINTER_BITS
from rtl_templates.register_map import ADDRESS_BITS


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port of the top module.

    Parameters
    ----------
    name : str
    direction : str
        "in" or "out".
    width, left : int
        Bits, and the highest bit's index.
    signal : str
        Name without the bus, like "awaddr"; the port's own name outside of buses.
    channel, role : str
        AXI channel and signal in it, like "aw" and "addr"; empty outside of buses.
    """

    name: str
    direction: str
    width: int
    left: int
    signal: str
    channel: str
    role: str


@dataclass(frozen=True, kw_only=True)
class Bus:
    """An AXI interface: ``kind`` is "lite" (slave) or "master"; ``writes`` if it has write channels."""

    name: str
    kind: str
    data_bits: int
    address_bits: int
    writes: bool
    ports: tuple[Port, ...]


@dataclass(frozen=True, kw_only=True)
class TopLevel:
    """All ports, and the buses among them."""

    ports: tuple[Port, ...]
    buses: tuple[Bus, ...]


_CHANNELS = ("aw", "ar", "w", "r", "b")


def top_level(spec):
    """Ports and buses of the accelerator with this AcceleratorSpec."""
    ports = tuple(_port(name, member) for name, member in top_members(spec).items())
    buses = []
    for name, kind, data_bits, address_bits in ((CONTROL, "lite", 32, ADDRESS_BITS),
                                                (INPUTS_AND_OUTPUTS, "master", spec.bus_bits, POINTER_BITS),
                                                (WEIGHTS, "master", spec.bus_bits, POINTER_BITS)):
        own = tuple(port for port in ports if port.name.startswith(f"{name}_"))
        buses.append(Bus(name=name, kind=kind, data_bits=data_bits, address_bits=address_bits,
                         writes=any(port.channel == "w" for port in own), ports=own))
    return TopLevel(ports=ports, buses=tuple(buses))


def _port(name, member):
    width = Shape.cast(member.shape).width
    signal, channel, role = name, "", ""
    for bus in (CONTROL, INPUTS_AND_OUTPUTS, WEIGHTS):
        if name.startswith(f"{bus}_"):
            signal = name.removeprefix(f"{bus}_")
            channel = next(channel for channel in _CHANNELS if signal.startswith(channel))
            role = signal.removeprefix(channel)
    return Port(name=name, direction="in" if member.flow is In else "out", width=width, left=width - 1,
                signal=signal, channel=channel, role=role)
