"""Question answering: windows of long texts, answers, metrics, a generated task from training to reload."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from compressor.cli import main
from compressor.distillation import Distiller
from compressor.model_dir import load_model_dir
from compressor.recipe_sections import Distillation
from compressor.spans import EncodedSpans, answer_f1, normalized
from compressor.task_files import TaskError
from compressor.tasks import TASKS, checked_rows, load_task
from compressor.tiny_model import build_tiny_model

SQUAD = TASKS["squad"]
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WORDS = ["the", "cook", "met", "an", "old", "friend", "near", "our", "quiet", "town", "and", "they", "ate"]


def generated_rows(count, seed, words=20):
    """A text with one day in it, and the question which day it was."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(count):
        text = rng.choice(WORDS, words).tolist()
        place = int(rng.integers(words))
        text[place] = str(rng.choice(DAYS))
        start = sum(len(word) + 1 for word in text[:place])
        rows.append({"question": "which day was it ?", "context": " ".join(text),
                     "answers": {"text": [text[place]], "answer_start": [start]}})
    return rows


def encoded(rows, max_tokens=24):
    rows = checked_rows(SQUAD, rows, "train")
    return EncodedSpans(SQUAD, rows, build_tiny_model(SQUAD, rows, max_tokens=max_tokens)[1], max_tokens)


def certain(spans, windows=None):
    """Logits that name the right tokens of these windows, or of all."""
    width = max(spans.lengths)
    found = np.full((2, len(spans), width + 3), -100.0)  # padded as transformers' Trainer does
    for window in range(len(spans)):
        if windows is None or window in windows:
            found[0, window, spans[window]["start_positions"]] = 9
            found[1, window, spans[window]["end_positions"]] = 9
    return found


def test_short_texts_are_one_window_with_the_answers_tokens():
    rows = generated_rows(30, seed=1, words=9)
    spans = encoded(rows)
    assert spans.owners == list(range(30))
    for row, window in zip(rows, range(30), strict=True):
        found = spans[window]
        start, end = (spans.places[window][found[key]] for key in ("start_positions", "end_positions"))
        assert row["context"][start[0]:end[1]] == row["answers"]["text"][0]
        assert len(found["input_ids"]) == len(found["attention_mask"]) == spans.lengths[window] == 16
        assert (spans.places[window][[0, 1, 4, 5, -1]] == -1).all()  # [CLS], question, two [SEP]
    assert spans.metrics(certain(spans)) == {"f1": 1.0, "exact_match": 1.0}


def test_long_texts_are_windows_that_overlap():
    rows = generated_rows(1, seed=2, words=40)
    spans = encoded(rows)
    text = [tuple(place) for window in range(len(spans)) for place in spans.places[window] if place[0] >= 0]
    inside = len(spans.places[0]) - 7  # [CLS] 4 words [SEP] ... [SEP]
    assert set(spans.owners) == {0}
    assert text[inside:inside + 8] == text[inside - 8:inside]  # a third of 24 tokens again
    assert len(dict.fromkeys(text)) == 40
    known = [window for window in range(len(spans)) if spans[window]["start_positions"]]
    assert known
    for window in known:
        assert spans.answers(*certain(spans, [window])) == rows[0]["answers"]["text"]
    without = next(window for window in range(len(spans)) if window not in known)
    assert (spans[without]["start_positions"], spans[without]["end_positions"]) == (0, 0)
    # A window that points at [CLS] says nothing; another one answers.
    assert spans.answers(*certain(spans)) == rows[0]["answers"]["text"]


def test_an_answer_is_a_span_of_the_text():
    row = {"question": "which ?", "context": "one two three four five", "answers": {
        "text": ["two three"], "answer_start": [4]}}
    spans = encoded([row])
    assert (spans[0]["start_positions"], spans[0]["end_positions"]) == (5, 6)
    start, end = np.zeros((2, 1, 11))
    start[0, [1, 6, 8]] = 9, 5, 4  # the question scores best, but is no answer
    end[0, [1, 5, 7]] = 9, 5, 4  # an end before its start neither
    assert spans.answers(start, end) == ["three four"]
    assert spans.metrics((start, end)) == {"f1": 0.5, "exact_match": 0.0}
    long = dict(row, context=" ".join(["two three", *["word"] * 60, "end"]), answers={
        "text": ["end"], "answer_start": [310]})
    spans = encoded([long], max_tokens=96)
    start, end = np.zeros((2, 1, 96))
    start[0, 4], end[0, 66], end[0, 10] = 9, 9, 1  # 63 tokens are no answer
    assert spans.answers(start, end) == ["two three word word word word word"]


def test_answers_are_compared_as_squad_does():
    assert normalized(" The U.S.-based  an-swer, A ") == "usbased answer"
    assert answer_f1("the cat sat", "A cat sat down") == pytest.approx(2 * 2 / (2 + 3))
    assert answer_f1("a a dog dog", "dog") == pytest.approx(2 / 3)
    assert answer_f1("", "dog") == answer_f1("cat", "dog") == 0
    row = {"question": "q", "context": "the red cat", "answers": {"text": ["red", "The Red Cat"],
                                                                  "answer_start": [4, 0]}}
    spans = encoded([row])
    start, end = np.zeros((2, 1, 9))
    start[0, 3], end[0, 5] = 1, 1
    assert spans.answers(start, end) == ["the red cat"]
    assert spans.metrics((start, end)) == {"f1": 1.0, "exact_match": 1.0}  # the best of the given answers
    end[0, 4] = 2
    assert spans.metrics((start, end)) == {"f1": 1.0, "exact_match": 1.0}  # "the red" is "red"


