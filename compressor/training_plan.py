"""What ``compress train --dry-run`` says: the plan of a run, of which nothing is trained."""

import tempfile
from typing import Any

from compressor.model_dir import describe, summarize
from compressor.recipes import Recipe
from compressor.reload import quiet_loading
from compressor.removed_units import compact
from compressor.starting_model import check_distillation, given_compression, has_scattered_units, load_model
from compressor.structures import Dense
from compressor.tasks import TaskData
from compressor.training_run import build_trainer


def plan_training(recipe: Recipe, *, model_name: str, data: TaskData) -> dict[str, Any]:
    """What a run would do, as plain values; arguments as for :func:`compressor.training_run.run_training`.

    Returns
    -------
    dict
        ``stages`` (name, epochs, steps, learning_rate, and ``interval`` in steps for ADMM),
        ``steps_per_epoch``, ``training_rows``, ``pruned_weights`` (weights that the recipe's structure is
        asked of), ``warnings``, ``budget`` if the recipe has
        one (for the weights as they are), and the storage figures of :func:`compressor.model_dir.summarize`.
    """
    quiet_loading()
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
            stages[-1]["interval"] = stage.interval_steps(span.steps)
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
            "warnings": trainer.warnings, **storage,
            **({"budget": trainer.stages.budget_report} if trainer.stages.budget_report else {})}
