"""Structure and int8 at once: the nearest matrix whose kept weights are also multiples of their row's scale.

ADMM with this projection pulls weights towards integers, and a position is kept for what is left of it
after rounding, not for its size: pruning and quantization in one step, exact where the scales are given
(ADMM-NN, arXiv 1812.11677, does one after the other).
"""

from dataclasses import dataclass

import torch

from compressor.intops import ACTIVATION_MAX
from compressor.projection import Projection, Structure, kept_energy, scores_of
from compressor.quantization import SCALE_MIN


@dataclass(frozen=True)
class IntegerGrid(Structure):
    """A structure whose kept weights are ``-127 ... 127`` times a scale of their row.

    A row's scale is its largest kept weight over 127, as the exporter's (but for rows whose bias needs a
    larger one), so that an export of the linear layers has the integers of the projection; one of the whole
    encoder rounds again where the channels that a layer reads have scales of their own. For given scales,
    keeping position j gains ``x_j**2 - (x_j - Q(x_j))**2``: the base structure chooses by these gains, which
    gives the nearest matrix. Scales and positions follow from each other, so they are found in turns, twice.

    Parameters
    ----------
    base : structure
        See :mod:`compressor.structures`; :class:`~compressor.structures.Dense` for int8 alone.

    >>> from compressor.structures import NM
    >>> IntegerGrid(NM()).project(torch.tensor([[1.27, 0.004, 0.5, 0.016]]).repeat(4, 1))[0][0]
    tensor([1.2700, 0.0000, 0.5000, 0.0000])
    """

    base: Structure

    @property
    def description(self):
        return f"{self.base.description}, int8"

    def of_layer(self, name):
        return IntegerGrid(self.base.of_layer(name))

    def project(self, weight, norms=None):
        values = weight.detach().float()
        found = self.base.project(values, norms)[1]
        for _ in range(2):
            rounded = _rounded(values, found.mask)
            gains = values.square() - (values - rounded).square()
            found = self.base.project(gains.clamp(min=0).sqrt(), norms)[1]
        projected = (_rounded(values, found.mask) * found.mask).to(weight.dtype)
        return projected, Projection(mask=found.mask, index=found.index,
                                     retained_energy=kept_energy(scores_of(values, norms), found.mask))

    def index(self, weight):
        return self.base.index(weight)

    def verify(self, weight):
        self.base.verify(weight)

    def check_shape(self, shape):
        self.base.check_shape(shape)

    def stored(self):
        return self.base.stored()

    def bits(self, shape):
        return self.base.bits(shape)


def _rounded(values, mask):
    """Nearest multiples, half up, of scales that the kept values of each row give."""
    scale = ((values * mask).abs().amax(dim=1, keepdim=True) / ACTIVATION_MAX).clamp(min=SCALE_MIN)
    return torch.floor(values / scale + 0.5).clamp(-ACTIVATION_MAX, ACTIVATION_MAX) * scale
