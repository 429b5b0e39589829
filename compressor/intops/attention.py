"""Integer multi-head attention: scores, softmax, optional map pruning, context."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from compressor.intops.fixedpoint import Int64Array, check_rescaling, requantize
from compressor.intops.linear import exact_matmul
from compressor.intops.map_pruning import BLOCK, IntegerMapPruning
from compressor.intops.reciprocal import RESULT_BITS, normalized_quotient
from compressor.intops.softmax import IntegerSoftmax

NUMERATOR_BITS = 31


def split_heads(x: Int64Array, heads: int) -> Int64Array:
    """Shape (batch, tokens, heads * D) to (batch, heads, tokens, D)."""
    batch, tokens, channels = x.shape
    return x.reshape(batch, tokens, heads, channels // heads).transpose(0, 2, 1, 3)


def merge_heads(x: Int64Array) -> Int64Array:
    """Inverse of :func:`split_heads`."""
    batch, heads, tokens, size = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, tokens, heads * size)


def context_constants(ratio: float) -> tuple[int, int]:
    """Numerator and exponent that fold the value-to-context rescaling into the row's division.

    Parameters
    ----------
    ratio : float
        value_scale / context_scale, 2**-14 to below 2**14.

    Returns
    -------
    numerator, exponent : int
        ``ratio ~ numerator * 2**-exponent``, numerator 2**30 to 2**31 - 1.

    >>> context_constants(1.0), context_constants(0.75)
    ((1073741824, 30), (1610612736, 31))
    """
    if not 2.0**-14 <= ratio < 2.0**14:
        raise ValueError(f"value_scale / context_scale must be 2**-14 to 2**14, not {ratio}")
    fraction, power = np.frexp(ratio)
    exponent = NUMERATOR_BITS - int(power)
    return min(int(np.floor(np.ldexp(fraction, NUMERATOR_BITS) + 0.5)),
               (1 << NUMERATOR_BITS) - 1), exponent


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerAttention:
    """Attention of int8 queries, keys and values, ``softmax(q k^T / sqrt(D)) v``.

    The score of each query and key is requantized to int8; 1 / sqrt(D) is in the multiplier. Softmax
    weights are not normalized: the product with the values is, by the linear layers' requantization
    with one multiplier and shift per query (and not per output channel)::

        length     = bit length of the row's sum                          0 to 16
        multiplier = floor(context_numerator / (sum << 16 - length))      16 bits, 0 if sum is 0
        shift      = context_exponent - 16 + length
        context    = requantize(weights v, multiplier, shift)             sums 24 bits

    Keys at and after a sequence's length are masked, and so are queries: their context is 0.
    With pruning there is a third pass over the row: weights relative to the maximum of all valid keys choose
    the patterns, then the softmax is taken over the kept keys alone, so that its largest weight is
    127 again. Neither the padded length nor the number of lanes changes a valid query's result.

    Parameters
    ----------
    heads : int
        Number of heads.
    score_multiplier, score_shift : int64 arrays, shape (heads,)
        0 to 65535; 1 to 47 bits.
    softmax : IntegerSoftmax
        Its table fits the scale of the scores, which is one for all heads.
    context_numerator, context_exponent : int
        From :func:`context_constants`.
    pruning : IntegerMapPruning or None

    Raises
    ------
    ValueError
        If shapes disagree or a value is out of range.
    """

    heads: int
    score_multiplier: Int64Array
    score_shift: Int64Array
    softmax: IntegerSoftmax
    context_numerator: int
    context_exponent: int
    pruning: IntegerMapPruning | None = None

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise ValueError(f"attention needs at least 1 head, not {self.heads}")
        for name in ("score_multiplier", "score_shift"):
            if getattr(self, name).shape != (self.heads,):
                raise ValueError(
                    f"{name} must have shape ({self.heads},), not {getattr(self, name).shape}")
        check_rescaling(self.score_multiplier, self.score_shift)
        if not 1 << 30 <= self.context_numerator < 1 << NUMERATOR_BITS:
            raise ValueError(f"context_numerator must be 2**30 to 2**31 - 1, not {self.context_numerator}")
        if not RESULT_BITS + 1 <= self.context_exponent <= 47:
            raise ValueError(f"context_exponent must be 17 to 47, not {self.context_exponent}")

    def scores(self, q: Int64Array, k: Int64Array) -> Int64Array:
        """Scores, int64 in -127 to 127, shape (batch, heads, queries, keys)."""
        products = exact_matmul(split_heads(q, self.heads), split_heads(k, self.heads).swapaxes(2, 3))
        return requantize(products, self.score_multiplier[:, None, None], self.score_shift[:, None, None])

    def weights(self, scores: Int64Array, lengths: npt.ArrayLike) -> tuple[Int64Array, Int64Array,
                Int64Array | None]:
        """Softmax weights and their sums.

        Parameters
        ----------
        scores : int64 array, shape (batch, heads, queries, keys)
        lengths : int array, shape (batch,)
            Valid tokens of each sequence.

        Returns
        -------
        weights : int64 array, shape (batch, heads, queries, keys)
            0 to 127.
        sums : int64 array, shape (batch, heads, queries)
            0 to 65024; 0 only for masked queries.
        ids : int64 array, shape (batch, heads, ceil(queries / 4), ceil(keys / 4)), or None
            Pattern of each block; None without pruning. Blocks of sequences shorter than 4 are not pruned.
        """
        queries, keys = scores.shape[-2:]
        lengths = np.asarray(lengths, np.int64)[:, None, None, None]
        valid = (np.arange(queries)[:, None] < lengths) & (np.arange(keys) < lengths)
        weights, sums = self.softmax.compute(scores, valid)
        if self.pruning is None:
            return weights, sums, None
        ids = self.pruning.select(weights)
        kept = self.pruning.mask(ids, queries, keys) | (lengths < BLOCK)
        return *self.softmax.compute(scores, valid & kept), ids

    def context(self, weights: Int64Array, sums: Int64Array, v: Int64Array) -> Int64Array:
        """Context, int64 in -127 to 127, shape (batch, queries, heads * D)."""
        quotient, length = normalized_quotient(self.context_numerator, sums[..., None])
        shift = self.context_exponent - RESULT_BITS + length
        products = exact_matmul(weights, split_heads(v, self.heads))
        return merge_heads(requantize(products, quotient, shift))

    def compute(self, q: Int64Array, k: Int64Array, v: Int64Array, lengths: npt.ArrayLike) -> Int64Array:
        """Context of each token.

        Parameters
        ----------
        q, k, v : int64 arrays, shape (batch, tokens, heads * D)
            -127 to 127; up to 512 tokens. D may differ between k and v.
        lengths : int array, shape (batch,)
            Valid tokens of each sequence, 0 to tokens.

        Returns
        -------
        int64 array, shape (batch, tokens, heads * D)
            -127 to 127; 0 at masked tokens.
        """
        weights, sums, _ = self.weights(self.scores(q, k), lengths)
        return self.context(weights, sums, v)

    def to_dict(self) -> dict[str, Any]:
        """Plain values and arrays for a bundle; ``map_patterns`` has no rows without pruning."""
        pruning = self.pruning
        return {"kind": "attention", "heads": self.heads,
                "score_multiplier": self.score_multiplier.astype(np.int32),
                "score_shift": self.score_shift.astype(np.uint8),
                "exp_table": self.softmax.table.astype(np.uint8),
                "context_numerator": self.context_numerator, "context_exponent": self.context_exponent,
                "map_patterns": np.zeros((0, BLOCK * BLOCK), np.uint8) if pruning is None
                else pruning.patterns.astype(np.uint8),
                "map_power": 1 if pruning is None else pruning.power}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`."""
        patterns = np.asarray(values["map_patterns"], np.uint8)
        return cls(heads=int(values["heads"]),
                   score_multiplier=np.asarray(values["score_multiplier"], np.int64),
                   score_shift=np.asarray(values["score_shift"], np.int64),
                   softmax=IntegerSoftmax(table=np.asarray(values["exp_table"], np.uint8)),
                   context_numerator=int(values["context_numerator"]),
                   context_exponent=int(values["context_exponent"]),
                   pruning=IntegerMapPruning(patterns=patterns, power=int(values["map_power"]))
                   if len(patterns) else None)
