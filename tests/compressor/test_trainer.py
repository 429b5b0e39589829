"""The trainer: exact resume, accumulation, masks, projected evaluation, other encoders, model directory."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    DataCollatorWithPadding,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTModel,
)

from compressor.attention_maps import map_pruning_of
from compressor.distillation import load_teacher
from compressor.encoding import EncodedRows
from compressor.masks import FixedMasks
from compressor.model_dir import (
    ModelDirError,
    check_model,
    describe,
    load_model_dir,
    read_compression,
    write_model_dir,
)
from compressor.recipes import Recipe, RecipeError
from compressor.stage_callback import latest_checkpoint
from compressor.stage_checkpoint import STATE_FILE, CheckpointError
from compressor.stages import StageState
from compressor.starting_model import load_model
from compressor.structures import Dense, Pattern
from compressor.targets import target_layers
from compressor.task_metrics import compute_metrics
from compressor.tasks import load_task
from compressor.tiny_model import build_tiny_model
from compressor.trainer import CompressionTrainer, training_arguments
from compressor.training_run import run_training


@pytest.fixture(scope="module")
def data():
    return load_task("synthetic", train_rows=64, validation_rows=40)


def recipe_of(*stages, **training):
    return Recipe.from_dict({
        "schema_version": 1, "pool": {"size": 24},
        "training": {"learning_rate": 1e-3, "batch": 16, "max_tokens": 24, **training},
        "stages": list(stages)})


def three_stages(coupling="loss", **training):
    """4 + 8 + 4 steps, an ADMM interval every 3."""
    return recipe_of({"method": "dense", "epochs": 1},
                     {"method": "admm", "epochs": 2, "interval": 3, "coupling": coupling, "rho": 0.1},
                     {"method": "retrain", "epochs": 1}, **training)


def trainer_of(recipe, data, folder, model=None, given_maps=None, **changes):
    tiny, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    return CompressionTrainer(
        model or tiny, training_arguments(recipe, folder, use_cpu=True, **changes), recipe=recipe,
        given_maps=given_maps, train_dataset=EncodedRows(data.task, data.train, tokenizer, 24),
        eval_dataset=EncodedRows(data.task, data.validation["validation"], tokenizer, 24),
        data_collator=DataCollatorWithPadding(tokenizer), processing_class=tokenizer,
        compute_metrics=lambda found: compute_metrics(data.task, found.predictions, found.label_ids))


def dropout(model, share=0.1):
    """Dropout uses the random generator, which resuming must bring back too."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
    return model


class StopAfter:
    """Asks a trainer to stop after a step, as Ctrl-C does."""

    def __init__(self, trainer, step):
        inner = trainer.training_step

        def training_step(*args, **kwargs):
            trainer.stop_requested = trainer.state.global_step + 1 == step
            return inner(*args, **kwargs)

        trainer.training_step = training_step


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_interrupted_run_equals_uninterrupted(coupling, data, tmp_path):
    """Stopped within every stage, at a stage's end and between two dual updates."""
    recipe = three_stages(coupling)
    whole = trainer_of(recipe, data, tmp_path / "whole")
    dropout(whole.model)
    whole.train()
    stops = (2, 4, 8, 12, 14)
    for step in stops:
        part = trainer_of(recipe, data, tmp_path / "parts")
        dropout(part.model)
        StopAfter(part, step)
        part.train(resume_from_checkpoint=True if step != stops[0] else None)
        assert part.state.global_step == step
    last = trainer_of(recipe, data, tmp_path / "parts")
    dropout(last.model)
    last.train(resume_from_checkpoint=True)
    assert last.state.global_step == whole.state.global_step == 16
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, last.model.state_dict()[name]), name
    for kind in ("admm_dual_norm", "admm_primal_residual", "frozen_retained_energy", "eval_loss"):
        series = [[record[kind] for record in trainer.state.log_history if kind in record]
                  for trainer in (whole, last)]
        assert series[0] == series[1] != [], kind


