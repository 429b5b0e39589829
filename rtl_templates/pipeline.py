"""Pipeline registers."""

from amaranth.hdl import Signal

OWN_COPY = "own_copy"
"""Attribute of registers that are not to be merged with equal ones."""

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


def own_copy(m, value, name):
    """Value of the last cycle, in a register that its reader shares with no other.

    Equal registers are merged by synthesis; then one drives multipliers that lie far apart. The attribute
    is for the open flow, whose script keeps these registers. Vendors' tools, which do not know it, move
    such registers into the multipliers.
    """
    signal = Signal(value.shape(), name=name, reset_less=True, attrs={OWN_COPY: 1})
    m.d.sync += signal.eq(value)
    return signal


def multiply(m, a, b, name):
    """``a * b`` of 2 clock cycles ago, exact, for a signed ``a`` of more than 18 bits.

    The products of its two parts are registered before they are added: several multipliers and their adder
    in one cycle would be the slowest path there is.
    """
    low = register(m, a[:PART_BITS] * b, f"{name}_low")
    high = register(m, a[PART_BITS:].as_signed() * b, f"{name}_high")
    return register(m, low + (high << PART_BITS), name)
