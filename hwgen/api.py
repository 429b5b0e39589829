"""What ``hwgen`` does, as functions: commands call the one of their name here.

What searches for sizes is in :mod:`hwgen.search_api`, simulation in :mod:`sim.api`, which may import this
package; this one must not import it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from compressor.bundle import load_bundle
from compressor.patterns import BALANCES
from compressor.text_file import StrPath
from hwgen import costs, packaging, placement, synthesis
from hwgen.build_directory import load_plan, verify_build, verilog_files
from hwgen.devices import DEVICES
from hwgen.inspection import inspect_bundle
from hwgen.plan import Plan, PlanError
from hwgen.plan_request import PlanRequest
from hwgen.pool_choice import SIZES, PoolChoice, model_blocks, pool_choices
from hwgen.report.refresh import refresh_report
from hwgen.results import record
from hwgen.vendor import lattice
from rtl_templates.array_spec import Accumulation, PoolStorage


def build(model: StrPath, out: StrPath, *, device: str | None = None, rows: int | None = None,
          lanes: int | None = None, tokens: int | None = None, pool: str | None = None,
          bus_bits: int | None = None, accumulation: str | None = None, emit: Sequence[str] = ("verilog",),
          hardware: StrPath | None = None, progress: Callable[[str], None] | None = None) -> packaging.Build:
    """Generate an accelerator for a bundle: `hwgen build`. What is not given, the planner chooses.

    Parameters
    ----------
    model : path
        The bundle, ``pruned.pt``.
    out : path
        Directory for the build; an earlier build there is replaced, anything else is refused.
    device : str, optional
        Choose the sizes for a device: one of :data:`hwgen.devices.DEVICES`.
    rows, lanes : int, optional
        Block units R (4R output rows at a time) and token lanes T; 4 and 8 without a device.
    tokens : int, optional
        Longest sequence; the model's, or what fits the device.
    pool : str, optional
        ``rom``: patterns in logic; ``ram``: loaded at run time.
    bus_bits : int, optional
        Width of the memory ports.
    accumulation : str, optional
        Sums in adder trees (``tree``), inside the DSPs (``dsp``), or two lanes in a DSP48E2 (``paired``).
    emit : sequence of str
        ``verilog``, ``hls``, or both.
    hardware : path, optional
        Another build: make program, weights and patterns for its Verilog, unchanged. Of the sizes only
        ``tokens`` can be given then.
    progress : callable(str), optional
        Called with what is about to be done.

    Returns
    -------
    hwgen.packaging.Build
        Its plan, and its exact cost in cycles.

    Raises
    ------
    BundleError, PlanError, BuildError
    """
    sizes = {"--device": device, "--rows": rows, "--lanes": lanes, "--pool": pool, "--bus-bits": bus_bits,
             "--accumulation": accumulation}
    chosen = [name for name, value in sizes.items() if value is not None]
    if hardware is not None and chosen:
        raise PlanError(f"{chosen[0]} cannot be chosen with --for: the hardware is that of {hardware}")
    request = PlanRequest(device=device, rows=rows, lanes=lanes, tokens=tokens, bus_bits=bus_bits,
                          storage=PoolStorage(pool) if pool else None,
                          accumulation=Accumulation(accumulation) if accumulation else None)
    return packaging.build(model, out, request, progress, emit=tuple(emit), hardware=hardware)


def inspect(model: StrPath, *, rows: int | None = None, lanes: int | None = None,
            tokens: int | None = None) -> dict[str, Any]:
    """Verify a bundle, and say what its layers hold and its patterns cost: `hwgen inspect`.

    Parameters
    ----------
    rows, lanes, tokens : int, optional
        R, T and S for the cycle counts; 4, 8 and the model's unless given.

    Returns
    -------
    dict
        See :func:`hwgen.inspection.inspect_bundle`.

    Raises
    ------
    BundleError, PlanError
    """
    return inspect_bundle(load_bundle(model), PlanRequest(rows=rows, lanes=lanes, tokens=tokens))


def cost_table(model: StrPath, out: StrPath, *, device: str | None = None, rows: int | None = None,
               lanes: int | None = None, tokens: int | None = None) -> dict[str, Any]:
    """Write what K-steps cost on the accelerator of a bundle, for a recipe's budget: `hwgen costs`.

    Parameters
    ----------
    out : path
        The JSON file, for ``budget: {costs: FILE}``.
    model, device, rows, lanes, tokens
        As for :func:`build`.

    Returns
    -------
    dict
        See :func:`hwgen.costs.cost_table`.

    Raises
    ------
    BundleError, PlanError
    """
    values = costs.cost_table(load_bundle(model),
                              PlanRequest(device=device, rows=rows, lanes=lanes, tokens=tokens))
    costs.write_costs(values, out)
    return values


def synthesize(build: StrPath, *, family: str | None = None) -> synthesis.Resources:
    """Count the resources of a build's Verilog with Yosys: `hwgen synth`. Minutes for large arrays.

    The result is kept in the build, and its report written anew.

    Parameters
    ----------
    build : path
    family : str, optional
        One of :data:`hwgen.synthesis.FAMILIES`; that of the build's device, or ``xcup``.

    Returns
    -------
    hwgen.synthesis.Resources

    Raises
    ------
    BuildError, PlanError, ToolError
    """
    verify_build(build)
    plan = load_plan(build)
    family = family or synthesis_family(plan)
    _refuse_without_dsp48e2(plan, family)
    device = DEVICES.get(plan.device or "")
    found = synthesis.synthesize(verilog_files(build), "accelerator", family,
                                 use_uram=bool(device and device.family == family and device.urams))
    record(build, "synthesis", {"family": family}, asdict(found))
    refresh_report(build)
    return found


def synthesis_family(plan: Plan) -> str:
    """The family for which a plan is synthesized unless one is given."""
    device = DEVICES.get(plan.device or "")
    return device.family if device and device.family in synthesis.FAMILIES else synthesis.FAMILIES[0]


def place(build: StrPath, *, seeds: int = 3,
          progress: Callable[[str], None] | None = None) -> placement.Placement:
    """Place and route a build for an ECP5 with nextpnr: `hwgen synth --place`. Takes minutes.

    The result is kept in the build, and its report written anew.

    Parameters
    ----------
    build : path
    seeds : int
        Placements to take the median of, 1 or more.
    progress : callable(str), optional
        Called with what is about to be done.

    Returns
    -------
    hwgen.placement.Placement

    Raises
    ------
    BuildError, PlanError, ToolError
    """
    verify_build(build)
    verilog_files(build)  # raises for a build without
    _refuse_without_dsp48e2(load_plan(build), lattice.DEVICE.family)
    found = placement.place(build, range(1, seeds + 1), progress)
    record(build, "placement", {"seeds": seeds}, asdict(found))
    refresh_report(build)
    return found


def pools(model: StrPath, *, sizes: Sequence[int] = SIZES, keep: int = 8, balances: Sequence[str] = BALANCES,
          progress: Callable[[str], None] | None = None) -> list[PoolChoice]:
    """Pattern pools for a dense model: `hwgen pools`.

    Parameters
    ----------
    model : str or path
        A model directory, or a name on the hub.
    sizes : sequence of int
        Numbers of patterns.
    keep : int
        Weights of every 4x4 block that are kept, 1 to 16.
    balances : sequence of str
        Of "row", "bank" and "none", see :func:`compressor.patterns.balance_groups`.
    progress : callable(str), optional
        Called with the pool that is next.

    Returns
    -------
    list of hwgen.pool_choice.PoolChoice
        Retained energy is counted, LUTs are modelled.

    Raises
    ------
    PoolError
        If the model cannot be loaded, or there is no such pool.
    """
    return pool_choices(model_blocks(model), sizes=sizes, keep=keep, balances=balances, progress=progress)


def _refuse_without_dsp48e2(plan: Plan, family: str) -> None:
    if plan.spec.array.accumulation is Accumulation.PAIRED and family != "xcup":
        raise PlanError(f"this build pairs lanes in DSP48E2, which family {family} does not have; "
                        "synthesize it for xcup, or build it with --accumulation tree")