def test_pruned_maps_survive_an_interruption_and_the_model_directory(data, tmp_path):
    """Maps are whole while the weights are; the run then goes on as if it had not been interrupted."""
    recipe = Recipe.from_dict(three_stages().to_dict() | {"attention_maps": {"size": 6, "rows": 20}})
    whole = trainer_of(recipe, data, tmp_path / "whole")
    whole.train()
    for step in (3, 7, None):
        part = trainer_of(recipe, data, tmp_path / "parts")
        if step:
            StopAfter(part, step)
        part.train(resume_from_checkpoint=True if step != 3 else None)
        assert (part.stages.map_pruning is None) == (step == 3)
        assert (map_pruning_of(part.model)[0] is None) == (step == 3)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, part.model.state_dict()[name]), name
    logs = [record for record in whole.state.log_history if "map_patterns" in record]
    assert [(record["step"], record["map_patterns"]) for record in logs] == [(4, 6)]
    assert 0.5 < logs[0]["map_retained_weights"] < 1
    pruning = whole.stages.map_pruning
    assert {tuple(pattern) for pattern in pruning.patterns.tolist()} < {
        tuple(pattern) for pattern in whole.stages.structure.pool.patterns.tolist()}

    whole.finalize()
    info = describe(whole.model, structure=whole.stages.structure, pruned=whole.stages.weights,
                    task=data.task, max_tokens=24, map_pruning=pruning)
    write_model_dir(tmp_path / "out", model=whole.model, tokenizer=whole.processing_class, info=info,
                    recipe=recipe, metrics={})
    model, tokenizer, read = load_model_dir(tmp_path / "out")
    np.testing.assert_array_equal(read.map_pruning.patterns, pruning.patterns)
    assert read.map_pruning.power == 1
    batch = tokenizer(["good bad very good", "not bad"], padding=True, return_tensors="pt")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        trained = whole.model.eval()(**batch).logits
        assert torch.equal(model.eval()(**batch).logits, trained)
        assert not torch.equal(plain(**batch).logits, trained)


def test_a_recipe_that_prunes_no_weights_prunes_maps_from_the_start(data, tmp_path):
    recipe = Recipe.from_dict(recipe_of({"method": "dense", "epochs": 1}).to_dict()
                              | {"attention_maps": {"power": 2}})
    trainer = trainer_of(recipe, data, tmp_path)
    StopAfter(trainer, 1)
    trainer.train()
    assert trainer.stages.map_pruning.power == 2
    patterns = trainer.stages.map_pruning.patterns
    assert len(patterns) == 8
    assert (patterns.reshape(8, 4, 4).sum(axis=2) == 2).all()


def test_dual_variables_are_in_the_checkpoint(data, tmp_path):
    trainer = trainer_of(three_stages(), data, tmp_path)
    StopAfter(trainer, 11)
    trainer.train()
    u = {name: value.clone() for name, value in trainer.stages.method.u.items()}
    assert sum(float(value.abs().sum()) for value in u.values()) > 0
    other = StageState(build_tiny_model(data.task, data.train, max_tokens=24)[0], trainer.recipe)
    other.load(latest_checkpoint(tmp_path))
    assert other.stage == "admm"
    assert other.method.updates == 2
    assert other.structure == trainer.stages.structure
    assert all(torch.equal(u[name], other.method.u[name]) for name in u)


