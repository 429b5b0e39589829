"""The torch twin of integer attention: scores, softmax, optional map pruning, context."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from compressor.attention_maps import kept_entries, select_patterns
from compressor.fake_quantization import EXACT_FLOAT32, rescaling_ratio
from compressor.intops import ACTIVATION_MAX
from compressor.intops.map_pruning import BLOCK
from compressor.intops.reciprocal import RESULT_BITS
from compressor.straight_through import look_up, power_of_two, requantize, straight_through


@dataclass(frozen=True, kw_only=True, eq=False)
class FakeAttention:
    """Twin of :class:`compressor.intops.IntegerAttention`: equal on every integer.

    Backward, softmax weights fall off exponentially with the distance from the row's maximum, at the
    rate that the table has; the maximum counts as a constant, since it cancels in the context. The
    reciprocal of a row's sum has its real slope. Pruned map entries pass no gradient.

    Parameters
    ----------
    heads : int
    score_ratio : float64 tensor, shape (heads, 1, 1)
    table, slope : float32 tensors, shape (256,)
        Softmax weights by distance, and what a step of the score changes of them.
    context_numerator, context_exponent : int
    patterns : uint8 tensor, shape (P, 16), or None
    power : int
        Of map pruning.
    """

    heads: int
    score_ratio: torch.Tensor
    table: torch.Tensor
    slope: torch.Tensor
    context_numerator: int
    context_exponent: int
    patterns: torch.Tensor | None = None
    power: int = 1

    @classmethod
    def of(cls, attention, device=None):
        """Twin of an IntegerAttention."""
        table = torch.tensor(attention.softmax.table, dtype=torch.float32, device=device)
        pruning = attention.pruning
        return cls(
            heads=attention.heads,
            score_ratio=rescaling_ratio(attention.score_multiplier, attention.score_shift,
                                        device)[:, None, None],
            table=table, slope=table * decay_rate(attention.softmax.table),
            context_numerator=attention.context_numerator, context_exponent=attention.context_exponent,
            patterns=None if pruning is None else torch.tensor(pruning.patterns, device=device),
            power=1 if pruning is None else pruning.power)

    def scores(self, q, k):
        """Scores, float32 integers in -127 to 127, shape (batch, heads, queries, keys)."""
        q, k = self._split(q), self._split(k)
        if q.shape[-1] * ACTIVATION_MAX**2 >= EXACT_FLOAT32:
            q, k = q.double(), k.double()
        return requantize(q @ k.transpose(2, 3), self.score_ratio)

    def weights(self, scores, lengths):
        """Softmax weights, their sums, and pattern ids or None; shapes as in the golden model."""
        queries, keys = scores.shape[-2:]
        lengths = lengths[:, None, None, None]
        positions = torch.arange(max(queries, keys), device=scores.device)
        valid = (positions[:queries, None] < lengths) & (positions[:keys] < lengths)
        if self.patterns is None:
            weights = self._softmax(scores, valid)
            return weights, weights.sum(dim=-1), None
        with torch.no_grad():
            ids = select_patterns(self._softmax(scores, valid), self.patterns, self.power)
            kept = kept_entries(ids, self.patterns, queries, keys) | (lengths < BLOCK)
        weights = self._softmax(scores, valid & kept)
        return weights, weights.sum(dim=-1), ids

    def context(self, weights, sums, v):
        """Context, float32 integers in -127 to 127, shape (batch, queries, heads * D)."""
        products = weights @ self._split(v)  # below 512 * 127 * 127 < 2**24: exact
        context = requantize(products, self._ratio(sums.double()[..., None]))
        return context.transpose(1, 2).flatten(2)

    def compute(self, q, k, v, lengths):
        """Context of each token, shape (batch, tokens, heads * D); lengths int64, shape (batch,)."""
        weights, sums, _ = self.weights(self.scores(q, k), lengths)
        return self.context(weights, sums, v)

    def _split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _softmax(self, scores, valid):
        with torch.no_grad():
            masked = torch.where(valid, scores, -ACTIVATION_MAX)
            distance = (masked.amax(dim=-1, keepdim=True) - masked).long()
        return torch.where(valid, look_up(scores, distance, self.table, self.slope), 0.0)

    def _ratio(self, sums):
        """Each query's multiplier times 2**-shift, as in :mod:`compressor.intops.reciprocal`."""
        with torch.no_grad():
            _, length = torch.frexp(sums)  # sum = fraction * 2**length, so length is the bit length
            normalized = sums * power_of_two(RESULT_BITS - length)
            quotient = (self.context_numerator / normalized.clamp(min=1)).floor()
            quotient = torch.where(sums == 0, 0.0, quotient)
            exact = quotient * power_of_two(RESULT_BITS - self.context_exponent - length)
        if not sums.requires_grad:
            return exact
        return straight_through(math.ldexp(self.context_numerator, -self.context_exponent)
                                / sums.clamp(min=1), exact)


def decay_rate(table):
    """Rate r of a table ``127 exp(-r d)``, from its last entry of at least 16; 0 for a flat table.

    >>> from compressor.intops.softmax import exp_table
    >>> round(decay_rate(exp_table(0.1)), 2), decay_rate(np.full(256, 127))
    (0.1, 0.0)
    """
    table = np.asarray(table, np.float64)
    last = int((table >= 16).sum()) - 1
    if last == 0:  # a score step takes more than 7/8: the next entry is all that is known
        return float(np.log(table[0] / max(table[1], 0.5)))
    return float(np.log(table[0] / table[last])) / last
