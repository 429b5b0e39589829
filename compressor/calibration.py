"""Calibration of a float model: what every tensor of its encoder looks like on valid tokens."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from compressor.activation_scales import square_error
from compressor.encoder_modules import encoder_modules
from compressor.intops import ACTIVATION_MAX
from compressor.intops.encoder import LINEAR_PATHS, layer_path
from compressor.quantization import activation_scale

SAMPLE_VALUES = 1 << 19
"""Values that an observer keeps at most; beyond that it keeps every second row, then every fourth, ..."""

TENSORS = ("input", "q", "k", "v", "scores", "context", "o", "attention_norm",
           "ffn1", "gelu", "ffn2", "output")
"""Observed tensors of a layer, named as in :meth:`compressor.intops.encoder.IntegerEncoderLayer.trace`."""

_INPUT_OF = {"q": "input", "k": "input", "v": "input", "o": "context", "ffn1": "attention_norm",
             "ffn2": "gelu"}


class TensorObserver:
    """Extremes of each channel of a tensor, and an even sample of its rows, over any number of batches.

    >>> observer = TensorObserver()
    >>> observer.observe(torch.tensor([[1.0, -2.0], [3.0, 0.5]]))
    >>> observer.largest.tolist(), observer.highest.tolist(), observer.sample.shape
    ([3.0, 2.0], [3.0, 0.5], (2, 2))
    """

    def __init__(self):
        self.largest = np.zeros(1)
        self.highest = np.full(1, -math.inf)
        self._chunks, self._stride, self._rows = [], 1, 0

    def observe(self, values):
        """Add values of shape (rows, channels)."""
        x = values.detach().float().cpu().numpy()
        if not np.isfinite(x).all():
            raise ValueError("activations hold NaN or infinity; the model cannot be calibrated")
        if not x.size:
            return
        self.largest = np.maximum(self.largest, np.abs(x).max(axis=0))
        self.highest = np.maximum(self.highest, x.max(axis=0))
        first = -self._rows % self._stride
        self._rows += len(x)
        self._chunks.append(x[first:: self._stride].copy())
        while sum(chunk.size for chunk in self._chunks) > SAMPLE_VALUES and self.sample.shape[0] > 1:
            self._chunks, self._stride = [self.sample[::2].copy()], self._stride * 2

    @property
    def sample(self):
        """Float32 array, shape (rows, channels)."""
        return np.concatenate(self._chunks)

    def clip(self, method):
        """Magnitude at which to clip the whole tensor, by a method of :class:`Methods`.

        ``max`` knows every value; the others look at the sample.
        """
        name, percentile = split_method(method)
        largest = float(self.largest.max())
        if name == "max" or largest == 0:
            return largest
        if name == "percentile":
            return float(np.percentile(np.abs(self.sample), percentile, method="inverted_cdf"))
        x = self.sample.reshape(-1).astype(np.float64)
        candidates = largest * np.arange(1, 101) / 100
        return float(min(candidates, key=lambda clip: square_error(x, clip / ACTIVATION_MAX)))


@torch.no_grad()
def observe_encoder(model, batches):
    """Observe every tensor of every encoder layer of a float model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A BERT, RoBERTa or DistilBERT; its pruning is finished, so that it sees the hardware's activations.
    batches : iterable of dict of tensors
        Model inputs with ``input_ids`` and, where sentences are padded, ``attention_mask``. Padding
        must be on the right; it never counts.

    Returns
    -------
    list of dict
        Per layer, TensorObserver by the names of TENSORS; "scores" has one channel per head.

    Raises
    ------
    ValueError
        If there is no valid token, padding is not on the right, or a value is not finite.
    """
    layers = encoder_modules(model)
    observers = [{name: TensorObserver() for name in TENSORS} for _ in layers]
    recent = {}
    handles = []
    for layer, observed in zip(layers, observers, strict=True):
        for name, module, side in _taps(layer):
            handles.append(module.register_forward_hook(_observe_hook(observed[name], side, recent)))
        for name in ("q", "k"):
            handles.append(getattr(layer, name).register_forward_hook(_keep_hook(recent, name)))
        handles.append(layer.o.register_forward_hook(
            _scores_hook(observed["scores"], layer.head_size, recent)))
    was_training = model.training
    model.eval()
    tokens = 0
    try:
        for batch in batches:
            mask = batch.get("attention_mask")
            recent["valid"] = torch.ones_like(batch["input_ids"]).bool() if mask is None else mask.bool()
            if not (recent["valid"][:, :-1] | ~recent["valid"][:, 1:]).all():
                raise ValueError("padding must be on the right: set the tokenizer's padding_side to right")
            tokens += int(recent["valid"].sum())
            model(**{key: value for key, value in batch.items() if key != "labels"})
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    if not tokens:
        raise ValueError("calibration saw no tokens; give at least one sentence")
    return observers


def _taps(layer):
    """Observed tensors that are the input or the output of a module: name, module, side."""
    return (("input", layer.q, "input"), ("q", layer.q, "output"),
            ("k", layer.k, "output"), ("v", layer.v, "output"),
            ("context", layer.o, "input"), ("o", layer.o, "output"),
            ("attention_norm", layer.attention_norm, "output"),
            ("ffn1", layer.ffn1, "output"), ("gelu", layer.ffn2, "input"),
            ("ffn2", layer.ffn2, "output"), ("output", layer.output_norm, "output"))


def _observe_hook(observer, side, recent):
    def hook(_module, arguments, result):
        observer.observe((arguments[0] if side == "input" else result)[recent["valid"]])
    return hook


def _keep_hook(recent, name):
    def hook(_module, _arguments, result):
        recent[name] = result
    return hook


def _scores_hook(observer, size, recent):
    """Scores of all pairs of valid tokens, per head of ``size`` channels."""
    def hook(_module, _arguments, _result):
        valid = recent["valid"]
        q, k = (recent[name].unflatten(-1, (-1, size)).transpose(1, 2) for name in ("q", "k"))
        scores = (q @ k.transpose(2, 3) / math.sqrt(size)).movedim(1, -1)
        observer.observe(scores[valid[:, :, None] & valid[:, None, :]])
    return hook


@dataclass(frozen=True, kw_only=True)
class Methods:
    """How magnitudes to clip at are chosen where the linear layers alone are quantized.

    ``max``: the largest seen. ``mse``: least mean square error of the 8-bit result, among 100
    candidates. ``percentile:99.9``: that share of the magnitudes lies at or below.

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
class LinearScales:
    """Activation scales of one linear layer: real value of integer 1 at its input and its output."""

    input_scale: float
    output_scale: float


def calibrate_linears(model, batches, *, methods=DEFAULT_METHODS):
    """Activation scales of every linear layer, for quantizing those alone.

    ``model`` and ``batches`` are those of :func:`observe_encoder`, which also says what is refused.

    Returns
    -------
    dict of str to LinearScales
        By layer name, in execution order. q, k and v of a layer have one input and so one input scale.
    """
    scales = {}
    for index, observed in enumerate(observe_encoder(model, batches)):
        for role, path in LINEAR_PATHS.items():
            scales[f"{layer_path(index)}.{path}"] = LinearScales(
                input_scale=activation_scale(observed[_INPUT_OF[role]].clip(methods.inputs)),
                output_scale=activation_scale(observed[role].clip(methods.outputs)))
    return scales
