"""The weight stream of a whole encoder: tables, tiles, and headers of tiles that are made on chip.

Between the tiles of v and of o lie a layer's tables and the header of the attention's tiles. When the
loader reaches them, the layer before, which used the tables before, is finished: three tiles were loaded
since, so the first of them has been computed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.bundle import Bundle
from compressor.intops.encoder import LINEAR_PATHS
from hwgen.encoder_program import attention_tiles
from hwgen.memory_image import layer_packets
from hwgen.plan import Plan
from rtl_templates.gelu_table import GeluTableSpec
from rtl_templates.layernorm_spec import HEADER_RECORDS, RECORD_BITS, LayerNormSpec
from rtl_templates.prediction import LocalPacket, TablePacket
from rtl_templates.tile_format import Table

GELU_BYTES, EXP_BYTES = 512, 256


def stream_items(plan: Plan, tokens: int | None = None) -> list[Any]:
    """What the stream holds, in order, as :func:`rtl_templates.prediction.predict` takes it."""
    spec = plan.spec
    items: list[Any] = []
    tokens = plan.tokens if tokens is None else tokens
    for attention in plan.attention:
        norm_bytes = (HEADER_RECORDS + plan.layers[0].inner) * RECORD_BITS // 8
        for role, path in LINEAR_PATHS.items():
            layer = plan.layer(f"{attention.name}.{path}")
            items += layer.tiles(spec.array.units)
            if role == "v":
                items += [TablePacket(table, -(-size * 8 // spec.bus_bits)) for table, size in zip(
                    Table, (GELU_BYTES, EXP_BYTES, norm_bytes, norm_bytes), strict=True)]
                items.append(LocalPacket(2 * attention.heads * attention_tiles(spec, tokens)))
    return items


def stream_beats(plan: Plan, items: Sequence[Any]) -> int:
    """Bus beats of the items."""
    return sum(1 + item.beats if isinstance(item, TablePacket) else
               1 if isinstance(item, LocalPacket) else plan.spec.tiles.beats(item[1]) for item in items)


def encoder_packets(bundle: Bundle, plan: Plan,
                    tokens: int | None = None) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Yield (name, packet) for the whole stream, in order; packets are uint8 arrays.

    Names are those of linear layers, and "<encoder layer>: tables" and ": attention".

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
        With operators.
    plan : hwgen.plan.Plan
    tokens : int, optional
        Sequence length of the program; ``plan.tokens`` unless given.
    """
    spec = plan.spec
    tokens = plan.tokens if tokens is None else tokens
    for index, attention in enumerate(plan.attention):
        golden = bundle.encoder.layers[index]
        for role, path in LINEAR_PATHS.items():
            name = f"{attention.name}.{path}"
            outliers = golden.gelu.outliers if role == "ffn1" else None
            for packet in layer_packets(bundle.layers[name], spec.array, spec.tiles, outliers=outliers):
                yield name, packet
            if role == "v":
                for packet in _tables(golden, spec, index & 1):
                    yield f"{attention.name}: tables", packet
                tiles = 2 * attention.heads * attention_tiles(spec, tokens)
                yield f"{attention.name}: attention", spec.tiles.pack_local(tiles)


def _tables(golden, spec, bank):
    lanes = spec.array.lanes
    norm = LayerNormSpec(lanes=lanes, columns=spec.encoder.columns, address_bits=32,
                         channels=spec.encoder.norm_channels)
    payloads = {Table.GELU: GeluTableSpec(lanes=lanes).table(golden.gelu),
                Table.EXP: golden.attention.softmax.table.astype(np.uint8),
                Table.ATTENTION_NORM: norm.table(golden.attention_norm),
                Table.OUTPUT_NORM: norm.table(golden.output_norm)}
    return [spec.tiles.pack_table(table=table, bank=bank, payload=payload)
            for table, payload in payloads.items()]
