"""The memory that a plan promises, against what torch really keeps."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from compressor.recipes import Recipe
from compressor.stages import METHODS, StageState
from compressor.tasks import load_task
from compressor.training_memory import ACTIVATION_BYTES, training_memory
from compressor.training_plan import plan_training

ROWS, TOKENS = 8, 64


def bert(layers):
    return BertForSequenceClassification(BertConfig(
        vocab_size=50, hidden_size=128, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=512, max_position_embeddings=TOKENS, attn_implementation="eager")).train()


def recipe_of(*stages, structure=None, **sections):
    return Recipe.from_dict({"schema_version": 1, "structure": structure or {"kind": "nm"},
                             "training": {"batch": ROWS, "max_tokens": TOKENS} | sections.pop("training", {}),
                             "stages": list(stages)} | sections)


def kept_bytes(model, precision):
    """Bytes of all tensors that autograd keeps of a forward pass, the parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes(), tensor  # alive, so that no place is used twice
        return tensor

    ids = torch.randint(0, 50, (ROWS, TOKENS))
    with (torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
          torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("precision", ACTIVATION_BYTES)
def test_activations_are_those_that_autograd_keeps(precision):
    """A layer more keeps what the estimate says, but for weights cast to bfloat16."""
    recipe = recipe_of({"method": "dense", "epochs": 1}, training={"precision": precision})
    one, two = (training_memory(bert(layers), recipe, {})["activations"] for layers in (1, 2))
    casts = 2 * 12 * 128**2 if precision == "bfloat16" else 0
    found = kept_bytes(bert(2), precision) - kept_bytes(bert(1), precision) - casts
    assert two - one == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_methods_hold_what_they_say(method):
    """Tensors of a weight's size that a method has, itself or in what it is made of."""
    structure = {"kind": "blocks", "rows": 4, "columns": 4} if method in ("group_lasso", "learned_topk") \
        else {"kind": "unstructured"}
    stage = {"method": method, "epochs": 1} | ({"remaining": 0.5} if method == "learned_topk" else {})
    if method in ("group_lasso", "gradual"):
        structure["density"] = 0.5
    recipe = recipe_of(stage, {"method": "retrain", "epochs": 1}, structure=structure)
    state = StageState(bert(1), recipe)
    state.enter(recipe.stages[0])
    state.before_forward(recipe.stages[0], 0)
    seen, weights = {}, {id(weight) for weight in state.weights.values()}

    def visit(value):
        if torch.is_tensor(value):
            if id(value) not in weights and value.dim() == 2 and value.numel() >= 128 * 128:
                seen[value.untyped_storage().data_ptr()] = value.numel() * value.element_size()
        elif isinstance(value, dict):
            for one in value.values():
                visit(one)
        elif type(value).__module__.startswith("compressor.") and hasattr(value, "__dict__"):
            visit(vars(value))

    visit(vars(state.method))
    count = sum(weight.numel() for weight in state.weights.values())
    assert type(state.method) is METHODS[method][0]
    assert sum(seen.values()) == METHODS[method][0].bytes_per_weight * count


def test_a_plan_counts_model_teacher_and_method():
    data = load_task("synthetic", train_rows=64, validation_rows=40)
    admm = {"method": "admm", "epochs": 1}
    recipes = (recipe_of({"method": "dense", "epochs": 1}), recipe_of(admm),
               recipe_of({"method": "dense", "epochs": 1}, admm, distillation={}))
    dense, pruned, taught = (plan_training(recipe, model_name="tiny", data=data)["memory"]["held"]
                             for recipe in recipes)
    assert pruned - dense == 13 * 98_304
    assert dense % 16 == 0
    assert taught - pruned == dense // 4
