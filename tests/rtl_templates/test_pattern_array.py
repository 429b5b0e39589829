"""PatternArray against NumPy: every row of sums, in its exact cycle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.patterns import candidate_patterns
from rtl_templates.array_spec import Accumulation, ArraySpec, PoolStorage
from rtl_templates.slot_assignment import SlotAssignment
from tests.rtl_templates.array_testing import check_passes, random_pass


def balanced_assignment(slots, patterns, rng):
    """Assignment of a random row-balanced pool."""
    candidates = candidate_patterns(4 * slots, "row")
    return SlotAssignment.balanced(rng.permutation(candidates)[:patterns], slots)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), slots=st.sampled_from([1, 2, 4]), units=st.integers(1, 3),
       lanes=st.integers(1, 3), storage=st.sampled_from(PoolStorage), patterns=st.integers(1, 9),
       accumulation=st.sampled_from(Accumulation), extreme=st.booleans())
def test_balanced_pools(seed, slots, units, lanes, storage, patterns, accumulation, extreme):
    rng = np.random.default_rng(seed)
    lanes += lanes % 2 if accumulation is Accumulation.PAIRED else 0
    spec = ArraySpec(units=units, lanes=lanes, assignment=balanced_assignment(slots, patterns, rng),
                     storage=storage, accumulation=accumulation, accumulator_bits=int(rng.integers(22, 33)))
    passes = [random_pass(spec, rng, ksteps=int(rng.integers(1, 9)), words=int(rng.integers(1, units + 1)),
                          extreme=extreme, gap=int(rng.integers(0, 3))) for _ in range(4)]
    check_passes(spec, passes)


@pytest.mark.parametrize("accumulation", Accumulation)
def test_back_to_back_passes_of_the_shortest_length(accumulation):
    """Full-length drains with no cycle to spare: passes of 4 * words K-steps, then a short one."""
    rng = np.random.default_rng(3)
    spec = ArraySpec(units=2, lanes=2, assignment=balanced_assignment(2, 4, rng), accumulation=accumulation,
                     accumulator_bits=24)
    check_passes(spec, [random_pass(spec, rng, ksteps=k, words=w)
                        for k, w in ((8, 2), (8, 2), (8, 1), (4, 1), (4, 2), (1, 2), (1, 2))])


@pytest.mark.parametrize("accumulation", Accumulation)
def test_sums_use_the_full_width_of_the_accumulator(accumulation):
    """520 K-steps of the largest products reach 2**24 and more; a narrower sum would wrap."""
    spec = ArraySpec(units=1, lanes=2, assignment=SlotAssignment.balanced(np.ones((1, 16)), 4),
                     accumulator_bits=27, accumulation=accumulation)
    one = random_pass(spec, np.random.default_rng(0), ksteps=520, words=1)
    one.weights[:], one.activations[:] = -127, 127
    assert one.sums(spec).min() == -127 * 127 * 4 * 520 < -2**25 + 2**16
    check_passes(spec, [one])


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), slots=st.sampled_from([1, 2, 4]), units=st.integers(1, 2),
       storage=st.sampled_from(PoolStorage), solved=st.booleans(), missing=st.integers(0, 1),
       patterns=st.integers(1, 9), extreme=st.booleans())
def test_unbalanced_pools(seed, slots, units, storage, solved, missing, patterns, extreme):
    """Any patterns, with as many nonzeros as multipliers or fewer, in solved and in generic routing."""
    rng = np.random.default_rng(seed)
    candidates = candidate_patterns(4 * slots - missing)
    make = SlotAssignment.solve if solved else SlotAssignment.any_pattern
    spec = ArraySpec(units=units, lanes=2, assignment=make(rng.permutation(candidates)[:patterns], slots),
                     storage=storage, accumulator_bits=24)
    passes = [random_pass(spec, rng, ksteps=int(rng.integers(1, 9)), words=int(rng.integers(1, units + 1)),
                          extreme=extreme, gap=int(rng.integers(0, 3))) for _ in range(3)]
    check_passes(spec, passes)


@pytest.mark.parametrize("storage", [PoolStorage.RAM, PoolStorage.STREAM])
def test_any_pattern_hardware_runs_a_pool_it_was_not_made_for(storage):
    rng = np.random.default_rng(11)
    candidates = candidate_patterns(8)
    made_for, runs = (ArraySpec(units=2, lanes=1, storage=storage, accumulator_bits=24,
                                assignment=SlotAssignment.any_pattern(rng.permutation(candidates)[:8], 2))
                      for _ in range(2))
    check_passes(runs, [random_pass(runs, rng, ksteps=24, words=2)], hardware=made_for)


def test_lanes_are_paired_two_by_two():
    with pytest.raises(ValueError, match="even number"):
        ArraySpec(units=1, lanes=3, assignment=SlotAssignment.balanced(np.ones((1, 16)), 4),
                  accumulation=Accumulation.PAIRED)


def test_dsp_accumulation_needs_a_balanced_pool():
    masks = np.zeros((1, 16), np.uint8)
    masks[0, :8] = 1
    with pytest.raises(ValueError, match="row-balanced"):
        ArraySpec(units=1, lanes=1, assignment=SlotAssignment.any_pattern(masks, 2),
                  accumulation=Accumulation.DSP)
