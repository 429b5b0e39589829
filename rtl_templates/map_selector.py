"""Map selector: the pattern that keeps most of a 4x4 block of an attention map."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.block_unit import select
from rtl_templates.exp_table import MASKED_DISTANCE, WEIGHT_BITS
from rtl_templates.pipeline import delay, register
from rtl_templates.slot_assignment import SIZE


def selector_latency(patterns, power):
    """Cycles of a selection: squares, sums of rows and of blocks, comparisons, kept, distances (2)."""
    return (power == 2) + 2 + (patterns - 1).bit_length() + 3


class MapSelector(wiring.Component):
    """Bit-exact with :meth:`compressor.intops.map_pruning.IntegerMapPruning.select`.

    Patterns share the sums of their rows. Latency: ``selector_latency(P, power)`` clock cycles. Throughput: a
    block per cycle.

    Members
    -------
    valid : :py:`In(1)`
    weights : :py:`In(ArrayLayout(7, 16))`
        Row-major: [query][key].
    distances : :py:`In(ArrayLayout(8, 16))`
        Of the same block.
    o_valid : :py:`Out(1)`
    id : :py:`Out(spec.map_id_bits)`
    nearest : :py:`Out(ArrayLayout(8, 4))`
        Smallest distance of the kept keys of each query.
    kept : :py:`Out(ArrayLayout(8, 4n))`
        Distances of the kept keys, in slot order.
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({
            "valid": In(1), "weights": In(data.ArrayLayout(WEIGHT_BITS, SIZE * SIZE)),
            "distances": In(data.ArrayLayout(8, SIZE * SIZE)), "o_valid": Out(1),
            "id": Out(spec.map_id_bits), "nearest": Out(data.ArrayLayout(8, SIZE)),
            "kept": Out(data.ArrayLayout(8, spec.array.assignment.multipliers))})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        masks = spec.array.assignment.masks[list(spec.map_entries)]
        latency = selector_latency(len(masks), spec.map_power)
        values = [self.weights[position] for position in range(SIZE * SIZE)]
        if spec.map_power == 2:
            values = [register(m, value * value, f"square{position}")
                      for position, value in enumerate(values)]
        row_sums = {}
        for row in range(SIZE):
            for mask in sorted({tuple(int(kept) for kept in pattern[row]) for pattern in masks}):
                kept = [values[SIZE * row + column] for column in range(SIZE) if mask[column]]
                name = f"row{row}_{''.join(map(str, mask))}"
                row_sums[row, mask] = register(m, sum(kept[1:], kept[0]), name)
        candidates = []
        for number, pattern in enumerate(masks):
            rows = [row_sums[row, tuple(int(kept) for kept in pattern[row])] for row in range(SIZE)]
            total = register(m, (rows[0] + rows[1]) + (rows[2] + rows[3]), f"kept{number}")
            candidates.append((total, Const(number, spec.map_id_bits)))
        level = 0
        while len(candidates) > 1:
            winners = []
            for index in range(0, len(candidates), 2):
                total, number = candidates[index]
                if index + 1 < len(candidates):
                    other_total, other = candidates[index + 1]
                    wins = other_total > total  # a tie goes to the lower id
                    total, number = Mux(wins, other_total, total), Mux(wins, other, number)
                winners.append((register(m, total, f"best{level}_{index}"),
                                register(m, number, f"best_id{level}_{index}")))
            candidates, level = winners, level + 1
        number = candidates[0][1]

        m.d.comb += self.o_valid.eq(delay(m, self.valid, latency, "valid", reset=True))
        m.d.sync += self.id.eq(delay(m, number, 2, "chosen"))
        distances = [delay(m, distance, latency - 3, f"distance{position}")
                     for position, distance in enumerate(self.distances)]
        for row in range(SIZE):
            of_row = []
            for column in range(SIZE):
                kept = Signal(name=f"is_kept{row}_{column}")
                m.d.comb += kept.eq(self._table(number, [int(pattern[row, column]) for pattern in masks]))
                of_row.append(register(m, Mux(kept, distances[SIZE * row + column], MASKED_DISTANCE),
                                       f"kept_distance{row}_{column}"))
            pairs = [register(m, smaller(*of_row[i:i + 2]), f"smaller{row}_{i}") for i in (0, 2)]
            m.d.sync += self.nearest[row].eq(smaller(*pairs))
        distances = [register(m, distance, f"late_distance{position}")
                     for position, distance in enumerate(distances)]
        assignment = spec.array.assignment
        for slot in range(assignment.multipliers):
            columns = [assignment.columns[entry][slot] for entry in spec.map_entries]
            choices = sorted(set(columns))
            code = Signal((len(choices) - 1).bit_length(), name=f"kept_code{slot}")
            for bit in range(len(code)):
                m.d.sync += code[bit].eq(
                    self._table(number, [choices.index(column) >> bit & 1 for column in columns]))
            row = slot // assignment.slots
            kept = select(code, [distances[SIZE * row + column] for column in choices])
            m.d.sync += self.kept[slot].eq(register(m, kept, f"kept_value{slot}"))
        return m

    def _table(self, number, bits):
        """The bit of a pattern, by its number."""
        packed = sum(bit << index for index, bit in enumerate(bits))
        return Const(packed, 1 << self.spec.map_id_bits).bit_select(number, 1)


def smaller(a, b):
    """The smaller of two unsigned values."""
    return Mux(b < a, b, a)
