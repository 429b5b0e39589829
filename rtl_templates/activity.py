"""What the accelerator does in a cycle, as one wire that benches read.

Nothing in the hardware reads it, so it costs nothing there.
"""

from amaranth.lib import data

INDEX_BITS = 12
"""Width of a descriptor's index: as many as the profile window shows."""

STATES = ("running", "array", "drain_wait", "weight_wait", "results", "load", "store", "keys", "softmax",
          "transpose", "norm", "local", "table")
"""One bit each, in the lowest bits. ``running``: between start and done. ``array``: a K-step is issued.
``drain_wait``: a K-step waits for results to leave. ``weight_wait``: a product waits for its tile.
``results``: results are on their way. ``load`` to ``norm``: that unit is busy. ``local``: the loader takes
tiles that are made on chip. ``table``: it takes a table."""

MARKS = ("loading", "packet", "tile_end", "beat", "dispatched")
"""One bit each. ``loading``: the loader is inside a packet. ``packet``: it takes a header. ``tile_end``: the
last K-step of a tile. ``beat``: a beat of the weight stream arrives. ``dispatched``: descriptor ``index``
goes to its unit."""

activity_layout = data.StructLayout({**dict.fromkeys((*STATES, *MARKS), 1), "index": INDEX_BITS})
"""The wire ``activity`` of the top level."""


def bit(name):
    """Place of a state or mark in the wire.

    >>> bit("running"), bit("index")
    (0, 18)
    """
    return activity_layout[name].offset


def connect_activity(m, activity, *, sequencer, loader, controller, results, weights, load, store, units):
    """Drive the wire.

    Parameters
    ----------
    m : Module
    activity : Signal(activity_layout)
    sequencer, loader, controller, results, weights : components of the accelerator
    load, store : Value
        These units are busy.
    units : EncoderUnits or None
    """
    state = {"running": sequencer.running, "array": controller.issue.valid,
             "drain_wait": controller.drain_wait, "weight_wait": controller.weight_wait,
             "results": ~results.idle, "load": load, "store": store,
             "local": loader.state.local, "table": loader.state.table}
    if units is not None:
        state |= {name: ~units.idle[i] for i, name in enumerate(("keys", "softmax", "transpose", "norm"))}
    marks = {"loading": loader.state.loading, "packet": loader.state.packet,
             "tile_end": controller.release, "beat": weights.r.valid & weights.r.ready,
             "dispatched": sequencer.dispatched, "index": sequencer.index}
    m.d.comb += [activity[name].eq(value) for name, value in {**state, **marks}.items()]
