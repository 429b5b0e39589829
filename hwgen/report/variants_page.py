"""The page of an exploration of several bundles, and the same as JSON."""

import functools
from collections.abc import Mapping
from typing import Any

from hwgen.report.charts import quality_plot, scatter
from hwgen.report.explore_page import (
    FRONT_HEADS,
    FRONT_NUMERIC,
    RESOURCES,
    ExplorePage,
    explore_data,
    front_caption,
    front_row,
)
from hwgen.report.parts import Segment, Table
from hwgen.report.theme import SERIES
from hwgen.variants import VariantFront

COLORS, OTHERS = SERIES[:-1], SERIES[-1]


def variants_data(found: VariantFront) -> dict[str, Any]:
    """Plain values: each variant's quality with its own exploration, and the common front.

    Parameters
    ----------
    found : hwgen.variants.VariantFront
    """
    variants = []
    for variant, own in found.pairs:
        values = explore_data(own, functools.partial(found.command, variant))
        variants.append({"name": variant.name, "quality": variant.quality, "kept": variant.kept, **values})
    first = variants[0]
    return {**{key: first[key] for key in ("origin", "device", "tokens", "assumed_clock_mhz")},
            "measure": found.measure, "points": sum(one["points"] for one in variants),
            "points_that_fit": sum(one["points_that_fit"] for one in variants), "variants": variants,
            "front": [{"variant": variant.name, "quality": variant.quality, **one.to_dict(),
                       "milliseconds": one.cycles / first["assumed_clock_mhz"] / 1e3,
                       "command": found.command(variant, one)} for variant, one in found.front]}


def quality_text(quality: float | None) -> str:
    """A quality as a text of a table."""
    return "unknown" if quality is None else f"{quality:.4f}"


def variants_page(found: VariantFront, data: dict[str, Any]) -> ExplorePage:
    """The context of the page; ``data`` is that of :func:`variants_data`."""
    names = [variant.name for variant in found.variants]
    colors = {name: COLORS[at] if at < len(COLORS) else OTHERS for at, name in enumerate(names)}
    marks = [(one, colors[variant.name], variant.name) for variant, one in found.front]
    entries = [Segment(name, colors[name], "", "") for name in names[:len(COLORS)]]
    if len(names) > len(COLORS):
        entries.append(Segment("the others", OTHERS, "", ""))
    plots = [(key, scatter(marks, key, title)) for key, title in RESOURCES]
    rated = [(own.fastest, colors[variant.name], variant.name, variant.quality)
             for variant, own in found.pairs if own.fastest and variant.quality is not None]
    if rated:
        plots.insert(0, ("quality", quality_plot([mark[:3] for mark in rated], [mark[3] for mark in rated],
                                                 str(found.measure))))
    return ExplorePage(
        title=f"Design space on {data['device']}: {len(names)} models",
        subtitle=f"{data['points']:,} points evaluated for {data['tokens']} tokens, "
                 f"{data['points_that_fit']:,} of them fit, {len(found.front)} on the Pareto front of "
                 "cycles, LUTs, DSPs, block RAMs, bytes" + (f" and {found.measure}" if found.measure else ""),
        figures=(), legend_entries=tuple(entries), plots=tuple(plots),
        front=Table(front_caption(data), ("model", "quality", *FRONT_HEADS), (False, True, *FRONT_NUMERIC),
                    tuple((one["variant"], quality_text(one["quality"]), *front_row(one))
                          for one in data["front"])),
        variants=_variants(data))


def _variants(data: Mapping[str, Any]) -> Table:
    def best(one: Mapping[str, Any], key: str) -> tuple[str, str]:
        if one[key] is None:
            return "none fits", "none fits"
        return f"{one[key]['cycles']:,}", f"{one[key]['luts']:,}"

    heads = ("model", "quality", "kept",
             *(head for name in ("default", "fastest", "thrifty") for head in (f"{name}: cycles", "LUT")))
    rows = tuple((one["name"], quality_text(one["quality"]), f"{100 * one['kept']:.1f} %",
                  *(text for key in ("default", "fastest", "thriftiest") for text in best(one, key)))
                 for one in data["variants"])
    return Table(f"quality: {data['measure'] or 'measured by no export'}", heads,
                 (False, *(True,) * (len(heads) - 1)), rows)
