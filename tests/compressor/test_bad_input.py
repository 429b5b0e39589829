"""What goes wrong in a run: one clear line, and the last good checkpoint is as it was."""

import resource
from contextlib import contextmanager

import pytest
import torch
from click.testing import CliRunner

from compressor.cli import main
from compressor.recipes import Recipe
from compressor.run_guards import TrainingError
from compressor.stage_callback import latest_checkpoint
from compressor.stages import StageState
from compressor.tasks import load_task
from compressor.tiny_model import build_tiny_model
from compressor.trainer import CompressionTrainer
from compressor.training_run import CHECKPOINTS, run_training

RECIPE = {"schema_version": 1, "training": {"learning_rate": 1e-3, "batch": 16, "max_tokens": 24, "saves": 2},
          "stages": [{"method": "admm", "epochs": 1, "interval": 2}, {"method": "retrain", "epochs": 1}]}
ROW = '{"sentence": "fine", "label": 1}\n'


@pytest.fixture(scope="module")
def data():
    """Four steps an epoch, a checkpoint every two."""
    return load_task("synthetic", train_rows=64, validation_rows=16)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Weights of a run in which nothing goes wrong."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    run_training(Recipe.from_dict(RECIPE), model_name="tiny", data=data, out=folder)
    return (folder / "model.safetensors").read_bytes()


def train(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


@pytest.mark.parametrize(("structure", "message"), [
    ("{kind: blocks, rows: 48, columns: 4, density: 0.5}",
     "encoder.layer.0.attention.self.query: 64 rows do not divide into blocks of 48x4; choose a number of "
     "rows that divides them"),
    ("{kind: nm, keep: 2, group: 24}",
     "encoder.layer.0.attention.self.query: 64 inputs do not divide into groups of 24; choose a group that "
     "divides them"),
])
def test_blocks_that_do_not_divide(structure, message, tmp_path):
    path = tmp_path.with_suffix(".yaml")
    stages = "stages: [{method: retrain, epochs: 1}]"
    path.write_text(f"schema_version: 1\nstructure: {structure}\n{stages}\n")
    result = train(path, "--model", "tiny", "--task", "synthetic", "--train-rows", 32, "--out", tmp_path)
    assert (result.exit_code, result.output) == (1, f"Error: {message}\n")


@pytest.mark.parametrize(("text", "message"), [
    ("", "task sst2: split train has no rows"),
    ('{"sentence": "fine"}\n', "task sst2, train, row 1: no field 'label'; it has sentence"),
    (ROW + '{"sentence": "fine", "label": null}\n',
     "task sst2, train, row 2: field 'label' is empty"),
])
def test_rows_that_cannot_be_used(text, message, tmp_path):
    (tmp_path / "train.jsonl").write_text(text)
    (tmp_path / "validation.jsonl").write_text(ROW)
    result = train("demo", "--model", "tiny", "--task", "sst2", "--data", tmp_path, "--out", tmp_path / "o")
    assert (result.exit_code, result.output) == (1, f"Error: {message}\n")
    assert not (tmp_path / "o").exists()


def test_models_that_compute_nan_never_train(data, tmp_path):
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    with torch.no_grad():
        model.classifier.bias[0] = torch.nan
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "recipe.yaml").write_text(Recipe.from_dict(RECIPE).to_yaml())
    result = train(tmp_path / "recipe.yaml", "--model", tmp_path / "model", "--task", "synthetic",
                   "--train-rows", 64, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        "Error: step 1, stage admm: the loss is nan; lower the learning rate, or look at model and rows. "
        "There is no checkpoint yet")


@pytest.mark.parametrize(("step", "message"), [
    (3, "step 4, stage admm: the gradient's norm is nan; lower"),
    (4, "step 4: bert.encoder.layer.0.attention.self.query.weight holds NaN or infinity; lower"),
])
def test_weights_that_become_nan_reach_no_checkpoint(step, message, data, whole, tmp_path, monkeypatch):
    """Found in the next step, or before they are saved; the run can go on from before."""
    with monkeypatch.context() as patch:
        after_step(patch, step, lambda stages: next(iter(stages.weights.values())).data.fill_(torch.nan))
        with pytest.raises(TrainingError) as raised:
            run_training(Recipe.from_dict(RECIPE), model_name="tiny", data=data, out=tmp_path / "out")
    last = tmp_path / "out" / CHECKPOINTS / "checkpoint-2"
    assert str(raised.value).startswith(message)
    assert str(raised.value).endswith(f". The last good checkpoint is {last}; --resume goes on from there")
    assert_goes_on(data, tmp_path / "out", last, whole)


