"""A build opened for simulation: its plan, bundle and files, and the part of them that a program needs."""

import fnmatch
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.bundle import Bundle, load_bundle
from compressor.text_file import StrPath
from hwgen.build_directory import BuildError, load_plan, verilog_files
from hwgen.encoder_program import whole_program
from hwgen.memory_image import write_image
from hwgen.plan import Plan, PlanError


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenBuild:
    """A build opened for simulation."""

    directory: Path
    plan: Plan
    bundle: Bundle

    @property
    def verilog(self) -> Path:
        """The generated file; BuildError if the build has none."""
        return verilog_files(self.directory)[0]

    @property
    def lanes(self) -> int:
        """Token lanes T."""
        return self.plan.spec.array.lanes

    @property
    def pool(self) -> bytes:
        """Words of the pattern memory as bytes; empty for a ROM pool."""
        path = self.directory / "weights" / "pool.bin"
        return path.read_bytes() if path.exists() else b""


def open_build(directory: StrPath) -> OpenBuild:
    """Open a build.

    Raises
    ------
    BuildError, PlanError, BundleError
        If it is none, or damaged.
    """
    directory = Path(directory).resolve()  # tools run elsewhere
    plan = load_plan(directory)
    return OpenBuild(directory=directory, plan=plan, bundle=load_bundle(directory / "bundle.pt"))


def choose_layers(plan, pattern):
    """Names of the layers that a glob pattern (or ``all``) chooses; PlanError if there are none."""
    names = [layer.name for layer in plan.layers]
    chosen = names if pattern == "all" else fnmatch.filter(names, pattern)
    if not chosen:
        raise PlanError(f"no layer matches {pattern!r}; the layers are {names[0]} to {names[-1]}")
    return chosen


def stream_file(build, program, scratch):
    """File with the weight stream of a program: the build's own, or the layers' parts of it in ``scratch``.

    Raises
    ------
    BuildError
        If the build's file has not the size that its plan says.
    """
    if build.plan.attention:  # the build's own stream has tables between the layers
        write_image(build.bundle, build.plan.spec, program.layers, scratch / "weights")
        return scratch / "weights"
    whole = build.directory / "weights" / "weights.bin"
    sizes = {layer.name: stream_beats(build.plan, [layer.name]) * build.plan.spec.bus_bits // 8
             for layer in build.plan.layers}
    if whole.stat().st_size != sum(sizes.values()):
        raise BuildError(f"{whole} has {whole.stat().st_size} bytes; the plan says {sum(sizes.values())}: "
                         "build again")
    if program.layers == tuple(sizes):
        return whole
    offsets = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    stream = np.memmap(whole, np.uint8, mode="r")
    with (scratch / "weights").open("wb") as file:
        for name in program.layers:
            file.write(stream[offsets[name]:offsets[name] + sizes[name]].data)
    return scratch / "weights"


def program_bytes(build, program):
    """Bytes of a program; BuildError if it is the build's own and ``program.bin`` holds something else."""
    packed = program.pack()
    stored = (build.directory / "program" / "program.bin").read_bytes()
    if program == whole_program(build.plan) and stored != packed:
        raise BuildError(f"{build.directory}: program.bin is not the program of plan.json; build again")
    return packed


def stream_beats(plan, names):
    """Bus beats of the weight stream of the named layers."""
    return sum(plan.spec.tiles.beats(ksteps) for name in names for ksteps in plan.layer(name).ksteps)
