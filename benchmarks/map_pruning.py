"""Map pruning at S = 512: cycles of the context product and of a whole layer, pruned and dense.

One encoder layer of 12 heads of 64 channels, like BERT-base's but with a small middle, in the C++ bench;
every word of the output is compared. The context product takes from the dispatch of SOFTMAX to that of the
TRANSPOSE that waits for the array: softmax, selection and product. 256 and 1,024 MACs.
Run: ``python -m benchmarks.map_pruning`` (about five minutes on one core).
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.bundle import save_bundle
from hwgen.packaging import build
from hwgen.plan_request import PlanRequest
from sim.encoder_run import EncoderBench
from sim.open_build import open_build
from tests.bundles import random_activations, random_encoder_bundle

HIDDEN, FEED_FORWARD, HEADS = 768, 768, 12
TOKENS = 512

CASES = ((4, 8, 128), (8, 16, 256))
"""Block units R, lanes T, bus width in bits."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one case gave.

    Parameters
    ----------
    multipliers : int
    words, wrong : int
        Output words compared, and those that differ from the golden model.
    cycles, predicted : int
        Of the run.
    exact : bool
        The run's cycles, every dispatch and every counter are as predicted.
    context : int
        Cycles of the context products of all heads.
    """

    multipliers: int
    words: int
    wrong: int
    cycles: int
    predicted: int
    exact: bool
    context: int


def measure(rows, lanes, bus_bits, *, map_pruning, tokens=TOKENS):
    """Build and simulate one case."""
    bundle = random_encoder_bundle(hidden=HIDDEN, layers=1, heads=HEADS, ffn=FEED_FORWARD,
                                   map_pruning=map_pruning, max_tokens=tokens)
    x = random_activations(tokens, HIDDEN, np.random.default_rng(0))[None]
    lengths = np.array([tokens])
    with tempfile.TemporaryDirectory() as folder:
        save_bundle(bundle, Path(folder) / "pruned.pt")
        request = PlanRequest(rows=rows, lanes=lanes, bus_bits=bus_bits, tokens=tokens)
        built = build(Path(folder) / "pruned.pt", Path(folder) / "build", request)
        with EncoderBench(open_build(Path(folder) / "build")) as bench:
            output = bench.run(x, lengths)
            comparisons = [one for _, one in bench.compare(output, x, lengths)]
            context = context_cycles(bench.program.works_on, output.report.profile)
    cycles = output.report.counters["cycles"]
    return Measured(
        multipliers=built.cost.multipliers, words=sum(one.words for one in comparisons),
        wrong=sum(one.mismatches for one in comparisons), cycles=cycles, predicted=output.predicted_cycles,
        exact=cycles == output.predicted_cycles and not output.prediction_mismatches, context=context)


def context_cycles(steps, dispatches):
    """Cycles of the context products of a program, from its dispatch profile."""
    at = dict(zip(steps, dispatches, strict=True))
    heads = [step.removesuffix(", softmax") for step in steps if step.endswith(", softmax")]
    return sum(at[f"{head}, context to words"] - at[f"{head}, softmax"] for head in heads)


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(" MACs  maps      words  wrong      cycles   predicted     context  of dense  layer of dense")
    failed = 0
    for case in CASES:
        dense = None
        for pruning in (False, True):
            got = measure(*case, map_pruning=pruning)
            dense = dense or got
            name, of_dense = "pruned" if pruning else "dense", got.context / dense.context
            print(f"{got.multipliers:5}  {name:6}  {got.words:7,}  {got.wrong:5}  {got.cycles:10,}  "
                  f"{got.predicted:10,}  {got.context:10,}  {of_dense:8.3f}  "
                  f"{got.cycles / dense.cycles:14.3f}", flush=True)
            failed |= got.wrong > 0 or not got.exact
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
