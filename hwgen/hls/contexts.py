"""Variables of the HLS templates: one frozen dataclass a template, so that templates compute nothing."""

from dataclasses import dataclass

from hwgen.plan import PlanError
from rtl_templates.array_spec import PoolStorage
from rtl_templates.slot_assignment import SIZE
from rtl_templates.tile_format import TILE_MARKER
from rtl_templates.word_format import token_groups

CONTROL_BITS_MAX = 64
"""Widest control word that the C++ takes as one integer."""


@dataclass(frozen=True, kw_only=True)
class SourceContext:
    """Variables of every C++ file without sizes of its own.

    Parameters
    ----------
    generated : str
        Line for the file's head: what it was generated from.
    """

    generated: str


@dataclass(frozen=True, kw_only=True)
class LinearConstants:
    """A row of table ``LINEAR`` in config.h; fields as in struct ``LinearLayer``."""

    name: str
    columns: int
    output_words: int
    first_beat: int
    beats: int


@dataclass(frozen=True, kw_only=True)
class ConfigContext(SourceContext):
    """Variables of ``config.h.j2``; sizes as the comments there say, bits and bytes by name.

    ``entry_columns`` and ``entry_rows`` are the pool and the parts of a dense block, shape (entries, 4n);
    empty if control words come with the stream.
    """

    lanes: int
    units: int
    slots: int
    multipliers: int
    tile_rows: int
    accumulator_bits: int
    bus_bytes: int
    word_beats: int
    streamed: bool
    routed: bool
    control_bits: int
    column_bits: int
    controls_bit: int
    record_bits: int
    record_beats: int
    records_per_read: int
    step_beats: int
    constant_beats: int
    tile_marker: str
    tile_steps: int
    tokens: int
    groups: int
    largest_columns: int
    linear_layers: tuple[LinearConstants, ...]
    patterns: int
    dense_parts: int
    entry_columns: tuple[tuple[int, ...], ...]
    entry_rows: tuple[tuple[int, ...], ...]

    @property
    def largest_words(self):
        """Words of the widest tensor."""
        return self.groups * self.largest_columns

    @classmethod
    def of(cls, plan, images, generated):
        """Variables of a plan; ``images`` are the LayerImage of its linear layers, in order."""
        spec, tiles, assignment = plan.spec, plan.spec.tiles, plan.spec.array.assignment
        if tiles.control_bits > CONTROL_BITS_MAX:
            raise PlanError(f"HLS C++ takes control words of up to {CONTROL_BITS_MAX} bits, this pool needs "
                            f"{tiles.control_bits}; use a row-balanced pool or --emit verilog")
        streamed = spec.array.storage is PoolStorage.STREAM
        groups = token_groups(plan.tokens, spec.array.lanes)
        largest = max(max(layer.columns, layer.output_words) for layer in plan.layers)
        beat_bytes = spec.bus_bits // 8
        layers = tuple(LinearConstants(
            name=layer.name, columns=layer.columns, output_words=layer.output_words,
            first_beat=image.offset // beat_bytes, beats=image.beats)
            for layer, image in zip(plan.layers, images, strict=True))
        return cls(
            generated=generated, lanes=spec.array.lanes, units=spec.array.units, slots=assignment.slots,
            multipliers=assignment.multipliers, tile_rows=spec.array.rows,
            accumulator_bits=spec.array.accumulator_bits, bus_bytes=beat_bytes,
            word_beats=spec.beats_per_word, streamed=streamed, routed=assignment.is_routed,
            control_bits=tiles.control_bits, column_bits=tiles.column_bits,
            controls_bit=tiles.column_bits + tiles.has_dense_bit, record_bits=tiles.record_bits,
            record_beats=tiles.index_beats(1), records_per_read=tiles.records_per_beat,
            step_beats=tiles.weight_beats(1), constant_beats=tiles.constant_beats,
            tile_marker=f"{TILE_MARKER:#x}",
            tile_steps=max(max(layer.ksteps) for layer in plan.layers), tokens=plan.tokens, groups=groups,
            largest_columns=largest, linear_layers=layers,
            patterns=assignment.patterns, dense_parts=len(assignment.dense_entries),
            entry_columns=() if streamed else assignment.columns,
            # An unused multiplier has weight 0, so any row does.
            entry_rows=() if streamed else tuple(tuple(max(row, 0) for row in entry)
                                                 for entry in assignment.rows))


@dataclass(frozen=True, kw_only=True)
class Port:
    """A row's port in a control word: code i + 1 selects ``candidates[i]``, 0 none; 0 bits: always it."""

    row: int
    first_bit: int
    width: int
    mask: int
    candidates: tuple[int, ...]


def control_ports(assignment):
    """Ports of a routed pool as they lie in :meth:`SlotAssignment.control_word`: tuple of Port."""
    ports, position = [], SIZE * assignment.slots * 2
    for row, candidate_lists in enumerate(assignment.ports):
        for candidates in candidate_lists:
            width = assignment.port_bits(candidates)
            ports.append(Port(row=row, first_bit=position, width=width, mask=(1 << width) - 1,
                              candidates=tuple(candidates)))
            position += width
    return tuple(ports)


@dataclass(frozen=True, kw_only=True)
class LinearContext(SourceContext):
    """Variables of ``linear.h.j2``.

    Parameters
    ----------
    encoder : bool
        Whether results may go through a GELU table.
    streamed, routed, has_dense_bit : bool
        Control words in the stream; pool that is not row-balanced; dense bit in index records.
    ports : tuple of Port
        Of a routed pool whose control words come with the stream.
    record_beats, step_beats, tile_steps, tile_rows, tiles, groups : int
        For pragmas, which take plain numbers only.
    """

    encoder: bool
    streamed: bool
    routed: bool
    has_dense_bit: bool
    ports: tuple[Port, ...]
    record_beats: int
    step_beats: int
    tile_steps: int
    tile_rows: int
    tiles: int
    groups: int

    @classmethod
    def of(cls, plan, config):
        """Variables of a plan whose :class:`ConfigContext` is ``config``."""
        ports = control_ports(plan.spec.array.assignment) if config.streamed and config.routed else ()
        most_words = max(layer.output_words for layer in config.linear_layers)
        return cls(generated=config.generated, encoder=bool(plan.attention), streamed=config.streamed,
                   routed=config.routed, has_dense_bit=plan.spec.tiles.has_dense_bit, ports=ports,
                   record_beats=config.record_beats, step_beats=config.step_beats,
                   tile_steps=config.tile_steps, tile_rows=config.tile_rows,
                   tiles=-(-most_words // config.units), groups=config.groups)


@dataclass(frozen=True, kw_only=True)
class StreamContext(SourceContext):
    """Variables of ``stream.h.j2``: whether the stream holds tables; numbers for pragmas."""

    encoder: bool
    word_beats: int
    image_beats: int
    largest_words: int
    sequences: int


@dataclass(frozen=True, kw_only=True)
class LinearLayerContext(SourceContext):
    """Variables of ``linear_layer.cpp.j2``; memory sizes in beats, for co-simulation."""

    encoder: bool
    image_beats: int
    largest_beats: int


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A testbench: name of its program, its C++ sources, whether it needs a whole encoder."""

    name: str
    sources: tuple[str, ...]
    encoder: bool


@dataclass(frozen=True, kw_only=True)
class MakefileContext(SourceContext):
    """Variables of ``Makefile.j2``: flags of the compiler, and with the vendor's headers."""

    benches: tuple[Bench, ...]
    flags: tuple[str, ...]
    ap_types_flags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TclContext(SourceContext):
    """Variables of ``run_hls.tcl.j2``; files relative to the folder of the sources."""

    kernel: str
    sources: tuple[str, ...]
    bench_sources: tuple[str, ...]
    image: str
    part: str
    clock_period_ns: float
    bench_arguments: str
