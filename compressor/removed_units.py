"""Heads, neurons and blocks that pruning has removed: found in the weights, taken out, moved, kept away.

transformers 5 has no pruned heads: ``from_pretrained`` takes the shapes of the config and no others. So a
model directory is full-size, with zeros where a head or a neuron was; it reloads everywhere. The exporter
takes them out, and the hardware gets smaller layers.

A head is gone if its columns of the output projection are all zero, a neuron if its column of the second
feed-forward layer is. Then it contributes nothing, whatever the rest, in float and in integers alike.
"""

from dataclasses import dataclass

import torch

from compressor.blocks import BLOCK, block_grid, to_blocks
from compressor.encoder_modules import encoder_modules
from compressor.group_structures import spread


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerUnits:
    """Which heads and neurons of an encoder layer are there: bool tensors, shapes (A,) and (F,)."""

    heads: torch.Tensor
    neurons: torch.Tensor

    @property
    def counts(self):
        """Numbers of heads and neurons that are there."""
        return int(self.heads.sum()), int(self.neurons.sum())


def find_units(model):
    """LayerUnits of every encoder layer of a model, in execution order."""
    found = []
    for parts in encoder_modules(model):
        columns = (parts.o.weight != 0).any(dim=0)
        found.append(LayerUnits(heads=columns.reshape(-1, parts.head_size).any(dim=1),
                                neurons=(parts.ffn2.weight != 0).any(dim=0)))
    return found


def shrink(model, aligned=frozenset()):
    """Take removed heads and neurons out of a model, in place; its outputs stay the same.

    One head and 4 neurons stay at least, and neurons are a multiple of 4, the hardware's block. Where blocks
    of the first feed-forward layer are gone, only whole groups of neurons are taken out between others, see
    :func:`row_group`: rows behind a gap would move, and their missing blocks not lie together in a tile.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    aligned : set of int
        Encoder layers whose feed-forward weights have patterns or N:M in blocks of four neurons; there only
        such whole blocks are taken out.

    Returns
    -------
    list of LayerUnits
        What was left in each layer, padding included.
    """
    left = []
    for index, (parts, units) in enumerate(zip(encoder_modules(model), find_units(model), strict=True)):
        heads = _at_least(units.heads, 1)
        group = max(row_group(parts.ffn1.weight), BLOCK if index in aligned else 1)
        neurons = units.neurons.reshape(-1, group).any(dim=1).repeat_interleave(group)
        if group > 1:  # nothing lies behind the last neuron that could move
            end = int(units.neurons.nonzero().max()) + 1 if units.neurons.any() else 0
            neurons[-(-end // BLOCK) * BLOCK:] = False
        count = max(BLOCK, -(-int(neurons.sum()) // BLOCK) * BLOCK)
        left.append(LayerUnits(heads=heads, neurons=_at_least(neurons, count)))
        channels = left[-1].heads.repeat_interleave(parts.head_size)
        for linear in (parts.q, parts.k, parts.v):
            _select(linear, rows=channels)
        _select(parts.o, columns=channels)
        _select(parts.ffn1, rows=left[-1].neurons)
        _select(parts.ffn2, columns=left[-1].neurons)
    return left


def row_group(weight):
    """Rows of a matrix, at most 64, in whose groups the same 4x4 blocks are gone; 1 if none are.

    Rows that are gone altogether do not count.

    >>> weight = torch.ones(32, 8)
    >>> weight[:16, :4] = 0
    >>> row_group(weight), row_group(weight[4:28])
    (16, 4)
    """
    present = (to_blocks(weight.detach()) != 0).any(dim=1).reshape(block_grid(weight.shape))
    rows_left = present.any(dim=1, keepdim=True)
    if torch.equal(present, rows_left.expand_as(present)):
        return 1
    for rows in (64, 32, 16, 8):
        if weight.shape[0] % rows == 0:
            blocks, left = (part.reshape(-1, rows // BLOCK, part.shape[1]) for part in (present, rows_left))
            if torch.equal(blocks, blocks.any(dim=1, keepdim=True) & left):
                return rows
    return BLOCK


def compact(model):
    """Move removed heads and neurons behind the others, in place; the model's outputs stay the same.

    What is left is then one piece in every matrix, which blocks divide.
    """
    for parts, units in zip(encoder_modules(model), find_units(model), strict=True):
        heads = (~units.heads).int().argsort(stable=True)
        channels = torch.arange(parts.o.in_features, device=heads.device).reshape(
            -1, parts.head_size)[heads].flatten()
        neurons = (~units.neurons).int().argsort(stable=True)
        with torch.no_grad():
            for linear, order in ((parts.q, channels), (parts.k, channels), (parts.v, channels),
                                  (parts.ffn1, neurons)):
                linear.weight.copy_(linear.weight[order])
                linear.bias.copy_(linear.bias[order])
            for linear, order in ((parts.o, channels), (parts.ffn2, neurons)):
                linear.weight.copy_(linear.weight[:, order])


class RemovedUnits:
    """Keeps rows, columns and 4x4 blocks at zero that were so when training began, whatever optimizers do.

    Parameters
    ----------
    targets : dict of str to TargetLayer
        All linear layers of the encoder.
    """

    def __init__(self, targets):
        self.linears = {name: target.module for name, target in targets.items()}
        self.kept = {}
        for name, linear in self.linears.items():
            nonzero = linear.weight.detach() != 0
            rows = nonzero.any(dim=1)
            self.kept[name] = {"rows": rows, "columns": nonzero.any(dim=0),
                               "blocks": to_blocks(nonzero).any(dim=1).reshape(block_grid(nonzero.shape)),
                               "biases": rows | (linear.bias.detach() != 0)}

    def weight_mask(self, name):
        """Where the weights of a layer may be: bool tensor, shape (rows, K)."""
        kept = self.kept[name]
        return spread(kept["blocks"], (BLOCK, BLOCK)) & kept["rows"][:, None] & kept["columns"]

    def _masks(self):
        for name, linear in self.linears.items():
            yield linear.weight, self.weight_mask(name)
            yield linear.bias, self.kept[name]["biases"]

    @torch.no_grad()
    def apply(self):
        """Set what was removed to zero."""
        for parameter, mask in self._masks():
            parameter.mul_(mask)

    @torch.no_grad()
    def apply_to_gradients(self):
        """Set the gradients of what was removed to zero, so that they do not count when clipping."""
        for parameter, mask in self._masks():
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    def tensors(self):
        """Everything that must survive an interruption, by name."""
        return {f"removed_{kind}/{name}": mask for name, kept in self.kept.items()
                for kind, mask in kept.items()}

    def load(self, tensors):
        """Inverse of :meth:`tensors`; KeyError if one is missing."""
        self.kept = {name: {kind: tensors[f"removed_{kind}/{name}"].to(mask.device)
                            for kind, mask in kept.items()} for name, kept in self.kept.items()}


def _at_least(mask, count):
    """The mask with so many more True, the first that are False, that it has ``count``."""
    extra = (~mask).nonzero().flatten()[:max(0, count - int(mask.sum()))]
    mask = mask.clone()
    mask[extra] = True
    return mask


def _select(linear, rows=slice(None), columns=slice(None)):
    linear.weight = torch.nn.Parameter(linear.weight.detach()[rows][:, columns].clone())
    if not isinstance(rows, slice):
        linear.bias = torch.nn.Parameter(linear.bias.detach()[rows].clone())
    linear.out_features, linear.in_features = linear.weight.shape
