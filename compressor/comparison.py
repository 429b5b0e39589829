"""Several finished runs side by side: what each was, kept and reached."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor.model_dir import METRICS_FILE, RECIPE_FILE, ModelDirError, read_compression
from compressor.recipes import Recipe
from compressor.task_metrics import glue_score
from compressor.text_file import StrPath


def compare_runs(folders: Sequence[StrPath]) -> list[dict[str, Any]]:
    """One row for each model directory.

    Parameters
    ----------
    folders : sequence of path
        See :mod:`compressor.model_dir`.

    Returns
    -------
    list of dict
        ``run`` (name of the directory), ``task``, ``structure``, ``method`` (its stages, joined by " > "),
        ``kept`` (share of the encoder's weights, 0 to 1), ``storage`` (int8 bits with indices over dense
        int8), ``seed``, and ``metrics`` by name without their "eval_".

    Raises
    ------
    ModelDirError
        If one of them is no model directory.
    """
    return [_row(Path(folder)) for folder in folders]


def _row(folder: Path) -> dict[str, Any]:
    info = read_compression(folder)
    recipe = Recipe.from_yaml(folder / RECIPE_FILE)
    try:
        metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
        kept = metrics["nonzero_weights"] / metrics["encoder_weights"]
        storage = metrics["compressed_int8_bits"] / metrics["dense_int8_bits"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelDirError(f"{folder / METRICS_FILE}: cannot be read: {error}") from error
    stages = " > ".join(stage.label for stage in recipe.stages)
    return {"run": folder.name, "task": info.task.name, "structure": info.whole_structure.description,
            "method": f"{stages}, distilled" if recipe.distillation else stages,
            "kept": round(kept, 4), "storage": round(storage, 4), "seed": recipe.training.seed,
            "metrics": {name.removeprefix("eval_"): value for name, value in metrics.items()
                        if name.startswith("eval_")}}


GLUE_EIGHT = (("mnli", "validation_matched_accuracy"), ("mnli", "validation_mismatched_accuracy"),
              ("sst2", "accuracy"), ("qnli", "accuracy"), ("cola", "matthews_correlation"),
              ("stsb", "spearman"), ("mrpc", "f1"), ("rte", "accuracy"))
"""The eight numbers whose geometric mean the papers call the average: task and metric."""


def glue_averages(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The papers' GLUE average of every method that has been run on all seven tasks with one seed.

    Returns
    -------
    list of dict
        ``structure``, ``method``, ``seed`` and ``average``, in percent.
    """
    groups: dict[tuple[str, str, int], dict[tuple[str, str], float]] = {}
    for row in rows:
        found = groups.setdefault((row["structure"], row["method"], row["seed"]), {})
        found |= {(row["task"], name): 100 * value for name, value in row["metrics"].items()}
    return [{"structure": structure, "method": method, "seed": seed,
             "average": glue_score([found[key] for key in GLUE_EIGHT])}
            for (structure, method, seed), found in groups.items() if all(key in found for key in GLUE_EIGHT)]


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table; a run without a metric has an empty cell.

    >>> row = {"run": "a", "task": "sst2", "structure": "dense", "method": "dense", "kept": 1.0,
    ...        "storage": 1.0, "seed": 0, "metrics": {"accuracy": 0.9123, "loss": 0.3}}
    >>> print(markdown_table([row]))
    | run | task | structure | method | kept | int8 storage | seed | accuracy |
    |---|---|---|---|---|---|---|---|
    | a | sst2 | dense | dense | 100.0 % | 1.000 | 0 | 0.9123 |
    """
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"] if not name.endswith("loss")))
    lines = [["run", "task", "structure", "method", "kept", "int8 storage", "seed",
              *(name.replace("_", " ") for name in names)]]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        cells = [row["run"], row["task"], row["structure"], row["method"], f"{100 * row['kept']:.1f} %",
                 f"{row['storage']:.3f}", str(row["seed"])]
        found = row["metrics"]
        lines.append([*cells, *(f"{found[name]:.4f}" if name in found else "" for name in names)])
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text[1] = text[1].replace(" ", "")
    return "\n".join(text)
