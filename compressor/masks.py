"""Fixed masks: after pruning, no optimizer may bring a removed weight back."""

import torch

from compressor.pruning_method import PruningMethod


class HiddenWeights:
    """Dense weights, kept aside while the model holds the pruned ones: between forward pass and clipping.

    ``parameters``: dict of str to Parameter.
    """

    def __init__(self, parameters):
        self.parameters = parameters
        self._dense = {}

    @torch.no_grad()
    def hide(self, masks):
        """Set what the masks leave out to zero in the model."""
        for name, parameter in self.parameters.items():
            if name in masks:
                self._dense[name] = parameter.detach().clone()
                parameter.mul_(masks[name])

    @torch.no_grad()
    def restore(self):
        """Bring the dense weights back."""
        for name, dense in self._dense.items():
            self.parameters[name].copy_(dense)
        self._dense.clear()


class FixedMasks(PruningMethod):
    """Masks of the pruned weights, from the moment they are frozen.

    AdamW's moments and weight decay revive weights whose gradients are zero, so that masking gradients
    is not enough: the moments are cleared once, and the weights are masked after every step.

    Parameters
    ----------
    weights : dict of str to Parameter
    masks : dict of str to bool tensor
        True where a weight is kept; same names and shapes.
    """

    name = "masks"
    has_dense_model = False
    bytes_per_weight = 1

    def __init__(self, weights, masks):
        super().__init__(weights)
        self.masks = {name: masks[name].to(weight.device) for name, weight in weights.items()}

    @classmethod
    def project(cls, weights, structure, norms=None):
        """Project every weight, in place, and freeze what was kept; returns (masks, retained energy).

        ``norms`` are the input norms of error-aware projections, by name.
        """
        masks, kept, total = {}, 0.0, 0.0
        with torch.no_grad():
            for name, weight in weights.items():
                square = float(weight.float().square().sum())
                projected, found = structure.of_layer(name).project(weight, (norms or {}).get(name))
                weight.copy_(projected)
                masks[name] = found.mask
                kept += found.retained_energy * square
                total += square
        return cls(weights, masks), (kept / total if total else 1.0)

    @classmethod
    @torch.no_grad()
    def remove(cls, parameters, masks):
        """Set what given masks leave out to zero, for good; returns (masks, retained energy)."""
        masked = {name: parameter for name, parameter in parameters.items() if name in masks}
        before = sum(float(parameter.float().square().sum()) for parameter in masked.values())
        fixed = cls(masked, masks)
        fixed.apply()
        after = sum(float(parameter.float().square().sum()) for parameter in masked.values())
        return fixed, (after / before if before else 1.0)

    @torch.no_grad()
    def apply(self):
        """Set the removed weights to zero."""
        for name, weight in self.weights.items():
            weight.mul_(self.masks[name])

    @torch.no_grad()
    def apply_to_gradients(self):
        """Set the gradients of removed weights to zero, so that they do not count when clipping."""
        for name, weight in self.weights.items():
            if weight.grad is not None:
                weight.grad.mul_(self.masks[name])

    def before_clipping(self, stage):
        self.apply_to_gradients()

    def after_optimizer_step(self, stage, relative_rate):
        self.apply()

    @torch.no_grad()
    def clear_moments(self, optimizer):
        """Forget AdamW's moments of removed weights; moments of kept weights stay."""
        for name, weight in self.weights.items():
            for value in optimizer.state.get(weight, {}).values():
                if torch.is_tensor(value) and value.shape == weight.shape:
                    value.mul_(self.masks[name])

    def tensors(self):
        """Everything that must survive an interruption, by name."""
        return {f"mask/{name}": mask for name, mask in self.masks.items()}

    @classmethod
    def from_tensors(cls, weights, tensors):
        """Inverse of :meth:`tensors`; KeyError if one is missing."""
        return cls(weights, {name: tensors[f"mask/{name}"] for name in weights})
