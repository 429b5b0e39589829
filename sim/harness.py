"""The C++ bench: generated from a template, compiled once for a Verilog text, run with arguments only."""

import hashlib
import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import jinja2
import numpy as np

from hwgen.build_directory import BuildError
from hwgen.toolchain import find_tool, run_tool, verilator_make_flags
from rtl_templates.activity import STATES, bit
from rtl_templates.register_map import (
    IDENTITY,
    LENGTHS_BASE,
    POOL_BASE,
    PROFILE_BASE,
    REGISTERS,
    RUN_COUNTERS,
    STATUS_HELP,
    Status,
)
from sim.activity import TRACKS

SIM_DIRECTORY = Path(__file__).parent
WAIVERS = SIM_DIRECTORY / "waivers.vlt"
VISIBLE = SIM_DIRECTORY / "activity.vlt"
HEADERS = tuple(SIM_DIRECTORY / name for name in (
    "axi_memory.h", "board.h", "server.h", "fst/lz4.h", "fst/zlib.h"))
PROGRESS_CYCLES = 100_000
"""How often the bench reports its progress, in clock cycles."""

OPTIMIZE = "-O3"
"""For the compiler. Tests of small designs set ``-O0``: compiling takes them longer than running."""

_VERILATOR_FLAGS = ("-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "--threads", "1",
                    "-Wno-fatal", "-Wno-WIDTH")


class SimulationError(RuntimeError):
    """A run did not end well: AXI violation, cycle limit or error status. The message says where."""


@dataclass(frozen=True, kw_only=True)
class HarnessContext:
    """Variables of ``harness.cpp.j2``.

    Parameters
    ----------
    top : str
        Top module of the Verilog.
    registers : tuple of (str, int)
        Name and byte address of every register.
    counters : tuple of str
        Registers to report after the run.
    status_codes : tuple of (str, int, str)
        Name, code, and what it means.
    identity, profile_base, pool_base, lengths_base : int
        See :mod:`rtl_templates.register_map`.
    state_bits : int
        Width of the states in the activity wire, see :mod:`rtl_templates.activity`.
    running : int
        Mask of the state that counts.
    index_shift : int
        Place of the descriptor's index in the wire.
    tracks : tuple of (int, int, int)
        Masks of ``TRACKS``.
    wave : bool
        Whether the bench can write a wave file (slower).
    """

    top: str = "accelerator"
    registers: tuple[tuple[str, int], ...] = tuple((r.name, r.address) for r in REGISTERS)
    counters: tuple[str, ...] = RUN_COUNTERS
    status_codes: tuple[tuple[str, int, str], ...] = tuple(
        (s.name, s.value, "; ".join(filter(None, STATUS_HELP[s]))) for s in Status)
    identity: int = IDENTITY
    profile_base: int = PROFILE_BASE
    pool_base: int = POOL_BASE
    lengths_base: int = LENGTHS_BASE
    state_bits: int = len(STATES)
    running: int = 1 << bit("running")
    index_shift: int = bit("index")
    tracks: tuple[tuple[int, int, int], ...] = tuple(
        tuple(sum(1 << bit(name) for name in names) for names in track) for track in TRACKS.values())
    wave: bool = False


@dataclass(frozen=True, kw_only=True)
class MemoryTiming:
    """Timing of the memory models, in clock cycles.

    Parameters
    ----------
    read_latency : int
        From an address taken to the first beat; at least 1.
    write_latency : int
        From the last beat taken to the response; at least 1.
    stalls : int
        Seed of random waits on every channel; 0 is the nominal memory, without waits.
    """

    read_latency: int = 32
    write_latency: int = 8
    stalls: int = 0

    def __post_init__(self):
        for name in ("read_latency", "write_latency"):
            if getattr(self, name) < 1:
                raise ValueError(f"MemoryTiming.{name} must be at least 1 cycle, not {getattr(self, name)}")
        if not 0 <= self.stalls < 1 << 32:
            raise ValueError(f"MemoryTiming.stalls must be 0 (none) or a seed below 2**32, not {self.stalls}")

    @property
    def nominal(self):
        """The same latencies without random waits."""
        return MemoryTiming(read_latency=self.read_latency, write_latency=self.write_latency)


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What one run executes.

    Parameters
    ----------
    program : bytes
        Descriptors of 32 bytes.
    weights, input : bytes or Path
        Contents of the weight stream and of input memory, or the file that holds them.
    weights_beats : int
        Beats of the weight stream.
    output_bytes : int
        Size of output memory, a multiple of the bus width.
    max_cycles : int
        Clock cycles after which the run is given up.
    pool : bytes
        Words of the pattern memory, 32 bits each; empty for a ROM pool.
    lengths : bytes
        Words of the window of valid lengths, 32 bits each; empty without an encoder.
    sequences, input_stride, output_stride : int
        How often the program runs, and the bytes from a sequence's input and output to the next's.
    timing : MemoryTiming
    """

    program: bytes
    weights: bytes | Path
    input: bytes | Path
    weights_beats: int
    output_bytes: int
    max_cycles: int
    pool: bytes = b""
    lengths: bytes = b""
    sequences: int = 1
    input_stride: int = 0
    output_stride: int = 0
    timing: MemoryTiming = MemoryTiming()


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What the bench saw: status, counters by register name, dispatch cycle of each descriptor.

    ``states`` are pairs: the states of the activity wire as a number, and the cycles of the run with them.
    ``clock_cycles`` counts simulated cycles, register accesses of the start included; ``wall_seconds`` and
    ``cpu_seconds`` are the time they took. ``error`` is None or the one line that says what went wrong.
    ``first_status`` is the status of the disturbed run before, if there was one.
    """

    error: str | None
    first_status: int
    status: int
    status_name: str
    descriptor: int
    counters: dict[str, int]
    states: list[list[int]]
    profile: list[int]
    read_beats: list[int]
    write_beats: int
    clock_cycles: int
    wall_seconds: float
    cpu_seconds: float


