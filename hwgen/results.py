"""What has run on a build: one JSON file for each run, in the build's folder ``results``.

Commands that simulate, evaluate or synthesize write here, reports read here. Runs come after the build, so
these files are no part of its manifest; each holds the SHA-256 of the manifest that it belongs to instead.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.text_file import StrPath, write_text
from hwgen.build_directory import MANIFEST, BuildError, verify_build

RESULTS = "results"
TIMELINE = "timeline.svg"
"""Picture of the units over time, of the last run that was recorded."""

KINDS = ("encoder", "layers", "hls", "evaluation", "synthesis", "placement")
"""Whole encoders in RTL simulation, linear layers in it, C simulation of the HLS C++, scores on the task,
Yosys, nextpnr."""

RESULT_FORMAT = "hwgen-result-2"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run.

    Parameters
    ----------
    kind : str
        One of :data:`KINDS`.
    request : dict
        What was asked for: plain values.
    result : dict
        What was found: plain values.
    changed : str or None
        Which file of the build was not the generated one when it ran.
    """

    kind: str
    request: dict[str, Any]
    result: dict[str, Any]
    changed: str | None = None


def record(directory: StrPath, kind: str, request: Mapping[str, Any], result: Mapping[str, Any]) -> Path:
    """Write a run down, aside then renamed; one with the same request is replaced.

    Parameters
    ----------
    directory : path
        The build.
    kind : str
    request, result : dict
        Plain values.

    Returns
    -------
    Path
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    directory = Path(directory)
    try:
        verify_build(directory)
        changed = None
    except BuildError as error:
        changed = str(error).removeprefix(f"{directory}: ")
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    values = {"format": RESULT_FORMAT, "kind": kind, "manifest": _manifest_digest(directory),
              "request": request, "result": result, "changed": changed}
    return write_text(directory / RESULTS / f"{kind}-{digest[:8]}.json",
                      json.dumps(values, indent=1, sort_keys=True) + "\n")


def timeline_path(directory: StrPath) -> Path:
    """Where a build keeps the picture of the units over time."""
    return Path(directory) / RESULTS / TIMELINE


def record_timeline(directory: StrPath, picture: StrPath) -> Path:
    """Keep a picture of the units over time with a build, if it is not there already."""
    kept = timeline_path(directory)
    return kept if Path(picture) == kept else write_text(kept, Path(picture).read_text())


def recorded(directory: StrPath) -> list[Result]:
    """Runs of this build, by file name; what belongs to another build, or is unreadable, is left out.

    Returns
    -------
    list of Result
    """
    directory, found = Path(directory), []
    digest = _manifest_digest(directory)
    for path in sorted((directory / RESULTS).glob("*.json")):
        try:
            values = json.loads(path.read_text())
            if values["format"] == RESULT_FORMAT and values["kind"] in KINDS and values["manifest"] == digest:
                found.append(Result(kind=values["kind"], request=dict(values["request"]),
                                    result=dict(values["result"]), changed=values["changed"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def timeline(directory: StrPath) -> str | None:
    """Text of the picture of the units over time; None if no run was recorded."""
    path = timeline_path(directory)
    return path.read_text() if path.is_file() else None


def _manifest_digest(directory: Path) -> str | None:
    path = directory / MANIFEST
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
