"""Paired sums: the accumulators of a row for two lanes, one word of 48 bits and a counter."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from rtl_templates.pair_format import LOW_BITS
from rtl_templates.paired_row import PairedRow, row_members
from rtl_templates.pipeline import register

LAST_QUARTER = 3


def pair_layout(bits):
    """Sums of two lanes, ``bits`` wide each, as they are accumulated; :func:`separate` takes them apart."""
    return data.StructLayout({"low": LOW_BITS, "wraps": signed(bits - LOW_BITS), "upper": bits})


def separate(pair):
    """The sums (low lane, high lane) of a pair, as values; one subtraction.

    The word is ``(high << 18) + low``: what stands above its low 18 bits is the high lane's sum plus the
    wraps of the low lane.
    """
    low = Cat(pair.low, pair.wraps).as_signed()
    return low, (pair.upper - pair.wraps)[:len(low)].as_signed()


class PairedSums(wiring.Component):
    """A :class:`rtl_templates.paired_row.PairedRow` that counts how often its low lane runs over.

    The low 18 bits of the total are the low lane's sum modulo 2**18. A K-step changes that sum by at most
    slots * 2**14 <= 2**16, a quarter of the range, so two bits tell in which quarter it was and is: from the
    last to the first is a wrap up, from the first to the last one down. That holds for all int8 activations
    and weights, -128 included, and for any number of K-steps.

    Latency: that of the row; ``sums`` change with its total. Throughput: one K-step per cycle.

    Parameters
    ----------
    slots : int
        Products of a K-step, 1 to 4.
    bits : int
        Width of the sums, 19 to 30. Both lanes are right as long as the sum of the low lane fits.
    row : Component, optional
        With the members of a PairedRow of that many slots, which it is unless given.

    Members
    -------
    high, low, weights, accumulate, first
        As of the row.
    sums : :py:`Out(pair_layout(bits))`
    """

    def __init__(self, slots, bits, row=None):
        self.slots, self.bits = slots, bits
        self.row = row or PairedRow(slots)
        members = row_members(slots)
        del members["total"]
        super().__init__(members | {"sums": Out(pair_layout(bits))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.row = row = self.row
        for name in ("high", "low", "weights", "accumulate", "first"):
            m.d.comb += getattr(row, name).eq(getattr(self, name))
        fresh = register(m, self.accumulate & self.first, "fresh", reset=True)
        quarter = row.total[LOW_BITS - 2:LOW_BITS]
        before = register(m, quarter, "before")
        # A new pass counts from 0: whatever was before it, its first K-step starts in the first quarter.
        up, down, wraps = Signal(), Signal(), Signal.like(self.sums.wraps)
        start = Mux(fresh, 0, before)
        m.d.comb += [up.eq((start == LAST_QUARTER) & (quarter == 0)),
                     down.eq((start == 0) & (quarter == LAST_QUARTER))]
        counted = register(m, wraps, "counted")
        m.d.comb += [wraps.eq(Mux(fresh, 0, counted) + Cat(up | down, down).as_signed()),
                     self.sums.low.eq(row.total), self.sums.wraps.eq(wraps),
                     self.sums.upper.eq(row.total >> LOW_BITS)]
        return m
