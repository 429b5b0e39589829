"""What each sparsity structure buys on one array: K-steps, cycles and bytes of the same small encoder.

Every model is pruned in one step and hardly trained, since cycles do not depend on values:

    python examples/compare_structures.py
"""

import argparse
import tempfile
from pathlib import Path

from compressor import compress, export, load_task
from hwgen.cost import cost_report
from hwgen.encoder_program import whole_program
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan


def structures(rows):
    """What recipes say beside the training, by name, for an array of ``rows`` block units: one after the
    other on the same model."""
    ksteps = {"structure": {"kind": "blocks", "rows": 4 * rows, "density": 0.4}}
    return {
        "dense": [{"stages": [{"method": "dense", "epochs": 0.1}]}],
        "2:4": [{"structure": {"kind": "nm", "keep": 2, "group": 4}}],
        "patterns, 8 of 16": [{"structure": {"kind": "pattern"}}],
        "patterns, 4 of 16": [{"structure": {"kind": "pattern"}, "pool": {"build": "greedy", "keep": 4}}],
        "whole K-steps, 40 %": [ksteps],
        "40 %, then patterns": [ksteps, {"structure": {"kind": "pattern"}}],
        "40 %, then 2:4": [ksteps, {"structure": {"kind": "nm", "keep": 2, "group": 4}}],
    }


def main():
    """Prune, export, plan, print a table; every row is exact for the generated Verilog."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2, help="block units")
    parser.add_argument("--lanes", type=int, default=8, help="token lanes")
    arguments = parser.parse_args()
    data = load_task("synthetic", train_rows=640, validation_rows=64)
    print(f"{'structure':20s} {'MACs':>5s} {'K-steps':>8s} {'cycles':>8s} {'of dense':>8s} {'bytes':>8s}")
    dense = None
    for name, recipes in structures(arguments.rows).items():
        with tempfile.TemporaryDirectory() as folder:
            model = "tiny"
            for number, sections in enumerate(recipes):
                recipe = {"schema_version": 1, "stages": [{"method": "retrain", "epochs": 0.1}],
                          "training": {"learning_rate": 1e-4, "batch": 32, "max_tokens": 32}, **sections}
                model = compress(recipe, model=model, task=data, out=Path(folder) / str(number)).directory
            bundle = export(model, Path(folder) / "pruned.pt", task=data, rows=16, validation_rows=0)
        plan = make_plan(bundle, PlanRequest(rows=arguments.rows, lanes=arguments.lanes))
        cost = cost_report(plan, whole_program(plan))
        dense = dense or cost.cycles
        ksteps = sum(layer.ksteps for layer in cost.layers)
        print(f"{name:20s} {cost.multipliers:5d} {ksteps:8,d} {cost.cycles:8,d} {cost.cycles / dense:8.2f} "
              f"{cost.weight_bytes:8,d}")


if __name__ == "__main__":
    main()
