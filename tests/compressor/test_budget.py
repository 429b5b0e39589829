"""Budgets: the cost of a layer, the choice of densities, sensitivity, whole runs and their predictions."""

import itertools
import json

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModel, DataCollatorWithPadding

from compressor import sensitivity
from compressor.budget import CostTable, Level, allocate, choose_structure, layer_levels
from compressor.cli import main
from compressor.encoding import EncodedRows
from compressor.group_structures import Blocks
from compressor.model_dir import read_compression
from compressor.pools import build_pool
from compressor.recipe_sections import Budget
from compressor.recipes import RecipeError, changed_recipe
from compressor.stages import StageState
from compressor.structures import Dense, Pattern
from compressor.targets import target_layers
from compressor.tasks import TaskData, load_task
from compressor.tiny_model import build_tiny_model
from compressor.training_plan import plan_training
from compressor.training_run import run_training
from tests.compressor.test_methods import NM_SECTION, RETRAIN, assert_resumes_exactly, recipe_of

TABLE = {"format": "hwgen-costs", "schema_version": 1, "units": 2, "token_groups": 3,
         "ksteps": {"dense": 2, "pattern": 1, "nm": 1}, "fixed_cycles": 1000}
BLOCKS = {"kind": "blocks", "rows": 8, "columns": 4}
ADMM = {"method": "admm", "epochs": 1, "interval": 2}


@pytest.fixture(scope="module")
def data():
    return load_task("synthetic", train_rows=64, validation_rows=40)


@pytest.fixture
def costs(tmp_path):
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(TABLE))
    return str(path)


def test_cycles_count_the_ksteps_of_tiles(costs):
    table, weight = CostTable.load(costs), torch.ones(16, 32)
    assert table.cycles(weight, "dense") == 3 * 2 * 2 * 8  # groups, tiles, K-steps a column, columns
    weight[:4, :16] = 0  # half of a tile: its K-steps stay
    assert table.cycles(weight, "dense") == 96
    weight[4:8, :16] = 0
    assert table.cycles(weight, "pattern") == 3 * (8 + 8)  # never faster than results leave: 8 rows
    assert table.cycles(weight, "dense") == 3 * (8 + 16)
    assert table.cycles(torch.zeros(16, 32), "dense") == 3 * 2 * 8


def test_the_choice_is_the_best_on_small_problems():
    """Against all combinations: with equal steps greedy loses nothing."""
    levels = {name: [Level(share=1.0 - step / 4, cost=8 - 2 * step, loss=weight * step ** 2)
                     for step in range(4)] for name, weight in (("a", 1.0), ("b", 3.0), ("c", 0.5))}
    for limit in range(6, 25, 2):
        best = min(sum(level.loss for level in chosen) for chosen in itertools.product(*levels.values())
                   if sum(level.cost for level in chosen) <= limit)
        chosen = allocate(levels, limit)
        assert sum(level.cost for level in chosen.values()) <= limit
        assert sum(level.loss for level in chosen.values()) == best
    assert allocate(levels, 5) is None


def test_unimportant_layers_are_pruned_more(costs, tmp_path):
    generator = torch.Generator().manual_seed(0)
    spiky = torch.randn(32, 64, generator=generator) * torch.rand(4, 16, generator=generator).pow(4) \
        .repeat_interleave(8, 0).repeat_interleave(4, 1)
    weights = {"even": torch.randn(32, 64, generator=generator), "spiky": spiky}
    budget = Budget(cycles=1000 + 700, costs=costs)
    structure, report = choose_structure(weights, Blocks(8, 4), budget)
    shares = dict(structure.shares)
    assert shares["spiky"] < shares["even"]
    assert report["expected"] <= 1700 < report["dense"] == 1000 + 2 * 3 * 4 * 2 * 16
    table = CostTable.load(costs)
    total = sum(table.cycles(structure.of_layer(name).project(weight)[0], "dense")
                for name, weight in weights.items())
    assert report["expected"] == 1000 + total
    weights["spiky"] = torch.randn(32, 64, generator=generator)  # like the other, but it matters more
    measured = {"layers": {"even": {"loss_increase": 0.001, "removed": 0.5},
                           "spiky": {"loss_increase": 0.5, "removed": 0.5}}}
    path = tmp_path / "sensitivity.json"
    path.write_text(json.dumps(measured))
    other, _ = choose_structure(weights, Blocks(8, 4), budget.model_copy(update={"sensitivity": str(path)}))
    assert dict(other.shares)["even"] < dict(other.shares)["spiky"]


