"""Tasks: the generated one, rows from files, GLUE's metrics, and errors of one line."""

import codecs
import gzip
import json
import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from compressor import synthetic_task
from compressor.encoding import EncodedRows
from compressor.sampling import LengthGroupedSampler
from compressor.task_files import TaskError, read_rows, read_split
from compressor.task_metrics import compute_metrics
from compressor.tasks import TASKS, load_task
from compressor.tiny_model import build_tiny_model

ROWS = [{"sentence": 'a "quoted", tale', "label": 1, "idx": 0}, {"sentence": "dull", "label": 0, "idx": 1}]


def test_generated_rows_are_deterministic_and_balanced():
    rows = synthetic_task.generate(2000, seed=1)
    assert rows == synthetic_task.generate(2000, seed=1)
    assert rows != synthetic_task.generate(2000, seed=2)
    assert rows[0]["sentence"] == synthetic_task.generate(2000, seed=1)[0]["sentence"]
    assert 0.46 < np.mean([row["label"] for row in rows]) < 0.54
    words = set(synthetic_task.vocabulary())
    assert {word for row in rows for word in row["sentence"].split()} == words


def test_generated_labels_follow_the_rule():
    """An independent reading of the sentence gives the same label."""
    good = {"tasty", "fresh", "warm", "juicy", "friendly", "quick", "kind", "polite",
            "cheap", "fair", "modest", "sensible"}
    nouns = {"food": {"dishes", "soup", "dessert", "pasta", "bread"},
             "service": {"waiter", "staff", "host", "cook", "manager"},
             "price": {"bill", "menu", "drinks", "lunch", "wine"}}
    for row in synthetic_task.generate(500, seed=4):
        opening, clauses = row["sentence"].split(" : ")
        subject = opening.split()[1]
        clause = next(c.split() for c in clauses.split(" , ") if c.split()[0] in nouns[subject])
        negated = clause[1] in {"not", "hardly", "never", "barely"}
        assert row["label"] == ((clause[2] in good) != negated)


def test_word_counts_do_not_solve_the_generated_task():
    train, test = (synthetic_task.generate(3000, seed=seed) for seed in (1, 2))
    counter = CountVectorizer(token_pattern=r"\S+")
    features = counter.fit_transform([row["sentence"] for row in train])
    model = LogisticRegression(max_iter=300).fit(features, [row["label"] for row in train])
    found = model.score(counter.transform([row["sentence"] for row in test]),
                        [row["label"] for row in test])
    assert found < 0.68


def test_load_synthetic_task():
    data = load_task("synthetic", train_rows=50, validation_rows=20, seed=3)
    assert (len(data.train), len(data.validation["validation"])) == (50, 20)
    sentences = {row["sentence"] for row in data.train}
    assert len(sentences & {row["sentence"] for row in data.validation["validation"]}) < 3
    with pytest.raises(TaskError, match="it takes no --data"):
        load_task("synthetic", data="somewhere")


def write_rows(path, rows):
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    elif path.name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.name.endswith(".tsv"):
        path.write_text("sentence\tlabel\tidx\n"
                        + "".join(f"{row['sentence']}\t{row['label']}\t{row['idx']}\n" for row in rows))
    else:
        path.write_text("sentence,label,idx\n" + "".join(
            '"{}",{},{}\n'.format(row["sentence"].replace('"', '""'), row["label"], row["idx"])
            for row in rows))


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".tsv"])
def test_every_kind_of_file_gives_the_same_rows(ending, tmp_path):
    write_rows(tmp_path / f"train_small{ending}", ROWS)
    write_rows(tmp_path / f"validation{ending}", ROWS[:1])
    data = load_task("sst2", data=tmp_path)
    assert [(row["sentence"], row["label"]) for row in data.train] == [
        (row["sentence"], row["label"]) for row in ROWS]
    assert [len(rows) for rows in data.validation.values()] == [1]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv"])
def test_the_mark_of_spreadsheets_is_no_part_of_the_first_column(ending, tmp_path):
    for split in ("train", "validation"):
        write_rows(path := tmp_path / f"{split}{ending}", ROWS)
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert load_task("sst2", data=tmp_path).train[0]["sentence"] == ROWS[0]["sentence"]


def test_samples_are_seeded_and_in_order(tmp_path):
    rows = [{"sentence": str(i), "label": 0} for i in range(100)]
    write_rows(tmp_path / "train.jsonl", rows)
    write_rows(tmp_path / "validation.jsonl", rows)
    first = load_task("sst2", data=tmp_path, train_rows=10, validation_rows=5, seed=1)
    again = load_task("sst2", data=tmp_path, train_rows=10, validation_rows=5, seed=1)
    other = load_task("sst2", data=tmp_path, train_rows=10, seed=2)
    assert first.train == again.train != other.train
    assert [row["sentence"] for row in first.validation["validation"]] == ["0", "1", "2", "3", "4"]


def test_mnli_has_two_validation_splits(tmp_path):
    rows = [{"premise": "a", "hypothesis": "b", "label": "neutral"}]
    for name in ("train", "validation_matched", "validation_mismatched"):
        write_rows(tmp_path / f"{name}.jsonl", rows)
    data = load_task("mnli", data=tmp_path)
    assert set(data.validation) == {"validation_matched", "validation_mismatched"}
    assert data.train[0]["label"] == 1
    (tmp_path / "validation_mismatched.jsonl").unlink()
    assert set(load_task("mnli", data=tmp_path).validation) == {"validation_matched"}


