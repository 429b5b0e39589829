"""Test vectors of the linear layers: real activations in, golden integers out."""

import numpy as np
import torch

from compressor.reload import linear_layer, to_model


@torch.no_grad()
def linear_vectors(bundle, batches, *, model=None):
    """Inputs and golden outputs of every linear layer on real sentences.

    The float model of the bundle (pruned, with its quantized weights) runs each batch; the input
    of each linear layer is quantized at the layer's input scale and goes through the golden model.

    Parameters
    ----------
    bundle : Bundle
    batches : iterable of dict of int64 tensors, shape (sentences, tokens)
        Model inputs; see :func:`compressor.reload.encode`.
    model : transformers.PreTrainedModel, optional
        The bundle's float model, if already built.

    Yields
    ------
    name : str
        Layer name, in execution order, for one batch after another.
    x : int8 array, shape (sentences * tokens, K)
        -127 to 127; padding positions are included, as hardware computes them too.
    y : int8 array, shape (sentences * tokens, rows)
        -127 to 127.
    """
    model = to_model(bundle) if model is None else model
    captured = {}

    def hook_of(name):
        def hook(_module, arguments):
            captured[name] = arguments[0].reshape(-1, arguments[0].shape[-1]).numpy()
        return hook

    handles = [linear_layer(model, name).register_forward_pre_hook(hook_of(name))
               for name in bundle.layers]
    try:
        for batch in batches:
            model(**{key: value for key, value in batch.items() if key != "labels"})
            for name, layer in bundle.layers.items():
                x = bundle.folding(name).quantize_input(captured[name], layer.input_scale)
                yield name, x, layer.linear.compute(x).astype(np.int8)
    finally:
        for handle in handles:
            handle.remove()
