"""Quantization of a whole float encoder: weights and static scales in, integers out."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from compressor.calibration import observe_encoder
from compressor.encoder_modules import encoder_modules
from compressor.encoder_scales import ActivationScales, Alignment, EncoderScales
from compressor.folding import folding_path
from compressor.intops import quantize_multiplier
from compressor.intops.attention import IntegerAttention, context_constants
from compressor.intops.encoder import LINEAR_PATHS, OPERATOR_PATHS, IntegerEncoder, layer_path
from compressor.intops.gelu import IntegerGelu, gelu_table
from compressor.intops.layernorm import BETA_MAX, EPSILON_MAX, GAMMA_MAX, UNIT_BITS, IntegerLayerNorm
from compressor.intops.softmax import IntegerSoftmax, exp_table
from compressor.operator_checks import SCALES_PATH
from compressor.reload import architecture_of
from compressor.structures import Dense


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


def calibrate_encoder(model, batches):
    """EncoderScales of a float model; see :func:`compressor.calibration.observe_encoder`.

    128 to 256 sentences suffice.
    """
    check_activation(model)
    return EncoderScales.choose(observe_encoder(model, batches))


def check_activation(model):
    """Raise ValueError unless the activation function is GELU."""
    key = architecture_of(model).activation
    if getattr(model.config, key) != "gelu":
        raise ValueError(f"{key} is {getattr(model.config, key)!r}; only 'gelu' is supported")


def quantize_encoder(model, scales, *, structure_of=None, map_pruning=None):
    """Quantize every encoder layer of a float model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A BERT, RoBERTa or DistilBERT with activation function "gelu"; pruning finished. Not changed.
    scales : compressor.encoder_scales.EncoderScales
        From :func:`calibrate_encoder`, or those that the model was trained with.
    structure_of : dict of str to structure, optional
        Structure of each linear layer, by module path; dense where left out.
    map_pruning : compressor.intops.map_pruning.IntegerMapPruning, optional

    Returns
    -------
    QuantizedEncoder

    Raises
    ------
    ValueError
        If the activation function is another, or the scales do not fit the weights.
    StructureError
        If a weight does not have its structure.
    """
    check_activation(model)
    scales.check(model)
    structure_of = structure_of or {}
    layers, operators = {}, {}
    for index, parts in enumerate(encoder_modules(model)):
        path, own, x = layer_path(index), scales.layers[index], scales.entrances()[index]
        for role, ends in own.ends(x).items():
            name = f"{path}.{LINEAR_PATHS[role]}"
            linear = getattr(parts, role)
            folding = ends.folding(linear.weight.shape)
            layers[name] = folding.quantize(
                name, role, linear.weight.detach().numpy(), linear.bias.detach().numpy(),
                structure=structure_of.get(name, Dense()), input_scale=ends.input_scale,
                output_scale=ends.output_scale)
            operators[folding_path(name)] = folding.to_dict()
        for name, operator in layer_operators(parts, own, x, map_pruning).items():
            operators[f"{path}.{OPERATOR_PATHS[name][0]}"] = operator.to_dict()
    ends = {**scales.input.to_dict("input"), **scales.entrances()[-1].to_dict("output")}
    return QuantizedEncoder(layers=layers,
                            operators=operators | {SCALES_PATH: {"kind": "encoder", **ends}})


def layer_operators(parts, scales, x, map_pruning):
    """Integer operators of one encoder layer, by their names in OPERATOR_PATHS.

    Parameters
    ----------
    parts : compressor.encoder_modules.EncoderModules
    scales : compressor.encoder_scales.LayerScales
    x : compressor.encoder_scales.ActivationScales
        Those of the layer's input.
    map_pruning : IntegerMapPruning or None
    """
    return {"attention": attention_constants(parts, scales, map_pruning),
            "attention_norm": quantize_norm(parts.attention_norm, x, scales.o, scales.attention_norm),
            "gelu": gelu_constants(scales.gelu),
            "output_norm": quantize_norm(parts.output_norm, scales.attention_norm, scales.ffn2,
                                         scales.output)}


def attention_constants(parts, scales, map_pruning):
    """IntegerAttention of one layer's EncoderModules and LayerScales."""
    heads = parts.q.out_features // parts.head_size
    step = scales.q * scales.k / math.sqrt(parts.head_size)
    multiplier, shift = quantize_multiplier(np.full(heads, step / scales.scores))
    numerator, exponent = context_constants(scales.v / scales.context)
    return IntegerAttention(
        heads=heads, score_multiplier=multiplier, score_shift=shift,
        softmax=IntegerSoftmax(table=exp_table(scales.scores)),
        context_numerator=numerator, context_exponent=exponent, pruning=map_pruning)


def gelu_constants(gelu):
    """IntegerGelu of a :class:`compressor.encoder_scales.GeluRange`."""
    table, outlier_table = (
        gelu_table(s.input_scale, s.output_scale, input_center=s.input_center, output_zero=s.output_zero)
        for s in gelu.tables)
    if not gelu.outliers.any():
        return IntegerGelu(table=table)
    return IntegerGelu(table=table, outlier_table=outlier_table, outliers=gelu.outliers)


def quantize_norm(norm, residual, branch, output):
    """IntegerLayerNorm of a torch LayerNorm between three ActivationScales."""
    aligned = Alignment.of(residual, branch)
    return layernorm_constants(
        norm.weight.detach().double().cpu().numpy(), norm.bias.detach().double().cpu().numpy(), norm.eps,
        step=aligned.step, residual_shift=aligned.residual_shift, branch_shift=aligned.branch_shift,
        output_steps=output.steps)


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
