"""Structures: projections against brute force, indices, verification, storage."""

import numpy as np
import pytest
import torch

from compressor import structures
from compressor.blocks import block_grid, from_blocks, to_blocks
from compressor.patterns import candidate_patterns, patterns_of_masks, sorted_by_mask
from compressor.pools import PatternPool, build_pool
from compressor.structures import NM, Dense, Pattern, StructureError, Unstructured

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


@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_random_pools_of_all_patterns(size):
    """Pools drawn from all 12,870 patterns of 8 of 16, against brute force in float64."""
    every, rng = candidate_patterns(8, "none"), np.random.default_rng(size)
    assert len(every) == 12_870
    patterns = sorted_by_mask(every[rng.choice(len(every), size, replace=False)])
    weight = random_weight(32, 64, seed=size)
    projected, found = Pattern(PatternPool(patterns=patterns, keep=8, balance="none")).project(weight)
    blocks = to_blocks(weight).double().numpy()
    distances = np.square(blocks[:, None, :] * (1 - patterns)).sum(axis=2)  # of every block to every pattern
    ids = found.index.reshape(-1).numpy()
    assert np.array_equal(ids, distances.argmin(axis=1))
    assert np.array_equal(to_blocks(projected).numpy(), to_blocks(weight).numpy() * patterns[ids])


def test_among_all_patterns_the_nearest_keeps_the_8_largest():
    every, weight = candidate_patterns(8, "none"), random_weight(8, 16)
    blocks = to_blocks(weight)
    best = torch.zeros(len(blocks))
    for start in range(0, len(every), 256):
        pool = PatternPool(patterns=every[start:start + 256], keep=8, balance="none")
        best = torch.maximum(best, to_blocks(Pattern(pool).project(weight)[0]).square().sum(dim=1))
    assert torch.allclose(best, blocks.square().sort(dim=1).values[:, 8:].sum(dim=1))


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


@pytest.mark.parametrize("structure", [
    Pattern(POOLS["row"]), Pattern(POOLS["none"]), NM(), NM(1), NM(3), NM(1, 2), NM(4, 8), NM(2, 20),
    Unstructured(0.5), Unstructured(0.013), Dense()])
def test_projection_is_idempotent_and_verifies(structure):
    weight = random_weight()
    before = weight.clone()
    projected, found = structure.project(weight)
    again, found_again = structure.project(projected)
    assert torch.equal(weight, before)
    assert torch.equal(projected, again)
    assert found_again.retained_energy == pytest.approx(1.0)
    structure.verify(projected)
    structure.verify(projected.to(torch.int8).numpy())
    assert (projected * ~found.mask).abs().sum() == 0
    assert (structure.index(projected) is None) == (found.index is None)
    structure.stored().verify(projected)


def test_pattern_index_covers_tiny_weights():
    """In float32 the energy of 1e-9 vanishes beside 1: the index must still cover it."""
    pool = PatternPool(patterns=patterns_of_masks([0x3333, 0x5555]))
    weight = torch.zeros(4, 4)
    weight[0, 0], weight[0, 2] = 1.0, 1e-9
    assert int(Pattern(pool).index(weight)) == 1


@pytest.mark.parametrize("structure", [Pattern(POOLS["row"]), Pattern(POOLS["none"])])
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


@pytest.mark.parametrize(("keep", "group"), [(1, 4), (2, 4), (3, 4), (1, 2), (4, 8), (3, 5), (7, 20)])
def test_nm_projection_keeps_the_largest(keep, group):
    weight = random_weight()
    projected, found = NM(keep, group).project(weight)
    groups, kept = weight.reshape(-1, group), projected.reshape(-1, group)
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


@pytest.mark.parametrize(("keep", "group"), [(2, 4), (4, 8), (1, 10)])
def test_one_weight_too_many_is_located(keep, group):
    weight = random_weight()
    projected, found = NM(keep, group).project(weight)
    for row, column in (~found.mask).nonzero()[[0, 7, -1]].tolist():
        broken = projected.clone()
        broken[row, column] = 1e-6
        start = column // group * group
        with pytest.raises(StructureError, match=f"^row {row}, columns {start}-{start + group - 1} keep "
                                                 f"{keep + 1} weights; {keep} of every {group} are allowed$"):
            NM(keep, group).verify(broken)


def test_nm_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="N:M must keep 1 to M - 1 of M = 2 to 32 weights, not 4 of 4"):
        NM(4)
    with pytest.raises(ValueError, match="not 1 of 1"):
        NM(1, 1)
    with pytest.raises(ValueError, match=r"^40 inputs do not divide into groups of 16; choose"):
        NM(2, 16).project(random_weight())


def test_storage_of_other_groups():
    """What fits into 2:4 is stored so; the rest is stored as dense weights, and counted so."""
    assert [NM(1, 2).stored(), NM(1).stored(), NM(2, 8).stored(), NM(2, 32).stored()] == [NM()] * 4
    assert [NM(3).stored(), NM(4, 8).stored(), NM(1, 3).stored(), Unstructured().stored()] == [Dense()] * 4
    assert NM(1).bits((8, 8)) == NM().bits((8, 8))
    assert NM(4, 8).bits((8, 8)) == Unstructured().bits((8, 8)) == Dense().bits((8, 8)) == 512


@pytest.mark.parametrize("density", [0.5, 0.1, 0.999])
def test_unstructured_keeps_the_largest_of_the_matrix(density):
    weight = random_weight()
    projected, found = Unstructured(density).project(weight)
    count = round(weight.numel() * density)
    assert int(found.mask.sum()) == count
    assert float(weight.abs()[found.mask].min()) >= float(weight.abs()[~found.mask].max())
    assert torch.equal(projected, weight * found.mask)
    assert found.retained_energy == pytest.approx(
        float(projected.square().sum() / weight.square().sum()), rel=1e-5)
    broken = projected + ~found.mask * 1e-6
    with pytest.raises(StructureError, match=f"^960 weights are not zero; a density of {density:g} allows "
                                             f"{count}$"):
        Unstructured(density).verify(broken)


def test_unstructured_ties_take_the_first_positions():
    _, found = Unstructured(0.25).project(torch.ones(4, 8))
    assert found.mask.reshape(-1).tolist() == [True] * 8 + [False] * 24
    with pytest.raises(ValueError, match=r"above 0 and below 1, not 1\.0"):
        Unstructured(1.0)


@pytest.mark.parametrize("structure", [Pattern(POOLS["row"]), NM(), NM(3, 8), Unstructured(0.3)])
def test_norms_choose_the_positions_with_the_least_output_error(structure):
    """||(W - Z) diag(norms)|| is no larger than with any structure-conforming mask of plain magnitudes."""
    weight = random_weight()
    norms = torch.rand(weight.shape[1], generator=torch.Generator().manual_seed(1)) + 0.05
    plain, _ = structure.project(weight)
    aware, found = structure.project(weight, norms)
    assert torch.equal(aware, weight * found.mask)
    structure.verify(aware)
    scaled_found = structure.project(weight * norms)[1]
    assert torch.equal(found.mask, scaled_found.mask)
    error = [float(((weight - z) * norms).square().sum()) for z in (aware, plain)]
    assert error[0] < error[1]
    assert found.retained_energy == pytest.approx(
        1 - error[0] / float((weight * norms).square().sum()), rel=1e-4)


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
