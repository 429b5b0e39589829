"""Geometry of tile packets that are made on chip: which words of a buffer hold the rows of a tile."""

from dataclasses import dataclass

from amaranth.lib import data

from rtl_templates.array_spec import ArraySpec, PoolStorage
from rtl_templates.slot_assignment import SIZE
from rtl_templates.tile_format import TileFormat


@dataclass(frozen=True, kw_only=True)
class PacketSourceSpec:
    """A tensor of words in the buffer becomes the weights of tiles.

    The tokens of the words become rows, their channels become columns: unit u of tile i holds the row
    block ``b = i * R + u``, which lies in token group ``b // (T / 4)``, quarter ``b % (T / 4)``. A *column*
    is one word column of the tensor: a 4x4 block in each of the R units.

    Parameters
    ----------
    array : ArraySpec
        Lanes a multiple of 4; of R and T / 4, one divides the other.
    tiles : TileFormat
        Its bus divides the activation word.
    columns : int
        Most columns of a tile, 1 to 4096.
    address_bits : int
        Width of an address in the buffer, in words.
    read_latency : int
        Cycles from a read's enable to its word, 1 to 8.
    """

    array: ArraySpec
    tiles: TileFormat
    columns: int
    address_bits: int
    read_latency: int = 2

    def __post_init__(self):
        name, array, tiles = type(self).__name__, self.array, self.tiles
        if array.lanes % SIZE:
            raise ValueError(f"{name}: lanes must be a multiple of {SIZE}, not {array.lanes}")
        if array.units % self.quarters and self.quarters % array.units:
            raise ValueError(f"{name}: {array.units} units and {self.quarters} blocks of tokens in a word: "
                             "one must be a multiple of the other")
        if (tiles.units, tiles.multipliers) != (array.units, array.assignment.multipliers):
            raise ValueError(f"{name}: the tile format is for {tiles.units} x {tiles.multipliers} "
                             f"multipliers, the array of {array.units} x {array.assignment.multipliers}")
        if array.word_bits % tiles.bus_bits:
            raise ValueError(f"{name}: the {tiles.bus_bits}-bit bus must divide the activation word of "
                             f"{array.word_bits} bits; use a narrower bus or more lanes")
        for field, low, high in (("columns", 1, 4096), ("address_bits", 1, 32), ("read_latency", 1, 8)):
            if not low <= getattr(self, field) <= high:
                raise ValueError(f"{name}.{field} must be {low} to {high}, not {getattr(self, field)}")
        if self.columns > 1 << tiles.column_bits:
            raise ValueError(f"{name}: {self.columns} columns do not fit {tiles.column_bits} column bits")

    @property
    def lanes(self):
        """Token lanes T."""
        return self.array.lanes

    @property
    def units(self):
        """Block units R."""
        return self.array.units

    @property
    def quarters(self):
        """Blocks of tokens in a word: T / 4."""
        return self.array.lanes // SIZE

    @property
    def words_per_column(self):
        """Words that hold a column of a tile: 4R / T, at least 1."""
        return max(1, self.units // self.quarters)

    @property
    def tiles_per_group(self):
        """Tiles that share the words of a token group: T / 4R, at least 1."""
        return max(1, self.quarters // self.units)

    @property
    def word_rows(self):
        """Rows of a tile that a word holds: the smaller of T and 4R."""
        return min(self.lanes, SIZE * self.units)

    @property
    def parts(self):
        """K-steps of a dense block: 4 / n."""
        return SIZE // self.array.assignment.slots

    @property
    def kstep_beats(self):
        """Bus beats of the weights of a K-step."""
        return self.tiles.weight_beats(1)

    @property
    def column_beats(self):
        """Bus beats of the weights of a dense column; never less than ``words_per_column``."""
        return self.parts * self.kstep_beats

    def tile_count(self, groups):
        """Tiles of ``groups`` token groups."""
        return -(-groups * self.quarters // self.units)

    def cycles(self, groups, columns, **what):
        """Cycles from a command to its last beat, if headers and beats never wait; ``what``: of ``times``."""
        times = self.times(columns, **what)
        return [times.taken(times.offered) for _ in range(self.tile_count(groups))][-1]

    def control(self, entry):
        """Control field of an entry of the assignment in an index record."""
        if self.array.storage is PoolStorage.STREAM:
            return self.array.assignment.control_word(entry)
        return self.array.entry_code(entry) & ((1 << self.array.control_bits) - 1)

    def dense_order(self):
        """(unit, row, column) of each weight byte of a dense column, in the order of the packet."""
        assignment = self.array.assignment
        return [(unit, assignment.rows[entry][slot], assignment.columns[entry][slot])
                for entry in assignment.dense_entries for unit in range(self.units)
                for slot in range(assignment.multipliers)]

    @property
    def read_cycles(self):
        """Cycles from the request of a column to the rows of its first word."""
        return self.read_latency + 3

    def rows_layout(self):
        """Rows of one word that belong to a tile: ``rows[row][column]``, 8 bits each."""
        return data.ArrayLayout(data.ArrayLayout(8, SIZE), self.word_rows)