def test_checkpoints_that_do_not_fit_are_refused(data, tmp_path):
    with pytest.raises(CheckpointError, match="no complete checkpoint to resume from"):
        latest_checkpoint(tmp_path)
    trainer = trainer_of(three_stages(), data, tmp_path)
    StopAfter(trainer, 6)
    trainer.train()
    folder = tmp_path / "checkpoint-6"
    assert latest_checkpoint(tmp_path) == str(folder)
    (tmp_path / "checkpoint-9").mkdir()  # interrupted while saving
    assert latest_checkpoint(tmp_path) == str(folder)
    only_attention = StageState(build_tiny_model(data.task, data.train, max_tokens=24)[0], Recipe.from_dict(
        trainer.recipe.to_dict() | {"targets": {"roles": ["ffn2"]}}))
    only_attention.load(folder)  # fewer layers are all there
    raw = (folder / STATE_FILE).read_bytes()
    for damaged in (raw[:len(raw) // 2], b"", b"pickle"):
        (folder / STATE_FILE).write_bytes(damaged)
        with pytest.raises(CheckpointError, match="not the state of this recipe and model"):
            trainer.stages.load(folder)


def test_accumulation_changes_nothing(data, tmp_path):
    """Batch 16 = 4 x 4 rows: the same weights, up to rounding, and the same logged loss and penalty."""
    found = []
    for name, batch, accumulation in (("a", 16, 1), ("b", 4, 4)):
        recipe = recipe_of({"method": "admm", "epochs": 1, "interval": 2, "rho": 0.5}, batch=batch,
                           gradient_accumulation=accumulation, learning_rate=1e-4)
        trainer = trainer_of(recipe, data, tmp_path / name, logging_steps=1)
        # Rows in their own order, so that both see the same rows in a step.
        trainer._get_train_sampler = lambda dataset=None: torch.utils.data.SequentialSampler(range(64))
        trainer.train()
        found.append((trainer.state.log_history, trainer.model.state_dict()))
    (logs_a, weights_a), (logs_b, weights_b) = found
    for key in ("loss", "grad_norm", "admm_penalty_gradient_norm"):
        a, b = ([record[key] for record in logs if key in record] for logs in (logs_a, logs_b))
        assert len(a) == len(b) > 0
        assert np.allclose(a, b, rtol=1e-3), key
    assert all(torch.allclose(weights_a[name], weights_b[name], atol=3e-5) for name in weights_a)


@pytest.mark.parametrize("gradients", ["masked", "leaking"])
def test_masks_hold_while_retraining(gradients, data, tmp_path, monkeypatch):
    """Two safeguards, each enough: gradients of removed weights are zero, and the weights are masked."""
    if gradients == "leaking":
        monkeypatch.setattr(FixedMasks, "apply_to_gradients", lambda self: None)
    trainer = trainer_of(three_stages(weight_decay=0.1), data, tmp_path)
    seen = []
    inner = trainer.stages.after_optimizer_step

    def after_step(*args):
        inner(*args)
        if isinstance(trainer.stages.method, FixedMasks):
            seen.append(all((weight[~trainer.stages.method.masks[name]] == 0).all()
                            for name, weight in trainer.stages.weights.items()))

    trainer.stages.after_optimizer_step = after_step
    trainer.train()
    assert seen == [True] * 4
    trainer.finalize()
    for weight in trainer.stages.weights.values():
        trainer.stages.structure.verify(weight.detach())
        assert int((weight != 0).sum()) == weight.numel() // 2


def test_gradients_of_removed_weights_do_not_count_when_clipping(data, tmp_path):
    trainer = trainer_of(recipe_of({"method": "retrain", "epochs": 1}), data, tmp_path)
    inner, seen = trainer._clip_grad_norm, []

    def clip(model):
        weights, masks = trainer.stages.weights, trainer.stages.method.masks
        kept = [weight.grad[masks[name]] for name, weight in weights.items()]
        pruned = {id(weight) for weight in weights.values()}
        kept += [p.grad.flatten() for p in model.parameters() if p.grad is not None and id(p) not in pruned]
        seen.append((float(torch.cat(kept).norm()), float(inner(model))))
        return torch.tensor(seen[-1][1])

    trainer._clip_grad_norm = clip
    trainer.train()
    assert len(seen) == 4
    assert all(own == pytest.approx(reported, rel=1e-5) for own, reported in seen)


def test_evaluation_is_on_the_projected_model(data, tmp_path):
    recipe = recipe_of({"method": "admm", "epochs": 1, "interval": 2})
    trainer = trainer_of(recipe, data, tmp_path)
    StopAfter(trainer, 2)
    trainer.train()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    metrics = trainer.evaluate()
    assert all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())
    dense, projected = metrics["eval_dense_loss"], metrics["eval_loss"]
    assert dense != projected
    trainer.finalize()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(projected, rel=1e-6)
    assert "eval_dense_loss" not in trainer.evaluate()


def test_several_validation_splits(data, tmp_path):
    trainer = trainer_of(three_stages(), data, tmp_path)
    trainer.eval_dataset = {"one": trainer.eval_dataset, "two": trainer.eval_dataset}
    trainer.train()
    metrics = trainer.final_metrics()
    assert metrics["eval_one_accuracy"] == metrics["eval_two_accuracy"]
    assert {"eval_one_dense_accuracy", "eval_two_dense_accuracy"} <= set(metrics)


def test_dense_recipe_prunes_nothing(data, tmp_path):
    recipe = recipe_of({"method": "dense", "epochs": 1})
    result = run_training(recipe, model_name="tiny", data=data, out=tmp_path / "out")
    info = read_compression(tmp_path / "out")
    assert info.pool is None
    assert {layer.structure for layer in info.layers.values()} == {"dense"}
    assert info.structure_of("encoder.layer.0.output.dense") == Dense()
    assert "eval_accuracy" in result.metrics
    assert "eval_dense_accuracy" not in result.metrics


def test_warnings_say_what_will_not_converge(data, tmp_path):
    recipe = recipe_of({"method": "admm", "epochs": 1, "learning_rate": 1e-6})
    first, second = trainer_of(recipe, data, tmp_path).warnings
    assert first.startswith("stage admm: 4 steps hold 0 ADMM intervals; 10 or more are usual")
    assert "the learning rates of the ADMM stage add up to" in second


def test_stages_of_admm_are_warned_of_together(data, tmp_path):
    """Of several stages with a growing rho only the last has to close the gap."""
    first = {"method": "admm", "name": "choose", "epochs": 5, "interval": 4, "coupling": "decoupled",
             "rho": 1e-3}
    for rho, intervals, expected in (
            (0.5, 4, []), (1e-3, 4, [r"stage close: ADMM closes only 1 % of the gap in 20 steps"]),
            (0.5, 5, [r"stage choose and close: 40 steps hold 9 ADMM intervals; 10 or more .* interval: 4"])):
        last = first | {"name": "close", "rho": rho, "interval": intervals}
        found = trainer_of(recipe_of(first, last), data, tmp_path).warnings
        assert len(found) == len(expected)
        assert all(re.match(*pair) for pair in zip(expected, found, strict=True))


def test_fp16_is_refused(data, tmp_path):
    recipe = three_stages()
    arguments = training_arguments(recipe, tmp_path, use_cpu=True)
    arguments.fp16 = True
    with pytest.raises(ValueError, match="use bf16"):
        CompressionTrainer(build_tiny_model(data.task, data.train, max_tokens=24)[0], arguments,
                           recipe=recipe)


def test_bfloat16_is_in_the_products_alone(data, tmp_path):
    recipe = three_stages(precision="bfloat16")
    trainer = trainer_of(recipe, data, tmp_path)
    linear = trainer.model.base_model.encoder.layer[0].output.dense
    seen = set()
    linear.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    assert trainer.model.config._attn_implementation == "eager"  # fused, a step takes up to twice as long
    trainer.train()
    assert seen == {torch.bfloat16}
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    assert {tensor.dtype for tensor in (*trainer.model.parameters(), *moments)} == {torch.float32}
    assert (linear.weight != 0).float().mean() == 0.5
    assert (linear.weight != linear.weight.bfloat16()).float().mean() > 0.4  # no copy of rounded weights


def test_files_of_half_precision_are_trained_in_float32(data, tmp_path):
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    model.half().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    student, _ = load_model(tmp_path, data, three_stages())
    teacher = load_teacher(tmp_path, student)
    for loaded in (student, teacher):
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize(("kind", "positions"), [("roberta", 39), ("distilbert", 40)])
def test_positions_that_an_architecture_keeps_for_padding_are_no_tokens(kind, positions, data, tmp_path):
    _, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    ENCODERS[kind]().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    load_model(tmp_path, data, three_stages(max_tokens=positions))
    with pytest.raises(RecipeError, match=rf"tokens is {positions + 1}, .* has positions for {positions}$"):
        load_model(tmp_path, data, three_stages(max_tokens=positions + 1))


def test_a_seed_decides_everything_of_a_run(data, tmp_path):
    """The new head of an encoder too, whatever random numbers were drawn before."""
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    model.base_model.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    trained = []
    for number, seed in enumerate((3, 3, 4)):
        torch.rand(number)
        out = tmp_path / str(number)
        recipe = recipe_of({"method": "retrain", "epochs": 1}, seed=seed)
        run_training(recipe, model_name=str(tmp_path / "encoder"), data=data, out=out)
        trained.append(AutoModelForSequenceClassification.from_pretrained(out).state_dict())
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name
    assert not torch.equal(trained[0]["classifier.weight"], trained[2]["classifier.weight"])


SMALL = {"vocab_size": 60, "num_labels": 2}
ENCODERS = {
    "bert": lambda: BertModel(BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=60)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40, pad_token_id=0, **SMALL)),  # as the tokenizer has it
    "distilbert": lambda: DistilBertForSequenceClassification(DistilBertConfig(
        dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=40, **SMALL)),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_roles_are_found_by_module(kind):
    targets = target_layers(ENCODERS[kind]())
    assert [target.role for target in targets.values()] == ["q", "k", "v", "o", "ffn1", "ffn2"] * 2
    shapes = [tuple(target.module.weight.shape) for target in targets.values()][:6]
    assert shapes == [(16, 16)] * 4 + [(32, 16), (16, 32)]
    first = next(iter(targets))
    assert first == {"distilbert": "transformer.layer.0.attention.q_lin"}.get(
        kind, "encoder.layer.0.attention.self.query")
    assert len(target_layers(ENCODERS[kind](), ("v", "ffn2"))) == 4


