"""Golden vectors of the C testbenches: files in the word order of memory, and lists of cases."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtl_templates.word_format import pack_words

LINEAR_CASES = "linear.txt"
"""Cases of ``tb_linear``: lines "layer tokens name"."""

ENCODER_CASES = "encoder.txt"
"""Cases of ``tb_encoder``: lines "tokens sequences name"."""

OPERATOR_CASES = "operators.txt"
"""Cases of ``tb_operators``: lines "operator layer tokens length name"."""

VECTOR_TOKENS = 12
"""Tokens of the vectors that come with a build, or fewer if it holds fewer."""

VECTOR_SEQUENCES = 2
"""Sequences of the encoder's vectors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearCase:
    """One linear layer on one input.

    Parameters
    ----------
    layer : int
        Index into the plan's layers.
    name : str
        Of the files.
    x : int8 array, shape (tokens, K)
    y : int8 array, shape (tokens, rows)
        Golden output.
    """

    layer: int
    name: str
    x: np.ndarray
    y: np.ndarray


def write_linear_cases(cases, lanes, folder):
    """Write the files and the list of cases for ``tb_linear``."""
    lines = ["# layer tokens name\n"]
    for case in cases:
        pack_words(case.x, lanes).tofile(Path(folder) / f"{case.name}.input.bin")
        pack_words(case.y, lanes).tofile(Path(folder) / f"{case.name}.expected.bin")
        lines.append(f"{case.layer} {len(case.x)} {case.name}\n")
    (Path(folder) / LINEAR_CASES).write_text("".join(lines))


def write_linear_vectors(bundle, plan, folder):
    """Random inputs with extremes, seeded by the layer's number, and golden outputs of every linear layer."""
    tokens = min(VECTOR_TOKENS, plan.tokens)
    write_linear_cases((_linear_case(bundle, index, layer.name, tokens)
                        for index, layer in enumerate(plan.layers)), plan.spec.array.lanes, folder)


def _linear_case(bundle, index, name, tokens):
    linear = bundle.layers[name].linear
    x = random_activations((tokens, linear.weight.shape[1]), index)
    return LinearCase(layer=index, name=f"linear{index}", x=x, y=linear.compute(x).astype(np.int8))


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderCase:
    """One call of the encoder kernel.

    Parameters
    ----------
    name : str
        Of the files.
    x, y : int8 arrays, shape (sequences, tokens, hidden)
        Embeddings, and golden hidden states.
    lengths : int array, shape (sequences,)
        Valid tokens.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    lengths: np.ndarray


def write_encoder_case(case, lanes, folder):
    """Write the files and the one-line list of cases for ``tb_encoder``."""
    for kind, tensors in (("input", case.x), ("expected", case.y)):
        np.concatenate([pack_words(one, lanes).ravel() for one in tensors]).tofile(
            Path(folder) / f"{case.name}.{kind}.bin")
    np.asarray(case.lengths, "<u4").tofile(Path(folder) / f"{case.name}.lengths.bin")
    sequences, tokens, _ = case.x.shape
    (Path(folder) / ENCODER_CASES).write_text(f"# tokens sequences name\n{tokens} {sequences} {case.name}\n")


@dataclass(frozen=True, kw_only=True, eq=False)
class OperatorCase:
    """One operator of one encoder layer on golden inputs.

    Parameters
    ----------
    operator : str
        As in ``tb_operators.cpp``.
    layer : int
        Encoder layer.
    name : str
        Of the files.
    length : int
        Valid tokens.
    inputs : dict of str to int array
        Tensors of shape (tokens, channels); attention maps of shape (heads, queries, keys).
    y : int array
        Golden output, likewise.
    """

    operator: str
    layer: int
    name: str
    length: int
    inputs: dict
    y: np.ndarray


def operator_cases(encoder, x, length):
    """Yield the operators of all encoder layers, with the tensors of one sequence in the golden model.

    Parameters
    ----------
    encoder : compressor.intops.encoder.IntegerEncoder
    x : int8 array, shape (tokens, hidden)
    length : int
        Valid tokens.
    """
    for index, trace in enumerate(encoder.trace(x[None], np.array([length]))):
        t = {name: tensor[0] for name, tensor in trace.items()} | {"x": x}
        x = t["output"]
        for operator, inputs, output in (
                ("scores", {"q": "q", "k": "k"}, "scores"), ("softmax", {"scores": "scores"}, "weights"),
                ("context", {"weights": "weights", "v": "v"}, "context"),
                ("attention_norm", {"residual": "x", "branch": "o"}, "attention_norm"),
                ("gelu", {"x": "attention_norm"}, "gelu"),
                ("output_norm", {"residual": "attention_norm", "branch": "ffn2"}, "output")):
            yield OperatorCase(operator=operator, layer=index, name=f"{operator}{index}", length=length,
                               inputs={name: t[source] for name, source in inputs.items()}, y=t[output])


def pack_tensor(tensor, lanes):
    """Bytes of an operator's tensor: words of a tensor, or of each head's map with keys as its channels.

    Parameters
    ----------
    tensor : int array, shape (tokens, channels) or (heads, queries, keys)
        Maps are filled with 0 to whole token groups of keys.

    Returns
    -------
    uint8 array
    """
    if tensor.ndim == 2:
        return pack_words(tensor, lanes).ravel()
    padded = np.pad(tensor, ((0, 0), (0, 0), (0, -tensor.shape[2] % lanes)))
    return np.concatenate([pack_words(one, lanes).ravel() for one in padded])


def write_operator_cases(cases, lanes, folder):
    """Write the files and the list of cases for ``tb_operators``."""
    lines = ["# operator layer tokens length name\n"]
    for case in cases:
        for name, tensor in {**case.inputs, "expected": case.y}.items():
            pack_tensor(tensor, lanes).tofile(Path(folder) / f"{case.name}.{name}.bin")
        tokens = next(iter(case.inputs.values())).shape[-2]
        lines.append(f"{case.operator} {case.layer} {tokens} {case.length} {case.name}\n")
    (Path(folder) / OPERATOR_CASES).write_text("".join(lines))


def write_encoder_vectors(bundle, plan, folder):
    """Vectors of the encoder kernel (a full and a short sequence), and of every operator."""
    tokens, lanes = min(VECTOR_TOKENS, plan.tokens), plan.spec.array.lanes
    x = random_activations((VECTOR_SEQUENCES, tokens, 4 * plan.layers[0].columns), 0)
    lengths = np.array([tokens, (tokens + 1) // 2])
    y = bundle.encoder.compute(x, lengths)
    write_encoder_case(EncoderCase(name="encoder", x=x, y=y, lengths=lengths), lanes, folder)
    cases = operator_cases(bundle.encoder, x[1].astype(np.int64), int(lengths[1]))
    write_operator_cases(cases, lanes, folder)


def random_activations(shape, seed):
    """Seeded int8 activations, -127 to 127: mostly small, one in sixteen anything."""
    rng = np.random.default_rng(seed)
    small = rng.integers(-48, 49, shape)
    return np.where(rng.random(shape) < 1 / 16, rng.integers(-127, 128, shape), small).astype(np.int8)
