"""Row maxima: the largest score of each row of a tile, and the distances of scores below it."""

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.block_reader import rows_of_word_layout
from rtl_templates.exp_table import MASKED_DISTANCE
from rtl_templates.pipeline import delay, register
from rtl_templates.slot_assignment import SIZE

MASKED_SCORE = 0x80
"""-128 is no score, so it stands for a masked one and never is a maximum of others."""


class RowMaxima(wiring.Component):
    """Distances of the words of one tile, while the maxima of the next are found.

    Latency: 1 clock cycle from a word to its distances; a maximum is complete 3 cycles after the last word
    that counts for it. Throughput: a word per cycle.

    Members
    -------
    clear : :py:`In(1)`
        Forget the maxima that were found.
    turn : :py:`In(1)`
        Distances are below the maxima found from the next cycle on; the finding begins anew.
    word : :py:`In(rows_of_word_layout(spec, 1))`
        Its tag tells that it counts for the maxima of the next tile.
    distances : :py:`Out(spec.rows_layout())`
        Maximum minus score, 0 to 254; ``MASKED_DISTANCE`` for masked scores.
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"clear": In(1), "turn": In(1), "word": In(rows_of_word_layout(spec, 1)),
                          "distances": Out(spec.rows_layout())})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        counts = delay(m, self.word.valid & self.word.tag, 2, "counts", reset=True)
        part = delay(m, self.word.part, 2, "part")
        for row in range(spec.word_rows):
            scores = [self.word.rows[row][column].as_signed() for column in range(SIZE)]
            pairs = [register(m, larger(*scores[i:i + 2]), f"larger{i}_{row}") for i in (0, 2)]
            highest = register(m, larger(*pairs), f"highest{row}")
            maxima = []
            for number in range(spec.words_per_column):
                found, maximum = (Signal(signed(8), name=f"{name}{number}_{row}", reset_less=True)
                                  for name in ("found", "maximum"))
                maxima.append(maximum)
                with m.If(self.turn):
                    m.d.sync += maximum.eq(found)
                with m.If(self.clear | self.turn):
                    m.d.sync += found.eq(-128)
                with m.Elif(counts & (part == number)):
                    m.d.sync += found.eq(larger(found, highest))
            maximum = Signal(signed(8), name=f"row_maximum{row}")
            m.d.comb += maximum.eq(Array(maxima)[self.word.part] if len(maxima) > 1 else maxima[0])
            for column in range(SIZE):
                score = self.word.rows[row][column]
                m.d.sync += self.distances[row][column].eq(
                    Mux(score == MASKED_SCORE, MASKED_DISTANCE, (maximum - score.as_signed())[:8]))
        return m


def larger(a, b):
    """The larger of two signed values."""
    return Mux(b > a, b, a)
