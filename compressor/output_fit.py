"""Least-squares fit of a pruned linear layer: the mask and the weights that keep what the layer puts out.

For inputs x and wanted outputs y of many tokens, minimizes over W in a structure S, and over b,
``mean |W x + b - y|^2 + pull * |W - W0|^2``. Behind a sum over tokens that is a quadratic in W whose
matrix is the covariance of the inputs, so no token is needed twice and nothing is trained.

The mask is found by ADMM on that quadratic, in inputs scaled to unit variance (ALPS, arXiv 2406.07831,
section 3.1: one eigendecomposition serves every step); then every row is solved exactly on its mask (OBS,
Hassibi and Stork 1993, for all removed weights at once).
"""

from dataclasses import dataclass

import torch

DAMPING = 0.1
"""Pull towards the weights before, as a share of the mean variance of the inputs."""

STEPS = 60
"""Steps of ADMM."""

_RHO, _GROWTH, _GROW_EVERY = 0.1, 1.2, 3
_GATHERED = 1 << 26  # numbers in the submatrices that are solved at once


class InputMoments:
    """Sums over tokens of inputs x, outputs y and their products; float32.

    Parameters
    ----------
    inputs, outputs : int
        K and rows of the layer.
    device : torch.device
    """

    def __init__(self, inputs, outputs, device="cpu"):
        self.tokens = 0
        self._x = torch.zeros(inputs, device=device)
        self._y = torch.zeros(outputs, device=device)
        self._xx = torch.zeros(inputs, inputs, device=device)
        self._yx = torch.zeros(outputs, inputs, device=device)

    def add(self, x, y):
        """Count tokens: x of shape (n, K), y of shape (n, rows)."""
        self.tokens += len(x)
        self._x += x.sum(dim=0)
        self._y += y.sum(dim=0)
        self._xx.addmm_(x.T, x)
        self._yx.addmm_(y.T, x)

    def is_finite(self):
        """Whether no token had a number that is not."""
        return bool(torch.isfinite(self._xx).all() and torch.isfinite(self._yx).all())

    def means(self):
        """Means of x, shape (K,), and of y, shape (rows,)."""
        return self._x / self.tokens, self._y / self.tokens

    def covariances(self):
        """Covariances of x with itself, shape (K, K), and of y with x, shape (rows, K)."""
        x, y = self.means()
        return self._xx / self.tokens - torch.outer(x, x), self._yx / self.tokens - torch.outer(y, x)


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearFit:
    """A fitted layer.

    Parameters
    ----------
    weight : float32 tensor, shape (rows, K)
        Zero where ``mask`` is False.
    bias : float32 tensor, shape (rows,)
    mask : bool tensor, shape (rows, K)
    """

    weight: torch.Tensor
    bias: torch.Tensor
    mask: torch.Tensor


class OutputFit:
    """The quadratic of one layer, or of several that have one input.

    Parameters
    ----------
    moments : InputMoments
        Of the inputs that the pruned layers get, and of what they should put out, one below the other.
    """

    def __init__(self, moments):
        self._means = moments.means()
        inputs, self._outputs = moments.covariances()
        self._pull = DAMPING * (float(inputs.diagonal().mean()) or 1.0)  # inputs may all be constant
        self._inputs = inputs + self._pull * torch.eye(len(inputs), device=inputs.device)
        self._deviations = self._inputs.diagonal().sqrt()
        # In inputs of unit variance; one decomposition serves every step of every layer.
        self._values, self._vectors = torch.linalg.eigh(
            self._inputs / torch.outer(self._deviations, self._deviations))

    @torch.no_grad()
    def fit(self, weight, structure, *, first_row=0, allowed=None):
        """Find the mask, the weights and the bias of a layer.

        Parameters
        ----------
        weight : float32 tensor, shape (rows, K)
            The weights before.
        structure : see :mod:`compressor.structures`
            Positions alone are taken from its projections.
        first_row : int
            Where the layer's outputs begin among those of the moments.
        allowed : bool tensor, shape (rows, K), optional
            False where a weight has been removed before, and stays away.

        Returns
        -------
        LinearFit
        """
        rows = slice(first_row, first_row + len(weight))
        weight = weight.detach().float()
        wanted = self._outputs[rows] + self._pull * weight
        mask = self._find_mask(weight, wanted, structure)
        if allowed is not None:
            mask = mask & allowed
        fitted = solve_masked(self._inputs, wanted, mask)
        x, y = self._means
        return LinearFit(weight=fitted, bias=y[rows] - fitted @ x, mask=mask)

    def _find_mask(self, weight, wanted, structure):
        """ADMM on the scaled quadratic: positions of the structured copy when it ends."""
        values, vectors = self._values, self._vectors
        target = (wanted / self._deviations) @ vectors
        copy, found = structure.project(weight * self._deviations)
        dual, rho = torch.zeros_like(copy), _RHO
        for step in range(1, STEPS + 1):
            fitted = ((target + rho * ((copy - dual) @ vectors)) / (values + rho)) @ vectors.T
            copy, found = structure.project(fitted + dual)
            dual += fitted - copy
            if step > STEPS // 4 and step % _GROW_EVERY == 0:
                rho *= _GROWTH
                dual /= _GROWTH  # the scaled dual is the true one over rho
        return found.mask


def solve_masked(inputs, wanted, mask):
    """Least ``w A w / 2 - w b`` for every row of ``wanted``, over the positions that its mask keeps.

    Parameters
    ----------
    inputs : float32 tensor, shape (K, K)
        A: symmetric, positive definite.
    wanted : float32 tensor, shape (rows, K)
        b of every row.
    mask : bool tensor, shape (rows, K)

    Returns
    -------
    float32 tensor, shape (rows, K)
        Zero where the mask is False.

    >>> inputs = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> solve_masked(inputs, torch.tensor([[3.0, 3.0], [3.0, 3.0]]), torch.tensor([[1, 1], [0, 1]]).bool())
    tensor([[1.0000, 1.0000],
            [0.0000, 1.5000]])
    """
    solved = torch.zeros_like(wanted)
    most = max(1, int(mask.sum(dim=1).max()))
    for rows in torch.arange(len(mask), device=mask.device).split(max(1, _GATHERED // most ** 2)):
        # Kept positions first; rows that keep fewer have others behind them, tied to nothing.
        order = (~mask[rows]).int().argsort(dim=1, stable=True)[:, :most]
        kept = mask[rows].gather(1, order)
        parts = inputs[order[:, :, None], order[:, None, :]] * (kept[:, :, None] & kept[:, None, :])
        parts += torch.diag_embed((~kept).float())
        found = torch.cholesky_solve((wanted[rows].gather(1, order) * kept).unsqueeze(2),
                                     torch.linalg.cholesky(parts)).squeeze(2)
        solved[rows] = torch.zeros_like(solved[rows]).scatter_(1, order, found)
    return solved
