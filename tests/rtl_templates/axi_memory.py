"""AXI memory and AXI4-Lite driver for Amaranth's simulator."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from rtl_templates.axi import PAGE_BYTES


def never(cycle):
    """Pattern of stalls: none, as in the nominal memory."""
    return False


def random_stalls(seed, *prefixes, share=0.5):
    """Stalls of every channel: runs of random length, covering ``share`` of the cycles on average."""
    def pattern(rng):
        runs = rng.integers(1, 12, 500)
        busy = rng.random(500) < share
        table = np.repeat(busy, runs)
        return lambda cycle: bool(table[cycle % len(table)])

    rng = np.random.default_rng(seed)
    return {f"{prefix}_{channel}": pattern(rng) for prefix in prefixes
            for channel in ("ar", "r", "aw", "w", "b")}


@dataclass
class AxiMemory:
    """Bytes behind AXI masters; the defaults are the nominal memory of the cycle model.

    ``stalls[channel](cycle)`` tells whether ready (AR, AW, W) or a new valid (R, B) is withheld; the memory
    keeps AXI's rules and checks the master's. ``read_errors`` and ``write_errors`` hold pairs of a master's
    prefix and the number of the R beat or B response that reports an error.
    """

    size: int
    base: int = 0
    read_latency: int = 4
    write_latency: int = 2
    stalls: dict = field(default_factory=dict)
    read_errors: frozenset = frozenset()
    write_errors: frozenset = frozenset()

    def __post_init__(self):
        self.data = bytearray(self.size)
        self.read_bursts = []
        self.write_bursts = []
        self.resets = 0

    def reset(self):
        """Forget everything that is under way, as an interconnect does that is reset with its masters."""
        self.resets += 1

    def _stalled(self, channel, cycle):
        return self.stalls.get(channel, never)(cycle)

    def _check(self, address, length, size):
        assert address % size == 0, f"address {address:#x} is not aligned to the bus"
        end = address + (length + 1) * size
        assert address // PAGE_BYTES == (end - 1) // PAGE_BYTES, f"burst at {address:#x} crosses a page"
        assert self.base <= address, f"nothing is at {address:#x}"
        assert end <= self.base + self.size, f"nothing is at {end - 1:#x}"

    def reader(self, dut, prefix):
        """Testbench process that answers the read channels of the master ``prefix``."""
        port = {name: getattr(dut, f"{prefix}_{name}") for name in (
            "arvalid", "arready", "araddr", "arlen", "arsize", "arburst",
            "rvalid", "rready", "rdata", "rresp", "rlast")}
        size = len(port["rdata"]) // 8

        async def serve(ctx):
            beats, cycle, count, offered = deque(), 0, 0, False
            asked, resets = None, 0
            while True:
                if resets != self.resets:
                    resets, asked, offered = self.resets, None, False
                    beats.clear()
                ar_ready = not self._stalled(f"{prefix}_ar", cycle)
                offered = bool(beats) and beats[0][0] <= cycle and (
                    offered or not self._stalled(f"{prefix}_r", cycle))
                ctx.set(port["arready"], ar_ready)
                ctx.set(port["rvalid"], offered)
                if offered:
                    _, address, last = beats[0]
                    address -= self.base
                    ctx.set(port["rdata"], int.from_bytes(self.data[address:address + size], "little"))
                    ctx.set(port["rlast"], last)
                    ctx.set(port["rresp"], 2 if (prefix, count) in self.read_errors else 0)
                _, _, valid, address, length, r_ready = await ctx.tick().sample(
                    port["arvalid"], port["araddr"], port["arlen"], port["rready"])
                if valid:
                    assert asked in (None, (address, length)), "AR changed before it was accepted"
                    asked = None if ar_ready else (address, length)
                else:
                    assert asked is None, "ARVALID was taken back"
                if valid and ar_ready:
                    assert ctx.get(port["arburst"]) == 1
                    assert 1 << ctx.get(port["arsize"]) == size
                    self._check(address, length, size)
                    self.read_bursts.append((cycle, address, length + 1))
                    beats.extend((cycle + self.read_latency, address + i * size, i == length)
                                 for i in range(length + 1))
                if offered and r_ready:
                    beats.popleft()
                    count += 1
                    offered = False
                cycle += 1
        return serve

    def writer(self, dut, prefix):
        """Testbench process that answers the write channels of the master ``prefix``."""
        port = {name: getattr(dut, f"{prefix}_{name}") for name in (
            "awvalid", "awready", "awaddr", "awlen", "wvalid", "wready", "wdata", "wlast", "wstrb",
            "bvalid", "bready", "bresp")}
        size = len(port["wdata"]) // 8

        async def serve(ctx):
            bursts, responses, cycle, count, place, offered = deque(), deque(), 0, 0, 0, False
            held, resets = None, 0
            while True:
                if resets != self.resets:
                    resets, held, offered, place = self.resets, None, False, 0
                    bursts.clear()
                    responses.clear()
                aw_ready = not self._stalled(f"{prefix}_aw", cycle)
                w_ready = not self._stalled(f"{prefix}_w", cycle)
                offered = bool(responses) and responses[0] <= cycle and (
                    offered or not self._stalled(f"{prefix}_b", cycle))
                ctx.set(port["awready"], aw_ready)
                ctx.set(port["wready"], w_ready)
                ctx.set(port["bvalid"], offered)
                ctx.set(port["bresp"], 2 if (prefix, count) in self.write_errors else 0)
                _, _, aw, address, length, w, data, last, b_ready = await ctx.tick().sample(
                    port["awvalid"], port["awaddr"], port["awlen"], port["wvalid"], port["wdata"],
                    port["wlast"], port["bready"])
                if aw and aw_ready:
                    self._check(address, length, size)
                    self.write_bursts.append((cycle, address, length + 1))
                    bursts.append((address, length))
                assert held is None or (w and (data, last) == held), "W changed before it was accepted"
                held = (data, last) if w and not w_ready else None
                if w and w_ready:
                    assert bursts, "write data came before its address"
                    address, length = bursts[0]
                    address -= self.base
                    assert last == (place == length), "WLAST is wrong"
                    self.data[address + place * size:address + (place + 1) * size] = data.to_bytes(size,
                                                                                                 "little")
                    place += 1
                    if last:
                        bursts.popleft()
                        responses.append(cycle + self.write_latency)
                        place = 0
                if offered and b_ready:
                    responses.popleft()
                    count += 1
                    offered = False
                cycle += 1
        return serve


async def _accept(ctx, valid, *values):
    """Wait for a clock edge at which ``valid`` is 1; returns ``values`` before that edge."""
    while True:
        _, _, now, *sampled = await ctx.tick().sample(valid, *values)
        if now:
            return sampled


async def lite_write(ctx, dut, address, value, *, strobe=15, data_delay=0, address_delay=0, b_delay=0):
    """One AXI4-Lite write; the delays hold back a channel by as many cycles."""
    prefix = "s_axi_control" if hasattr(dut, "s_axi_control_awaddr") else "bus"
    port = {name: getattr(dut, f"{prefix}_{name}") for name in (
        "awaddr", "awvalid", "awready", "wdata", "wstrb", "wvalid", "wready", "bvalid", "bready")}
    ctx.set(port["awaddr"], address)
    ctx.set(port["wdata"], value)
    ctx.set(port["wstrb"], strobe)
    cycle, aw, w = 0, True, True
    while aw or w:
        ctx.set(port["awvalid"], aw and cycle >= address_delay)
        ctx.set(port["wvalid"], w and cycle >= data_delay)
        _, _, aw_ready, w_ready = await ctx.tick().sample(port["awready"], port["wready"])
        aw = aw and not (cycle >= address_delay and aw_ready)
        w = w and not (cycle >= data_delay and w_ready)
        cycle += 1
    ctx.set(port["awvalid"], 0)
    ctx.set(port["wvalid"], 0)
    for _ in range(b_delay):
        await ctx.tick()
    ctx.set(port["bready"], 1)
    await _accept(ctx, port["bvalid"])
    ctx.set(port["bready"], 0)


async def lite_read(ctx, dut, address, *, r_delay=0):
    """One AXI4-Lite read; returns the word."""
    prefix = "s_axi_control" if hasattr(dut, "s_axi_control_awaddr") else "bus"
    port = {name: getattr(dut, f"{prefix}_{name}") for name in (
        "araddr", "arvalid", "arready", "rdata", "rvalid", "rready")}
    ctx.set(port["araddr"], address)
    ctx.set(port["arvalid"], 1)
    await _accept(ctx, port["arready"])
    ctx.set(port["arvalid"], 0)
    for _ in range(r_delay):
        await ctx.tick()
    ctx.set(port["rready"], 1)
    (value,) = await _accept(ctx, port["rvalid"], port["rdata"])
    ctx.set(port["rready"], 0)
    return value
