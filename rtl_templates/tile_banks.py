"""Tile banks: two banks of K-steps and four slots of row constants."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.record_memory import RecordMemory, RecordSpec, number_of
from rtl_templates.tile_format import CONSTANT_BITS

BANKS = 2
"""Banks of index and weights: one is computed while the next is loaded."""
SLOTS = 4
"""Slots of row constants: results still drain after their bank was freed."""


def section_specs(spec):
    """The memory of each section: dict of RecordSpec."""
    tiles, bus_bits, ksteps = spec.tiles, spec.bus_bits, spec.tile_ksteps
    return {
        "constants": RecordSpec(record_bits=CONSTANT_BITS, bus_bits=bus_bits, records=spec.array.rows,
                                banks=SLOTS),
        "index": RecordSpec(record_bits=tiles.record_bits, bus_bits=bus_bits, records=ksteps, banks=BANKS),
        "weights": RecordSpec(record_bits=tiles.weight_bits, bus_bits=bus_bits, records=ksteps, banks=BANKS)}


def bank_write_layout(spec):
    """A beat on its way into the banks: one enable per section, the place in the section, the data."""
    sections = section_specs(spec).values()
    return data.StructLayout({
        "constants": 1, "index": 1, "weights": 1, "bank": range(BANKS), "slot": range(SLOTS),
        "row": max(section.row_bits for section in sections),
        "part": number_of(max(section.parts for section in sections)), "data": spec.bus_bits})


def index_layout(spec):
    """An index record, as :mod:`rtl_templates.tile_format` packs it."""
    tiles = spec.tiles
    return data.StructLayout({"column": tiles.column_bits, "dense": int(tiles.has_dense_bit),
                              "controls": data.ArrayLayout(tiles.control_bits, tiles.units)})


class TileBanks(wiring.Component):
    """Memories of the tiles that are loaded.

    Latency of each read: ``RecordMemory.LATENCY`` clock cycles. Throughput: one read of each section and
    one beat written per cycle.

    Members
    -------
    write : :py:`In(bank_write_layout(spec))`
    constants_slot, constants_row, constants : slot and row; 64 bits of row constants
    index_bank, index_kstep, index : bank and K-step; :py:`Out(index_layout(spec))`
    weights_bank, weights_kstep, weights : bank and K-step; R x 4n weights
    """

    def __init__(self, spec):
        self.spec = spec
        ksteps = number_of(spec.tile_ksteps)
        super().__init__({
            "write": In(bank_write_layout(spec)),
            "constants_slot": In(range(SLOTS)), "constants_row": In(range(spec.array.rows)),
            "constants": Out(CONSTANT_BITS),
            "index_bank": In(range(BANKS)), "index_kstep": In(ksteps), "index": Out(index_layout(spec)),
            "weights_bank": In(range(BANKS)), "weights_kstep": In(ksteps),
            "weights": Out(spec.tiles.weight_bits)})

    def elaborate(self, platform):
        m = Module()
        memories = {name: RecordMemory(section) for name, section in section_specs(self.spec).items()}
        for name, memory in memories.items():
            m.submodules[name] = memory
            bank = self.write.slot if name == "constants" else self.write.bank
            m.d.comb += [memory.write.eq(self.write[name]), memory.write_bank.eq(bank),
                         memory.write_row.eq(self.write.row), memory.write_part.eq(self.write.part),
                         memory.data.eq(self.write.data)]
        index = Signal(self.spec.tiles.record_bits)
        m.d.comb += [
            memories["constants"].read_bank.eq(self.constants_slot),
            memories["constants"].read_index.eq(self.constants_row),
            self.constants.eq(memories["constants"].record),
            memories["index"].read_bank.eq(self.index_bank),
            memories["index"].read_index.eq(self.index_kstep),
            index.eq(memories["index"].record), self.index.as_value().eq(index),
            memories["weights"].read_bank.eq(self.weights_bank),
            memories["weights"].read_index.eq(self.weights_kstep),
            self.weights.eq(memories["weights"].record)]
        return m
