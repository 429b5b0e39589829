"""Variable right shifts in registered steps of one base-4 digit of the distance each."""

from amaranth.hdl import Cat, Mux, Signal, signed

from rtl_templates.block_unit import select


def shift_right(m, value, digit, step, bits, name):
    """Registered ``value >> digit * step`` for a 2-bit digit; the caller knows that ``bits`` bits hold it."""
    result = Signal(signed(bits), name=name, reset_less=True)
    m.d.sync += result.eq(select(digit, [value >> choice * step for choice in range(4)]))
    return result


def clip(m, value, bits, name):
    """Registered value, clipped to ``bits`` bits: the lower limit is -2**(bits - 1)."""
    kept = value[bits - 1:]
    fits = ~kept.any() | kept.all()
    limit = Cat((~value[-1]).replicate(bits - 1), value[-1])
    result = Signal(signed(bits), name=name, reset_less=True)
    m.d.sync += result.eq(Mux(fits, value[:bits], limit))
    return result
