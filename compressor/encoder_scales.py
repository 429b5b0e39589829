"""The static activation scales of a whole encoder: chosen once from calibration, kept in one file.

Scales and float weights together determine every integer, so a model trained with given scales is
exported with the same ones.
"""

import json
import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from compressor.activation_scales import (
    aligned_scales,
    channel_scales,
    gelu_scales,
    outlier_channels,
    tensor_scale,
)
from compressor.encoder_modules import encoder_modules
from compressor.folding import Folding
from compressor.intops.layernorm import SHIFT_BITS
from compressor.quantization import activation_scale
from compressor.text_file import write_text

SCALES_FILE = "activation_scales.json"
"""Name of the file within a model directory."""

FORMAT = "compressor-activation-scales"
SCHEMA_VERSION = 1
SHIFT_MAX = (1 << SHIFT_BITS) - 1


class ScalesError(ValueError):
    """Activation scales that cannot be used; the message is one line."""


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
class GeluRange:
    """Largest pre-activations: of the usual channels, of all channels; and which are outliers, bool (F,)."""

    usual: float
    highest: float
    outliers: np.ndarray

    @cached_property
    def tables(self):
        """GeluScales of the usual channels' table and of the outliers'."""
        return gelu_scales(self.usual), gelu_scales(self.highest)

    def of_channels(self, name):
        """A field of the tables' GeluScales for every channel, shape (F,)."""
        usual, coarse = (getattr(table, name) for table in self.tables)
        return np.where(self.outliers, coarse, usual)


