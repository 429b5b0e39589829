"""Calibration of a float BERT: what every tensor of its encoder looks like on valid tokens."""

import math

import numpy as np
import torch

from compressor.encoder_modules import encoder_modules

SAMPLE_VALUES = 1 << 19
"""Values that an observer keeps at most; beyond that it keeps every second row, then every fourth, ..."""

TENSORS = ("input", "q", "k", "v", "scores", "context", "o", "attention_norm",
           "ffn1", "gelu", "ffn2", "output")
"""Observed tensors of a layer, named as in :meth:`compressor.intops.encoder.IntegerEncoderLayer.trace`."""


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


@torch.no_grad()
def observe_encoder(model, batches):
    """Observe every tensor of every encoder layer of a float model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A BERT, RoBERTa or DistilBERT; its pruning is finished.
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
