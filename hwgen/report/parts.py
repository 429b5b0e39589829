"""What a page is made of: frozen values with every number already a text or a coordinate."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A number with its name and its origin; ``note`` says what it is compared with."""

    label: str
    value: str
    origin: str
    note: str = ""


@dataclass(frozen=True)
class Segment:
    """A part of a bar: its share in percent, as CSS wants it."""

    name: str
    color: str
    percent: str
    text: str


@dataclass(frozen=True)
class Bar:
    """A stacked bar; ``width`` is its whole length in percent of the longest."""

    name: str
    text: str
    width: str
    segments: tuple[Segment, ...]
    label: str


@dataclass(frozen=True)
class Chart:
    """Stacked bars with one legend."""

    bars: tuple[Bar, ...]
    legend: tuple[Segment, ...]
    origin: str


@dataclass(frozen=True)
class Meter:
    """An amount of what a device has; ``mark`` is the share that a plan may take.

    ``percent`` is empty without a device."""

    name: str
    text: str
    percent: str
    mark: str
    origin: str
    over: bool = False


@dataclass(frozen=True)
class Table:
    """Texts in rows; ``numeric`` says which columns are numbers."""

    caption: str
    heads: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Pattern:
    """A pattern of the pool: its kept cells (x, y) and how many blocks use it."""

    number: int
    cells: tuple[tuple[int, int], ...]
    text: str
    percent: str
    label: str


@dataclass(frozen=True)
class Mask:
    """Pictures of one layer's weights."""

    name: str
    text: str
    whole: str
    corner: str
    width: int
    height: int
    wide: bool
    label: str


@dataclass(frozen=True)
class MaskGroup:
    """The layers of one encoder layer."""

    name: str
    masks: tuple[Mask, ...]


@dataclass(frozen=True)
class Point:
    """A mark of a scatter plot."""

    x: float
    y: float
    color: str
    label: str


@dataclass(frozen=True)
class Line:
    """A straight line of a plot; ``text`` is written at (``text_x``, ``text_y``), turned by ``angle``."""

    x1: float
    y1: float
    x2: float
    y2: float
    kind: str
    text: str = ""
    text_x: float = 0
    text_y: float = 0
    angle: float = 0
    anchor: str = "middle"


@dataclass(frozen=True)
class Plot:
    """A plot in a box of ``width`` x ``height``; its frame begins at ``left`` and ends at ``bottom``."""

    width: int
    height: int
    left: int
    bottom: int
    lines: tuple[Line, ...]
    points: tuple[Point, ...]
    x_title: str
    y_title: str
    title_y: int
    label: str


@dataclass(frozen=True)
class Missing:
    """What has not run, and what runs it."""

    what: str
    command: str
