"""Static activation scales, calibrated on real batches; padding positions never count."""

from dataclasses import dataclass

import numpy as np
import torch

from compressor.intops import ACTIVATION_MAX
from compressor.layer_weights import ROLES, layer_name
from compressor.quantization import activation_scale
from compressor.reload import linear_layer

_BINS = 4096


@dataclass(frozen=True, kw_only=True)
class Methods:
    """How magnitudes to clip at are chosen, for inputs and for outputs of linear layers.

    ``max``: the largest seen. ``mse``: least mean square error of the 8-bit result, among 100
    candidates. ``percentile:99.9``: that share of the magnitudes lies below, to a bin.

    >>> Methods(inputs="max", outputs="median")
    Traceback (most recent call last):
    ...
    ValueError: unknown calibration 'median'; use max, mse, or percentile:P with P in 50 to 100
    """

    inputs: str
    outputs: str

    def __post_init__(self):
        for method in (self.inputs, self.outputs):
            split_method(method)

    def to_plain(self):
        """The two methods as a dict."""
        return {"inputs": self.inputs, "outputs": self.outputs}


def split_method(method):
    """Name and percentile (None but for percentile) of a calibration method.

    >>> split_method("percentile:99.9"), split_method("max")
    (('percentile', 99.9), ('max', None))
    """
    name, _, number = method.partition(":")
    if method in ("max", "mse"):
        return name, None
    try:
        percentile = float(number)
    except ValueError:
        percentile = -1.0
    if name != "percentile" or not 50 <= percentile <= 100:
        raise ValueError(f"unknown calibration {method!r}; use max, mse, or percentile:P with P in "
                         "50 to 100")
    return name, percentile


DEFAULT_METHODS = Methods(inputs="max", outputs="percentile:99.95")
"""The least error of the logits on SST-2, all-MiniLM-L6, dense and pattern-pruned. Few outliers, 100
times larger than the rest, dominate the outputs of the feed-forward layer: there ``max`` and ``mse``
are three times worse, and ``percentile:99.99`` is still too high."""


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

    def clip(self, method):
        """Magnitude at which to clip, by a method of :class:`Methods`."""
        name, percentile = split_method(method)
        if name == "max" or self.largest == 0:
            return self.largest
        upper_edges = np.arange(1, _BINS + 1) * (self.range / _BINS)
        if name == "percentile":
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


def calibrate(model, batches, *, methods=DEFAULT_METHODS):
    """Activation scales of every linear layer of a float model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A BERT, RoBERTa or DistilBERT; its pruning is finished, so that it sees the activations of the
        hardware.
    batches : iterable of dict of tensors
        Model inputs with ``input_ids`` and, where sentences are padded, ``attention_mask``,
        both of shape (sentences, tokens).
    methods : Methods

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
            input_scale=activation_scale(source.clip(methods.inputs)),
            output_scale=activation_scale(observer.clip(methods.outputs)))
    return scales


@torch.no_grad()
def observe(model, batches):
    """Observers of the inputs (k and v left out, they are q's) and outputs of every linear layer.

    Takes what :func:`calibrate` takes; returns two dicts, layer name to Observer.
    """
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

    handles = [linear_layer(model, name).register_forward_hook(hook_of(name)) for name in names]
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
