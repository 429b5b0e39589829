"""Placement and routing for ECP5 with open tools: how fast an accelerator can be clocked, and what it takes.

The accelerator has more ports than a package has pins. So it is placed between the registers of a shift
chain (``ecp5/accelerator_chain.v`` of a build), whose registers are in the counts. Multipliers take the
registers of their operands inside, block RAMs those behind their outputs (``ecp5/move_registers.py``).
nextpnr times the way to a multiplier's registers, and the multiplication with the way to the next register;
of a block RAM with output registers not the reading itself, which takes 5.8 ns by its own tables. It knows
nothing of jitter and of clock skew.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

from compressor.text_file import StrPath
from hwgen.toolchain import ToolError, find_tool, run_tool
from hwgen.vendor import lattice

CELLS = {"LUT4": "TRELLIS_COMB", "FF": "TRELLIS_FF", "EBR18": "DP16KD", "MULT18": "MULT18X18D"}
"""Resources in a :class:`Placement`, and what nextpnr calls them."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What nextpnr found.

    Parameters
    ----------
    part : str
        The device.
    fmax_mhz : dict of int to float
        Highest clock frequency by seed.
    median_mhz : float
        Median of the seeds; the lower one of two.
    used, available : dict of str to int
        By the names in :data:`CELLS`; of the median's seed, and what the device has.
    critical_path : list of dict
        Steps of the slowest path of that seed: ``type``, ``delay`` in ns, and the ``cell`` it ends at.
    """

    part: str
    fmax_mhz: dict[int, float]
    median_mhz: float
    used: dict[str, int]
    available: dict[str, int]
    critical_path: list[dict[str, Any]]


def place(directory: StrPath, seeds: Sequence[int] = (1, 2, 3),
          progress: Callable[[str], None] | None = None) -> Placement:
    """Synthesize, place and route the Verilog of a build for :data:`hwgen.vendor.lattice.DEVICE`.

    Parameters
    ----------
    directory : path
        A build with ``rtl`` and ``ecp5``; nothing is written there.
    seeds : sequence of int
        Each is a placement of its own; some minutes for tens of thousands of LUTs.
    progress : callable(str), optional
        Called with what is about to be done.

    Returns
    -------
    Placement

    Raises
    ------
    ValueError
        If there are no seeds.
    ToolError
        If a tool is missing or fails, or the design does not fit.
    """
    if not seeds:
        raise ValueError("place needs at least one seed")
    step = progress or (lambda what: None)
    find_tool("nextpnr-ecp5")  # missing: known before minutes of synthesis
    reports = {}
    with tempfile.TemporaryDirectory() as scratch:
        for folder in ("rtl", lattice.DIRECTORY):
            shutil.copytree(Path(directory) / folder, Path(scratch) / folder)
        work = Path(scratch) / lattice.DIRECTORY
        step("yosys, ecp5")
        run_tool("yosys", ["-q", "-s", "synth.ys"], cwd=work)
        _move_registers(work)
        for seed in seeds:
            step(f"nextpnr-ecp5, seed {seed}")
            run_tool("nextpnr-ecp5", [*lattice.OPTIONS, "--seed", seed, "--json", "accelerator.json",
                                      "--report", "report.json"], cwd=work)
            reports[seed] = (work / "report.json").read_text()
    return read_reports(reports)


def _move_registers(work: Path) -> None:
    done = subprocess.run([sys.executable, lattice.REGISTERS_SCRIPT, "accelerator.json"], cwd=work, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise ToolError(f"{lattice.DIRECTORY}/{lattice.REGISTERS_SCRIPT} failed with exit code "
                        f"{done.returncode}:\n{done.stdout.strip()}")


def read_reports(reports: Mapping[int, str]) -> Placement:
    """Placement from nextpnr's JSON reports, text by seed."""
    found = {}
    try:
        for seed, text in reports.items():
            report = json.loads(text)
            found[seed] = min(clock["achieved"] for clock in report["fmax"].values()), report
        fmax = {seed: round(mhz, 2) for seed, (mhz, _) in found.items()}
        middle = median_low(fmax.values())
        report = found[next(seed for seed, mhz in fmax.items() if mhz == middle)][1]
        utilization = {name: report["utilization"][cell] for name, cell in CELLS.items()}
        path = _slowest(report["critical_paths"])
    except (ValueError, KeyError, TypeError) as error:
        raise ToolError(f"nextpnr-ecp5 wrote a report that cannot be read: "
                        f"{type(error).__name__}: {error}") from error
    return Placement(part=lattice.DEVICE.part, fmax_mhz=fmax, median_mhz=middle,
                     used={name: cell["used"] for name, cell in utilization.items()},
                     available={name: cell["available"] for name, cell in utilization.items()},
                     critical_path=path)


def _slowest(paths: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps of the longest path between two registers of the clock."""
    clocked = [path["path"] for path in paths
               if path["from"].startswith("posedge") and path["to"].startswith("posedge")]
    steps: list[dict[str, Any]] = max(
        clocked, key=lambda path: sum(step["delay"] for step in path), default=[])
    return [{"type": step["type"], "delay": round(step["delay"], 2), "cell": step["to"]["cell"]}
            for step in steps]


def placement_lines(placement: Placement) -> Iterator[str]:
    """The placement as text."""
    seeds = ", ".join(f"{mhz:.1f}" for mhz in placement.fmax_mhz.values())
    count = len(placement.fmax_mhz)
    yield (f"{placement.median_mhz:.1f} MHz on {placement.part}, placed and routed by nextpnr between "
           f"registers of a shift chain: median of {count} seed{'s' * (count != 1)} ({seeds})")
    yield f"  {'':8s} {'used':>10s} {'of':>10s} {'left':>10s}"
    for name, used in placement.used.items():
        total = placement.available[name]
        yield f"  {name:8s} {used:10,d} {total:10,d} {total - used:10,d}  {100 * used / total:.0f} %"
    total = sum(step["delay"] for step in placement.critical_path)
    yield f"  slowest path, {total:.2f} ns:"
    for step in placement.critical_path:
        yield f"    {step['type']:9s} {step['delay']:5.2f}  {step['cell']}"
