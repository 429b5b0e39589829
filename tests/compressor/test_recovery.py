"""Recovery on plain text: files, the run, exact resume, a task on top of it; dry runs and comparisons."""

import gzip
import json
import re

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForSequenceClassification, BertModel

from compressor.cli import main
from compressor.model_dir import check_model, read_compression
from compressor.recipes import Recipe
from compressor.structures import NM
from compressor.targets import target_layers
from compressor.task_files import TaskError
from compressor.tasks import load_task
from compressor.text_data import TEXT, load_text, read_sentences
from compressor.tiny_model import build_tiny_model
from compressor.training_run import build_trainer
from tests.compressor.test_trainer import StopAfter

RECOVER = """
schema_version: 1
structure: {kind: nm, score: activation}
training: {learning_rate: 2.0e-3, batch: 16, max_tokens: 24}
distillation: {logits: 0, hidden: 1.0, attention: 1.0}
stages:
  - {method: admm, epochs: 1, interval: 5}
  - {method: retrain, epochs: 3}
"""
TASK = """
schema_version: 1
structure: {kind: model}
training: {learning_rate: 1.0e-3, batch: 16, max_tokens: 24}
stages:
  - {method: retrain, epochs: 1}
"""


@pytest.fixture(scope="module")
def sentences():
    return [row["sentence"] for row in load_task("synthetic", train_rows=300).train]


@pytest.fixture
def files(sentences, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(sentences))
    (tmp_path / "recover.yaml").write_text(RECOVER)
    (tmp_path / "task.yaml").write_text(TASK)
    return tmp_path