def allocate_too_much(stages):
    torch.empty(2**50)


def fill_a_gpu(stages):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has more to say.")


@pytest.mark.parametrize(("action", "asked"), [
    (allocate_too_much, "4503599627370496 bytes"), (fill_a_gpu, "2.00 GiB")])
def test_full_memory_says_what_to_lower(action, asked, data, whole, tmp_path, monkeypatch):
    last = tmp_path / "out" / CHECKPOINTS / "checkpoint-2"
    with monkeypatch.context() as patch:
        after_step(patch, 3, action)
        with pytest.raises(TrainingError) as raised:
            run_training(Recipe.from_dict(RECIPE), model_name="tiny", data=data, out=tmp_path / "out")
    assert str(raised.value) == (
        f"out of memory when {asked} more were needed; lower training.batch (now 16) and raise "
        "training.gradient_accumulation (1) by as much, or lower training.max_tokens (24). --dry-run says "
        f"what a run takes. The last good checkpoint is {last}; --resume goes on from there")
    assert_goes_on(data, tmp_path / "out", last, whole)


def after_step(monkeypatch, step, action):
    """Do something when so many optimizer steps are done."""
    inner, done = StageState.after_optimizer_step, []

    def wrapped(self, *arguments):
        inner(self, *arguments)
        done.append(1)
        if len(done) == step:
            action(self)

    monkeypatch.setattr(StageState, "after_optimizer_step", wrapped)


@contextmanager
def full_disk(size):
    """Files cannot grow beyond a size in bytes: the operating system refuses, as for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [20_000, 500_000])
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(size, data, whole, tmp_path, monkeypatch):
    """Already the weights do not fit, or the weights do and the optimizer does not."""
    with full_disk(size) as fill, monkeypatch.context() as patch:
        after_step(patch, 3, fill)
        with pytest.raises(TrainingError) as raised:
            run_training(Recipe.from_dict(RECIPE), model_name="tiny", data=data, out=tmp_path / "out")
    folder = tmp_path / "out" / CHECKPOINTS
    assert str(raised.value).startswith(f"{folder}/checkpoint-4: cannot be written: ")
    assert str(raised.value).endswith(f". The last good checkpoint is {folder}/checkpoint-2; --resume goes "
                                      "on from there")
    assert "\n" not in str(raised.value)
    assert not (folder / "checkpoint-4").exists()
    assert_goes_on(data, tmp_path / "out", folder / "checkpoint-2", whole)


def test_the_file_that_marks_a_whole_checkpoint_is_written_last(data, tmp_path, monkeypatch):
    inner, seen = StageState.save, []

    def save(self, folder):
        seen.append({"model.safetensors", "optimizer.pt", "trainer_state.json"}
                    <= {path.name for path in folder.iterdir()})
        inner(self, folder)

    monkeypatch.setattr(StageState, "save", save)
    run_training(Recipe.from_dict(RECIPE), model_name="tiny", data=data, out=tmp_path / "out")
    assert seen == [True] * 4


def test_a_disk_that_fills_up_at_the_end_leaves_the_last_checkpoint(data, whole, tmp_path, monkeypatch):
    inner, out = CompressionTrainer.finalize, tmp_path / "out"
    with full_disk(20_000) as fill, monkeypatch.context() as patch:
        patch.setattr(CompressionTrainer, "finalize", lambda self: (inner(self), fill()))
        with pytest.raises(TrainingError, match=f"^{out}: cannot be written: .*checkpoint-8; --resume"):
            run_training(Recipe.from_dict(RECIPE), model_name="tiny", data=data, out=out)
    assert sorted(path.name for path in out.iterdir()) == [CHECKPOINTS, "recipe.yaml", "train_log.jsonl"]
    assert_goes_on(data, out, out / CHECKPOINTS / "checkpoint-8", whole)


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    result = train("demo", "--model", "tiny", "--task", "synthetic", "--train-rows", 32, "--out",
                   tmp_path / "file" / "out")
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {tmp_path}/file/out: cannot be written: ")
    assert result.output.count("\n") == 1


def assert_goes_on(data, out, last, whole):
    """Resumed from its last checkpoint, a run ends as if nothing had happened."""
    assert latest_checkpoint(out / CHECKPOINTS) == str(last)
    run_training(Recipe.from_dict(RECIPE), model_name="tiny", data=data, out=out, resume=True)
    assert (out / "model.safetensors").read_bytes() == whole
