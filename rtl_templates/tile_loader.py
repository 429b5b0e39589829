"""Tile loader: parses the weight stream and fills the banks."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.enum import IntEnum
from amaranth.lib.wiring import In, Out

from rtl_templates.layernorm_spec import HEADER_RECORDS
from rtl_templates.record_memory import number_of
from rtl_templates.register_map import STATUS_BITS, Status
from rtl_templates.tile_banks import BANKS, SLOTS, bank_write_layout, section_specs
from rtl_templates.tile_format import (
    HEADER_COUNT_BITS,
    HEADER_KSTEPS_BITS,
    LOCAL_MARKER,
    TABLE_MARKER,
    TILE_MARKER,
    Table,
)
from rtl_templates.word_format import CHANNELS

ENTRY_BITS = {Table.GELU: 8, Table.EXP: 8, Table.ATTENTION_NORM: 64, Table.OUTPUT_NORM: 64}
"""Width of an entry of each table, in bits."""


def table_beats(spec):
    """Most beats of each table: those of its memory. Dict by Table."""
    norm = HEADER_RECORDS + CHANNELS * spec.encoder.columns
    entries = {Table.GELU: 512, Table.EXP: 256, Table.ATTENTION_NORM: norm, Table.OUTPUT_NORM: norm}
    return {table: -(-count * ENTRY_BITS[table] // spec.bus_bits) for table, count in entries.items()}


class Section(IntEnum, shape=3):
    """Section of the packet that the next beat belongs to."""

    HEADER = 0
    INDEX = 1
    WEIGHTS = 2
    CONSTANTS = 3
    TABLE = 4


def tile_layout(spec):
    """A loaded tile: where it lies, its K-steps minus one and its output words."""
    return data.StructLayout({
        "bank": range(BANKS), "slot": range(SLOTS), "last_kstep": number_of(spec.tile_ksteps),
        "words": range(spec.array.units + 1)})


loader_state_layout = data.StructLayout({"loading": 1, "packet": 1, "local": 1, "table": 1})
"""What the loader does: it is inside a packet, takes a header, takes tiles from ``local``, takes a table."""


def table_write_layout():
    """An entry on its way to the table of a unit: one of the four, its bank, its place, its value."""
    return data.StructLayout({"enable": 1, "id": Table, "bank": 1, "address": HEADER_COUNT_BITS, "data": 64})


class TileLoader(wiring.Component):
    """Takes one beat per cycle. Begins a tile once a bank and a slot of row constants are free.

    A beat of a table takes a cycle for each of its entries. After a local header, as many tiles as it
    says are taken from ``local``.

    Latency: ``LOADED`` clock cycles from the last beat to the tile's being offered; a bank that is
    released, or a slot whose results have drained, can be filled from the next cycle on.

    Members
    -------
    i : :py:`In(stream.Signature(bus_bits + 1))`
        Packets of :class:`rtl_templates.tile_format.TileFormat`, as ``marked``.
    local : :py:`In(stream.Signature(bus_bits))`
        Only with an encoder: tile packets that are made on chip.
    table : :py:`Out(table_write_layout())`
        Only with an encoder.
    write : :py:`Out(bank_write_layout(spec))`
    tile : :py:`Out(stream.Signature(tile_layout(spec)))`
        Tiles in order, each once it is complete.
    release : :py:`In(1)`
        The last K-step of the oldest tile in a bank is being read.
    drained : :py:`In(1)`
        The last result of the oldest tile in a slot has been requantized.
    holding : :py:`Out(1)`
        A tile is loaded or being used, a packet is under way, or tiles from ``local`` are awaited.
    error : :py:`Out(STATUS_BITS)`
        Not 0: the status code of a bad header; the loader has stopped, until reset.
    state : :py:`Out(loader_state_layout)`
        For benches; see :mod:`rtl_templates.activity`.
    """

    LOADED = 1

    def __init__(self, spec):
        self.spec = spec
        members = {"i": In(stream.Signature(spec.bus_bits + 1)), "write": Out(bank_write_layout(spec)),
                   "tile": Out(stream.Signature(tile_layout(spec))), "release": In(1),
                   "drained": In(1), "holding": Out(1), "error": Out(STATUS_BITS),
                   "state": Out(loader_state_layout)}
        if spec.encoder is not None:
            members |= {"local": In(stream.Signature(spec.bus_bits)), "table": Out(table_write_layout())}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        sections = section_specs(self.spec)
        section, begins = Signal(Section), Signal(init=1)  # `begins`: section is HEADER
        banks_held = Signal(range(BANKS + 1))
        slots_held = Signal(range(SLOTS + 1))
        beat, valid = Signal(self.spec.bus_bits), Signal()
        header, take, complete = Signal(), Signal(), Signal()
        table_entry_end = Signal(init=1)
        # Whether beats are taken from memory, and from units; neither once the loader has stopped.
        sources = Signal(init=1, name="from_memory"), Signal(name="from_units")
        tile_header, room = Signal(), Signal(init=1)  # what comes is no other header; a tile may begin
        m.d.comb += [
            header.eq(take & begins & tile_header), self.state.loading.eq(~begins),
            self.state.packet.eq(take & begins),
            self.state.table.eq(section == Section.TABLE)]
        local = self._source(m, begins, sources, beat, valid, take, tile_header, room, table_entry_end,
                             complete)
        m.d.comb += self.holding.eq(banks_held.any() | ~begins | local)
        # A header shows two cycles later: the next one does not come sooner.
        m.d.sync += [banks_held.eq(banks_held + header - self.release),
                     slots_held.eq(slots_held + header - self.drained),
                     room.eq((self.release | (banks_held != BANKS)) & (self.drained | (slots_held != SLOTS)))]

        ksteps = Signal(HEADER_KSTEPS_BITS)
        words = Signal(8)
        marker = Signal(8)
        check = Signal()
        m.d.sync += check.eq(take & begins)
        with m.If(take & begins):
            m.d.sync += [ksteps.eq(beat), words.eq(beat[16:24]), marker.eq(beat[24:32])]
        self._check(m, check, marker, ksteps, words, sources)

        # Rows of the sections minus one.
        last_row = {name: Signal(spec.row_bits, name=f"last_row_{name}")
                    for name, spec in sections.items()}
        index_shift = sections["index"].records_per_row.bit_length() - 1
        m.d.comb += last_row["constants"].eq(sections["constants"].rows - 1)
        m.d.sync += last_row["weights"].eq(ksteps - 1)
        with m.If(header):
            m.d.sync += last_row["index"].eq((beat[:HEADER_KSTEPS_BITS] - 1) >> index_shift)

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
            m.d.sync += [section.eq(Section.INDEX), begins.eq(0), row.eq(0), part.eq(0)]
        with m.Elif(take & ~begins & (section != Section.TABLE)):
            m.d.sync += part.eq(part + 1)
            with m.If(last_part):
                m.d.sync += [part.eq(0), row.eq(row + 1)]
            with m.If(section_end):
                m.d.sync += [row.eq(0), section.eq(Mux(section == Section.CONSTANTS, Section.HEADER,
                                                       section + 1)),
                             begins.eq(section == Section.CONSTANTS)]
        if self.spec.encoder is not None:
            self._tables(m, section, begins, table_entry_end)
        m.d.comb += complete.eq(take & section_end & (section == Section.CONSTANTS))
        with m.If(complete):
            m.d.sync += [bank.eq(bank + 1), slot.eq(slot + 1)]

        m.d.sync += [self.write[name].eq(take & (section == value)) for name, value in codes.items()]
        m.d.sync += [self.write.bank.eq(bank), self.write.slot.eq(slot), self.write.row.eq(row),
                     self.write.part.eq(part), self.write.data.eq(beat)]
        self._offer(m, complete, bank, slot, ksteps, words)
        return m

    def _check(self, m, check, marker, count, rest, sources):
        """Stops at a bad header, with its status code: its marker, bits 15:0 and bits 23:16."""
        bad_sizes = ((count == 0) | (count > self.spec.tile_ksteps) | (rest == 0)
                     | (rest > self.spec.array.units))
        code = Signal(STATUS_BITS)
        with m.Switch(marker):
            with m.Case(TILE_MARKER), m.If(bad_sizes):
                m.d.comb += code.eq(Status.BAD_TILE)
            if self.spec.encoder is not None:
                with m.Case(TABLE_MARKER):
                    fits = [(rest[:4] == table) & (count <= most)
                            for table, most in table_beats(self.spec).items()]
                    with m.If((count == 0) | rest[5:].any() | ~Cat(fits).any()):
                        m.d.comb += code.eq(Status.BAD_TABLE)
                with m.Case(LOCAL_MARKER), m.If(count == 0):
                    m.d.comb += code.eq(Status.BAD_LOCAL)
            with m.Default():
                m.d.comb += code.eq(Status.BAD_PACKET)
        with m.If(check & Cat(sources).any()):
            m.d.sync += self.error.eq(code)
            with m.If(code.any()):
                m.d.sync += [source.eq(0) for source in sources]

    def _source(self, m, begins, sources, beat, valid, take, tile_header, room, entry_end, complete):
        """Beats come from memory, or, after a local header, from the units; returns when the latter.

        Each source has a ready of its own, so that no beat of one is in the other's way: what the units
        send are tiles alone.
        """
        other_header, local = Signal(), Signal()
        from_memory, from_units = sources
        incoming = self.i.payload[:self.spec.bus_bits]
        m.d.comb += [
            other_header.eq(~self.i.payload[-1]), tile_header.eq(local | ~other_header),
            self.i.ready.eq(from_memory & entry_end & (~begins | other_header | room))]
        if self.spec.encoder is None:
            m.d.comb += [beat.eq(incoming), valid.eq(self.i.valid),
                         take.eq(self.i.valid & self.i.ready)]
            return local
        left = Signal(HEADER_COUNT_BITS)
        m.d.comb += [self.state.local.eq(local), beat.eq(Mux(local, self.local.payload, incoming)),
                     valid.eq(Mux(local, self.local.valid, self.i.valid)),
                     self.local.ready.eq(from_units & (~begins | room)),
                     take.eq((self.i.valid & self.i.ready) | (self.local.valid & self.local.ready))]
        with m.If(self.i.valid & self.i.ready & begins & (incoming[24:32] == LOCAL_MARKER)):
            tiles = incoming[:HEADER_COUNT_BITS].any()
            m.d.sync += [left.eq(incoming), local.eq(tiles), from_units.eq(tiles), from_memory.eq(~tiles)]
        with m.Elif(complete & local):
            m.d.sync += [left.eq(left - 1), local.eq(left != 1), from_units.eq(left != 1),
                         from_memory.eq(left == 1)]
        return local

    def _tables(self, m, section, begins, entry_end):
        """Entries of a table, one per cycle; ``entry_end`` is 1 with the last one of a beat.

        It is 1 outside of tables, and computed a cycle ahead: whether a beat is taken hangs on it. Tables
        come from memory alone.
        """
        bus_bits = self.spec.bus_bits
        beat, take = self.i.payload[:bus_bits], self.i.valid & self.i.ready
        beats, table = Signal(HEADER_COUNT_BITS), Signal(Table, init=Table.GELU)
        bank, address = Signal(), Signal(HEADER_COUNT_BITS)
        entry = Signal(range(bus_bits // 8))
        wide, one_a_beat = Signal(), bus_bits == 64
        within = self.i.valid & (section == Section.TABLE)
        m.d.comb += wide.eq(_is_wide(table))
        with m.If(within):
            m.d.sync += [
                entry.eq(Mux(entry_end, 0, entry + 1)), address.eq(address + 1),
                entry_end.eq(Mux(entry_end, (beats == 1) | (wide & one_a_beat),
                                 entry + 1 == Mux(wide, bus_bits // 64 - 1, bus_bits // 8 - 1)))]
        narrow = beat.word_select(entry, 8)
        m.d.sync += [
            self.table.enable.eq(within), self.table.id.eq(table), self.table.bank.eq(bank),
            self.table.address.eq(address),
            self.table.data.eq(Mux(wide, beat.word_select(entry[:max(1, len(entry) - 3)], 64), narrow))]
        with m.If(take & begins & (beat[24:32] == TABLE_MARKER)):
            m.d.sync += [section.eq(Section.TABLE), begins.eq(0), beats.eq(beat), table.eq(beat[16:20]),
                         bank.eq(beat[20]), entry.eq(0), address.eq(0),
                         entry_end.eq(_is_wide(beat[16:20]) & one_a_beat)]
        with m.Elif(take & (section == Section.TABLE)):
            m.d.sync += beats.eq(beats - 1)
            with m.If(beats == 1):
                m.d.sync += [section.eq(Section.HEADER), begins.eq(1)]

    def _offer(self, m, complete, bank, slot, ksteps, words):
        """Up to one loaded tile in each bank, offered in the order of loading."""
        loaded = [Signal(name=f"loaded{index}") for index in range(BANKS)]
        tiles = [Signal(tile_layout(self.spec), name=f"tile{index}") for index in range(BANKS)]
        turn = Signal(range(BANKS))
        started = Signal()
        m.d.comb += started.eq(self.tile.valid & self.tile.ready)
        coming = [loaded[index] | (complete & (bank == index)) for index in range(BANKS)]
        m.d.sync += self.tile.valid.eq(Mux(started, Mux(turn, coming[0], coming[1]),
                                           Mux(turn, coming[1], coming[0])))
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


def _is_wide(table):
    """Whether the entries of a table have 64 bits."""
    return (table == Table.ATTENTION_NORM) | (table == Table.OUTPUT_NORM)


def marked(beat):
    """A beat, and above it whether its marker is that of a tile: found out before beats are queued, since
    what the loader takes hangs on it."""
    return Cat(beat, beat[24:32] == TILE_MARKER)
