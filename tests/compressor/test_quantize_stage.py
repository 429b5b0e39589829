"""The recipe stage `quantize`: resumed exactly, evaluated in integers, exported with the same integers."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from compressor.encoder_scales import SCALES_FILE, EncoderScales
from compressor.golden_model import GoldenModel
from compressor.model_dir import ModelDirError, describe, read_compression, write_model_dir
from compressor.model_export import export_model
from compressor.quantized_model import to_quantized_model, train_in_integers
from compressor.recipes import Recipe, RecipeError
from compressor.reload import encode, encoder_of
from compressor.stages import StageState
from compressor.tasks import TASKS, load_task
from compressor.tiny_model import build_tiny_model
from compressor.trainer import latest_checkpoint
from compressor.training_run import run_training
from tests.compressor.test_export import OTHERS
from tests.compressor.test_methods import assert_resumes_exactly
from tests.compressor.test_trainer import StopAfter, recipe_of, trainer_of

QUANTIZE = {"method": "quantize", "epochs": 1, "calibration_rows": 20}
ADMM = {"method": "admm", "epochs": 1, "interval": 2}
RETRAIN = {"method": "retrain", "epochs": 1}


@pytest.fixture(scope="module")
def data():
    return load_task("synthetic", train_rows=64, validation_rows=40)


def structured(structure, *stages, **training):
    return Recipe.from_dict(recipe_of(*stages, **training).to_dict() | {"structure": structure} | (
        {} if structure["kind"] == "pattern" else {"pool": {}}))


@pytest.mark.parametrize(("stages", "stops", "sections"), [
    (({"method": "dense", "epochs": 1}, QUANTIZE), (4, 6), {"distillation": {"teacher": "dense"}}),
    ((ADMM, RETRAIN, QUANTIZE), (8, 9), {}),
    ((ADMM, QUANTIZE), (3, 4, 7), {}),
], ids=["distilled", "retrained", "pruned"])
def test_interrupted_run_equals_uninterrupted(stages, stops, sections, data, tmp_path):
    """Stopped before the scales are chosen, and after."""
    recipe = Recipe.from_dict(recipe_of(*stages).to_dict() | sections)
    whole = assert_resumes_exactly(recipe, data, tmp_path, stops)
    assert whole.stages.scales is not None
    state = StageState(build_tiny_model(data.task, data.train, max_tokens=24)[0], whole.recipe)
    state.load(latest_checkpoint(tmp_path / "parts"))
    assert state.scales.to_json() == whole.stages.scales.to_json()


def finish(trainer, data, folder):
    """What `run_training` does after the last step; returns the CompressionInfo."""
    trainer.finalize()
    pruned = trainer.stages.weights if trainer.recipe.prunes else ()
    info = describe(trainer.model, structure=trainer.stages.structure, pruned=pruned, task=data.task,
                    max_tokens=24, map_pruning=trainer.stages.map_pruning)
    write_model_dir(folder, model=trainer.model, tokenizer=trainer.processing_class, info=info,
                    recipe=trainer.recipe, metrics={}, scales=trainer.stages.scales)
    return info


@pytest.mark.parametrize(("structure", "architecture", "maps"), [
    ({"kind": "pattern"}, "bert", None), ({"kind": "nm"}, "bert", None), (None, "bert", None),
    ({"kind": "pattern"}, "bert", {"size": 4}), (None, "bert", {"size": 8, "power": 2}),
    ({"kind": "pattern"}, "roberta", None), (None, "distilbert", {})])
def test_the_export_has_the_integers_that_training_saw(structure, architecture, maps, data, tmp_path):
    stages = [{"method": "retrain", "epochs": 0.5}] if structure else [{"method": "dense", "epochs": 0.5}]
    recipe = structured(structure or {"kind": "pattern"}, *stages, QUANTIZE, learning_rate=3e-3)
    recipe = Recipe.from_dict(recipe.to_dict() | {"attention_maps": maps})
    model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=24)
    if architecture != "bert":
        model = OTHERS[architecture](len(tokenizer))
    trainer = trainer_of(recipe, data, tmp_path / "checkpoints", model=model)
    trainer.train()
    sentences = [row["sentence"] for row in data.validation["validation"]]
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    batch = next(encode(tokenizer, sentences, 24, batch_size=40))
    trainer.model.eval()
    with torch.no_grad():
        seen_hidden = encoder_of(trainer.model)(**batch).last_hidden_state.numpy()
        seen = trainer.model(**batch).logits.numpy()
    accuracy = trainer.final_metrics()["eval_accuracy"]
    finish(trainer, data, tmp_path / "model")

    bundle = export_model(tmp_path / "model", tmp_path / "pruned.pt", task=data.task, rows=data.train[30:40])
    assert bundle.metrics["calibration"] == {"scales": "trained"}
    assert {layer.structure for layer in bundle.layers.values()} == {(structure or {"kind": "dense"})["kind"]}
    golden = GoldenModel.of(bundle)
    assert all((layer.attention.pruning is None) == (maps is None) for layer in bundle.encoder.layers)
    x, lengths = golden.inputs(batch)
    output = golden.encoder.compute(x, lengths)
    np.testing.assert_array_equal(np.rint(seen_hidden / golden.host.output_steps), output)
    np.testing.assert_allclose(seen, golden.logits(batch), atol=1e-5)
    labels = [row["label"] for row in data.validation["validation"]]
    assert accuracy == pytest.approx((golden.logits(batch).argmax(axis=1) == labels).mean())

    with torch.no_grad():
        np.testing.assert_allclose(to_quantized_model(bundle)(**batch).logits.numpy(), seen, atol=1e-5)
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")(**batch).logits.numpy()
    assert not np.allclose(plain, seen, atol=1e-5)
    # Other rows to calibrate on would give other scales: the trained ones are really used.
    (tmp_path / "model" / SCALES_FILE).unlink()
    other = export_model(tmp_path / "model", tmp_path / "other.pt", task=data.task, rows=data.train[30:40])
    assert any(layer.output_scale != bundle.layers[name].output_scale for name, layer in other.layers.items())


def test_a_pruned_model_is_quantized_with_its_masks(data, tmp_path):
    first = recipe_of({"method": "retrain", "epochs": 0.5})
    run_training(first, model_name="tiny", data=data, out=tmp_path / "pruned")
    pruned = str(tmp_path / "pruned")
    with pytest.raises(RecipeError, match=r"is pruned, and this recipe would undo it; set structure: \{kind: "
                                          r"model\}"):
        run_training(recipe_of(QUANTIZE), model_name=pruned, data=data, out=tmp_path / "refused")
    recipe = structured({"kind": "model"}, QUANTIZE, weight_decay=0.1)
    result = run_training(recipe, model_name=pruned, data=data, out=tmp_path / "out")
    assert result.metrics["nonzero_weights"] * 2 == result.metrics["encoder_weights"]
    before, after = (AutoModelForSequenceClassification.from_pretrained(tmp_path / name).state_dict()
                     for name in ("pruned", "out"))
    for name in read_compression(tmp_path / "out").layers:
        one, other = before[f"bert.{name}.weight"], after[f"bert.{name}.weight"]
        assert torch.equal(one == 0, other == 0)
        assert not torch.equal(one, other)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert EncoderScales.load(tmp_path / "out", model) is not None
    assert not (tmp_path / "pruned" / SCALES_FILE).exists()


def test_a_model_with_pruned_maps_keeps_them(data, tmp_path):
    """Dense weights, so the recipe says `model` for the maps alone; another export calibrates anew."""
    dense = recipe_of({"method": "dense", "epochs": 0.5})
    recipe = Recipe.from_dict(dense.to_dict() | {"attention_maps": {}})
    run_training(recipe, model_name="tiny", data=data, out=tmp_path / "maps")
    with pytest.raises(RecipeError, match="is pruned, and this recipe would undo it"):
        run_training(recipe_of(QUANTIZE), model_name=str(tmp_path / "maps"), data=data, out=tmp_path / "no")
    run_training(structured({"kind": "model"}, QUANTIZE), model_name=str(tmp_path / "maps"), data=data,
                 out=tmp_path / "out")
    before, after = (read_compression(tmp_path / name).map_pruning for name in ("maps", "out"))
    assert (before.patterns == after.patterns).all()
    kept, whole = (export_model(tmp_path / "out", tmp_path / "pruned.pt", task=data.task,
                                rows=data.train[:16], attention_maps=maps) for maps in (None, False))
    assert kept.metrics["calibration"] == {"scales": "trained"}
    assert whole.metrics["calibration"] == {"rows": 16}
    assert [bundle.encoder.layers[0].attention.pruning is None for bundle in (kept, whole)] == [False, True]


def test_scales_that_do_not_fit_are_named(data, tmp_path):
    run_training(recipe_of(QUANTIZE), model_name="tiny", data=data, out=tmp_path / "out")
    path = tmp_path / "out" / SCALES_FILE
    values = json.loads(path.read_text())
    values["layers"].pop()
    path.write_text(json.dumps(values))
    with pytest.raises(ModelDirError, match=r"activation_scales.json: scales of 1 layers; the model has 2; "
                                            r"delete it to calibrate again"):
        export_model(tmp_path / "out", tmp_path / "x.pt", task=TASKS["synthetic"], rows=data.train[:4])


def test_stopping_in_the_stage_keeps_the_float_model(data, tmp_path):
    """The checkpoint is a plain model too, and forward passes stay in integers until the end."""
    trainer = trainer_of(recipe_of(QUANTIZE), data, tmp_path)
    StopAfter(trainer, 2)
    trainer.train()
    checkpoint = AutoModelForSequenceClassification.from_pretrained(latest_checkpoint(tmp_path))
    for name, value in checkpoint.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[name])
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    with torch.no_grad():
        integers = trainer.model.eval()(**batch).logits
        trainer.finalize()
        floats = trainer.model(**batch).logits
        train_in_integers(checkpoint, trainer.stages.scales)
        again = checkpoint(**batch).logits
    assert torch.equal(integers, again)
    assert not torch.equal(integers, floats)
    assert (integers - floats).abs().max() < 0.2 * floats.abs().max()


def test_no_stage_follows_quantize():
    with pytest.raises(RecipeError, match=r"stages run in the order .*, quantize, not quantize, retrain"):
        recipe_of(QUANTIZE, RETRAIN)
    with pytest.raises(RecipeError, match=r"stages\.0\.calibration_rows: .* greater than or equal to 1"):
        recipe_of(QUANTIZE | {"calibration_rows": 0})


def test_hidden_states_and_maps_are_near_the_float_models(data, tmp_path):
    """What distillation compares: every layer's states, and maps whose rows sum to one."""
    trainer = trainer_of(recipe_of(QUANTIZE), data, tmp_path)
    trainer.model.set_attn_implementation("eager")
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(16)])
    batch.pop("labels")
    trainer.model.eval()
    with torch.no_grad():
        real = trainer.model(**batch, output_hidden_states=True, output_attentions=True)
        trainer.enter_integers(trainer.recipe.stages[0])
        found = trainer.model(**batch, output_hidden_states=True, output_attentions=True)
        plain = trainer.model(**batch)
    valid = batch["attention_mask"].bool()
    assert (len(found.hidden_states), len(found.attentions)) == (3, 2)
    for one, other in zip(real.hidden_states, found.hidden_states, strict=True):
        assert (one - other)[valid].norm() < 0.05 * one[valid].norm()
    for one, other in zip(real.attentions, found.attentions, strict=True):
        rows = other.sum(dim=-1).movedim(1, -1)
        assert torch.allclose(rows[valid], torch.ones(()))
        assert not rows[~valid].any()
        assert (one - other).movedim(1, -2)[valid].abs().max() < 0.05
    assert (plain.hidden_states, plain.attentions) == (None, None)
    assert torch.equal(plain.logits, found.logits)
