"""Distillation: the loss against a hand computation, exact resume, teachers that do not fit."""

import re

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel
from transformers.modeling_outputs import SequenceClassifierOutput

from compressor.attention_maps import map_pruning_of
from compressor.distillation import Distiller, hidden_loss, load_teacher
from compressor.intops.map_pruning import IntegerMapPruning
from compressor.recipe_sections import Distillation
from compressor.recipes import Recipe, RecipeError
from compressor.stage_checkpoint import CheckpointError
from compressor.tasks import load_task
from compressor.tiny_model import build_tiny_model
from compressor.training_run import run_training
from tests.compressor.test_methods import RETRAIN, assert_resumes_exactly, recipe_of
from tests.compressor.test_trainer import StopAfter, trainer_of

DENSE = {"method": "dense", "epochs": 1}


@pytest.fixture(scope="module")
def data():
    return load_task("synthetic", train_rows=64, validation_rows=40)


def bert(layers=2, seed=0, kind=BertForSequenceClassification, **changes):
    torch.manual_seed(seed)
    return kind(BertConfig(**{
        "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 12, "attn_implementation": "eager",
        "initializer_range": 0.3} | changes))


def batch_of_two():
    """Two sentences of 7 and 4 tokens."""
    tokens = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(tokens)
    mask[1, 4:] = 0
    return {"input_ids": tokens * mask, "attention_mask": mask, "labels": torch.tensor([0, 1])}


@pytest.mark.parametrize("teacher_layers", [2, 4])
def test_loss_is_the_sum_of_its_parts(teacher_layers):
    """Each part again, sentence by sentence without padding; a layer learns from the last of its share."""
    student, teacher = bert(2, 0).eval(), bert(teacher_layers, 1)
    section = Distillation(labels=0.5, logits=2.0, temperature=3.0, hidden=0.7, attention=11.0)
    distiller = Distiller(teacher, student, section)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    batch = batch_of_two()
    loss = distiller.loss(student(**batch, **distiller.wanted), batch)

    stride = teacher_layers // 2
    kl, hidden, attention, tokens, pairs, error, size = 0.0, np.zeros(3), np.zeros(2), 0, 0, 0.0, 0.0
    task = student(**batch).loss.item()
    for row, length in ((0, 7), (1, 4)):
        inputs = {"input_ids": batch["input_ids"][row:row + 1, :length], "output_hidden_states": True,
                  "output_attentions": True}
        with torch.no_grad():
            own, other = student(**inputs), teacher(**inputs)
        p, q = (torch.softmax(out.logits[0].double() / 3, -1).numpy() for out in (other, own))
        kl += 9 * float((p * np.log(p / q)).sum())
        for layer, source in enumerate([0, *range(stride, teacher_layers + 1, stride)]):
            difference = own.hidden_states[layer] - other.hidden_states[source]
            hidden[layer] += float(difference.square().sum())
        for layer, source in enumerate(range(stride - 1, teacher_layers, stride)):
            attention[layer] += float((own.attentions[layer] - other.attentions[source]).square().sum())
        error += float((own.hidden_states[-1] - other.hidden_states[-1]).square().sum())
        size += float(other.hidden_states[-1].square().sum())
        tokens, pairs = tokens + length, pairs + length**2
    parts = {"labels": task, "logits": kl / 2, "hidden": hidden.sum() / (tokens * 16),
             "attention": attention.sum() / (pairs * 2)}
    expected = sum(getattr(section, name) * value for name, value in parts.items())
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    report = distiller.report()
    assert report.pop("hidden_error") == pytest.approx((error / size) ** 0.5, rel=1e-4)
    assert report == pytest.approx(parts, rel=1e-4)
    assert distiller.report() == {}


