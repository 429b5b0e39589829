"""What a training run starts from: the model, its tokenizer, its teacher, and what was done to it before."""

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    set_seed,
)

from compressor.architectures import ARCHITECTURES
from compressor.budget import PerLayer
from compressor.distilling_trainer import DENSE_TEACHER, GIVEN_TEACHER
from compressor.group_structures import HeadsRows
from compressor.label_order import label_names, reorder_labels
from compressor.model_dir import COMPRESSION_FILE, read_compression
from compressor.recipes import RecipeError
from compressor.run_guards import OutputError
from compressor.structures import Dense
from compressor.text_data import TEXT
from compressor.tiny_model import build_tiny_model, label_config

TINY = "tiny"


def load_model(name, data, recipe):
    """A model for the task and its tokenizer; OutputError in one line if they cannot be had.

    The model has the task's head, a new one by the recipe's seed if the files have none, with labels in the
    task's order; it is the encoder alone where the data are plain text.
    """
    training = recipe.training
    if name == TINY:
        model, tokenizer = build_tiny_model(data.task, data.train, max_tokens=training.max_tokens,
                                            seed=training.seed)
        return model.base_model if data.task is TEXT else model, tokenizer
    set_seed(training.seed)
    try:
        # float32 whatever the files hold: AdamW loses small steps on weights of 16 bits.
        model = model_class(data.task).from_pretrained(
            name, dtype=torch.float32, **({} if data.task is TEXT else label_config(data.task)))
        tokenizer = AutoTokenizer.from_pretrained(name)
        if data.task.labels:
            reorder_labels(model, label_names(AutoConfig.from_pretrained(name)), data.task.labels)
    except (OSError, ValueError, RuntimeError) as error:
        raise OutputError(f"--model {name}: {' '.join(str(error).split())[:300]}") from error
    names = ARCHITECTURES.get(model.config.model_type)
    positions = names.positions(model.config.to_dict()) if names else training.max_tokens
    if training.max_tokens > positions:
        raise RecipeError(f"training.max_tokens is {training.max_tokens}, but model {name} has "
                          f"positions for {positions}")
    return model, tokenizer


def model_class(task):
    """The class of transformers that has the head of a task; plain text has none."""
    if task is TEXT:
        return AutoModel
    return AutoModelForQuestionAnswering if task.spans else AutoModelForSequenceClassification


def check_distillation(recipe, task):
    """RecipeError if a recipe's teacher was never trained on the task, or plain text is all there is."""
    section = recipe.distillation
    if task is TEXT:
        if section is None or section.logits or not (section.hidden or section.attention):
            raise RecipeError("recovery learns from hidden states and attention maps: the recipe needs "
                              "distillation with logits: 0 and hidden or attention above 0")
        if recipe.stages[0].method == "dense":
            raise RecipeError("recovery has no labels to train a dense stage on; remove the stage")
        if recipe.stages[-1].method == "quantize":
            raise RecipeError("recovery comes before the task, whose training changes every scale; remove "
                              "the stage quantize and quantize after fine-tuning")
    elif section and section.teacher == GIVEN_TEACHER and recipe.stages[0].method == "dense":
        raise RecipeError("distillation: {teacher: model} learns from the model as it came; remove the dense "
                          "stage, or use teacher: dense")
    elif section and section.teacher == DENSE_TEACHER and recipe.stages[0].method != "dense":
        raise RecipeError("distillation: {teacher: dense} needs a dense stage, which trains it on the task; "
                          "add one, or use teacher: model for the model itself if it is fine-tuned, or name "
                          "the directory of a fine-tuned model")


def given_compression(recipe, model_name):
    """What was done to the model in a directory, for a recipe that goes on with it, as arguments of
    CompressionTrainer; none for other recipes.

    Raises
    ------
    ModelDirError, RecipeError
        If there is no such directory, or its pruned layers are not the recipe's targets, or a recipe that
        quantizes but does not prune would undo its pruning.
    """
    if recipe.structure.kind != "model":
        if not (Path(model_name) / COMPRESSION_FILE).is_file():
            return {}
        info = read_compression(model_name)
        if (recipe.stages[-1].method == "quantize" and not recipe.prunes
                and (info.structure != Dense() or info.map_pruning)):
            raise RecipeError(f"{model_name} is pruned, and this recipe would undo it; "
                              "set structure: {kind: model}")
        return {"given_removed": info.units is not None}
    info = read_compression(model_name)
    pruned = {layer.role for layer in info.layers.values() if layer.structure != "dense"}
    only_quantizes = all(stage.method == "quantize" for stage in recipe.stages)
    # Where a budget chose, every layer knows by itself whether it is dense.
    own = isinstance(info.whole_structure, PerLayer) and pruned <= set(recipe.targets.roles)
    if pruned != set(recipe.targets.roles) and not own and (pruned or not only_quantizes):
        raise RecipeError(f"structure: {{kind: model}}: {model_name} has pruned "
                          f"{', '.join(sorted(pruned)) or 'no'} layers, but targets.roles names "
                          f"{', '.join(sorted(recipe.targets.roles))}")
    return {"given": info.whole_structure, "given_maps": info.map_pruning,
            "given_removed": info.units is not None}


def has_scattered_units(model_name):
    """Whether heads and rows were removed from the model in a directory, and nothing since: blocks and
    patterns that lie on what is left must stay where they are."""
    return ((Path(model_name) / COMPRESSION_FILE).is_file()
            and isinstance(read_compression(model_name).structure, HeadsRows))