def test_structures_without_a_density_are_there_or_not(costs):
    weights = {name: torch.randn(16, 64, generator=torch.Generator().manual_seed(seed))
               for seed, name in enumerate("abc")}
    base = Pattern(build_pool("reed_muller"))
    dense = sum(CostTable.load(costs).cycles(weight, "dense") for weight in weights.values())
    structure, report = choose_structure(weights, base, Budget(cycles=1000 + dense * 2 // 3, costs=costs))
    kinds = [structure.of_layer(name) for name in weights]
    assert sorted(kind.name for kind in kinds) == ["dense", "pattern", "pattern"]
    assert report["expected"] == 1000 + dense * 2 // 3
    with pytest.raises(RecipeError, match=r"budget: 1,010 cycles cannot be met; the sparsest choice of "
                                          r"pattern.* takes 1,288, 1,000 of them whatever the weights"):
        choose_structure(weights, base, Budget(cycles=1010, costs=costs))


def test_layers_that_are_not_pruned_take_their_cycles(data, costs, tmp_path):
    """In a run that prunes two of six roles, the whole model meets the budget."""
    recipe = recipe_of(BLOCKS, RETRAIN, targets={"roles": ["ffn1", "ffn2"]},
                       budget={"cycles": 15_000, "costs": costs})
    result = run_training(recipe, model_name="tiny", data=data, out=tmp_path / "out")
    table, model = CostTable.load(costs), AutoModel.from_pretrained(tmp_path / "out")
    total = 1000 + sum(table.cycles(target.module.weight, "dense")
                       for target in target_layers(model).values())
    assert total == result.metrics["budget"]["expected"] <= 15_000


def test_plans_expect_the_cycles_of_a_projection(data, costs, tmp_path):
    def cycles(structure, *stages, **sections):
        recipe = recipe_of(structure, *stages, **sections)
        return plan_training(recipe, model_name="tiny", data=data, costs=costs)["cycles"]

    half = cycles(BLOCKS | {"density": 0.5}, RETRAIN)
    budget = {"cycles": 15_000, "costs": costs}
    assert cycles(BLOCKS, ADMM, RETRAIN, budget=budget)["expected"] <= 15_000 < half["dense"]
    assert cycles(NM_SECTION, RETRAIN) == {"expected": 1000 + (half["dense"] - 1000) // 2,
                                           "dense": half["dense"]}
    assert cycles(NM_SECTION, {"method": "dense", "epochs": 1})["expected"] == half["dense"]
    partly = cycles(NM_SECTION, RETRAIN, targets={"roles": ["ffn1", "ffn2"]})
    assert partly["expected"] == 1000 + (half["dense"] - 1000) * 2 // 3  # two thirds of the weights halve
    result = run_training(recipe_of(BLOCKS | {"density": 0.5}, RETRAIN), model_name="tiny", data=data,
                          out=tmp_path / "out")
    assert result.finished
    table, model = CostTable.load(costs), AutoModel.from_pretrained(tmp_path / "out")
    assert half["expected"] == 1000 + sum(table.cycles(target.module.weight, "dense")
                                          for target in target_layers(model).values())
    chosen_by_training = {"method": "learned_topk", "epochs": 1, "remaining": 0.5}
    assert cycles({"kind": "heads_rows"}, chosen_by_training, RETRAIN)["expected"] is None
    assert cycles(BLOCKS, chosen_by_training, RETRAIN)["expected"] is None


def test_storage_budgets_count_bits():
    weights = {"a": torch.randn(16, 64, generator=torch.Generator().manual_seed(0))}
    structure, report = choose_structure(weights, Blocks(4, 4), Budget(weight_kib=0.6))
    assert report["unit"] == "bits"
    assert report["expected"] <= int(0.6 * 8192) < report["expected"] + 128 * 4
    assert layer_levels(weights["a"], Blocks(4, 4), None)[0].cost == 8192
    assert dict(structure.shares)["a"] == 9 / 16


@pytest.mark.parametrize(("section", "message"), [
    ({"cycles": 5}, "budget.costs names a file of `hwgen costs`"),
    ({"cycles": 5, "weight_kib": 1.0, "costs": "x"}, "not cycles and weight_kib"),
    ({"latency_us": 5.0, "costs": "x"}, "latency_us and clock_mhz go together"),
    ({}, "not none of them"),
])
def test_budgets_that_make_no_sense(section, message):
    with pytest.raises(RecipeError, match=message):
        recipe_of(BLOCKS, RETRAIN, budget=section)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match=r"^costs: .*none\.json: cannot be read"):
        CostTable.load(tmp_path / "none.json")
    (tmp_path / "other.json").write_text(json.dumps(TABLE | {"format": "x"}))
    with pytest.raises(RecipeError, match="not a file of hwgen costs, version 1"):
        CostTable.load(tmp_path / "other.json")
    assert Budget(latency_us=2.5, clock_mhz=200, costs="x").limit == (500, "cycles")


def test_a_run_meets_its_budget_and_resumes_with_its_choice(data, costs, tmp_path):
    recipe = recipe_of(BLOCKS, ADMM, RETRAIN, budget={"cycles": 10_000, "costs": costs})
    plan = plan_training(recipe, model_name="tiny", data=data)
    assert plan["budget"]["expected"] <= 10_000 < plan["budget"]["dense"]
    whole = assert_resumes_exactly(recipe, data, tmp_path, (2,))
    assert whole.stages.budget_report["expected"] <= 10_000
    result = run_training(recipe, model_name="tiny", data=data, out=tmp_path / "out")
    info, table = read_compression(tmp_path / "out"), CostTable.load(costs)
    assert len({layer.density for layer in info.layers.values()}) > 1
    assert result.metrics["budget"]["unit"] == "cycles"
    model = AutoModel.from_pretrained(tmp_path / "out")
    total = sum(table.cycles(target.module.weight, "dense") for target in target_layers(model).values())
    assert 1000 + total <= 10_000
    again = recipe_of({"kind": "model"}, RETRAIN)
    run_training(again, model_name=str(tmp_path / "out"), data=data, out=tmp_path / "again")
    assert read_compression(tmp_path / "again").layers == info.layers


def test_sensitivity_of_layers(data, tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "sensitivity.json"
    recipe.write_text(recipe_of(BLOCKS | {"density": 0.5}, RETRAIN).to_yaml())
    result = CliRunner().invoke(main, ["sensitivity", str(recipe), "--model", "tiny", "--task", "synthetic",
                                       "--train-rows", "64", "--validation-rows", "40", "-o", str(out)])
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())["layers"]
    assert len(found) == 12
    assert all(0 < row["removed"] < 0.5 for row in found.values())
    assert len({row["loss_increase"] for row in found.values()}) == 12


def test_sensitivity_goes_by_the_recipes_score(data, monkeypatch):
    """Error-aware projections get the input norms of training rows."""
    found = []
    monkeypatch.setattr(sensitivity, "measure_sensitivity", lambda *args, norms, **more: found.append(norms))
    for score in ("magnitude", "activation"):
        recipe = recipe_of(BLOCKS | {"density": 0.5, "score": score}, RETRAIN)
        sensitivity.run_sensitivity(recipe, model_name="tiny", data=data)
    assert found[0] == {}
    assert len(found[1]) == 12
    assert all((norms > 0).all() for norms in found[1].values())


def test_sensitivity_after_retraining(data, tmp_path):
    recipe = recipe_of(BLOCKS | {"density": 0.5}, RETRAIN)
    data = TaskData(task=data.task, train=data.train, validation={"validation": data.train})
    plain, retrained, again = (sensitivity.run_sensitivity(
        recipe, model_name="tiny", data=data, density=0.1, retrain_steps=steps) for steps in (0, 6, 6))
    assert retrained == again  # every layer from the same model, with the same batches and random numbers
    losses = [[one["loss"]] + [one["loss"] + layer["loss_increase"] for layer in one["layers"].values()]
              for one in (plain, retrained)]
    # All have been trained, the whole model as well.
    assert all(after != before for before, after in zip(*losses, strict=True))
    found = plain, retrained
    assert [layer["removed"] for layer in found[0]["layers"].values()] == [
        layer["removed"] for layer in found[1]["layers"].values()]


def test_retraining_for_sensitivity_holds_the_masks_and_leaves_the_model(data):
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    state = StageState(model, recipe_of(BLOCKS | {"density": 0.5}, RETRAIN))
    rows = EncodedRows(data.task, data.train, tokenizer, 24)
    batch = DataCollatorWithPadding(tokenizer)([rows[row] for row in range(16)])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []

    def retrain(masks):
        sensitivity._retrain(model, [batch, batch], state.recipe.training, masks)
        seen.append({name: float((weight == 0).float().mean()) for name, weight in state.weights.items()})
        assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())

    sensitivity.measure_sensitivity(model, state.weights, state.planned_structure(), [batch], retrain=retrain)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [sum(zeros.values()) for zeros in seen] == pytest.approx([0] + [0.5] * 12)
    assert [max(zeros, key=zeros.get) for zeros in seen[1:]] == list(state.weights)


