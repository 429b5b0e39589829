"""The table on real tasks, on a generated one: runs, what they share, interruptions, and the table's text."""

import json
import shutil
import signal

import pytest
from click.testing import CliRunner

from benchmarks import task_runs
from benchmarks.task_report import read_results, report
from benchmarks.task_rows import EPOCH_SHARE, RECIPE_DIR, ROWS, make_job, plan_jobs
from benchmarks.task_runs import Settings, run_job, work
from benchmarks.task_tables import main
from compressor.model_dir import METRICS_FILE
from compressor.progress import ProgressBar
from compressor.tasks import load_task
from compressor.tiny_model import build_tiny_model

MEASURED = RECIPE_DIR.parent / "measured"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, a task of SST-2's form and sentences."""
    folder = tmp_path_factory.mktemp("tables")
    data = load_task("synthetic", train_rows=96, validation_rows=40)
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=128)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "data" / "sst2").mkdir(parents=True)
    for split, rows in (("train", data.train), ("validation", data.validation["validation"])):
        (folder / "data" / "sst2" / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows))
    (folder / "text.txt").write_text("\n".join(row["sentence"] for row in data.train))
    return folder


def settings_of(files, out, **changes):
    """Settings under which a recipe of 10 epochs takes 6 steps."""
    settings = Settings(**{"model": files / "model", "data": files / "data", "out": out, "text_rows": None,
                           "text": (files / "text.txt",), "epoch_share": 1.0,
                           "precision": "float32"} | changes)
    settings.claim()
    return settings


def run_all(settings, rows, seeds=(0,)):
    with pytest.raises(SystemExit) as ended:
        work(settings, plan_jobs(rows, ["sst2"], seeds))
    return ended.value.code


def results(settings):
    return sorted(path.stem for path in (settings.out / "results").iterdir())


def test_every_row_has_a_recipe_and_every_recipe_a_row():
    assert {path.stem for path in RECIPE_DIR.glob("*.yaml")} == {row.recipe for row in ROWS.values()}
    for row in ROWS.values():
        recipe = row.make_recipe(task="cola", seed=3, epoch_share=0.5, precision="bfloat16",
                                 teacher="some/where" if row.teacher else None)
        assert (recipe.training.seed, recipe.training.precision) == (3, "bfloat16")
        assert recipe.stages[0].epochs in (2, 4, 5, 8)
        assert bool(row.teacher) == (recipe.distillation is not None
                                     and recipe.distillation.teacher == "some/where")
    plain = {"seed": 0, "epoch_share": 1, "precision": "float32"}
    assert [ROWS[name].make_recipe(task="cola", **plain).structure.density
            for name in ("lasso-1.43x", "lasso-2x")] == [0.7, 0.5]
    assert [ROWS["mlpruning-full-20"].make_recipe(task=task, **plain).stages[0].score_rate
            for task in ("cola", "mrpc")] == [0.02, 0.04]
    assert [ROWS["lasso-2x"].make_recipe(task=task, **plain).stages[0].strength
            for task in ("cola", "sst2")] == [5e-4, 2e-5]


