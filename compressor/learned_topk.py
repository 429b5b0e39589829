"""MLPruning (S3): units are ranked by learned scores, and how many stay is learned too.

Every group of units (the heads of a layer, the rows of a matrix, the blocks of a matrix) has a score S for
each unit and one threshold s. The ceil(sigmoid(s) n) units with the highest scores are there, the others are
zero. Gradients pass straight through the ranking: a unit's score gets the gradient of its mask, and the
threshold the sum of those of the units that are there. A penalty pulls the remaining share R of the weights
down to its target (equations 5, 6 and 10 of the paper; constants as in its code).
"""

import math
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from compressor.group_structures import spread, unit_sums
from compressor.masks import HiddenWeights
from compressor.projection import StructureError
from compressor.pruning_method import PruningMethod

START = 10.0
"""First value of every threshold: sigmoid(10) n rounds up to n."""

NEAR, NEAR_WEIGHT = 3e-4, 10.0
"""Where the penalty is below NEAR its weight is NEAR_WEIGHT, so that R settles softly."""

TIE_BREAK = 1e-6
"""Scores begin at this times the unit's share of the largest norm: the smallest units go first."""


@dataclass(frozen=True, kw_only=True)
class UnitGroup:
    """Units that are ranked together.

    Parameters
    ----------
    name : str
    members : tuple of str
        Layers that have these units; q, k and v share their heads.
    unit : tuple of int
        Rows and columns of a unit; whole rows take their biases along.
    feeds : str, optional
        Layer whose columns are the outputs of the units: gone where they are.
    """

    name: str
    members: tuple[str, ...]
    unit: tuple[int, int]
    feeds: str | None = None


def head_and_row_groups(targets, head_size):
    """Groups of the first step: heads of q, k and v; rows of o, ffn1 and ffn2.

    ``targets`` are TargetLayers by name, in execution order; ``head_size`` is the rows of a head.

    Raises
    ------
    StructureError
        If some of q, k and v are targets, but not all.
    """
    groups, heads = [], []
    for name, target in targets.items():
        inner = target.module.in_features
        if target.role not in ("q", "k", "v"):
            feeds = _following(targets, name, "ffn2") if target.role == "ffn1" else None
            groups.append(UnitGroup(name=name, members=(name,), unit=(1, inner), feeds=feeds))
            continue
        heads.append(name)
        if len(heads) == 3:
            groups.append(UnitGroup(name=f"{heads[0]}.heads", members=tuple(heads), unit=(head_size, inner),
                                    feeds=_following(targets, name, "o")))
            heads = []
    if heads:
        raise StructureError("heads are removed from q, k and v together; targets.roles must name all three "
                             "or none")
    return groups


def _following(targets, name, role):
    """The next target, if it has this role."""
    names = list(targets)
    later = names[names.index(name) + 1:names.index(name) + 2]
    return next((other for other in later if targets[other].role == role), None)


def block_groups(targets, unit):
    """Groups of the second step: the blocks of every matrix."""
    return [UnitGroup(name=name, members=(name,), unit=unit) for name in targets]


def penalty_weight(penalty, target, highest, lowest):
    """The adaptive weight of ``penalty`` = (R - target)^2, as in the paper's code.

    >>> penalty_weight(0.36, 0.4, 20000, 50)  # R = 1
    20000.0
    >>> penalty_weight(2e-4, 0.4, 20000, 50)
    10.0
    """
    if penalty < NEAR:
        return NEAR_WEIGHT
    return max(highest * penalty / (1 - target) ** 2, float(lowest))


