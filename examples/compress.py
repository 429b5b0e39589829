"""Prunes and quantizes a small BERT from Python, as `compress train` and `compress export` do.

    python examples/compress.py --out build/compressed
"""

import argparse
from pathlib import Path

from compressor.export import export
from compressor.recipes import Recipe
from compressor.tasks import load_task
from compressor.training_run import run_training

RECIPE = Recipe.model_validate({
    "schema_version": 1,
    "structure": {"kind": "pattern"},
    "training": {"learning_rate": 1e-3, "batch": 32, "max_tokens": 32},
    "stages": [{"method": "dense", "epochs": 2}, {"method": "admm", "epochs": 1, "interval": 40},
               {"method": "retrain", "epochs": 1}],
})


def main():
    """Train, export, print what is left and how well it does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/compressed"))
    parser.add_argument("--train-rows", type=int, default=8000)
    arguments = parser.parse_args()
    data = load_task("synthetic", train_rows=arguments.train_rows)
    model = arguments.out / "model"
    metrics = run_training(RECIPE, model_name="tiny", data=data, out=model, overwrite=True).metrics
    bundle = export(model, arguments.out / "pruned.pt", task=data.task, rows=data.train[:128])
    print(f"accuracy in float {metrics['eval_accuracy']:.4f}; {bundle.kept_weights:,} of {bundle.weights:,} "
          f"weights in {arguments.out / 'pruned.pt'}")


if __name__ == "__main__":
    main()
