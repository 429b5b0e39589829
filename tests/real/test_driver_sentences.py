"""The Python driver on the generated Verilog, with a real model and real sentences.

Needs an exported bundle of a whole encoder and labelled sentences, which are no part of this project: a
folder with ``pruned.pt`` and ``validation.jsonl.gz`` in the variable REAL_MODEL. Minutes for MiniLM::

    REAL_MODEL=FOLDER pytest tests/real/test_driver_sentences.py
"""

import os
from pathlib import Path

import numpy as np
import pytest

from compressor.bundle import load_bundle
from compressor.golden_model import GoldenModel
from compressor.reload import encode, to_tokenizer
from compressor.task_files import read_rows
from hwgen.driver import Accelerator
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from sim.simulated_device import SimulatedDevice

SENTENCES, TOKENS = 6, 32


@pytest.fixture(scope="module")
def folder():
    if "REAL_MODEL" not in os.environ:
        pytest.skip("REAL_MODEL names no folder with pruned.pt and validation.jsonl.gz")
    return Path(os.environ["REAL_MODEL"]).absolute()


def test_predictions_on_real_sentences_are_the_golden_models(folder, tmp_path):
    model = folder / "pruned.pt"
    build(model, tmp_path / "build", PlanRequest(rows=4, lanes=8, tokens=TOKENS))
    rows = read_rows(folder / "validation.jsonl.gz")[:SENTENCES]
    sentences, labels = [row["sentence"] for row in rows], np.array([row["label"] for row in rows])
    bundle = load_bundle(model)
    golden = GoldenModel.of(bundle)
    batches = encode(to_tokenizer(bundle), sentences, TOKENS)
    expected = np.concatenate([golden.logits(batch) for batch in batches])
    device = SimulatedDevice(tmp_path / "build")
    with Accelerator(tmp_path / "build", device, batch=4) as accelerator:
        found = accelerator.load(model).predict(sentences, truncate=True)
        cycles = accelerator.counters()["cycles"]
    print(f"{(found.labels == labels).sum()} of {SENTENCES} right, {cycles:,} cycles in the last run")
    assert np.array_equal(found.logits, expected)
    assert len(set(found.labels.tolist())) == 2, "sentences of one class would not show a stuck output"
