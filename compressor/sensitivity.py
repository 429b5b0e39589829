"""How much pruning one layer alone costs: the test by which layers get their share (S2, section 4)."""

import functools
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding

from compressor.encoding import EncodedRows
from compressor.masks import FixedMasks
from compressor.progress import counted
from compressor.recipes import Recipe, RecipeError
from compressor.sampling import LengthGroupedSampler
from compressor.spans import EncodedSpans
from compressor.stages import StageState
from compressor.starting_model import load_model
from compressor.tasks import TaskData
from compressor.text_file import StrPath, make_folder, write_text

BATCH = 64


def run_sensitivity(recipe: Recipe, *, model_name: str, data: TaskData, density: float = 0.5,
                    retrain_steps: int = 0, out: StrPath | None = None) -> dict[str, Any]:
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
    retrain_steps : int
        Optimizer steps on training rows after each pruning, at the recipe's batch and rate.
    out : path, optional
        File for ``budget.sensitivity``; written aside, then renamed.
    """
    if out is not None:
        make_folder(Path(out).parent)  # before what takes long
    plain = recipe.model_copy(update={"budget": None, "distillation": None})
    model, tokenizer = load_model(model_name, data, recipe)
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    encoded = EncodedSpans if data.task.spans else EncodedRows
    collate = DataCollatorWithPadding(tokenizer)

    def batches_of(found, count=None):
        rows = encoded(data.task, found, tokenizer, recipe.training.max_tokens)
        count = len(rows) if count is None else min(count, len(rows))
        return [collate([rows[row] for row in range(start, min(start + BATCH, count))]).to(model.device)
                for start in range(0, count, BATCH)]

    state = StageState(model, plain, first_batches=functools.partial(batches_of, data.train))
    state.plan()
    if state.structure.name == "heads_rows":
        raise RecipeError("sensitivity needs a structure that a projection finds; heads_rows is learned")
    retrain = None
    if retrain_steps:
        batches = itertools.islice(_training_batches(recipe, data, encoded, tokenizer), retrain_steps)
        steps = [batch.to(model.device) for batch in batches]  # every layer trains on the same
        retrain = functools.partial(_retrain, model, steps, recipe.training)
    found = measure_sensitivity(model, state.weights, state.structure,
                                batches_of(next(iter(data.validation.values()))), density=density,
                                retrain=retrain, norms=state.norms)
    if out is not None:
        write_text(out, json.dumps(found, indent=1) + "\n")
    return found


def _training_batches(recipe, data, encoded, tokenizer):
    """Batches of training rows without end, in the order of a training run."""
    training = recipe.training
    rows = encoded(data.task, data.train, tokenizer, training.max_tokens)
    collate = DataCollatorWithPadding(tokenizer)
    order = LengthGroupedSampler(rows.lengths, batch=training.batch, seed=training.seed)
    for order.epoch in itertools.count():
        yield from DataLoader(rows, batch_size=training.batch, sampler=order, collate_fn=collate)


def _retrain(model, batches, training, masks):
    """Train a model on some batches with fixed masks, always with the same random numbers."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate,
                                  weight_decay=training.weight_decay)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        for batch in batches:
            model(**batch).loss.backward()
            masks.apply_to_gradients()
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            masks.apply()
    model.eval()


def measure_sensitivity(model, weights, base, batches, *, density=0.5, retrain=None, norms=None):
    """What pruning one layer alone does to the task's loss.

    Parameters
    ----------
    model : PreTrainedModel
        With a head; unchanged afterwards.
    weights : dict of str to Parameter
    base : structure
        As for :func:`choose_structure`; a structure that has densities is measured at ``density``.
    batches : list of dict
        Model inputs with labels.
    retrain : function of FixedMasks, optional
        Trains the model with these masks; the unpruned model, too, is then measured after as much training.
    norms : dict of str to tensor, optional
        Input norms of error-aware projections.

    Returns
    -------
    dict
        ``loss`` of the whole model, and ``layers``: by name ``loss_increase``, and ``removed``, the share of
        its squared weights.
    """
    structure = replace(base, density=density) if hasattr(base, "density") else base
    training = model.training
    own = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()

    def loss_with(masks):
        if retrain is not None:
            retrain(masks)
        loss = _mean_loss(model, batches)
        model.load_state_dict(own)
        return loss

    whole, layers = loss_with(FixedMasks({}, {})), {}
    for name, weight in counted(list(weights.items()), "layers, one pruned at a time"):
        masks, retained = FixedMasks.project({name: weight}, structure, norms)
        layers[name] = {"loss_increase": loss_with(masks) - whole, "removed": 1 - retained}
    model.train(training)
    return {"loss": whole, "layers": layers}


@torch.no_grad()
def _mean_loss(model, batches):
    total = rows = 0
    for batch in batches:
        count = len(batch["input_ids"])
        total += float(model(**batch).loss) * count
        rows += count
    return total / rows
