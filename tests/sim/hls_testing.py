"""Builds for tests of the HLS C++, and copies of them with an error in a source."""

import shutil
from dataclasses import replace
from functools import cache

from compressor.bundle import save_bundle
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from sim.open_build import open_build


def build_hls(directory, bundle, **request):
    """Build of the HLS C++ alone, opened."""
    save_bundle(bundle, directory / "pruned.pt")
    build(directory / "pruned.pt", directory / "build", PlanRequest(**request), emit=("hls",))
    return open_build(directory / "build")


def hls_builds(designs, tmp_path_factory, **request):
    """Function that builds a design by name, once; a design is the maker of a bundle and a plan request."""
    @cache
    def make(name):
        bundle, sizes = designs[name]
        return build_hls(tmp_path_factory.mktemp("hls"), bundle(), **sizes, **request)
    return make


def mutated(opened, directory, *changes):
    """A copy of a build in which, for each (file, old, new), ``hls/file`` has ``new`` in place of ``old``."""
    shutil.copytree(opened.directory, directory / "build", ignore=shutil.ignore_patterns("sim"))
    for name, old, new in changes:
        path = directory / "build" / "hls" / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} has {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new))
    return replace(opened, directory=directory / "build")
