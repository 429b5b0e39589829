"""Weight structures: what a pruned matrix may look like, and the nearest matrix that does.

Each structure is a small value with the same methods:

``project(weight) -> (projected, Projection)``
    The nearest matrix (least squares) that has the structure; exact.
``index(weight) -> int64 tensor, shape (rows / 4, K / 4), or None``
    The block index of a matrix that has the structure; StructureError if it does not.
``mask(index, shape) -> bool tensor``
    The kept positions that an index stands for.
``verify(weight)``
    Raises StructureError unless the matrix has the structure.
``bits(shape) -> int``
    Bits that int8 weights and their index need.
"""

from dataclasses import dataclass

import torch

from compressor.blocks import BLOCK, POSITIONS, block_grid, from_blocks, to_blocks
from compressor.pools import PatternPool

WEIGHT_BITS = 8

_CHUNK = 1 << 16  # blocks in one matrix product: 8 MB of scores, so that the pass stays in cache


class StructureError(ValueError):
    """A weight matrix that does not have its structure; the message says which block."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """What a projection kept.

    Parameters
    ----------
    mask : bool tensor, shape (rows, K)
        Kept positions. A kept position may hold a zero.
    index : int64 tensor, shape (rows / 4, K / 4), or None
        Pattern ids (pattern), 16-bit masks (N:M), None (dense).
    retained_energy : float
        Share of the squared weights that was kept, 0 to 1.
    """

    mask: torch.Tensor
    index: torch.Tensor | None
    retained_energy: float


@dataclass(frozen=True)
class Dense:
    """Every weight is kept.

    >>> Dense().bits((4, 8))
    256
    """

    name = "dense"

    def project(self, weight):
        return weight.clone(), Projection(mask=self.mask(None, weight.shape), index=None,
                                          retained_energy=1.0)

    def index(self, weight):
        block_grid(weight.shape)

    def mask(self, index, shape):
        return torch.ones(tuple(shape), dtype=torch.bool)

    def verify(self, weight):
        block_grid(weight.shape)

    def bits(self, shape):
        return shape[0] * shape[1] * WEIGHT_BITS


@dataclass(frozen=True)
class Pattern:
    """Every 4x4 block keeps the positions of one pattern of a pool.

    The projection takes, per block x, the pattern k with the largest ``sum_j P_kj x_j^2``, lowest k
    on ties: the nearest block for a fixed pool, found by one matrix product.

    >>> from compressor.pools import build_pool
    >>> Pattern(build_pool("reed_muller")).bits((4, 8))  # 2 blocks of 8 weights and a 5-bit id
    138
    """

    pool: PatternPool

    name = "pattern"

    def project(self, weight):
        blocks = to_blocks(weight.detach()).float()
        patterns = self._patterns().to(blocks.device)
        ids = torch.empty(len(blocks), dtype=torch.int64, device=blocks.device)
        kept = total = 0.0
        for start in range(0, len(blocks), _CHUNK):
            energy = blocks[start:start + _CHUNK].square()
            best, ids[start:start + _CHUNK] = (energy @ patterns.T).max(dim=1)
            kept += float(best.sum(dtype=torch.float64))
            total += float(energy.sum(dtype=torch.float64))
        index = ids.reshape(block_grid(weight.shape))
        mask = self.mask(index, weight.shape)
        return weight.detach() * mask, Projection(mask=mask, index=index,
                                                  retained_energy=kept / total if total else 1.0)

    def index(self, weight):
        """Lowest id whose pattern covers each block; counting is exact where energies could tie."""
        blocks = to_blocks(torch.as_tensor(weight)) != 0
        outside = (1 - self._patterns()).T.to(blocks.device)
        ids = torch.empty(len(blocks), dtype=torch.int64, device=blocks.device)
        for start in range(0, len(blocks), _CHUNK):
            uncovered = blocks[start:start + _CHUNK].float() @ outside
            fewest, ids[start:start + _CHUNK] = uncovered.min(dim=1)
            if fewest.any():
                block = start + int((fewest > 0).int().argmax())
                raise StructureError(f"{_block_name(block, weight.shape)} fits none of the "
                                     f"{self.pool.size} patterns; each keeps {self.pool.keep} of "
                                     f"{POSITIONS} weights")
        return ids.reshape(block_grid(weight.shape))

    def mask(self, index, shape):
        patterns = self._patterns().bool().to(index.device)
        return from_blocks(patterns[index.reshape(-1)], tuple(shape))

    def verify(self, weight):
        self.index(weight)

    def bits(self, shape):
        down, across = block_grid(shape)
        id_bits = max(1, (self.pool.size - 1).bit_length())
        return down * across * (self.pool.keep * WEIGHT_BITS + id_bits)

    def _patterns(self):
        return torch.tensor(self.pool.patterns, dtype=torch.float32)


@dataclass(frozen=True)
class NM:
    """At most ``keep`` of every ``group`` consecutive weights along K: keep N of M.

    >>> NM().bits((4, 8))  # 16 weights of 8 bits, 2 bits of position each
    160
    """

    keep: int = 2
    group: int = BLOCK

    name = "nm"

    def __post_init__(self):
        if self.group != BLOCK or not 1 <= self.keep < self.group:
            raise ValueError(f"N:M must keep 1 to {BLOCK - 1} of {BLOCK}, "
                             f"not {self.keep} of {self.group}")

    def project(self, weight):
        index = self._largest(weight.detach().abs())
        mask = self.mask(index, weight.shape)
        projected = weight.detach() * mask
        total = float(weight.detach().square().sum(dtype=torch.float64))
        kept = float(projected.square().sum(dtype=torch.float64))
        return projected, Projection(mask=mask, index=index,
                                     retained_energy=kept / total if total else 1.0)

    def index(self, weight):
        """16-bit mask of each block; the lowest free columns fill rows with fewer nonzeros."""
        nonzero = torch.as_tensor(weight) != 0
        counts = to_blocks(nonzero).reshape(-1, BLOCK, BLOCK).sum(dim=2)
        if (counts > self.keep).any():
            block = int((counts > self.keep).any(dim=1).int().argmax())
            raise StructureError(f"{_block_name(block, weight.shape)} keeps "
                                 f"{int(counts[block].max())} weights in one row; "
                                 f"{self.keep} of every {self.group} are allowed")
        return self._largest(nonzero.float())

    def _largest(self, magnitude):
        groups = to_blocks(magnitude).reshape(-1, BLOCK, self.group)
        # A stable sort takes the lowest column on ties; topk promises no order.
        order = groups.sort(dim=2, descending=True, stable=True).indices[..., :self.keep]
        kept = torch.zeros_like(groups, dtype=torch.int64).scatter_(2, order, 1)
        masks = (kept.reshape(-1, POSITIONS) << torch.arange(POSITIONS, device=kept.device)).sum(1)
        return masks.reshape(block_grid(magnitude.shape))

    def mask(self, index, shape):
        bits = index.reshape(-1, 1) >> torch.arange(POSITIONS, device=index.device) & 1
        return from_blocks(bits.bool(), tuple(shape))

    def verify(self, weight):
        self.index(weight)

    def bits(self, shape):
        down, across = block_grid(shape)
        position_bits = (self.group - 1).bit_length()
        return down * across * BLOCK * self.keep * (WEIGHT_BITS + position_bits)


def _block_name(block, shape):
    down, across = divmod(block, block_grid(shape)[1])
    return (f"the block at rows {down * BLOCK}-{down * BLOCK + BLOCK - 1}, "
            f"columns {across * BLOCK}-{across * BLOCK + BLOCK - 1}")
