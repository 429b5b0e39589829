"""Block reader: reads the columns of a tile from the buffer, word by word, and masks what does not count."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.block_unit import word_layout
from rtl_templates.buffer_ports import COUNT_BITS, read_port
from rtl_templates.pipeline import delay, register
from rtl_templates.slot_assignment import SIZE
from rtl_templates.tile_walk import tile_rows_layout


def rows_of_word_layout(spec, tag_bits):
    """The rows of one word: ``part`` is its number in the column, ``last`` tells that it is the last."""
    return data.StructLayout({
        "valid": 1, "last": 1, "part": range(spec.words_per_column), "tag": tag_bits,
        "rows": spec.rows_layout()})


class BlockReader(wiring.Component):
    """Reads the words of a column in consecutive cycles.

    Rows at and past the valid length, and those of absent token groups, read as ``masked``; with
    ``mask_columns`` also columns at and past it.

    Latency: ``spec.read_cycles`` clock cycles from ``request`` to the rows of the column's first word.
    Throughput: a word per cycle; a request every ``spec.words_per_column`` cycles.

    Members
    -------
    tile : :py:`In(tile_rows_layout(spec))`
        Read with the request.
    valid_length : :py:`In(16)`
        Columns that count, in units of one, not of four.
    request : :py:`In(1)`
    column : :py:`In(range(spec.columns))`
    tag : :py:`In(tag_bits)`
        What the words are for; comes back with them.
    read : :py:`Out(read_port(spec))`
    read_data : :py:`In(word_layout(spec))`
    word : :py:`Out(rows_of_word_layout(spec, tag_bits))`
    """

    def __init__(self, spec, *, masked, mask_columns, tag_bits=1):
        self.spec = spec
        self.masked = masked
        self.mask_columns = mask_columns
        super().__init__({
            "tile": In(tile_rows_layout(spec)), "valid_length": In(COUNT_BITS), "request": In(1),
            "column": In(range(spec.columns)), "tag": In(tag_bits), "read": Out(read_port(spec)),
            "read_data": In(word_layout(spec)), "word": Out(rows_of_word_layout(spec, tag_bits))})

    def elaborate(self, platform):
        m = Module()
        spec, parts = self.spec, self.spec.words_per_column
        request = register(m, self.request, "request", reset=True)
        new_column, new_tag, new_tile = (register(m, value, f"new_{name}") for name, value in (
            ("column", self.column), ("tag", self.tag), ("tile", self.tile)))
        active, running = Signal(), Signal()
        part, next_part = Signal(range(parts)), Signal(range(parts))
        column, next_column = Signal.like(self.column), Signal.like(self.column)
        tag, next_tag = Signal.like(self.tag), Signal.like(self.tag)
        tile, next_tile = Signal(tile_rows_layout(spec)), Signal(tile_rows_layout(spec))
        last = part == parts - 1
        m.d.comb += [
            active.eq(request | running), part.eq(Mux(request, 0, next_part)),
            column.eq(Mux(request, new_column, next_column)), tag.eq(Mux(request, new_tag, next_tag)),
            tile.eq(Mux(request, new_tile, next_tile))]
        m.d.sync += [
            running.eq(active & ~last), next_part.eq(part + 1), next_column.eq(column), next_tag.eq(tag),
            next_tile.eq(tile), next_tile.base.eq(tile.base + tile.stride),
            self.read.enable.eq(active & (part < tile.groups)), self.read.address.eq(tile.base + column)]

        arrival = spec.read_latency + 1
        present = delay(m, self.read.enable, spec.read_latency, "present")
        here_part = delay(m, part, arrival, "part")
        # What counts is found out while the word is on its way.
        coming_part = delay(m, part, arrival - 1, "coming_part")
        coming_column = delay(m, column, arrival - 1, "coming_column")
        m.d.sync += [
            self.word.valid.eq(delay(m, active, arrival, "valid", reset=True)),
            self.word.last.eq(here_part == parts - 1), self.word.part.eq(here_part),
            self.word.tag.eq(delay(m, tag, arrival, "tag"))]
        phase = delay(m, tile.phase, arrival, "phase")
        coming_valid = delay(m, tile.valid, arrival - 1, "coming_valid")
        columns_count = register(m, self._columns_that_count(m, coming_column), "columns_count")
        phase_rows = SIZE * spec.units
        for row in range(spec.word_rows):
            counts = present & register(m, coming_part * spec.word_rows + row < coming_valid,
                                        f"row_counts{row}")
            for channel in range(SIZE):
                value = Signal(8, name=f"value{row}_{channel}")
                choices = [self.read_data[channel][number * phase_rows + row].as_unsigned()
                           for number in range(spec.tiles_per_group)]
                m.d.comb += value.eq(_choose(phase, choices))
                m.d.sync += self.word.rows[row][channel].eq(
                    Mux(counts & columns_count[channel], value, self.masked))
        return m

    def _columns_that_count(self, m, column):
        """One bit for each of the four columns of a block."""
        counts = Signal(SIZE, name="columns_coming")
        if not self.mask_columns:
            m.d.comb += counts.eq(-1)
            return counts
        whole, rest = self.valid_length >> 2, self.valid_length[:2]
        in_part = Cat(rest != 0, rest[1], rest == 3)  # the fourth counts in whole blocks only
        m.d.comb += counts.eq((column < whole).replicate(SIZE) | Mux(column == whole, in_part, 0))
        return counts


def _choose(code, choices):
    """Balanced multiplexer of any number of choices."""
    while len(choices) > 1:
        choices = [Mux(code[0], *reversed(choices[i:i + 2])) if i + 1 < len(choices) else choices[i]
                   for i in range(0, len(choices), 2)]
        code = code[1:]
    return choices[0]
