"""The bundle ``pruned.pt``: a compressed model with everything that hardware and host need.

The file is one torch.save of a dict of plain values and tensors, schema version 1; section by
section in :func:`save_bundle`.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from compressor.blocks import BLOCK, from_blocks
from compressor.bundle_checks import (
    BundleError,
    check_blocks,
    check_choice,
    check_encoder,
    check_integer,
    check_keys,
    check_layer,
    check_model,
    fail,
)
from compressor.bundle_file import read_container, tensor_to_array, write_container
from compressor.folding import Folding, folding_path
from compressor.intops.encoder import IntegerEncoder
from compressor.layer_weights import (
    NM_KEEP,
    ROLES,
    STRUCTURES,
    LayerWeights,
    pack_block_mask,
    unpack_block_mask,
)
from compressor.operator_checks import check_maps, check_operators
from compressor.patterns import BALANCES
from compressor.pools import PatternPool, PoolError
from compressor.text_file import StrPath

__all__ = ["Bundle", "BundleError", "LayerWeights", "check_bundle", "load_bundle", "save_bundle"]

_LAYER_KEYS = ("role", "shape", "structure", "block_mask", "pattern_ids", "masks", "weights", "bias",
               "multiplier", "shift", "weight_scale", "input_scale", "output_scale")


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """A compressed model in memory.

    Parameters
    ----------
    model : dict
        ``architecture`` (one of :data:`compressor.architectures.ARCHITECTURES`), ``config`` (Hugging Face
        config as a plain dict, sizes under BERT's names), ``task`` (its name), ``fields`` (of a row, that
        hold text), ``labels`` and ``metrics`` (names; all lists of str), ``max_tokens`` (sentence length in
        tokens, padding included).
    pool : PatternPool
        The patterns that pattern ids index.
    layers : dict of str to LayerWeights
        Linear layers of the encoder by module path, in execution order.
    operators : dict
        Constants of the integer operators that are not linear, what the linear layers absorbed for
        them, and the scales at both ends (:attr:`compressor.encoder_quantization.QuantizedEncoder.operators`,
        arrays as tensors); empty if linear layers alone are quantized.
    host : dict
        ``state_dict``: name to float32 tensor, every parameter that is not a linear layer of the
        encoder; ``tokenizer``: file name to text.
    recipe, metrics : dict
        Plain values: how the model was made, and what was measured.
    """

    model: dict[str, Any]
    pool: PatternPool
    layers: dict[str, LayerWeights]
    operators: dict[str, Any] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=lambda: {"state_dict": {}, "tokenizer": {}})
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def encoder(self) -> IntegerEncoder:
        """Golden model of the whole encoder, :class:`compressor.intops.encoder.IntegerEncoder`.

        Raises
        ------
        ValueError
            If the bundle has no operators, or one is out of range.
        """
        return IntegerEncoder.from_parts({name: layer.linear for name, layer in self.layers.items()},
                                         self.operators)

    def folding(self, name: str) -> Folding:
        """What a linear layer absorbed for the operators beside it: :class:`compressor.folding.Folding`."""
        values = self.operators.get(folding_path(name))
        return Folding.of(self.layers[name].weight.shape) if values is None else Folding.from_dict(values)

    @property
    def attention_maps(self) -> dict[str, int] | None:
        """How attention maps are pruned: plain values, None if they are whole.

        ``layers`` that prune; ``patterns``: number, all of them the pool's; ``power`` of the rule;
        ``padded_tokens``: sentence length, padding included. Blocks begin at token 0, so that the padding
        changes no valid token.
        """
        layers = self.encoder.layers if self.operators else ()
        prunings = [layer.attention.pruning for layer in layers if layer.attention.pruning is not None]
        if not prunings:
            return None
        return {"layers": len(prunings), "patterns": len(prunings[0].patterns), "power": prunings[0].power,
                "padded_tokens": self.model["max_tokens"]}

    @cached_property
    def weights(self) -> int:
        """Weights of all linear layers: number, pruned ones included."""
        return sum(layer.weight.size for layer in self.layers.values())

    @cached_property
    def kept_weights(self) -> int:
        """Weights that the structures keep: number."""
        return sum(int(layer.kept(self.pool).sum()) for layer in self.layers.values())

    def summary(self) -> dict[str, Any]:
        """Plain values that describe the bundle, for JSON."""
        layers = self.layers.values()
        return {"task": self.model["task"], "max_tokens": self.model["max_tokens"], "layers": len(layers),
                "structures": dict(Counter(layer.structure for layer in layers)),
                "patterns": self.pool.size, "keep": self.pool.keep, "balance": self.pool.balance,
                "row_balanced": self.pool.is_row_balanced, "weights": self.weights,
                "kept_weights": self.kept_weights,
                "accumulator_bits": max(layer.linear.accumulator_bits for layer in layers),
                "attention_maps": self.attention_maps}


def check_bundle(bundle: Bundle) -> None:
    """Raise BundleError if anything in the bundle breaks the contract."""
    check_model(bundle.model)
    for name, layer in bundle.layers.items():
        if name != layer.name:
            fail(name, f"holds the layer {layer.name}", "names must agree")
        check_layer(layer, bundle.pool)
    check_encoder(bundle.layers, bundle.model["config"])
    _check_host(bundle.host)
    check_operators(bundle.operators, bundle.layers, bundle.model["config"])
    if bundle.operators:
        check_maps(bundle.encoder, bundle.pool)
    for section in ("recipe", "metrics"):
        if type(getattr(bundle, section)) is not dict:
            fail(section, f"is {type(getattr(bundle, section)).__name__}", "a dict is required")


def save_bundle(bundle: Bundle, path: StrPath) -> None:
    """Check a bundle and write it to ``path`` (aside, then renamed). Equal bundles give equal bytes.

    The file holds ``format``, ``schema_version``, ``model``, ``pool`` {patterns, keep, balance},
    ``layers``, ``operators``, ``host``, ``recipe``, ``metrics`` and ``checksums``. A layer has its
    block mask (8 blocks a byte), one pattern id (uint8) or one 16-bit mask (2 x uint8, low byte
    first) for each present block, and its kept weights (int8), block after block, in position order.

    Raises
    ------
    BundleError
        If the bundle breaks its contract.
    """
    check_bundle(bundle)
    pool = bundle.pool
    write_container({
        "model": bundle.model,
        "pool": {"patterns": torch.tensor(pool.patterns), "keep": pool.keep, "balance": pool.balance},
        "layers": {name: _pack_layer(layer, pool) for name, layer in bundle.layers.items()},
        "operators": bundle.operators, "host": bundle.host,
        "recipe": bundle.recipe, "metrics": bundle.metrics,
    }, path)


def load_bundle(path: StrPath) -> Bundle:
    """Read and verify the bundle at ``path``.

    Raises
    ------
    BundleError
        If the file is truncated, foreign or malicious (nothing in it is executed), or if any key,
        shape, dtype, range, pattern, block, accumulator width or checksum is off. One line names
        the file, the place, what was found and what is allowed.
    """
    try:
        sections = read_container(path)
        check_model(sections["model"])
        pool = _unpack_pool(sections["pool"])
        if type(sections["layers"]) is not dict:
            fail("layers", f"is {type(sections['layers']).__name__}", "a dict is required")
        layers = {name: _unpack_layer(name, raw, pool) for name, raw in sections["layers"].items()}
        bundle = Bundle(**{**sections, "pool": pool, "layers": layers})
        check_bundle(bundle)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    return bundle


def _check_host(host: Any) -> None:
    check_keys("host", host, ("state_dict", "tokenizer"))
    for section in ("state_dict", "tokenizer"):
        if type(host[section]) is not dict:
            fail(f"host.{section}", f"is {type(host[section]).__name__}", "a dict is required")
    for name, tensor in host["state_dict"].items():
        if type(tensor) is not torch.Tensor or tensor.dtype != torch.float32:
            found = f"dtype {tensor.dtype}" if type(tensor) is torch.Tensor else type(tensor).__name__
            fail(f"host.state_dict.{name}", f"is {found}", "a float32 tensor is required")
    for name, text in host["tokenizer"].items():
        # The name becomes a file in a scratch folder when the tokenizer is rebuilt.
        if type(name) is not str or not name.replace("_", "").replace(".", "").isalnum() \
                or name.startswith("."):
            fail("host.tokenizer", f"has the file name {name!r}",
                 "plain names of letters, digits, '.' and '_' are required")
        if type(text) is not str:
            fail(f"host.tokenizer.{name}", f"is {type(text).__name__}", "text is required")


def _pack_layer(layer: LayerWeights, pool: PatternPool) -> dict[str, Any]:
    present = layer.block_mask
    ids = layer.pattern_ids[present] if layer.structure == "pattern" else np.empty(0)
    masks = layer.masks[present] if layer.structure == "nm" else np.empty(0)
    arrays = {
        "block_mask": pack_block_mask(present),
        "pattern_ids": ids.astype(np.uint8),
        "masks": masks.astype("<u2").view(np.uint8).reshape(-1, 2),
        "weights": layer.packed_weights(pool),
        "bias": layer.bias,
        "multiplier": layer.multiplier.astype(np.int32),
        "shift": layer.shift.astype(np.uint8),
        "weight_scale": layer.weight_scale,
    }
    tensors = {key: torch.from_numpy(np.array(value, order="C")) for key, value in arrays.items()}
    return {"role": layer.role, "shape": [layer.rows, layer.inner], "structure": layer.structure,
            **tensors, "input_scale": layer.input_scale, "output_scale": layer.output_scale}


def _unpack_pool(raw: Any) -> PatternPool:
    check_keys("pool", raw, ("patterns", "keep", "balance"))
    check_integer("pool.keep", raw["keep"], 1, BLOCK * BLOCK)
    check_choice("pool.balance", raw["balance"], BALANCES)
    shape = getattr(raw["patterns"], "shape", (0,))
    patterns = tensor_to_array("pool.patterns", raw["patterns"], "uint8", (*shape[:1], BLOCK * BLOCK))
    try:
        return PatternPool(patterns=patterns, keep=raw["keep"], balance=raw["balance"])
    except PoolError as error:
        raise BundleError(f"pool: {error}") from error


def _unpack_layer(name: str, raw: Any, pool: PatternPool) -> LayerWeights:
    check_keys(name, raw, _LAYER_KEYS)
    check_choice(f"{name}: role", raw["role"], ROLES)
    structure = raw["structure"]
    check_choice(f"{name}: structure", structure, STRUCTURES)
    shape = raw["shape"]
    if type(shape) is not list or len(shape) != 2:
        fail(f"{name}: shape", f"is {shape!r}", "a list [rows, K] is required")
    for size in shape:
        check_integer(f"{name}: shape", size, BLOCK, 1 << 20)
        if size % BLOCK:
            fail(f"{name}: shape", f"is {shape!r}", f"multiples of {BLOCK} are required")
    rows, inner = shape

    def take(key: str, dtype: str, *size: int) -> npt.NDArray[Any]:
        return tensor_to_array(f"{name}: {key}", raw[key], dtype, size)

    grid = rows // BLOCK, inner // BLOCK
    block_mask = unpack_block_mask(take("block_mask", "uint8", -(-grid[0] * grid[1] // 8)), rows, inner)
    present = int(block_mask.sum())
    packed_ids = take("pattern_ids", "uint8", present if structure == "pattern" else 0)
    packed_masks = take("masks", "uint8", present if structure == "nm" else 0, 2)
    kept_weights = present * {"pattern": pool.keep, "nm": NM_KEEP * BLOCK,
                              "dense": BLOCK * BLOCK}[structure]
    packed_weights = take("weights", "int8", kept_weights)
    bias, multiplier = take("bias", "int32", rows), take("multiplier", "int32", rows)
    shift, weight_scale = take("shift", "uint8", rows), take("weight_scale", "float32", rows)
    pattern_ids, masks = np.full(grid, -1, np.int16), np.zeros(grid, np.uint16)
    if structure == "pattern":
        pattern_ids[block_mask] = packed_ids
    if structure == "nm":
        masks[block_mask] = packed_masks.copy().view("<u2")[:, 0]
    layer = LayerWeights(
        name=name, role=raw["role"], structure=structure, weight=np.zeros((rows, inner), np.int8),
        block_mask=block_mask, pattern_ids=pattern_ids, masks=masks, bias=bias.copy(),
        multiplier=multiplier.astype(np.int64), shift=shift.astype(np.int64),
        weight_scale=weight_scale.copy(), input_scale=raw["input_scale"],
        output_scale=raw["output_scale"])
    # Ids and masks decide where the packed weights go, so they are checked before the weights are.
    check_blocks(layer, pool)
    blocks = np.zeros((grid[0] * grid[1], BLOCK * BLOCK), np.int8)
    blocks[layer.kept(pool)] = packed_weights
    return replace(layer, weight=from_blocks(blocks, (rows, inner)))
