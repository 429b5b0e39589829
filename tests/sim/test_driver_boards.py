"""PYNQ and XRT devices with stand-ins for their libraries, behind which the simulated accelerator runs.

The stand-ins have the documented functions that the devices use. No board has run them.
"""

import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from hwgen.driver import Accelerator, DriverError, WrongBitstreamError, xrt_device
from hwgen.driver.device import PORTS
from sim.simulated_device import SimulatedDevice
from tests.bundles import random_activations
from tests.sim.driver_testing import MODEL, TOKENS

BANKS = {"program": 3, "weights": 4, "input": 3, "output": 3}


@pytest.fixture
def simulated(driver_build):
    opened = SimulatedDevice(driver_build.directory)
    yield opened
    opened.close()


def check_words(built, bitstream):
    """The accelerator of a bitstream computes the golden model's words, twice."""
    rng = np.random.default_rng(2)
    x = np.stack([random_activations(TOKENS, MODEL["hidden"], rng) for _ in range(2)])
    lengths = np.array([TOKENS, 3])
    with Accelerator(bitstream) as opened:
        opened.load()
        for _ in range(2):
            assert np.array_equal(opened.hidden_states(x, lengths), built.golden.encoder.compute(x, lengths))


class PynqArray(np.ndarray):
    """pynq.buffer.PynqBuffer: an array with an address."""

    @classmethod
    def of(cls, buffer):
        array = buffer.array.view(cls)
        array.buffer, array.device_address = buffer, buffer.address
        return array

    def flush(self):
        self.buffer.flush()

    def invalidate(self):
        self.buffer.invalidate()

    def freebuffer(self):
        self.buffer.free()


@pytest.fixture
def pynq(monkeypatch, simulated):
    """The module pynq; its overlay has the accelerator at 0xA0000000."""
    accelerator = {"type": "hwgen:ip:accelerator:1.0", "phys_addr": 0xA0000000, "addr_range": 0x10000}
    module = SimpleNamespace(overlays=[], ip_dict={
        "dma": {"type": "xilinx.com:ip:axi_dma:7.1", "phys_addr": 0x80000000, "addr_range": 0x10000},
        "zynq": {"type": None}, "accelerator_0": accelerator})

    def overlay(path):
        module.overlays.append(path)
        return SimpleNamespace(ip_dict=module.ip_dict)

    def mmio(base, size):
        assert (base, size) == (0xA0000000, 0x10000)
        return SimpleNamespace(read=simulated.read, write=simulated.write)

    def allocate(shape, dtype):
        assert dtype == "u1"
        return PynqArray.of(simulated.allocate(*shape, "input"))

    module.Overlay, module.MMIO, module.allocate = overlay, mmio, allocate
    monkeypatch.setitem(sys.modules, "pynq", module)
    return module


def test_pynq(driver_build, pynq):
    bitstream = driver_build.directory / "accelerator.bit"
    check_words(driver_build, bitstream)
    assert pynq.overlays == [str(bitstream)]


def test_pynq_overlays_without_one_accelerator(driver_build, pynq):
    bitstream = driver_build.directory / "accelerator.bit"
    pynq.ip_dict["accelerator_1"] = pynq.ip_dict["accelerator_0"]
    with pytest.raises(WrongBitstreamError, match=r"has 2 accelerators .*\(accelerator_0, accelerator_1\)"):
        Accelerator(bitstream)
    pynq.ip_dict = {"dma": pynq.ip_dict["dma"]}
    with pytest.raises(WrongBitstreamError, match=r"has 0 accelerators .*\(none\)"):
        Accelerator(bitstream)


def test_pynq_is_not_installed(driver_build, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynq", None)
    with pytest.raises(DriverError, match="PYNQ is not installed"):
        Accelerator(driver_build.directory / "accelerator.bit")


class Xrt:
    """libxrt_coreutil: handles are numbers; a call named in ``fails`` fails. Types as ctypes is told."""

    def __init__(self, simulated):
        self.simulated, self.fails, self.banks, self.closed, self.buffers = simulated, (), [], [], {}
        for name in dir(type(self)):
            if name.startswith("xrt"):
                setattr(self, name, self._function(name))

    def _function(self, name):
        def call(*arguments):
            result, types = call.restype, call.argtypes
            assert len(arguments) == len(types)
            for argument, kind in zip(arguments, types, strict=True):
                kind.from_param(argument)  # as ctypes does
            if name in self.fails:
                return None if result is ctypes.c_void_p else -22
            return getattr(type(self), name)(self, *arguments)
        return call

    def xrtDeviceOpen(self, index):
        return 1 + index

    def xrtDeviceLoadXclbinFile(self, device, path):
        self.xclbin = path
        return 0

    def xrtDeviceGetXclbinUUID(self, device, uuid):
        uuid.raw = bytes(range(16))
        return 0

    def xrtPLKernelOpenExclusive(self, device, uuid, name):
        assert uuid.raw == bytes(range(16))
        return 2 if name == b"accelerator" else None

    def xrtKernelArgGroupId(self, kernel, argument):
        return BANKS[PORTS[argument]]

    def xrtKernelReadRegister(self, kernel, offset, value):
        value._obj.value = self.simulated.read(offset)
        return 0

    def xrtKernelWriteRegister(self, kernel, offset, value):
        self.simulated.write(offset, value)
        return 0

    def xrtKernelClose(self, kernel):
        self.closed.append("kernel")
        return 0

    def xrtDeviceClose(self, device):
        self.closed.append("device")
        return 0

    def xrtBOAlloc(self, device, size, flags, bank):
        self.banks.append(bank)
        self.buffers[10 + len(self.banks)] = self.simulated.allocate(size, "input")
        return 10 + len(self.banks)

    def xrtBOMap(self, buffer):
        return self.buffers[buffer].array.ctypes.data

    def xrtBOAddress(self, buffer):
        return self.buffers[buffer].address

    def xrtBOSync(self, buffer, direction, size, offset):
        assert (size, offset) == (self.buffers[buffer].array.size, 0)
        (self.buffers[buffer].flush, self.buffers[buffer].invalidate)[direction]()
        return 0

    def xrtBOFree(self, buffer):
        self.buffers.pop(buffer).free()
        return 0


@pytest.fixture
def xrt(monkeypatch, simulated):
    library = Xrt(simulated)
    monkeypatch.setattr(xrt_device.ctypes, "CDLL", lambda name: library)
    return library


def test_xrt(driver_build, xrt):
    """Each buffer in the bank of its argument; all given back."""
    check_words(driver_build, driver_build.directory / "accelerator.xclbin")
    assert xrt.xclbin == str(driver_build.directory / "accelerator.xclbin").encode()
    assert xrt.banks == [BANKS[port] for port in PORTS]
    assert (xrt.buffers, xrt.closed) == ({}, ["kernel", "device"])


@pytest.mark.parametrize("call", ["xrtDeviceOpen", "xrtDeviceLoadXclbinFile", "xrtPLKernelOpenExclusive",
                                  "xrtKernelReadRegister", "xrtBOAlloc", "xrtKernelArgGroupId"])
def test_xrt_calls_that_fail(driver_build, xrt, call):
    xrt.fails = (call,)
    with pytest.raises(DriverError, match=f"XRT: {call}.* failed"):
        check_words(driver_build, driver_build.directory / "accelerator.xclbin")
    assert ("device" in xrt.closed) == (call != "xrtDeviceOpen")


def test_xrt_is_not_installed(driver_build):
    with pytest.raises(DriverError, match="was not found; install XRT"):
        Accelerator(driver_build.directory / "accelerator.xclbin")
