"""The Verilog of a whole encoder: every word of every layer, and the task's accuracy."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from compressor import synthetic_task
from compressor.model_export import export_model
from compressor.pools import build_pool
from compressor.structures import Pattern
from compressor.task_files import TaskError
from hwgen.cli import main
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from rtl_templates.array_spec import PoolStorage
from sim.encoder_run import EncoderBench, EncoderRequest, simulate_encoder
from sim.evaluation import evaluate_build
from sim.harness import MemoryTiming
from sim.open_build import open_build
from tests.compressor.test_export import ROWS, TASK, make_model_dir
from tests.sim.encoder_campaign import run_build


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A build of a small classifier for 16 tokens."""
    folder = tmp_path_factory.mktemp("encoder")
    return build_classifier(folder, "bert")


def build_classifier(folder, architecture):
    """Weights, pool and program are loaded at run time, so that models of one shape share their Verilog."""
    make_model_dir(folder / "model", Pattern(build_pool("reed_muller")), architecture)
    export_model(folder / "model", folder / "pruned.pt", task=TASK, rows=ROWS[:16])
    build(folder / "pruned.pt", folder / "build",
          PlanRequest(rows=2, lanes=8, tokens=16, storage=PoolStorage.RAM))
    return open_build(folder / "build")


@pytest.mark.parametrize(("tokens", "stalls"), [(None, 0), (11, 0), (None, 5)])
def test_every_word_of_every_layer(built, tokens, stalls):
    result = simulate_encoder(built, EncoderRequest(
        limit=3, tokens=tokens, every_layer=True, sequences=2, timing=MemoryTiming(stalls=stalls)))
    assert result.passed, result.first_mismatch
    runs = 2 if stalls else 1  # with the nominal memory, and under random waits
    assert result.words == runs * 3 * 2 * 2 * 16  # sequences, layers, token groups, words of 64 channels
    assert sum(result.breakdown.values()) == result.cycles == result.predicted_cycles
    assert (result.stalled_cycles is not None) == bool(stalls)
    assert 0 < result.utilization < 1


@pytest.mark.parametrize(("tokens", "stalls"), [(16, 0), (1, 3), (2, 0), (13, 4)])
def test_any_length_and_any_input(built, tokens, stalls):
    """A slice of the campaign: lengths 0 to all, extreme inputs, random waits."""
    totals = run_build(built, seed=tokens, tokens=tokens, sequences=7, stalls=stalls)
    assert totals.words == 7 * 2 * -(-tokens // 8) * 16
    assert (totals.mismatches, totals.unpredicted) == (0, 0), totals


def test_rows_of_the_task(built, tmp_path):
    rows = synthetic_task.generate(6, seed=9)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = CliRunner().invoke(main, ["eval", str(built.directory), "--data", str(data), "--limit", "6",
                                       "--sequences", "4", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["rows"] == 6
    assert found["word_mismatches"] == found["prediction_mismatches"] == 0
    assert found["metric"] == "accuracy"
    assert found["metrics"]["rtl"] == found["metrics"]["fake_quantized"] == found["metrics"]["golden"]
    assert 0 <= found["metrics"]["float"]["accuracy"] <= 1


def test_a_task_of_numbers_is_scored(built, tmp_path):
    """The same encoder under a head of one output, on a task with GLUE's metrics of STS-B."""
    bundle = built.bundle
    head = {name: bundle.host["state_dict"][name][:1] for name in ("classifier.weight", "classifier.bias")}
    config = {**bundle.model["config"], "id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0},
              "problem_type": "regression"}
    numbers = replace(
        bundle, host={**bundle.host, "state_dict": {**bundle.host["state_dict"], **head}},
        model={**bundle.model, "config": config, "task": "grades", "labels": [],
               "metrics": ["spearman", "pearson"]})
    data = tmp_path / "rows.jsonl"
    rows = [row | {"label": len(row["sentence"]) / 7} for row in synthetic_task.generate(5, seed=9)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = evaluate_build(replace(built, bundle=numbers), data)
    assert found.passed
    assert found.metric == "spearman"
    assert found.metrics["rtl"] == found.metrics["golden"]
    assert found.metrics["rtl"] == pytest.approx(found.metrics["fake_quantized"], abs=1e-4)
    with pytest.raises(TaskError, match="task is 'text', which predicts neither classes nor numbers"):
        evaluate_build(replace(built, bundle=replace(numbers, model={
            **numbers.model, "task": "text", "metrics": []})), data)


@pytest.mark.parametrize("architecture", ["distilbert", "roberta"])
def test_rows_of_the_task_in_other_architectures(architecture, built, tmp_path):
    """Models of the same shape run on the same Verilog."""
    other = build_classifier(tmp_path, architecture)
    assert other.verilog.read_bytes() == built.verilog.read_bytes()
    with EncoderBench(built) as bench:  # compiled once: the Verilog is the same
        executable = bench.executable
    (other.directory / "sim").mkdir()
    shutil.copy2(executable, other.directory / "sim")
    result = CliRunner().invoke(main, ["eval", str(tmp_path / "build"), "--data", "synthetic", "--limit", "4",
                                       "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["words"] == 4 * 2 * 16  # rows, token groups, words of 64 channels
    assert found["word_mismatches"] == found["prediction_mismatches"] == 0


def test_wrong_weights_are_found(built, tmp_path):
    shutil.copytree(built.directory, tmp_path / "build")
    weights = tmp_path / "build" / "weights" / "weights.bin"
    raw = np.fromfile(weights, np.uint8)
    raw[-200] ^= 0x55  # a weight of the last tile
    raw.tofile(weights)
    result = evaluate_build(open_build(tmp_path / "build"), "synthetic", limit=1)
    assert result.word_mismatches > 0
    assert not result.passed


def test_a_shorter_valid_length_changes_the_result(built):
    x = np.random.default_rng(4).integers(-90, 90, (2, 16, 64)).astype(np.int8)
    x[1] = x[0]
    with EncoderBench(built) as bench:
        output = bench.run(x, np.array([16, 9]))
        comparisons = [one for _, one in bench.compare(output, x, np.array([16, 9]))]
    assert not any(one.mismatches for one in comparisons)
    assert (output.hidden[0, :9] != output.hidden[1, :9]).any()
