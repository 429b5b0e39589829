"""Builds that exist: what a directory written by ``hwgen build`` holds, checked against its manifest.

Loads neither torch nor amaranth: drivers read builds on boards that have neither.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from compressor.text_file import StrPath
from hwgen.plan import Plan, PlanError

MANIFEST = "manifest.json"
MANIFEST_FORMAT = "hwgen-build"

EMITTERS = ("verilog", "hls")
"""What a build can hold besides program, weights and reports: folder ``rtl`` with what FPGA flows need for
it, and folder ``hls``."""


class BuildError(RuntimeError):
    """A build that cannot be written or read; the message says what to do."""


def read_manifest(directory: StrPath) -> dict[str, Any] | None:
    """The manifest of a build as a dict; None if the directory is no build."""
    try:
        manifest = json.loads((Path(directory) / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and manifest.get("format") == MANIFEST_FORMAT
    return manifest if ours and isinstance(manifest.get("files"), dict) else None


def load_plan(directory: StrPath) -> Plan:
    """The plan of a build; BuildError or PlanError if the directory holds none."""
    directory = Path(directory)
    if not (directory / MANIFEST).is_file():
        raise BuildError(f"{directory} is not a build: it has no {MANIFEST}; `hwgen build` makes builds")
    try:
        return Plan.from_json((directory / "plan.json").read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{directory}: plan.json cannot be read: {error}") from error
    except PlanError as error:
        raise PlanError(f"{directory}: plan.json: {error}") from error


def verify_build(directory: StrPath) -> None:
    """Compare every file of a build with its manifest; BuildError names the first that differs."""
    directory = Path(directory)
    manifest = read_manifest(directory)
    if manifest is None:
        raise BuildError(f"{directory} is not a build: it has no {MANIFEST}; `hwgen build` makes builds")
    for name, expected in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            raise BuildError(f"{directory}: {name} is missing; build again")
        if digest(path) != expected:
            raise BuildError(f"{directory}: {name} differs from {MANIFEST}; build again")


def verilog_files(directory: StrPath) -> list[Path]:
    """Verilog files of a build; BuildError if it was built without."""
    listed = Path(directory) / "rtl" / "files.f"
    if not listed.is_file():
        raise BuildError(f"{directory} has no Verilog; build again with --emit verilog")
    return [listed.with_name(name) for name in listed.read_text().split()]


def digest(path: StrPath) -> str:
    """SHA-256 of a file, as hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
