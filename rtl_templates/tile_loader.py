"""Tile loader: parses the weight stream and fills the banks."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.enum import IntEnum
from amaranth.lib.wiring import In, Out

from rtl_templates.record_memory import number_of
from rtl_templates.tile_banks import BANKS, SLOTS, bank_write_layout, section_specs
from rtl_templates.tile_format import HEADER_KSTEPS_BITS, TILE_MARKER


class Section(IntEnum, shape=2):
    """Section of the packet that the next beat belongs to."""

    HEADER = 0
    CONSTANTS = 1
    INDEX = 2
    WEIGHTS = 3


def tile_layout(spec):
    """A loaded tile: where it lies, its K-steps minus one and its output words."""
    return data.StructLayout({
        "bank": range(BANKS), "slot": range(SLOTS), "last_kstep": number_of(spec.tile_ksteps),
        "words": range(spec.array.units + 1)})


class TileLoader(wiring.Component):
    """Takes one beat per cycle. Begins a packet once a bank and a slot of row constants are free.

    Latency: ``LOADED`` clock cycles from the last beat to the tile's being offered; a bank that is
    released, or a slot whose results have drained, can be filled from the next cycle on.

    Members
    -------
    i : :py:`In(stream.Signature(bus_bits))`
        Packets of :class:`rtl_templates.tile_format.TileFormat`.
    write : :py:`Out(bank_write_layout(spec))`
    tile : :py:`Out(stream.Signature(tile_layout(spec)))`
        Tiles in order, each once it is complete.
    release : :py:`In(1)`
        The last K-step of the oldest tile in a bank is being read.
    drained : :py:`In(1)`
        The last result of the oldest tile in a slot has been requantized.
    error : :py:`Out(1)`
        A header has a wrong marker or sizes; the loader has stopped, until reset.
    """

    LOADED = 1

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"i": In(stream.Signature(spec.bus_bits)), "write": Out(bank_write_layout(spec)),
                          "tile": Out(stream.Signature(tile_layout(spec))), "release": In(1),
                          "drained": In(1), "error": Out(1)})

    def elaborate(self, platform):
        m = Module()
        sections = section_specs(self.spec)
        section = Signal(Section)
        banks_held = Signal(range(BANKS + 1))
        slots_held = Signal(range(SLOTS + 1))
        beat = self.i.payload
        header, take, complete = Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~self.error & ((section != Section.HEADER)
                                           | ((banks_held != BANKS) & (slots_held != SLOTS)))),
            take.eq(self.i.valid & self.i.ready), header.eq(take & (section == Section.HEADER))]
        m.d.sync += [banks_held.eq(banks_held + header - self.release),
                     slots_held.eq(slots_held + header - self.drained)]

        ksteps = Signal(HEADER_KSTEPS_BITS)
        words = Signal(8)
        marker = Signal(8)
        check = Signal()
        m.d.sync += check.eq(header)
        with m.If(header):
            m.d.sync += [ksteps.eq(beat), words.eq(beat[16:24]), marker.eq(beat[24:32])]
        with m.If(check & ((marker != TILE_MARKER) | (ksteps == 0) | (ksteps > self.spec.tile_ksteps)
                           | (words == 0) | (words > self.spec.array.units))):
            m.d.sync += self.error.eq(1)

        # Rows of the sections minus one; two cycles after the header, when the index begins at the earliest.
        last_row = {name: Signal(spec.row_bits, name=f"last_row_{name}")
                    for name, spec in sections.items()}
        index_shift = sections["index"].records_per_row.bit_length() - 1
        m.d.comb += last_row["constants"].eq(sections["constants"].rows - 1)
        m.d.sync += [last_row["index"].eq((ksteps - 1) >> index_shift), last_row["weights"].eq(ksteps - 1)]

        row = Signal(max(spec.row_bits for spec in sections.values()))
        part = Signal(number_of(max(spec.parts for spec in sections.values())))
        bank, slot = Signal(range(BANKS)), Signal(range(SLOTS))
        last_part, section_end = Signal(), Signal()
        codes = {"constants": Section.CONSTANTS, "index": Section.INDEX, "weights": Section.WEIGHTS}
        with m.Switch(section):
            for name, value in codes.items():
                with m.Case(value):
                    m.d.comb += [last_part.eq(part == sections[name].parts - 1),
                                 section_end.eq(last_part & (row == last_row[name]))]
        with m.If(header):
            m.d.sync += [section.eq(Section.CONSTANTS), row.eq(0), part.eq(0)]
        with m.Elif(take):
            m.d.sync += part.eq(part + 1)
            with m.If(last_part):
                m.d.sync += [part.eq(0), row.eq(row + 1)]
            with m.If(section_end):
                m.d.sync += [row.eq(0), section.eq(section + 1)]  # weights wrap to header
        m.d.comb += complete.eq(take & section_end & (section == Section.WEIGHTS))
        with m.If(complete):
            m.d.sync += [bank.eq(bank + 1), slot.eq(slot + 1)]

        m.d.sync += [self.write[name].eq(take & (section == value)) for name, value in codes.items()]
        m.d.sync += [self.write.bank.eq(bank), self.write.slot.eq(slot), self.write.row.eq(row),
                     self.write.part.eq(part), self.write.data.eq(beat)]
        self._offer(m, complete, bank, slot, ksteps, words)
        return m

    def _offer(self, m, complete, bank, slot, ksteps, words):
        """Up to one loaded tile in each bank, offered in the order of loading."""
        loaded = [Signal(name=f"loaded{index}") for index in range(BANKS)]
        tiles = [Signal(tile_layout(self.spec), name=f"tile{index}") for index in range(BANKS)]
        turn = Signal(range(BANKS))
        started = Signal()
        m.d.comb += [self.tile.valid.eq((loaded[0] & ~turn) | (loaded[1] & turn)),
                     started.eq(self.tile.valid & self.tile.ready)]
        with m.If(turn):
            m.d.comb += self.tile.payload.eq(tiles[1])
        with m.Else():
            m.d.comb += self.tile.payload.eq(tiles[0])
        m.d.sync += turn.eq(turn + started)
        for index in range(BANKS):
            with m.If(complete & (bank == index)):
                m.d.sync += [loaded[index].eq(1), tiles[index].bank.eq(bank), tiles[index].slot.eq(slot),
                             tiles[index].last_kstep.eq(ksteps - 1), tiles[index].words.eq(words)]
            with m.Elif(started & (turn == index)):
                m.d.sync += loaded[index].eq(0)
