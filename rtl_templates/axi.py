"""AXI4 and AXI4-Lite: flat ports of the top level, and the layouts that travel inside."""

from amaranth.lib import data
from amaranth.lib.wiring import In, Out

ADDRESS_BITS = 64
LENGTH_BITS = 8
RESPONSE_BITS = 2
PAGE_BYTES = 4096
"""A burst may not cross a multiple of this many bytes."""
BURST_BEATS = 64
"""Beats of a full burst, unless that would exceed a page."""
OUTSTANDING_BEATS = 512
"""Beats that one master may have under way: what hides the latency of the memory."""

burst_layout = data.StructLayout({"address": ADDRESS_BITS, "length": LENGTH_BITS})
"""An address channel: byte address and beats minus one."""


def read_beat_layout(bus_bits):
    """A beat of the read data channel."""
    return data.StructLayout({"data": bus_bits, "response": RESPONSE_BITS, "last": 1})


def write_beat_layout(bus_bits):
    """A beat of the write data channel; all bytes are always written."""
    return data.StructLayout({"data": bus_bits, "last": 1})


def burst_beats(bus_bits):
    """Beats of a full burst.

    >>> burst_beats(128), burst_beats(1024)
    (64, 32)
    """
    return min(BURST_BEATS, PAGE_BYTES * 8 // bus_bits)


def _address_members(prefix):
    return {f"{prefix}id": Out(1), f"{prefix}addr": Out(ADDRESS_BITS), f"{prefix}len": Out(LENGTH_BITS),
            f"{prefix}size": Out(3), f"{prefix}burst": Out(2), f"{prefix}lock": Out(1),
            f"{prefix}cache": Out(4), f"{prefix}prot": Out(3), f"{prefix}qos": Out(4),
            f"{prefix}valid": Out(1), f"{prefix}ready": In(1)}


def read_master_members(prefix, bus_bits):
    """Ports of the read channels of an AXI4 master, one identifier, in-order."""
    return {**_address_members(f"{prefix}_ar"), f"{prefix}_rid": In(1), f"{prefix}_rdata": In(bus_bits),
            f"{prefix}_rresp": In(RESPONSE_BITS), f"{prefix}_rlast": In(1), f"{prefix}_rvalid": In(1),
            f"{prefix}_rready": Out(1)}


def write_master_members(prefix, bus_bits):
    """Ports of the write channels of an AXI4 master, one identifier, in-order."""
    return {**_address_members(f"{prefix}_aw"), f"{prefix}_wdata": Out(bus_bits),
            f"{prefix}_wstrb": Out(bus_bits // 8), f"{prefix}_wlast": Out(1), f"{prefix}_wvalid": Out(1),
            f"{prefix}_wready": In(1), f"{prefix}_bid": In(1), f"{prefix}_bresp": In(RESPONSE_BITS),
            f"{prefix}_bvalid": In(1), f"{prefix}_bready": Out(1)}


def lite_slave_members(prefix, address_bits):
    """Ports of an AXI4-Lite slave with 32-bit data."""
    return {f"{prefix}_awaddr": In(address_bits), f"{prefix}_awvalid": In(1), f"{prefix}_awready": Out(1),
            f"{prefix}_wdata": In(32), f"{prefix}_wstrb": In(4), f"{prefix}_wvalid": In(1),
            f"{prefix}_wready": Out(1), f"{prefix}_bresp": Out(RESPONSE_BITS), f"{prefix}_bvalid": Out(1),
            f"{prefix}_bready": In(1), f"{prefix}_araddr": In(address_bits), f"{prefix}_arvalid": In(1),
            f"{prefix}_arready": Out(1), f"{prefix}_rdata": Out(32), f"{prefix}_rresp": Out(RESPONSE_BITS),
            f"{prefix}_rvalid": Out(1), f"{prefix}_rready": In(1)}


def connect_address(ports, prefix, stream, bus_bits):
    """Statements that drive an address channel of the top level from a stream of bursts."""
    port = {name: getattr(ports, f"{prefix}{name}") for name in (
        "id", "addr", "len", "size", "burst", "lock", "cache", "prot", "qos", "valid", "ready")}
    return [port["addr"].eq(stream.p.address), port["len"].eq(stream.p.length),
            port["size"].eq((bus_bits // 8).bit_length() - 1), port["burst"].eq(1), port["cache"].eq(3),
            port["id"].eq(0), port["lock"].eq(0), port["prot"].eq(0), port["qos"].eq(0),
            port["valid"].eq(stream.valid), stream.ready.eq(port["ready"])]


def connect_read_data(ports, prefix, stream):
    """Statements that feed a stream of read beats from the top level."""
    return [stream.p.data.eq(getattr(ports, f"{prefix}_rdata")),
            stream.p.response.eq(getattr(ports, f"{prefix}_rresp")),
            stream.p.last.eq(getattr(ports, f"{prefix}_rlast")),
            stream.valid.eq(getattr(ports, f"{prefix}_rvalid")),
            getattr(ports, f"{prefix}_rready").eq(stream.ready)]


def connect_write_data(ports, prefix, stream):
    """Statements that drive the write data channel of the top level from a stream of write beats."""
    strobe = getattr(ports, f"{prefix}_wstrb")
    return [getattr(ports, f"{prefix}_wdata").eq(stream.p.data), strobe.eq((1 << len(strobe)) - 1),
            getattr(ports, f"{prefix}_wlast").eq(stream.p.last),
            getattr(ports, f"{prefix}_wvalid").eq(stream.valid),
            stream.ready.eq(getattr(ports, f"{prefix}_wready"))]
