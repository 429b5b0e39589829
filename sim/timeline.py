"""A picture of what each unit does over time: one row a unit, cycles to the right.

Drawn from busy times observed in simulation. A column of the picture is many cycles; it is as dark as the
unit was busy in them.
"""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from compressor.intops.encoder import LINEAR_PATHS
from compressor.text_file import write_text

ROWS = ("array", "weight stream", "tile loader", "keys", "softmax", "transpose", "layernorm", "load", "store")
WAITS = ("weights", "tables", "layernorm", "softmax", "keys", "transpose", "load", "store", "other")
"""What the array can wait for; of several units that are busy while it does nothing, the first."""
COLORS = {
    "q": "#4c78a8", "k": "#72a0cf", "v": "#9ecae9", "scores": "#54a24b", "context": "#88d27a", "o": "#31567e",
    "ffn1": "#f58518", "ffn2": "#c45a00", "keys": "#b279a2", "softmax": "#7b4f9d", "transpose": "#d6a5c9",
    "layernorm": "#e45756", "load": "#439894", "store": "#83bcb6", "weights": "#7f7f7f", "tables": "#4d4d4d",
    "other": "#c9c1bd"}
"""By operation, or by unit."""

LEFT, WIDTH, ROW, GAP = 110, 1080, 18, 4
"""Sizes in pixels: margin for the names, width of the plot, height of a row, and the space between rows."""

_LABEL_PIXELS = 6.2  # width of a character, about
_LAYER = re.compile(r"^(.*?\.\d+)[.:]")
_ROLES = {path: role for role, path in LINEAR_PATHS.items()}


@dataclass(frozen=True)
class Bar:
    """A rectangle: pixels from the left of the plot, width, color and opacity (0 to 1)."""

    x: int
    width: int
    color: str
    opacity: float


@dataclass(frozen=True)
class Label:
    """A text centred at a pixel."""

    x: float
    text: str


@dataclass(frozen=True)
class Row:
    """A unit of a panel."""

    name: str
    y: int
    bars: tuple[Bar, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Panel:
    """A range of cycles, drawn across the whole width."""

    title: str
    y: int
    height: int
    rows: tuple[Row, ...]
    ticks: tuple[Label, ...]
    legend: tuple[Label, ...]


def write_timeline(times, path, *, cycles=None):
    """Draw busy times as an SVG file (aside, then renamed).

    Parameters
    ----------
    times : list of sim.activity.BusyTime
    path : Path
    cycles : (int, int), optional
        First cycle, and the one behind the last. Unless given, the first encoder layer is drawn, and below it
        two of its heads.
    """
    windows = [("", *cycles)] if cycles else _windows(times)
    panels, y = [], 8
    for what, begin, end in windows:
        panels.append(_panel(times, what, begin, end, y))
        y += panels[-1].height
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                                     autoescape=True, keep_trailing_newline=True)
    template = environment.from_string((Path(__file__).parent / "timeline.svg.j2").read_text())
    write_text(path, template.render(panels=panels, left=LEFT, width=WIDTH, row=ROW, height=y + 4))


def waits(times, begin, end):
    """What the array waited for in cycles ``begin`` to ``end - 1``, exactly.

    Parameters
    ----------
    times : list of sim.activity.BusyTime
    begin, end : int

    Returns
    -------
    int8 array, shape (end - begin,)
        Index into :data:`WAITS`; -1 where the array works.
    """
    def mark(found, value):
        for time in found:
            code[max(0, time.begin - begin):max(0, time.end - begin)] = value

    units = {unit: [time for time in times if time.unit == unit] for unit in ROWS}
    code = np.full(end - begin, WAITS.index("other"), np.int8)
    for unit in reversed(WAITS):
        mark(units.get(unit, ()), WAITS.index(unit))
    # Where a tile that is waited for comes from: behind the header of tiles made on chip, not from memory.
    loads = units["tile loader"]
    memory = np.full(end - begin, WAITS.index("weights"), np.int8)
    for time, after in zip(loads, [*loads[1:], None], strict=True):
        if time.step == "tables":
            memory[max(0, time.begin + 1 - begin):max(0, time.end - begin)] = WAITS.index("tables")
        elif _on_chip(time):
            last = after.begin + 1 if after and _on_chip(after) else time.end
            memory[max(0, time.begin + 1 - begin):max(0, last - begin)] = -1
    waiting = np.zeros(end - begin, bool)
    for time in times:
        if time.unit == "array waits":
            waiting[max(0, time.begin - begin):max(0, time.end - begin)] = True
    code = np.where(waiting & (memory >= 0), memory, code)
    for time in units["array"]:
        code[max(0, time.begin - begin):max(0, time.end - begin)] = -1
    return code


def _on_chip(time):
    return time.step == "attention" or ": " in time.step


