"""Transposer against a transposition in NumPy, byte for byte and to the cycle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl_templates.transposer import Transposer, TransposerSpec
from rtl_templates.word_format import pack_words, unpack_words
from tests.rtl_templates.unit_testing import BufferModel, run_commands

UNTOUCHED = 0x5A


def check(spec, shapes, rng, gap=0, reset_at=None):
    """Transpose tensors of (tokens, channels), one a command; ``reset_at`` drops the first and repeats it."""
    lanes = spec.lanes
    areas, commands, tensors, address = [], [], [], int(rng.integers(5))
    areas.append(np.full((address, 4 * lanes), UNTOUCHED, np.uint8))
    for tokens, channels in shapes:
        tensor = rng.integers(-127, 128, (tokens, channels))
        groups, columns, words = -(-tokens // lanes), channels // 4, -(-tokens // 4)
        source_stride, destination_stride = columns + int(rng.integers(3)), words + int(rng.integers(3))
        source = np.full((groups, source_stride, 4 * lanes), UNTOUCHED, np.uint8)
        source[:, :columns] = pack_words(tensor, lanes)
        goal = np.full((-(-channels // lanes) * destination_stride, 4 * lanes), UNTOUCHED, np.uint8)
        source = source.reshape(-1, 4 * lanes)
        commands.append({"groups": groups, "columns": columns, "words": words, "source": address,
                         "source_stride": source_stride, "destination": address + len(source),
                         "destination_stride": destination_stride})
        address += len(source) + len(goal)
        areas += [source, goal]
        tensors.append(tensor)
    words = np.concatenate(areas)
    expected = words.copy()
    for command, tensor in zip(commands, tensors, strict=True):
        transposed = np.zeros((tensor.shape[1], 4 * command["words"]), np.int64)
        transposed[:, :len(tensor)] = tensor.T
        for group, packed in enumerate(pack_words(transposed, lanes)):
            start = command["destination"] + group * command["destination_stride"]
            expected[start:start + len(packed)] = packed
    unit = Transposer(spec)
    buffer = BufferModel(unit, words, {"read": "read_data"}, spec.read_latency)
    again = [] if reset_at is None else commands[:1]
    cycles = run_commands(unit, buffer, again + commands, gap=gap, reset_at=reset_at)
    assert cycles == [spec.cycles(command["groups"], command["columns"]) for command in commands]
    wrong = np.flatnonzero((words != expected).any(axis=1)).tolist()
    assert not wrong, f"words {wrong} differ"
    if reset_at is None:
        assert len(buffer.enabled["read"]) == sum(c["groups"] * c["columns"] for c in commands)
        assert len(buffer.written) == sum(c["words"] * -(-4 * c["columns"] // lanes) for c in commands)
    return unit, commands, tensors, words


@pytest.mark.parametrize(("lanes", "tokens", "channels"), [
    (4, 12, 8), (4, 7, 4), (8, 32, 32), (8, 21, 20), (8, 3, 4), (16, 33, 24), (12, 24, 36)])
def test_transposes(lanes, tokens, channels):
    """One head's values: whole tiles, tokens that end within a word, channels that end within a tile."""
    check(TransposerSpec(lanes=lanes, address_bits=10), [(tokens, channels)], np.random.default_rng(tokens))


def test_twice_is_the_identity():
    """The context's way back: words of 4 queries x T channels become words of 4 channels x T queries."""
    spec = TransposerSpec(lanes=8, address_bits=10)
    context = np.random.default_rng(0).integers(-127, 128, (16, 12))
    words = np.full((64, 32), UNTOUCHED, np.uint8)
    words[:6] = pack_words(context, 8).reshape(-1, 32)
    unit = Transposer(spec)
    buffer = BufferModel(unit, words, {"read": "read_data"}, spec.read_latency)
    run_commands(unit, buffer, [
        {"groups": 2, "columns": 3, "words": 4, "source": 0, "source_stride": 3, "destination": 10,
         "destination_stride": 5},
        {"groups": 2, "columns": 4, "words": 3, "source": 10, "source_stride": 5, "destination": 30,
         "destination_stride": 7}])
    back = np.stack([words[30:33], words[37:40]])
    assert (unpack_words(back, 8, 16) == context).all()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), lanes=st.sampled_from([4, 8]), latency=st.integers(1, 4),
       shapes=st.lists(st.tuples(st.integers(1, 24), st.integers(1, 6)), min_size=1, max_size=3),
       gap=st.integers(0, 2))
def test_commands_in_a_row(seed, lanes, latency, shapes, gap):
    """Any number of tiles, so that both directions are met at the start; strides wider than the rows."""
    spec = TransposerSpec(lanes=lanes, address_bits=9, read_latency=latency)
    check(spec, [(tokens, 4 * columns) for tokens, columns in shapes], np.random.default_rng(seed), gap)


@pytest.mark.parametrize("reset_at", [1, 5, 10])
def test_reset_in_the_middle_is_clean(reset_at):
    check(TransposerSpec(lanes=8, address_bits=8), [(20, 12), (8, 8)], np.random.default_rng(reset_at),
          reset_at=reset_at)


@pytest.mark.parametrize(("change", "message"), [
    ({"lanes": 6}, "multiple of 4, 4 to 64, not 6"), ({"lanes": 0}, "multiple of 4, 4 to 64, not 0"),
    ({"read_latency": 9}, "read_latency must be 1 to 8, not 9")])
def test_spec_is_checked(change, message):
    with pytest.raises(ValueError, match=message):
        TransposerSpec(**{"lanes": 8, "address_bits": 8} | change)
