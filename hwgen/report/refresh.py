"""Brings the report of a build up to date with what has run on it."""

from pathlib import Path
from typing import Any

from compressor.bundle import Bundle, load_bundle
from compressor.text_file import StrPath
from hwgen.build_directory import load_plan
from hwgen.report.files import write_report
from hwgen.results import recorded, timeline


def refresh_report(directory: StrPath, bundle: Bundle | None = None) -> dict[str, Any]:
    """Write a build's report anew, with everything that has run on it; the report's data.

    ``bundle`` is the build's own if it was read before.

    Raises
    ------
    BuildError, PlanError, BundleError
        If the directory is no build, or damaged.
    """
    directory = Path(directory)
    plan = load_plan(directory)
    bundle = bundle or load_bundle(directory / "bundle.pt")
    return write_report(directory, bundle, plan, recorded(directory), timeline(directory))
