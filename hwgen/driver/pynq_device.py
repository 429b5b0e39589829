"""The accelerator in a PYNQ overlay, on a Zynq board or an Alveo card."""

from typing import Any

from compressor.text_file import StrPath
from hwgen.driver.device import Buffer, Device
from hwgen.driver.errors import DriverError, WrongBitstreamError
from hwgen.vendor.names import LIBRARY, VENDOR

IP_TYPE = f"{VENDOR}:{LIBRARY}:accelerator:"
"""How the accelerator's type begins in an overlay's ``ip_dict``."""


class PynqBuffer(Buffer):
    """Memory from ``pynq.allocate``."""

    def __init__(self, array: Any) -> None:
        self.array, self.address = array, array.device_address

    def flush(self) -> None:
        """Write the caches back, or copy to the card."""
        self.array.flush()

    def invalidate(self) -> None:
        """Drop what caches hold, or copy from the card."""
        self.array.invalidate()

    def free(self) -> None:
        """Give the memory back."""
        self.array.freebuffer()


class PynqDevice(Device):
    """Loads a bitstream with PYNQ and finds the accelerator in it.

    Waits by polling: an overlay need not connect the interrupt.

    Parameters
    ----------
    bitstream : path
        ``.bit`` with its ``.hwh`` beside it, or an ``.xclbin``.
    ip : str, optional
        Name of the accelerator in the overlay, needed if there are several.

    Raises
    ------
    DriverError, WrongBitstreamError
        If PYNQ is not installed; if the overlay has no such accelerator, or several.
    """

    def __init__(self, bitstream: StrPath, *, ip: str | None = None) -> None:
        try:
            import pynq
        except ImportError as error:
            raise DriverError("PYNQ is not installed in this Python; run it on the board, in the board's "
                              "PYNQ environment") from error
        self._allocate = pynq.allocate
        ips = pynq.Overlay(str(bitstream)).ip_dict
        found = sorted(name for name, entry in ips.items() if str(entry.get("type")).startswith(IP_TYPE))
        if ip is None and len(found) != 1:
            raise WrongBitstreamError(f"{bitstream} has {len(found)} accelerators of type {IP_TYPE}* "
                                      f"({', '.join(found) or 'none'}); name one, or load another bitstream")
        entry = ips.get(ip or found[0])
        if entry is None:
            raise WrongBitstreamError(f"{bitstream} has no {ip!r}; it has {', '.join(sorted(ips))}")
        self._registers = pynq.MMIO(entry["phys_addr"], entry["addr_range"])

    def read(self, address: int) -> int:
        """The 32-bit register or window word at this byte address."""
        return int(self._registers.read(address))

    def write(self, address: int, value: int) -> None:
        """Write a 32-bit register or window word."""
        self._registers.write(address, value)

    def allocate(self, size: int, port: str) -> PynqBuffer:
        """Contiguous memory; on a Zynq every port reaches all of it."""
        return PynqBuffer(self._allocate((size,), "u1"))

    def close(self) -> None:
        """The bitstream stays loaded."""