def test_a_sweep_trains_and_compares(data, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe_of(BLOCKS | {"density": 0.5}, RETRAIN).to_yaml())
    command = ["sweep", str(recipe), "--set", "structure.density=0.75,0.25", "--model", "tiny", "--task",
               "synthetic", "--train-rows", "32", "--validation-rows", "16", "--out", str(tmp_path / "runs")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "| density=0.75 |" in result.output
    assert "| 25.0 % |" in result.output
    picture, weights = tmp_path / "runs.svg", tmp_path / "weights.svg"
    runs = [str(tmp_path / "runs" / f"density={value}") for value in ("0.75", "0.25")]
    assert CliRunner().invoke(main, ["compare", *runs, "--plot", str(picture)]).exit_code == 0
    assert picture.read_text().count("<circle") == 2
    result = CliRunner().invoke(main, ["weights", *runs, "-o", str(weights), "--bins", "20"])
    assert "density=0.75: 25.0 % zero" in result.output
    assert weights.read_text().count('fill="#4878a8"') == 40
    with pytest.raises(RecipeError, match=r"stages\.7\.rho=1: no such place in the recipe"):
        changed_recipe(recipe_of(BLOCKS | {"density": 0.5}, RETRAIN), {"stages.7.rho": "1"})


def test_dense_layers_of_a_budget_stay_dense_later(data, costs, tmp_path):
    """A run that goes on with such a model prunes none of the layers that the budget left whole."""
    recipe = recipe_of({"kind": "pattern"}, RETRAIN, budget={"cycles": 14_000, "costs": costs})
    run_training(recipe, model_name="tiny", data=data, out=tmp_path / "out")
    info = read_compression(tmp_path / "out")
    dense = [name for name in info.layers if info.structure_of(name) == Dense()]
    assert 0 < len(dense) < 12
    run_training(recipe_of({"kind": "model"}, RETRAIN), model_name=str(tmp_path / "out"), data=data,
                 out=tmp_path / "again")
    assert read_compression(tmp_path / "again").layers == info.layers
