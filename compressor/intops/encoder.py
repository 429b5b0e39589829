"""Integer encoder: BERT layers from linear layers and operators, batched, with valid lengths."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from compressor.intops.attention import IntegerAttention
from compressor.intops.fixedpoint import Int64Array
from compressor.intops.gelu import IntegerGelu
from compressor.intops.layernorm import IntegerLayerNorm
from compressor.intops.linear import IntegerLinear

Part = TypeVar("Part")

LINEAR_PATHS = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "o": "attention.output.dense", "ffn1": "intermediate.dense", "ffn2": "output.dense",
}
"""Module path of each linear layer inside an encoder layer."""

OPERATOR_PATHS: dict[str, tuple[str, type[Any]]] = {
    "attention": ("attention.self", IntegerAttention),
    "attention_norm": ("attention.output.LayerNorm", IntegerLayerNorm),
    "gelu": ("intermediate.intermediate_act_fn", IntegerGelu),
    "output_norm": ("output.LayerNorm", IntegerLayerNorm),
}
"""Module path and class of each operator inside an encoder layer."""


def layer_path(index: int) -> str:
    """Module path of an encoder layer.

    >>> layer_path(3)
    'encoder.layer.3'
    """
    return f"encoder.layer.{index}"


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerEncoderLayer:
    """One post-norm transformer layer. Heads and feed-forward size may differ from layer to layer.

    Raises
    ------
    ValueError
        If the sizes of two neighbours disagree.
    """

    q: IntegerLinear
    k: IntegerLinear
    v: IntegerLinear
    attention: IntegerAttention
    o: IntegerLinear
    attention_norm: IntegerLayerNorm
    ffn1: IntegerLinear
    gelu: IntegerGelu
    ffn2: IntegerLinear
    output_norm: IntegerLayerNorm

    def __post_init__(self) -> None:
        hidden = self.hidden
        expected = {
            "q": (self.q.weight.shape[0], hidden), "k": (self.q.weight.shape[0], hidden),
            "v": (self.o.weight.shape[1], hidden), "o": (hidden, self.v.weight.shape[0]),
            "ffn1": (self.ffn2.weight.shape[1], hidden), "ffn2": (hidden, self.ffn1.weight.shape[0]),
        }
        for name, shape in expected.items():
            if getattr(self, name).weight.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, not {getattr(self, name).weight.shape}")
        if self.output_norm.gamma.shape != (hidden,):
            raise ValueError(f"output_norm must have {hidden} channels, not {len(self.output_norm.gamma)}")
        neurons = self.ffn1.weight.shape[0]
        if self.gelu.outliers is not None and self.gelu.outliers.shape != (neurons,):
            raise ValueError(f"gelu must have {neurons} outliers flags, not {len(self.gelu.outliers)}")
        for name in ("q", "v"):
            rows = getattr(self, name).weight.shape[0]
            if rows % (4 * self.attention.heads):
                raise ValueError(f"{rows} rows of {name} do not divide into {self.attention.heads} heads "
                                 "of a multiple of 4 rows")

    @property
    def hidden(self) -> int:
        """Channels of input and output."""
        return len(self.attention_norm.gamma)

    def trace(self, x: Int64Array, lengths: npt.ArrayLike) -> dict[str, Int64Array]:
        """Every tensor of the layer in execution order, by name; "output" is the last.

        Parameters
        ----------
        x : int64 array, shape (batch, tokens, hidden)
            -127 to 127.
        lengths : int array, shape (batch,)
            Valid tokens of each sequence, 0 to tokens.

        Returns
        -------
        dict of int64 arrays
            "pattern_ids" is there only with map pruning.
        """
        t = {"q": self.q.compute(x), "k": self.k.compute(x), "v": self.v.compute(x)}
        t["scores"] = self.attention.scores(t["q"], t["k"])
        t["weights"], t["sums"], ids = self.attention.weights(t["scores"], lengths)
        if ids is not None:
            t["pattern_ids"] = ids
        t["context"] = self.attention.context(t["weights"], t["sums"], t["v"])
        t["o"] = self.o.compute(t["context"])
        t["attention_norm"] = self.attention_norm.compute(x, t["o"])
        t["ffn1"] = self.ffn1.compute(t["attention_norm"])
        t["gelu"] = self.gelu.compute(t["ffn1"])
        t["ffn2"] = self.ffn2.compute(t["gelu"])
        t["output"] = self.output_norm.compute(t["attention_norm"], t["ffn2"])
        return t

    def compute(self, x: Int64Array, lengths: npt.ArrayLike) -> Int64Array:
        """Output of :meth:`trace`, int64 in -127 to 127, shape (batch, tokens, hidden)."""
        return self.trace(x, lengths)["output"]


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerEncoder:
    """A stack of layers.

    Masked tokens get defined values too, from their own input and zero context; they influence no
    valid token, and a valid token's result does not depend on how far its sequence is padded.

    Parameters
    ----------
    layers : tuple of IntegerEncoderLayer
        At least one; all of one hidden size.
    """

    layers: tuple[IntegerEncoderLayer, ...]

    def __post_init__(self) -> None:
        sizes = {layer.hidden for layer in self.layers}
        if len(sizes) != 1:
            raise ValueError(f"an encoder needs layers of one hidden size, not {sorted(sizes)}")

    @classmethod
    def from_parts(cls, linears: Mapping[str, IntegerLinear], operators: Mapping[str, Any]) -> Self:
        """Encoder from the parts that a bundle stores.

        Parameters
        ----------
        linears : dict of str to IntegerLinear
            By module path, such as "encoder.layer.0.attention.self.query".
        operators : dict of str to dict
            By module path, what the operators' ``to_dict()`` gave; other keys are ignored.

        Raises
        ------
        ValueError
            If a part is missing, or does not fit its neighbours.
        """
        count = 1 + max((int(path.split(".")[2]) for path in linears), default=-1)
        return cls(layers=tuple(_layer(layer_path(i), linears, operators) for i in range(count)))

    def operators(self) -> dict[str, dict[str, Any]]:
        """All operators' integers by module path, as :meth:`from_parts` takes them."""
        return {f"{layer_path(i)}.{path}": getattr(layer, name).to_dict()
                for i, layer in enumerate(self.layers) for name, (path, _) in OPERATOR_PATHS.items()}

    def trace(self, x: npt.ArrayLike, lengths: npt.ArrayLike) -> list[dict[str, Int64Array]]:
        """Layer by layer the tensors of :meth:`IntegerEncoderLayer.trace`: a list of dicts."""
        states, valid = np.asarray(x, np.int64), np.asarray(lengths, np.int64)
        if states.ndim != 3 or valid.shape != states.shape[:1]:
            raise ValueError(f"an encoder takes (batch, tokens, hidden) and (batch,) lengths, "
                             f"not {states.shape} and {valid.shape}")
        if valid.size and not 0 <= valid.min() <= valid.max() <= states.shape[1]:
            raise ValueError(f"lengths must be 0 to {states.shape[1]}, not {valid.min()} to {valid.max()}")
        traces = []
        for layer in self.layers:
            traces.append(layer.trace(states, valid))
            states = traces[-1]["output"]
        return traces

    def compute(self, x: npt.ArrayLike, lengths: npt.ArrayLike) -> Int64Array:
        """Last hidden states.

        Parameters
        ----------
        x : int array, shape (batch, tokens, hidden)
            Embeddings, -127 to 127.
        lengths : int array, shape (batch,)
            Valid tokens of each sequence, 0 to tokens; tokens up to 512.

        Returns
        -------
        int64 array, shape (batch, tokens, hidden)
            -127 to 127.
        """
        return self.trace(x, lengths)[-1]["output"]


def _layer(path: str, linears: Mapping[str, IntegerLinear],
           operators: Mapping[str, Any]) -> IntegerEncoderLayer:
    parts: dict[str, Any] = {name: _part(linears, f"{path}.{sub}") for name, sub in LINEAR_PATHS.items()}
    for name, (sub, kind) in OPERATOR_PATHS.items():
        parts[name] = kind.from_dict(_part(operators, f"{path}.{sub}"))
    try:
        return IntegerEncoderLayer(**parts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _part(parts: Mapping[str, Part], path: str) -> Part:
    if path not in parts:
        raise ValueError(f"{path} is missing; an encoder layer needs its six linear layers and "
                         "four operators")
    return parts[path]
