"""Prunes and quantizes a small BERT from Python, as `compress train` and `compress export` do.

    python examples/compress.py --out build/compressed
"""

import argparse
from pathlib import Path

from compressor import compress, export

RECIPE = {
    "schema_version": 1,
    "structure": {"kind": "pattern"},
    "training": {"learning_rate": 1e-3, "batch": 32, "max_tokens": 32},
    "stages": [{"method": "dense", "epochs": 2}, {"method": "admm", "epochs": 1, "interval": 40},
               {"method": "retrain", "epochs": 1}],
}


def main():
    """Train, export, print what is left and how well it does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/compressed"))
    parser.add_argument("--train-rows", type=int, default=8000)
    arguments = parser.parse_args()
    trained = compress(RECIPE, model="tiny", task="synthetic", train_rows=arguments.train_rows,
                       out=arguments.out / "model", overwrite=True)
    bundle = export(trained.directory, arguments.out / "pruned.pt")
    quantized = bundle.metrics["quantization"]["quantized"]["accuracy"]
    print(f"accuracy in float {trained.metrics['eval_accuracy']:.4f}, in integers {quantized:.4f}; "
          f"{bundle.kept_weights:,} of {bundle.weights:,} weights in {arguments.out / 'pruned.pt'}")


if __name__ == "__main__":
    main()
