"""What can go wrong between a host and an accelerator; every message says what to do."""

from rtl_templates.register_map import STATUS_HELP, Status, status_text


class DriverError(RuntimeError):
    """The accelerator cannot be used as asked."""


class WrongBitstreamError(DriverError):
    """The device is no accelerator, or not the one that the build or bundle was made for."""


class InputTooLongError(DriverError, ValueError):
    """A sequence has more tokens than the program that is loaded."""


class RunTimeoutError(DriverError):
    """A run did not end in time; it may still be under way."""


class DeviceError(DriverError):
    """A run ended with an error status.

    Parameters
    ----------
    code : int
        Register ``status``; :class:`rtl_templates.register_map.Status` names it.
    descriptor : int
        The descriptor that was dispatched last.
    """

    def __init__(self, code: int, descriptor: int) -> None:
        super().__init__(f"the run ended with status {code} at descriptor {descriptor}: {status_text(code)}")
        self.status = Status(code) if code in STATUS_HELP else code
        self.descriptor = descriptor