def test_regressions_learn_the_teachers_value():
    student, teacher = bert(1, 0, num_labels=1).eval(), bert(1, 1, num_labels=1)
    distiller = Distiller(teacher, student, Distillation(labels=0, logits=1, hidden=0, attention=0))
    batch = {name: value for name, value in batch_of_two().items() if name != "labels"}
    outputs = student(**batch, **distiller.wanted)
    assert outputs.hidden_states is None
    expected = (outputs.logits - teacher(**batch).logits).square().mean()
    assert distiller.loss(outputs, batch).item() == pytest.approx(expected.item())


def test_padding_does_not_count():
    student, teacher = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    mask = torch.tensor([[True, True, False]])
    expected = (student[:, :2] - teacher[:, :2]).square().mean()
    assert hidden_loss(student, teacher, mask).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_interrupted_distillation_equals_uninterrupted(precision, data, tmp_path):
    """The teacher is the end of the dense stage; it is saved once, not in every checkpoint."""
    recipe = recipe_of({"kind": "nm"}, DENSE, {"method": "admm", "epochs": 1, "interval": 2}, RETRAIN,
                       training={"learning_rate": 1e-3, "batch": 16, "max_tokens": 24,
                                 "precision": precision},
                       distillation={"labels": 0.5, "hidden": 1.0, "attention": 10.0})
    whole = assert_resumes_exactly(recipe, data, tmp_path, (2, 4, 7))
    logged = [record for record in whole.state.log_history if "distillation_hidden_error" in record]
    assert [record["step"] for record in logged] == [6, 9, 12]  # the first four steps are dense
    assert all({"distillation_labels", "distillation_logits", "distillation_attention"} <= set(record)
               for record in logged)
    assert (tmp_path / "parts" / "teacher" / "model.safetensors").is_file()
    names = {path.name for path in (tmp_path / "parts" / "checkpoint-12").iterdir()}
    assert not [name for name in names if "teacher" in name]

    (tmp_path / "parts" / "teacher" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="the teacher is lost"):
        trainer_of(recipe, data, tmp_path / "parts").train(resume_from_checkpoint=True)


def test_the_teacher_is_the_dense_model_and_stays(data, tmp_path):
    recipe = recipe_of({"kind": "nm"}, DENSE, RETRAIN, distillation={})
    trainer = trainer_of(recipe, data, tmp_path)
    StopAfter(trainer, 4)
    trainer.train()
    assert trainer.distiller is None
    dense = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer = trainer_of(recipe, data, tmp_path)
    trainer.train(resume_from_checkpoint=True)
    assert not trainer.distiller.teacher.training
    for name, value in trainer.distiller.teacher.state_dict().items():
        assert torch.equal(value, dense[name]), name
    assert trainer.model.config._attn_implementation == "eager"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", [0.0, 1.0])
def test_a_given_model_teaches_with_its_own_attention_maps(precision, attention, data, tmp_path):
    """In the run that keeps it and in one that brings it back."""
    maps = IntegerMapPruning(patterns=np.array([[1, 0, 1, 0] * 4, [0, 1, 0, 1] * 4], np.uint8))
    recipe = recipe_of({"kind": "nm"}, RETRAIN, training={"max_tokens": 24, "precision": precision},
                       distillation={"teacher": "model", "attention": attention})
    first, second = (trainer_of(recipe, data, tmp_path, given_maps=maps) for _ in range(2))
    batch = next(first.first_batches(8))
    own = first.model.eval()(**batch).logits
    first.keep_teacher()
    second.bring_teacher_back()
    for teacher in (first.distiller.teacher, second.distiller.teacher):
        assert [found is not None for found in map_pruning_of(teacher)] == [True, True]
        assert torch.equal(teacher(**batch).logits, own)