def test_models_without_known_layers_are_refused():
    model = ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                               intermediate_size=32, image_size=8, patch_size=4))
    with pytest.raises(ValueError, match="ViTModel has no encoder layers of a known kind; BERT, RoBERTa"):
        target_layers(model)


def test_sizes_that_do_not_divide_name_the_layer(data):
    model = BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                 intermediate_size=30, vocab_size=60))
    with pytest.raises(ValueError, match=r"^encoder\.layer\.0\.intermediate\.dense: .* do not divide"):
        StageState(model, three_stages())


@pytest.mark.parametrize("kind", ["roberta", "distilbert"])
def test_other_encoders_train_and_reload(kind, data, tmp_path):
    recipe = recipe_of({"method": "admm", "epochs": 0.5, "interval": 1},
                       {"method": "retrain", "epochs": 0.5})
    trainer = trainer_of(recipe, data, tmp_path, model=ENCODERS[kind]())
    trainer.train()
    trainer.finalize()
    info = describe(trainer.model, structure=trainer.stages.structure, pruned=trainer.stages.weights,
                    task=data.task, max_tokens=24)
    write_model_dir(tmp_path, model=trainer.model, tokenizer=trainer.processing_class, info=info,
                    recipe=recipe, metrics={})
    check_model(AutoModelForSequenceClassification.from_pretrained(tmp_path), read_compression(tmp_path))


