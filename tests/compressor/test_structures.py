"""Structures: projections against brute force, indices, verification, storage."""

import numpy as np
import pytest
import torch

from compressor import structures
from compressor.blocks import block_grid, from_blocks, to_blocks
from compressor.patterns import patterns_of_masks
from compressor.pools import PatternPool, build_pool
from compressor.structures import NM, Dense, Pattern, StructureError

POOLS = {balance: build_pool("reed_muller", balance=balance) for balance in ("row", "none")}


def random_weight(rows=24, inner=40, seed=0):
    return torch.randn(rows, inner, generator=torch.Generator().manual_seed(seed))


def test_blocks_are_row_major():
    weight = torch.arange(8 * 12).reshape(8, 12)
    blocks = to_blocks(weight)
    for number in range(6):
        down, across = divmod(number, 3)
        own = weight[4 * down:4 * down + 4, 4 * across:4 * across + 4].reshape(-1)
        assert torch.equal(blocks[number], own)
    assert torch.equal(from_blocks(blocks, (8, 12)), weight)
    assert np.array_equal(to_blocks(weight.numpy()), blocks.numpy())


@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (8,), (4, 4, 4)])
def test_sizes_that_do_not_divide_are_refused(shape):
    with pytest.raises(ValueError, match="do not divide into 4x4 blocks"):
        block_grid(shape)


@pytest.mark.parametrize("balance", ["row", "none"])
def test_pattern_projection_is_the_nearest(balance):
    structure = Pattern(POOLS[balance])
    weight = random_weight()
    projected, found = structure.project(weight)
    kept = 0.0
    for block, own, index in zip(to_blocks(weight), to_blocks(projected), found.index.reshape(-1),
                                 strict=True):
        candidates = [block * torch.tensor(pattern) for pattern in structure.pool.patterns]
        distances = [float((block - candidate).square().sum()) for candidate in candidates]
        assert distances[int(index)] == pytest.approx(min(distances), rel=1e-5)
        assert torch.equal(own, candidates[int(index)])
        kept += float(candidates[int(index)].square().sum())
    assert found.retained_energy == pytest.approx(kept / float(weight.square().sum()), rel=1e-5)
    assert torch.equal(projected, weight * found.mask)
    assert int(found.mask.sum()) == weight.numel() // 2


def test_lowest_id_wins_ties():
    weight = torch.ones(8, 8)
    _, found = Pattern(POOLS["row"]).project(weight)
    assert (found.index == 0).all()


def test_chunks_do_not_matter(monkeypatch):
    weight = random_weight(64, 64)
    structure = Pattern(POOLS["row"])
    whole, whole_found = structure.project(weight)
    monkeypatch.setattr(structures, "_CHUNK", 37)
    parts, parts_found = structure.project(weight)
    assert torch.equal(whole, parts)
    assert whole_found.retained_energy == pytest.approx(parts_found.retained_energy, rel=1e-9)
    assert torch.equal(structure.index(whole), structure.index(parts))


@pytest.mark.parametrize("structure", [Pattern(POOLS["row"]), Pattern(POOLS["none"]), NM(), NM(1),
                                       NM(3), Dense()])
def test_projection_is_idempotent_and_verifies(structure):
    weight = random_weight()
    before = weight.clone()
    projected, _ = structure.project(weight)
    again, found_again = structure.project(projected)
    assert torch.equal(weight, before)
    assert torch.equal(projected, again)
    assert found_again.retained_energy == pytest.approx(1.0)
    structure.verify(projected)
    structure.verify(projected.to(torch.int8).numpy())
    index = structure.index(projected)
    assert (index is None) == (structure == Dense())
    assert (projected * ~structure.mask(index, weight.shape)).abs().sum() == 0


def test_pattern_index_covers_tiny_weights():
    """In float32 the energy of 1e-9 vanishes beside 1: the index must still cover it."""
    pool = PatternPool(patterns=patterns_of_masks([0x3333, 0x5555]))
    weight = torch.zeros(4, 4)
    weight[0, 0], weight[0, 2] = 1.0, 1e-9
    assert int(Pattern(pool).index(weight)) == 1


@pytest.mark.parametrize("structure", [Pattern(POOLS["row"]), Pattern(POOLS["none"]), NM()])
def test_one_stray_weight_is_found_and_located(structure):
    weight = random_weight()
    projected, found = structure.project(weight)
    stray = (~found.mask).nonzero()
    for row, column in stray[[0, len(stray) // 2, -1]].tolist():
        broken = projected.clone()
        broken[row, column] = 1e-6
        down, across = row // 4 * 4, column // 4 * 4
        with pytest.raises(StructureError, match=f"the block at rows {down}-{down + 3}, "
                                                 f"columns {across}-{across + 3} "):
            structure.verify(broken)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_nm_projection_keeps_the_largest(keep):
    weight = random_weight()
    projected, found = NM(keep).project(weight)
    groups, kept = weight.reshape(-1, 4), projected.reshape(-1, 4)
    for group, own in zip(groups, kept, strict=True):
        threshold = group.abs().sort(descending=True).values[keep - 1]
        assert torch.equal(own, torch.where(group.abs() >= threshold, group, 0.0))
    assert torch.equal(found.mask, projected != 0)


def test_nm_ties_and_zeros_take_the_lowest_columns():
    _, found = NM().project(torch.ones(4, 4))
    assert int(found.index) == 0x3333
    weight = torch.zeros(4, 4)
    weight[1, 3] = 5.0
    assert int(NM().index(weight)) == 0x3393


def test_nm_refuses_other_groups():
    with pytest.raises(ValueError, match="N:M must keep 1 to 3 of 4, not 4 of 4"):
        NM(4)
    with pytest.raises(ValueError, match="not 2 of 8"):
        NM(2, 8)


def test_bits():
    """The project's storage figures for int8: 1.855 for 32 patterns, 1.6 for 2:4."""
    shape = (768, 3072)
    assert Dense().bits(shape) / Pattern(POOLS["row"]).bits(shape) == pytest.approx(128 / 69)
    assert Dense().bits(shape) / NM().bits(shape) == pytest.approx(1.6)


def test_bfloat16_weights_stay_bfloat16():
    weight = random_weight().bfloat16()
    projected, _ = Pattern(POOLS["row"]).project(weight)
    assert projected.dtype == torch.bfloat16
    assert torch.equal(projected[projected != 0], weight[projected != 0])
