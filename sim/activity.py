"""What the units did in a run: where its cycles went, and when each unit was busy.

Both are observed in simulation, on the wire of :mod:`rtl_templates.activity`; nothing here is predicted.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from rtl_templates.activity import bit
from rtl_templates.prediction import LocalPacket, TablePacket
from rtl_templates.program_format import Opcode

TRACKS = {
    "array": (("array", "drain_wait"), (), ("tile_end",)),
    "array waits": (("weight_wait",), (), ()),
    "tile loader": (("loading", "packet"), ("packet",), ()),
    "weight stream": (("beat",), (), ()),
    "keys": (("keys",), (), ()),
    "softmax": (("softmax",), (), ()),
    "transpose": (("transpose",), (), ()),
    "layernorm": (("norm",), (), ()),
    "load": (("load",), (), ()),
    "store": (("store",), (), ()),
    "dispatch": (("dispatched",), ("dispatched",), ("dispatched",)),
}
"""Units whose busy times a bench can write down: the bits of the activity wire that say a unit is busy, that
begin another busy time, and that end one. A busy time of the array is a tile, of the tile loader a packet, of
the weight stream an unbroken run of beats, of the other units a descriptor; ``array waits`` is a product that
waits for a tile."""


BREAKDOWN = {
    "array": "the array multiplies",
    "drain": "the array waits for results to leave",
    "weights": "waits for weights from memory",
    "tables": "waits for tables, read between the weights",
    "keys": "waits for keys, made into tiles",
    "softmax": "waits for softmax",
    "layernorm": "waits for LayerNorm",
    "transpose": "waits for a transposition",
    "load": "waits for inputs",
    "store": "waits for outputs",
    "results": "waits for the last results of a product",
    "dispatch": "start, dispatch and end",
}
"""Where the cycles of a run can go, and what it means. Every cycle counts once."""

_UNITS = {"norm": "layernorm", **{name: name for name in ("softmax", "keys", "transpose", "load", "store",
                                                         "results")}}


def category(state):
    """Where a cycle goes: a key of :data:`BREAKDOWN`.

    A cycle in which the array issues nothing and no product waits for a tile goes to the busy unit, of
    several the first of LayerNorm, softmax, keys, transposition, load, store.

    Parameters
    ----------
    state : int
        States of the activity wire.

    Returns
    -------
    str

    >>> category(1 << bit("running") | 1 << bit("weight_wait") | 1 << bit("local") | 1 << bit("softmax"))
    'softmax'
    """
    def on(name):
        return state >> bit(name) & 1

    if on("array"):
        return "array"
    if on("drain_wait"):
        return "drain"
    if on("weight_wait") and not on("local"):
        return "tables" if on("table") else "weights"
    if on("weight_wait"):
        return "softmax" if on("softmax") else "keys"
    return next((name for unit, name in _UNITS.items() if on(unit)), "dispatch")


def cycle_breakdown(reports):
    """Where the cycles went, summed over runs: dict by the keys of :data:`BREAKDOWN`.

    Parameters
    ----------
    reports : iterable of sim.harness.RunReport
    """
    found = dict.fromkeys(BREAKDOWN, 0)
    for report in reports:
        for state, cycles in report.states:
            found[category(state)] += cycles
    return found


@dataclass(frozen=True, kw_only=True)
class BusyTime:
    """A unit was busy in cycles ``begin`` to ``end - 1`` of the run.

    Parameters
    ----------
    unit : str
        Key of :data:`TRACKS`.
    begin, end : int
        Clock cycles of the run.
    step : str
        What on: a linear layer's name, or "<encoder layer>: <operation>".
    detail : str
        Which part of it, for example "tile 3 of 48"; may be empty.
    sequence : int
        Which sequence of the run.
    """

    unit: str
    begin: int
    end: int
    step: str
    detail: str = ""
    sequence: int = 0


def read_busy_times(path, plan, program, items, sequences=1):
    """What the bench wrote down, with the names of layers and operations.

    Parameters
    ----------
    path : Path
        Of :func:`sim.harness.run_harness`.
    plan : hwgen.plan.Plan
    program : hwgen.program.Program
    items : sequence
        The weight stream, as for :func:`rtl_templates.prediction.predict`.
    sequences : int

    Returns
    -------
    list of BusyTime, by beginning

    Raises
    ------
    ValueError
        If the bench saw a unit busy more or less often than the program asks for.
    """
    tracks = list(TRACKS)
    events = np.fromfile(path, "<u8").reshape(-1, 4).astype(np.int64)
    seen = {unit: events[events[:, 0] == index, 1:] for index, unit in enumerate(tracks)}
    work = _work(plan, program, items)
    beats = np.cumsum([0, *(beats for _, _, beats in work["tile loader"])])
    times = []
    for unit, found in seen.items():
        if unit == "array waits":
            names = [("waits for a tile", "", 0)] * len(found)
        elif unit == "weight stream":
            # A run of beats is named after the packet of its first.
            moved = np.cumsum([0, *(found[:, 1] - found[:, 0])])
            sequence, beat = np.divmod(moved[:-1], max(1, beats[-1]))
            packets = np.searchsorted(beats, beat, side="right") - 1
            names = [(*work["tile loader"][packet][:2], int(number))
                     for packet, number in zip(packets, sequence, strict=True)]
            if moved[-1] != sequences * beats[-1]:
                raise ValueError(f"weight stream: it has {sequences * beats[-1]} beats, "
                                 f"the bench saw {moved[-1]}")
        else:
            names = [(*one[:2], number) for number in range(sequences) for one in work[unit]]
        if len(names) != len(found):
            raise ValueError(f"{unit}: the program asks for {len(names)} busy times, "
                             f"the bench saw {len(found)}")
        times += [BusyTime(unit=unit, begin=int(begin), end=int(end), step=step, detail=detail,
                           sequence=number)
                  for (begin, end, _), (step, detail, number) in zip(found, names, strict=True)]
    return sorted(times, key=lambda time: (time.begin, tracks.index(time.unit)))


def _work(plan, program, items):
    """What each unit is asked for in a sequence, in order: (step, detail, beats of the weight stream)."""
    units = {**{opcode: opcode.name.lower() for opcode in Opcode}, Opcode.NORM: "layernorm"}
    steps = [(descriptor, step or f"{descriptor.opcode.name.lower()} {descriptor.offset:#x}")
             for descriptor, step in zip(program.descriptors, program.steps, strict=True)]
    work = {unit: [] for unit in TRACKS}
    work["dispatch"] = [(step, descriptor.opcode.name, 0) for descriptor, step in steps]
    for descriptor, step in steps:
        if descriptor.opcode is Opcode.MATMUL:
            work["array"] += [(step, f"tile {tile + 1} of {descriptor.tiles}", 0)
                              for tile in range(descriptor.tiles)]
        elif descriptor.opcode is not Opcode.END:
            work[units[descriptor.opcode]].append((step, "", 0))
    tiles = iter(work["array"])
    for item in items:
        if isinstance(item, TablePacket):
            work["tile loader"].append(("tables", item.table.name.lower(), 1 + item.beats))
        elif isinstance(item, LocalPacket):
            work["tile loader"].append(("attention", f"{item.tiles} tiles made on chip follow", 1))
            work["tile loader"] += itertools.islice(tiles, item.tiles)
        else:
            work["tile loader"].append((*next(tiles)[:2], plan.spec.tiles.beats(item[1])))
    return work
