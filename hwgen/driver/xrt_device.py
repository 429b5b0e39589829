"""The accelerator as an RTL kernel on a card with XRT.

pyxrt has no access to a kernel's registers, which valid lengths, patterns and status need; XRT's C library
has it.
"""

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from typing import Any

import numpy as np

from compressor.text_file import StrPath
from hwgen.driver.device import PORTS, Buffer, Device
from hwgen.driver.errors import DriverError

LIBRARY = "libxrt_coreutil.so"
KERNEL = b"accelerator"
NO_FLAGS, TO_DEVICE, FROM_DEVICE = 0, 0, 1

_FUNCTIONS = {
    "xrtDeviceOpen": (c_void_p, (c_uint,)),
    "xrtDeviceLoadXclbinFile": (c_int, (c_void_p, c_char_p)),
    "xrtDeviceGetXclbinUUID": (c_int, (c_void_p, c_void_p)),
    "xrtDeviceClose": (c_int, (c_void_p,)),
    "xrtPLKernelOpenExclusive": (c_void_p, (c_void_p, c_void_p, c_char_p)),
    "xrtKernelArgGroupId": (c_int, (c_void_p, c_int)),
    "xrtKernelReadRegister": (c_int, (c_void_p, c_uint32, POINTER(c_uint32))),
    "xrtKernelWriteRegister": (c_int, (c_void_p, c_uint32, c_uint32)),
    "xrtKernelClose": (c_int, (c_void_p,)),
    "xrtBOAlloc": (c_void_p, (c_void_p, c_size_t, c_uint64, c_uint32)),
    "xrtBOMap": (c_void_p, (c_void_p,)),
    "xrtBOAddress": (c_uint64, (c_void_p,)),
    "xrtBOSync": (c_int, (c_void_p, c_int, c_size_t, c_size_t)),
    "xrtBOFree": (c_int, (c_void_p,)),
}
"""Result and arguments of the functions used, from ``xrt_device.h``, ``xrt_kernel.h`` and ``xrt_bo.h``."""


class XrtBuffer(Buffer):
    """An XRT buffer object, in the memory bank of its kernel argument."""

    def __init__(self, xrt: Any, device: int | None, size: int, bank: int) -> None:
        self._xrt, self._size = xrt, size
        self._handle = _handle("xrtBOAlloc", xrt.xrtBOAlloc(device, size, NO_FLAGS, bank))
        self.address = xrt.xrtBOAddress(self._handle)
        mapped = _handle("xrtBOMap", xrt.xrtBOMap(self._handle))
        self.array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(mapped))

    def flush(self) -> None:
        """Copy to the card."""
        _check("xrtBOSync", self._xrt.xrtBOSync(self._handle, TO_DEVICE, self._size, 0))

    def invalidate(self) -> None:
        """Copy from the card."""
        _check("xrtBOSync", self._xrt.xrtBOSync(self._handle, FROM_DEVICE, self._size, 0))

    def free(self) -> None:
        """Give the memory back; ``array`` ends with it."""
        self.array = None
        _check("xrtBOFree", self._xrt.xrtBOFree(self._handle))


class XrtDevice(Device):
    """Loads an xclbin and opens its kernel ``accelerator`` for exclusive use.

    Parameters
    ----------
    xclbin : path
    index : int
        Of the card.

    Raises
    ------
    DriverError
        If XRT is not installed, or a call to it fails: the message names the call.
    """

    def __init__(self, xclbin: StrPath, *, index: int = 0) -> None:
        self._kernel: int | None = None
        self._device: int | None = None
        self._xrt = _library()
        self._device = _handle("xrtDeviceOpen", self._xrt.xrtDeviceOpen(index))
        try:
            _check(f"xrtDeviceLoadXclbinFile({xclbin})",
                   self._xrt.xrtDeviceLoadXclbinFile(self._device, str(xclbin).encode()))
            uuid = ctypes.create_string_buffer(16)
            _check("xrtDeviceGetXclbinUUID", self._xrt.xrtDeviceGetXclbinUUID(self._device, uuid))
            self._kernel = _handle("xrtPLKernelOpenExclusive",
                                   self._xrt.xrtPLKernelOpenExclusive(self._device, uuid, KERNEL))
        except DriverError:
            self.close()
            raise

    def read(self, address: int) -> int:
        """The 32-bit register or window word at this byte address."""
        value = c_uint32()
        _check(f"xrtKernelReadRegister({address:#x})",
               self._xrt.xrtKernelReadRegister(self._kernel, address, ctypes.byref(value)))
        return value.value

    def write(self, address: int, value: int) -> None:
        """Write a 32-bit register or window word."""
        _check(f"xrtKernelWriteRegister({address:#x})",
               self._xrt.xrtKernelWriteRegister(self._kernel, address, value))

    def allocate(self, size: int, port: str) -> XrtBuffer:
        """A buffer in the bank that the port's kernel argument is connected to."""
        bank = self._xrt.xrtKernelArgGroupId(self._kernel, PORTS.index(port))
        if bank < 0:
            raise DriverError(f"XRT: xrtKernelArgGroupId of {port} failed with {bank}")
        return XrtBuffer(self._xrt, self._device, size, bank)

    def close(self) -> None:
        """Close kernel and device."""
        if self._kernel:
            self._xrt.xrtKernelClose(self._kernel)
        if self._device:
            self._xrt.xrtDeviceClose(self._device)
        self._kernel = self._device = None


def _library() -> Any:
    try:
        xrt = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise DriverError(f"{LIBRARY} was not found; install XRT and source its setup.sh") from error
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(xrt, name)
        function.restype, function.argtypes = result, arguments
    return xrt


def _check(call: str, code: int) -> None:
    if code:
        raise DriverError(f"XRT: {call} failed with {code}; dmesg and xrt-smi tell more")


def _handle(call: str, handle: int | None) -> int:
    if not handle:
        raise DriverError(f"XRT: {call} failed; dmesg and xrt-smi tell more")
    return handle
