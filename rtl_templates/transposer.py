"""Transposer: words of 4 channels x T tokens to words of 4 tokens x T channels, and back."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from rtl_templates.block_unit import word_layout
from rtl_templates.buffer_ports import COUNT_BITS, STRIDE_BITS, read_port, write_port
from rtl_templates.pipeline import delay, register
from rtl_templates.word_format import CHANNELS


@dataclass(frozen=True, kw_only=True)
class TransposerSpec:
    """Transposition of a tensor of words, in tiles of T x T values.

    The source has ``groups`` groups of T tokens, each of ``columns`` words of 4 channels. The destination has
    ``ceil(4 * columns / T)`` groups of T channels, each of ``words`` words of 4 tokens. Transposing twice
    gives the tensor back. A command takes::

        tiles(groups, columns) * T / 4 + latency

    Parameters
    ----------
    lanes : int
        T: a multiple of 4, 4 to 64.
    address_bits : int
        Width of an address in the activation buffer, in words.
    read_latency : int
        Cycles from a read's enable to its word, at least 1.
    """

    lanes: int
    address_bits: int
    read_latency: int = 2

    def __post_init__(self):
        if not 4 <= self.lanes <= 64 or self.lanes % CHANNELS:
            raise ValueError(f"TransposerSpec.lanes must be a multiple of 4, 4 to 64, not {self.lanes}")
        for name, low, high in (("address_bits", 1, 32), ("read_latency", 1, 8)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"TransposerSpec.{name} must be {low} to {high}, not {getattr(self, name)}")

    @property
    def tile_words(self):
        """Words of a tile: T / 4."""
        return self.lanes // CHANNELS

    @property
    def latency(self):
        """Cycles from a tile's first read to its first write."""
        return self.read_latency + self.tile_words + 2

    def tiles(self, groups, columns):
        """Tiles of a source tensor.

        >>> TransposerSpec(lanes=8, address_bits=12).tiles(groups=16, columns=5)
        48
        """
        return groups * -(-columns // self.tile_words)

    def cycles(self, groups, columns):
        """Cycles from ``start`` to ``done``.

        >>> TransposerSpec(lanes=8, address_bits=12).cycles(groups=16, columns=16)
        262
        """
        return self.tiles(groups, columns) * self.tile_words + self.latency

    def command_layout(self):
        """A command; addresses and strides in words.

        ``columns``: words of a source group; of words that the last tile has beyond them, 0 is taken.
        ``words``: words of a destination group; what the last tile has beyond them is not written.
        """
        return data.StructLayout({
            "groups": COUNT_BITS, "columns": COUNT_BITS, "words": COUNT_BITS,
            "source": self.address_bits, "source_stride": STRIDE_BITS,
            "destination": self.address_bits, "destination_stride": STRIDE_BITS})


class Transposer(wiring.Component):
    """Reads and writes one word per cycle, tile after tile without a gap.

    One tile of T x T bytes serves for two: a tile enters by rows, 4 at a time, while the one before leaves
    by rows, and leaves by columns while the next one enters by columns. So every tile leaves across the
    direction in which it came.

    ``start`` in cycle 0 gives ``busy`` in cycles 1 to n and ``done`` in cycle n =
    ``spec.cycles(groups, columns)``; the next start may be in cycle n + 1.

    Members
    -------
    start : :py:`In(1)`
    command : :py:`In(spec.command_layout())`
        Read in the cycle of ``start``; all counts at least 1.
    busy, done : :py:`Out(1)`
    read : :py:`Out(read_port(spec))`
    read_data : :py:`In(word_layout(spec))`
        ``spec.read_latency`` cycles after the enable.
    write : :py:`Out(write_port(spec))`
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"start": In(1), "command": In(spec.command_layout()),
                          "busy": Out(1), "done": Out(1), "read": Out(read_port(spec)),
                          "read_data": In(word_layout(spec)), "write": Out(write_port(spec))})

    def elaborate(self, platform):
        m = Module()
        spec = self.spec
        command = Signal(spec.command_layout())
        with m.If(self.start):
            m.d.sync += command.eq(self.command)
        m.d.sync += self.busy.eq(self.start | (self.busy & ~self.done))
        direction, address, enable, final = self._walk(m, command)

        word = Signal(word_layout(spec), reset_less=True)
        present = delay(m, self.read.enable, spec.read_latency, "present")
        m.d.sync += word.eq(Mux(present, self.read_data, 0))
        by_columns = delay(m, direction, spec.read_latency + 1, "by_columns")
        m.d.sync += self.write.data.eq(self._shift(m, word, by_columns))

        after = spec.latency - 1
        m.d.comb += [self.write.enable.eq(delay(m, enable, after, "enable", reset=True)),
                     self.write.address.eq(delay(m, address, after, "address")),
                     self.done.eq(delay(m, final, spec.latency, "final", reset=True))]
        return m

    def _walk(self, m, command):
        """Reads words; gives the tile's direction, and, a cycle later, address and enable of its word of
        the same number."""
        spec = self.spec
        running, direction, word = Signal(), Signal(), Signal(range(spec.tile_words))
        group, column, position = Signal(COUNT_BITS), Signal(COUNT_BITS + 1), Signal(COUNT_BITS + 5)
        source, destination = Signal(spec.address_bits), Signal(spec.address_bits)
        tile_end, group_end, final = Signal(), Signal(), Signal()
        # Of the column and the group at hand, known a cycle ahead.
        present, last_column, last_group = Signal(), Signal(), Signal()
        m.d.comb += [tile_end.eq(word == spec.tile_words - 1), group_end.eq(tile_end & last_column),
                     final.eq(running & group_end & last_group)]
        with m.If(self.start):
            m.d.sync += [word.eq(0), group.eq(0), column.eq(0), position.eq(0),
                         source.eq(self.command.source), destination.eq(self.command.destination),
                         present.eq(1), last_column.eq(self.command.columns == 1),
                         last_group.eq(self.command.groups == 1)]
        with m.Elif(running):
            m.d.sync += [word.eq(Mux(tile_end, 0, word + 1)), column.eq(column + 1),
                         present.eq(~last_column), last_column.eq(column + 2 >= command.columns),
                         direction.eq(direction ^ tile_end)]
            with m.If(tile_end):
                m.d.sync += destination.eq(destination + command.destination_stride)
            with m.If(group_end):
                m.d.sync += [group.eq(group + 1), column.eq(0), position.eq(position + spec.tile_words),
                             source.eq(source + command.source_stride), destination.eq(command.destination),
                             present.eq(1), last_column.eq(command.columns == 1),
                             last_group.eq(group + 2 == command.groups)]
        m.d.sync += running.eq(self.start | (running & ~final))
        m.d.comb += [self.read.enable.eq(running & present),
                     self.read.address.eq(source + column)]
        goal = register(m, position + word, "goal")
        address = (register(m, destination, "goal_base") + goal)[:spec.address_bits]
        return direction, address, register(m, running, "writes", reset=True) & (goal < command.words), final

    def _shift(self, m, word, by_columns):
        """Moves the tile by 4 rows or 4 columns in every cycle; the word that leaves."""
        lanes = self.spec.lanes
        tile = [[Signal(8, name=f"tile{row}_{column}", reset_less=True) for column in range(lanes)]
                for row in range(lanes)]
        for row in range(lanes):
            for column in range(lanes):
                from_below = tile[row + 4][column] if row + 4 < lanes else word[row + 4 - lanes][column]
                from_right = tile[row][column + 4] if column + 4 < lanes else word[column + 4 - lanes][row]
                m.d.sync += tile[row][column].eq(Mux(by_columns, from_right, from_below))
        return Cat(Mux(by_columns, tile[lane][channel], tile[channel][lane])
                   for channel in range(CHANNELS) for lane in range(lanes))
