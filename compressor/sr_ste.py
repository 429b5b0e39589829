"""SR-STE: trains dense weights through their own projection, with masks that move.

Every step runs forward and backward with the pruned weights ``W~ = E * W`` (E: mask of the projection of
W), and gives the gradient found there to the dense weights, removed ones included (straight through).
Removed weights decay as well: ``g(W~) + decay * (1 - E) * W`` (S0, equation 7; Zhou et al., ICLR 2021,
arXiv 2102.04010, equation 9), which keeps masks from flipping back and forth.
"""

import torch

from compressor.masks import HiddenWeights
from compressor.pruning_method import ProjectedMethod


class SrSteState(ProjectedMethod):
    """Masks, and the dense weights while the model holds the pruned ones.

    Parameters
    ----------
    weights : dict of str to Parameter, shape (rows, K) each
    structure : see :mod:`compressor.structures`
    decay : float
        Added to the gradient of removed weights, times the weight.
    norms : dict of str to float32 tensor, shape (K,), optional
        Input norms for error-aware projections.
    """

    name = "sr_ste"
    has_dense_model = False
    bytes_per_weight = 5  # a mask; the dense weight while the model holds the pruned one

    def __init__(self, weights, structure, *, decay, norms=None):
        super().__init__(weights)
        self.structure = structure
        self.decay = decay
        self.norms = norms or {}
        self.masks = self._project()
        self._hidden = HiddenWeights(weights)
        self._flips, self._updates = 0.0, 0

    def _project(self):
        return {name: self.structure.of_layer(name).project(weight, self.norms.get(name))[1].mask
                for name, weight in self.weights.items()}

    def refresh(self):
        """Find the masks of the dense weights anew, and count how many positions changed."""
        masks = self._project()
        changed = sum(int((masks[name] ^ self.masks[name]).sum()) for name in masks)
        self._flips += changed / sum(mask.numel() for mask in masks.values())
        self._updates += 1
        self.masks = masks

    def before_forward(self, stage, done):
        """Set removed weights to zero in the model, and keep the dense weights aside."""
        if done and done % stage.interval == 0:
            self.refresh()
        self._hidden.hide(self.masks)

    @torch.no_grad()
    def before_clipping(self, stage):
        """Bring the dense weights back, and add the decay of removed ones to the complete gradients."""
        self._hidden.restore()
        for name, weight in self.weights.items():
            outside = (weight * ~self.masks[name]).mul_(self.decay)
            weight.grad = outside if weight.grad is None else weight.grad.add_(outside)

    @torch.no_grad()
    def report(self):
        """What happened since the last report.

        Returns
        -------
        dict of str to float
            ``flip_rate`` share of all positions whose mask changed, mean over the updates;
            ``removed_norm`` norm of the removed weights over the norm of all.
        """
        removed = sum(float((weight * ~self.masks[name]).square().sum())
                      for name, weight in self.weights.items())
        total = sum(float(weight.square().sum()) for weight in self.weights.values())
        found = {"flip_rate": self._flips / max(1, self._updates),
                 "removed_norm": (removed / max(total, torch.finfo(torch.float32).tiny)) ** 0.5}
        self._flips, self._updates = 0.0, 0
        return found

    def tensors(self):
        """Everything that must survive an interruption, by name."""
        return {f"mask/{name}": mask for name, mask in self.masks.items()} | {
            "flips": torch.tensor([self._flips, self._updates], dtype=torch.float64)}

    def load(self, tensors):
        """Inverse of :meth:`tensors`; KeyError if one is missing."""
        self.masks = {name: tensors[f"mask/{name}"].to(weight.device)
                      for name, weight in self.weights.items()}
        flips, updates = tensors["flips"].tolist()
        self._flips, self._updates = flips, int(updates)
