"""Quantization of a whole float BERT encoder: calibration in, integer layers and operators out."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from compressor.activation_scales import (
    aligned_scales,
    channel_scales,
    gelu_scales,
    outlier_channels,
    tensor_scale,
)
from compressor.encoder_calibration import observe_encoder
from compressor.encoder_modules import encoder_modules
from compressor.folding import Folding, folding_path
from compressor.intops import quantize_multiplier
from compressor.intops.attention import IntegerAttention, context_constants
from compressor.intops.encoder import LINEAR_PATHS, OPERATOR_PATHS, IntegerEncoder, layer_path
from compressor.intops.gelu import IntegerGelu, gelu_table
from compressor.intops.layernorm import (
    BETA_MAX,
    EPSILON_MAX,
    GAMMA_MAX,
    SHIFT_BITS,
    UNIT_BITS,
    IntegerLayerNorm,
)
from compressor.intops.softmax import IntegerSoftmax, exp_table
from compressor.operator_checks import SCALES_PATH
from compressor.quantization import activation_scale
from compressor.reload import architecture_of
from compressor.structures import Dense

SHIFT_MAX = (1 << SHIFT_BITS) - 1

@dataclass(frozen=True, kw_only=True, eq=False)
class ActivationScales:
    """Real values of an int8 tensor: ``scale * 2**exponents`` for activation 1 of each channel."""

    scale: float
    exponents: np.ndarray

    @property
    def steps(self):
        """Real value of activation 1 of each channel, float64."""
        return self.scale * 2.0**self.exponents

    def to_dict(self, prefix):
        """``{prefix}_scale`` and ``{prefix}_exponents``."""
        return {f"{prefix}_scale": self.scale, f"{prefix}_exponents": self.exponents.astype(np.uint8)}

    @classmethod
    def from_dict(cls, values, prefix):
        """Inverse of :meth:`to_dict`."""
        return cls(scale=float(values[f"{prefix}_scale"]),
                   exponents=np.asarray(values[f"{prefix}_exponents"], np.int64))


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedEncoder:
    """All integers of an encoder, in the form that a bundle stores.

    Parameters
    ----------
    layers : dict of str to LayerWeights
        The linear layers in execution order, by module path.
    operators : dict of str to dict
        Plain values and arrays by module path: the operators' integers, each linear layer's folding,
        and under "encoder" the scales of the encoder's input and output.
    """

    layers: dict
    operators: dict

    @cached_property
    def integer(self):
        """The golden model: :class:`compressor.intops.encoder.IntegerEncoder`."""
        return IntegerEncoder.from_parts(
            {name: layer.linear for name, layer in self.layers.items()}, self.operators)

    @property
    def input(self):
        """ActivationScales of the encoder's input."""
        return ActivationScales.from_dict(self.operators[SCALES_PATH], "input")

    @property
    def output(self):
        """ActivationScales of the encoder's output."""
        return ActivationScales.from_dict(self.operators[SCALES_PATH], "output")


def to_tensors(operators):
    """Operators as a bundle file takes them: every array a tensor; ``from_dict`` reads both forms.

    >>> to_tensors({"gelu": {"kind": "gelu", "table": np.zeros(2, np.int8)}})
    {'gelu': {'kind': 'gelu', 'table': tensor([0, 0], dtype=torch.int8)}}
    """
    return {path: {name: torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
                   for name, value in entry.items()} for path, entry in operators.items()}


def quantize_encoder(model, batches, *, structure_of=None, map_pruning=None):
    """Quantize every encoder layer of a float BERT.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A BERT, RoBERTa or DistilBERT with activation function "gelu"; pruning finished. Not changed.
    batches : iterable of dict of tensors
        Calibration inputs; see :func:`compressor.encoder_calibration.observe_encoder`. 128 to 256
        sentences suffice.
    structure_of : dict of str to structure, optional
        Structure of each linear layer, by module path; dense where left out.
    map_pruning : compressor.intops.map_pruning.IntegerMapPruning, optional

    Returns
    -------
    QuantizedEncoder

    Raises
    ------
    ValueError
        If the activation function is another, or calibration fails.
    StructureError
        If a weight does not have its structure.
    """
    key = architecture_of(model).activation
    if getattr(model.config, key) != "gelu":
        raise ValueError(f"{key} is {getattr(model.config, key)!r}; only 'gelu' is supported")
    structure_of = structure_of or {}
    observers = observe_encoder(model, batches)
    layers, operators = {}, {}
    entrance = x = _channel_scales(observers[0]["input"])
    for index, module in enumerate(encoder_modules(model)):
        builder = _LayerBuilder(layer_path(index), module, observers[index], structure_of)
        x = builder.build(x, map_pruning)
        layers |= builder.layers
        operators |= builder.operators
    operators[SCALES_PATH] = {"kind": "encoder", **entrance.to_dict("input"), **x.to_dict("output")}
    return QuantizedEncoder(layers=layers, operators=operators)


def _channel_scales(observer):
    scale, exponents = channel_scales(observer.sample, observer.largest)
    return ActivationScales(scale=scale, exponents=exponents)


