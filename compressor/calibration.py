"""Static activation scales, calibrated on real batches; padding positions never count."""

from dataclasses import dataclass

import numpy as np
import torch

from compressor.intops import ACTIVATION_MAX
from compressor.layer_weights import ROLES, layer_name
from compressor.quantization import activation_scale
from compressor.reload import encoder_of

METHODS = ("max", "percentile", "mse")
DEFAULT_METHOD = "mse"

_BINS = 4096


@dataclass(frozen=True, kw_only=True)
class LayerScales:
    """Activation scales of one linear layer: real value of integer 1 at its input and its output."""

    input_scale: float
    output_scale: float


class Observer:
    """Histogram of the magnitudes of a tensor, over any number of batches.

    4096 bins from 0 to ``range``. The range doubles, and bins merge in pairs, when a larger value
    comes; so it is at most twice the largest magnitude and the result does not need two passes.
    """

    def __init__(self):
        self.counts = np.zeros(_BINS, np.int64)
        self.range = 0.0
        self.largest = 0.0

    def observe(self, values):
        """Count the magnitudes of a float tensor of any shape."""
        magnitudes = values.detach().abs().reshape(-1).double()
        if not magnitudes.numel():
            return
        largest = float(magnitudes.max())
        if not np.isfinite(largest):
            raise ValueError("activations hold NaN or infinity; the model cannot be calibrated")
        self.largest = max(self.largest, largest)
        if self.range == 0:
            self.range = largest
        while largest > self.range > 0:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1),
                                          np.zeros(_BINS // 2, np.int64)])
            self.range *= 2
        # A range of 0 so far means that every value was 0; histc needs a range.
        self.counts += torch.histc(magnitudes, _BINS, 0, self.range or 1.0).long().numpy()

    def clip(self, method, percentile=99.99):
        """Magnitude at which to clip.

        Parameters
        ----------
        method : str
            ``max``: the largest seen. ``percentile``: that share of the magnitudes lies below, to a
            bin. ``mse``: least mean square error of the 8-bit result, among 100 candidates.
        percentile : float
            0 to 100.

        Raises
        ------
        ValueError
            If the method is unknown.
        """
        if method not in METHODS:
            raise ValueError(f"unknown calibration {method!r}; use one of {', '.join(METHODS)}")
        if method == "max" or self.largest == 0:
            return self.largest
        upper_edges = np.arange(1, _BINS + 1) * (self.range / _BINS)
        if method == "percentile":
            share = np.cumsum(self.counts) / self.counts.sum()
            return min(self.largest, float(upper_edges[np.searchsorted(share, percentile / 100)]))
        centers = upper_edges - self.range / _BINS / 2
        candidates = self.largest * np.arange(1, 101) / 100
        errors = [self._square_error(centers, candidate) for candidate in candidates]
        return float(candidates[int(np.argmin(errors))])

    def _square_error(self, centers, largest):
        scale = largest / ACTIVATION_MAX
        restored = np.minimum(np.floor(centers / scale + 0.5), ACTIVATION_MAX) * scale
        return float((np.square(centers - restored) * self.counts).sum())


def calibrate(model, batches, *, method=DEFAULT_METHOD, percentile=99.99):
    """Activation scales of every linear layer of a float model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A BERT; its pruning is finished, so that it sees the activations that hardware will see.
    batches : iterable of dict of tensors
        Model inputs with ``input_ids`` and, where sentences are padded, ``attention_mask``,
        both of shape (sentences, tokens).
    method, percentile
        See :meth:`Observer.clip`.

    Returns
    -------
    dict of str to LayerScales
        By layer name. q, k and v of a layer have one input and so one input scale.

    Raises
    ------
    ValueError
        If there is no batch or no token that is not padding, or activations are not finite.
    """
    inputs, outputs = observe(model, batches)
    scales = {}
    for name, observer in outputs.items():
        source = inputs[name.replace("self.key", "self.query").replace("self.value", "self.query")]
        scales[name] = LayerScales(
            input_scale=activation_scale(source.clip(method, percentile)),
            output_scale=activation_scale(observer.clip(method, percentile)))
    return scales


@torch.no_grad()
def observe(model, batches):
    """Observers of the inputs (k and v left out, they are q's) and outputs of every linear layer.

    Takes what :func:`calibrate` takes; returns two dicts, layer name to Observer.
    """
    encoder = encoder_of(model)
    names = [layer_name(index, role) for index in range(model.config.num_hidden_layers)
             for role in ROLES]
    inputs = {name: Observer() for name in names if not name.endswith(("self.key", "self.value"))}
    outputs = {name: Observer() for name in names}
    valid = None

    def hook_of(name):
        def hook(_module, arguments, result):
            if name in inputs:
                inputs[name].observe(arguments[0][valid])
            outputs[name].observe(result[valid])
        return hook

    handles = [encoder.get_submodule(name).register_forward_hook(hook_of(name)) for name in names]
    was_training = model.training
    model.eval()
    tokens = 0
    try:
        for batch in batches:
            mask = batch.get("attention_mask")
            valid = torch.ones_like(batch["input_ids"]).bool() if mask is None else mask.bool()
            tokens += int(valid.sum())
            model(**{key: value for key, value in batch.items() if key != "labels"})
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    if not tokens:
        raise ValueError("calibration saw no tokens; give at least one sentence")
    return inputs, outputs
