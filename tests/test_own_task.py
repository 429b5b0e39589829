"""A task of one's own, from its YAML file through training and export to the rows that hardware is given."""

import json

import pytest
from click.testing import CliRunner

from compressor.bundle import load_bundle
from compressor.cli import main as compressor_cli
from compressor.model_dir import read_compression
from compressor.task_definition import Task, read_task
from compressor.task_files import TaskError
from compressor.task_metrics import compute_metrics
from compressor.tasks import load_task
from hwgen.cli import main as hwgen_cli
from sim.sentences import read_sentences, task_of

TOPICS = """\
name: topics
fields: [title, text]
labels: [world, sports, business]
metrics: [macro_f1, accuracy]
"""
WORDS = {"world": "treaty minister", "sports": "goal coach", "business": "shares profit"}


def write_task(folder, text=TOPICS):
    path = folder / "topics.yaml"
    path.write_text(text)
    return path


def write_rows(folder):
    """Labels by name in one file, by number in the other."""
    folder.mkdir()
    for name, rows, label in (("train.jsonl", 24, str), ("validation.jsonl", 6, list(WORDS).index)):
        lines = [{"title": words.split()[0], "text": words, "label": label(topic), "more": number}
                 for number, (topic, words) in zip(range(rows), list(WORDS.items()) * rows, strict=False)]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def run(command, *arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_file_gives_the_task(tmp_path):
    assert read_task(write_task(tmp_path)) == Task(
        name="topics", fields=("title", "text"), labels=("world", "sports", "business"),
        metrics=("macro_f1", "accuracy"))
    path = write_task(tmp_path, "name: topics\nfields: [text]\nlabels: [a, b]\n")
    assert read_task(path).metrics == ("accuracy",)
    path = write_task(tmp_path, "name: stars\nfields: [text]\n")
    assert (read_task(path).metrics, read_task(path).labels) == (("spearman",), ())


@pytest.mark.parametrize(("change", "message"), [
    (("name: topics", "name: sst2"), r"topics\.yaml: name: sst2 is a task that is known already; choose"),
    (("name: topics", "name: My Task"), r"topics\.yaml: name: String should match pattern .*, not 'My Task'"),
    (("name: topics\n", ""), r"topics\.yaml: name: this key is required"),
    (("title, text", ""), r"topics\.yaml: fields: Tuple should have at least 1 item"),
    (("title, text", "a, b, c"), r"topics\.yaml: fields: Tuple should have at most 2 items"),
    (("title, text", "text, text"), r"topics\.yaml: fields: text, text has a name twice"),
    (("world, sports, business", "world"), r"labels: one class is nothing to tell; give two or more"),
    (("world, sports", "no, sports"), r"labels\.0: Input should be a valid string, not False"),
    (("macro_f1", "f1"), r"metrics: f1 is not for a task of 3 labels; allowed are accuracy, macro_f1, "),
    (("macro_f1", "pearson"), r"metrics: pearson is not for a task of 3 labels; allowed are accuracy"),
    (("labels: [world, sports, business]\n", ""), r"metrics: macro_f1 is not for numbers; allowed are"),
    (("macro_f1", "bleu"), r"metrics\.0: Input should be 'accuracy', 'f1', .*, not 'bleu'"),
    (("fields:", "columns: 2\nfields:"), r"topics\.yaml: columns: unknown key; check its spelling"),
    ((TOPICS, "- topics"), r"topics\.yaml: a task is a mapping with name, fields and labels, not list"),
    ((TOPICS, "{"), r"topics\.yaml: not YAML: "),
])
def test_bad_files_are_refused_in_one_line(change, message, tmp_path):
    path = write_task(tmp_path, TOPICS.replace(*change))
    with pytest.raises(TaskError, match=message) as caught:
        load_task(path, data=tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_rows_are_named(tmp_path):
    with pytest.raises(TaskError, match=r"none\.yaml: cannot read the task: "):
        load_task(tmp_path / "none.yaml")
    with pytest.raises(TaskError, match="task topics needs rows: give --data DIR with train and"):
        load_task(write_task(tmp_path))
    with pytest.raises(TaskError, match=r"unknown task 'topics'; use one of .*, or the YAML file that"):
        load_task("topics")


def test_macro_f1_by_hand():
    """Classes 0 and 1 have one of two right and one wrong too many or too few; class 2 is right."""
    task = Task(name="own", fields=("text",), labels=("a", "b", "c"), metrics=("macro_f1",))
    logits = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert compute_metrics(task, logits, [0, 1, 1, 2])["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model and its bundle of the task, whose file is gone when the bundle is made."""
    folder = tmp_path_factory.mktemp("own")
    task = write_task(folder)
    write_rows(folder / "rows")
    run(compressor_cli, "train", "pattern-oneshot", "--model", "tiny", "--task", task,
        "--data", folder / "rows", "--out", folder / "model",
        "--set", "stages.0.epochs=1", "--set", "training.max_tokens=16")
    found = read_task(task)
    task.unlink()
    run(compressor_cli, "export", folder / "model", "-o", folder / "pruned.pt", "--data", folder / "rows",
        "--rows", "6")
    return folder, found


def test_a_model_and_its_bundle_know_the_task(made):
    folder, task = made
    assert read_compression(folder / "model").task == task
    metrics = json.loads((folder / "model" / "metrics.json").read_text())
    assert {"eval_macro_f1", "eval_accuracy"} <= metrics.keys()
    bundle = load_bundle(folder / "pruned.pt")
    assert task_of(bundle) == task
    assert {"macro_f1", "accuracy"} <= bundle.metrics["quantization"]["float"].keys()
    assert read_sentences(bundle, folder / "rows" / "validation.jsonl", 2) == [
        ("treaty", "treaty minister"), ("goal", "goal coach")]


@pytest.mark.nightly
def test_hardware_is_scored_on_the_task(made):
    folder, _ = made
    run(hwgen_cli, "build", "--model", folder / "pruned.pt", "--out", folder / "build", "--rows", "1",
        "--lanes", "8")
    rows = folder / "rows" / "validation.jsonl"
    found = json.loads(run(hwgen_cli, "eval", folder / "build", "--data", rows, "--json"))
    assert (found["rows"], found["word_mismatches"], found["prediction_mismatches"]) == (6, 0, 0)
    assert found["metric"] == "macro_f1"
    assert found["metrics"]["rtl"] == found["metrics"]["golden"]
    assert found["metrics"]["rtl"].keys() == {"macro_f1", "accuracy"}
