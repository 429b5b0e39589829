"""Reweighted group Lasso (S2): pulls the norms of units towards zero, small ones harder than large ones."""

import torch

from compressor.group_structures import spread, unit_sums
from compressor.pruning_method import ProjectedMethod

EPSILON_SHARE, EPSILON_MIN = 1e-3, 1e-8
"""Epsilon of ``gamma = 1 / (norm + epsilon)``: this share of the matrix's median norm, and its least."""


def reweight_warning(stage, _rates):
    """One line if a GroupLassoStage ends with its first milestone, so that gammas never follow, else None."""
    if stage.reweight_epochs < stage.epochs:
        return None
    return (f"its units are never reweighted: reweight_epochs is {stage.reweight_epochs:g}, and the stage "
            f"has {stage.epochs:g} epochs; set it to {stage.epochs / 2:g} or less")


class GroupLasso(ProjectedMethod):
    """Gammas of all units, and what they do to gradients or weights.

    Parameters
    ----------
    weights : dict of str to Parameter, shape (rows, K) each
    structure : Blocks or RowsAndColumns
        Its ``units``; with two kinds of them their penalties add up.
    strength : float
        Lambda of the paper.
    """

    name = "lasso"

    def __init__(self, weights, structure, *, strength):
        super().__init__(weights)
        self.units = structure.units
        self.strength = strength
        self.gammas = {}
        self.reweight()

    def _norms(self, name, unit):
        return unit_sums(self.weights[name].detach().float().square(), unit).sqrt()

    def reweight(self):
        """Set every gamma from the weights as they are: at the start and at milestones."""
        for name in self.weights:
            for kind, unit in enumerate(self.units):
                norms = self._norms(name, unit)
                epsilon = max(EPSILON_SHARE * float(norms.median()), EPSILON_MIN)
                self.gammas[f"{kind}/{name}"] = 1 / (norms + epsilon)

    @torch.no_grad()
    def add_penalty_gradient(self):
        """Add ``strength * gamma * w / ||g||`` to every gradient; returns the added gradient's norm."""
        squares = 0.0
        for name, weight in self.weights.items():
            factor = torch.zeros_like(weight, dtype=torch.float32)
            for kind, unit in enumerate(self.units):
                norms = self._norms(name, unit).clamp(min=1e-30)
                factor += spread(self.strength * self.gammas[f"{kind}/{name}"] / norms, unit)
            added = factor.mul_(weight)
            squares += float(added.square().sum())
            added = added.to(weight.dtype)
            weight.grad = added if weight.grad is None else weight.grad.add_(added)
        return squares ** 0.5

    @torch.no_grad()
    def proximal_step(self, relative_rate):
        """Lower every unit's norm by ``strength * gamma * relative_rate``, down to zero; apart from AdamW."""
        for name, weight in self.weights.items():
            for kind, unit in enumerate(self.units):
                norms = self._norms(name, unit)
                lower = self.strength * relative_rate * self.gammas[f"{kind}/{name}"]
                weight.mul_(spread((1 - lower / norms.clamp(min=1e-30)).clamp(min=0), unit).to(weight.dtype))

    def before_clipping(self, stage):
        if stage.solver == "penalty":
            self.add_penalty_gradient()

    def after_optimizer_step(self, stage, relative_rate):
        if stage.solver == "proximal":
            self.proximal_step(relative_rate)

    def end_step(self, span, done, optimizer):
        if done % max(1, round(span.stage.reweight_epochs * span.epoch_steps)) == 0:
            self.reweight()
        return {}

    @torch.no_grad()
    def report(self):
        """``penalty``: sum of gamma ||g||; ``small``: share of the units below a tenth of their matrix's
        median norm when gamma was set; ``zero``: share that is zero. dict of str to float."""
        penalty = small = zero = count = 0.0
        for name in self.weights:
            for kind, unit in enumerate(self.units):
                norms, gamma = self._norms(name, unit), self.gammas[f"{kind}/{name}"]
                penalty += float((gamma * norms).sum())
                small += float((norms < 0.1 * (1 / gamma).median()).sum())
                zero += float((norms == 0).sum())
                count += norms.numel()
        return {"penalty": penalty, "small": small / count, "zero": zero / count}

    def tensors(self):
        """Everything that must survive an interruption, by name."""
        return {f"gamma/{key}": gamma for key, gamma in self.gammas.items()}

    def load(self, tensors):
        """Inverse of :meth:`tensors`; KeyError if one is missing."""
        for key, gamma in self.gammas.items():
            self.gammas[key] = tensors[f"gamma/{key}"].to(gamma.device)
