"""Other structures and stages than ADMM patterns: N:M, unstructured, SR-STE, error-aware projections."""

import itertools
import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from compressor.activation_norms import input_norms
from compressor.admm import AdmmState
from compressor.model_dir import ModelDirError, check_model, read_compression
from compressor.recipes import Recipe, RecipeError
from compressor.sr_ste import SrSteState
from compressor.stages import StageState
from compressor.structures import NM, Unstructured
from compressor.targets import target_layers
from compressor.tasks import load_task
from compressor.tiny_model import build_tiny_model
from compressor.training_run import run_training
from tests.compressor.test_trainer import ENCODERS, StopAfter, dropout, trainer_of


@pytest.fixture(scope="module")
def data():
    return load_task("synthetic", train_rows=64, validation_rows=40)


NM_SECTION = {"kind": "nm", "keep": 2, "group": 4}
ADMM = {"method": "admm", "epochs": 1, "interval": 2, "rho": 0.1}
SR_STE = {"method": "sr_ste", "epochs": 1}
GRADUAL = {"method": "gradual", "epochs": 2, "interval": 2}
RETRAIN = {"method": "retrain", "epochs": 1}


def recipe_of(structure, *stages, **sections):
    """4 steps an epoch of 64 rows."""
    return Recipe.from_dict({
        "schema_version": 1, "structure": structure, "stages": list(stages),
        "training": {"learning_rate": 1e-3, "batch": 16, "max_tokens": 24}} | sections)


def assert_resumes_exactly(recipe, data, folder, stops):
    """Interrupted after each of ``stops``, a run ends with the weights and logs of an uninterrupted one."""
    whole = trainer_of(recipe, data, folder / "whole", logging_steps=3)
    dropout(whole.model)
    whole.train()
    for step in (*stops, whole.schedule.steps):
        part = trainer_of(recipe, data, folder / "parts", logging_steps=3)
        dropout(part.model)
        StopAfter(part, step)
        part.train(resume_from_checkpoint=True if step != stops[0] else None)
        assert part.state.global_step == step
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, part.model.state_dict()[name]), name
    # Means over the steps since the last record start anew in a resumed run: losses, gradient norms.
    exact = ("admm_primal_residual", "admm_dual_norm", "sr_ste_flip_rate", "sr_ste_removed_norm",
             "frozen_retained_energy", "eval_loss", "eval_dense_loss", "eval_hidden_error")
    logs = [[{key: record[key] for key in exact if key in record} for record in trainer.state.log_history
             if record.keys() & set(exact)] for trainer in (whole, part)]
    assert logs[0] == logs[1] != []
    return whole


@pytest.mark.parametrize(("structure", "stages", "stops"), [
    (NM_SECTION, ({"method": "dense", "epochs": 0.5}, ADMM, SR_STE | {"interval": 3}, RETRAIN), (3, 8, 12)),
    ({"kind": "unstructured"}, (ADMM, RETRAIN), (3, 5)),
    ({"kind": "pattern", "score": "activation"}, (ADMM, SR_STE), (1, 6)),
    ({"kind": "unstructured"}, (GRADUAL, RETRAIN), (2, 6)),
])
def test_interrupted_run_equals_uninterrupted(structure, stages, stops, data, tmp_path):
    whole = assert_resumes_exactly(recipe_of(structure, *stages), data, tmp_path, stops)
    series = {key for record in whole.state.log_history for key in record}
    assert ("sr_ste_flip_rate" in series) == (SR_STE in stages or len(stages) == 4)
    if structure.get("score"):
        assert all((norms > 0).all() for norms in whole.stages.norms.values())


