"""Recipes: what is accepted, and the one line that says what is not."""

import pytest
import yaml

from compressor.recipes import Recipe, RecipeError, load_recipe, preset_names

MINIMAL = {"schema_version": 1, "stages": [{"method": "admm", "epochs": 1}]}


def recipe_with(**changes):
    return Recipe.from_dict(MINIMAL | changes)


def test_defaults_are_the_documented_ones():
    recipe = Recipe.from_dict(MINIMAL)
    assert recipe.targets.roles == ("q", "k", "v", "o", "ffn1", "ffn2")
    assert (recipe.pool.build, recipe.pool.size, recipe.pool.keep, recipe.pool.balance) == (
        "reed_muller", 32, 8, "row")
    stage = recipe.stages[0]
    assert (stage.rho, stage.interval, stage.init, stage.coupling) == (0.01, "auto", "projected", "loss")
    assert [stage.interval_steps(steps) for steps in (10, 1600, 10_000)] == [80, 80, 500]
    assert recipe.prunes
    assert not recipe_with(stages=[{"method": "dense", "epochs": 1}]).prunes
    assert recipe.attention_maps is None
    assert not recipe.prunes_maps_in(stage)


def test_maps_are_pruned_from_the_first_stage_that_prunes_weights():
    stages = [{"method": method, "epochs": 1} for method in ("dense", "admm", "retrain")]
    recipe = recipe_with(stages=stages, attention_maps={})
    assert (recipe.attention_maps.size, recipe.attention_maps.power) == (8, 1)
    assert [recipe.prunes_maps_in(stage) for stage in recipe.stages] == [False, True, True]
    recipe = recipe_with(stages=stages[:1], attention_maps={}, pool={"balance": "none"})
    assert recipe.prunes_maps_in(recipe.stages[0])


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_and_survive_yaml(name, tmp_path):
    recipe = Recipe.preset(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert Recipe.from_yaml(path) == recipe == load_recipe(name) == load_recipe(str(path))
    assert recipe.prunes == (name != "dense-int8")


@pytest.mark.parametrize(("changes", "message"), [
    ({"schema_version": 2}, "schema_version: Input should be 1, not 2"),
    ({"stage": []}, "stage: unknown key"),
    ({"training": {"lr": 1}}, "training.lr: unknown key; check its spelling and its place"),
    ({"training": {"precision": "bfloat16"}, "stages": [{"method": "quantize", "epochs": 1}]},
     "a stage quantize computes exact integers, which bfloat16 cannot hold; set training.precision: float32"),
    ({"training": {"batch": 0}}, "training.batch: Input should be greater than or equal to 1, not 0"),
    ({"stages": []}, "stages: "),
    ({"stages": [{"method": "admm"}]}, "stages.0.epochs: this key is required"),
    ({"stages": [{"method": "admm", "epochs": 1, "rhoo": 1}]}, "stages.0.rhoo: unknown key"),
    ({"stages": [{"method": "dense", "epochs": 1, "rho": 1}]}, "stages.0.rho: unknown key"),
    ({"stages": [{"method": "admm", "epochs": 1, "coupling": "both"}]}, "stages.0.coupling: "),
    ({"stages": [{"method": "magic", "epochs": 1}]}, "stages.0: "),
    ({"stages": [{"method": "retrain", "epochs": 1}, {"method": "admm", "epochs": 1}]},
     "stages run in the order dense, gradual, admm, group_lasso, learned_topk, sr_ste, "
                 "reconstruct, retrain, quantize, not retrain, admm"),
    ({"stages": [{"method": "admm", "epochs": 1}] * 2}, "two stages have the same name"),
    ({"targets": {"roles": ["q", "pooler"]}}, "targets.roles.1: "),
    ({"targets": {"roles": ["q", "q"]}}, "targets: targets.roles must name each role once"),
    ({"pool": {"build": "file"}}, "pool: pool.file is needed with build: file"),
    ({"pool": {"size": 300}}, "pool.size: "),
    ({"structure": {"kind": "diagonal"}}, "structure: "),
    ({"structure": {"kind": "nm", "keep": 4}}, "structure: keep must be below group, not 4 of 4"),
    ({"structure": {"kind": "nm", "group": 64}}, "structure.group: Input should be less than or equal to 32"),
    ({"structure": {"kind": "nm", "density": 0.5}}, "structure.density: unknown key"),
    ({"structure": {"kind": "unstructured", "density": 1}}, "structure.density: Input should be less than 1"),
    ({"structure": {"kind": "nm"}, "pool": {"size": 16}},
     "pool: a pool needs structure: {kind: pattern}, not nm; remove it"),
    ({"structure": {"kind": "model"}, "stages": [{"method": "dense", "epochs": 1}]},
     "a dense stage would undo the pruning"),
    ({"attention_maps": {"power": 3}}, "attention_maps.power: Input should be 1 or 2, not 3"),
    ({"attention_maps": {"patterns": 8}}, "attention_maps.patterns: unknown key"),
    ({"attention_maps": {}, "pool": {"balance": "none"}},
     "attention_maps use patterns of the pool, which needs balance: row or bank and keep: 4 or 8 or 16, "
     "not balance: none and keep: 8"),
    ({"attention_maps": {}, "pool": {"build": "greedy", "keep": 12}},
     "attention_maps use patterns of the pool"),
])
def test_errors_are_one_line_that_names_the_key(changes, message):
    with pytest.raises(RecipeError) as error:
        recipe_with(**changes)
    assert str(error.value).startswith(f"recipe: {message}")
    assert "\n" not in str(error.value)


def test_several_problems_are_counted():
    with pytest.raises(RecipeError, match=r"\(and 1 more\)$"):
        recipe_with(a=1, b=2)


def test_structures_survive_yaml(tmp_path):
    for section in ({"kind": "nm", "keep": 3, "group": 8}, {"kind": "unstructured", "density": 0.2},
                    {"kind": "pattern", "score": "activation"}, {"kind": "model"}):
        recipe = recipe_with(structure=section)
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe.to_yaml())
        assert Recipe.from_yaml(path) == recipe
        assert ("pool" in yaml.safe_load(path.read_text())) == (section["kind"] == "pattern")
        assert recipe.to_dict()["structure"].items() >= section.items()


def test_bad_files(tmp_path):
    path = tmp_path / "recipe.yaml"
    for text, message in [("- 1\n", "a recipe is a mapping"), ("a: [", "not YAML"),
                          ("!!python/object/apply:os.system [true]", "not YAML")]:
        path.write_text(text)
        with pytest.raises(RecipeError, match=message) as error:
            Recipe.from_yaml(path)
        assert "\n" not in str(error.value)
    with pytest.raises(RecipeError, match="cannot read"):
        Recipe.from_yaml(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="no such recipe file or preset; presets: "):
        load_recipe("none")
    with pytest.raises(RecipeError, match="unknown preset 'none'"):
        Recipe.preset("none")


def test_yaml_holds_every_default():
    values = yaml.safe_load(Recipe.from_dict(MINIMAL).to_yaml())
    assert values["pool"]["balance"] == "row"
    assert values["stages"][0]["interval"] == "auto"