def render_harness(context):
    """C++ text of the bench."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                                     keep_trailing_newline=True)
    template = environment.from_string((SIM_DIRECTORY / "harness.cpp.j2").read_text())
    return template.render({f.name: getattr(context, f.name) for f in fields(context)})


def build_harness(verilog, directory, *, context=None):
    """Compile the bench for a Verilog file, unless ``directory`` holds it already.

    Parameters
    ----------
    verilog : Path
    directory : Path
        Where compiled benches are kept, one for each Verilog text, template, trace setting and Verilator.
    context : HarnessContext, optional

    Returns
    -------
    Path of the executable.

    Raises
    ------
    ToolError
        If Verilator or the compiler is missing or fails.
    """
    context = context or HarnessContext()
    source = render_harness(context)
    text, headers = Path(verilog).read_text(), {path.name: path.read_text() for path in HEADERS}
    if not re.search(r"\bwire \[\d+:0\] activity\b", text):
        raise BuildError(f"{verilog} has no wire named activity, which the bench reads: build again")
    key = "\0".join([text, source, *headers.values(), find_tool("verilator").version,
                     find_tool("g++").version, OPTIMIZE, *_VERILATOR_FLAGS])
    final = Path(directory).resolve() / f"harness-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if final.exists():
        return final
    find_tool("make"), find_tool("perl")
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".building-") as name:
        aside = Path(name)
        (aside / "harness.cpp").write_text(source)
        for file, content in headers.items():
            (aside / file).write_text(content)
        # The packaged makefile would link the libraries that our headers stand in for.
        flags = verilator_make_flags(OPTIMIZE) + " LDLIBS=-pthread" * context.wave
        run_tool("verilator", ["--cc", "--exe", "--build", "-j", os.cpu_count() or 1, *_VERILATOR_FLAGS,
                               *(["--trace-fst"] if context.wave else []),
                               "-MAKEFLAGS", flags, "--top-module", context.top,
                               "-Mdir", aside / "objects", "-o", "harness", "-CFLAGS", f"-I{aside}",
                               WAIVERS, VISIBLE, Path(verilog).resolve(), aside / "harness.cpp"], cwd=aside)
        os.replace(aside / "objects" / "harness", final)
    return final


def run_harness(executable, request, *, progress=None, **extra):
    """Run a compiled bench.

    Parameters
    ----------
    executable : Path
        From :func:`build_harness`.
    request : RunRequest
    progress : callable(int), optional
        Called now and then with the clock cycles simulated so far.
    **extra
        ``activity`` (file for the busy times of the units, see :mod:`sim.activity`), ``wave`` (FST file to
        write, with ``wave_first`` and ``wave_end``, cycles of the run; needs a bench built with wave), and
        for tests: ``reset_at`` (reset so
        many cycles after a first start, then run again); ``fail_read0``, ``fail_read1`` (number of the read
        beat, from 1, that gets an error response), ``fail_write`` (number of the write burst); ``stop``
        (channel that stops answering: ``ar0``, ``r0``, ``ar1``, ``r1``, ``aw``, ``w`` or ``b``), ``stop_at``
        (cycles after the start); ``then_again`` (1: after these faults run once more, without a reset).

    Returns
    -------
    report : RunReport
    output : uint8 array, shape (output_bytes,)
        Bytes never written are 0x80. None if the run failed.

    Raises
    ------
    SimulationError
        If the bench itself could not run (a bad file, a crash).
    """
    with tempfile.TemporaryDirectory(prefix="hwgen-sim-") as name:
        directory = Path(name)
        arguments = {"weights-beats": request.weights_beats, "output-bytes": request.output_bytes,
                     "max-cycles": request.max_cycles, "descriptors": len(request.program) // 32,
                     "read-latency": request.timing.read_latency,
                     "write-latency": request.timing.write_latency, "stalls": request.timing.stalls,
                     "output": directory / "output", "progress": PROGRESS_CYCLES if progress else 0,
                     **{key.replace("_", "-"): value for key, value in extra.items()}}
        for key in ("sequences", "input_stride", "output_stride"):
            arguments[key.replace("_", "-")] = getattr(request, key)
        for key in ("program", "weights", "input", "pool", "lengths"):
            content = getattr(request, key)
            if isinstance(content, Path):
                arguments[key] = content
            elif content or key not in ("pool", "lengths"):
                arguments[key] = directory / key
                arguments[key].write_bytes(content)
        words = [word for key, value in arguments.items() for word in (f"--{key}", str(value))]
        code, messages = _run([str(executable), *words], directory / "report.json", progress)
        text = (directory / "report.json").read_text()
        if code not in (0, 1) or not text:
            raise SimulationError(f"the bench ended with exit code {code}: {messages or 'no message'}")
        report = RunReport(**json.loads(text))
        output = None if report.error else np.fromfile(directory / "output", np.uint8)
    return report, output


def _run(command, stdout, progress):
    messages = []
    with stdout.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE,
                                                     text=True) as process:
        for line in process.stderr:
            if progress and line.startswith("progress "):
                progress(int(line.split()[1]))
            else:
                messages.append(line)
    return process.returncode, "".join(messages).strip()
