"""GELU table: one row of T int8 values per cycle through loadable tables of 256 entries."""

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from compressor.intops.gelu import TABLE_ENTRIES, IntegerGelu
from rtl_templates.pipeline import delay, register
from rtl_templates.requantizer import VALUE_BITS, requantizer_output


@dataclass(frozen=True, kw_only=True)
class GeluTableSpec:
    """Tables of T lanes: two banks of 512 entries, those of the normal channels and those of the outliers.

    Parameters
    ----------
    lanes : int
        Token lanes T, 1 to 64.
    """

    lanes: int

    def __post_init__(self):
        if not 1 <= self.lanes <= 64:
            raise ValueError(f"GeluTableSpec.lanes must be 1 to 64, not {self.lanes}")

    def table_layout(self):
        """Write port of the tables, one entry of :meth:`table` per cycle, into one of two banks."""
        return data.StructLayout({"enable": 1, "bank": 1, "address": range(2 * TABLE_ENTRIES),
                                  "data": signed(VALUE_BITS)})

    def table(self, golden):
        """Entries in address order, int8 array of shape (512,): the outliers' come second, or zeros."""
        if not isinstance(golden, IntegerGelu):
            raise TypeError(f"a table is made from an IntegerGelu, not {type(golden).__name__}")
        outliers = np.zeros(TABLE_ENTRIES) if golden.outlier_table is None else golden.outlier_table
        return np.concatenate([golden.table, outliers]).astype(np.int8)


class GeluTable(wiring.Component):
    """A table's entry for the value of every lane.

    Bit-exact with :meth:`compressor.intops.gelu.IntegerGelu.compute`.
    Sits behind the requantizer; rows that are not to be looked up pass with the same latency.

    Latency: ``LATENCY`` clock cycles. Throughput: one row per cycle. Order is preserved; no back-pressure.

    Members
    -------
    i : :py:`In(requantizer_output(spec))`
    look_up : :py:`In(1)`
        Whether this row goes through the table; else it passes unchanged.
    outlier : :py:`In(1)`
        Whether this row's channel uses the outliers' table.
    bank : :py:`In(1)`
        Bank of this row.
    o : :py:`Out(requantizer_output(spec))`
    table : :py:`In(spec.table_layout())`
        An entry counts for rows that arrive in later cycles.
    """

    LATENCY = 3

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"i": In(requantizer_output(spec)),
                          "look_up": In(1), "outlier": In(1), "bank": In(1),
                          "o": Out(requantizer_output(spec)), "table": In(spec.table_layout())})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.o.valid.eq(delay(m, self.i.valid, self.LATENCY, "valid", reset=True)),
                     self.o.saturated.eq(delay(m, self.i.saturated, self.LATENCY, "saturated"))]
        look_up = delay(m, self.look_up, 2, "look_up")
        for lane in range(self.spec.lanes):
            # A bank is written while none of its entries counts, so a collision never matters.
            memory = Memory(shape=signed(VALUE_BITS), depth=4 * TABLE_ENTRIES, init=[],
                            attrs={"no_rw_check": 1})
            m.submodules[f"table{lane}"] = memory
            write, read = memory.write_port(), memory.read_port()
            passing = delay(m, self.i.values[lane], 2, f"passing{lane}")
            entry = register(m, read.data, f"entry{lane}")
            result = Signal(signed(VALUE_BITS), name=f"result{lane}", reset_less=True)
            m.d.comb += [write.en.eq(self.table.enable), write.data.eq(self.table.data),
                         write.addr.eq(Cat(self.table.address, self.table.bank)),
                         read.addr.eq(Cat(self.i.values[lane], self.outlier, self.bank)),
                         self.o.values[lane].eq(result)]
            m.d.sync += result.eq(Mux(look_up, entry, passing))
        return m
