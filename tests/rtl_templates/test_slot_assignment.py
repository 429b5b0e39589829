"""Slot assignments: every nonzero reaches its row, and the routing stays as small as promised."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.patterns import candidate_patterns
from compressor.pools import build_pool
from rtl_templates.slot_assignment import SlotAssignment, dense_parts
from rtl_templates.slot_solver import any_pattern_ports, place_any


def block_product(assignment, word, weights, activations):
    """What a unit with generic multiplexers computes from a control word: int array of 4 rows."""
    products = [int(weights[m]) * activations[word >> 2 * m & 3] for m in range(assignment.multipliers)]
    position, sums = 2 * assignment.multipliers, []
    for ports in assignment.ports:
        total = 0
        for candidates in ports:
            width = assignment.port_bits(candidates)
            code = word >> position & (1 << width) - 1
            position += width
            if width == 0:
                total += products[candidates[0]]
            elif code:
                total += products[candidates[code - 1]]
        sums.append(total)
    assert position == assignment.control_bits
    return sums


def check_entries(assignment, masks, rng):
    """Masks, dense parts and control words of every entry."""
    expected = np.concatenate([np.reshape(masks, (-1, 4, 4)), dense_parts(assignment.slots)])
    assert (assignment.masks == expected).all()
    assert assignment.patterns == len(masks)
    assert len(assignment.dense_entries) == 4 // assignment.slots
    blocks = rng.integers(-127, 128, (assignment.entries, 4, 4)).astype(np.int8)
    activations = rng.integers(-127, 128, 4).tolist()
    weights = assignment.place(blocks, np.arange(assignment.entries))
    for entry in range(assignment.entries):
        golden = (blocks[entry].astype(int) * expected[entry]) @ np.array(activations)
        word = assignment.control_word(entry)
        assert block_product(assignment, word, weights[entry], activations) == golden.tolist(), entry


def check_free_routing(assignment):
    """Single candidates at even ports, at most three at odd ones: what a unit routes without extra LUTs."""
    for ports in assignment.ports:
        assert all(len(candidates) == 1 for candidates in ports[0::2])
        assert all(len(candidates) <= 3 for candidates in ports[1::2])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), slots=st.sampled_from([1, 2, 4]), patterns=st.integers(1, 12))
def test_balanced(seed, slots, patterns):
    rng = np.random.default_rng(seed)
    masks = rng.permutation(candidate_patterns(4 * slots, "row"))[:patterns]
    assignment = SlotAssignment.balanced(masks, slots)
    check_entries(assignment, masks, rng)
    assert not assignment.is_routed
    assert assignment.control_bits == 8 * slots


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), patterns=st.integers(1, 40), slots=st.sampled_from([1, 2, 4]))
def test_bank_balanced_pools_need_multiplexers_of_4_over_n_columns(seed, patterns, slots):
    rng = np.random.default_rng(seed)
    masks = rng.permutation(candidate_patterns(4 * slots, "bank"))[:patterns]
    assignment = SlotAssignment.balanced(masks, slots)
    check_entries(assignment, masks, rng)
    for row in np.array(assignment.columns).reshape(-1, 4, slots).transpose(1, 2, 0):
        assert all(len(set(slot)) <= 4 // slots for slot in row.tolist())


def test_ascending_columns_where_no_order_is_better():
    columns = np.array(SlotAssignment.balanced(build_pool("reed_muller").patterns, 2).columns)
    assert (np.diff(columns.reshape(-1, 4, 2), axis=2) > 0).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), slots=st.sampled_from([1, 2, 4]), patterns=st.integers(1, 12),
       missing=st.integers(0, 3), solved=st.booleans())
def test_unbalanced(seed, slots, patterns, missing, solved):
    """Patterns with as many nonzeros as multipliers, and with fewer."""
    rng = np.random.default_rng(seed)
    masks = rng.permutation(candidate_patterns(4 * slots - missing))[:patterns]
    make = SlotAssignment.solve if solved else SlotAssignment.any_pattern
    assignment = make(masks, slots)
    check_entries(assignment, masks, rng)
    check_free_routing(assignment)


@pytest.mark.parametrize(("keep", "slots"), [(4, 1), (3, 1), (8, 2)])
def test_any_pattern_ports_serve_every_pattern(keep, slots):
    """All 12,870 patterns with 8 of 16 (n = 2), all 1,820 with 4 of 16 (n = 1); the ports never change."""
    masks = candidate_patterns(keep)
    assignment = SlotAssignment.any_pattern(masks, slots)
    assert (assignment.masks[:len(masks)] == masks.reshape(-1, 4, 4)).all()
    assert assignment.ports == any_pattern_ports(slots)
    check_free_routing(assignment)


def test_four_slots_need_no_routing():
    assert not SlotAssignment.any_pattern(np.eye(16, dtype=np.uint8), 4).is_routed


def test_solving_uses_fewer_ports_than_any_pattern_and_repeats_itself():
    masks = np.random.default_rng(5).permutation(candidate_patterns(8))[:16]
    masks = masks[masks.reshape(-1, 4, 4).sum(axis=2).max(axis=1) <= 3]
    assignment = SlotAssignment.solve(masks, 2)
    assert max(len(ports) for ports in assignment.ports) == 3
    assert assignment == SlotAssignment.solve(masks, 2)


def test_a_balanced_pool_is_solved_without_routing():
    masks = candidate_patterns(8, "row")[::100]
    assert not SlotAssignment.solve(masks, 2).is_routed


def test_two_rows_may_have_the_same_candidates():
    """Ports are told apart by place, not by value."""
    assignment = SlotAssignment(slots=1, rows=((0, 1, -1, -1), (1, 0, -1, -1)), columns=((0, 0, 0, 0),) * 2,
                                ports=(((0, 1),), ((0, 1),), (), ()), patterns=2)
    assert [assignment.control_word(entry) >> 8 for entry in range(2)] == [0b1001, 0b0110]


def test_a_product_that_cannot_reach_its_row_is_refused():
    with pytest.raises(ValueError, match=r"entry 0: the ports deliver products \[0\], not \[0, 1\]"):
        SlotAssignment(slots=1, rows=((0, 0, -1, -1),), columns=((0, 1, 0, 0),),
                       ports=(((0,),), ((1,),), ((2,),), ((3,),)), patterns=1)


@pytest.mark.parametrize("make", [SlotAssignment.solve, SlotAssignment.any_pattern])
def test_too_many_nonzeros_are_refused(make):
    masks = np.ones((2, 16), np.uint8)
    masks[0, 8:] = 0
    with pytest.raises(ValueError, match=r"pattern 1 keeps 16 positions; .* at most 8 a cycle"):
        make(masks, 2)
    with pytest.raises(ValueError, match="16 nonzeros does not fit a unit of 8"):
        place_any(masks[1], 2)


def test_unbalanced_rows_are_refused_by_a_balanced_unit():
    masks = np.zeros((1, 16), np.uint8)
    masks[0, :8] = 1
    with pytest.raises(ValueError, match=r"pattern 0 keeps \[4, 4, 0, 0\] in its rows"):
        SlotAssignment.balanced(masks, 2)
