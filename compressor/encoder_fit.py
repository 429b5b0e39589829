"""Prunes an encoder without training: layer after layer is fitted to what the dense encoder puts out.

Every linear layer sees the inputs that the pruned layers before it give. Its wanted outputs are those of the
dense encoder; before a LayerNorm the residual connection is part of them, so that the layer makes up
for what the residual has lost as well. See :mod:`compressor.output_fit` for the fit itself.
"""

import copy
import time
from contextlib import ExitStack, suppress

import torch
from accelerate import PartialState
from accelerate.utils import broadcast

from compressor.output_fit import InputMoments, OutputFit
from compressor.progress import say
from compressor.reload import architecture_of, encoder_of
from compressor.run_guards import TrainingError
from compressor.structures import Dense

_GROUPS = (("q", "k", "v"), ("o",), ("ffn1",), ("ffn2",))
"""Roles of the layers that are fitted together: they have one input."""


@torch.no_grad()
def fit_encoder(model, targets, structure, batches, *, allowed=None):
    """Prune the targets of a model, in place, and move their biases.

    Parameters
    ----------
    model : PreTrainedModel
        Dense, or pruned in larger units before. Run in evaluation mode; its mode is restored.
    targets : dict of str to TargetLayer
        See :func:`compressor.targets.target_layers`.
    structure : see :mod:`compressor.structures`
        Layers that it leaves dense stay as they are.
    batches : iterable of dict of str to tensor
        Model inputs with ``attention_mask``, shape (B, S). More tokens than the longest input of a layer has
        channels, several times over. Two hidden states of every token are held in memory.
    allowed : function of a layer's name, optional
        Gives the bool tensor, shape (rows, K), of the weights that may stay.

    Returns
    -------
    masks : dict of str to bool tensor, shape (rows, K)
        True where a weight is kept; every target has one.
    error : float
        Relative error of the last hidden states, over the real tokens of ``batches``.

    Raises
    ------
    TrainingError
        If what a layer gets or should give is not finite.
    """
    training = model.training
    model.eval()
    names = architecture_of(model)
    layers = encoder_of(model).get_submodule(names.layers)
    pruned = {target.module: name for name, target in targets.items()
              if not isinstance(structure.of_layer(name), Dense)}
    masks = {name: torch.ones_like(target.module.weight, dtype=torch.bool)
             for name, target in targets.items()}
    calls = [_LayerCall(model, layers[0], batch) for batch in batches]
    own = [call.hidden for call in calls]
    wanted, start = list(own), time.monotonic()
    for index, layer in enumerate(layers):
        dense = copy.deepcopy(layer)
        for group in _GROUPS:
            linears = {role: layer.get_submodule(names.linears[role]) for role in group}
            linears = {role: linear for role, linear in linears.items() if linear in pruned}
            if not linears:
                continue
            moments = _observe(names, layer, dense, calls, own, wanted, list(linears))
            if not moments.is_finite():
                raise TrainingError(f"fit_rows: what enters or leaves {', '.join(group)} of encoder layer "
                                    f"{index} is not finite; the model's weights are damaged, or too large")
            fit, row = OutputFit(moments), 0
            for linear in linears.values():
                name = pruned[linear]
                found = fit.fit(linear.weight, structure.of_layer(name), first_row=row,
                                allowed=allowed and allowed(name))
                # One process decides for all: eigenvectors may differ between devices.
                linear.weight.copy_(broadcast(found.weight))
                linear.bias.copy_(broadcast(found.bias))
                masks[name] = broadcast(found.mask.to(torch.uint8)).bool()
                row += linear.out_features
        own = [call(layer, hidden) for call, hidden in zip(calls, own, strict=True)]
        wanted = [call(dense, hidden) for call, hidden in zip(calls, wanted, strict=True)]
        left = (time.monotonic() - start) / (index + 1) * (len(layers) - index - 1)
        if PartialState().is_main_process:
            say(f"fit: encoder layer {index + 1} of {len(layers)}, {left:.0f} s left")
    model.train(training)
    errors = sizes = 0.0
    for call, found, dense in zip(calls, own, wanted, strict=True):
        errors += float((found - dense)[call.real].square().sum())
        sizes += float(dense[call.real].square().sum())
    return masks, (errors / sizes) ** 0.5 if sizes else 0.0


class _Stop(Exception):
    pass


class _LayerCall:
    """How a model calls its encoder layers for one batch: what enters the first, and other arguments.

    ``real``: bool tensor, shape (B, S), True at real tokens.
    """

    def __init__(self, model, first, batch):
        def keep(module, args, kwargs):
            self.hidden, *self._args = args or (kwargs.pop("hidden_states"),)
            self._kwargs = kwargs
            raise _Stop

        batch = {name: value.to(model.device) for name, value in batch.items()}
        self.real = batch["attention_mask"].bool()
        with ExitStack() as hooks, suppress(_Stop):
            hooks.callback(first.register_forward_pre_hook(keep, with_kwargs=True).remove)
            model(**batch)

    def __call__(self, layer, hidden):
        """Hidden states behind a layer."""
        found = layer(hidden, *self._args, **self._kwargs)
        return found[0] if isinstance(found, tuple) else found

    def inputs(self, layer, hidden, *modules):
        """What enters some modules of a layer; those of real tokens, shape (n, K) each."""
        found = []

        def keep(module, args):
            found.append(args[0][self.real])
            if len(found) == len(modules):
                raise _Stop

        with ExitStack() as hooks, suppress(_Stop):
            for module in modules:
                hooks.callback(module.register_forward_pre_hook(keep).remove)
            self(layer, hidden)
        return found


def _observe(names, layer, dense, calls, own, wanted, roles):
    """InputMoments of the layers with some roles, which have one input; their outputs one below the other."""
    part = {role: layer.get_submodule(path) for role, path in names.linears.items()}
    dense_part = {role: dense.get_submodule(path) for role, path in (names.linears | names.norms).items()}
    moments = InputMoments(part[roles[0]].in_features, sum(part[role].out_features for role in roles),
                           own[0].device)
    for call, hidden, dense_hidden in zip(calls, own, wanted, strict=True):
        if roles == ["o"]:
            x, = call.inputs(layer, hidden, part["o"])
            sums, = call.inputs(dense, dense_hidden, dense_part["attention_norm"])
            y = sums - hidden[call.real]
        elif roles == ["ffn1"]:
            x, = call.inputs(layer, hidden, part["ffn1"])
            y = dense_part["ffn1"](*call.inputs(dense, dense_hidden, dense_part["ffn1"]))
        elif roles == ["ffn2"]:
            residual, x = call.inputs(layer, hidden, part["ffn1"], part["ffn2"])
            sums, = call.inputs(dense, dense_hidden, dense_part["output_norm"])
            y = sums - residual
        else:
            x = hidden[call.real]
            y = torch.cat([dense_part[role](dense_hidden[call.real]) for role in roles], dim=1)
        moments.add(x, y)
    return moments
