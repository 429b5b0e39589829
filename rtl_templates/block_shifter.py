"""Block shifter: gathers a column of blocks from its words and sends it out in beats."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.slot_assignment import SIZE


def in_order(rows, order):
    """Bytes of ``rows`` in an order of (unit, row, column)."""
    return [rows[SIZE * unit + row][column] for unit, row, column in order]


class BlockShifter(wiring.Component):
    """Gathers the words of a column, then shifts its bytes out in one of several orders.

    Latency: 1 clock cycle from a column's last word to its first beat. Throughput: a beat per cycle; the next
    column may complete with the last beat of the one before.

    Parameters
    ----------
    orders : list of functions
        Each from ``rows``, a list of 4R lists of 4 bytes, to the list of bytes sent, whole beats.

    Members
    -------
    valid, last, rows : :py:`In`
        Words, as of :func:`rtl_templates.block_reader.rows_of_word_layout`.
    order : :py:`In(range(len(orders)))`
        Read with the last word.
    beat_valid : :py:`Out(1)`
    beat_order : :py:`Out(range(len(orders)))`
    beat : :py:`Out(bus_bits)`
    """

    def __init__(self, spec, orders):
        self.spec = spec
        self.orders = orders
        order = range(len(orders))
        super().__init__({"valid": In(1), "last": In(1), "rows": In(spec.rows_layout()), "order": In(order),
                          "beat_valid": Out(1), "beat_order": Out(order),
                          "beat": Out(spec.tiles.bus_bits)})

    def elaborate(self, platform):
        m = Module()
        spec, bus_bits = self.spec, self.spec.tiles.bus_bits
        words = [self.rows]
        for index in reversed(range(spec.words_per_column - 1)):
            held = Signal(spec.rows_layout(), name=f"held{index}", reset_less=True)
            with m.If(self.valid):
                m.d.sync += held.eq(words[0])
            words.insert(0, held)
        rows = [[word[row][column] for column in range(SIZE)]
                for word in words for row in range(spec.word_rows)]
        sent = [Cat(order(rows)) for order in self.orders]

        shifting = Signal(max(len(column) for column in sent), reset_less=True)
        left = Signal(range(len(shifting) // bus_bits + 1))
        loading = Signal()
        m.d.comb += [loading.eq(self.valid & self.last), self.beat_valid.eq(left != 0),
                     self.beat.eq(shifting[:bus_bits])]
        with m.If(loading):
            m.d.sync += self.beat_order.eq(self.order)
            with m.Switch(self.order):
                for index, column in enumerate(sent):
                    with m.Case(index) if index + 1 < len(sent) else m.Default():
                        m.d.sync += [shifting.eq(column), left.eq(len(column) // bus_bits)]
        with m.Else():
            m.d.sync += [shifting.eq(shifting >> bus_bits), left.eq(Mux(left == 0, 0, left - 1))]
        return m