class _LayerBuilder:
    """Quantizes one layer; fills ``layers`` and ``operators`` in execution order."""

    def __init__(self, path, module, observers, structure_of):
        self.path, self.module, self.observers = path, module, observers
        self.structure_of = structure_of
        self.layers, self.operators = {}, {}

    def build(self, x, map_pruning):
        """Quantize the layer whose input has the scales ``x``; returns those of its output."""
        parts = self.module
        scales = {name: tensor_scale(self.observers[name].sample)
                  for name in ("q", "k", "v", "context")}
        # Never clipped: the largest score of a row is the one that counts most.
        scales["scores"] = activation_scale(self.observers["scores"].largest.max())
        for role in ("q", "k", "v"):
            self._linear(role, getattr(parts, role), x.scale, scales[role], column_factor=x.steps / x.scale)
        self._attention(scales, map_pruning)
        middle = self._branch("o", scales["context"], x, "attention_norm", {})
        gelu_scale, gelu_fold = self._gelu(middle)
        return self._branch("ffn2", gelu_scale, middle, "output_norm", gelu_fold)

    def _linear(self, role, module, input_scale, output_scale, **fold):
        name = f"{self.path}.{LINEAR_PATHS[role]}"
        weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
        folding = Folding.of(weight.shape, **fold)
        self.layers[name] = folding.quantize(
            name, role, weight, bias, structure=self.structure_of.get(name, Dense()),
            input_scale=input_scale, output_scale=output_scale)
        self.operators[folding_path(name)] = folding.to_dict()

    def _operator(self, name, operator):
        self.operators[f"{self.path}.{OPERATOR_PATHS[name][0]}"] = operator.to_dict()

    def _attention(self, scales, map_pruning):
        size = self.module.head_size
        heads = self.module.q.out_features // size
        step = scales["q"] * scales["k"] / math.sqrt(size)
        multiplier, shift = quantize_multiplier(np.full(heads, step / scales["scores"]))
        numerator, exponent = context_constants(scales["v"] / scales["context"])
        self._operator("attention", IntegerAttention(
            heads=heads, score_multiplier=multiplier, score_shift=shift,
            softmax=IntegerSoftmax(table=exp_table(scales["scores"])),
            context_numerator=numerator, context_exponent=exponent, pruning=map_pruning))

    def _branch(self, role, input_scale, residual, norm, fold):
        """A linear layer whose output joins the residual, and the LayerNorm of their sum."""
        observer = self.observers[role]
        power, exponents = aligned_scales(observer.sample, observer.largest, residual.scale,
                                          int(residual.exponents.max()), SHIFT_MAX)
        # All shifts as large as they may be: the finer the sum, the finer its mean.
        raise_by = SHIFT_MAX - max(int(residual.exponents.max()), int(exponents.max()) + power)
        self._linear(role, getattr(self.module, role), input_scale, residual.scale * 2.0**power,
                     row_factor=2.0**exponents, **fold)
        output = _channel_scales(self.observers[norm.replace("output_norm", "output")])
        layer_norm = getattr(self.module, norm)
        self._operator(norm, layernorm_constants(
            layer_norm.weight.detach().double().numpy(), layer_norm.bias.detach().double().numpy(),
            layer_norm.eps,
            step=residual.scale * 2.0**-raise_by, residual_shift=residual.exponents + raise_by,
            branch_shift=exponents + power + raise_by, output_steps=output.steps))
        return output

    def _gelu(self, x):
        """The first feed-forward layer and its GELU; the scale of the result, and the next layer's fold."""
        highest = self.observers["ffn1"].highest.astype(np.float64)
        outliers = outlier_channels(highest)
        usual = gelu_scales(float(highest[~outliers].max()))
        coarse = gelu_scales(float(highest.max()))
        self._linear("ffn1", self.module.ffn1, x.scale, usual.input_scale,
                     column_factor=x.steps / x.scale,
                     row_factor=np.where(outliers, coarse.input_scale / usual.input_scale, 1.0),
                     output_center=np.where(outliers, coarse.input_center, usual.input_center))
        table, outlier_table = (
            gelu_table(s.input_scale, s.output_scale, input_center=s.input_center,
                       output_zero=s.output_zero) for s in (usual, coarse))
        self._operator("gelu", IntegerGelu(table=table, outlier_table=outlier_table, outliers=outliers)
                       if outliers.any() else IntegerGelu(table=table))
        return usual.output_scale, {
            "column_factor": np.where(outliers, coarse.output_scale / usual.output_scale, 1.0),
            "input_zero": np.where(outliers, coarse.output_zero, usual.output_zero)}


def layernorm_constants(gamma, beta, epsilon, *, step, residual_shift, branch_shift, output_steps):
    """Integer LayerNorm of a float one.

    Parameters
    ----------
    gamma, beta : float64 arrays, shape (H,)
    epsilon : float
    step : float
        Real value of 1 in the sum of residual and branch.
    residual_shift, branch_shift : int arrays, shape (H,)
        0 to 7.
    output_steps : float array, shape (H,)
        Real value of activation 1 of each output channel.

    Returns
    -------
    IntegerLayerNorm
        With the largest ``output_shift`` for which gamma and beta fit.
    """
    hidden = len(gamma)
    gamma = gamma / output_steps * math.sqrt(hidden) * 2.0**-UNIT_BITS
    beta = beta / output_steps
    room = min(GAMMA_MAX / max(np.abs(gamma).max(), 1e-30), BETA_MAX / max(np.abs(beta).max(), 1e-30))
    shift = int(np.clip(np.floor(np.log2(room)), 1, 31))
    return IntegerLayerNorm(
        gamma=np.floor(gamma * 2.0**shift + 0.5).astype(np.int16),
        beta=np.floor(beta * 2.0**shift + 0.5).astype(np.int32),
        residual_shift=np.asarray(residual_shift).astype(np.uint8),
        branch_shift=np.asarray(branch_shift).astype(np.uint8), output_shift=shift,
        epsilon=int(np.clip(np.floor(hidden * epsilon / step**2 + 0.5), 1, EPSILON_MAX)))
