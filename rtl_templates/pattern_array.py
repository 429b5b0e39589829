"""The array: R block units that share an activation word, and the drain of their sums."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.array_spec import PoolStorage
from rtl_templates.block_unit import BlockUnit, weights_layout, word_layout
from rtl_templates.pattern_decoder import pool_layout
from rtl_templates.result_drain import SLOT_BITS, ResultDrain, result_layout


def kstep_layout(spec):
    """One cycle's input of the array.

    ``valid``: this is a K-step; ``first``: it begins a pass; ``last``: this cycle ends a pass (it may be
    an idle one, with ``valid`` 0); ``words``: output words of the pass, read at ``last``; ``slot``: its
    row-constants slot, read at ``last``; ``dense``: controls are parts of dense blocks;
    ``controls[unit]``, ``weights[unit][slot]``, ``activations[channel][lane]``.
    """
    return data.StructLayout({
        "valid": 1, "first": 1, "last": 1, "words": range(spec.units + 1), "slot": SLOT_BITS, "dense": 1,
        "controls": data.ArrayLayout(spec.control_bits, spec.units),
        "weights": data.ArrayLayout(weights_layout(spec), spec.units),
        "activations": word_layout(spec)})


class PatternArray(wiring.Component):
    """Output-stationary array of R units x T lanes x 4 rows x n slots, on a static schedule.

    Latency: ``spec.latency`` clock cycles from ``last`` to row 0. Throughput: one K-step per cycle, with
    any number of idle cycles in between, and one row of T sums per cycle. There is no back-pressure:
    a ``last`` must come at least 4 * words cycles after the previous one, where words is that of the
    **previous** pass, whose rows are leaving. The first K-step of a pass may follow ``last`` at once.

    Members
    -------
    kstep : :py:`In(kstep_layout(spec))`
        Input of a cycle.
    result : :py:`Out(result_layout(spec))`
        Rows 0 to 4 * words - 1 of a pass; row ``4 * unit + r`` is row r of the unit's blocks.
    pool : :py:`In(pool_layout(spec))`
        Only for RAM pools: writes the pattern memory of every unit; not while K-steps come.
    """

    def __init__(self, spec):
        self.spec = spec
        members = {"kstep": In(kstep_layout(spec)), "result": Out(result_layout(spec))}
        if spec.storage is PoolStorage.RAM:
            members["pool"] = In(pool_layout(spec))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        word = Signal(word_layout(spec), reset_less=True)
        m.d.sync += word.eq(self.kstep.activations)
        fields = ("valid", "first", "last", "words", "slot")
        flags = {name: self.kstep[name] for name in fields}
        stages = [flags]
        for stage in range(spec.sum_latency + 1):
            flags = {name: Signal.like(value, name=f"{name}_{stage}") for name, value in flags.items()}
            m.d.sync += [flags[name].eq(stages[-1][name]) for name in fields]
            stages.append(flags)
        arriving, captured = stages[-2], stages[-1]

        m.submodules.drain = drain = ResultDrain(spec)
        m.d.comb += [drain.capture.eq(captured["last"]), drain.words.eq(captured["words"]),
                     drain.slot.eq(captured["slot"]), self.result.eq(drain.result)]
        for u in range(spec.units):
            m.submodules[f"unit{u}"] = unit = BlockUnit(spec)
            m.d.comb += [unit.control.eq(self.kstep.controls[u]), unit.dense.eq(self.kstep.dense),
                         unit.weights.eq(self.kstep.weights[u]), unit.word.eq(word),
                         unit.accumulate.eq(arriving["valid"]), unit.first.eq(arriving["first"]),
                         drain.sums[u].eq(unit.sums)]
            if spec.storage is PoolStorage.RAM:
                m.d.comb += unit.pool.eq(self.pool)
        return m