def test_distillation_keeps_the_hidden_states(data, tmp_path):
    """Half the weights go; with the same steps, distilled hidden states end nearer to the dense model's."""
    errors = []
    for hidden in (1e-6, 1.0):
        recipe = recipe_of({"kind": "nm"}, DENSE, RETRAIN | {"epochs": 6}, training={
            "learning_rate": 2e-3, "batch": 16, "max_tokens": 24},
            distillation={"labels": 1.0, "logits": 0, "hidden": hidden, "attention": 0})
        trainer = trainer_of(recipe, data, tmp_path / str(hidden), logging_steps=4)
        trainer.train()
        errors.append([record["distillation_hidden_error"] for record in trainer.state.log_history
                       if "distillation_hidden_error" in record][-1])
    assert errors[1] < 0.8 * errors[0]


def test_a_directory_can_teach(data, tmp_path):
    dense = recipe_of({"kind": "nm"}, DENSE)
    run_training(dense, model_name="tiny", data=data, out=tmp_path / "dense")
    recipe = recipe_of({"kind": "nm"}, RETRAIN, distillation={"teacher": str(tmp_path / "dense")})
    run_training(recipe, model_name=str(tmp_path / "dense"), data=data, out=tmp_path / "pruned")
    assert not [path for path in (tmp_path / "pruned").rglob("*") if "teacher" in path.name]
    trainer = trainer_of(recipe, data, tmp_path / "other")
    taught = BertForSequenceClassification.from_pretrained(tmp_path / "dense").state_dict()
    assert all(torch.equal(value, taught[name])
               for name, value in trainer.distiller.teacher.state_dict().items())

    model, _ = build_tiny_model(data.task, data.train, max_tokens=24)
    model.base_model.save_pretrained(tmp_path / "headless")
    with pytest.raises(RecipeError, match=r"headless: no trained classifier\.bias; give a model that was"):
        load_teacher(tmp_path / "headless", model)
    with pytest.raises(RecipeError, match=r"^distillation\.teacher: .*nowhere: "):
        load_teacher(tmp_path / "nowhere", model)
    assert isinstance(load_teacher(tmp_path / "headless", model.base_model), BertModel)


@pytest.mark.parametrize(("teacher", "message"), [
    ({"layers": 3}, "the teacher's 3 layers do not divide among the student's 2; set hidden: 0 and "
                    "attention: 0"),
    ({"hidden_size": 32}, "the teacher has hidden_size 32, the student 16; use a teacher that fits, or set "
                          "hidden: 0"),
    ({"num_attention_heads": 4}, "the teacher has num_attention_heads 4, the student 2; use a teacher that "
                                 "fits, or set attention: 0"),
    ({"num_labels": 3}, "the teacher has num_labels 3, the student 2; use a teacher that fits, or set "
                        "logits: 0"),
    ({"vocab_size": 60}, "the teacher has vocab_size 60, the student 50; use a teacher that fits"),
])
def test_teachers_that_do_not_fit(teacher, message):
    with pytest.raises(RecipeError, match=f"^distillation: {re.escape(message)}"):
        Distiller(bert(**teacher), bert(2), Distillation())


def test_parts_with_weight_zero_need_nothing():
    small = bert(3, hidden_size=32, num_attention_heads=4)
    distiller = Distiller(small, bert(2), Distillation(hidden=0, attention=0))
    assert distiller.wanted == {"output_hidden_states": False, "output_attentions": False}
    student = SequenceClassifierOutput(logits=torch.zeros(2, 2), loss=torch.tensor(1.0))
    assert distiller.loss(student, batch_of_two()).isfinite()


def test_recipes_say_what_distillation_needs(data, tmp_path):
    recipe = recipe_of({"kind": "nm"}, RETRAIN, distillation={})
    with pytest.raises(RecipeError, match=r"^distillation: \{teacher: dense\} needs a dense stage"):
        run_training(recipe, model_name="tiny", data=data, out=tmp_path)
    with pytest.raises(RecipeError, match="one of logits, hidden and attention must be above 0"):
        recipe_of({"kind": "nm"}, RETRAIN, distillation={"logits": 0, "hidden": 0, "attention": 0})
    assert Recipe.from_dict(recipe.to_dict()) == recipe
