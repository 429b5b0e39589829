"""The page of an exploration, and the same as JSON."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hwgen.design_points import Evaluation
from hwgen.design_search import Exploration
from hwgen.devices import DEVICES
from hwgen.report.charts import scatter
from hwgen.report.origin import Origin
from hwgen.report.parts import Figure, Plot, Segment, Table

RESOURCES = (("luts", "LUTs"), ("dsps", "DSPs"), ("rams", "block RAMs"), ("bytes", "bytes of memory traffic"))
"""What is drawn against cycles: field and name."""

FRONT_HEADS = ("array", "bus", "pool", "sums", "cycles", "ms", "LUT", "FF", "DSP", "RAM", "URAM", "bytes",
               "command")
FRONT_NUMERIC = (False, True, False, False, *(True,) * 8, False)


@dataclass(frozen=True, kw_only=True)
class ExplorePage:
    """Variables of ``explore.html.j2``."""

    title: str
    subtitle: str
    figures: tuple[Figure, ...]
    legend_entries: tuple[Segment, ...]
    plots: tuple[tuple[str, Plot], ...]
    front: Table
    commands: tuple[tuple[str, str], ...] = ()
    variants: Table | None = None


def explore_data(found: Exploration, command: Callable[[Evaluation], str] | None = None) -> dict[str, Any]:
    """Plain values of an exploration: the front with its commands, the default, and the best two points.

    Parameters
    ----------
    found : hwgen.design_search.Exploration
    command : function of Evaluation, optional
        What makes a point; `hwgen build` with the exploration's bundle unless given.
    """
    clock_mhz = DEVICES[found.device].assumed_clock_mhz

    def values(one: Evaluation) -> dict[str, Any]:
        made_by = command(one) if command else one.point.command(found.model, "BUILD", found.device,
                                                                 found.tokens)
        return {**one.to_dict(), "command": made_by, "milliseconds": one.cycles / clock_mhz / 1e3}

    def against(one: Evaluation | None) -> dict[str, float] | None:
        if one is None or found.default is None:
            return None
        return {"cycles": one.cycles / found.default.cycles, "luts": one.luts / found.default.luts,
                "luts_x_cycles": one.luts * one.cycles / (found.default.luts * found.default.cycles)}

    return {"origin": {"cycles": Origin.MODELLED, "resources": Origin.MODELLED, "clock": Origin.ASSUMED},
            "device": found.device, "tokens": found.tokens, "assumed_clock_mhz": clock_mhz,
            "points": len(found.evaluations), "points_that_fit": sum(one.fits for one in found.evaluations),
            "default": found.default and values(found.default),
            "fastest": found.fastest and values(found.fastest),
            "fastest_against_default": against(found.fastest),
            "thriftiest": found.thriftiest and values(found.thriftiest),
            "thriftiest_against_default": against(found.thriftiest),
            "front": [values(one) for one in found.front]}


def explore_page(found: Exploration, data: dict[str, Any]) -> ExplorePage:
    """The context of the page; ``data`` is that of :func:`explore_data`."""
    marked = {one.point: ("c1", "Pareto front") for one in found.front}
    names = {"default": ("c4", "planner's default"), "thriftiest": ("c2", "least LUTs x cycles"),
             "fastest": ("c6", "fewest cycles")}
    figures, commands = [], []
    for key, (color, name) in names.items():
        one = getattr(found, key)
        if one is None:
            continue
        marked[one.point] = (color, name)
        figures.append(Figure(
            name, f"{one.cycles:,} cycles, {one.luts:,} LUT, {one.dsps:,} DSP", Origin.MODELLED,
            f"R = {one.point.rows}, T = {one.point.lanes}, {one.point.bus_bits}-bit bus, "
            f"{one.point.pool}{_against(data.get(f'{key}_against_default'))}"))
        commands.append((name, data[key]["command"]))
    fitting = [one for one in found.evaluations if one.fits]
    if found.default is not None and found.default.point not in {one.point for one in fitting}:
        fitting.append(found.default)
    marks = sorted(((one, *marked.get(one.point, ("c7", "point"))) for one in fitting),
                   key=lambda mark: mark[0].point in marked)
    return ExplorePage(
        title=f"Design space on {data['device']}",
        subtitle=f"{data['points']:,} points evaluated for {data['tokens']} tokens, "
                 f"{data['points_that_fit']:,} of them fit, {len(found.front)} on the Pareto front of "
                 "cycles, LUTs, DSPs, block RAMs and bytes",
        figures=tuple(figures),
        legend_entries=tuple(Segment(name, color, "", "") for color, name in (
            *names.values(), ("c1", "Pareto front"), ("c7", "other points that fit"))),
        plots=tuple((key, scatter(marks, key, title)) for key, title in RESOURCES),
        front=_front(data), commands=tuple(commands))


def _against(ratios: Mapping[str, float] | None) -> str:
    if not ratios:
        return ""
    return (f"; of the default: {ratios['cycles']:.3f} of its cycles, {ratios['luts']:.3f} of its LUTs, "
            f"{ratios['luts_x_cycles']:.3f} of LUTs x cycles")


def _front(data: Mapping[str, Any]) -> Table:
    return Table(front_caption(data), FRONT_HEADS, FRONT_NUMERIC,
                 tuple(front_row(one) for one in data["front"]))


def front_caption(data: Mapping[str, Any]) -> str:
    """Caption of a table of points."""
    return (f"Pareto front: cycles exact, resources modelled, milliseconds at an assumed "
            f"{data['assumed_clock_mhz']:g} MHz")


def front_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    """A point as texts, in the order of :data:`FRONT_HEADS`."""
    return (f"R = {one['point']['rows']}, T = {one['point']['lanes']}", str(one["point"]["bus_bits"]),
            one["point"]["pool"], one["point"]["accumulation"], f"{one['cycles']:,}",
            f"{one['milliseconds']:.3f}",
            *(f"{one[key]:,}" for key in ("luts", "ffs", "dsps", "rams", "urams", "bytes")), one["command"])
