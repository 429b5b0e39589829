"""Row maxima: the largest score of each row of a tile, and the distances of scores below it."""

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.block_reader import rows_of_word_layout
from rtl_templates.exp_table import MASKED_DISTANCE
from rtl_templates.pipeline import register
from rtl_templates.slot_assignment import SIZE

MASKED_SCORE = 0x80
"""-128 is no score, so it stands for a masked one and never is a maximum of others."""


class RowMaxima(wiring.Component):
    """Maxima of the words that ``collect`` marks; distances of every word.

    Latency: a maximum counts for words that come 2 cycles after and later; 1 clock cycle from a word to its
    distances. Throughput: a word per cycle.

    Members
    -------
    clear : :py:`In(1)`
    collect : :py:`In(1)`
        Whether this cycle's word counts for the maxima.
    word : :py:`In(rows_of_word_layout(spec, tag_bits))`
    lower : :py:`In(1)`
        Lowers every maximum by ``by``.
    by : :py:`In(ArrayLayout(8, 4R))`
    distances : :py:`Out(spec.rows_layout())`
        Maximum minus score, 0 to 254; ``MASKED_DISTANCE`` for masked scores. Of scores above a maximum
        that was lowered the distance means nothing.
    """

    def __init__(self, spec, tag_bits):
        self.spec = spec
        super().__init__({
            "clear": In(1), "collect": In(1), "word": In(rows_of_word_layout(spec, tag_bits)), "lower": In(1),
            "by": In(data.ArrayLayout(8, SIZE * spec.units)), "distances": Out(spec.rows_layout())})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        collected = register(m, self.collect, "collected", reset=True)
        part = register(m, self.word.part, "part")
        maxima = [Signal(signed(8), name=f"maximum{row}", reset_less=True)
                  for row in range(SIZE * spec.units)]
        for row in range(spec.word_rows):
            scores = [self.word.rows[row][column].as_signed() for column in range(SIZE)]
            highest = register(m, larger(larger(scores[0], scores[1]), larger(scores[2], scores[3])),
                               f"highest{row}")
            here = maxima[row::spec.word_rows]
            for number, maximum in enumerate(here):
                with m.If(self.clear):
                    m.d.sync += maximum.eq(-128)
                with m.Elif(collected & (part == number)):
                    m.d.sync += maximum.eq(larger(maximum, highest))
                with m.Elif(self.lower):
                    m.d.sync += maximum.eq(maximum - self.by[number * spec.word_rows + row])
            maximum = Signal(signed(8), name=f"row_maximum{row}")
            m.d.comb += maximum.eq(Array(here)[self.word.part] if len(here) > 1 else here[0])
            for column in range(SIZE):
                score = self.word.rows[row][column]
                m.d.sync += self.distances[row][column].eq(
                    Mux(score == MASKED_SCORE, MASKED_DISTANCE, (maximum - score.as_signed())[:8]))
        return m


def larger(a, b):
    """The larger of two signed values."""
    return Mux(b > a, b, a)
