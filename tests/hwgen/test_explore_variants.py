"""Explorations of several bundles or recipes: the common front, the commands, what does not go together."""

import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from compressor import compress, export
from compressor.bundle import load_bundle, save_bundle
from compressor.recipe_projection import project_bundle
from compressor.recipes import Recipe
from hwgen.cli import main
from hwgen.design_points import OBJECTIVES, Evaluation
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.search_api import explore_variants
from hwgen.variants import Variant, common_front
from tests.bundles import random_encoder_bundle
from tests.hwgen.test_report import parsed

RECIPES = ("pattern-oneshot", "asp-2to4")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Paths of a dense bundle and of two that pretend to be trained, one of them measured."""
    folder = tmp_path_factory.mktemp("models")
    for name, structure in (("dense", "dense"), ("pattern", "pattern"), ("nm", "nm")):
        bundle = random_encoder_bundle(hidden=32, heads=2, ffn=64, layers=1, structure=structure)
        save_bundle(bundle, folder / f"{name}.pt")
    measured = {"quantization": {"rows": 100, "quantized": {"accuracy": 0.75}}}
    save_bundle(replace(load_bundle(folder / "nm.pt"), metrics=measured), folder / "measured.pt")
    return folder


@pytest.fixture
def explored(tmp_path):
    """Runs `hwgen explore` on kv260."""
    def run(*arguments, points=40):
        result = CliRunner().invoke(main, ["explore", "--device", "kv260", "--points", str(points), "--out",
                                           str(tmp_path / "out"), *map(str, arguments)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result
    return run


def test_the_common_front_is_what_nothing_dominates():
    def variant(quality):
        return Variant(name=str(quality), bundle=None, quality=quality)

    variants = [variant(0.5), variant(0.9), variant(None), variant(None)]
    costs = list(itertools.product((1, 2), repeat=3))
    points = [(one, Evaluation(point=SimpleNamespace(plainness=at), fits=at != 7, ffs=0, urams=0, excess=0,
                               **dict(zip(OBJECTIVES, (cycles, luts, dsps, 1, 1), strict=True))))
              for one in variants[:3] for at, (cycles, luts, dsps) in enumerate(costs)]
    points = [pair for at, pair in enumerate(points) if at % 8 not in (0, 2)] + [
        (variants[3], replace(points[3][1])), (variants[0], replace(points[0][1]))]

    def beats(first, second):
        (a, one), (b, two) = first, second
        if a is not b and (None in (a.quality, b.quality) or a.quality < b.quality):
            return False
        return one.fits and (one.values, a) != (two.values, b) and all(
            x <= y for x, y in zip(one.values, two.values, strict=True))
    expected = {(id(variant), one.values) for variant, one in points
                if one.fits and not any(beats(other, (variant, one)) for other in points)}
    front = common_front(points)
    assert {(id(variant), one.values) for variant, one in front} == expected
    assert 4 < len(front) == len(expected) < len(points)
    assert [one.cycles for _, one in front] == sorted(one.cycles for _, one in front)
    assert {variant.quality for variant, _ in front} == {0.5, 0.9, None}


def test_recipes_are_explored_without_training(models, explored, tmp_path):
    done = explored("--model", models / "dense.pt", *(f"--recipe={name}" for name in RECIPES),
                    "--set", "targets.roles=[ffn1],[ffn2]", "--train-from", "my bert")
    assert done.exit_code == 0
    assert "quality: retained energy, not trained" in done.stdout
    data = json.loads((tmp_path / "out" / "explore.json").read_text())
    names = ["as given", *(f"{name}_roles=[{role}]" for name in RECIPES for role in ("ffn1", "ffn2"))]
    assert [one["name"] for one in data["variants"]] == names
    assert data["variants"][0]["quality"] == 1 > max(one["quality"] for one in data["variants"][1:])
    for one in data["variants"][1:]:
        recipe = Recipe.from_yaml(tmp_path / "out" / "recipes" / f"{one['name']}.yaml")
        pruned, energy = project_bundle(load_bundle(models / "dense.pt"), recipe)
        plan = make_plan(pruned, PlanRequest(device="kv260"))
        assert one["default"]["cycles"] == plan.predicted_cycles
        assert one["quality"] == energy
        train, export_it, build = one["default"]["command"].split(" && ")
        run = f"'{tmp_path}/out/runs/{one['name']}'"
        assert train == (f"compress train '{tmp_path}/out/recipes/{one['name']}.yaml' --model 'my bert' "
                         f"--task TASK.yaml --out {run}")
        assert export_it == f"compress export {run} --out {run[:-1]}/pruned.pt'"
        assert build.startswith(f"hwgen build --model {run[:-1]}/pruned.pt' ")
    assert {one["variant"] for one in data["front"]} > {"as given"}
    assert all(one["command"].count("hwgen build") == 1 for one in data["front"])
    page = (tmp_path / "out" / "explore.html").read_text()
    parsed(page)
    assert page.count("<circle") == 5 + 4 * len(data["front"])


def test_trained_bundles_are_compared(models, explored):
    bundles = [option for name in ("pattern", "nm") for option in ("--model", models / f"{name}.pt")]
    data = json.loads(explored(*bundles, "--json").stdout)
    assert data["measure"] is None
    assert {one["variant"] for one in data["front"]} == {str(models / "pattern.pt"), str(models / "nm.pt")}
    done = explored(*bundles[:2], "--model", models / "measured.pt", "--study", "other")
    assert done.exit_code == 0
    assert "quality: accuracy on 100 rows" in done.stdout
    assert "unknown" in done.stdout
    assert "0.7500" in done.stdout


@pytest.mark.parametrize(("arguments", "problem"), [
    (("--model=nm.pt", "--recipe=asp-2to4", "--train-from=x"), "asp-2to4: the bundle .* pruned already"),
    (("--model=dense.pt", "--recipe=asp-2to4"), "recipes need --train-from"),
    (("--model=dense.pt", "--model=nm.pt", "--recipe=asp-2to4", "--train-from=x"), "give one --model, not 2"),
    (("--model=dense.pt", "--set=pool.size=16"), "go with --recipe"),
    (("--model=dense.pt", "--recipe=asp-2to4", "--set=pool.size"), "--set pool.size: not KEY=VALUE"),
    (("--model=dense.pt", "--recipe=asp-2to4", "--set=no.such=1", "--train-from=x"), "no such place"),
    (("--model=dense.pt", "--recipe=none", "--train-from=x"), "none: no such recipe file or preset"),
    (("--model=dense.pt", "--recipe=quantize", "--train-from=x"), "quantize: .* training decides what"),
    (("--model=dense.pt", "--recipe=dense-int8", "--train-from=x"), "dense-int8: the recipe prunes nothing"),
    (("--model=dense.pt", *2 * ("--recipe=asp-2to4",), "--train-from=x"), "two recipes are called asp-2to4"),
    (("--model=nm.pt", "--model=nm.pt"), "is given twice"),
    (("--model=nm.pt", "--model=pattern.pt", "--confirm"), "best point of one model")])
def test_what_does_not_go_together(arguments, problem, models, explored):
    done = explored(*(one.replace("--model=", f"--model={models}/") for one in arguments))
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.search(problem, done.stderr)


def test_bundles_that_cannot_be_compared(models, explored):
    bundle = load_bundle(models / "measured.pt")
    save_bundle(replace(bundle, model={**bundle.model, "task": "cola"}), models / "cola.pt")
    done = explored("--model", models / "nm.pt", "--model", models / "cola.pt")
    assert "explore bundles of one task together" in done.stderr
    other = {"quantization": {"rows": 50, "quantized": {"accuracy": 0.75}}}
    save_bundle(replace(bundle, metrics=other), models / "fewer.pt")
    done = explored("--model", models / "measured.pt", "--model", models / "fewer.pt")
    assert "accuracy on 100 rows" in done.stderr
    assert "export both with the same --validation-rows" in done.stderr


def test_a_changed_recipe_does_not_join(models, explored, tmp_path):
    recipe = tmp_path / "mine.yaml"
    arguments = ("--model", models / "dense.pt", "--recipe", recipe, "--train-from", "x")
    for size, code in ((16, 0), (16, 0), (8, 1)):
        recipe.write_text(f"{{schema_version: 1, pool: {{size: {size}}}, "
                          "stages: [{method: retrain, epochs: 1}]}")
        assert (done := explored(*arguments, points=10)).exit_code == code
    assert "choose another --out or --study" in done.stderr


@pytest.mark.nightly
def test_workers_share_the_studies(models, tmp_path):
    found = explore_variants([models / "dense.pt"], "kv260", recipes=RECIPES, train_from="x", points=300,
                             out=tmp_path, workers=2)
    assert all(len(own.evaluations) >= 300 for own in found.explorations)


@pytest.mark.nightly
def test_the_command_of_a_recipe_makes_it(tmp_path, monkeypatch):
    """From a dense tiny model to an accelerator by the printed command, which costs what was explored."""
    monkeypatch.chdir(tmp_path)
    compress("dense-int8", model="tiny", task="synthetic", out="dense", train_rows=256, validation_rows=64)
    export("dense", "dense.pt", validation_rows=64)
    data = json.loads(CliRunner().invoke(main, [
        "explore", "--device", "kv260", "--points", "20", "--model", "dense.pt", "--recipe", "asp-2to4",
        "--train-from", "dense", "--set", "stages.0.epochs=1", "--json"]).stdout)
    chosen = data["variants"][1]["fastest"]
    (tmp_path / "bin").mkdir()
    for name, module in (("compress", "compressor.cli"), ("hwgen", "hwgen.cli")):
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from {module} import main; main()" "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    subprocess.run(chosen["command"], shell=True, check=True, capture_output=True)
    plan = json.loads((tmp_path / "BUILD" / "plan.json").read_text())
    assert plan["predicted_cycles"] == chosen["cycles"]
