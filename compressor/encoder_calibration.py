"""Calibration of a float BERT: what every tensor of its encoder looks like on valid tokens."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

SAMPLE_VALUES = 1 << 18
"""Values kept of each tensor, evenly spread over all batches by a growing stride."""


@dataclass
class Observer:
    """Range, channel ranges, channel means and a sample of one tensor, over all batches.

    >>> observer = Observer()
    >>> observer.update(np.array([[1.0, -2.0], [3.0, 0.5]]))
    >>> observer.low, observer.high, observer.channel_max.tolist(), observer.mean.tolist()
    (-2.0, 3.0, [3.0, 2.0], [2.0, -0.75])
    """

    low: float = math.inf
    high: float = -math.inf
    channel_max: np.ndarray = field(default_factory=lambda: np.zeros(1))
    rows: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros(1))
    chunks: list = field(default_factory=list)

    def update(self, x):
        """Add values of shape (tokens, channels)."""
        x = np.asarray(x, np.float32)
        if not np.isfinite(x).all():
            raise ValueError("calibration met NaN or infinity; the float model is broken")
        if not x.size:
            return
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        self.channel_max = np.maximum(self.channel_max, np.abs(x).max(axis=0))
        self.total = self.total + x.sum(axis=0, dtype=np.float64)
        self.rows += len(x)
        self.chunks.append(x)

    @property
    def mean(self):
        """Mean of each channel."""
        return self.total / max(self.rows, 1)

    @property
    def sample(self):
        """Up to about SAMPLE_VALUES values, whole rows at an even stride, shape (rows, channels)."""
        values = np.concatenate(self.chunks)
        return values[:: max(1, values.size // SAMPLE_VALUES)]


TENSORS = ("input", "q", "k", "v", "scores", "context", "o", "attention_norm",
           "ffn1", "gelu", "ffn2", "output")
"""Observed tensors of a layer, named as in :meth:`IntegerEncoderLayer.trace`."""


@dataclass(frozen=True)
class LayerCalibration:
    """Observers of one layer, by the names of TENSORS."""

    observers: dict

    def __getitem__(self, name):
        return self.observers[name]


def calibrate_encoder(model, batches):
    """Observe every tensor of every encoder layer of a float model.

    Parameters
    ----------
    model : transformers.BertModel or a model with one as ``bert``
        In evaluation mode; not changed.
    batches : iterable of dict
        ``input_ids``, ``attention_mask`` and what else the model takes. Padding is excluded from every
        observer. Padding must be on the right.

    Returns
    -------
    list of LayerCalibration

    Raises
    ------
    ValueError
        If there is no batch, padding is not on the right, or a value is not finite.
    """
    bert = getattr(model, "bert", model)
    layers = bert.encoder.layer
    calibrations = [LayerCalibration({name: Observer() for name in TENSORS}) for _ in layers]
    state, handles = {}, []

    def observe(calibration, name, take):
        def hook(_, inputs, output):
            calibration[name].update(take(inputs, output)[state["valid"]].float().numpy())
        return hook

    for layer, calibration in zip(layers, calibrations, strict=True):
        for name, module, take in _taps(layer):
            handles.append(module.register_forward_hook(observe(calibration, name, take)))
        attention = layer.attention.self
        handles.append(attention.register_forward_hook(_score_hook(calibration["scores"], state)))
        for name in ("query", "key"):
            handles.append(getattr(attention, name).register_forward_hook(_keep(state, name)))
    count = 0
    try:
        with torch.no_grad():
            for count, batch in enumerate(batches, 1):  # noqa: B007
                state["valid"] = _valid_tokens(batch["attention_mask"])
                model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    if not count:
        raise ValueError("calibration needs at least one batch")
    return calibrations


def _taps(layer):
    """Observed tensors that are an input or output of a module."""
    attention = layer.attention
    return (
        ("input", attention.self.query, lambda inputs, output: inputs[0]),
        ("q", attention.self.query, lambda inputs, output: output),
        ("k", attention.self.key, lambda inputs, output: output),
        ("v", attention.self.value, lambda inputs, output: output),
        ("context", attention.output.dense, lambda inputs, output: inputs[0]),
        ("o", attention.output.dense, lambda inputs, output: output),
        ("attention_norm", attention.output.LayerNorm, lambda inputs, output: output),
        ("ffn1", layer.intermediate.dense, lambda inputs, output: output),
        ("gelu", layer.output.dense, lambda inputs, output: inputs[0]),
        ("ffn2", layer.output.dense, lambda inputs, output: output),
        ("output", layer.output.LayerNorm, lambda inputs, output: output),
    )


def _keep(state, name):
    def hook(_, inputs, output):
        state[name] = output
    return hook


def _score_hook(observer, state):
    """Scores of valid queries and keys; each score is a row of one channel."""
    def hook(module, inputs, output):
        size, valid = module.attention_head_size, state["valid"]
        q, k = (state[name].unflatten(-1, (-1, size)).transpose(1, 2) for name in ("query", "key"))
        scores = q @ k.transpose(2, 3) / math.sqrt(size)
        both = (valid[:, :, None] & valid[:, None, :])
        observer.update(scores.movedim(1, -1)[both].float().numpy())
    return hook


def _valid_tokens(attention_mask):
    valid = attention_mask.bool()
    if not (valid[:, :-1] | ~valid[:, 1:]).all():
        raise ValueError("padding must be on the right: set the tokenizer's padding_side to 'right'")
    return valid
