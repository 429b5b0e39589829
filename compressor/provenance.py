"""What a result was made with: versions of Python and of the libraries that compute, and the device."""

import importlib.metadata
import platform

import torch

LIBRARIES = ("hwgen", "torch", "transformers", "accelerate", "tokenizers", "numpy")


def versions():
    """Version by name, of Python and of :data:`LIBRARIES`: dict of str to str."""
    return {"python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def device_name():
    """What training runs on: the name of the first GPU, the kind of another accelerator, or CPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "CPU"
