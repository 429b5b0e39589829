"""The driver: runs bundles on an accelerator, on a board or simulated, from Python.

NumPy is all that it needs to run words; torch and transformers are loaded when sentences come in
(:mod:`hwgen.driver.sentences`), pynq and XRT when their device is opened.
"""

from hwgen.driver.accelerator import Accelerator, Predictions
from hwgen.driver.errors import (
    DeviceError,
    DriverError,
    InputTooLongError,
    RunTimeoutError,
    WrongBitstreamError,
)

__all__ = ["Accelerator", "DeviceError", "DriverError", "InputTooLongError", "Predictions", "RunTimeoutError",
           "WrongBitstreamError"]
