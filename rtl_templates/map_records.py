"""Map records: selects the patterns of a tile, and holds its index section and its kept distances."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl_templates.exp_table import MASKED_DISTANCE, WEIGHT_BITS
from rtl_templates.kept_distances import KeptDistances
from rtl_templates.map_selector import MapSelector, smaller
from rtl_templates.slot_assignment import SIZE

BLOCK_BYTES = SIZE * SIZE


class MapRecords(wiring.Component):
    """Takes tiles in beats, column after column, unit after unit, 16 bytes each; gives them out pruned.

    While the packet of one tile is made, the next is selected; its first beat may come once the tile before
    the one at hand has been read, and between two tiles there are 2 cycles without a beat or more.

    Latency: ``spec.select_latency`` counts the cycles of a selection. Throughput: a beat per cycle.

    Members
    -------
    columns : :py:`In(range(spec.columns + 1))`
        At least 1; steady.
    valid : :py:`In(1)`
    weights, distances : :py:`In(ArrayLayout(7 and 8, bytes of a beat))`
    prepared : :py:`Out(1)`
        A tile is complete, until ``take``.
    take : :py:`In(1)`
        At once when ``prepared``, unless the tile before is still being read.
    index_beat, index_last, index_advance : index section of the tile taken, as of :class:`DenseIndex`
    request, column, beat_valid, beat : its weights, as distances; see :class:`KeptDistances`
    """

    def __init__(self, spec):
        self.spec = spec
        lanes = spec.tiles.bus_bits // 8
        super().__init__({
            "columns": In(range(spec.columns + 1)), "valid": In(1),
            "weights": In(data.ArrayLayout(WEIGHT_BITS, lanes)), "distances": In(data.ArrayLayout(8, lanes)),
            "prepared": Out(1), "take": In(1), "index_beat": Out(spec.tiles.bus_bits), "index_last": Out(1),
            "index_advance": In(1), "request": In(1), "column": In(range(spec.columns)), "beat_valid": Out(1),
            "beat": Out(spec.tiles.bus_bits)})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        m.submodules.kept = kept = KeptDistances(spec)
        selectors = self._selectors(m)
        together = len(selectors)
        selected = selectors[0].o_valid

        ids = Signal(spec.units * spec.map_id_bits, reset_less=True)
        kstep = Signal(spec.tiles.weight_bits, reset_less=True)
        farthest = Const(MASKED_DISTANCE, 8).replicate(SIZE * spec.units)
        # A register a row: Icarus takes initial values of at most 63 ones without a warning.
        nearest = Cat(Signal(8, name=f"nearest{row}", init=MASKED_DISTANCE)
                      for row in range(SIZE * spec.units))
        new_nearest = [smaller(nearest.word_select(SIZE * index + row, 8), selector.nearest[row])
                       for index, selector in enumerate(selectors) for row in range(SIZE)]
        unit, complete = Signal(range(spec.units // together)), Signal()
        unit_end = unit == spec.units // together - 1
        with m.If(selected):
            m.d.sync += [
                ids.eq(Cat(ids, [selector.id for selector in selectors])[together * spec.map_id_bits:]),
                kstep.eq(Cat(kstep, [selector.kept for selector in selectors])[-len(kstep):]),
                nearest.eq(Cat(nearest, new_nearest)[together * SIZE * 8:]),
                unit.eq(Mux(unit_end, 0, unit + 1))]
        m.d.sync += complete.eq(selected & unit_end)

        column, bank, read_bank = Signal(range(spec.columns)), Signal(), Signal()
        column_end, last, held = Signal(), Signal(), Signal()
        m.d.comb += [
            column_end.eq(column + 1 == self.columns), self.prepared.eq(held | last),
            kept.write.eq(complete), kept.write_bank.eq(bank), kept.write_column.eq(column),
            kept.kstep.eq(kstep), kept.take.eq(self.take), kept.nearest.eq(nearest), kept.bank.eq(~read_bank),
            kept.request.eq(self.request), kept.column.eq(self.column), self.beat_valid.eq(kept.beat_valid),
            self.beat.eq(kept.beat)]
        m.d.sync += [last.eq(complete & column_end), held.eq(self.prepared & ~self.take),
                     read_bank.eq(read_bank ^ self.take)]
        with m.If(complete):
            m.d.sync += [column.eq(Mux(column_end, 0, column + 1)), bank.eq(bank ^ column_end)]
        with m.If(self.take):
            m.d.sync += nearest.eq(farthest)
        self._index(m, complete, column, column_end, bank, read_bank, ids)
        return m

    def _selectors(self, m):
        """Selectors of the blocks of a beat; a beat of less than a block is gathered first."""
        spec, lanes = self.spec, len(self.weights)
        selectors = []
        for index in range(max(1, lanes // BLOCK_BYTES)):
            m.submodules[f"selector{index}"] = selector = MapSelector(spec)
            selectors.append(selector)
            for port, beat in ((selector.weights, self.weights), (selector.distances, self.distances)):
                bits = port.shape().elem_shape * BLOCK_BYTES
                if lanes >= BLOCK_BYTES:
                    m.d.comb += port.eq(beat.as_value()[index * bits:(index + 1) * bits])
                else:
                    block = Signal(bits, reset_less=True)
                    m.d.comb += port.eq(block)
                    with m.If(self.valid):
                        m.d.sync += block.eq(Cat(block, beat)[len(beat.as_value()):])
            if lanes >= BLOCK_BYTES:
                m.d.comb += selector.valid.eq(self.valid)
            else:
                piece = Signal(range(BLOCK_BYTES // lanes))
                with m.If(self.valid):
                    m.d.sync += piece.eq(piece + 1)
                m.d.sync += selector.valid.eq(self.valid & (piece == BLOCK_BYTES // lanes - 1))
        return selectors

    def _index(self, m, complete, column, column_end, bank, read_bank, ids):
        """Records to beats of the index section, into memory and out again."""
        spec, tiles = self.spec, self.spec.tiles
        record = Signal(tiles.record_bits)
        controls = [self._control(ids.word_select(unit, spec.map_id_bits)) for unit in range(spec.units)]
        m.d.comb += record.eq(Cat(Cat(column, Const(0, tiles.column_bits))[:tiles.column_bits],
                                  Const(0, int(tiles.has_dense_bit)), controls))
        position, shift = Signal(range(tiles.records_per_beat)), tiles.records_per_beat.bit_length() - 1
        beat, number, final = (
            Signal(tiles.bus_bits), Signal(range(spec.index_rows // 2)), Signal(range(spec.index_rows // 2)))
        m.submodules.index = memory = Memory(shape=tiles.bus_bits, depth=spec.index_rows, init=[])
        write, read = memory.write_port(), memory.read_port()
        with m.If(complete):
            with m.If(position == 0):
                m.d.sync += beat.eq(record)
            with m.Else():
                m.d.sync += beat.word_select(position, tiles.record_bits).eq(record)
            m.d.sync += position.eq(Mux(column_end, 0, position + 1))
        m.d.sync += [write.en.eq(complete & ((position == tiles.records_per_beat - 1) | column_end)),
                     write.addr.eq(Cat((column >> shift)[:len(number)], bank))]
        m.d.comb += [
            write.data.eq(beat), final.eq((self.columns - 1) >> shift),
            read.addr.eq(Cat((number + self.index_advance)[:len(number)], ~read_bank)),
            self.index_beat.eq(read.data), self.index_last.eq(number == final)]
        m.d.sync += number.eq(Mux(self.take, 0, number + self.index_advance))

    def _control(self, number):
        """Control field of a map pattern: its entry's, by a truth table a bit."""
        spec = self.spec
        codes = [spec.control(entry) for entry in spec.map_entries]
        return Cat(Const(sum((code >> bit & 1) << index for index, code in enumerate(codes)),
                         1 << spec.map_id_bits).bit_select(number, 1)
                   for bit in range(spec.tiles.control_bits))
