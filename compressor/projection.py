"""What every projection onto a structure shares: scores, what was kept, and the error."""

from dataclasses import dataclass
from typing import Any

import torch

from compressor.blocks import POSITIONS, to_blocks


class Structure:
    """What structures share; :mod:`compressor.structures` says what else each of them has."""

    removes_units = False
    """Whether whole units are removed, which stay away whatever the model is trained for next."""

    def of_layer(self, name: str) -> Any:
        """The structure of one layer, by module path; the same for all unless a budget chose otherwise."""
        return self

    def weight_bits(self, weight):
        """Bits that a pruned matrix needs, as stored: 4x4 blocks that are all zero need one that says so."""
        whole, blocks = self.stored().bits(tuple(weight.shape)), weight.numel() // POSITIONS
        present = int((to_blocks(weight) != 0).any(dim=1).sum())
        return min(whole, whole * present // blocks + blocks)


class StructureError(ValueError):
    """A weight matrix that does not have its structure; the message says where."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """What a projection kept.

    Parameters
    ----------
    mask : bool tensor, shape (rows, K)
        Kept positions. A kept position may hold a zero.
    index : int64 tensor, shape (rows / 4, K / 4), or None
        Pattern ids (pattern), 16-bit masks (N:4), None (others).
    retained_energy : float
        Share of the squared scores (weights, times norms if given) that was kept, 0 to 1.
    """

    mask: torch.Tensor
    index: torch.Tensor | None
    retained_energy: float


def scores_of(weight, norms):
    """What a projection keeps the most of, float32: weights, or weights times norms of the inputs."""
    weight = weight.detach().float()
    return weight if norms is None else weight * norms.to(weight.device)


def kept_energy(scores, mask):
    """Share of the squared scores under a mask, 0 to 1."""
    total = float(scores.square().sum(dtype=torch.float64))
    return float((scores * mask).square().sum(dtype=torch.float64)) / total if total else 1.0
