"""Inputs of a program's layers, their golden outputs, and the comparison of every output word."""

from dataclasses import dataclass

import numpy as np

from compressor.intops.fixedpoint import ACTIVATION_MAX, round_half_up_shift, saturate
from rtl_templates.word_format import CHANNELS, pack_words, token_groups


@dataclass(frozen=True)
class LayerVectors:
    """Input and golden output of one layer.

    Parameters
    ----------
    x : int8 array, shape (tokens, K)
        -127 to 127.
    y : int8 array, shape (tokens, rows)
        -127 to 127.
    """

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Mismatch:
    """The first value of a layer that differs from the golden model."""

    layer: str
    token: int
    channel: int
    got: int
    expected: int

    def __str__(self):
        got = "nothing" if self.got == -128 else self.got  # -128 is what output memory starts with
        return (f"{self.layer}: token {self.token}, channel {self.channel}: "
                f"got {got}, expected {self.expected}")


@dataclass(frozen=True)
class Comparison:
    """Output words of one layer against the golden model.

    Parameters
    ----------
    words : int
        Words compared: 4 channels x T tokens each.
    mismatches : int
        Words with at least one wrong value.
    padding_values : int
        Values in lanes past the last token; they belong to no token and are not compared.
    first : Mismatch, str or None
        The first wrong value, or its description.
    """

    words: int
    mismatches: int
    padding_values: int
    first: Mismatch | str | None


def random_vectors(bundle, program, seed=0):
    """Random int8 inputs for a program, extreme values included, and the golden output of each layer.

    Parameters
    ----------
    bundle : compressor.bundle.Bundle
    program : hwgen.program.Program
    seed : int

    Returns
    -------
    dict of str to LayerVectors, in execution order
    """
    rng = np.random.default_rng(seed)
    inputs = {tensor.name: _random_input(rng, tensor) for tensor in program.inputs}
    vectors = {}
    for name in program.layers:
        source = program.sources[name]
        x = inputs[program.input_of(name).name] if source is None else vectors[source].y
        vectors[name] = LayerVectors(x, bundle.layers[name].linear.compute(x).astype(np.int8))
    return vectors


def pack_inputs(program, vectors, lanes):
    """Contents of input memory: uint8 array of ``program.input_bytes``."""
    memory = np.zeros(program.input_bytes, np.uint8)
    for tensor in program.inputs:
        packed = pack_words(vectors[tensor.name].x, lanes).ravel()
        if packed.size != tensor.bytes:
            raise ValueError(f"{tensor.name}: {len(vectors[tensor.name].x)} tokens pack into {packed.size} "
                             f"bytes; the program loads {tensor.bytes}")
        memory[tensor.offset:tensor.offset + tensor.bytes] = packed
    return memory


def count_saturations(bundle, program, vectors, lanes):
    """Output values that the golden model clips, as register ``saturations`` counts them.

    Lanes past the last token are counted too: they compute with inputs of 0.
    """
    padding, count, past_the_end = -program.tokens % lanes, 0, {}
    for name in program.layers:
        linear, source = bundle.layers[name].linear, program.sources[name]
        zeros = np.zeros((1, linear.weight.shape[1]), np.int8)
        x = np.concatenate([vectors[name].x, zeros if source is None else past_the_end[source]])
        scaled = round_half_up_shift(linear.accumulate(x) * linear.multiplier, linear.shift)
        clipped = np.abs(scaled) > ACTIVATION_MAX
        count += int(clipped[:-1].sum()) + padding * int(clipped[-1].sum())
        past_the_end[name] = saturate(scaled[-1:], ACTIVATION_MAX)
    return count


def compare_outputs(program, vectors, memory, lanes):
    """Compare output memory with the golden outputs.

    Parameters
    ----------
    program : hwgen.program.Program
    vectors : dict of str to LayerVectors
    memory : uint8 array, shape (program.output_bytes,)
    lanes : int

    Returns
    -------
    dict of str to Comparison
    """
    return {tensor.name: compare_words(tensor.name, memory[tensor.offset:tensor.offset + tensor.bytes],
                                       vectors[tensor.name].y, lanes)
            for tensor in program.outputs}


def compare_words(layer, words, expected, lanes):
    """Compare the packed words of one layer with its golden output.

    Parameters
    ----------
    layer : str
        Name for the report.
    words : uint8 array
        Bytes in word order.
    expected : int array, shape (tokens, rows)
    lanes : int

    Returns
    -------
    Comparison

    >>> words = pack_words(np.array([[1, 2, 3, 4], [5, 6, 7, 9]]), lanes=2).ravel()
    >>> print(compare_words("ffn1", words, np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), lanes=2).first)
    ffn1: token 1, channel 3: got 9, expected 8
    """
    tokens, rows = expected.shape
    groups = token_groups(tokens, lanes)
    shape = (groups, rows // CHANNELS, CHANNELS, lanes)
    got = words.view(np.int8).reshape(shape)
    golden = pack_words(expected, lanes).view(np.int8).reshape(shape)
    real = (np.arange(groups)[:, None] * lanes + np.arange(lanes) < tokens)[:, None, None, :]
    wrong = (got != golden) & real
    first = None
    if wrong.any():
        # Report the first token's first channel, not the first byte in memory.
        by_token = wrong.transpose(0, 3, 1, 2)
        group, lane, column, channel = np.unravel_index(by_token.argmax(), by_token.shape)
        place = group, column, channel, lane
        first = Mismatch(layer, int(group * lanes + lane), int(column * CHANNELS + channel),
                         int(got[place]), int(golden[place]))
    return Comparison(words=groups * rows // CHANNELS, mismatches=int(wrong.any(axis=(2, 3)).sum()),
                      padding_values=(groups * lanes - tokens) * rows, first=first)


def _random_input(rng, tensor):
    x = np.clip(np.rint(rng.normal(0, 32, (tensor.tokens, tensor.channels))), -127, 127).astype(np.int8)
    extremes = rng.random(x.shape) < 0.02
    x[extremes] = rng.choice(np.array([-127, 127], np.int8), int(extremes.sum()))
    return x