@dataclass(frozen=True, kw_only=True, eq=False)
class Alignment:
    """How a residual and a branch are added: shifts (H,), and the real value of 1 in the sum."""

    step: float
    residual_shift: np.ndarray
    branch_shift: np.ndarray

    @classmethod
    def of(cls, residual, branch):
        """Alignment of two ActivationScales a power of two apart.

        All shifts are as large as they may be: the finer the sum, the finer its mean.
        """
        power = round(math.log2(branch.scale / residual.scale))
        raise_by = SHIFT_MAX - max(int(residual.exponents.max()), int(branch.exponents.max()) + power)
        return cls(step=residual.scale * 2.0**-raise_by, residual_shift=residual.exponents + raise_by,
                   branch_shift=branch.exponents + power + raise_by)


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearEnds:
    """Real value of 1 at a linear layer's input and output, and the arguments of its Folding."""

    input_scale: float
    output_scale: float
    fold: dict

    def folding(self, shape):
        """The Folding of a layer of shape (rows, K)."""
        return Folding.of(shape, **self.fold)


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerScales:
    """Scales of one encoder layer's tensors, named as in its trace; its input has those of the layer before.

    Parameters
    ----------
    q, k, v, scores, context : float
        Real value of activation 1.
    o, attention_norm, ffn2, output : ActivationScales
        ``o`` is a power of two away from the layer's input, ``ffn2`` from ``attention_norm``.
    gelu : GeluRange
    """

    q: float
    k: float
    v: float
    scores: float
    context: float
    o: ActivationScales
    attention_norm: ActivationScales
    gelu: GeluRange
    ffn2: ActivationScales
    output: ActivationScales

    def ends(self, x):
        """LinearEnds of the six linear layers, by role; ``x`` has the ActivationScales of the input."""
        middle, usual = self.attention_norm, self.gelu.tables[0]
        entrance = {"column_factor": 2.0**x.exponents}
        return {
            **{role: LinearEnds(input_scale=x.scale, output_scale=getattr(self, role), fold=entrance)
               for role in ("q", "k", "v")},
            "o": LinearEnds(input_scale=self.context, output_scale=self.o.scale,
                            fold={"row_factor": 2.0**self.o.exponents}),
            "ffn1": LinearEnds(input_scale=middle.scale, output_scale=usual.input_scale, fold={
                "column_factor": 2.0**middle.exponents,
                "row_factor": self.gelu.of_channels("input_scale") / usual.input_scale,
                "output_center": self.gelu.of_channels("input_center")}),
            "ffn2": LinearEnds(input_scale=usual.output_scale, output_scale=self.ffn2.scale, fold={
                "row_factor": 2.0**self.ffn2.exponents,
                "column_factor": self.gelu.of_channels("output_scale") / usual.output_scale,
                "input_zero": self.gelu.of_channels("output_zero")}),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderScales:
    """Scales of every tensor of an encoder: those of its input, and LayerScales of every layer."""

    input: ActivationScales
    layers: tuple

    @classmethod
    def choose(cls, observers):
        """Scales that fit what :func:`compressor.calibration.observe_encoder` saw."""
        entrance = x = _channel_scales(observers[0]["input"])
        layers = []
        for observed in observers:
            layers.append(_layer_scales(observed, x))
            x = layers[-1].output
        return cls(input=entrance, layers=tuple(layers))

    def of_units(self, left):
        """Scales of a model that has been shrunken: ``left`` is what shrink() returned."""
        neurons = [units.neurons.cpu().numpy() for units in left]
        return replace(self, layers=tuple(
            replace(layer, gelu=replace(layer.gelu, outliers=layer.gelu.outliers[kept]))
            for layer, kept in zip(self.layers, neurons, strict=True)))

    def entrances(self):
        """ActivationScales of every layer's input, and at the end those of the encoder's output."""
        return (self.input, *(layer.output for layer in self.layers))

    def save(self, folder):
        """Write SCALES_FILE into a folder, aside first and then renamed."""
        write_text(Path(folder) / SCALES_FILE, self.to_json() + "\n")

    @classmethod
    def load(cls, folder, model):
        """Scales of a model directory, checked against its model; None if it has none.

        Raises
        ------
        ScalesError
            If the file is damaged or does not fit.
        """
        path = Path(folder) / SCALES_FILE
        if not path.is_file():
            return None
        try:
            scales = cls.from_json(path.read_text(encoding="utf-8"))
            scales.check(model)
        except (ValueError, OSError) as error:
            raise ScalesError(f"{path}: {error}; delete it to calibrate again") from error
        return scales

    def to_json(self):
        """JSON text; floats are written so that they are read back exactly."""
        return json.dumps({"format": FORMAT, "schema_version": SCHEMA_VERSION,
                           "input": _to_plain(self.input),
                           "layers": [_to_plain(layer) for layer in self.layers]})

    @classmethod
    def from_json(cls, text):
        """Inverse of :meth:`to_json`; ScalesError if the text is no such thing."""
        try:
            values = json.loads(text)
            if (values["format"], values["schema_version"]) != (FORMAT, SCHEMA_VERSION):
                raise ScalesError(f"format {values['format']} version {values['schema_version']}; this "
                                  f"program reads {FORMAT} version {SCHEMA_VERSION}")
            return cls(input=_from_plain(ActivationScales, values["input"]),
                       layers=tuple(_from_plain(LayerScales, layer) for layer in values["layers"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ScalesError):
                raise
            raise ScalesError(f"damaged: {type(error).__name__}: {error}") from error

    def check(self, model):
        """Raise ScalesError unless the sizes are those of a model."""
        modules = encoder_modules(model)
        if len(self.layers) != len(modules):
            raise ScalesError(f"scales of {len(self.layers)} layers; the model has {len(modules)}")
        hidden = model.config.hidden_size
        for index, (scales, module) in enumerate(zip(self.layers, modules, strict=True)):
            sizes = {"o": hidden, "attention_norm": hidden, "ffn2": hidden, "output": hidden}
            found = {name: getattr(scales, name).exponents.shape for name in sizes}
            found["gelu"] = scales.gelu.outliers.shape
            sizes["gelu"] = module.ffn1.out_features
            for name, size in sizes.items():
                if found[name] != (size,):
                    raise ScalesError(f"layer {index}: {name} has {found[name]} channels; "
                                      f"the model has {size}")
        if self.input.exponents.shape != (hidden,):
            raise ScalesError(f"input has {self.input.exponents.shape} channels; the model has {hidden}")


def _layer_scales(observed, x):
    scales = {name: tensor_scale(observed[name].sample) for name in ("q", "k", "v", "context")}
    # Never clipped: the largest score of a row is the one that counts most.
    scales["scores"] = activation_scale(observed["scores"].largest.max())
    middle = _channel_scales(observed["attention_norm"])
    highest = observed["ffn1"].highest.astype(np.float64)
    outliers = outlier_channels(highest)
    return LayerScales(
        **scales, o=_branch_scales(observed["o"], x), attention_norm=middle,
        gelu=GeluRange(usual=float(highest[~outliers].max()), highest=float(highest.max()),
                       outliers=outliers),
        ffn2=_branch_scales(observed["ffn2"], middle), output=_channel_scales(observed["output"]))


def _channel_scales(observer):
    scale, exponents = channel_scales(observer.sample, observer.largest)
    return ActivationScales(scale=scale, exponents=exponents)


def _branch_scales(observer, residual):
    power, exponents = aligned_scales(observer.sample, observer.largest, residual.scale,
                                      int(residual.exponents.max()), SHIFT_MAX)
    return ActivationScales(scale=residual.scale * 2.0**power, exponents=exponents)


_ARRAYS = {"exponents": np.int64, "outliers": bool}
_PARTS = {"o": ActivationScales, "attention_norm": ActivationScales, "ffn2": ActivationScales,
          "output": ActivationScales, "gelu": GeluRange}


def _to_plain(value):
    plain = {}
    for field in fields(value):
        part = getattr(value, field.name)
        plain[field.name] = (part.astype(int).tolist() if field.name in _ARRAYS
                             else _to_plain(part) if field.name in _PARTS else part)
    return plain


def _from_plain(kind, values):
    if set(values) != {field.name for field in fields(kind)}:
        raise ScalesError(f"{kind.__name__} has the keys {', '.join(values)}")
    parts = {}
    for name, value in values.items():
        if name in _ARRAYS:
            parts[name] = np.asarray(value, _ARRAYS[name])
        elif name in _PARTS:
            parts[name] = _from_plain(_PARTS[name], value)
        elif not (isinstance(value, float) and 0 < value < math.inf) and name not in ("usual", "highest"):
            raise ScalesError(f"{name} is {value!r}; a finite positive number is required")
        else:
            parts[name] = float(value)
    return kind(**parts)
