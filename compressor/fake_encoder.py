"""The torch twin of the integer encoder, and of a whole model around it: for evaluation and for training."""

from dataclasses import dataclass

import torch

from compressor.encoder_modules import encoder_modules
from compressor.encoder_quantization import (
    attention_constants,
    check_activation,
    gelu_constants,
    quantize_norm,
)
from compressor.fake_attention import FakeAttention
from compressor.fake_gelu import FakeGelu
from compressor.fake_layernorm import FakeLayerNorm
from compressor.fake_quantization import FakeLinear
from compressor.intops.encoder import LINEAR_PATHS, IntegerEncoderLayer, layer_path

_TWINS = {"attention": FakeAttention, "attention_norm": FakeLayerNorm, "gelu": FakeGelu,
          "output_norm": FakeLayerNorm}


@dataclass(frozen=True, kw_only=True, eq=False)
class FakeEncoderLayer:
    """Twin of :class:`compressor.intops.IntegerEncoderLayer`: equal on every integer of its trace."""

    q: FakeLinear
    k: FakeLinear
    v: FakeLinear
    attention: FakeAttention
    o: FakeLinear
    attention_norm: FakeLayerNorm
    ffn1: FakeLinear
    gelu: FakeGelu
    ffn2: FakeLinear
    output_norm: FakeLayerNorm

    @classmethod
    def of(cls, layer, device=None):
        """Twin of an IntegerEncoderLayer; constants."""
        parts = {role: FakeLinear.of(getattr(layer, role), device) for role in LINEAR_PATHS}
        return cls(**parts, **{name: kind.of(getattr(layer, name), device)
                               for name, kind in _TWINS.items()})

    def trace(self, x, lengths):
        """Every tensor of the layer by name, as in the golden model; float32 integers.

        ``x`` is (batch, tokens, hidden), float32 integers in -127 to 127; lengths int64, (batch,).
        """
        return IntegerEncoderLayer.trace(self, x, lengths)  # the same steps, on tensors


@dataclass(frozen=True, kw_only=True, eq=False)
class FakeEncoder:
    """Twin of :class:`compressor.intops.IntegerEncoder`."""

    layers: tuple

    @classmethod
    def of(cls, encoder, device=None):
        """Twin of an IntegerEncoder."""
        return cls(layers=tuple(FakeEncoderLayer.of(layer, device) for layer in encoder.layers))

    def trace(self, x, lengths):
        """Layer by layer the tensors of :meth:`FakeEncoderLayer.trace`: a list of dicts."""
        traces = []
        for layer in self.layers:
            traces.append(layer.trace(x, lengths))
            x = traces[-1]["output"]
        return traces


class TrainedEncoder:
    """Makes the FakeEncoder of a float model's present weights; gradients reach the weights.

    The integers are those of :func:`compressor.encoder_quantization.quantize_encoder` with the same scales.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A BERT, RoBERTa or DistilBERT; its parameters are read at every call.
    scales : compressor.encoder_scales.EncoderScales
    map_pruning : compressor.intops.map_pruning.IntegerMapPruning, optional
    """

    def __init__(self, model, scales, map_pruning=None):
        check_activation(model)
        scales.check(model)
        self.parts = tuple(encoder_modules(model))
        self.scales, self.map_pruning = scales, map_pruning
        self._constants = None

    def encoder(self, device):
        """The FakeEncoder, on a device."""
        if self._constants is None or self._constants[0] != device:
            self._constants = device, [
                {"attention": FakeAttention.of(attention_constants(parts, scales, self.map_pruning), device),
                 "gelu": FakeGelu.of(gelu_constants(scales.gelu), device)}
                for parts, scales in zip(self.parts, self.scales.layers, strict=True)]
        return FakeEncoder(layers=tuple(self._layer(index) for index in range(len(self.parts))))

    def _layer(self, index):
        parts, scales, x = self.parts[index], self.scales.layers[index], self.scales.entrances()[index]
        linears = {}
        for role, ends in scales.ends(x).items():
            linear, name = getattr(parts, role), f"{layer_path(index)}.{LINEAR_PATHS[role]}"
            linears[role] = FakeLinear.of_float(name, linear.weight, linear.bias, ends)
        return FakeEncoderLayer(
            **linears, **self._constants[1][index],
            attention_norm=_norm(parts.attention_norm, x, scales.o, scales.attention_norm),
            output_norm=_norm(parts.output_norm, scales.attention_norm, scales.ffn2, scales.output))


def _norm(norm, residual, branch, output):
    steps = torch.tensor(output.steps, dtype=norm.weight.dtype, device=norm.weight.device)
    return FakeLayerNorm.of(quantize_norm(norm, residual, branch, output), norm.weight.device,
                            real_gamma=norm.weight / steps, real_beta=norm.bias / steps)
