"""Pipeline registers."""

from amaranth.hdl import Signal

PART_BITS = 17
"""Unsigned bits that a signed multiplier of 18 bits takes."""


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


def multiply(m, a, b, name):
    """``a * b`` of 2 clock cycles ago, exact, for a signed ``a`` of more than 18 bits.

    The products of its two parts are registered before they are added: several multipliers and their adder
    in one cycle would be the slowest path there is.
    """
    low = register(m, a[:PART_BITS] * b, f"{name}_low")
    high = register(m, a[PART_BITS:].as_signed() * b, f"{name}_high")
    return register(m, low + (high << PART_BITS), name)
