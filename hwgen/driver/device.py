"""What the driver asks of a device: 32-bit registers, memory that the accelerator reaches, a way to wait."""

import time
from abc import ABC, abstractmethod
from typing import Any

from rtl_templates.register_map import address_of, mask_of

PORTS = ("program", "weights", "input", "output")
"""What a buffer is for: the accelerator's pointers, in the order of the Vitis kernel's arguments."""

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 20e-6, 1e-3


class Buffer(ABC):
    """Memory that host and accelerator share; neither sees the other's writes before a call.

    Members
    -------
    address : int
        As the accelerator sees it, a multiple of 4096.
    array : uint8 array, shape (size,)
        As the host sees it.
    """

    address: int
    array: Any

    @abstractmethod
    def flush(self) -> None:
        """Make what the host wrote visible to the accelerator."""

    @abstractmethod
    def invalidate(self) -> None:
        """Make what the accelerator wrote visible to the host."""

    @abstractmethod
    def free(self) -> None:
        """Give the memory back."""


class Device(ABC):
    """An accelerator's registers and memory.

    ``has_interrupt`` says whether :meth:`wait` needs the interrupt output to be enabled.
    """

    has_interrupt = False

    @abstractmethod
    def read(self, address: int) -> int:
        """The 32-bit register or window word at this byte address."""

    @abstractmethod
    def write(self, address: int, value: int) -> None:
        """Write a 32-bit register or window word."""

    @abstractmethod
    def allocate(self, size: int, port: str) -> Buffer:
        """A :class:`Buffer` of ``size`` bytes for one of :data:`PORTS`."""

    def wait(self, timeout_s: float) -> bool:
        """Wait until a run's end is pending in ``interrupt_status``; False if that takes too long.

        Polls, with pauses of 20 microseconds to 1 millisecond.
        """
        address, done = address_of("interrupt_status"), mask_of("interrupt_status", "done")
        deadline, pause = time.monotonic() + timeout_s, _SHORTEST_PAUSE_S
        while not self.read(address) & done:
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        return True

    @abstractmethod
    def close(self) -> None:
        """Give the device back."""