@pytest.mark.parametrize(("changes", "message"), [
    ({"answers": None}, "field 'answers' is empty"),
    ({"answers": {"text": []}}, r"answers must be \{text"),
    ({"answers": {"text": [], "answer_start": []}}, r"questions without an answer \(SQuAD 2.0\)"),
    ({"answers": {"text": ["two"], "answer_start": [5]}}, "the answer 'two' is not at character 5 of the"),
])
def test_bad_rows_are_located(changes, message):
    row = {"question": "q", "context": "one two", "answers": {"text": ["two"], "answer_start": [4]}}
    assert checked_rows(SQUAD, [row], "train") == [row]
    with pytest.raises(TaskError, match=f"task squad, train, row 2: .*{message}"):
        checked_rows(SQUAD, [row, row | changes], "train")
    with pytest.raises(TaskError, match="max_tokens is 23; questions and texts need 24 or more"):
        encoded([row], max_tokens=23)


RECIPE = """
schema_version: 1
pool: {size: 24}
training: {learning_rate: 2.0e-3, batch: 16, max_tokens: 32}
stages:
  - {method: dense, epochs: 4}
  - {method: admm, epochs: 1, interval: 6, coupling: decoupled, rho: 0.1}
  - {method: retrain, epochs: 3}
distillation: {labels: 0.5, logits: 0.5, hidden: 0.5, attention: 0}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run, made by the command."""
    folder = tmp_path_factory.mktemp("squad")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "data").mkdir()
    for split, count, seed in (("train", 400, 1), ("validation", 60, 2)):
        (folder / "data" / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in generated_rows(count, seed)))
    result = CliRunner().invoke(main, [
        "train", str(folder / "recipe.yaml"), "--model", "tiny", "--task", "squad", "--data",
        str(folder / "data"), "--out", str(folder / "out")])
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_a_generated_task_is_learned_pruned_and_reloaded(trained):
    folder, output = trained
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    assert metrics["eval_exact_match"] > 0.9  # a fixed day is right once in seven, a fixed place once in 20
    assert f"f1: {metrics['eval_f1']:.4f}" in output
    assert metrics["nonzero_weights"] / metrics["encoder_weights"] == 0.5
    model, tokenizer, info = load_model_dir(folder / "out")
    assert info.task == TASKS["squad"]
    plain = AutoModelForQuestionAnswering.from_pretrained(folder / "out")
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), plain.parameters(),
                                                             strict=True))
    data = load_task("squad", data=folder / "data")
    spans = EncodedSpans(SQUAD, data.validation["validation"], AutoTokenizer.from_pretrained(folder / "out"),
                         info.max_tokens)
    batch = tokenizer.pad([spans[window] for window in range(len(spans))], return_tensors="pt")
    with torch.no_grad():
        outputs = plain(**batch)
    found = spans.metrics((outputs.start_logits.numpy(), outputs.end_logits.numpy()))
    assert found["exact_match"] == metrics["eval_exact_match"]


def test_a_span_teacher_teaches_starts_and_ends_of_real_tokens():
    rows = checked_rows(SQUAD, generated_rows(4, seed=1, words=9), "train")
    student, _ = build_tiny_model(SQUAD, rows, max_tokens=24)
    teacher, tokenizer = build_tiny_model(SQUAD, rows, max_tokens=24, seed=1)
    spans = EncodedSpans(SQUAD, rows, tokenizer, 24)
    batch = dict(tokenizer.pad([spans[window] for window in range(4)], return_tensors="pt"))
    section = Distillation(labels=0, logits=1, temperature=3, hidden=0, attention=0)
    loss = Distiller(teacher, student, section).loss(student(**batch), batch)
    mine, other = student(**batch), teacher(**batch)
    wanted = 0.0
    for name in ("start_logits", "end_logits"):
        own, target = (torch.log_softmax(outputs[name] / 3, dim=-1) for outputs in (mine, other))
        wanted += 9 * (target.exp() * (target - own)).sum(dim=-1).mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    padded = {name: torch.nn.functional.pad(value, (0, 3)) if value.dim() == 2 else value
              for name, value in batch.items()}
    same = Distiller(teacher, student, section).loss(student(**padded), padded)
    assert same.item() == pytest.approx(loss.item(), rel=1e-5)


def test_compress_sensitivity_takes_spans(trained):
    folder, _ = trained
    result = CliRunner().invoke(main, ["sensitivity", str(folder / "recipe.yaml"), "--model",
                                       str(folder / "out"), "--task", "squad", "--data",
                                       str(folder / "data")])
    assert result.exit_code == 0, result.output
    assert "loss of the whole model: " in result.output


def test_export_refuses_spans_in_one_line(trained):
    folder, _ = trained
    result = CliRunner().invoke(main, ["export", str(folder / "out"), "--data", str(folder / "data"), "-o",
                                       str(folder / "pruned.pt")])
    assert result.exit_code == 1
    assert "answers spans of a text (task squad); bundles hold classifiers and regressions" in result.output
    assert not (folder / "pruned.pt").exists()
