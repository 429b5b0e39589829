"""Structures of larger units: projections against brute force, verification, storage."""

import itertools

import pytest
import torch

from compressor.group_structures import Blocks, HeadsRows, RowsAndColumns
from compressor.structures import Dense, StructureError


def random_weight(rows=8, inner=16, seed=0):
    return torch.randn(rows, inner, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("unit", [(4, 4), (4, 8), (1, 16), (8, 4), (8, 8)])
def test_block_projection_is_the_nearest(unit):
    """Of all choices of so many blocks, the one that keeps most of the squared norm."""
    weight, structure = random_weight(), Blocks(*unit, 0.5)
    projected, found = structure.project(weight)
    blocks = [(slice(r, r + unit[0]), slice(c, c + unit[1]))
              for r in range(0, 8, unit[0]) for c in range(0, 16, unit[1])]
    energies = [float(weight[block].square().sum()) for block in blocks]
    best = max(itertools.combinations(range(len(blocks)), len(blocks) // 2),
               key=lambda chosen: sum(energies[i] for i in chosen))
    expected = torch.zeros_like(weight)
    for index in best:
        expected[blocks[index]] = weight[blocks[index]]
    assert torch.equal(projected, expected)
    assert found.retained_energy == pytest.approx(sum(energies[i] for i in best) / sum(energies))
    structure.verify(projected)
    assert torch.equal(structure.project(projected)[0], projected)
    with pytest.raises(StructureError, match=r"blocks of .* are not zero; a density of 0\.5 allows"):
        structure.verify(weight)


def test_norms_of_the_inputs_count():
    weight, norms = torch.ones(4, 8), torch.tensor([1.0] * 4 + [2.0] * 4)
    assert Blocks(4, 4, 0.5).project(weight, norms)[0].sum(dim=0).tolist() == [0.0] * 4 + [4.0] * 4


@pytest.mark.parametrize("density", [0.9, 0.5, 0.2])
def test_rows_and_columns_share_a_budget(density):
    weight, structure = random_weight(16, 32), RowsAndColumns(8, 16, density)
    weight[3] *= 0.01  # two row segments and one column segment that are small
    weight[8:, 5] *= 0.01
    projected, found = structure.project(weight)
    kept = float(found.mask.float().mean())
    assert density - 0.1 < kept <= density
    assert not projected[3].any()
    assert not projected[8:, 5].any()
    for block in projected.reshape(2, 8, 2, 16).transpose(1, 2).reshape(-1, 8, 16) != 0:
        rows, columns = block.any(dim=1), block.any(dim=0)
        assert torch.equal(block, rows[:, None] & columns)  # whole segments of both kinds
    structure.verify(projected)
    assert torch.equal(RowsAndColumns(8, 16).project(projected)[0], projected)
    with pytest.raises(StructureError, match="of the weights are not zero; at most"):
        structure.verify(torch.ones(16, 32))


def test_without_a_density_the_zeros_decide():
    weight = random_weight()
    weight[:4, 4:8] = 0
    _, found = Blocks(4, 4).project(weight)
    assert torch.equal(found.mask, weight != 0)
    weight[6] = 0
    assert torch.equal(HeadsRows().project(weight)[1].mask[6], torch.zeros(16, dtype=torch.bool))


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"^8 rows do not divide into blocks of 16x4; choose a number"):
        Blocks(16, 4, 0.5).check_shape((8, 16))
    with pytest.raises(ValueError, match="16 columns do not divide into blocks of 8x3"):
        RowsAndColumns(8, 3, 0.5).check_shape((8, 16))


def test_storage_counts_the_4x4_blocks_that_are_left():
    weight = random_weight()
    for structure in (Blocks(8, 4, 0.5), Blocks(4, 4, 0.25), Blocks(8, 8, 0.5)):
        projected = structure.project(weight)[0]
        bits = int(8 * 128 * structure.density) + 8  # 8 blocks of 128 bits, one bit each for presence
        assert structure.weight_bits(projected) == structure.bits((8, 16)) == bits
        assert structure.stored() == Dense()
    assert Blocks(1, 8, 0.5).bits((8, 16)) == 1024  # a row segment may lie in every block
