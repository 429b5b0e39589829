"""Turns numbers into bars, meters and plots."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwgen.report.parts import Bar, Chart, Line, Meter, Pattern, Plot, Point, Segment
from hwgen.report.theme import SERIES

if TYPE_CHECKING:
    from hwgen.design_points import Evaluation

WIDTH, HEIGHT, TOP, RIGHT, BOTTOM = 680, 380, 16, 664, 326
"""Of a plot, and of the frame inside it: pixels."""

Mark = tuple["Evaluation", str, str]
"""A design point, its color and its name."""

LABELLED = 150
"""Pixels that a sloping roof needs for its label; a shorter one lies above all points and is left out."""


def percent(share):
    """A share as CSS writes it.

    >>> percent(1 / 3)
    '33.333'
    """
    return f"{100 * share:.3f}".rstrip("0").rstrip(".")


def stacked(rows, origin, unit="cycles"):
    """Chart of rows (name, {part: amount}); all rows have the same parts, in the order of their colors."""
    names = list(rows[0][1])
    colors = dict(zip(names, SERIES, strict=False))
    longest = max(sum(parts.values()) for _, parts in rows) or 1
    bars = []
    for name, parts in rows:
        total = sum(parts.values())
        segments = tuple(Segment(part, colors[part], percent(amount / total),
                                 f"{part}: {amount:,} {unit}, {100 * amount / total:.1f} %")
                         for part, amount in parts.items() if amount)
        bars.append(Bar(name, f"{total:,}", percent(total / longest), segments,
                        f"{name}: {total:,} {unit}; " + "; ".join(one.text for one in segments)))
    whole = {part: sum(parts[part] for _, parts in rows) for part in names}
    total = sum(whole.values())
    legend = tuple(Segment(part, colors[part], percent(amount / total), f"{100 * amount / total:.1f} %")
                   for part, amount in whole.items() if amount)
    return Chart(tuple(bars), legend, origin)


def meter(name, used, has, usable, origin):
    """How much of what a device has is used; without a device only the number."""
    if not has:
        return Meter(name, f"{used:,}", "", "", origin)
    return Meter(name, f"{used:,} of {has:,} ({100 * used / has:.1f} %)", percent(min(1, used / has)),
                 percent(usable), origin, over=used > usable * has)


def patterns(masks, blocks):
    """The patterns of a pool, each with the share of the blocks that use it."""
    total, most = sum(blocks) or 1, max(blocks, default=0) or 1
    return tuple(
        Pattern(index, tuple((place % 4, place // 4) for place, one in enumerate(mask) if one),
                f"{100 * count / total:.1f} %", percent(count / most),
                f"pattern {index}: rows {' '.join(''.join(map(str, mask[r:r + 4])) for r in (0, 4, 8, 12))}; "
                f"{count:,} blocks")
        for index, (mask, count) in enumerate(zip(masks, blocks, strict=True)))


class _Logarithmic:
    """Places numbers of an axis between two pixels."""

    def __init__(self, low, high, first, last):
        self.low, self.first = math.log10(low), first
        self.scale = (last - first) / (math.log10(high) - self.low)

    def __call__(self, value):
        return round(self.first + (math.log10(value) - self.low) * self.scale, 1)


def roofline(data, layers, colors):
    """Roofline: MACs a byte of memory traffic to the right, MACs a cycle upwards, both logarithmic.

    Parameters
    ----------
    data : dict
        ``roofline`` of :func:`hwgen.report.summary.summarize`.
    layers : list of dict
        Those without useful MACs, from which every block was pruned, have no mark.
    colors : dict of str to str
        Color of each role.

    Returns
    -------
    Plot
    """
    peak, ridge = data["macs_per_cycle"], data["ridge_macs_per_byte"]
    layers = [layer for layer in layers if layer["macs_per_cycle"]]
    marks = [one for one in (*layers, data["whole"]) if one["macs_per_cycle"]]
    intensities = [*(one["macs_per_byte"] for one in marks), ridge]
    rates = [one["macs_per_cycle"] for one in marks]
    low_x, high_x = min(intensities) / 3, max(intensities) * 3
    low_y, high_y = min([*rates, peak / 4]) / 1.5, peak * 1.6
    left = _left(high_y)
    x, y = _Logarithmic(low_x, high_x, left, RIGHT), _Logarithmic(low_y, high_y, BOTTOM, TOP)
    lines = [*_grid(low_x, high_x, x, TOP, BOTTOM, upright=True),
             *_grid(low_y, high_y, y, left, RIGHT, upright=False)]
    roofs = [("bus", data["bus_bytes_per_cycle"]), ("DRAM", data["dram_bytes_per_cycle"])]
    for name, slope in sorted(((n, s) for n, s in roofs if s), key=lambda one: one[1]):
        begin, end = max(low_x, low_y / slope), min(high_x, peak / slope)
        if begin >= end or x(end) - x(begin) < LABELLED:
            continue
        angle = -math.degrees(math.atan2(y(begin * slope) - y(end * slope), x(end) - x(begin)))
        middle = math.sqrt(begin * end)
        lines.append(Line(x(begin), y(begin * slope), x(end), y(end * slope), "roof",
                          f"{name}: {slope:g} bytes a cycle", x(middle), y(middle * slope) - 6,
                          round(angle, 1)))
    lines.append(Line(x(min(high_x, max(low_x, ridge))), y(peak), RIGHT, y(peak), "roof",
                      f"compute: {peak:,} MACs a cycle", RIGHT - 4, y(peak) - 6, 0, "end"))
    points = [Point(x(layer["macs_per_byte"]), y(layer["macs_per_cycle"]), colors[layer["role"]],
                    f"{layer['name']}: {layer['macs_per_byte']:.1f} MACs a byte, "
                    f"{layer['macs_per_cycle']:.1f} MACs a cycle") for layer in layers]
    bound = "memory" if data["whole"]["macs_per_byte"] < ridge else "compute"
    return Plot(WIDTH, HEIGHT, left, BOTTOM, tuple(lines), tuple(points),
                "useful MACs per byte of memory traffic", "useful MACs per cycle", HEIGHT - 10,
                f"Roofline: the ridge is at {ridge:.1f} MACs a byte; the program has "
                f"{data['whole']['macs_per_byte']:.1f}, so it is bound by {bound}")


def scatter(marks: Sequence[Mark], key: str, title: str) -> Plot:
    """Cycles to the right and a resource upwards, both logarithmic: a mark for each point that fits.

    Parameters
    ----------
    marks : sequence of (hwgen.design_points.Evaluation, str, str)
        Points that fit with their colors and names, those drawn last on top.
    key, title : str
        Field of the resource, and its name.
    """
    values = [max(1, getattr(one, key)) for one, _, _ in marks]
    x, low_x, high_x, left = _cycles_axis(marks, max(values) * 1.15)
    low_y, high_y = min(values) / 1.15, max(values) * 1.15
    y = _Logarithmic(low_y, high_y, BOTTOM, TOP)
    lines = [*_grid(low_x, high_x, x, TOP, BOTTOM, upright=True),
             *_grid(low_y, high_y, y, left, RIGHT, upright=False)]
    points = tuple(Point(x(one.cycles), y(amount), color, f"{_mark_label(one, name)}, {amount:,} {title}")
                   for (one, color, name), amount in zip(marks, values, strict=True))
    return Plot(WIDTH, HEIGHT, left, BOTTOM, tuple(lines), points, "cycles a sequence", title,
                HEIGHT - 10, f"{title} against cycles of {len(marks)} design points")


def quality_plot(marks: Sequence[Mark], qualities: Sequence[float], title: str) -> Plot:
    """Cycles to the right, logarithmic, and a share from 0 to 1 upwards: a mark for each point.

    Parameters
    ----------
    marks
        As for :func:`scatter`.
    qualities : sequence of float
        0 to 1, one for each mark.
    title : str
        What they are.
    """
    spread = max(max(qualities) - min(qualities), 0.01)
    low_y, high_y = max(0.0, min(qualities) - 0.1 * spread), max(qualities) + 0.1 * spread
    x, low_x, high_x, left = _cycles_axis(marks, 100)
    step = next(step for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if spread / step <= 8)

    def y(value):
        return round(BOTTOM - (value - low_y) * (BOTTOM - TOP) / (high_y - low_y), 1)

    lines = [*_grid(low_x, high_x, x, TOP, BOTTOM, upright=True)]
    for tick in range(math.ceil(low_y / step), math.floor(high_y / step) + 1):
        at = y(tick * step)
        lines.append(Line(left, at, RIGHT, at, "grid", f"{tick * step:.3g}", left - 6, at + 4, 0, "end"))
    points = tuple(Point(x(one.cycles), y(quality), color, f"{_mark_label(one, name)}, {quality:.4f} {title}")
                   for (one, color, name), quality in zip(marks, qualities, strict=True))
    return Plot(WIDTH, HEIGHT, left, BOTTOM, tuple(lines), points, "cycles a sequence", title,
                HEIGHT - 10, f"{title} against cycles of {len(marks)} design points")


def _mark_label(one, name):
    return (f"{name}: R = {one.point.rows}, T = {one.point.lanes}, {one.point.bus_bits}-bit bus, "
            f"{one.point.pool}: {one.cycles:,} cycles")


def _cycles_axis(marks, highest):
    """The axis of cycles, its ends, and where it begins: beside labels of numbers up to ``highest``."""
    cycles = [one.cycles for one, _, _ in marks]
    low, high, left = min(cycles) / 1.15, max(cycles) * 1.15, _left(highest)
    return _Logarithmic(low, high, left, RIGHT), low, high, left


def _left(high):
    """Where a plot's frame begins: right of the axis' title and of its longest number."""
    return 30 + 7 * len(f"{high:,.0f}")


def _grid(low, high, place, first, last, *, upright):
    """Lines at 1, 2 and 5 times powers of ten."""
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for factor in (1, 2, 5):
            value = factor * 10.0**power
            if not low <= value <= high:
                continue
            at, text = place(value), f"{value:,.10g}"
            if upright:
                yield Line(at, first, at, last, "grid", text, at, last + 16)
            else:
                yield Line(first, at, last, at, "grid", text, first - 6, at + 4, 0, "end")