def _windows(times):
    """The first encoder layer, and two of its heads: (title, begin, end)."""
    named = [(match.group(1), time) for time in times if (match := _LAYER.match(time.step))]
    if not named:
        return [("whole run", 0, max(time.end for time in times))]
    layer = [time for name, time in named if name == named[0][0] and not time.sequence]
    computed = [time for time in layer if time.unit not in ("weight stream", "tile loader", "dispatch")]
    begin, end = min(time.begin for time in computed), max(time.end for time in computed)
    windows = [(f"{named[0][0]}, all of it", begin, end)]
    heads = [[time for time in layer if f": head {head}, " in time.step and time.unit != "dispatch"]
             for head in (1, 2)]
    if all(heads):
        windows.append(("two of its heads", min(time.begin for time in heads[0] if "values" not in time.step),
                        max(time.end for time in heads[1])))
    return windows


def _panel(times, what, begin, end, top):
    times = [time for time in times if time.begin < end and time.end > begin]
    code, detailed = waits(times, begin, end), end - begin < 100 * WIDTH
    y, rows = top + 44, []
    for unit in ROWS:
        found = [time for time in times if time.unit == unit]
        if found:
            rows.append(Row(unit, y, _bars(found, begin, end), _labels(found, begin, end, detailed)))
            y += ROW + GAP
    idle = [(name, begin + int(first), begin + int(last)) for name in WAITS
            for first, last in _stretches(code == WAITS.index(name))]
    bars = _shade([(COLORS[name], *cycles) for name, *cycles in idle], begin, end)
    rows.append(Row("array waits for", y, bars, ()))
    y += ROW + GAP
    busy = int((code < 0).sum())
    legend = [(name, int((code == index).sum())) for index, name in enumerate(WAITS)]
    legend = [(name, count) for name, count in legend if count]
    title = (f"{what}: " if what else "") + (f"{end - begin:,} cycles, the array works in "
                                             f"{100 * busy / (end - begin):.1f} % of them")
    return Panel(title=title, y=top, height=y + 52 - top, rows=tuple(rows), ticks=_ticks(begin, end),
                 legend=tuple((COLORS[name], f"{name} {100 * count / (end - begin):.1f} %")
                              for name, count in legend))


def _stretches(mask):
    """Pairs (first, behind the last) of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2)


def _shade(slices, begin, end):
    """Bars of (color, begin, end): the color with most of a pixel's cycles, as dark as the pixel is full."""
    scale = WIDTH / (end - begin)
    cover = {}
    for color, first, last in slices:
        a, b = max(0.0, (first - begin) * scale), min(float(WIDTH), (last - begin) * scale)
        lane = cover.setdefault(color, np.zeros(WIDTH + 1))
        i, j = int(a), int(b)
        if i == j:
            lane[i] += b - a
        else:
            lane[i] += i + 1 - a
            lane[i + 1:j] += 1
            lane[j] += b - j
    if not cover:
        return ()
    names, lanes = list(cover), np.stack(list(cover.values()))[:, :WIDTH]
    best = lanes.argmax(axis=0)
    level = np.ceil(np.minimum(lanes.sum(axis=0), 1) * 4 - 1e-6).astype(int)
    cuts = [0, *(np.flatnonzero(np.diff(best) | np.diff(level)) + 1).tolist(), WIDTH]
    return tuple(Bar(a, b - a, names[best[a]], level[a] / 4) for a, b in itertools.pairwise(cuts)
                 if level[a])


def _bars(found, begin, end):
    return _shade([(_color(time), time.begin, time.end) for time in found], begin, end)


def _color(time):
    return COLORS.get(time.unit) or COLORS.get(_operation(time.step), COLORS["other"])


def _operation(step):
    """Operation of a step: the role of a linear layer, or what comes last in its name."""
    role = next((role for path, role in _ROLES.items() if step.endswith(f".{path}")), None)
    return role or step.rpartition(", ")[2].rpartition(": ")[2]


def _labels(found, begin, end, detailed):
    """Names of stretches of the same work, where they fit."""
    scale, groups = WIDTH / (end - begin), []
    for time in found:
        head = re.search(r": head (\d+), (.*)", time.step)
        if head and not detailed:
            text = "attention"
        else:
            text = f"{head.group(2)}, head {head.group(1)}" if head else _operation(time.step)
        if groups and groups[-1][0] == text:
            groups[-1][1].append((time.begin, time.end))
        else:
            groups.append((text, [(time.begin, time.end)]))
    labels = []
    for text, slices in groups:
        first, last = slices[0][0], slices[-1][1]
        if 2 * sum(b - a for a, b in slices) < last - first:  # mostly gaps
            first, last = max(slices, key=lambda one: one[1] - one[0])
        a, b = max(0, first - begin) * scale, min(WIDTH, (last - begin) * scale)
        if b - a > _LABEL_PIXELS * len(text) + 4:
            labels.append(Label(round((a + b) / 2, 1), text))
    return tuple(labels)


def _ticks(begin, end):
    """About eight round numbers of cycles, counted from the panel's beginning."""
    span = end - begin
    step = 10 ** int(np.log10(span / 8))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 12)
    return tuple(Label(round(cycle * WIDTH / span, 1), f"{cycle:,}") for cycle in range(0, span + 1, step))
