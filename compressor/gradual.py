"""Gradual pruning: more and more is removed while the rest trains (Zhu and Gupta, arXiv 1710.01878).

At share t of the stage the density is ``d + (1 - d) (1 - t)^3``; what is removed stays zero, since zeros are
the smallest weights.
"""

from dataclasses import replace

import torch

from compressor.masks import FixedMasks
from compressor.pruning_method import ProjectedMethod


class GradualPruning(ProjectedMethod):
    """Masks that shrink along the cubic schedule.

    Parameters
    ----------
    weights : dict of str to Parameter
    structure : structure with a density
    norms : dict of str to tensor, optional
        Input norms for error-aware projections.
    """

    name = "gradual"
    bytes_per_weight = 1  # a mask

    def __init__(self, weights, structure, norms=None):
        super().__init__(weights)
        self.structure, self.norms = structure, norms or {}
        self.masks = FixedMasks(weights, {name: torch.ones_like(weight, dtype=torch.bool)
                                          for name, weight in weights.items()})

    def advance(self, share, optimizer=None):
        """Remove what the density at a ``share`` of the stage asks for, 0 to 1."""
        masks = {}
        for name, weight in self.weights.items():
            structure = self.structure.of_layer(name)
            if hasattr(structure, "density"):  # a budget may leave a layer dense
                density = structure.density + (1 - structure.density) * (1 - share) ** 3
                if density < 1:
                    structure = replace(structure, density=density)
                    masks[name] = structure.project(weight, self.norms.get(name))[1].mask
                    continue
            masks[name] = torch.ones_like(weight, dtype=torch.bool)
        self.masks = FixedMasks(self.weights, masks)
        self.masks.apply()
        if optimizer is not None:
            self.masks.clear_moments(optimizer)

    def before_clipping(self, stage):
        self.masks.apply_to_gradients()

    def after_optimizer_step(self, stage, relative_rate):
        self.masks.apply()

    def end_step(self, span, done, optimizer):
        if done % span.stage.interval == 0 or done == span.steps:
            self.advance(done / span.steps, optimizer)
        return {}

    def report(self):
        """``kept``: share of the weights under the masks."""
        kept = sum(int(mask.sum()) for mask in self.masks.masks.values())
        return {"kept": kept / sum(weight.numel() for weight in self.weights.values())}

    def tensors(self):
        """Everything that must survive an interruption, by name."""
        return self.masks.tensors()

    def load(self, tensors):
        """Inverse of :meth:`tensors`; KeyError if one is missing."""
        self.masks = FixedMasks.from_tensors(self.weights, tensors)
