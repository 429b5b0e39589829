"""Pipeline registers."""

from amaranth.hdl import Signal


def register(m, value, name, *, shape=None, reset=False):
    """Register one value; returns the registered signal.

    Data is not reset, only what says whether data counts (``reset=True``): resets of wide registers cost
    routing, and take the register's reset pin from the logic that could use it.
    """
    signal = Signal(value.shape() if shape is None else shape, name=name, reset_less=not reset)
    m.d.sync += signal.eq(value)
    return signal


def delay(m, value, cycles, name, *, reset=False):
    """Value of ``cycles`` clock cycles ago."""
    for cycle in range(cycles):
        value = register(m, value, f"{name}_{cycle}", reset=reset)
    return value
