"""Sizes of the array and of the accelerator around it: frozen, checked, shared by every component."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from rtl_templates.pair_format import SUM_BITS
from rtl_templates.slot_assignment import SIZE, SlotAssignment
from rtl_templates.tile_format import TileFormat
from rtl_templates.word_format import word_bits


class PoolStorage(StrEnum):
    """Where a unit finds its control word."""

    ROM = "rom"
    """The stream holds a pattern id; logic specialized to the pool decodes it."""
    RAM = "ram"
    """The stream holds a pattern id; a memory loaded over AXI4-Lite decodes it."""
    STREAM = "stream"
    """The stream holds the control word itself (2:4 and other N:M models)."""


class Accumulation(StrEnum):
    """How the n products of a row become one sum."""

    TREE = "tree"
    """An adder tree, then one accumulator a row."""
    DSP = "dsp"
    """One accumulator a multiplier, inside its DSP; added when drained."""
    PAIRED = "paired"
    """One DSP48E2 for two lanes, n in a chain, the last of which accumulates."""


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """R block units x T lanes x 4 rows x n slots, output-stationary.

    Parameters
    ----------
    units : int
        Block units R: 4R output rows in parallel.
    lanes : int
        Token lanes T.
    assignment : SlotAssignment
        The pool's patterns and the routing they need.
    storage : PoolStorage
    accumulator_bits : int
        16 to 32, sign included; proven from the weights by the planner.
    accumulation : Accumulation
        ``DSP`` and ``PAIRED`` need a pool without routing, ``PAIRED`` an even number of lanes.
    """

    units: int
    lanes: int
    assignment: SlotAssignment
    storage: PoolStorage = PoolStorage.ROM
    accumulator_bits: int = 32
    accumulation: Accumulation = Accumulation.TREE

    def __post_init__(self):
        for name, low, high in (("units", 1, 64), ("lanes", 1, 64), ("accumulator_bits", 16, 32)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"ArraySpec.{name} must be {low} to {high}, "
                                 f"not {getattr(self, name)}")
        if self.accumulation is not Accumulation.TREE and self.assignment.is_routed:
            raise ValueError("accumulation in the DSP needs a row-balanced pool")
        if self.accumulation is Accumulation.PAIRED and self.lanes % 2:
            raise ValueError(f"paired lanes need an even number of them, not {self.lanes}")

    @property
    def multipliers(self):
        """MACs per cycle: 4 * n * R * T."""
        return self.assignment.multipliers * self.units * self.lanes

    @property
    def rows(self):
        """Output rows of a tile: 4R."""
        return SIZE * self.units

    @property
    def word_bits(self):
        """Width of an activation word in bits."""
        return word_bits(self.lanes)

    @property
    def control_bits(self):
        """Width of a unit's control field in the stream: an id, or the control word."""
        if self.storage is PoolStorage.STREAM:
            return self.assignment.control_bits
        dense_parts = self.assignment.entries - self.assignment.patterns
        return max(1, (max(self.assignment.patterns, dense_parts) - 1).bit_length())

    @property
    def partial_sums(self):
        """Accumulators of a row: 1, or n if every multiplier accumulates inside its DSP."""
        return self.assignment.slots if self.accumulation is Accumulation.DSP else 1

    @property
    def pair_bits(self):
        """Width of the sums of paired lanes; with more accumulator bits they are extended."""
        least, most = SUM_BITS
        return min(max(self.accumulator_bits, least), most)

    @property
    def adder_levels(self):
        """Registered additions that turn the products, or the partial sums, of a row into one."""
        return (max(len(ports) for ports in self.assignment.ports) - 1).bit_length()

    @property
    def sum_latency(self):
        """Cycles from a K-step at the array's input to its contribution reaching the accumulators.

        Decode, select, multiply, (route,) add: in a tree, or along the chain of paired lanes; in the DSP the
        additions come after the accumulators. In front of a tree products have a second register, so that
        the way to it costs the multiplier nothing; many DSPs have it inside.
        """
        before = {Accumulation.TREE: 1 + self.adder_levels, Accumulation.DSP: 0,
                  Accumulation.PAIRED: self.assignment.slots - 1}
        return 3 + self.assignment.is_routed + before[self.accumulation]

    @property
    def drain_latency(self):
        """Cycles from the last contribution to row 0: accumulate, hold, select row, select unit; then add
        the partial sums, or separate the lanes."""
        after = {Accumulation.TREE: 0, Accumulation.DSP: self.adder_levels, Accumulation.PAIRED: 1}
        return 4 + after[self.accumulation]

    @property
    def latency(self):
        """Cycles from ``last`` at the array's input to row 0 of that pass at its output."""
        return self.sum_latency + self.drain_latency

    def entry_code(self, entry):
        """Id of an entry with the dense bit above it: what addresses the decoder (ROM and RAM).

        A pattern keeps its id; part j of a dense block is ``2**control_bits + j``.
        """
        beyond = entry - self.assignment.patterns
        return entry if beyond < 0 else (1 << self.control_bits) + beyond


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """The units beside the array that run whole encoder layers.

    Parameters
    ----------
    side_words : int
        Depth of the side bank of the activation buffer in words.
    columns : int
        Most words of a token: largest hidden size / 4, 1 to 256.
    key_columns : int
        Most words of a head's key: largest head size / 4.
    tokens : int
        Longest sequence, up to 512.
    norm_channels : int
        Channels per cycle of LayerNorm: 1, 2 or 4.
    map_entries : tuple of int
        Patterns of the pool that attention maps may keep, in the order of their ids; none without map
        pruning.
    map_power : int
        1 or 2.
    """

    side_words: int
    columns: int
    key_columns: int
    tokens: int
    norm_channels: int = 2
    map_entries: tuple[int, ...] = ()
    map_power: int = 1

    def __post_init__(self):
        for name, low, high in (("side_words", 1, 1 << 24), ("columns", 1, 256), ("key_columns", 1, 4096),
                                ("tokens", 1, 512), ("map_power", 1, 2)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"EncoderSpec.{name} must be {low} to {high}, not {getattr(self, name)}")
        if self.norm_channels not in (1, 2, 4):
            raise ValueError(f"EncoderSpec.norm_channels must be 1, 2 or 4, not {self.norm_channels}")