@pytest.mark.parametrize(("row", "message"), [
    ({"sentence": "a", "label": 2}, r"train, row 2: label 2; labels are 0 to 1 \(negative, positive\)"),
    ({"sentence": "a", "label": -1}, "label -1"),
    ({"sentence": "a", "label": "good"}, "label 'good' is no number and none of negative, positive"),
    ({"text": "a", "label": 1}, "no field 'sentence'; it has text, label"),
    ({"sentence": "a"}, "no field 'label'"),
    ({"sentence": "a", "label": "nan"}, "label nan is not finite"),
])
def test_bad_rows_are_located(row, message, tmp_path):
    write_rows(tmp_path / "train.jsonl", [ROWS[0], row])
    write_rows(tmp_path / "validation.jsonl", ROWS)
    with pytest.raises(TaskError, match=message):
        load_task("sst2", data=tmp_path)


def test_bad_folders_and_files(tmp_path):
    with pytest.raises(TaskError, match="no such folder"):
        read_split(tmp_path / "none", "train")
    with pytest.raises(TaskError, match="no file train"):
        read_split(tmp_path, "train")
    write_rows(tmp_path / "train_a.jsonl", ROWS)
    with pytest.raises(TaskError, match="no file for any of validation"):
        load_task("sst2", data=tmp_path)
    write_rows(tmp_path / "train_b.csv", ROWS)
    with pytest.raises(TaskError, match=r"several files for split train: train_a\.jsonl, train_b\.csv"):
        read_split(tmp_path, "train")
    write_rows(tmp_path / "train.tsv", ROWS)
    assert len(read_split(tmp_path, "train")) == 2  # the exact name wins
    bad = tmp_path / "x.jsonl.gz"
    bad.write_bytes(b"no gzip")
    with pytest.raises(TaskError, match="cannot read"):
        read_rows(bad)
    bad = tmp_path / "x.jsonl"
    bad.write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(TaskError, match="line 2: not JSON"):
        read_rows(bad)
    bad.write_text("[1]\n")
    with pytest.raises(TaskError, match="a row is an object, not list"):
        read_rows(bad)
    with pytest.raises(TaskError, match="unknown kind of file"):
        read_rows(tmp_path / "x.parquet")


def test_without_rows_the_hub_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError, match=r"give --data DIR .* or install the package datasets"):
        load_task("sst2")
    with pytest.raises(TaskError, match="unknown task 'sst3'; use one of synthetic, sst2"):
        load_task("sst3")


def test_hub_rows_go_through_the_same_checks(monkeypatch):
    class FakeDatasets:
        @staticmethod
        def load_dataset(name, task):
            assert (name, task) == ("nyu-mll/glue", "sst2")
            return {"train": ROWS, "validation": ROWS[:1]}

    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets)
    assert len(load_task("sst2").train) == 2

    def fail(name, task):
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(FakeDatasets, "load_dataset", fail)
    with pytest.raises(TaskError, match=r"cannot fetch nyu-mll/glue from the hub \(no route\)"):
        load_task("sst2")


def test_metrics_by_hand():
    """2 true positives, 1 false positive, 1 false negative, 4 true negatives."""
    values = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    labels = np.array([1, 1, 0, 1, 0, 0, 0, 0])
    logits = np.eye(2)[values]
    assert compute_metrics(TASKS["mrpc"], logits, labels) == pytest.approx(
        {"f1": 2 * 2 / (2 * 2 + 1 + 1), "accuracy": 0.75})
    matthews = (2 * 4 - 1 * 1) / np.sqrt(3 * 3 * 5 * 5)
    assert compute_metrics(TASKS["cola"], logits, labels)["matthews_correlation"] == pytest.approx(matthews)
    scores = compute_metrics(TASKS["stsb"], np.array([[1.0], [2.0], [9.0]]), np.array([1.0, 2.0, 3.0]))
    assert scores["spearman"] == pytest.approx(1.0)
    assert scores["pearson"] == pytest.approx(np.corrcoef([1, 2, 9], [1, 2, 3])[0, 1])


@pytest.mark.parametrize(("predicted", "labels"), [([2.0, 2.0], [1.0, 3.0]), ([1.0, 3.0], [2.0, 2.0]),
                                                   ([1.0], [2.0])])
def test_a_correlation_with_a_constant_is_zero(predicted, labels):
    assert compute_metrics(TASKS["stsb"], predicted, labels) == {"spearman": 0, "pearson": 0}


def test_a_number_that_is_none_stays_visible():
    found = compute_metrics(TASKS["stsb"], [1.0, np.nan], [1.0, 2.0])
    assert np.isnan(list(found.values())).all()


def test_tiny_model_reads_the_task():
    data = load_task("synthetic", train_rows=200, validation_rows=10)
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=12)
    same, _ = build_tiny_model(data.task, data.train, max_tokens=12)
    assert all((a == b).all() for a, b in zip(model.parameters(), same.parameters(), strict=True))
    rows = EncodedRows(data.task, data.train, tokenizer, max_tokens=12)
    assert len(rows) == 200
    assert max(rows.lengths) == 12
    assert tokenizer.unk_token_id not in rows[0]["input_ids"]
    assert rows[0]["labels"] == data.train[0]["label"]
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.max_position_embeddings == 12


def test_row_order_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(3, 40, 1003).tolist()
    order = LengthGroupedSampler(lengths, batch=16, seed=1)
    first = list(order)
    assert sorted(first) == list(range(1003)) == list(range(len(order)))
    assert first == list(order)
    order.epoch = 1
    assert first != list(order)
    spread = [np.ptp([lengths[i] for i in first[k:k + 16]]) for k in range(0, 1003, 16)]
    assert np.mean(spread) < 4
