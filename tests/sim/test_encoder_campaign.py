"""Random whole encoders: every word of every layer, under random shapes, pools, lengths and waits.

Slow; what of it ``make test`` runs is in test_encoder_run.py and test_encoder_simulation.py.
"""

import pytest

import sim.harness
from tests.sim.encoder_campaign import (
    Design,
    Totals,
    build_design,
    draw_design,
    feasible_designs,
    run_build,
    run_design,
)

pytestmark = pytest.mark.nightly

CHUNKS, CHUNK_SEEDS = 4, 5
"""Seeds are drawn in chunks, so that they run side by side."""

REFUSALS = ("one must be a multiple of the other", "must be a multiple of the",
            "needs a bus of at least 64 bits", "column selects come with the weight stream",
            "no wider than the bus", "needs a row-balanced pool")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_designs(chunk, tmp_path):
    """What the planner takes works; what it refuses, it refuses with its reason."""
    totals, refusals = Totals(), []
    seeds = range(chunk * CHUNK_SEEDS, (chunk + 1) * CHUNK_SEEDS)
    for design, opened in feasible_designs(seeds, tmp_path, refusals):
        found = run_design(design, opened, runs=6, sequences=6)
        print(f"{design}\n  {found}", flush=True)
        totals.add(found)
    assert totals.designs >= 2
    assert totals.designs + len(refusals) == CHUNK_SEEDS
    assert all(any(reason in line for reason in REFUSALS) for line in refusals), refusals
    assert (totals.mismatches, totals.unpredicted) == (0, 0), totals


LARGE = {
    "maps": Design(seed=101, pool="row", bundle={
        "hidden": 64, "heads": 2, "layers": 2, "ffn": 8, "map_pruning": True, "max_tokens": 32, "seed": 101},
        request={"rows": 4, "lanes": 4, "bus_bits": 128, "tokens": 32}),
    "unbalanced": Design(seed=102, pool="none", bundle={
        "hidden": 64, "heads": 2, "layers": 2, "head_counts": (2, 1), "ffn_sizes": (8, 24),
        "absent_blocks": 0.3, "max_tokens": 32, "seed": 102},
        request={"rows": 4, "lanes": 4, "bus_bits": 128, "tokens": 32}),
}


@pytest.mark.parametrize("name", LARGE)
def test_half_a_million_words(name, tmp_path, monkeypatch):
    """Two designs, 10**6 output words between them, most of them under random waits."""
    monkeypatch.setattr(sim.harness, "OPTIMIZE", "-O2")
    totals, opened = Totals(designs=1), build_design(LARGE[name], tmp_path)
    for index, tokens in enumerate((32, 31, 29, 17)):
        totals.add(run_build(opened, seed=index, tokens=tokens, sequences=560, stalls=index and 77 + index))
    print(f"{LARGE[name]}\n  {totals}")
    assert totals.words >= 500_000
    assert (totals.mismatches, totals.unpredicted) == (0, 0), totals


@pytest.mark.parametrize(("seed", "rows", "lanes"), [(201, 2, 8), (202, 4, 16)])
def test_long_sequences(seed, rows, lanes, tmp_path):
    """Up to 512 tokens, and every length of the last token group."""
    design = Design(seed=seed, pool="row", bundle={
        "hidden": 16, "heads": 2, "layers": 1, "ffn": 16, "map_pruning": seed == 202, "max_tokens": 512,
        "seed": seed}, request={"rows": rows, "lanes": lanes, "tokens": 512})
    opened, totals = build_design(design, tmp_path), Totals(designs=1)
    for tokens in (512, 511, 509, 300, 129):
        totals.add(run_build(opened, seed=seed, tokens=tokens, sequences=1, stalls=tokens % 2 * tokens))
    assert (totals.mismatches, totals.unpredicted) == (0, 0), totals


def test_designs_differ():
    assert len({str(draw_design(seed)) for seed in range(100)}) == 100
