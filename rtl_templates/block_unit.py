"""Block unit: one 4x4 weight block times one activation word per cycle, for T tokens."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.array_spec import Accumulation, PoolStorage
from rtl_templates.paired_sums import PairedSums, pair_layout
from rtl_templates.pattern_decoder import PatternDecoder, column_choices, pool_layout
from rtl_templates.pipeline import delay, register
from rtl_templates.slot_assignment import SIZE


def weights_layout(spec):
    """Weights of a block in slot order."""
    return data.ArrayLayout(signed(8), spec.assignment.multipliers)


def word_layout(spec):
    """An activation word: ``word[channel][lane]``."""
    return data.ArrayLayout(data.ArrayLayout(signed(8), spec.lanes), SIZE)


def sums_layout(spec):
    """Accumulators of a unit: ``sums[row][part][lane]``; of paired lanes ``sums[row][lane // 2]``."""
    if spec.accumulation is Accumulation.PAIRED:
        return data.ArrayLayout(data.ArrayLayout(pair_layout(spec.pair_bits), spec.lanes // 2), SIZE)
    lanes = data.ArrayLayout(signed(spec.accumulator_bits), spec.lanes)
    return data.ArrayLayout(data.ArrayLayout(lanes, spec.partial_sums), SIZE)


class BlockUnit(wiring.Component):
    """Decodes a block's pattern once, multiplies and accumulates it for every lane.

    Latency: ``spec.sum_latency + 1`` clock cycles from ``control`` to ``sums``. Throughput: one block
    per cycle.

    Members
    -------
    control, dense, weights : :py:`In`
        Control field, dense bit and weights in slot order of one K-step.
    word : :py:`In(word_layout(spec))`
        Activations of the same K-step, one cycle later than ``control``.
    accumulate, first : :py:`In(1)`
        Whether this K-step counts, and whether it begins a pass; ``spec.sum_latency`` cycles later.
    sums : :py:`Out(sums_layout(spec))`
        Accumulators.
    pool : :py:`In(pool_layout(spec))`
        Only for RAM pools: writes the pattern memory.
    """

    def __init__(self, spec):
        self.spec = spec
        members = {"control": In(spec.control_bits), "dense": In(1), "weights": In(weights_layout(spec)),
                   "word": In(word_layout(spec)), "accumulate": In(1), "first": In(1),
                   "sums": Out(sums_layout(spec))}
        if spec.storage is PoolStorage.RAM:
            members["pool"] = In(pool_layout(spec))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.submodules.decoder = decoder = PatternDecoder(spec)
        m.d.comb += [decoder.control.eq(self.control), decoder.dense.eq(self.dense)]
        if spec.storage is PoolStorage.RAM:
            m.d.comb += decoder.pool.eq(self.pool)
        weights = Signal(weights_layout(spec), reset_less=True)
        m.d.sync += weights.eq(self.weights)
        if spec.accumulation is Accumulation.PAIRED:
            self._pair_lanes(m, decoder.selects, weights)
            return m
        operands = Signal(weights_layout(spec), reset_less=True)
        m.d.sync += operands.eq(weights)
        self._product_cycles = 1 + (spec.accumulation is Accumulation.TREE)
        ports = {name: delay(m, decoder.selects[name], 1 + self._product_cycles, name)
                 for name, _ in decoder.selects.shape() if name.startswith("port")}
        folded = {name: delay(m, code, 1, f"{name}_folded") for name, code in ports.items()}
        for lane in range(spec.lanes):
            products = [self._product(m, decoder.selects, operands[slot], slot, lane)
                        for slot in range(spec.assignment.multipliers)]
            if spec.assignment.is_routed:
                rows = self._route(m, products, ports, folded, lane)
            else:
                rows = [[products[candidates[0]] for candidates in row] for row in spec.assignment.ports]
            for row in range(SIZE):
                terms = rows[row]
                if spec.accumulation is Accumulation.TREE:
                    terms = [add_pairwise(m, terms, spec.adder_levels, f"sum{row}_{lane}")]
                for part, term in enumerate(terms):
                    total = self._accumulate(m, term, f"total{row}_{part}_{lane}")
                    m.d.comb += self.sums[row][part][lane].eq(total)
        return m

    def _activation(self, selects, slot, lane):
        choices = [self.word[column][lane] for column in column_choices(self.spec, slot)]
        return select(selects[f"column{slot}"] if len(choices) > 1 else None, choices)

    def _product(self, m, selects, weight, slot, lane):
        operand = register(m, self._activation(selects, slot, lane), f"operand{slot}_{lane}", shape=signed(8))
        return delay(m, operand * weight, self._product_cycles, f"product{slot}_{lane}")

    def _pair_lanes(self, m, selects, weights):
        """Accumulators of two lanes each; the registers of operands and products are in the DSPs."""
        slots = self.spec.assignment.slots
        for row, ports in enumerate(self.spec.assignment.ports):
            for pair in range(self.spec.lanes // 2):
                sums = PairedSums(slots, self.spec.pair_bits)
                m.submodules[f"row{row}_{pair}"] = sums
                m.d.comb += [sums.accumulate.eq(self.accumulate), sums.first.eq(self.first),
                             self.sums[row][pair].eq(sums.sums)]
                for j, (slot,) in enumerate(ports):
                    m.d.comb += [sums.low[j].eq(self._activation(selects, slot, 2 * pair)),
                                 sums.high[j].eq(self._activation(selects, slot, 2 * pair + 1)),
                                 sums.weights[j].eq(weights[slot])]

    def _route(self, m, products, ports, folded, lane):
        """Terms of each row, one per port.

        Even ports are registered: gating one candidate is then a register's synchronous reset, which
        costs no LUT. Odd ports are left to the LUTs in front of the carry chain that adds them.
        """
        delayed = [delay(m, product, 1, f"routed{slot}_{lane}") for slot, product in enumerate(products)]
        rows = []
        for row, row_ports in enumerate(self.spec.assignment.ports):
            terms = []
            for q, candidates in enumerate(row_ports):
                name = f"port{row}_{q}"
                gated = self.spec.assignment.port_bits(candidates)
                if q % 2:
                    sources = [delayed[c] for c in candidates]
                    # Named to sort behind "port": Yosys gives the first operand to the carry chain's data
                    # input, and can then put this multiplexer into the LUT of the sum.
                    chosen = Signal(signed(16), name=f"term{row}_{q}_{lane}")
                    m.d.comb += chosen.eq(select(folded[name], [0, *sources]) if gated else sources[0])
                    terms.append(chosen)
                else:
                    sources = [products[c] for c in candidates]
                    term = select(ports[name], [0, *sources]) if gated else sources[0]
                    terms.append(delay(m, term, 1, f"{name}_{lane}"))
            rows.append(terms)
        return rows

    def _accumulate(self, m, term, name):
        total = Signal(signed(self.spec.accumulator_bits), name=name, reset_less=True)
        with m.If(self.accumulate):
            m.d.sync += total.eq(term + Mux(self.first, 0, total))
        return total


def select(code, choices):
    """Multiplexer of 1 to 4 choices, by a binary code: two levels that a LUT6 takes whole."""
    if len(choices) == 1:
        return choices[0]
    low = Mux(code[0], choices[1], choices[0])
    if len(choices) == 2:
        return low
    return Mux(code[1], Mux(code[0], choices[3], choices[2]) if len(choices) == 4 else choices[2], low)


def add_pairwise(m, terms, levels, name):
    """Sum of signed terms, registered after each of ``levels`` levels of additions."""
    for level in range(levels):
        sums = []
        for index in range(0, len(terms), 2):
            value = sum(terms[index + 1:index + 2], terms[index])
            sums.append(register(m, value, f"{name}_{level}_{index}"))
        terms = sums
    return terms[0]

