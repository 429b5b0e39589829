"""Weight structures: what a pruned matrix may look like, and the nearest matrix that does.

Each structure is a small value with the same methods:

``project(weight, norms=None) -> (projected, Projection)``
    The nearest matrix (least squares) that has the structure; exact. With ``norms``, root mean squares
    of the K inputs, float32, the error is measured behind them: positions are chosen by
    ``|w| * norm`` instead of ``|w|`` (Wanda, arXiv 2306.11695, equation 1), values stay as they are.
``index(weight) -> int64 tensor, shape (rows / 4, K / 4), or None``
    The block index of a matrix that has the structure, None where the bundle stores none;
    StructureError if the matrix does not have it.
``verify(weight)``
    Raises StructureError unless the matrix has the structure.
``check_shape(shape)``
    Raises ValueError unless matrices of this shape can have the structure.
``stored() -> structure``
    The structure as which a bundle, and so the hardware, holds such a matrix.
``bits(shape) -> int``, ``weight_bits(weight) -> int``
    Bits that int8 weights and their index need, as stored.
``of_layer(name) -> structure``
    The structure of one layer, where layers differ.

Structures of larger units than a 4x4 block are in :mod:`compressor.group_structures`.
"""

from dataclasses import dataclass

import torch

from compressor.blocks import BLOCK, NM_GROUP_MAX, POSITIONS, block_grid, from_blocks, to_blocks
from compressor.pools import PatternPool
from compressor.projection import Projection, Structure, StructureError, kept_energy, scores_of

WEIGHT_BITS = 8
_CHUNK = 1 << 16  # blocks in one matrix product: 8 MB of scores, so that the pass stays in cache


@dataclass(frozen=True)
class Dense(Structure):
    """Every weight is kept.

    >>> Dense().bits((4, 8))
    256
    """

    name = "dense"
    description = "dense"

    def project(self, weight, norms=None):
        mask = torch.ones(tuple(weight.shape), dtype=torch.bool, device=weight.device)
        return weight.clone(), Projection(mask=mask, index=None, retained_energy=1.0)

    def index(self, weight):
        self.check_shape(weight.shape)

    def verify(self, weight):
        self.check_shape(weight.shape)

    def check_shape(self, shape):
        block_grid(shape)

    def stored(self):
        return self

    def bits(self, shape):
        return shape[0] * shape[1] * WEIGHT_BITS


@dataclass(frozen=True)
class Pattern(Structure):
    """Every 4x4 block keeps the positions of one pattern of a pool.

    The projection takes, per block x, the pattern k with the largest ``sum_j P_kj x_j^2``, lowest k
    on ties: the nearest block for a fixed pool, found by one matrix product.

    >>> from compressor.pools import build_pool
    >>> Pattern(build_pool("reed_muller")).bits((4, 8))  # 2 blocks of 8 weights and a 5-bit id
    138
    """

    pool: PatternPool

    name = "pattern"

    @property
    def description(self):
        return f"pattern, {self.pool.size} patterns that keep {self.pool.keep} of {POSITIONS}"

    def project(self, weight, norms=None):
        blocks = to_blocks(scores_of(weight, norms))
        patterns = self._patterns().to(blocks.device)
        ids = torch.empty(len(blocks), dtype=torch.int64, device=blocks.device)
        kept = total = 0.0
        for start in range(0, len(blocks), _CHUNK):
            energy = blocks[start:start + _CHUNK].square()
            best, ids[start:start + _CHUNK] = (energy @ patterns.T).max(dim=1)
            kept += float(best.sum(dtype=torch.float64))
            total += float(energy.sum(dtype=torch.float64))
        index = ids.reshape(block_grid(weight.shape))
        mask = from_blocks(patterns.bool()[ids], tuple(weight.shape))
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

    def verify(self, weight):
        self.index(weight)

    def check_shape(self, shape):
        block_grid(shape)

    def stored(self):
        return self

    def bits(self, shape):
        down, across = block_grid(shape)
        id_bits = max(1, (self.pool.size - 1).bit_length())
        return down * across * (self.pool.keep * WEIGHT_BITS + id_bits)

    def _patterns(self):
        return torch.tensor(self.pool.patterns, dtype=torch.float32)


