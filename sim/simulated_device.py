"""A device for the driver whose accelerator is the generated Verilog, simulated in a process that stays."""

import subprocess
from pathlib import Path

import numpy as np

from hwgen.build_directory import verilog_files
from hwgen.driver.device import Buffer, Device
from sim.harness import MemoryTiming, SimulationError, build_harness
from sim.runner import SIM_DIRECTORY

MEMORY_BASE = 0x1_0000_0000
"""Address of the first buffer; above 4 GB, so that pointers use both of their registers."""

PAGE = 4096
CLOCK_MHZ = 200
"""Clock that turns the driver's seconds into cycles."""


class SimulatedBuffer(Buffer):
    """Memory of the simulator with a copy for the host, like a cache that nothing keeps coherent."""

    def __init__(self, device, address, size):
        self._device, self.address = device, address
        self.array = np.zeros(size, np.uint8)

    def flush(self):
        """Copy the host's bytes to the simulator."""
        self._device.request(f"put {self.address} {self.array.size}", self.array.tobytes())

    def invalidate(self):
        """Copy the simulator's bytes to the host."""
        self._device.request(f"get {self.address} {self.array.size}")
        self.array[:] = np.frombuffer(self._device.answer_bytes(self.array.size), np.uint8)

    def free(self):
        """Give the memory back; the simulator must still run."""
        self._device.request(f"free {self.address}")


class SimulatedDevice(Device):
    """The Verilog of a build in Verilator, register by register; the protocol is in ``sim/server.h``.

    Time passes during register accesses and in :meth:`wait`, which counts seconds of a clock of
    :data:`CLOCK_MHZ`. Accesses outside of buffers and broken AXI rules end in an error.

    Parameters
    ----------
    build : path
        The directory that ``hwgen build`` wrote; the compiled simulator, which `hwgen sim` uses too, is kept
        in it.
    timing : sim.harness.MemoryTiming, optional

    Raises
    ------
    BuildError, ToolError
        If the build has no Verilog, or it cannot be compiled.
    """

    has_interrupt = True

    def __init__(self, build, *, timing=None):
        build, timing = Path(build).resolve(), timing or MemoryTiming()
        executable = build_harness(verilog_files(build)[0], build / SIM_DIRECTORY)
        self._next = MEMORY_BASE
        self.process = subprocess.Popen(
            [executable, "--serve", "1", "--read-latency", str(timing.read_latency),
             "--write-latency", str(timing.write_latency), "--stalls", str(timing.stalls)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read(self, address):
        """A register access of the simulated AXI4-Lite bus."""
        return int(self.request(f"read {address}")[0])

    def write(self, address, value):
        """A register access of the simulated AXI4-Lite bus."""
        self.request(f"write {address} {value}")

    def allocate(self, size, port):
        """A buffer with an unmapped page behind it; every port reaches it."""
        address = self._next
        self.request(f"allocate {address} {size}")
        self._next += (-(-size // PAGE) + 1) * PAGE
        return SimulatedBuffer(self, address, size)

    def wait(self, timeout_s):
        """Simulate until the interrupt is raised; False after ``timeout_s`` of simulated time."""
        return self.request(f"wait {round(timeout_s * CLOCK_MHZ * 1e6)}")[1] == "1"

    def reset(self):
        """Pulse the reset: registers hold what they hold after power-up, memory stays."""
        self.request("reset")

    def close(self):
        """End the simulator."""
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()
        self.process.stdout.close()

    def request(self, line, payload=b""):
        """Send a request; the words of its answer. SimulationError if it is an error, or none comes."""
        try:
            self.process.stdin.write(f"{line}\n".encode() + payload)
            self.process.stdin.flush()
            answer = self.process.stdout.readline().decode()
        except (BrokenPipeError, ValueError) as error:
            raise SimulationError(f"the simulator has ended; {line!r} cannot be asked") from error
        state, _, rest = answer.rstrip("\n").partition(" ")
        if state != "ok":
            raise SimulationError(f"{line}: {rest or 'the simulator ended without an answer'}")
        return rest.split()

    def answer_bytes(self, size):
        """Bytes that follow an answer."""
        return self.process.stdout.read(size)
