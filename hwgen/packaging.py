"""A build: one directory with everything that simulators, vendor flows and hosts need. Byte-reproducible."""

import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.bundle import load_bundle
from compressor.text_file import StrPath, make_folder, writing
from hwgen import reports
from hwgen.build_directory import (
    EMITTERS,
    MANIFEST,
    MANIFEST_FORMAT,
    BuildError,
    digest,
    load_plan,
    read_manifest,
    verify_build,
    verilog_files,
)
from hwgen.cost import CostReport, cost_report
from hwgen.driver import files as driver
from hwgen.encoder_program import whole_program
from hwgen.encoder_stream import encoder_packets
from hwgen.fitting import fit_plan
from hwgen.hls import files as hls
from hwgen.memory_image import image_packets, pattern_memory, write_packets
from hwgen.plan import Plan
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.program import listing
from hwgen.report.files import write_report
from hwgen.vendor.files import write_vendor_files
from hwgen.verilog import write_verilog
from rtl_templates.array_spec import PoolStorage

TOOLS = ("hwgen", "amaranth", "torch", "numpy", "peakrdl-cheader", "peakrdl-ipxact")
"""Distributions whose versions can change a build's bytes."""


@dataclass(frozen=True)
class Build:
    """A build that was just written: its directory, plan and cost."""

    directory: Path
    plan: Plan
    cost: CostReport

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: sizes, exact cycles, modelled resources."""
        plan, cost, array = self.plan, self.cost, self.plan.spec.array
        return {"directory": str(self.directory), "configuration_hash": plan.configuration_hash,
                "device": plan.device, "rows": array.units, "lanes": array.lanes,
                "slots": array.assignment.slots, "pool": array.storage, "bus_bits": plan.spec.bus_bits,
                "macs": array.multipliers, "tokens": plan.tokens, "predicted_cycles": cost.cycles,
                "utilization": cost.utilization, "modelled_resources": plan.modelled,
                "layers": [asdict(layer) for layer in cost.layers]}


def build(model: StrPath, out: StrPath, request: PlanRequest | None = None,
          progress: Callable[[str], None] | None = None, *, emit: Sequence[str] = ("verilog",),
          hardware: StrPath | None = None) -> Build:
    """Generate an accelerator for a bundle, or what an accelerator that exists needs to run it.

    Parameters
    ----------
    model : path
        The bundle, ``pruned.pt``.
    out : path
        Directory to write; an earlier build there is replaced, anything else is refused. It is written
        aside and renamed, so that a build is whole or absent.
    request : hwgen.plan_request.PlanRequest, optional
    progress : callable(str), optional
        Called with what is about to be done.
    emit : sequence of str
        Some of :data:`EMITTERS`.
    hardware : path, optional
        A build whose Verilog is taken over, byte for byte; of ``request`` only ``tokens`` counts then.

    Returns
    -------
    Build

    Raises
    ------
    BundleError, PlanError, BuildError
    """
    step = progress or (lambda what: None)
    model, target = Path(model), Path(out).resolve()
    check_emitters(emit)
    check_replaceable(target)
    if hardware is not None:
        verify_build(hardware)
        verilog_files(hardware)
        if tuple(emit) != ("verilog",):
            raise BuildError(f"{hardware} runs other bundles in Verilog only; leave --emit out")
    step("reading the bundle")
    bundle = load_bundle(model)
    step("planning")
    if hardware is None:
        plan = make_plan(bundle, request)
    else:
        plan = fit_plan(bundle, load_plan(hardware), request.tokens if request else None)
    make_folder(target.parent)
    with writing(target):
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            cost = _write(bundle, model, plan, aside, step, emit, hardware)
            aside.chmod(0o755)  # mkdtemp makes directories private
            _replace(target, aside)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return Build(directory=Path(out), plan=plan, cost=cost)


def check_emitters(emit):
    """BuildError unless ``emit`` holds one or more of :data:`EMITTERS`."""
    unknown = [name for name in emit if name not in EMITTERS]
    if unknown or not emit:
        raise BuildError(f"--emit is {','.join(emit)!r}; give one or more of {', '.join(EMITTERS)}, "
                         "with commas between them")


def check_replaceable(out):
    """BuildError unless ``out`` is absent, empty, or an earlier build."""
    if not out.exists():
        return
    if not out.is_dir():
        raise BuildError(f"{out} is a file; --out names a directory to write")
    if any(out.iterdir()) and read_manifest(out) is None:
        raise BuildError(f"{out} is not empty and no hwgen build; it is left alone, choose another --out")


def _write(bundle, model, plan, directory, step, emit, hardware):
    if hardware is not None:
        shutil.copytree(Path(hardware) / "rtl", directory / "rtl")
    elif "verilog" in emit:
        step("writing Verilog")
        write_verilog(plan, directory / "rtl")
    if (directory / "rtl").is_dir():
        write_vendor_files(plan, directory)
    program = whole_program(plan)
    for name in ("program", "weights", "report"):
        (directory / name).mkdir()
    (directory / "program" / "program.bin").write_bytes(program.pack())
    (directory / "program" / "program.txt").write_text(listing(program))
    packets = (encoder_packets(bundle, plan) if plan.attention
               else image_packets(bundle, plan.spec, program.layers))
    images = write_packets(packets, plan.spec.bus_bits, directory / "weights" / "weights.bin",
                           lambda layer: step(f"packing weights: {layer}"))
    if "hls" in emit:
        step("writing HLS C++")
        hls.write_hls(bundle, plan, images, directory / hls.DIRECTORY)
    layout = {"bus_bits": plan.spec.bus_bits, "weights_beats": sum(image.beats for image in images),
              "lanes": plan.spec.array.lanes, "tokens": program.tokens,
              "layers": [asdict(image) for image in images],
              "inputs": [asdict(tensor) for tensor in program.inputs],
              "outputs": [asdict(tensor) for tensor in program.outputs],
              "input_bytes": program.input_bytes, "output_bytes": program.output_bytes}
    _write_json(directory / "weights" / "layout.json", layout)
    pool = np.zeros(0, "<u4")
    if plan.spec.array.storage is PoolStorage.RAM:
        pool = pattern_memory(plan.spec.array).astype("<u4")
        (directory / "weights" / "pool.bin").write_bytes(pool.tobytes())
    if (directory / "rtl").is_dir():
        driver.write_driver(driver.driver_context(plan, program, layout["weights_beats"], pool.size),
                            directory / driver.DIRECTORY)
    cost = cost_report(plan, program)
    _write_json(directory / "report" / "cost.json", {**cost.to_dict(), "modelled_resources": plan.modelled})
    (directory / "report" / "cost.md").write_text(reports.cost_markdown(plan, cost))
    (directory / "plan.json").write_text(plan.to_json())
    shutil.copyfile(model, directory / "bundle.pt")
    (directory / "README.md").write_text(reports.build_readme(plan, cost, emit))
    files = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    _write_json(directory / MANIFEST, {
        "format": MANIFEST_FORMAT, "configuration_hash": plan.configuration_hash,
        "tools": {"python": platform.python_version(),
                  **{name: importlib.metadata.version(name) for name in TOOLS}},
        "files": {name: digest(directory / name) for name in files}})
    write_report(directory, bundle, plan)
    return cost


def _replace(out, aside):
    """Put the finished directory in place; the old one steps aside first, so that it is never half gone."""
    check_replaceable(out)
    if not out.exists():
        aside.rename(out)
        return
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    out.rename(old)
    try:
        aside.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _write_json(path, values):
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
