"""A small slice of the proof table: the four columns agree, and each of them can differ."""

from dataclasses import replace

from benchmarks import proof_table
from benchmarks.proof_table import Row, compare_encoder, compare_linear_layers
from compressor.fake_encoder import FakeEncoder
from tests.bundles import random_encoder_bundle


def test_linear_layers_agree(tiny_encoder):
    found = compare_linear_layers(tiny_encoder, stalls=1)
    assert found == 4 * ((2 * 6 * 2, 0),)  # 2 token groups, 6 layers, 2 words of 4 channels
    assert Row("tiny", "pattern", "linear layers", found).passed


def test_encoders_agree(tiny_encoder):
    assert compare_encoder(tiny_encoder, sequences=3, stalls=2) == 4 * ((3 * 2 * 2, 0),)


def test_every_column_can_differ(tiny_encoder, monkeypatch):
    """All four run the build's model; the golden values are those of other weights."""
    twin = FakeEncoder.of(tiny_encoder.bundle.encoder)
    monkeypatch.setattr(proof_table, "FakeEncoder", type("Twin", (), {"of": staticmethod(lambda _: twin)}))
    other = random_encoder_bundle(hidden=8, layers=1, heads=2, ffn=8, max_tokens=5, seed=1)
    found = compare_encoder(replace(tiny_encoder, bundle=other))
    assert [words for words, _ in found] == 4 * [4]
    assert all(wrong for _, wrong in found)
    assert not Row("tiny", "pattern", "encoder", found).passed


def test_the_page_has_a_table_a_model():
    rows = [Row("a model", "dense", "6 layers", 4 * ((5, 0),)), Row("b", "2:4", "encoder", 4 * ((7, 1),))]
    text = proof_table.page(rows)
    assert "## A model\n\n| structure | what ran | HLS C++ (g++) | Verilog (cocotb) |" in text
    assert "| 2:4 | encoder | 7 / 1 | 7 / 1 | 7 / 1 | 7 / 1 |" in text
    assert text.endswith("All columns together: 48 words compared, 4 mismatches.\n")
    assert [row.passed for row in rows] == [True, False]
