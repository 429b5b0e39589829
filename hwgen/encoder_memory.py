"""Input and output memory of an encoder's run: sequences one after another, in word order."""

from typing import Any

import numpy as np
import numpy.typing as npt

from hwgen.encoder_program import EncoderProgram
from hwgen.program import TENSOR_ALIGNMENT, Program
from rtl_templates.word_format import pack_words, unpack_words


def strides(program: Program) -> tuple[int, int]:
    """Bytes from a sequence's input to the next one's, and from a sequence's output to the next one's."""
    incoming, outgoing = (-(-size // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT
                          for size in (program.input_bytes, program.output_bytes))
    return incoming, outgoing


def input_memory(program: EncoderProgram, x: npt.NDArray[Any], lanes: int) -> npt.NDArray[np.uint8]:
    """Input memory of sequences: uint8 array, shape (sequences, input stride).

    Parameters
    ----------
    program : hwgen.encoder_program.EncoderProgram
    x : int8 array, shape (sequences, tokens, hidden)
        Up to the program's tokens; missing ones are 0.
    lanes : int
    """
    source = program.inputs[0]
    memory = np.zeros((len(x), strides(program)[0]), np.uint8)
    padded = np.zeros((source.tokens, source.channels), np.int8)
    for sequence, values in zip(memory, x, strict=True):
        padded[:], padded[:len(values)] = 0, values
        sequence[:program.input_bytes] = pack_words(padded, lanes).ravel()
    return memory


def output_states(program: EncoderProgram, memory: npt.NDArray[np.uint8],
                  lanes: int) -> npt.NDArray[np.int64]:
    """Last hidden states in output memory.

    Parameters
    ----------
    program : hwgen.encoder_program.EncoderProgram
    memory : uint8 array, shape (sequences, output stride)
    lanes : int

    Returns
    -------
    int64 array, shape (sequences, tokens, hidden)
    """
    last = program.outputs[-1]
    words = np.ascontiguousarray(memory[:, last.offset:last.offset + last.bytes])
    shape = -1, last.channels // 4, 4 * lanes
    return np.stack([unpack_words(one.reshape(shape), lanes, last.tokens) for one in words]).astype(np.int64)
