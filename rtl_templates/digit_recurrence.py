"""Square root and division by digit recurrence: one result bit a cycle, T lanes side by side."""

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from compressor.intops.reciprocal import RESULT_BITS, floor_sqrt

RADICAND_BITS = 2 * RESULT_BITS
NUMERATOR_BITS = 2 * RESULT_BITS - 1


@dataclass(frozen=True, kw_only=True)
class RecurrenceSpec:
    """Lanes that work in step.

    Parameters
    ----------
    lanes : int
        1 to 64.
    """

    lanes: int

    def __post_init__(self):
        if not 1 <= self.lanes <= 64:
            raise ValueError(f"RecurrenceSpec.lanes must be 1 to 64, not {self.lanes}")

    @property
    def cycles(self):
        """Clock cycles from ``start`` to ``done``, and between two starts."""
        return RESULT_BITS + 1

    def root(self, radicand):
        """Golden square roots: ``floor(sqrt(radicand))`` of int64 0 to 2**32 - 1."""
        return floor_sqrt(radicand)

    def quotient(self, numerator, divisor):
        """Golden quotients ``floor(numerator / divisor)``, int64; 0 for divisors below 2**15."""
        divisor = np.asarray(divisor, np.int64)
        normalized = divisor >> (RESULT_BITS - 1) == 1
        return np.where(normalized, numerator // np.maximum(divisor, 1), 0)


class SquareRoot(wiring.Component):
    """Integer square roots by restoring recurrence. Bit-exact with :meth:`RecurrenceSpec.root`.

    Latency: ``spec.cycles`` (17) clock cycles; the roots stay until the next start. Throughput: one
    root per lane every 17 cycles: ``start`` may come together with ``done``.

    Members
    -------
    start : :py:`In(1)`
    radicand : :py:`In(ArrayLayout(32, lanes))`
        Read in the cycle of ``start``.
    done : :py:`Out(1)`
        One cycle long.
    root : :py:`Out(ArrayLayout(16, lanes))`
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"start": In(1), "radicand": In(data.ArrayLayout(RADICAND_BITS, spec.lanes)),
                          "done": Out(1), "root": Out(data.ArrayLayout(RESULT_BITS, spec.lanes))})

    def elaborate(self, platform):
        m = Module()
        running = _run(m, self.start, self.done)
        for lane in range(self.spec.lanes):
            radicand = Signal(RADICAND_BITS, name=f"radicand{lane}", reset_less=True)
            root = Signal(RESULT_BITS, name=f"root{lane}", reset_less=True)
            # At most twice the root so far; what the last step leaves is not needed.
            remainder = Signal(RESULT_BITS, name=f"remainder{lane}", reset_less=True)
            extended = Cat(radicand[-2:], remainder)
            trial = Signal(len(extended) + 1, name=f"trial{lane}")
            fits = ~trial[-1]
            m.d.comb += [trial.eq(extended - Cat(Const(1, 2), root)), self.root[lane].eq(root)]
            with m.If(self.start):
                m.d.sync += [radicand.eq(self.radicand[lane]), root.eq(0), remainder.eq(0)]
            with m.Elif(running):
                m.d.sync += [radicand.eq(radicand << 2), root.eq(Cat(fits, root)),
                             remainder.eq(Mux(fits, trial, extended))]
        return m


class Divider(wiring.Component):
    """Integer quotients by restoring division. Bit-exact with :meth:`RecurrenceSpec.quotient`.

    Latency: ``spec.cycles`` (17) clock cycles; the quotients stay until the next start. Throughput: one
    quotient per lane every 17 cycles: ``start`` may come together with ``done``.

    Members
    -------
    start : :py:`In(1)`
    numerator : :py:`In(31)`
        Of all lanes; read in the cycle of ``start``.
    divisor : :py:`In(ArrayLayout(16, lanes))`
        2**15 to 2**16 - 1, so that quotients fit 16 bits; less gives 0. Read in the cycle of ``start``.
    done : :py:`Out(1)`
        One cycle long.
    quotient : :py:`Out(ArrayLayout(16, lanes))`
    """

    def __init__(self, spec):
        self.spec = spec
        lanes = data.ArrayLayout(RESULT_BITS, spec.lanes)
        super().__init__({"start": In(1), "numerator": In(NUMERATOR_BITS), "divisor": In(lanes),
                          "done": Out(1), "quotient": Out(lanes)})

    def elaborate(self, platform):
        m = Module()
        running = _run(m, self.start, self.done)
        for lane in range(self.spec.lanes):
            divisor = Signal(RESULT_BITS, name=f"divisor{lane}", reset_less=True)
            remainder = Signal(RESULT_BITS, name=f"remainder{lane}", reset_less=True)
            # The numerator leaves at the top while the quotient enters at the bottom.
            shared = Signal(RESULT_BITS, name=f"shared{lane}", reset_less=True)
            extended = Cat(shared[-1], remainder)
            trial = Signal(len(extended) + 1, name=f"trial{lane}")
            fits = ~trial[-1] & divisor[-1]
            m.d.comb += [trial.eq(extended - divisor), self.quotient[lane].eq(shared)]
            with m.If(self.start):
                m.d.sync += [divisor.eq(self.divisor[lane]), shared.eq(self.numerator),
                             remainder.eq(self.numerator[RESULT_BITS:])]
            with m.Elif(running):
                m.d.sync += [shared.eq(Cat(fits, shared)), remainder.eq(Mux(fits, trial, extended))]
        return m


def _run(m, start, done):
    """High in the RESULT_BITS cycles after ``start``; ``done`` follows."""
    running, step = Signal(), Signal(range(RESULT_BITS))
    final = step == RESULT_BITS - 1
    with m.If(start):
        m.d.sync += step.eq(0)
    with m.Elif(running):
        m.d.sync += step.eq(step + 1)
    m.d.sync += [running.eq(start | (running & ~final)), done.eq(running & final & ~start)]
    return running
