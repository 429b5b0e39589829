"""Models that name a task's labels in another order: as a start, as a teacher, and as neither."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from compressor.distillation import load_teacher
from compressor.recipes import Recipe
from compressor.starting_model import load_model
from compressor.tasks import TASKS, TaskData

LABELS = list(TASKS["mnli"].labels)
ROWS = [{"premise": "a", "hypothesis": "b", "label": 0}]
DATA = TaskData(task=TASKS["mnli"], train=ROWS, validation={"validation_matched": ROWS})
RECIPE = Recipe.from_dict({"schema_version": 1, "training": {"max_tokens": 8},
                           "stages": [{"method": "retrain", "epochs": 1}]})
SIZES = {"vocab_size": 7, "max_position_embeddings": 16}
MODELS = {
    "bert": (BertForSequenceClassification, BertConfig,
             {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}),
    "roberta": (RobertaForSequenceClassification, RobertaConfig,
                {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                 "intermediate_size": 32, "pad_token_id": 0}),
    "distilbert": (DistilBertForSequenceClassification, DistilBertConfig,
                   {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}),
}


def save_model(folder, kind, labels):
    """A fine-tuned model's directory; returns its logits on two sentences."""
    torch.manual_seed(0)
    model_class, config_class, sizes = MODELS[kind]
    config = config_class(**SIZES, **sizes, id2label=dict(enumerate(labels)),
                          label2id={name: number for number, name in enumerate(labels)})
    model = model_class(config).eval()
    model.save_pretrained(folder)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b")
    BertTokenizer(vocab={word: number for number, word in enumerate(words)}).save_pretrained(folder)
    return logits_of(model)


def logits_of(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[2, 5, 3], [2, 6, 3]])).logits


@pytest.mark.parametrize("kind", MODELS)
def test_labels_come_in_the_tasks_order(kind, tmp_path):
    saved = save_model(tmp_path, kind, ["CONTRADICTION", "Entailment", "neutral"])
    student, _ = load_model(tmp_path, DATA, RECIPE)
    teacher = load_teacher(tmp_path, student)
    for model in (student, teacher):
        assert torch.equal(logits_of(model), saved[:, [1, 2, 0]])
        assert list(model.config.id2label.values()) == LABELS
        assert model.config.label2id == {name: number for number, name in enumerate(LABELS)}
    student.save_pretrained(tmp_path / "again")
    assert torch.equal(logits_of(load_teacher(tmp_path / "again", student)), logits_of(student))


@pytest.mark.parametrize("names", [LABELS, ["LABEL_0", "LABEL_1", "LABEL_2"], ["yes", "perhaps", "no"]])
def test_other_names_are_taken_in_order(names, tmp_path):
    saved = save_model(tmp_path, "bert", names)
    student, _ = load_model(tmp_path, DATA, RECIPE)
    assert torch.equal(logits_of(student), saved)
    assert torch.equal(logits_of(load_teacher(tmp_path, student)), saved)