@dataclass(frozen=True)
class NM(Structure):
    """At most ``keep`` of every ``group`` consecutive weights along K: keep N of M, as in "2:4".

    The hardware has 2:4. Groups that fit into it (1:2, 1:4, 2:8 and the like) are stored as 2:4;
    others, such as 3:4 and 4:8, as dense weights.

    >>> NM().bits((4, 8))  # 16 weights of 8 bits, 2 bits of position each
    160
    >>> NM(4, 8).stored()
    Dense()
    """

    keep: int = 2
    group: int = BLOCK

    name = "nm"

    def __post_init__(self):
        if not (2 <= self.group <= NM_GROUP_MAX and 1 <= self.keep < self.group):
            raise ValueError(f"N:M must keep 1 to M - 1 of M = 2 to {NM_GROUP_MAX} weights, "
                             f"not {self.keep} of {self.group}")

    @property
    def description(self):
        return f"{self.keep}:{self.group} along the inputs"

    def project(self, weight, norms=None):
        self.check_shape(weight.shape)
        scores = scores_of(weight, norms)
        mask = self._largest(scores.abs())
        index = _block_masks(mask) if self.group == BLOCK else None
        return weight.detach() * mask, Projection(mask=mask, index=index,
                                                  retained_energy=kept_energy(scores, mask))

    def index(self, weight):
        """16-bit mask of each block; the lowest free columns fill rows with fewer nonzeros."""
        self.check_shape(weight.shape)
        nonzero = torch.as_tensor(weight) != 0
        counts = nonzero.reshape(weight.shape[0], -1, self.group).sum(dim=2)
        if (counts > self.keep).any():
            row, group = (counts > self.keep).nonzero()[0].tolist()
            raise StructureError(f"row {row}, columns {group * self.group}-{(group + 1) * self.group - 1} "
                                 f"keep {int(counts[row, group])} weights; {self.keep} of every "
                                 f"{self.group} are allowed")
        return _block_masks(self._largest(nonzero.float())) if self.group == BLOCK else None

    def _largest(self, magnitude):
        """Mask of the ``keep`` largest of each group, the lowest column on ties.

        Counts, for every weight, those ahead of it: several times faster than sorting groups this small.
        """
        columns = magnitude.reshape(-1, self.group).T.contiguous()
        ahead = torch.zeros(columns.shape, dtype=torch.uint8, device=columns.device)
        for later in range(self.group):
            for earlier in range(later):
                first = columns[earlier] >= columns[later]
                ahead[later] += first
                ahead[earlier] += ~first
        return (ahead < self.keep).T.reshape(magnitude.shape)

    def verify(self, weight):
        self.index(weight)

    def check_shape(self, shape):
        block_grid(shape)
        if shape[1] % self.group:
            raise ValueError(f"{shape[1]} inputs do not divide into groups of {self.group}; "
                             f"choose a group that divides them")

    def stored(self):
        fits = (self.keep <= 2 and self.group % BLOCK == 0) or (self.keep, self.group) == (1, 2)
        return self if self == NM() else NM() if fits else Dense()

    def bits(self, shape):
        if self.stored() != self:
            return self.stored().bits(shape)
        position_bits = (self.group - 1).bit_length()
        return shape[0] * shape[1] // self.group * self.keep * (WEIGHT_BITS + position_bits)


@dataclass(frozen=True)
class Unstructured(Structure):
    """The largest weights of each matrix are kept, wherever they are; stored as dense weights.

    Parameters
    ----------
    density : float
        Share of every matrix that is kept, above 0 to below 1; ties take the lowest position.

    >>> Unstructured(0.5).bits((4, 8)) == Dense().bits((4, 8))
    True
    """

    density: float = 0.5

    name = "unstructured"

    def __post_init__(self):
        if not 0 < self.density < 1:
            raise ValueError(f"an unstructured density is above 0 and below 1, not {self.density}")

    @property
    def description(self):
        return f"unstructured, {100 * self.density:g} % of every matrix"

    def kept(self, shape):
        """Number of weights that a matrix of this shape keeps."""
        return max(1, int(shape[0] * shape[1] * self.density + 0.5))

    def project(self, weight, norms=None):
        self.check_shape(weight.shape)
        scores = scores_of(weight, norms)
        magnitude, count = scores.abs().reshape(-1), self.kept(weight.shape)
        smallest = magnitude.kthvalue(magnitude.numel() - count + 1).values
        mask = magnitude > smallest
        ties = (magnitude == smallest).nonzero().reshape(-1)
        mask[ties[:count - int(mask.sum())]] = True
        mask = mask.reshape(weight.shape)
        return weight.detach() * mask, Projection(mask=mask, index=None,
                                                  retained_energy=kept_energy(scores, mask))

    def index(self, weight):
        self.check_shape(weight.shape)
        nonzero, allowed = int((torch.as_tensor(weight) != 0).sum()), self.kept(weight.shape)
        if nonzero > allowed:
            raise StructureError(f"{nonzero} weights are not zero; a density of {self.density:g} allows "
                                 f"{allowed}")

    def verify(self, weight):
        self.index(weight)

    def check_shape(self, shape):
        block_grid(shape)

    def stored(self):
        return Dense()

    def bits(self, shape):
        return Dense().bits(shape)


def _block_masks(mask):
    """16-bit masks of the blocks, int64, shape (rows / 4, K / 4)."""
    bits = to_blocks(mask).long() << torch.arange(POSITIONS, device=mask.device)
    return bits.sum(dim=1).reshape(block_grid(mask.shape))


def _block_name(block, shape):
    down, across = divmod(block, block_grid(shape)[1])
    return (f"the block at rows {down * BLOCK}-{down * BLOCK + BLOCK - 1}, "
            f"columns {across * BLOCK}-{across * BLOCK + BLOCK - 1}")
