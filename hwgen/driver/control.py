"""The register sequence of a run; what registers mean is in :mod:`rtl_templates.register_map`."""

from collections.abc import Iterable, Mapping

from hwgen.driver.device import Device
from hwgen.driver.errors import DeviceError, DriverError, RunTimeoutError, WrongBitstreamError
from rtl_templates.register_map import (
    IDENTITY,
    LENGTHS_BASE,
    MAP_VERSION,
    POOL_BASE,
    RUN_COUNTERS,
    Status,
    address_of,
    mask_of,
    status_text,
)


class Control:
    """An accelerator behind its registers.

    Parameters
    ----------
    device : hwgen.driver.device.Device

    Raises
    ------
    WrongBitstreamError
        If registers ``id`` and ``version`` are not those of an accelerator that this driver knows.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        found = self.read("id")
        if found != IDENTITY:
            raise WrongBitstreamError(
                f"register id reads {found:#010x}, an accelerator's {IDENTITY:#010x}: load the bitstream, "
                "and check the base address of s_axi_control")
        found = self.read("version")
        if found != MAP_VERSION:
            raise WrongBitstreamError(
                f"the accelerator has version {found} of the register map; this driver knows {MAP_VERSION}: "
                "use the hwgen that built the bitstream, or build it again")

    def read(self, name: str) -> int:
        """Value of the register of that name."""
        return self._device.read(address_of(name))

    def write(self, name: str, value: int) -> None:
        """Write the register of that name."""
        self._device.write(address_of(name), value)

    def check_configuration(self, expected: int, what: str) -> None:
        """WrongBitstreamError unless the accelerator's configuration is the one that ``what`` is for."""
        found = self.read("configuration")
        if found != expected:
            raise WrongBitstreamError(
                f"{what} is for configuration {expected:08x}, the device has {found:08x}: "
                "load the bitstream of that build, or give the build of this bitstream")

    def check_idle(self) -> None:
        """DriverError if a run is under way."""
        if not self.read("control") & mask_of("control", "idle"):
            raise DriverError("the accelerator is still running, since a run that timed out or from another "
                              "program; wait, or load the bitstream again")

    def set_pool(self, words: Iterable[int]) -> None:
        """Fill the pattern memory (32-bit words)."""
        self._write_window(POOL_BASE, words)

    def set_lengths(self, lengths: Iterable[int]) -> None:
        """Valid tokens of each sequence of the next run."""
        self._write_window(LENGTHS_BASE, lengths)

    def run(self, *, pointers: Mapping[str, int], numbers: Mapping[str, int], timeout_s: float) -> None:
        """Run sequences to their end.

        Parameters
        ----------
        pointers : dict of str to int
            Addresses of ``program``, ``weights``, ``input`` and ``output``.
        numbers : dict of str to int
            ``program_length``, ``weights_beats``, ``sequences``, ``input_stride``, ``output_stride``.
        timeout_s : float

        Raises
        ------
        DriverError, RunTimeoutError, DeviceError
            If the accelerator is busy, does not end in time, or ends with an error status.
        """
        self.check_idle()
        for name, address in pointers.items():
            self.write(f"{name}_low", address & 0xFFFFFFFF)
            self.write(f"{name}_high", address >> 32)
        for name, value in numbers.items():
            self.write(name, value)
        self.write("interrupt_enable", mask_of("interrupt_enable", "done"))
        self.write("interrupt_global", int(self._device.has_interrupt))
        self._acknowledge()
        self.write("control", mask_of("control", "start"))
        if not self._device.wait(timeout_s):
            raise RunTimeoutError(
                f"the run did not end within {timeout_s:g} s: {status_text(self.read('status'))}; the last "
                f"descriptor dispatched was {self.read('descriptor')} of {numbers['program_length']} after "
                f"{self.read('cycles'):,} cycles; check the accelerator's clock, or raise timeout_s")
        self._acknowledge()
        code = self.read("status")
        if code != Status.OK:
            raise DeviceError(code, self.read("descriptor"))

    def counters(self) -> dict[str, int]:
        """What the last run counted: dict of int by register name."""
        return {name: self.read(name) for name in RUN_COUNTERS}

    def _acknowledge(self) -> None:
        pending = self.read("interrupt_status")
        if pending:
            self.write("interrupt_status", pending)  # writing 1 toggles

    def _write_window(self, base: int, words: Iterable[int]) -> None:
        for index, word in enumerate(words):
            self._device.write(base + 4 * index, int(word))
