"""The HLS C++ of a build under g++: compiled once, run on golden vectors. It proves values, not cycles."""

import hashlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hwgen.build_directory import BuildError
from hwgen.hls.files import AP_TYPES_FLAGS, BENCHES, COMPILER_FLAGS, DIRECTORY
from hwgen.toolchain import find_tool, run_tool
from sim.harness import SimulationError
from sim.runner import SIM_DIRECTORY

OPTIMIZE = "-O2"
"""For the compiler. Tests of small designs set ``-O0``: compiling takes them longer than running."""


@dataclass(frozen=True, kw_only=True)
class HlsBench:
    """A compiled C testbench of a build.

    Parameters
    ----------
    executable : Path
    image : Path
        The weight image that its kernel reads.
    """

    executable: Path
    image: Path

    def run(self, folder):
        """Run the cases in ``folder``; results are left there as ``<name>.output.bin``.

        Raises
        ------
        SimulationError
            If the bench could not run to its end. Words that differ are no error here.
        """
        result = subprocess.run([str(self.executable), str(self.image), str(folder)], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if result.returncode not in (0, 1):
            tail = " ".join(result.stdout.strip().splitlines()[-3:])
            raise SimulationError(f"the C testbench ended with exit code {result.returncode}: "
                                  f"{tail or 'no message'}")


def compile_bench(build, name, *, include=None):
    """Compile a testbench of a build's ``hls`` folder, unless the build holds it already.

    Parameters
    ----------
    build : sim.open_build.OpenBuild
    name : str
        One of :data:`hwgen.hls.files.BENCHES`.
    include : Path, optional
        Folder with the vendor's ``ap_int.h`` and ``hls_stream.h``; standard integers without it.

    Returns
    -------
    HlsBench

    Raises
    ------
    BuildError
        If the build has no HLS C++.
    ToolError
        If g++ is missing or finds fault.
    """
    folder = build.directory / DIRECTORY
    if not folder.is_dir():
        raise BuildError(f"{build.directory} has no HLS C++; build again with --emit hls "
                         "or --emit verilog,hls")
    flags = [*COMPILER_FLAGS, OPTIMIZE]
    flags += ["-isystem", include, *AP_TYPES_FLAGS] if include else ["-DSTANDARD_INTEGERS"]
    sources = BENCHES[name].sources
    texts = [path.read_text() for path in sorted(folder.glob("*.h"))]
    texts += [(folder / source).read_text() for source in sources]
    key = "\0".join([find_tool("g++").version, *map(str, flags), *texts])
    final = build.directory / SIM_DIRECTORY / f"hls-{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not final.exists():
        final.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as aside:
            run_tool("g++", [*flags, "-o", Path(aside) / name, *sources], cwd=folder)
            os.replace(Path(aside) / name, final)
    return HlsBench(executable=final, image=build.directory / "weights" / "weights.bin")