@dataclass(frozen=True, kw_only=True)
class AcceleratorSpec:
    """The array with its buffers, bus and program memory.

    Parameters
    ----------
    array : ArraySpec
    bus_bits : int
        Width of both AXI4 masters, in bits; divides the activation word and the weights of a K-step.
    activation_words : int
        Depth of the activation buffer in words.
    tile_ksteps : int
        Depth of each of the two weight banks, in K-steps.
    column_bits : int
        Width of a K-step's activation column.
    program_depth : int
        Descriptors that the program memory holds.
    configuration : int
        First 32 bits of the configuration hash, readable at run time.
    watchdog_bits : int
        A run in which nothing moves for 2**watchdog_bits cycles ends with an error.
    encoder : EncoderSpec or None
        The units of whole encoder layers; without them the accelerator runs linear layers.
    """

    array: ArraySpec
    bus_bits: int
    activation_words: int
    tile_ksteps: int
    column_bits: int
    program_depth: int
    configuration: int = 0
    watchdog_bits: int = 20
    encoder: EncoderSpec | None = None

    def __post_init__(self):
        if self.array.word_bits % self.bus_bits:
            raise ValueError(f"the {self.bus_bits}-bit bus must divide the activation word of "
                             f"{self.array.word_bits} bits; use a narrower bus or more lanes")
        for name in ("activation_words", "tile_ksteps", "column_bits", "program_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"AcceleratorSpec.{name} must be at least 1, "
                                 f"not {getattr(self, name)}")
        most = 1 << SUM_BITS[1] - 1
        if (self.array.accumulation is Accumulation.PAIRED
                and self.tile_ksteps * self.array.assignment.slots << 14 >= most):
            raise ValueError(f"{self.tile_ksteps} K-steps can exceed the {SUM_BITS[1]} bits of paired sums; "
                             "use another accumulation")
        if self.encoder is not None and self.bus_bits < 64:
            raise ValueError(f"an encoder needs a bus of at least 64 bits, not {self.bus_bits}")
        _ = self.tiles

    @cached_property
    def tiles(self):
        """Layout of the weight stream."""
        return TileFormat(units=self.array.units, multipliers=self.array.assignment.multipliers,
                          control_bits=self.array.control_bits,
                          has_dense_bit=self.array.storage is not PoolStorage.STREAM,
                          column_bits=self.column_bits, bus_bits=self.bus_bits)

    @property
    def beats_per_word(self):
        """Bus beats of an activation word."""
        return self.array.word_bits // self.bus_bits
