"""Root mean squares of the inputs of linear layers, for error-aware projections."""

from contextlib import ExitStack

import torch


@torch.no_grad()
def input_norms(model, targets, batches):
    """Root mean square of every input channel over all real tokens.

    Parameters
    ----------
    model : PreTrainedModel
        Run in evaluation mode; its mode is restored.
    targets : dict of str to TargetLayer
        See :func:`compressor.targets.target_layers`.
    batches : iterable of dict of str to tensor
        Model inputs with ``attention_mask``, shape (B, S).

    Returns
    -------
    dict of str to float32 tensor, shape (K,)
        By name of the layer.
    """
    sums = {name: torch.zeros(target.module.in_features, dtype=torch.float64,
                              device=target.module.weight.device) for name, target in targets.items()}
    real = None

    def adder(name):
        def add(module, inputs):
            tokens = inputs[0].reshape(-1, inputs[0].shape[-1])[real]
            sums[name] += tokens.double().square().sum(dim=0)
        return add

    tokens, training = 0, model.training
    model.eval()
    with ExitStack() as hooks:
        for name, target in targets.items():
            hooks.callback(target.module.register_forward_pre_hook(adder(name)).remove)
        for batch in batches:
            batch = {key: value.to(model.device) for key, value in batch.items()}
            real = batch["attention_mask"].reshape(-1).bool()
            tokens += int(real.sum())
            model(**batch)
    model.train(training)
    return {name: (total / max(1, tokens)).sqrt().float() for name, total in sums.items()}