def test_gradual_pruning_follows_the_cubic_schedule(data, tmp_path):
    """Density 1 - 0.5 (1 - (1 - t)^3), and what has been removed stays so."""
    trainer = trainer_of(recipe_of({"kind": "unstructured", "density": 0.5}, GRADUAL), data, tmp_path)
    seen, inner = [], trainer.stages.after_optimizer_step

    def after_step(*args):
        inner(*args)
        seen.append({name: weight.detach() != 0 for name, weight in trainer.stages.weights.items()})

    trainer.stages.after_optimizer_step = after_step
    trainer.train()
    kept = [float(torch.cat([mask.flatten() for mask in masks.values()]).float().mean()) for masks in seen]
    expected = [0.5 + 0.5 * (1 - step // 2 * 2 / 8) ** 3 for step in range(8)]
    assert np.allclose(kept, expected, atol=1e-3)
    assert all((later[name] <= earlier[name]).all() for earlier, later in itertools.pairwise(seen)
               for name in later)
    trainer.finalize()
    assert all(int((weight != 0).sum()) == weight.numel() // 2 for weight in trainer.stages.weights.values())


def straight_through(model, state, batch, decay):
    """``d loss(E * W) / d (E * W) + decay * (1 - E) * W`` by automatic differentiation, per weight."""
    parameters = dict(model.named_parameters())
    names = {name: next(path for path, parameter in parameters.items() if parameter is weight)
             for name, weight in state.weights.items()}
    pruned = {name: (weight.detach() * state.method.masks[name]).requires_grad_()
              for name, weight in state.weights.items()}
    loss = torch.func.functional_call(model, {names[name]: w for name, w in pruned.items()},
                                      kwargs=batch).loss
    gradients = torch.autograd.grad(loss, list(pruned.values()))
    return {name: gradient + decay * ~state.method.masks[name] * state.weights[name].detach()
            for name, gradient in zip(pruned, gradients, strict=True)}


def test_sr_ste_gradient_is_the_papers(data):
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    recipe = recipe_of(NM_SECTION, SR_STE | {"decay": 0.3})
    state = StageState(model, recipe)
    stage = recipe.stages[0]
    state.enter(stage)
    batch = dict(tokenizer([row["sentence"] for row in data.train[:8]], padding=True, return_tensors="pt"))
    batch["labels"] = torch.tensor([row["label"] for row in data.train[:8]])
    expected = straight_through(model, state, batch, 0.3)
    dense = {name: weight.detach().clone() for name, weight in state.weights.items()}
    state.before_forward(stage, 0)
    assert all(int((weight != 0).sum()) == weight.numel() // 2 for weight in state.weights.values())
    model(**batch).loss.backward()
    state.before_clipping(stage)
    for name, weight in state.weights.items():
        assert torch.equal(weight, dense[name])
        assert torch.allclose(weight.grad, expected[name], rtol=1e-4, atol=1e-7), name
        removed = ~state.method.masks[name]
        assert (weight.grad[removed] != 0).all()  # removed weights learn: straight through


def test_flip_rate_counts_changed_positions():
    weight = torch.nn.Parameter(torch.tensor([[4.0, 3, 2, 1]]).repeat(4, 1))
    state = SrSteState({"w": weight}, NM(), decay=0.0)
    state.refresh()
    with torch.no_grad():
        weight[0] = torch.tensor([4.0, 0, 0, 4])  # two of the 16 positions change
    state.refresh()
    found = state.report()
    assert found["flip_rate"] == (0 + 2 / 16) / 2
    assert found["removed_norm"] == pytest.approx((15 / 122) ** 0.5)
    assert state.report()["flip_rate"] == 0.0


@pytest.mark.parametrize("structure", [NM(), NM(4, 8), Unstructured(0.25)])
def test_admm_reaches_the_structure_on_a_convex_problem(structure):
    """f(W) = ||W - T||^2 / 2: W and Z meet, and the support is that of the projection of T."""
    target = torch.randn(8, 16, generator=torch.Generator().manual_seed(3))
    weight = torch.nn.Parameter(target.clone())
    state = AdmmState({"w": weight}, structure, rho=1.0)
    for _ in range(100):
        for _ in range(20):
            weight.grad = weight.detach() - target
            state.add_penalty_gradient()
            with torch.no_grad():
                weight.sub_(0.3 * weight.grad)
        logs = state.update()
    assert logs["primal_residual"] < 1e-3
    assert torch.allclose(state.z["w"], structure.project(target)[0], atol=1e-2)


def test_norms_are_those_of_the_real_tokens(data):
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    targets = target_layers(model)
    sentences = [row["sentence"] for row in data.train[:6]]
    batches = [dict(tokenizer(part, padding="max_length", max_length=24, return_tensors="pt"))
               for part in (sentences[:2], sentences[2:])]
    found = input_norms(model.train(), targets, batches)
    assert model.training
    with torch.no_grad():
        rows = [model.eval()(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
                for text in sentences]  # one by one, so that nothing is padded
    inputs = torch.cat([row.hidden_states[1][0] for row in rows])
    expected = inputs.square().mean(dim=0).sqrt()
    assert torch.allclose(found["encoder.layer.1.attention.self.key"], expected, rtol=1e-4)
    assert found["encoder.layer.0.output.dense"].shape == (256,)


def test_error_aware_masks_differ_and_the_output_error_is_smaller(data):
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    with torch.no_grad():  # a fresh model has equal inputs everywhere; a trained one has large channels
        model.base_model.embeddings.LayerNorm.weight[::7] = 6.0
    batch = dict(tokenizer([row["sentence"] for row in data.train], padding=True, return_tensors="pt"))
    weight = model.base_model.encoder.layer[0].attention.self.query.weight
    recipe = recipe_of(NM_SECTION | {"score": "activation"}, RETRAIN)
    before = weight.detach().clone()
    plain = NM().project(before)[0]
    state = StageState(model, recipe, first_batches=lambda rows: [batch])
    state.enter(recipe.stages[0])
    aware = weight.detach()
    with torch.no_grad():
        x = model.base_model.embeddings(batch["input_ids"])[batch["attention_mask"].bool()]
    errors = [float((x @ (before - pruned).T).square().sum()) for pruned in (aware, plain)]
    assert errors[0] < 0.95 * errors[1]


@pytest.mark.parametrize(("structure", "described", "stored", "ratio"), [
    (NM_SECTION, "2:4 along the inputs", "nm", 1.6),
    ({"kind": "nm", "keep": 4, "group": 8}, "4:8 along the inputs", "dense", 1.0),
    ({"kind": "unstructured", "density": 0.25}, "unstructured, 25 % of every matrix", "dense", 1.0),
])
def test_model_directories_of_other_structures_reload(structure, described, stored, ratio, data, tmp_path):
    result = run_training(recipe_of(structure, RETRAIN), model_name="tiny", data=data, out=tmp_path / "out")
    info = read_compression(tmp_path / "out")
    assert info.structure.description == result.metrics["structure"] == described
    assert info.pool is None
    assert {layer.structure for layer in info.layers.values()} == {info.structure.name}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    check_model(model, info)
    assert result.metrics["stored_as"] == stored
    # Of blocks with a quarter of their weights, one in a hundred has none.
    found = result.metrics["dense_int8_bits"] / result.metrics["compressed_int8_bits"]
    assert found == ratio or (structure["kind"] == "unstructured" and 1 < found < 1.01)
    kept = {"nm": 0.5, "unstructured": 0.25}[structure["kind"]]
    assert result.metrics["nonzero_weights"] == kept * result.metrics["encoder_weights"]
    with torch.no_grad():
        target_layers(model)["encoder.layer.1.output.dense"].module.weight += 1.0
    with pytest.raises(ModelDirError, match=r"^encoder\.layer\.1\.output\.dense: "):
        check_model(model, info)


def test_a_pruned_model_is_trained_further_with_its_own_masks(data, tmp_path):
    first = recipe_of(NM_SECTION, RETRAIN)
    run_training(first, model_name="tiny", data=data, out=tmp_path / "first")
    second = recipe_of({"kind": "model"}, RETRAIN)
    run_training(second, model_name=str(tmp_path / "first"), data=data, out=tmp_path / "second")
    models = [AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
              for name in ("first", "second")]
    assert read_compression(tmp_path / "second").structure == NM()
    for name, target in target_layers(models[0]).items():
        weights = target.module.weight, target_layers(models[1])[name].module.weight
        assert torch.equal(weights[0] == 0, weights[1] == 0)
        assert not torch.equal(*weights)

    some = recipe_of({"kind": "model"}, RETRAIN, targets={"roles": ["q"]})
    with pytest.raises(RecipeError, match=r"has pruned ffn1, ffn2, k, o, q, v layers, but targets\.roles "
                                          r"names q$"):
        run_training(some, model_name=str(tmp_path / "first"), data=data, out=tmp_path / "third")
    with pytest.raises(ModelDirError, match="not, or not yet, the output of compress train"):
        run_training(second, model_name="tiny", data=data, out=tmp_path / "third")


@pytest.mark.parametrize("kind", ENCODERS)
def test_recipes_can_set_dropout(kind, data, tmp_path):
    """Without dropout a model in training mode computes what it does in evaluation mode."""
    tokens = torch.randint(1, 60, (4, 9), generator=torch.Generator().manual_seed(0))
    for share, equal in ((None, False), (0, True), (0.3, False)):
        recipe = recipe_of(NM_SECTION, RETRAIN, training={"max_tokens": 24, "dropout": share})
        trainer = trainer_of(recipe, data, tmp_path, model=ENCODERS[kind]())
        trainer.set_dropout(trainer.span.stage)
        model = trainer.model
        with torch.no_grad():
            hidden = [model.train(mode)(tokens, output_hidden_states=True).hidden_states[-1]
                      for mode in (True, False)]
        assert torch.equal(*hidden) == equal
        assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {
            0.1 if share is None else share, *({0.2} if kind == "distilbert" and share is None else ())}


def test_a_stage_can_have_a_dropout_of_its_own(data, tmp_path):
    """Before and after it the model has its own again; an interruption in any stage changes nothing."""
    recipe = recipe_of(NM_SECTION, {"method": "dense", "epochs": 1},
                       {"method": "admm", "epochs": 1, "interval": 2, "dropout": 0.3}, RETRAIN)
    whole = assert_resumes_exactly(recipe, data, tmp_path, (2, 6, 9))
    shares = []
    for span in whole.schedule.spans:
        whole.set_dropout(span.stage)
        shares.append({module.p for module in whole.model.modules() if isinstance(module, torch.nn.Dropout)})
    assert shares == [{0.1}, {0.3}, {0.1}]
    always = recipe_of(NM_SECTION, {"method": "dense", "epochs": 1, "dropout": 0.1},
                       {"method": "admm", "epochs": 1, "interval": 2, "dropout": 0.1}, RETRAIN)
    other = trainer_of(always, data, tmp_path / "always")
    dropout(other.model)
    other.train()
    assert any(not torch.equal(value, other.model.state_dict()[name])
               for name, value in whole.model.state_dict().items())


def test_groups_that_do_not_divide_name_the_layer(data):
    model, _ = build_tiny_model(data.task, data.train, max_tokens=24)
    with pytest.raises(ValueError, match=r"^encoder\.layer\.0\.attention\.self\.query: 64 inputs do not "
                                         r"divide into groups of 24; choose"):
        StageState(model, recipe_of({"kind": "nm", "keep": 2, "group": 24}, RETRAIN))


def test_older_model_directories_are_read(data, tmp_path):
    """Before there were other structures, compression.json had no section for them."""
    run_training(recipe_of({"kind": "pattern"}, RETRAIN), model_name="tiny", data=data, out=tmp_path / "out")
    path = tmp_path / "out" / "compression.json"
    values = json.loads(path.read_text())
    assert values.pop("structure") is None
    before = read_compression(tmp_path / "out").structure
    path.write_text(json.dumps(values))
    assert read_compression(tmp_path / "out").structure == before
    assert np.array_equal(before.pool.patterns.sum(axis=1), np.full(32, 8))