class LearnedTopK(PruningMethod):
    """Scores, thresholds and the masks they make, of all groups.

    Parameters
    ----------
    targets : dict of str to TargetLayer
    groups : list of UnitGroup
    stage : compressor.recipe_stages.LearnedTopKStage
    """

    name = "topk"
    bytes_per_weight = 5  # a mask; the dense weight while the model holds the pruned one

    def __init__(self, targets, groups, stage):
        super().__init__({name: target.module.weight for name, target in targets.items()})
        self.groups, self.stage = {group.name: group for group in groups}, stage
        self.biases = {name: targets[name].module.bias for group in groups if self._whole_rows(group)
                       for name in group.members}
        self.hidden = HiddenWeights(self.weights | {f"{name}.bias": bias
                                                    for name, bias in self.biases.items()})
        self.alive, self.scores, self.thresholds = {}, {}, {}
        for name, group in self.groups.items():
            energy = sum(unit_sums(self.weights[member].detach().float().square(), group.unit).flatten()
                         for member in group.members)
            self.alive[name] = energy > 0  # units that an earlier step removed take no part
            start = TIE_BREAK * (energy / energy.max().clamp(min=1e-30)).sqrt()
            self.scores[name] = start.requires_grad_()
            self.thresholds[name] = torch.tensor(START, device=start.device, requires_grad=True)
        self.optimizer = torch.optim.Adam([*self.scores.values(), *self.thresholds.values()],
                                          lr=stage.score_rate)
        self.remaining = 1.0
        self.current = {}
        self.refresh()

    def _whole_rows(self, group):
        return group.unit[1] == self.weights[group.members[0]].shape[1]

    @torch.no_grad()
    def units(self, name, multiple=1):
        """Mask of a group's units, bool, shape (units,); their number rounded up to ``multiple``.

        At least one unit is there.
        """
        alive = self.alive[name]
        total = int(alive.sum())
        count = max(1, math.ceil(float(torch.sigmoid(self.thresholds[name])) * total))
        count = min(total, -(-count // multiple) * multiple)
        ranking = self.scores[name].masked_fill(~alive, -math.inf).argsort(descending=True, stable=True)
        mask = torch.zeros_like(alive)
        mask[ranking[:count]] = True
        return mask

    @torch.no_grad()
    def masks(self, neurons=1, *, columns=True):
        """Masks of all weights and, under ``{name}.bias``, of the biases of removed rows.

        Parameters
        ----------
        neurons : int
            The rows of ffn1 that stay are a multiple of this; the next best ones are added.
        columns : bool
            Mask the columns that removed units feed. Outputs are the same without, but through them removed
            units get the gradients that may bring them back.
        """
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self.weights.items()}
        for group in self.groups.values():
            first = self.weights[group.members[0]]
            feeds_neurons = group.feeds is not None and group.unit[0] == 1
            units = self.units(group.name, neurons if feeds_neurons else 1)
            down = first.shape[0] // group.unit[0]
            whole = spread(units.reshape(down, -1), group.unit)
            for member in group.members:
                masks[member] &= whole
                if member in self.biases:
                    masks[f"{member}.bias"] = whole[:, 0].clone()
            if columns and group.feeds is not None:
                masks[group.feeds] &= whole[:, 0]
        return masks

    def refresh(self):
        """Rank the units anew."""
        self.current = self.masks(columns=False)

    def before_forward(self, stage, done):
        """Set the removed units to zero in the model, and keep the dense weights aside."""
        self.refresh()
        self.hidden.hide(self.current)

    def before_clipping(self, stage):
        """Bring the dense weights back, and give scores and thresholds their gradients.

        The gradients of the model must be complete. Those of removed weights are set to zero.
        """
        self.hidden.restore()
        share = self.remaining_share()
        excess = share - self.stage.remaining
        loss = torch.zeros_like(share)
        if excess.item() > 0:
            square = excess.square()
            loss = square * penalty_weight(square.item(), self.stage.remaining, self.stage.lambda_max,
                                           self.stage.lambda_min)
        gradients = torch.autograd.grad(loss, list(self.thresholds.values()), allow_unused=True) \
            if loss.requires_grad else [None] * len(self.thresholds)
        with torch.no_grad():
            for (name, group), gradient in zip(self.groups.items(), gradients, strict=True):
                found = sum(self._mask_gradient(member, group.unit) for member in group.members)
                self.scores[name].grad = found
                chosen = (found * self.units(name)).sum()
                self.thresholds[name].grad = chosen if gradient is None else chosen + gradient
            for name, parameter in self.hidden.parameters.items():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.current[name])
        self.remaining = share.item()

    def _mask_gradient(self, member, unit):
        weight = self.weights[member]
        found = unit_sums((weight.grad * weight).float(), unit).flatten()
        if member in self.biases and self.biases[member].grad is not None:
            bias = self.biases[member]
            found += (bias.grad * bias).float().reshape(-1, unit[0]).sum(dim=1)
        return found

    def remaining_share(self):
        """R, a scalar tensor: share that the thresholds leave of the weights that were there at the start."""
        rows, columns, kept, total = {}, {}, 0.0, 0.0
        for name, group in self.groups.items():
            count = int(self.alive[name].sum())
            share = torch.sigmoid(self.thresholds[name]).clamp(min=1 / max(1, count))
            for member in group.members:
                rows[member] = share, count * group.unit[0] * group.unit[1]
            if group.feeds is not None:
                columns[group.feeds] = share
        for member, (share, size) in rows.items():
            kept = kept + share * columns.get(member, 1.0) * size
            total += size
        return kept / total

    def after_optimizer_step(self, stage, relative_rate):
        """Move scores and thresholds by Adam, at a share of their peak rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.score_rate * relative_rate
        self.optimizer.step()
        self.optimizer.zero_grad()

    @contextmanager
    def projected(self, target, norms):
        """Within the context removed units are zero, as :meth:`final_masks` has them."""
        self.hidden.hide(self.final_masks())
        try:
            yield
        finally:
            self.hidden.restore()

    def final_masks(self):
        """Masks of what would stay if learning ended now."""
        return self.masks(self.stage.neurons)

    def report(self):
        """``remaining`` R, ``mean_threshold`` sigmoid(s) on average: dict of str to float."""
        shares = [float(torch.sigmoid(value.detach())) for value in self.thresholds.values()]
        return {"remaining": self.remaining, "mean_threshold": sum(shares) / len(shares)}

    def tensors(self):
        """Everything that must survive an interruption, by name."""
        saved = {}
        for kind, values in (("score", self.scores), ("threshold", self.thresholds)):
            for name, value in values.items():
                saved[f"{kind}/{name}"] = value.detach()
                saved |= {f"{kind}_{key}/{name}": moment
                          for key, moment in self.optimizer.state.get(value, {}).items()}
        return saved | {f"alive/{name}": mask for name, mask in self.alive.items()}

    @torch.no_grad()
    def load(self, tensors):
        """Inverse of :meth:`tensors`; KeyError if one is missing."""
        for kind, values in (("score", self.scores), ("threshold", self.thresholds)):
            for name, value in values.items():
                value.copy_(tensors[f"{kind}/{name}"])
                # Adam keeps its step on the CPU, wherever the moments are.
                moments = {key: tensors[f"{kind}_{key}/{name}"].to("cpu" if key == "step" else value.device,
                                                                   copy=True)
                           for key in ("step", "exp_avg", "exp_avg_sq") if f"{kind}_{key}/{name}" in tensors}
                if moments:
                    self.optimizer.state[value] = moments
        self.alive = {name: tensors[f"alive/{name}"].to(mask.device) for name, mask in self.alive.items()}
        self.refresh()


def threshold_warning(stage, rates):
    """One line if the thresholds of a stage cannot fall far enough in its steps, else None.

    Adam moves a threshold by at most about its rate in a step. With every threshold equal, matrices between
    two groups keep the product of both shares, so the needed share is at most the square root of R.

    Parameters
    ----------
    stage : LearnedTopKStage
    rates : sequence of float
        Relative learning rate of every step, 0 to 1.
    """
    share = math.sqrt(stage.remaining)
    needed = START - math.log(share / (1 - share))
    budget = stage.score_rate * sum(rates)
    if budget >= needed:
        return None
    return (f"the score rates add up to {budget:.2g}, but thresholds must fall by about {needed:.2g}; train "
            f"longer or raise score_rate to {stage.score_rate * needed / budget:.2g}")