def test_model_directory_is_a_plain_hugging_face_one(data, tmp_path):
    recipe = Recipe.from_dict(three_stages().to_dict() | {"targets": {"roles": ["q", "ffn1"]}})
    out = tmp_path / "out"
    result = run_training(recipe, model_name="tiny", data=data, out=out)
    assert result.finished
    assert (result.step, result.steps) == (16, 16)
    model = AutoModelForSequenceClassification.from_pretrained(out)
    info = read_compression(out)
    check_model(model, info)
    assert [layer.structure for layer in info.layers.values()] == (
        ["pattern", "dense", "dense", "dense", "pattern", "dense"] * 2)
    assert (info.task, info.max_tokens) == (data.task, 24)
    assert Recipe.from_yaml(out / "recipe.yaml") == recipe
    metrics = json.loads((out / "metrics.json").read_text())
    made_with = metrics["made_with"]
    assert (made_with["training_rows"], made_with["processes"]) == (64, 1)
    assert made_with["versions"]["torch"] == torch.__version__
    assert {"python", "hwgen", "transformers", "accelerate"} < made_with["versions"].keys()
    assert metrics == result.metrics
    assert metrics["encoder_weights"] == 2 * (4 * 64 * 64 + 2 * 64 * 256)
    pruned = 2 * (64 * 64 + 64 * 256)
    assert metrics["encoder_weights"] - metrics["nonzero_weights"] == pruned // 2
    kinds = [set(json.loads(line)) for line in (out / "train_log.jsonl").read_text().splitlines()]
    assert any("admm_mask_similarity" in kind for kind in kinds)
    assert any("frozen_retained_energy" in kind for kind in kinds)
    assert not (out / "checkpoints").exists()
    assert not list(out.glob(".*"))