def compress(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def recover(files, out, *changes):
    return compress("recover", files / "recover.yaml", "--model", "tiny", "--text", files / "text.txt",
                    "--out", out, *changes)


def test_sentences_of_every_kind_of_file(tmp_path):
    rows = [{"sentence1": "one", "sentence2": "two", "label": 1}, {"text": " three "}, {"idx": 4}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_sentences(tmp_path / "rows.jsonl") == ["one", "two", "three"]
    with gzip.open(tmp_path / "lines.txt.gz", "wt", encoding="utf-8") as file:
        file.write("one\n\n  vier\n")
    assert read_sentences(tmp_path / "lines.txt.gz") == ["one", "vier"]
    data = load_text([tmp_path / "rows.jsonl", tmp_path / "lines.txt.gz"], seed=3)
    found = [row["sentence"] for row in (*data.train, *data.validation["validation"])]
    assert sorted(found) == ["one", "three", "two", "vier"]  # "one" once
    assert len(data.validation["validation"]) == 1
    assert load_text([tmp_path / "rows.jsonl"], rows=2).train == load_text(
        [tmp_path / "rows.jsonl"], rows=2).train

    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "one.txt").write_text("one\none\n")
    (tmp_path / "odd.jsonl").write_text('{"idx": 4}\n')
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xfa")
    for name, message in [("empty.txt", "no sentences$"), ("odd.jsonl", "a row needs one of the fields text"),
                          ("bad.txt", "cannot read"), ("none.txt", "cannot read"), ("a.pdf", "use .txt, "),
                          ("one.txt", "1 different sentences; at least 2 are needed")]:
        with pytest.raises(TaskError, match=message):
            load_text([tmp_path / name])


def test_recovery_and_a_task_on_top_of_it(files):
    result = recover(files, files / "encoder")
    assert result.exit_code == 0, result.output
    assert "hidden error: 0." in result.output
    assert "structure: 2:4 along the inputs; stored as nm" in result.output
    log = [json.loads(line) for line in (files / "encoder" / "train_log.jsonl").read_text().splitlines()]
    errors = [record["eval_hidden_error"] for record in log if "eval_hidden_error" in record]
    assert errors[-1] < 0.6 * errors[0]  # of the projection after ADMM, and at the end
    encoder = BertModel.from_pretrained(files / "encoder")
    info = read_compression(files / "encoder")
    assert (info.task, info.structure) == (TEXT, NM())
    check_model(encoder, info)

    data = files / "data"
    data.mkdir()
    rows = load_task("synthetic", train_rows=48).train
    for split in ("train", "validation"):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = compress("train", files / "task.yaml", "--model", files / "encoder", "--task", "sst2", "--data",
                      data, "--out", files / "task")
    assert result.exit_code == 0, result.output
    model = AutoModelForSequenceClassification.from_pretrained(files / "task")
    check_model(model, read_compression(files / "task"))
    for name, target in target_layers(encoder).items():
        trained = target_layers(model)[name].module.weight
        assert torch.equal(target.module.weight == 0, trained == 0), name


def test_the_teacher_is_the_model_as_it_came(files, sentences, tmp_path):
    data = load_text([files / "text.txt"])
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    encoder = model.base_model
    dense = {name: value.clone() for name, value in encoder.state_dict().items()}
    trainer = build_trainer(encoder, tokenizer, Recipe.from_yaml(files / "recover.yaml"), data,
                            tmp_path / "out", use_cpu=True)
    StopAfter(trainer, 3)
    trainer.train()
    for name, value in trainer.distiller.teacher.state_dict().items():
        assert torch.equal(value, dense[name]), name
    before = trainer.distiller.report()
    metrics = trainer.evaluate()  # leaves the training window alone
    assert metrics["eval_hidden_error"] > metrics["eval_dense_hidden_error"]
    assert before.keys() == {"hidden", "attention", "hidden_error"}
    assert trainer.distiller.report() == {}


def test_layers_are_reconstructed_one_after_the_other(files, tmp_path):
    """Only one layer's parameters move at a time, towards the teacher; recovery then starts nearer."""
    data = load_text([files / "text.txt"], rows=160)
    recipe = Recipe.from_dict(Recipe.from_yaml(files / "recover.yaml").to_dict() | {
        "stages": [{"method": "reconstruct", "epochs": 3}]})
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    trainer = build_trainer(model.base_model, tokenizer, recipe, data, tmp_path / "out", use_cpu=True)
    moved, inner = [], trainer.stages.after_optimizer_step
    before = {}

    def after_step(*args):
        inner(*args)
        now = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        if before:
            moved.append({name.split(".")[2] if name.startswith("encoder.layer") else "rest"
                          for name, value in now.items() if not torch.equal(value, before[name])})
        before.update(now)

    trainer.stages.after_optimizer_step = after_step
    trainer.train()
    half = trainer.schedule.steps // 2
    assert moved[:half - 1] == [{"0"}] * (half - 1)
    assert moved[half:] == [{"1"}] * len(moved[half:])
    found = trainer.evaluate()["eval_hidden_error"]
    model, _ = build_tiny_model(data.task, data.train, max_tokens=24)
    other = build_trainer(model.base_model, tokenizer, recipe, data, tmp_path / "other", use_cpu=True)
    other.keep_teacher()
    other.stages.enter(recipe.stages[0])
    assert found < 0.8 * other.evaluate()["eval_hidden_error"]


def test_interrupted_recovery_equals_uninterrupted(files, tmp_path):
    data = load_text([files / "text.txt"], rows=100)
    recipe = Recipe.from_yaml(files / "recover.yaml")
    found = []
    for name, stops in (("whole", ()), ("parts", (1, 6, 9))):
        for step in (*stops, 24):
            model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
            trainer = build_trainer(model.base_model, tokenizer, recipe, data, tmp_path / name, use_cpu=True)
            assert trainer.schedule.steps == 24
            StopAfter(trainer, step)
            resumed = step != (*stops, 24)[0]
            trainer.train(resume_from_checkpoint=True if resumed else None)
            assert trainer.state.global_step == step
        found.append((trainer.model.state_dict(), trainer.final_metrics()))
    assert found[0][1] == found[1][1]
    assert all(torch.equal(value, found[1][0][name]) for name, value in found[0][0].items())


@pytest.mark.parametrize(("change", "message"), [
    (("logits: 0", "logits: 1"), "the recipe needs distillation with logits: 0 and hidden or attention "
                                 "above 0"),
    (("distillation: {logits: 0, hidden: 1.0, attention: 1.0}\n", ""), "the recipe needs distillation"),
    (("method: admm, epochs: 1, interval: 5", "method: dense, epochs: 1"),
     "recovery has no labels to train a dense stage on"),
    (("method: retrain, epochs: 3", "method: quantize, epochs: 1"),
     "whose training changes every scale; remove the stage quantize"),
])
def test_recipes_that_cannot_recover(change, message, files):
    (files / "recover.yaml").write_text(RECOVER.replace(*change))
    result = recover(files, files / "out")
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1


def test_dry_run_prints_the_plan_and_writes_nothing(files):
    before = set(files.iterdir())
    result = recover(files, files / "out", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "270 training rows, 17 steps an epoch"
    assert lines[1] == "stage admm: 1 epochs, 17 steps, peak rate 0.002; ADMM interval every 5 steps, "\
        "rates add up to 0.018 of 0.1 needed"
    assert lines[2] == "stage retrain: 3 epochs, 51 steps, peak rate 0.002"
    assert "pruned weights: 98,304 of 98,304 in the encoder" in result.output
    assert "int8 storage with indices: 1/1.60 of dense int8" in result.output
    assert re.search(r"memory of a process: \d+ MiB for .*; about \d+ MiB more for act", result.output)
    assert "warning: stage admm: 17 steps hold 3 ADMM intervals" in result.output
    result = compress("train", "demo", "--model", "tiny", "--task", "synthetic", "--train-rows", "320",
                      "--dry-run")
    assert "stage admm: 2 epochs, 20 steps" in result.output
    assert "1/1.86 of dense int8" in result.output
    assert set(files.iterdir()) == before
    result = compress("train", "demo", "--model", "tiny", "--task", "synthetic")
    assert result.exit_code == 2
    assert "Missing option '--out'; only --dry-run goes without." in result.output


def test_compare_puts_runs_side_by_side(files):
    recipe = files / "task.yaml"
    for name, text in (("dense", TASK.replace("retrain", "dense").replace("model", "pattern")),
                       ("half", TASK.replace("model", "nm"))):
        recipe.write_text(text)
        result = compress("train", recipe, "--model", "tiny", "--task", "synthetic", "--train-rows", "32",
                          "--validation-rows", "16", "--out", files / name)
        assert result.exit_code == 0, result.output
    result = compress("compare", files / "dense", files / "half")
    lines = result.output.splitlines()
    assert lines[0] == "| run | task | structure | method | kept | int8 storage | seed | accuracy |"
    assert lines[2].startswith("| dense | synthetic | dense | dense | 100.0 % | 1.000 | 0 | 0.")
    half = "| half | synthetic | 2:4 along the inputs | retrain | 50.0 % | 0.625 | 0 | 0."
    assert lines[3].startswith(half)
    rows = json.loads(compress("compare", files / "half", "--json").output)
    metrics = json.loads((files / "half" / "metrics.json").read_text())
    assert rows[0]["metrics"]["accuracy"] == metrics["eval_accuracy"]
    (files / "half" / "metrics.json").write_text("{}")
    for folder, message in ((files, "no compression.json"), (files / "half", "metrics.json: cannot be read")):
        result = compress("compare", folder)
        assert result.exit_code == 1
        assert message in result.output
        assert result.output.count("\n") == 1
