"""Compression front end: prunes and quantizes a Hugging Face BERT, and exports the bundle.

What a user calls from Python is here; names load when they are used, so that ``import compressor`` is light.
"""

from typing import TYPE_CHECKING

from compressor.lazy_names import lazy_names

if TYPE_CHECKING:
    from compressor.api import (
        compress,
        export,
        measure_layers,
        plan_compression,
        plan_recovery,
        recover,
        sweep,
        verify,
    )
    from compressor.bundle import Bundle, BundleError, load_bundle
    from compressor.comparison import compare_runs
    from compressor.model_dir import ModelDirError
    from compressor.recipes import Recipe, RecipeError, changed_recipe, load_recipe
    from compressor.run_guards import OutputError, TrainingError
    from compressor.task_files import TaskError
    from compressor.tasks import TaskData, load_task
    from compressor.training_run import RunResult

__all__ = [
    "Bundle",
    "BundleError",
    "ModelDirError",
    "OutputError",
    "Recipe",
    "RecipeError",
    "RunResult",
    "TaskData",
    "TaskError",
    "TrainingError",
    "changed_recipe",
    "compare_runs",
    "compress",
    "export",
    "load_bundle",
    "load_recipe",
    "load_task",
    "measure_layers",
    "plan_compression",
    "plan_recovery",
    "recover",
    "sweep",
    "verify",
]

__getattr__, __dir__ = lazy_names(__name__, {
    **dict.fromkeys(("compress", "export", "measure_layers", "plan_compression", "plan_recovery", "recover",
                     "sweep", "verify"), "compressor.api"),
    **dict.fromkeys(("Bundle", "BundleError", "load_bundle"), "compressor.bundle"),
    "compare_runs": "compressor.comparison",
    "ModelDirError": "compressor.model_dir",
    **dict.fromkeys(("Recipe", "RecipeError", "changed_recipe", "load_recipe"), "compressor.recipes"),
    **dict.fromkeys(("OutputError", "TrainingError"), "compressor.run_guards"),
    "TaskError": "compressor.task_files",
    **dict.fromkeys(("TaskData", "load_task"), "compressor.tasks"),
    "RunResult": "compressor.training_run",
})
