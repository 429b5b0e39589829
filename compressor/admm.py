"""ADMM: pulls dense weights W towards a structure S, by way of a copy Z in S and a scaled dual U.

Minimizes ``f(W)`` subject to ``W = Z``, ``Z in S``, through the augmented loss
``f(W) + sum_i rho / 2 * ||W_i - Z_i + U_i||^2`` (S0, equation 4; Boyd et al. 2011, section 3.1.1).
Every interval: ``Z = project(W + U)``, then ``U = U + W - Z``.
"""

import torch

from compressor.pruning_method import ProjectedMethod


class AdmmState(ProjectedMethod):
    """Z and U of every pruned weight, all float32, on the device of the weight.

    Parameters
    ----------
    weights : dict of str to Parameter, shape (rows, K) each
        The weights themselves: they are read, and moved by :meth:`proximal_step`.
    structure : see :mod:`compressor.structures`
    rho : float
    init : str
        "projected": Z = project(W); "zero": Z = 0. U starts at 0.
    norms : dict of str to float32 tensor, shape (K,), optional
        Input norms for error-aware projections.
    """

    name = "admm"
    bytes_per_weight = 13  # Z, U and Z - U in float32, a mask

    def __init__(self, weights, structure, *, rho, init="projected", norms=None):
        super().__init__(weights)
        self.structure = structure
        self.rho = rho
        self.norms = norms or {}
        self.updates = 0
        self._penalty_norms = []
        self.z, self.u, self._masks = {}, {}, {}
        with torch.no_grad():
            for name, weight in weights.items():
                projected, found = self._project(name, weight.float())
                self.z[name] = projected if init == "projected" else torch.zeros_like(projected)
                self.u[name] = torch.zeros_like(projected)
                self._masks[name] = found.mask
        self._refresh_anchors()

    def _project(self, name, weight):
        return self.structure.of_layer(name).project(weight, self.norms.get(name))

    def _refresh_anchors(self):
        # W is pulled towards Z - U; kept as one tensor, because every step reads it.
        self._anchors = {name: self.z[name] - self.u[name] for name in self.weights}

    def before_clipping(self, stage):
        if stage.coupling == "loss":
            self._penalty_norms.append(self.add_penalty_gradient())

    def after_optimizer_step(self, stage, relative_rate):
        if stage.coupling == "decoupled":
            self.proximal_step(relative_rate)

    def end_step(self, span, done, optimizer):
        """:meth:`update` at the end of an interval; ``penalty_gradient_norm`` is the mean over its steps."""
        if done % span.stage.interval_steps(span.steps):
            return {}
        mean = sum(self._penalty_norms) / max(1, len(self._penalty_norms))
        self._penalty_norms.clear()
        return self.update() | {"penalty_gradient_norm": mean}

    @torch.no_grad()
    def add_penalty_gradient(self):
        """Add ``rho * (W - Z + U)`` to every gradient; returns the added gradient's norm.

        Adding it after the last backward pass of a step is exact, and independent of gradient
        accumulation.
        """
        squares = 0.0
        for name, weight in self.weights.items():
            gap = (weight.float() - self._anchors[name]).mul_(self.rho)
            squares += gap.square().sum()
            weight.grad = gap.to(weight.dtype) if weight.grad is None else weight.grad.add_(gap)
        return float(torch.sqrt(squares))

    @torch.no_grad()
    def proximal_step(self, relative_rate):
        """Move W by ``-rho * relative_rate * (W - Z + U)``, apart from the optimizer.

        ``relative_rate`` is the learning rate over its peak, 0 to 1. A step never passes Z - U.
        """
        share = min(1.0, self.rho * relative_rate)
        for name, weight in self.weights.items():
            weight.lerp_(self._anchors[name].to(weight.dtype), share)

    @torch.no_grad()
    def update(self):
        """Close an interval: project, raise the dual, and say how far the method is.

        Returns
        -------
        dict of str to float
            ``primal_residual`` ||W - Z|| / ||W||, ``dual_residual`` ||Z - Z_before|| / ||Z||,
            ``dual_norm`` ||U|| / ||W||, ``mask_similarity`` share of kept positions that were kept
            before, ``retained_energy`` of W under its own projection. Over all weights together.
        """
        sums = dict.fromkeys(("gap", "weight", "move", "z", "u", "same", "kept", "energy"), 0.0)
        for name, weight in self.weights.items():
            weight = weight.float()
            z, found = self._project(name, weight + self.u[name])
            self.u[name] += weight - z
            _, own = self._project(name, weight)
            square = float(weight.square().sum())
            sums["gap"] += float((weight - z).square().sum())
            sums["weight"] += square
            sums["energy"] += own.retained_energy * square
            sums["move"] += float((z - self.z[name]).square().sum())
            sums["z"] += float(z.square().sum())
            sums["u"] += float(self.u[name].square().sum())
            sums["same"] += float((found.mask & self._masks[name]).sum())
            sums["kept"] += float(found.mask.sum())
            self.z[name], self._masks[name] = z, found.mask
        self.updates += 1
        self._refresh_anchors()
        tiny = torch.finfo(torch.float32).tiny
        return {
            "primal_residual": (sums["gap"] / max(sums["weight"], tiny)) ** 0.5,
            "dual_residual": (sums["move"] / max(sums["z"], tiny)) ** 0.5,
            "dual_norm": (sums["u"] / max(sums["weight"], tiny)) ** 0.5,
            "mask_similarity": sums["same"] / max(sums["kept"], 1.0),
            "retained_energy": sums["energy"] / max(sums["weight"], tiny),
        }

    def rescale_dual(self, rho):
        """Change rho: the scaled dual is the true one over rho, so U is scaled along."""
        for u in self.u.values():
            u.mul_(self.rho / rho)
        self.rho = rho
        self._refresh_anchors()

    def tensors(self):
        """Everything that must survive an interruption, by name."""
        saved = {"updates": torch.tensor(self.updates)}
        for name in self.weights:
            saved |= {f"z/{name}": self.z[name], f"u/{name}": self.u[name],
                      f"mask/{name}": self._masks[name]}
        return saved

    def load(self, tensors):
        """Inverse of :meth:`tensors`; KeyError if one is missing."""
        for name, weight in self.weights.items():
            for kind, held in (("z", self.z), ("u", self.u), ("mask", self._masks)):
                held[name] = tensors[f"{kind}/{name}"].to(weight.device, copy=True)
        self.updates = int(tensors["updates"])
        self._refresh_anchors()


