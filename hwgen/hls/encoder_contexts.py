"""Variables of the templates that only whole encoders have; one frozen dataclass a template."""

from dataclasses import dataclass

from compressor.intops.encoder import LINEAR_PATHS
from hwgen.hls.contexts import SourceContext
from hwgen.plan import AttentionPlan
from rtl_templates.register_map import LENGTHS
from rtl_templates.tile_format import LOCAL_MARKER, TABLE_MARKER, Table
from rtl_templates.word_format import CHANNELS


@dataclass(frozen=True, kw_only=True)
class AttentionConstants:
    """A row of table ``ATTENTION`` in encoder_config.h; scores' constants are padded to the most heads."""

    heads: int
    key_columns: int
    value_columns: int
    context_numerator: int
    context_exponent: int
    map_pruning: bool
    score_multiplier: tuple[int, ...]
    score_shift: tuple[int, ...]

    @classmethod
    def of(cls, attention: AttentionPlan, heads):
        """Constants of a layer, padded to ``heads``."""
        padding = heads - attention.heads
        return cls(heads=attention.heads, key_columns=attention.key_size // CHANNELS,
                   value_columns=attention.value_size // CHANNELS,
                   context_numerator=attention.context_numerator,
                   context_exponent=attention.context_exponent, map_pruning=attention.map_pruning,
                   score_multiplier=attention.score_multiplier + (0,) * padding,
                   score_shift=attention.score_shift + (1,) * padding)


@dataclass(frozen=True, kw_only=True)
class EncoderConfigContext(SourceContext):
    """Variables of ``encoder_config.h.j2``; as the comments there say."""

    hidden_columns: int
    hidden_words: int
    attention_words: int
    middle_words: int
    key_blocks: int
    heads: int
    sequences: int
    table_marker: str
    local_marker: str
    gelu_table: int
    exp_table: int
    attention_norm_table: int
    output_norm_table: int
    stream_beats: int
    layers: tuple[AttentionConstants, ...]
    map_patterns: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, bundle, plan, config, stream_beats):
        """Variables of a plan with encoder units; ``config`` is its ConfigContext."""
        paths = [f"{attention.name}.{path}" for attention in plan.attention for path in LINEAR_PATHS.values()]
        if [layer.name for layer in plan.layers] != paths:
            raise ValueError("the plan's linear layers must be those of its encoder layers, in their order")
        heads = max(attention.heads for attention in plan.attention)
        widest = {role: max(layer.output_words for layer in plan.layers if layer.role in role.split())
                  for role in ("q k v", "ffn1")}
        hidden = plan.layers[0].columns
        return cls(
            generated=config.generated, hidden_columns=hidden, hidden_words=config.groups * hidden,
            attention_words=config.groups * widest["q k v"], middle_words=config.groups * widest["ffn1"],
            key_blocks=config.groups * config.lanes // CHANNELS, heads=heads, sequences=LENGTHS,
            table_marker=f"{TABLE_MARKER:#x}", local_marker=f"{LOCAL_MARKER:#x}",
            gelu_table=int(Table.GELU), exp_table=int(Table.EXP),
            attention_norm_table=int(Table.ATTENTION_NORM), output_norm_table=int(Table.OUTPUT_NORM),
            stream_beats=stream_beats,
            layers=tuple(AttentionConstants.of(attention, heads) for attention in plan.attention),
            map_patterns=_map_patterns(bundle))


@dataclass(frozen=True, kw_only=True)
class TableContext(SourceContext):
    """Variables of ``gelu.h.j2``: bytes of a beat, for a pragma."""

    bus_bytes: int


@dataclass(frozen=True, kw_only=True)
class MapMaskContext(SourceContext):
    """Variables of ``map_mask.h.j2``: whether maps are pruned, and by squared weights."""

    map_pruning: bool
    squared: bool


@dataclass(frozen=True, kw_only=True)
class SoftmaxContext(SourceContext):
    """Variables of ``softmax.h.j2``."""

    bus_bytes: int
    key_blocks: int
    map_pruning: bool


@dataclass(frozen=True, kw_only=True)
class AttentionContext(SourceContext):
    """Variables of ``attention.h.j2``; the most of each, for pragmas."""

    key_blocks: int
    key_columns: int
    value_columns: int
    heads: int
    groups: int
    map_pruning: bool


@dataclass(frozen=True, kw_only=True)
class LayerNormContext(SourceContext):
    """Variables of ``layernorm.h.j2``: cycles a word, which share the plan's multipliers; token groups."""

    norm_ii: int
    groups: int


@dataclass(frozen=True, kw_only=True)
class EncoderContext(SourceContext):
    """Variables of ``encoder.cpp.j2``: sizes of memory in beats, for co-simulation."""

    image_beats: int
    hidden_beats: int
    sequences: int


@dataclass(frozen=True, kw_only=True)
class OperatorsContext(SourceContext):
    """Variables of ``tb_operators.cpp.j2``."""

    map_pruning: bool


def encoder_contexts(bundle, plan, config, stream_beats):
    """Context of each template that only whole encoders have: dict by file name."""
    encoder = EncoderConfigContext.of(bundle, plan, config, stream_beats)
    plain = {"generated": config.generated}
    maps = {**plain, "map_pruning": bool(encoder.map_patterns)}
    return {
        "encoder_config.h": encoder,
        "gelu.h": TableContext(**plain, bus_bytes=config.bus_bytes),
        "map_mask.h": MapMaskContext(**maps, squared=plan.spec.encoder.map_power == 2),
        "softmax.h": SoftmaxContext(**maps, bus_bytes=config.bus_bytes, key_blocks=encoder.key_blocks),
        "reciprocal.h": SourceContext(**plain),
        "layernorm.h": LayerNormContext(**plain, norm_ii=CHANNELS // plan.spec.encoder.norm_channels,
                                        groups=config.groups),
        "attention.h": AttentionContext(
            **maps, key_blocks=encoder.key_blocks, heads=encoder.heads, groups=config.groups,
            key_columns=max(layer.key_columns for layer in encoder.layers),
            value_columns=max(layer.value_columns for layer in encoder.layers)),
        "encoder.h": SourceContext(**plain),
        "encoder.cpp": EncoderContext(**plain, image_beats=stream_beats,
                                      hidden_beats=encoder.hidden_words * config.word_beats,
                                      sequences=encoder.sequences),
        "tb_encoder.cpp": SourceContext(**plain),
        "tb_operators.cpp": OperatorsContext(**maps),
    }


def _map_patterns(bundle):
    """Patterns of the bundle's attention maps (the planner has them equal in all layers that have any)."""
    for layer in bundle.encoder.layers:
        if layer.attention.pruning is not None:
            return tuple(tuple(pattern) for pattern in layer.attention.pruning.patterns.tolist())
    return ()
