"""What ``compress train --dry-run`` says: the plan of a run, of which nothing is trained."""

import tempfile
from typing import Any

from compressor.admm import rate_budget
from compressor.budget import CostTable, expected_cycles
from compressor.group_structures import HeadsRows
from compressor.model_dir import describe, summarize
from compressor.recipes import Recipe
from compressor.reload import quiet_loading
from compressor.removed_units import compact
from compressor.starting_model import check_distillation, given_compression, has_scattered_units, load_model
from compressor.structures import Dense
from compressor.tasks import TaskData
from compressor.text_file import StrPath
from compressor.training_memory import training_memory
from compressor.training_run import build_trainer


def plan_training(recipe: Recipe, *, model_name: str, data: TaskData,
                  costs: StrPath | None = None) -> dict[str, Any]:
    """What a run would do, as plain values; arguments as for :func:`compressor.training_run.run_training`.

    Parameters
    ----------
    costs : path, optional
        File of ``hwgen costs`` for a model of the same sizes.

    Returns
    -------
    dict
        ``stages`` (name, epochs, steps, learning_rate; for ADMM ``interval`` in steps, ``coupling``, and
        ``reach`` and ``needed`` of :func:`compressor.admm.rate_budget`), ``steps_per_epoch``,
        ``training_rows``, ``pruned_weights`` (weights that the recipe's structure is asked of), ``memory``
        (see :func:`compressor.training_memory.training_memory`), ``warnings``, the storage figures of
        :func:`compressor.model_dir.summarize`, and for the weights as they are: ``budget`` if the recipe has
        one, and ``cycles`` with ``costs``: ``expected`` (None if only training finds out) and ``dense``.

    Raises
    ------
    RecipeError, OutputError
        If the run could not begin, or ``costs`` cannot be used.
    """
    quiet_loading()
    table = CostTable.load(costs) if costs else None
    check_distillation(recipe, data.task)
    given = given_compression(recipe, model_name)
    model, tokenizer = load_model(model_name, data, recipe)
    if has_scattered_units(model_name):
        compact(model)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(model, tokenizer, recipe, data, folder, **given)
    stages = []
    for span in trainer.schedule.spans:
        stage = span.stage
        stages.append({"name": stage.label, "epochs": stage.epochs, "steps": span.steps,
                       "learning_rate": stage.learning_rate or recipe.training.learning_rate})
        if stage.method == "admm":
            reach, needed = rate_budget(trainer.stages.weights.values(),
                                        [trainer.schedule.rate(step) for step in range(span.start, span.end)],
                                        stage)
            stages[-1] |= {"interval": stage.interval_steps(span.steps), "coupling": stage.coupling,
                           "reach": reach, "needed": needed}
    structure = trainer.stages.planned_structure() if recipe.prunes else Dense()
    pruned = trainer.stages.weights if recipe.prunes else {}
    info = describe(model, structure=structure, pruned=pruned, task=data.task,
                    max_tokens=recipe.training.max_tokens)
    storage = summarize(model, info)
    del storage["nonzero_weights"]  # nothing is pruned yet
    storage["compressed_int8_bits"] = sum(info.structure_of(name).bits(layer.shape)
                                          for name, layer in info.layers.items())
    return {"stages": stages, "steps_per_epoch": trainer.steps_per_epoch, "training_rows": len(data.train),
            "pruned_weights": sum(weight.numel() for weight in pruned.values()),
            "memory": training_memory(model, recipe, pruned, trainer.distiller and trainer.distiller.teacher),
            "warnings": trainer.warnings, **storage,
            **({"budget": trainer.stages.budget_report} if trainer.stages.budget_report else {}),
            **({"cycles": _cycles(table, trainer.stages, structure)} if table else {})}


def _cycles(table, stages, structure):
    # Where training chooses what goes, a projection knows nothing yet.
    is_known = not isinstance(structure, HeadsRows) and getattr(structure, "density", 1) is not None
    expected, dense = expected_cycles(table, stages.weights, structure if is_known else Dense(),
                                      others=stages.other_weights)
    return {"expected": expected if is_known else None, "dense": dense}
