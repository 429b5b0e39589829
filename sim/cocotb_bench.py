"""Builds and runs the cocotb tests of the accelerator, with Verilator or Icarus."""

import contextlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from hwgen.toolchain import ToolError, find_tool, verilator_environment, verilator_make_flags
from sim.harness import SIM_DIRECTORY, WAIVERS, SimulationError

PUBLIC_PORTS = SIM_DIRECTORY / "cocotb.vlt"
SIMULATORS = ("verilator", "icarus")


@dataclass(frozen=True)
class CocotbResult:
    """Outcome of a cocotb run.

    Parameters
    ----------
    passed, failed : tuple of str
        Names of the tests; ``messages`` has the text of each failure.
    messages : dict of str to str
    reports : list of dict
        One a finished run of a program: stalls, counters, profile, and per layer words and mismatches.
    """

    passed: tuple[str, ...]
    failed: tuple[str, ...]
    messages: dict[str, str]
    reports: list[dict]


def run_cocotb(verilog, case, directory, *, simulator="verilator", tests=None, stalls=(0,),
               module="sim.tb_accelerator", top="accelerator"):
    """Compile the Verilog for cocotb, unless done before in ``directory``, and run tests.

    Parameters
    ----------
    verilog : Path
    case : sim.case.BenchCase or None
        Its file is named in the environment variable HWGEN_CASE; None for tests that need none.
    directory : Path
        Build directory of this Verilog file and simulator.
    simulator : str
        ``verilator`` or ``icarus``.
    module, top : str
        Python module with the tests, and the Verilog module they run on.
    tests : str, optional
        Regular expression that a test's name must match; all tests unless given.
    stalls : sequence of int
        Seeds of random waits for the test of the program; 0 is none.

    Returns
    -------
    CocotbResult

    Raises
    ------
    ToolError
        If the simulator is missing or does not compile the Verilog.
    SimulationError
        If the simulator died before it could report.
    """
    from cocotb_tools.runner import get_runner

    find_tool("iverilog" if simulator == "icarus" else "verilator")
    directory = Path(directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    sources, arguments = [Path(verilog).resolve()], []
    if simulator == "verilator":
        sources[:0] = [WAIVERS, PUBLIC_PORTS]
        arguments = ["-Wno-fatal", "-Wno-WIDTH", "--no-public-flat-rw"]
    with tempfile.TemporaryDirectory(dir=directory, prefix="run-") as name, _environment():
        run_directory = Path(name)
        log, report = run_directory / "log", run_directory / "report"
        environment = {"HWGEN_REPORT": str(report), "HWGEN_STALLS": ",".join(map(str, stalls))}
        if case is not None:
            case.save(run_directory / "case.npz")
            environment["HWGEN_CASE"] = str(run_directory / "case.npz")
        runner = get_runner(simulator)
        runner.log.setLevel(logging.ERROR)
        try:
            runner.build(sources=sources, hdl_toplevel=top, build_dir=directory, build_args=arguments,
                         timescale=("1ns", "1ps"), log_file=log)
        except (RuntimeError, SystemExit) as error:
            raise ToolError(f"{simulator} does not compile {verilog}:\n{_tail(log)}") from error
        results = run_directory / "results.xml"
        try:
            runner.test(test_module=module, hdl_toplevel=top, hdl_toplevel_lang="verilog",
                        build_dir=directory, test_dir=run_directory, results_xml=str(results), log_file=log,
                        test_filter=tests, timescale=("1ns", "1ps"),
                        extra_env=environment)
        except (RuntimeError, SystemExit) as error:
            if not results.exists():
                raise SimulationError(f"{simulator} ended without results:\n{_tail(log)}") from error
        reports = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
        return _read_results(results, reports)


def _read_results(path, reports):
    passed, failed, messages = [], [], {}
    for test in ElementTree.parse(path).getroot().iter("testcase"):
        problem = test.find("failure") if test.find("failure") is not None else test.find("error")
        if problem is not None:
            failed.append(test.get("name"))
            messages[test.get("name")] = problem.get("message") or problem.get("error_msg") or ""
        elif test.find("skipped") is None:
            passed.append(test.get("name"))
    return CocotbResult(tuple(passed), tuple(failed), messages, reports)


def _tail(log, lines=25):
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


@contextlib.contextmanager
def _environment():
    """What cocotb's runner takes from the environment; its special treatment of pytest is not wanted."""
    before = dict(os.environ)
    os.environ.update(verilator_environment())
    os.environ["MAKEFLAGS"] = verilator_make_flags("-O0")
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