def rate_budget(weights, rates, admm):
    """How far the learning rates of an ADMM stage can bring the weights, and how far they must go.

    AdamW moves a weight by at most about its rate in a step; half of the weights must come down from
    their typical size, the median magnitude, to zero. With decoupled coupling the proximal steps
    close the gap by a factor instead, and what is needed is 1.

    Parameters
    ----------
    weights : iterable of tensors
    rates : float array
        Learning rate of every step of the stage.
    admm : AdmmStage

    Returns
    -------
    reach, needed : float
    """
    if admm.coupling == "decoupled":
        return sum(rates) / max(rates) * admm.rho, 1.0
    # The weighted mean of medians: a median over all weights together would need a copy of them.
    sizes = [(float(weight.detach().abs().float().median()), weight.numel()) for weight in weights]
    return float(sum(rates)), sum(size * count for size, count in sizes) / sum(count for _, count in sizes)


def rate_budget_warning(weights, rates, admm):
    """One line if the learning rates of an ADMM stage cannot move the weights far enough, else None.

    Arguments as for :func:`rate_budget`.
    """
    reach, needed = rate_budget(weights, rates, admm)
    if reach >= needed:
        return None
    if admm.coupling == "decoupled":
        return (f"ADMM closes only {100 * reach:.0f} % of the gap in {len(rates)} steps at rho "
                f"{admm.rho:g}; raise rho to {admm.rho / reach:.2g} or train longer")
    return (f"the learning rates of the ADMM stage add up to {reach:.2g}, but weights must move by "
            f"about {needed:.2g}; raise the learning rate {needed / reach:.1f} times, train longer, "
            "or use coupling: decoupled")
