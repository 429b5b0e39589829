"""Heads and neurons that pruning has removed: found in the weights, taken out, or moved to the end.

transformers 5 has no pruned heads: ``from_pretrained`` takes the shapes of the config and no others. So a
model directory is full-size, with zeros where a head or a neuron was; it reloads everywhere. The exporter
takes them out, and the hardware gets smaller layers.

A head is gone if its columns of the output projection are all zero, a neuron if its column of the second
feed-forward layer is. Then it contributes nothing, whatever the rest, in float and in integers alike.
"""

from dataclasses import dataclass

import torch

from compressor.blocks import BLOCK
from compressor.encoder_modules import encoder_modules


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

    One head and 4 neurons stay at least, and neurons are a multiple of 4, the hardware's block.

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
        neurons = units.neurons
        if index in aligned:
            neurons = neurons.reshape(-1, BLOCK).any(dim=1).repeat_interleave(BLOCK)
        count = max(BLOCK, -(-int(neurons.sum()) // BLOCK) * BLOCK)
        left.append(LayerUnits(heads=heads, neurons=_at_least(neurons, count)))
        channels = left[-1].heads.repeat_interleave(parts.head_size)
        for linear in (parts.q, parts.k, parts.v):
            _select(linear, rows=channels)
        _select(parts.o, columns=channels)
        _select(parts.ffn1, rows=left[-1].neurons)
        _select(parts.ffn2, columns=left[-1].neurons)
    return left


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
    """Keeps rows and columns at zero that were zero when training began, whatever the optimizer does.

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
                               "biases": rows | (linear.bias.detach() != 0)}

    @torch.no_grad()
    def apply(self):
        """Set the removed rows and columns to zero."""
        for name, linear in self.linears.items():
            kept = self.kept[name]
            linear.weight.mul_(kept["rows"][:, None]).mul_(kept["columns"])
            linear.bias.mul_(kept["biases"])

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
