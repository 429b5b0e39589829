"""Dense bundles projected by recipes: the structure, what it keeps, and what cannot be projected."""

from dataclasses import replace

import numpy as np
import pytest

from compressor.bundle import check_bundle
from compressor.recipe_projection import project_bundle
from compressor.recipes import Recipe, RecipeError
from tests.bundles import random_bundle, random_encoder_bundle

STAGES = [{"method": "retrain", "epochs": 1}]


def recipe(stages=STAGES, **sections):
    return Recipe.from_dict({"schema_version": 1, **sections, "stages": stages})


@pytest.fixture(scope="module")
def dense():
    return random_encoder_bundle(hidden=32, heads=2, ffn=64, layers=1, structure="dense", outliers=True)


@pytest.mark.parametrize(("sections", "stored", "share"), [
    ({}, {"pattern"}, 0.5),
    ({"pool": {"build": "greedy", "size": 16, "keep": 4, "balance": "row"}}, {"pattern"}, 0.25),
    ({"structure": {"kind": "nm", "keep": 2, "group": 4}}, {"nm"}, 0.5),
    ({"structure": {"kind": "blocks", "rows": 8, "columns": 4, "density": 0.25}}, {"dense"}, 0.25),
    ({"targets": {"roles": ["ffn1", "ffn2"]}}, {"pattern", "dense"}, 0.75),
    ({"budget": {"weight_kib": 6}}, {"pattern", "dense"}, None)])
def test_what_a_recipe_keeps(dense, sections, stored, share):
    pruned, energy = project_bundle(dense, recipe(**sections))
    check_bundle(pruned)
    assert {layer.structure for layer in pruned.layers.values()} == stored
    if share is not None:
        assert pruned.kept_weights == pytest.approx(share * pruned.weights)
    kept = total = 0.0
    for name, old in dense.layers.items():
        before, _ = dense.folding(name).unfold(old)
        after, _ = pruned.folding(name).unfold(pruned.layers[name])
        near = np.where(after != 0, before, 0)
        assert np.abs(near - after).max() <= 0.02 * np.abs(before).max()
        kept, total = kept + np.square(near).sum(), total + np.square(before).sum()
    assert energy == pytest.approx(kept / total, abs=2e-3)
    assert pruned.kept_weights / pruned.weights < energy < 1


def test_more_patterns_and_weaker_balance_keep_more(dense):
    def energy(size, balance):
        return project_bundle(dense, recipe(pool={"size": size, "balance": balance}))[1]
    assert energy(8, "row") < energy(64, "row") < energy(64, "none")


@pytest.mark.parametrize(("change", "problem"), [
    ({"attention_maps": {"size": 8}}, "attention maps are not projected"),
    ({"structure": {"kind": "model"}}, "training decides what is removed"),
    ({"structure": {"kind": "nm", "keep": 2, "group": 4, "score": "activation"}}, "inputs of sentences"),
    ({"stages": [{"method": "retrain", "epochs": 1, "fit_rows": 8}]}, "fit_rows needs the inputs"),
    ({"structure": {"kind": "blocks", "rows": 24, "columns": 4, "density": 0.5}}, "query: 32 rows do not"),
    ({"pool": {"build": "file", "file": "none.txt"}}, "^pool: none.txt"),
    ({"budget": {"weight_kib": 0.01}}, "cannot be met"),
    ({"structure": {"kind": "heads_rows"},
      "stages": [{"method": "learned_topk", "epochs": 1, "remaining": 0.5}]}, "training decides"),
    ({"stages": [{"method": "dense", "epochs": 1}]}, "prunes nothing")])
def test_what_cannot_be_projected(dense, change, problem):
    with pytest.raises(RecipeError, match=problem):
        project_bundle(dense, recipe(**change))


def test_a_pruned_bundle_is_refused(dense):
    with pytest.raises(RecipeError, match="pruned already"):
        project_bundle(random_bundle(hidden=16, heads=2, ffn=32, layers=1), recipe())
    with pytest.raises(RecipeError, match="attention maps"):
        project_bundle(random_encoder_bundle(hidden=32, heads=2, ffn=64, layers=1, structure="dense",
                                             map_pruning=True), recipe())
    layers = dict(dense.layers)
    assert project_bundle(replace(dense, layers=layers), recipe())[1] < 1
