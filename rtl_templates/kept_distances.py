"""Kept distances: what map pruning keeps of a tile, from its selection to the beats of its weights."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl_templates.exp_table import MASKED_DISTANCE
from rtl_templates.slot_assignment import SIZE


class KeptDistances(wiring.Component):
    """A K-step of distances for each column, of two tiles: one is written while the other is read.

    Distances leave relative to the smallest that is kept of their row.

    Latency: ``LATENCY`` clock cycles from a request to its first beat. Throughput: a request every
    ``spec.kstep_beats`` cycles, which are the cycles of its beats.

    Members
    -------
    write : :py:`In(1)`
    write_bank, write_column, kstep : :py:`In`
        Bank, column, and R x 4n distances in slot order.
    take : :py:`In(1)`
        Read tile of ``bank`` from now on, with ``nearest`` : :py:`In(ArrayLayout(8, 4R))`.
    bank : :py:`In(1)`
        Read in the cycle of a request.
    request : :py:`In(1)`
    column : :py:`In(range(spec.columns))`
    beat_valid : :py:`Out(1)`
    beat : :py:`Out(bus_bits)`
    """

    LATENCY = 3

    def __init__(self, spec):
        self.spec = spec
        columns = range(spec.columns)
        super().__init__({
            "write": In(1), "write_bank": In(1), "write_column": In(columns),
            "kstep": In(spec.tiles.weight_bits),
            "take": In(1), "nearest": In(data.ArrayLayout(8, SIZE * spec.units)), "bank": In(1),
            "request": In(1), "column": In(columns), "beat_valid": Out(1), "beat": Out(spec.tiles.bus_bits)})

    def elaborate(self, platform):
        m = Module()
        spec, bus_bits, slots = self.spec, self.spec.tiles.bus_bits, self.spec.array.assignment.slots
        m.submodules.memory = memory = Memory(shape=spec.tiles.weight_bits, depth=spec.kept_rows, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [write.en.eq(self.write), write.addr.eq(Cat(self.write_column, self.write_bank)),
                     write.data.eq(self.kstep), read.addr.eq(Cat(self.column, self.bank))]

        shifting = Signal(spec.tiles.weight_bits, reset_less=True)
        left, loading = Signal(range(spec.kstep_beats + 1)), Signal()
        rows = [Signal(8, name=f"nearest{row}", reset_less=True) for row in range(SIZE * spec.units)]
        front = bus_bits // 8 // slots  # rows in a beat; the rows go round, so that a K-step brings each here
        m.d.sync += [loading.eq(self.request), self.beat_valid.eq(left != 0)]
        with m.If(loading):
            m.d.sync += [shifting.eq(read.data), left.eq(spec.kstep_beats)]
        with m.Else():
            m.d.sync += [shifting.eq(shifting >> bus_bits), left.eq(Mux(left == 0, 0, left - 1))]
        for row, nearest in enumerate(rows):
            with m.If(self.take):
                m.d.sync += nearest.eq(self.nearest[row])
            with m.Elif(left != 0):
                m.d.sync += nearest.eq(rows[(row + front) % len(rows)])
        for index in range(bus_bits // 8):
            distance = shifting[8 * index:8 * index + 8]
            m.d.sync += self.beat[8 * index:8 * index + 8].eq(
                Mux(distance == MASKED_DISTANCE, MASKED_DISTANCE, distance - rows[index // slots]))
        return m
