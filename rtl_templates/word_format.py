"""The one activation word: 4 channels x T tokens, int8.

Byte ``channel * T + token`` of a word is channel ``4 * column + channel`` of token
``group * T + token``, little-endian in memory. A tensor of S tokens and C channels is
``ceil(S / T)`` token groups of ``C / 4`` words, token group after token group.
"""

import numpy as np

CHANNELS = 4
"""Channels in a word, and rows and columns in a weight block."""


def word_bits(lanes: int) -> int:
    """Width of a word in bits.

    >>> word_bits(8)
    256
    """
    return 8 * CHANNELS * lanes


def token_groups(tokens: int, lanes: int) -> int:
    """Number of token groups that hold ``tokens`` tokens.

    >>> token_groups(17, 8)
    3
    """
    return -(-tokens // lanes)


def pack_words(activations, lanes):
    """Bytes of a tensor in word order.

    Parameters
    ----------
    activations : int array, shape (tokens, channels)
        -127 to 127; channels a multiple of 4. Missing tokens of the last group become 0.

    Returns
    -------
    uint8 array, shape (groups, channels / 4, 4 * lanes)

    >>> pack_words(np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), lanes=2).ravel().tolist()
    [1, 5, 2, 6, 3, 7, 4, 8]
    """
    tokens, channels = activations.shape
    if channels % CHANNELS:
        raise ValueError(f"{channels} channels do not divide into words of {CHANNELS}")
    groups = token_groups(tokens, lanes)
    padded = np.zeros((groups * lanes, channels), np.int8)
    padded[:tokens] = activations
    words = padded.reshape(groups, lanes, channels // CHANNELS, CHANNELS).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(words).view(np.uint8).reshape(groups, channels // CHANNELS, -1)


def unpack_words(words, lanes, tokens):
    """Inverse of :func:`pack_words`: int8 array of shape (tokens, channels).

    >>> unpack_words(pack_words(np.array([[1, -2, 3, -4]]), lanes=2), lanes=2, tokens=1).tolist()
    [[1, -2, 3, -4]]
    """
    groups, columns, _ = words.shape
    values = words.view(np.int8).reshape(groups, columns, CHANNELS, lanes).transpose(0, 3, 1, 2)
    return values.reshape(groups * lanes, columns * CHANNELS)[:tokens]
