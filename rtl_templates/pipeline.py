"""Small pieces of pipelines that several components are made of."""

from amaranth.hdl import Cat, Mux, Signal, signed

from rtl_templates.block_unit import select


def delay(m, value, cycles, name):
    """``value`` as it was ``cycles`` clock cycles ago; 0 after reset."""
    for cycle in range(cycles):
        register = Signal(value.shape(), name=f"{name}_{cycle}")
        m.d.sync += register.eq(value)
        value = register
    return value


def shift_right(m, value, digit, step, bits, name):
    """Registered ``value >> digit * step`` for a 2-bit digit; the caller knows that ``bits`` bits hold it."""
    result = Signal(signed(bits), name=name)
    m.d.sync += result.eq(select(digit, [value >> choice * step for choice in range(4)]))
    return result


def saturating_shift_right(m, value, digit, step, bits, name):
    """Registered ``value >> digit * step`` for a 2-bit digit, clipped to ``bits`` bits.

    The lower limit is -2**(bits - 1), so that further shifts and symmetric clipping give the same
    as without it.
    """
    shifted = select(digit, [value >> choice * step for choice in range(4)])
    kept = shifted[bits - 1:]
    fits = ~kept.any() | kept.all()
    limit = Cat((~value[-1]).replicate(bits - 1), value[-1])
    result = Signal(signed(bits), name=name)
    m.d.sync += result.eq(Mux(fits, shifted[:bits], limit))
    return result
