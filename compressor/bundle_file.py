"""The container of a bundle: one torch.save file of plain values and tensors, with checksums.

Nothing in a file is ever executed: it loads with ``weights_only=True``, and every value is then
required to be a plain one.
"""

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from compressor.bundle_checks import BundleError, check_keys, fail
from compressor.text_file import StrPath, whole_file

FORMAT = "hwgen-bundle"
SCHEMA_VERSION = 1
SECTIONS = ("model", "pool", "layers", "operators", "host", "recipe", "metrics")
_KEYS = ("format", "schema_version", *SECTIONS, "checksums")
_REMEDY = "`compress export` writes bundles"


def write_container(sections: Mapping[str, Any], path: StrPath) -> None:
    """Write the sections of a bundle, with their checksums, to ``path``; aside, then renamed.

    ``sections`` maps each of SECTIONS to plain values (dict, list, str, int, float, bool, None)
    and tensors. Equal sections give equal bytes.

    Raises
    ------
    BundleError
        If a value is not plain.
    WriteError
    """
    raw: dict[str, Any] = {"format": FORMAT, "schema_version": SCHEMA_VERSION}
    raw.update((key, sections[key]) for key in SECTIONS)
    raw["checksums"] = checksums(raw)
    buffer = io.BytesIO()  # torch.save to a path would write the path's name into the file
    torch.save(raw, buffer)
    with whole_file(path) as aside:
        aside.write_bytes(buffer.getbuffer())


def read_container(path: StrPath) -> dict[str, Any]:
    """Sections of the bundle at ``path``, checksums verified.

    Raises
    ------
    BundleError
        If the file cannot be read, is not a bundle, holds anything but plain values and tensors,
        has another schema version, or differs from its checksums. The line does not name the file.
    """
    raw = _load(path)
    if type(raw) is not dict or raw.get("format") != FORMAT:
        found = "a dict without it" if type(raw) is dict else type(raw).__name__
        if type(raw) is dict and "format" in raw:
            found = f"format {raw['format']!r}"
        raise BundleError(f"not a bundle: format {FORMAT!r} is required, found {found}; {_REMEDY}")
    version = raw.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BundleError(f"schema version {version!r} is not supported, only {SCHEMA_VERSION}; "
                          "export the model again with this version")
    check_keys("bundle", raw, _KEYS)
    expected = raw.pop("checksums")
    digests = checksums(raw)
    check_keys("checksums", expected, tuple(digests))
    for name, digest in digests.items():
        if expected[name] != digest:
            fail(name, "differs from its checksum", "the file was changed or damaged; export it again")
    return {key: raw[key] for key in SECTIONS}


def checksums(raw: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of every tensor by its dotted path, and under ``values`` of all plain values.

    A tensor counts with dtype, shape and bytes; the plain values count as JSON in their order, with
    null in place of each tensor.

    >>> sorted(checksums({"pool": {"patterns": torch.zeros(2)}, "keep": 8}))
    ['pool.patterns', 'values']
    """
    digests: dict[str, str] = {}
    values = _plain(raw, "", digests)
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    digests["values"] = hashlib.sha256(text.encode()).hexdigest()
    return digests


def tensor_to_array(where: str, tensor: Any, dtype: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    """NumPy array of a tensor that must have one dtype (a NumPy name) and shape.

    >>> tensor_to_array("bias", torch.zeros(2), "float32", (2,))
    array([0., 0.], dtype=float32)
    """
    if type(tensor) is not torch.Tensor:
        fail(where, f"is {type(tensor).__name__}", "a tensor is required")
    found = str(tensor.dtype).removeprefix("torch.")
    if found != dtype:
        fail(where, f"has dtype {found}", f"{dtype} is required")
    if tuple(tensor.shape) != tuple(shape):
        fail(where, f"has shape {list(tensor.shape)}", f"{list(shape)} is required")
    return tensor.numpy()


def _load(path: StrPath) -> Any:
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise BundleError(f"not a bundle, or cut short: not a whole zip archive; {_REMEDY}")
            if not any(name.endswith("/data.pkl") for name in zipfile.ZipFile(file).namelist()):
                raise BundleError(f"not a bundle: a zip archive that torch.save did not write; {_REMEDY}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except BundleError:
        raise
    except pickle.UnpicklingError as error:
        raise BundleError("not a bundle: it holds Python objects other than tensors and plain "
                          f"values; refused, and nothing was executed; {_REMEDY}") from error
    except IsADirectoryError as error:
        raise BundleError(f"a folder, not a bundle; `compress export {path} -o pruned.pt` makes one of a "
                          "model directory") from error
    except OSError as error:
        raise BundleError(f"cannot be read: {error.strerror}") from error
    except Exception as error:  # torch and zipfile raise many kinds for damaged archives
        raise BundleError(f"not a bundle, or damaged: torch.load fails with {type(error).__name__}; "
                          f"{_REMEDY}") from error


def _plain(value: Any, where: str, digests: dict[str, str]) -> Any:
    """``value`` with None for tensors, whose digests are added; BundleError for what is not plain."""
    kind = type(value)
    if kind is torch.Tensor:
        digests[where] = _tensor_digest(where, value)
        return None
    if kind is dict:
        for key in value:
            if type(key) is not str:
                fail(where or "bundle", f"has the key {key!r}", "keys must be strings")
        return {key: _plain(item, f"{where}.{key}" if where else key, digests)
                for key, item in value.items()}
    if kind is list:
        return [_plain(item, f"{where}[{i}]", digests) for i, item in enumerate(value)]
    if kind is float and not np.isfinite(value):
        fail(where, f"is {value}", "a finite number is required")
    if value is not None and kind not in (str, int, float, bool):
        fail(where, f"is {kind.__name__}",
             "allowed are tensors, dict, list, str, int, float, bool and None")
    return value


def _tensor_digest(where: str, tensor: torch.Tensor) -> str:
    # A strided view could claim far more elements than the file holds.
    if tensor.layout != torch.strided or tensor.is_quantized or not tensor.is_contiguous():
        fail(where, "is not a plain contiguous tensor", "make it contiguous before saving")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        fail(where, "holds NaN or infinity", "finite numbers are required")
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    digest.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
