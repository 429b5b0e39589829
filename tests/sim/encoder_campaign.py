"""Random encoders in simulation: draws designs and runs, compares every layer's output, adds up."""

from dataclasses import dataclass, field

import numpy as np

from compressor.bundle import save_bundle
from compressor.pools import PatternPool, build_pool
from hwgen.packaging import build
from hwgen.plan import PlanError
from hwgen.plan_request import PlanRequest
from rtl_templates.array_spec import Accumulation, PoolStorage
from sim.encoder_run import EncoderBench
from sim.harness import MemoryTiming
from sim.open_build import open_build
from tests.bundles import random_activations, random_encoder_bundle

UNBALANCED_KEEP = 8


@dataclass(frozen=True, kw_only=True)
class Design:
    """A random encoder bundle and accelerator: arguments of random_encoder_bundle and of PlanRequest.

    ``pool`` is "row", "none" (patterns with unequal rows) or "quarter" (4 of 16, one slot a row).
    """

    seed: int
    pool: str
    bundle: dict
    request: dict

    def __str__(self):
        return f"seed {self.seed}: pool {self.pool}, {self.bundle}, {self.request}"


@dataclass(kw_only=True)
class Totals:
    """What a campaign compared."""

    designs: int = 0
    words: int = 0
    mismatches: int = 0
    sequences: int = 0
    cycles: int = 0
    unpredicted: int = 0
    first: list = field(default_factory=list)

    def add(self, other):
        """Add the totals of another."""
        for name in ("designs", "words", "mismatches", "sequences", "cycles", "unpredicted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.first += other.first

    def __str__(self):
        return (f"{self.designs} designs, {self.sequences:,} sequences, {self.cycles:,} cycles: "
                f"{self.words:,} words, {self.mismatches} mismatches, "
                f"{self.unpredicted} cycles or dispatches that were not predicted; {self.first}")


def draw_design(seed):
    """A random design; some ask for what no accelerator can do."""
    rng = np.random.default_rng(seed)

    def choose(*values):
        return values[rng.integers(len(values))]

    size, heads, layers = choose(4, 8, 12, 16), choose(1, 2, 3, 4), choose(1, 2, 3, 4)
    structure = choose("pattern", "pattern", "dense", "nm", "mixed")
    pool = choose("row", "row", "none") if structure != "pattern" else choose("row", "row", "none", "quarter")
    bundle = {
        "hidden": size * heads, "heads": heads, "layers": layers, "structure": structure,
        "head_counts": tuple(rng.integers(1, heads + 1, layers).tolist()),
        "ffn_sizes": tuple((4 * rng.integers(2, 25, layers)).tolist()),
        "absent_blocks": choose(0.0, 0.0, 0.3, 0.7), "map_pruning": pool == "row" and choose(False, True),
        "outliers": choose(False, True), "max_tokens": choose(8, 21, 40, 64), "seed": seed}
    request = {
        "rows": choose(1, 2, 2, 2, 3, 4, 4, 6), "lanes": choose(4, 4, 4, 8, 8, 12, 16, 32),
        "bus_bits": choose(None, 64, 128),
        "tokens": bundle["max_tokens"],
        "storage": choose(None, PoolStorage.RAM, PoolStorage.STREAM) if structure != "nm" else None,
        "accumulation": choose(None, *Accumulation) if pool == "row" else None}
    return Design(seed=seed, pool=pool, bundle=bundle, request=request)


def build_design(design, directory):
    """The build of a design, opened; PlanError if it is refused."""
    bundle = random_encoder_bundle(pool=make_pool(design.pool, design.seed), **design.bundle)
    save_bundle(bundle, directory / "pruned.pt")
    build(directory / "pruned.pt", directory / "build", PlanRequest(**design.request))
    return open_build(directory / "build")


def make_pool(kind, seed):
    """A pool of 8 to 32 patterns."""
    if kind == "row":
        return build_pool("reed_muller")
    if kind == "quarter":
        return build_pool("greedy", size=8, keep=4, seed=seed)
    rng, rows = np.random.default_rng(seed), set()
    while len(rows) < UNBALANCED_KEEP:
        rows.add(tuple((rng.permutation(16) < UNBALANCED_KEEP).astype(int).tolist()))
    return PatternPool(patterns=np.array(sorted(rows)), keep=UNBALANCED_KEEP, balance="none")


def feasible_designs(seeds, directory, refusals):
    """Yields the designs that the planner takes, built; adds the lines of the others to ``refusals``."""
    for seed in seeds:
        design = draw_design(seed)
        folder = directory / str(seed)
        folder.mkdir()
        try:
            yield design, build_design(design, folder)
        except PlanError as error:
            refusals.append(str(error))


def lengths_of(rng, tokens, count):
    """Valid lengths: 0, 1, 2, 3 and all of them first, as far as ``count`` goes, then random ones."""
    edges = [length for length in (tokens, 0, 1, 2, 3) if length <= tokens]
    return np.array([*edges, *rng.integers(0, tokens + 1, max(0, count - len(edges)))][:count])


def inputs_of(rng, tokens, channels, count):
    """Hidden states, some of them extreme: all 127, all 0, every token alike."""
    x = np.stack([random_activations(tokens, channels, rng) for _ in range(count)])
    for index in range(count):
        match rng.integers(8):
            case 0:
                x[index] = rng.choice(np.array([-127, 127], np.int8), x[index].shape)
            case 1:
                x[index] = 0
            case 2:
                x[index] = x[index, :1]
    return x


def run_build(opened, *, seed, tokens, sequences, stalls):
    """One run of a build; Totals, with the first mismatch and how to get it again."""
    rng = np.random.default_rng((seed, tokens, stalls))
    lengths = lengths_of(rng, tokens, sequences)
    x = inputs_of(rng, tokens, opened.bundle.model["config"]["hidden_size"], sequences)
    with EncoderBench(opened, tokens=tokens, every_layer=True, timing=MemoryTiming(stalls=stalls)) as bench:
        output = bench.run(x, lengths)
        comparisons = [one for _, one in bench.compare(output, x, lengths)]
    cycles = output.report.counters["cycles"]
    first = [f"seed {seed}, {tokens} tokens, stalls {stalls}: {one.first}"
             for one in comparisons if one.first]
    unpredicted = 0 if stalls else output.prediction_mismatches + abs(cycles - output.predicted_cycles)
    return Totals(words=sum(one.words for one in comparisons), sequences=sequences, cycles=cycles,
                  mismatches=sum(one.mismatches for one in comparisons), unpredicted=unpredicted,
                  first=first[:1])


def run_design(design, opened, *, runs, sequences):
    """Several runs of a design: 1 token to the most it holds, every second run under random waits."""
    rng, totals = np.random.default_rng((design.seed, 1)), Totals(designs=1)
    longest = opened.plan.tokens
    for index in range(runs):
        tokens = longest if not index else int(rng.integers(1, longest + 1))
        stalls = int(rng.integers(1, 1 << 31)) if index % 2 else 0
        totals.add(run_build(opened, seed=design.seed, tokens=tokens, sequences=sequences, stalls=stalls))
    return totals
