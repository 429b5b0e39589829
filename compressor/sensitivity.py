"""How much pruning one layer alone costs: the test by which layers get their share (S2, section 4)."""

import json
from dataclasses import replace

import torch
from transformers import DataCollatorWithPadding

from compressor.encoding import EncodedRows
from compressor.recipes import RecipeError
from compressor.stages import StageState
from compressor.text_file import write_text
from compressor.training_run import load_model

BATCH = 64


def run_sensitivity(recipe, *, model_name, data, density=0.5, out=None):
    """Measure the layers of a model on a task's validation rows, see :func:`measure_sensitivity`.

    Parameters
    ----------
    recipe : Recipe
        Its structure, pool and targets are measured; its stages do not count.
    model_name : str
        Directory or hub id of a model that was fine-tuned on the task.
    data : TaskData
    density : float
        For structures that have one.
    out : path, optional
        File for ``budget.sensitivity``; written aside, then renamed.
    """
    plain = recipe.model_copy(update={"budget": None, "distillation": None})
    model, tokenizer = load_model(model_name, data, recipe)
    state = StageState(model, plain)
    structure = state.planned_structure()
    if structure.name == "heads_rows":
        raise RecipeError("sensitivity needs a structure that a projection finds; heads_rows is learned")
    rows = EncodedRows(data.task, next(iter(data.validation.values())), tokenizer,
                       recipe.training.max_tokens)
    collate = DataCollatorWithPadding(tokenizer)
    batches = [collate([rows[row] for row in range(start, min(start + BATCH, len(rows)))])
               for start in range(0, len(rows), BATCH)]
    found = measure_sensitivity(model, state.weights, structure, batches, density=density)
    if out is not None:
        write_text(out, json.dumps(found, indent=1) + "\n")
    return found


def measure_sensitivity(model, weights, base, batches, *, density=0.5):
    """What pruning one layer alone does to the task's loss; nothing is retrained.

    Parameters
    ----------
    model : PreTrainedModel
        With a head; unchanged afterwards.
    weights : dict of str to Parameter
    base : structure
        As for :func:`choose_structure`; a structure that has densities is measured at ``density``.
    batches : list of dict
        Model inputs with labels.

    Returns
    -------
    dict
        ``loss`` of the whole model, and ``layers``: by name ``loss_increase``, and ``removed``, the share of
        its squared weights.
    """
    structure = replace(base, density=density) if hasattr(base, "density") else base
    training = model.training
    model.eval()
    whole, layers = _mean_loss(model, batches), {}
    for name, weight in weights.items():
        own = weight.detach().clone()
        projected, found = structure.project(weight)
        with torch.no_grad():
            weight.copy_(projected)
            layers[name] = {"loss_increase": _mean_loss(model, batches) - whole,
                            "removed": 1 - found.retained_energy}
            weight.copy_(own)
    model.train(training)
    return {"loss": whole, "layers": layers}


@torch.no_grad()
def _mean_loss(model, batches):
    total = rows = 0
    for batch in batches:
        count = len(batch["labels"])
        total += float(model(**batch).loss) * count
        rows += count
    return total / rows
