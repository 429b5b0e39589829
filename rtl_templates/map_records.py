"""Map records: selects the pattern of every block of a tile and packs the index section."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from rtl_templates.exp_table import MASKED_DISTANCE, WEIGHT_BITS
from rtl_templates.map_selector import MapSelector, smaller
from rtl_templates.slot_assignment import SIZE

BLOCK_BYTES = SIZE * SIZE


class MapRecords(wiring.Component):
    """Takes a tile's columns in beats, unit after unit, 16 bytes each; gives index beats and pattern ids.

    Throughput: a beat per cycle.

    Members
    -------
    start : :py:`In(1)`
        Before the first beat of a tile.
    columns : :py:`In(range(spec.columns + 1))`
        At least 1; steady.
    valid : :py:`In(1)`
    weights, distances : :py:`In(ArrayLayout(7 and 8, bytes of a beat))`
    push, last : :py:`Out(1)`
        An index beat; the last one of the tile.
    beat : :py:`Out(bus_bits)`
    nearest : :py:`Out(ArrayLayout(8, 4R))`
        Smallest distance of the kept keys of each row; complete with the last index beat.
    column : :py:`In(range(spec.columns))`
    ids : :py:`Out(ArrayLayout(map_id_bits, R))`
        Map patterns of that column, 1 cycle later.
    """

    def __init__(self, spec):
        self.spec = spec
        lanes = spec.tiles.bus_bits // 8
        super().__init__({
            "start": In(1), "columns": In(range(spec.columns + 1)), "valid": In(1),
            "weights": In(data.ArrayLayout(WEIGHT_BITS, lanes)), "distances": In(data.ArrayLayout(8, lanes)),
            "push": Out(1), "last": Out(1), "beat": Out(spec.tiles.bus_bits),
            "nearest": Out(data.ArrayLayout(8, SIZE * spec.units)), "column": In(range(spec.columns)),
            "ids": Out(data.ArrayLayout(spec.map_id_bits, spec.units))})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        selectors = self._selectors(m)
        together = len(selectors)
        selected = selectors[0].o_valid

        ids = Signal(spec.units * spec.map_id_bits, reset_less=True)
        nearest = Signal(self.nearest.shape(), reset_less=True)
        new_ids, new_nearest = [selector.id for selector in selectors], []
        for index, selector in enumerate(selectors):
            new_nearest += [smaller(nearest[SIZE * index + row], selector.nearest[row])
                            for row in range(SIZE)]
        unit, complete = Signal(range(spec.units // together)), Signal()
        unit_end = unit == spec.units // together - 1
        with m.If(self.start):
            m.d.sync += [nearest.eq(Const(MASKED_DISTANCE, 8).replicate(SIZE * spec.units)), unit.eq(0)]
        with m.Elif(selected):
            m.d.sync += [
                ids.eq(Cat(ids, new_ids)[together * spec.map_id_bits:]),
                nearest.eq(Cat(nearest, new_nearest)[together * SIZE * 8:]),
                unit.eq(Mux(unit_end, 0, unit + 1))]
        m.d.sync += complete.eq(selected & unit_end)
        m.d.comb += self.nearest.eq(nearest)

        column = Signal(range(spec.columns))
        m.submodules.memory = memory = Memory(shape=len(ids), depth=spec.columns, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [write.en.eq(complete), write.addr.eq(column), write.data.eq(ids),
                     read.addr.eq(self.column), self.ids.as_value().eq(read.data)]
        self._pack(m, complete, column, ids)
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
                with m.If(self.start):
                    m.d.sync += piece.eq(0)
                with m.Elif(self.valid):
                    m.d.sync += piece.eq(piece + 1)
                m.d.sync += selector.valid.eq(self.valid & (piece == BLOCK_BYTES // lanes - 1))
        return selectors

    def _pack(self, m, complete, column, ids):
        """Records to beats."""
        spec, tiles = self.spec, self.spec.tiles
        position = Signal(range(tiles.records_per_beat))
        position_end, column_end = position == tiles.records_per_beat - 1, column + 1 == self.columns
        record = Signal(tiles.record_bits)
        controls = [self._control(ids.word_select(unit, spec.map_id_bits)) for unit in range(spec.units)]
        m.d.comb += record.eq(Cat(Cat(column, Const(0, tiles.column_bits))[:tiles.column_bits],
                                  Const(0, int(tiles.has_dense_bit)), controls))
        m.d.sync += [self.push.eq(complete & (position_end | column_end)),
                     self.last.eq(complete & column_end)]
        with m.If(self.start):
            m.d.sync += [column.eq(0), position.eq(0)]
        with m.Elif(complete):
            m.d.sync += [column.eq(column + 1), position.eq(Mux(position_end, 0, position + 1))]
            with m.If(position == 0):
                m.d.sync += self.beat.eq(record)
            with m.Else():
                m.d.sync += self.beat.word_select(position, tiles.record_bits).eq(record)

    def _control(self, number):
        """Control field of a map pattern: its entry's, by a truth table a bit."""
        spec = self.spec
        codes = [spec.control(entry) for entry in spec.map_entries]
        return Cat(Const(sum((code >> bit & 1) << index for index, code in enumerate(codes)),
                         1 << spec.map_id_bits).bit_select(number, 1)
                   for bit in range(spec.tiles.control_bits))