def test_broken_model_directories_are_named(data, tmp_path):
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    state = StageState(model, three_stages())
    state.enter(state.recipe.stages[2])
    info = describe(model, structure=state.structure, pruned=state.weights, task=data.task, max_tokens=24)
    assert info.structure_of("encoder.layer.1.output.dense") == Pattern(info.pool)
    write = {"model": model, "tokenizer": tokenizer, "recipe": state.recipe, "metrics": {}}
    write_model_dir(tmp_path / "good", info=info, **write)
    assert read_compression(tmp_path / "good") == info

    target_layers(model)["encoder.layer.1.output.dense"].module.weight.data[5, 9] += 1.0
    target_layers(model)["encoder.layer.1.output.dense"].module.weight.data[4:8, 8:12] += 1.0
    with pytest.raises(ModelDirError, match=r"^encoder\.layer\.1\.output\.dense: the block at rows 4-7, "
                                            r"columns 8-11 fits none of the 24 patterns"):
        write_model_dir(tmp_path / "bad", info=info, **write)
    assert not (tmp_path / "bad").exists()
    layers = dict(info.layers)
    layers["encoder.layer.0.output.dense"] = replace(layers["encoder.layer.0.output.dense"], shape=(8, 8))
    with pytest.raises(ModelDirError, match=r"^encoder\.layer\.0\.output\.dense: shape \(64, 256\)"):
        check_model(model, replace(info, layers=layers))
    del layers["encoder.layer.0.output.dense"]
    with pytest.raises(ModelDirError, match=r"differ from compression\.json: encoder\.layer\.0\.output"):
        check_model(model, replace(info, layers=layers))

    path = tmp_path / "good" / "compression.json"
    good = json.loads(path.read_text())
    for damage, message in [({"schema_version": 2}, "version 2; this program reads"),
                            ({"pool": None}, "has structure pattern, but the file describes dense"),
                            ({"pool": {"patterns": ["11"], "keep": 8, "balance": "row"}}, "damaged"),
                            ({"attention_maps": {"patterns": ["1" * 12 + "0" * 4], "power": 1}},
                             "damaged: ValueError: map pattern 0 keeps no key of one of its queries"),
                            ({"layers": 3}, "damaged")]:
        path.write_text(json.dumps(good | damage))
        with pytest.raises(ModelDirError, match=message):
            read_compression(tmp_path / "good")
    path.write_text("{")
    with pytest.raises(ModelDirError, match="damaged"):
        read_compression(tmp_path / "good")
    path.unlink()
    with pytest.raises(ModelDirError, match=r"no compression\.json; it is not, or not yet, the output"):
        read_compression(tmp_path / "good")


@pytest.mark.nightly
@pytest.mark.parametrize("preset", ["demo", "demo-maps"])
def test_demo_recipe_learns_the_task_and_pruning_keeps_it(preset, tmp_path):
    """About a minute: over 95 % before and after half the weights, or maps as well, are gone."""
    result = run_training(Recipe.preset(preset), model_name="tiny", data=load_task("synthetic"),
                          out=tmp_path / "out")
    assert result.metrics["eval_dense_accuracy"] > 0.95
    assert result.metrics["eval_accuracy"] > 0.95
    assert result.metrics["nonzero_weights"] == result.metrics["encoder_weights"] // 2
