"""Comparison of output words: what it must see, and what it must leave out."""

import numpy as np
import pytest

from hwgen.program import Program, Tensor
from rtl_templates.word_format import pack_words
from sim.case import BenchCase
from sim.vectors import LayerVectors, compare_words, pack_inputs, random_vectors
from tests.bundles import random_bundle

LANES = 4
GOLDEN = np.random.default_rng(0).integers(-127, 128, (10, 12)).astype(np.int8)


def packed():
    return pack_words(GOLDEN, LANES).ravel()


def test_equal_words():
    result = compare_words("ffn1", packed(), GOLDEN, LANES)
    assert (result.words, result.mismatches, result.padding_values, result.first) == (9, 0, 24, None)


@pytest.mark.parametrize("byte", range(0, 9 * 16, 5))
def test_any_wrong_byte_is_seen_unless_its_lane_is_padding(byte):
    words = packed()
    words[byte] ^= 1
    group, column, channel, lane = np.unravel_index(byte, (3, 3, 4, LANES))
    result = compare_words("ffn1", words, GOLDEN, LANES)
    token = group * LANES + lane
    assert result.mismatches == (token < 10)
    if token < 10:
        assert (result.first.token, result.first.channel) == (token, 4 * column + channel)
        assert result.first.expected == GOLDEN[token, 4 * column + channel]


def test_words_never_written_are_mismatches():
    result = compare_words("ffn1", np.full(9 * 16, 0x80, np.uint8), GOLDEN, LANES)
    assert result.mismatches == result.words
    assert str(result.first) == f"ffn1: token 0, channel 0: got nothing, expected {GOLDEN[0, 0]}"


def test_first_mismatch_is_the_first_token_not_the_first_byte():
    words = packed().reshape(3, 3, 4, LANES)
    words[0, 0, 0, 3] ^= 1
    words[0, 2, 1, 1] ^= 1
    first = compare_words("ffn1", words.ravel(), GOLDEN, LANES).first
    assert (first.token, first.channel) == (1, 9)


def test_chained_layers_read_each_other():
    bundle = random_bundle(hidden=16, layers=1, heads=2, ffn=32)
    ffn1, ffn2 = list(bundle.layers)[-2:]
    program = Program(descriptors=(), layers=(ffn1, ffn2), sources={ffn1: None, ffn2: ffn1},
                      inputs=(Tensor(name=ffn1, offset=0, bytes=64, tokens=3, channels=16),),
                      outputs=(), tokens=3, buffer_words=0)
    vectors = random_vectors(bundle, program, seed=3)
    assert (vectors[ffn2].x == vectors[ffn1].y).all()
    assert (vectors[ffn2].y == bundle.layers[ffn2].linear.compute(vectors[ffn1].y)).all()
    assert (pack_inputs(program, vectors, LANES) == pack_words(vectors[ffn1].x, LANES).ravel()).all()


def test_input_of_the_wrong_length_is_refused():
    tensor = Tensor(name="q", offset=0, bytes=64, tokens=3, channels=16)
    program = Program(descriptors=(), layers=("q",), sources={"q": None}, inputs=(tensor,), outputs=(),
                      tokens=3, buffer_words=0)
    vectors = {"q": LayerVectors(np.zeros((5, 16), np.int8), np.zeros((5, 16), np.int8))}
    with pytest.raises(ValueError, match="q: 5 tokens pack into 128 bytes; the program loads 64"):
        pack_inputs(program, vectors, LANES)


def test_case_file_keeps_everything(tmp_path):
    case = BenchCase(program=np.arange(32, dtype=np.uint8), weights=np.zeros(16, np.uint8),
                     input=np.ones(8, np.uint8), pool=np.zeros(0, np.uint8), weights_beats=4, lanes=LANES,
                     max_cycles=99, configuration=0xFFFFFFFF,
                     outputs={"q": (0, GOLDEN), "k": (4096, GOLDEN + 1)})
    case.save(tmp_path / "case.npz")
    loaded = BenchCase.load(tmp_path / "case.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["case.npz"]
    assert (loaded.program == case.program).all()
    assert (loaded.configuration, loaded.output_bytes) == (0xFFFFFFFF, 8192)
    assert list(loaded.outputs) == ["q", "k"]
    assert (loaded.outputs["k"][1] == GOLDEN + 1).all()
