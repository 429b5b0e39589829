"""Golden vectors of the C testbenches: files in the word order of memory, and lists of cases."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtl_templates.word_format import pack_words

LINEAR_CASES = "linear.txt"
"""Cases of ``tb_linear``: lines "layer tokens name"."""

VECTOR_TOKENS = 12
"""Tokens of the vectors that come with a build, or fewer if it holds fewer."""


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


def random_activations(shape, seed):
    """Seeded int8 activations, -127 to 127: mostly small, one in sixteen anything."""
    rng = np.random.default_rng(seed)
    small = rng.integers(-48, 49, shape)
    return np.where(rng.random(shape) < 1 / 16, rng.integers(-127, 128, shape), small).astype(np.int8)
