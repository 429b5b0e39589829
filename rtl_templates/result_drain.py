"""Result drain: holds the sums of a finished pass and hands them out one row per cycle."""

from functools import reduce
from operator import or_

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.array_spec import Accumulation
from rtl_templates.block_unit import add_pairwise, select, sums_layout
from rtl_templates.paired_sums import pair_layout, separate
from rtl_templates.pipeline import delay, register
from rtl_templates.slot_assignment import SIZE

SLOT_BITS = 2
"""Width of the number of the row-constants slot that a pass uses."""


def result_layout(spec):
    """One row of results: ``sums[lane]`` are sums without bias."""
    return data.StructLayout({"valid": 1, "row": range(spec.rows), "last": 1, "slot": SLOT_BITS,
                              "sums": data.ArrayLayout(signed(spec.accumulator_bits), spec.lanes)})


class ResultDrain(wiring.Component):
    """Copies all accumulators at ``capture``; rows 0 to 4 * words - 1 leave in consecutive cycles.

    Latency: ``spec.drain_latency - 1`` clock cycles from ``capture`` to row 0. Throughput: one row of T
    sums per cycle. There is no back-pressure: the next ``capture`` must come at least 4 * words cycles later.

    Members
    -------
    capture : :py:`In(1)`
        The accumulators hold finished sums.
    words, slot : :py:`In`
        Words (4 rows each) to hand out, and the row-constants slot to hand out with them.
    sums : :py:`In(sums_layout(spec)).array(units)`
        Accumulators, one port for each unit.
    result : :py:`Out(result_layout(spec))`
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"capture": In(1), "words": In(range(spec.units + 1)), "slot": In(SLOT_BITS),
                          "sums": In(sums_layout(spec)).array(spec.units),
                          "result": Out(result_layout(spec))})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        # One signal a unit: all units of a large array together exceed what a signal can hold.
        held = [Signal(sums_layout(spec), name=f"held{u}", reset_less=True) for u in range(spec.units)]
        running, words, slot = Signal(), Signal.like(self.words), Signal.like(self.slot)
        row = Signal(range(spec.rows))
        final = Signal()
        m.d.comb += final.eq(row + 1 == words << 2)
        with m.If(self.capture):
            m.d.sync += [unit_held.eq(sums) for unit_held, sums in zip(held, self.sums, strict=True)]
            m.d.sync += [words.eq(self.words), slot.eq(self.slot), row.eq(0)]
        with m.Elif(running):
            m.d.sync += row.eq(row + 1)
        # One expression: `running` has a defined value in four-state simulators from reset on.
        m.d.sync += running.eq(self.capture | (running & ~final))

        for name, flag in (("valid", running), ("row", row), ("last", final), ("slot", slot)):
            delayed = delay(m, flag, spec.drain_latency - 2, name, reset=name == "valid")
            m.d.comb += self.result[name].eq(delayed)
        if spec.accumulation is Accumulation.PAIRED:
            for pair in range(spec.lanes // 2):
                row_sums = [[sums[r][pair].as_value() for r in range(SIZE)] for sums in held]
                chosen = self._select_row(m, row_sums, row, f"pair{pair}", unsigned)
                chosen = data.View(pair_layout(spec.pair_bits), chosen)
                for lane, value in enumerate(separate(chosen), start=2 * pair):
                    m.d.comb += self.result.sums[lane].eq(register(m, value, f"total{lane}"))
            return m
        for lane in range(spec.lanes):
            parts = [self._select_row(m, [[sums[r][part][lane] for r in range(SIZE)] for sums in held], row,
                                      f"{part}_{lane}", signed) for part in range(spec.partial_sums)]
            levels = spec.adder_levels if spec.accumulation is Accumulation.DSP else 0
            m.d.comb += self.result.sums[lane].eq(add_pairwise(m, parts, levels, f"total{lane}"))
        return m

    def _select_row(self, m, held, row, name, sign):
        """``held[unit][row % 4]`` in two registered steps: 4 to 1 within each unit, then the OR of all units.

        Units that are not selected deliver 0, which is the register's synchronous reset; an OR of
        six takes one LUT where a multiplexer takes four inputs a LUT.
        """
        unit = row >> 2
        rows = []
        for u, choices in enumerate(held):
            chosen = select(row[:2], choices)
            if self.spec.units > 1:
                chosen = Mux(unit == u, chosen, 0)
            rows.append(register(m, chosen, f"unit{u}_{name}"))
        return register(m, reduce(or_, rows), f"row{name}", shape=sign(len(held[0][0])))
