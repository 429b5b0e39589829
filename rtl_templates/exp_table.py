"""Exp table: the softmax weights of a beat of distances, through a loadable table."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from compressor.intops.softmax import TABLE_ENTRIES
from rtl_templates.pipeline import delay, register

WEIGHT_BITS = 7
"""Weights are 0 to 127."""

MASKED_DISTANCE = TABLE_ENTRIES - 1
"""Distance that stands for a masked score; those of valid scores are 0 to 254."""

table_layout = data.StructLayout({"enable": 1, "bank": 1, "address": range(TABLE_ENTRIES), "data": 8})
"""Write port of the table, one entry of :func:`compressor.intops.softmax.exp_table` per cycle."""


class ExpTable(wiring.Component):
    """Table entries of ``lookups`` distances per cycle, 0 for ``MASKED_DISTANCE``.

    Latency: ``LATENCY`` clock cycles. Throughput: ``lookups`` distances per cycle.

    Members
    -------
    distances : :py:`In(ArrayLayout(8, lookups))`
    bank : :py:`In(1)`
        Of the two tables; steady while it is used.
    weights : :py:`Out(ArrayLayout(7, lookups))`
    table : :py:`In(table_layout)`
    """

    LATENCY = 3

    def __init__(self, lookups):
        self.lookups = lookups
        super().__init__({"distances": In(data.ArrayLayout(8, lookups)), "bank": In(1),
                          "weights": Out(data.ArrayLayout(WEIGHT_BITS, lookups)), "table": In(table_layout)})

    def elaborate(self, platform):
        m = Module()
        for index in range(self.lookups):
            # A bank is written while none of its entries counts, so a collision never matters.
            memory = Memory(shape=WEIGHT_BITS, depth=2 * TABLE_ENTRIES, init=[], attrs={"no_rw_check": 1})
            m.submodules[f"table{index}"] = memory
            write, read = memory.write_port(), memory.read_port()
            masked = delay(m, self.distances[index] == MASKED_DISTANCE, 2, f"masked{index}")
            entry = register(m, read.data, f"entry{index}")
            weight = Signal(WEIGHT_BITS, name=f"weight{index}", reset_less=True)
            m.d.comb += [
                write.en.eq(self.table.enable), write.addr.eq(Cat(self.table.address, self.table.bank)),
                write.data.eq(self.table.data), read.addr.eq(Cat(self.distances[index], self.bank)),
                self.weights[index].eq(weight)]
            m.d.sync += weight.eq(Mux(masked, 0, entry))
        return m
