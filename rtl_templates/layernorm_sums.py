"""First pass of LayerNorm: residual plus branch, its sum and its sum of squares."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from compressor.intops.layernorm import SHIFT_BITS
from rtl_templates.block_unit import add_pairwise
from rtl_templates.layernorm_spec import SQUARES_BITS, TOTAL_BITS, Z_BITS
from rtl_templates.pipeline import delay, register

ALIGNED_BITS = 8 + (1 << SHIFT_BITS) - 1


def beat_layout(spec, shape):
    """``beat[channel][lane]``: the channels of one cycle."""
    return data.ArrayLayout(data.ArrayLayout(shape, spec.lanes), spec.channels)


def sums_layout(spec):
    """Sums of all lanes over a token's channels."""
    return data.StructLayout({"valid": 1, "totals": data.ArrayLayout(signed(TOTAL_BITS), spec.lanes),
                              "squares": data.ArrayLayout(SQUARES_BITS, spec.lanes)})


class LayerNormSums(wiring.Component):
    """``z = (residual << residual_shift) + (branch << branch_shift)``, and sums of z and z^2 per lane.

    Latency: 2 clock cycles to z, ``spec.sums_latency`` to the sums. Throughput: ``spec.channels``
    channels of T tokens per cycle; the next token group may follow at once.

    Members
    -------
    valid, first, last : :py:`In(1)`
        A beat, and whether it begins or ends its token group.
    residual, branch : :py:`In(beat_layout(spec, signed(8)))`
    residual_shift, branch_shift : :py:`In(ArrayLayout(3, channels))`
        Of the same beat, shared by all lanes.
    z_valid, z : :py:`Out`
    sums : :py:`Out(sums_layout(spec))`
        ``valid`` is one cycle long.
    """

    def __init__(self, spec):
        self.spec = spec
        shifts = data.ArrayLayout(SHIFT_BITS, spec.channels)
        super().__init__({"valid": In(1), "first": In(1), "last": In(1),
                          "residual": In(beat_layout(spec, signed(8))),
                          "branch": In(beat_layout(spec, signed(8))),
                          "residual_shift": In(shifts), "branch_shift": In(shifts),
                          "z_valid": Out(1), "z": Out(beat_layout(spec, signed(Z_BITS))),
                          "sums": Out(sums_layout(spec))})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.d.comb += self.z_valid.eq(delay(m, self.valid, 2, "z_valid", reset=True))
        levels = (spec.channels - 1).bit_length()
        arriving = delay(m, self.valid, 4 + levels, "arriving")
        first = delay(m, self.first, 4 + levels, "first")
        last = delay(m, self.valid & self.last, spec.sums_latency, "last", reset=True)
        m.d.comb += self.sums.valid.eq(last)
        for lane in range(spec.lanes):
            values, squares = [], []
            for channel in range(spec.channels):
                name = f"{channel}_{lane}"
                z = self._add(m, channel, lane, name)
                value = Signal(signed(Z_BITS), name=f"z{name}", reset_less=True)
                square = Signal(31, name=f"square{name}", reset_less=True)
                m.d.comb += self.z[channel][lane].eq(z)
                m.d.sync += [value.eq(z), square.eq(z * z)]
                # A second register, which the way from the multiplier to the adders costs nothing of it.
                values.append(register(m, value, f"late_z{name}"))
                squares.append(register(m, square, f"late_square{name}"))
            self._accumulate(m, self.sums.totals[lane], arriving, first,
                             add_pairwise(m, values, levels, f"total{lane}"))
            self._accumulate(m, self.sums.squares[lane], arriving, first,
                             add_pairwise(m, squares, levels, f"squares{lane}"))
        return m

    def _add(self, m, channel, lane, name):
        residual = Signal(signed(ALIGNED_BITS), name=f"residual{name}", reset_less=True)
        branch = Signal(signed(ALIGNED_BITS), name=f"branch{name}", reset_less=True)
        z = Signal(signed(Z_BITS), name=f"sum{name}", reset_less=True)
        m.d.sync += [residual.eq(self.residual[channel][lane] << self.residual_shift[channel]),
                     branch.eq(self.branch[channel][lane] << self.branch_shift[channel]),
                     z.eq(residual + branch)]
        return z

    def _accumulate(self, m, total, arriving, first, term):
        with m.If(arriving):
            m.d.sync += total.eq(term + Mux(first, 0, total))