def test_the_page_shows_the_table_of_the_runs_that_are_kept():
    results = read_results(MEASURED)
    table = report(results, list(ROWS.values())).partition("\n\n")[0]
    assert table in (MEASURED.parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
    share = json.loads((MEASURED / "settings.json").read_text())["epoch_share"]
    for (row, task, seed), result in results.items():  # of today's recipes, not of earlier ones
        teacher = ROWS[row].teacher and f"{ROWS[row].teacher}.{task}.{seed}"
        recipe = ROWS[row].make_recipe(task=task, seed=seed, epoch_share=share * EPOCH_SHARE.get(task, 1),
                                       precision=result["precision"], teacher=teacher)
        assert result["recipe"] == recipe.to_dict(), row


def test_what_a_row_needs_comes_before_it_and_once():
    names = [job.name for job in plan_jobs(["recovered-distilled", "mlpruning-full-20"], ["cola"], [0, 1])]
    assert names == ["recover-pattern.text.0", "dense.cola.0", "recovered-distilled.cola.0",
                     "mlpruning-partial-40.cola.0", "mlpruning-full-20.cola.0", "dense.cola.1",
                     "recovered-distilled.cola.1", "mlpruning-partial-40.cola.1", "mlpruning-full-20.cola.1"]


def test_two_rows_two_seeds_and_the_table(files, tmp_path):
    arguments = ["--model", str(files / "model"), "--data", str(files / "data"), "--tasks", "sst2", "--out",
                 str(tmp_path), "--seeds", "0,1", "--rows", "dense,pattern-distilled"]
    found = CliRunner().invoke(main, ["run", *arguments])
    assert found.exit_code == 0, found.output
    assert "4 of 4 runs are finished" in found.output
    names = ["dense.sst2.0", "dense.sst2.1", "pattern-distilled.sst2.0", "pattern-distilled.sst2.1"]
    assert sorted(path.stem for path in (tmp_path / "results").iterdir()) == names
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == names[:2]  # others need them
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert CliRunner().invoke(main, ["run", *arguments]).exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    result = json.loads((tmp_path / "results" / "pattern-distilled.sst2.1.json").read_text())
    assert (result["steps"], result["training_rows"], result["seed"], result["kept"]) == (6, 96, 1, 0.5)
    assert result["recipe"]["stages"][0]["epochs"] == pytest.approx(0.8)
    dense = json.loads((tmp_path / "results" / "dense.sst2.0.json").read_text())
    assert 0.5 < result["cycles"] / dense["cycles"] < 1

    found = CliRunner().invoke(main, ["table", "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    share = 100 * result["cycles"] / dense["cycles"]
    assert f"| pattern, ADMM, distilled | 50 % | {share:.0f} % | " in found.output

    found = CliRunner().invoke(main, ["run", *arguments, "--epoch-share", "0.5"])
    assert "the runs there have epoch_share 1.0, not 0.5" in found.output
    found = CliRunner().invoke(main, ["run", *arguments[:-1], "recovered"])
    assert "give --text FILE" in found.output
    found = CliRunner().invoke(main, ["run", *arguments[:-1], "dance"])
    assert "unknown: dance; use dense, " in found.output


def test_an_interrupted_run_leaves_no_result_and_ends_as_if_it_had_not_been(files, tmp_path, monkeypatch):
    job = make_job(ROWS["recovered-distilled"], "sst2", 0)
    settings, whole = settings_of(files, tmp_path / "a"), settings_of(files, tmp_path / "b")
    assert run_all(whole, ["recovered-distilled"]) == 0
    assert run_all(settings, ["recover-pattern", "dense"]) == 0

    inner = ProgressBar.on_step_end

    def interrupt(self, args, state, control, **kwargs):
        inner(self, args, state, control, **kwargs)
        if state.global_step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressBar, "on_step_end", interrupt)
    work(settings, [job])  # returns, for whoever interrupted it
    assert results(settings) == ["dense.sst2.0", "recover-pattern.text.0"]
    monkeypatch.setattr(ProgressBar, "on_step_end", inner)
    assert run_all(settings, ["recovered-distilled"]) == 0
    resumed, other = (json.loads(place.result(job).read_text()) for place in (settings, whole))
    assert resumed.pop("seconds") is None
    assert other.pop("seconds") > 0
    assert resumed == other
    assert resumed["recipe"]["distillation"]["teacher"] == "dense.sst2.0"


def test_a_run_that_dies_is_run_again(files, tmp_path, monkeypatch):
    settings = settings_of(files, tmp_path)

    def fail(*arguments):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(task_runs, "write_text", fail)
        # One fails, the others need it, the last by way of a third.
        assert run_all(settings, ["dense", "pattern-distilled", "mlpruning-full-20"]) == 1
    assert results(settings) == []
    assert (settings.out / "models" / "dense.sst2.0" / METRICS_FILE).is_file()
    assert [path.name for path in (settings.out / "models").iterdir()] == ["dense.sst2.0"]
    assert run_all(settings, ["dense"]) == 0
    assert results(settings) == ["dense.sst2.0"]
    # A result from another machine comes without its model, which is trained again where it is needed.
    shutil.rmtree(settings.out / "models" / "dense.sst2.0")
    assert run_all(settings, ["dense"]) == 0
    assert not (settings.out / "models" / "dense.sst2.0").exists()
    assert run_all(settings, ["pattern-distilled"]) == 0
    assert (settings.out / "models" / "dense.sst2.0").is_dir()
    assert results(settings) == ["dense.sst2.0", "pattern-distilled.sst2.0"]


def test_a_run_belongs_to_one_process(tmp_path):
    job = make_job(ROWS["dense"], "sst2", 0)
    with task_runs._claimed(tmp_path, job) as first, task_runs._claimed(tmp_path, job) as second:
        assert (first, second) == (True, False)
    with task_runs._claimed(tmp_path, job) as again:
        assert again


def result_of(row, task, seed, value, **changes):
    metric = {"cola": "matthews_correlation", "mrpc": "f1", "text": "loss"}[task]
    return {"row": row, "task": task, "seed": seed, "kept": 0.5 if row != "dense" else 1.0, "steps": 100,
            "training_rows": 1000, "metrics": {metric: value}, "cycles": 8000, "device": "CPU",
            "precision": "float32", "date": "2026-01-02"} | changes


def test_the_table(tmp_path):
    found = [result_of("dense", "cola", 0, 0.50), result_of("dense", "cola", 1, 0.54),
             result_of("dense", "mrpc", 0, 0.90), result_of("dense", "mrpc", 1, 0.88, device="H200"),
             result_of("2to4-asp", "cola", 0, 0.26, steps=90, cycles=4100),
             result_of("2to4-asp", "mrpc", 0, 0.445, cycles=4000),
             result_of("2to4-asp", "mrpc", 1, 0.445, kept=0.46, cycles=4300),
             result_of("2to4-admm", "cola", 0, -0.1),
             result_of("recover-pattern", "text", 0, 0.1, cycles=None)]
    text = report({(result["row"], result["task"], result["seed"]): result for result in found},
                  list(ROWS.values()))
    others = [row.title for row in ROWS.values()
              if row.shown and row.name not in ("dense", "2to4-asp", "2to4-admm")]
    assert text.splitlines() == [
        "| row | weights kept | cycles | cola: matthews correlation | mrpc: f1 | geometric mean |",
        "|---|---|---|---|---|---|",
        "| dense | 100 % | 100 % | 52.0 ± 2.8 (2), 100.0 % | 89.0 ± 1.4 (2), 100.0 % | 68.0, 100.0 % |",
        "| 2:4, one-shot (ASP) | 46 to 50 % | 50 to 54 % | 26.0 (1), 52.0 % "
        "| 44.5 ± 0.0 (2), 50.0 % | 34.0, 51.0 % |",
        "| 2:4, ADMM | 50 % | 100 % | -10.0 (1), -20.0 % |  |  |",
        "",
        "Mean over seeds ± their deviation (number of seeds), share of the dense row on the same seeds; "
        "empty cells did not run. Every value is that of the validation set after the last step; no best "
        "epoch is chosen.",
        "",
        "Cycles are those of the whole encoder on one array of 256 multipliers, 128 tokens, predicted "
        "(simulation takes exactly as many); dense takes 8,000.",
        "",
        "cola: 4 runs of 90 to 100 steps on 1,000 training rows (CPU, float32, 2026-01-02).",
        "",
        "mrpc: 4 runs of 100 steps on 1,000 training rows (CPU, float32, 2026-01-02; H200, float32, "
        "2026-01-02).",
        "",
        "text: 1 runs of 100 steps on 1,000 training rows (CPU, float32, 2026-01-02).",
        "",
        f"Not run: {'; '.join(others)}."]

    with pytest.raises(ValueError, match="no finished runs"):
        read_results(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "dense.cola.0.json").write_text('{"row": ')
    with pytest.raises(ValueError, match="no result of a run"):
        read_results(tmp_path)


def test_rows_in_bfloat16(files, tmp_path):
    settings = settings_of(files, tmp_path, precision="bfloat16")
    assert run_job(settings, make_job(ROWS["pattern-oneshot"], "sst2", 0))
    assert read_results(tmp_path)["pattern-oneshot", "sst2", 0]["precision"] == "bfloat16"
