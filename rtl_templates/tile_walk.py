"""Tile walk: from a tensor's token groups to the rows of one tile after the other."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.buffer_ports import COUNT_BITS, STRIDE_BITS
from rtl_templates.slot_assignment import SIZE


def tensor_layout(spec):
    """A tensor: address and stride in words, token groups, tokens that count."""
    return data.StructLayout({"source": spec.address_bits, "source_stride": STRIDE_BITS,
                              "groups": COUNT_BITS, "valid_length": COUNT_BITS})


def tile_rows_layout(spec):
    """Where a tile's rows lie.

    ``base``: address of the first word; ``phase``: which of the tiles that share it; ``groups``: token groups
    present, of ``words_per_column``; ``valid``: rows before the valid length, 0 to 4R; ``words``: blocks
    present; ``last``: no tile comes after this one.
    """
    return data.StructLayout({
        "base": spec.address_bits, "stride": STRIDE_BITS, "phase": range(spec.tiles_per_group),
        "groups": range(spec.words_per_column + 1), "valid": range(SIZE * spec.units + 1),
        "words": range(spec.units + 1), "last": 1})


class TileWalk(wiring.Component):
    """Holds the current tile.

    Latency: 1 clock cycle from ``start`` or ``advance`` to ``tile``.

    Members
    -------
    start : :py:`In(1)`
        Go to the first tile of ``tensor``.
    tensor : :py:`In(tensor_layout(spec))`
        Read in the cycle of ``start``.
    advance : :py:`In(1)`
        Go to the next tile.
    tile : :py:`Out(tile_rows_layout(spec))`
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"start": In(1), "tensor": In(tensor_layout(spec)), "advance": In(1),
                          "tile": Out(tile_rows_layout(spec))})

    def elaborate(self, platform):
        m = Module()
        spec, tile = self.spec, self.tile
        step, rows = spec.words_per_column, SIZE * spec.units
        groups, valid = Signal(COUNT_BITS), Signal(COUNT_BITS)
        final_phase = Signal()
        m.d.comb += [
            final_phase.eq(tile.phase == spec.tiles_per_group - 1),
            tile.groups.eq(Mux(groups < step, groups, step)),
            tile.valid.eq(Mux(valid < rows, valid, rows)),
            tile.words.eq(tile.groups * spec.quarters if step > 1 else min(spec.units, spec.quarters)),
            tile.last.eq(final_phase & (groups <= step))]
        with m.If(self.start):
            m.d.sync += [tile.base.eq(self.tensor.source), tile.stride.eq(self.tensor.source_stride),
                         tile.phase.eq(0), groups.eq(self.tensor.groups), valid.eq(self.tensor.valid_length)]
        with m.Elif(self.advance):
            m.d.sync += [valid.eq(Mux(valid < rows, 0, valid - rows)),
                         tile.phase.eq(Mux(final_phase, 0, tile.phase + 1))]
            with m.If(final_phase):
                m.d.sync += [groups.eq(groups - step), tile.base.eq(tile.base + tile.stride * step)]
        return m
