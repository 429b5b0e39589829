"""Pattern pools: the code words, the builders, and what is refused."""

import re

import numpy as np
import pytest

from compressor.patterns import (
    BALANCES,
    candidate_patterns,
    masks_of_patterns,
    patterns_of_masks,
    reed_muller_patterns,
    retained_energy,
)
from compressor.pools import BUILDERS, PatternPool, PoolError, build_pool, read_pool

DATA_BUILDERS = [name for name in BUILDERS if name != "file"]


@pytest.fixture(scope="module")
def blocks():
    return np.random.default_rng(0).standard_normal((3000, 16))


def test_reed_muller_words_are_a_linear_code_with_distance_8():
    words = masks_of_patterns(reed_muller_patterns()).tolist()
    code = {*words, 0, 0xFFFF}
    assert len(code) == 32
    assert all(a ^ b in code for a in code for b in code)
    assert {bin(a ^ b).count("1") for a in code for b in code if a != b} == {8, 16}


def test_row_balanced_words_are_24_of_the_30():
    rows = reed_muller_patterns().reshape(-1, 4, 4).sum(axis=2)
    balanced = (rows == 2).all(axis=1)
    assert balanced.sum() == 24
    assert np.array_equal(reed_muller_patterns()[balanced], reed_muller_patterns("row"))


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("build", DATA_BUILDERS)
@pytest.mark.parametrize("size", [1, 4, 32])
def test_builders_keep_the_rules(build, balance, size, blocks):
    pool = build_pool(build, blocks, size=size, balance=balance, seed=3)
    assert pool.size == size
    assert (pool.patterns.sum(axis=1) == 8).all()
    assert list(pool.masks) == sorted(set(pool.masks))
    assert balance == "none" or pool.is_row_balanced
    assert balance != "bank" or (pool.patterns.reshape(-1, 4, 2, 2).sum(axis=2) == 1).all()
    assert pool == build_pool(build, blocks, size=size, balance=balance, seed=3)


@pytest.mark.parametrize("balance", BALANCES)
def test_default_pool_holds_all_code_words(balance, blocks):
    words = set(masks_of_patterns(reed_muller_patterns(balance)).tolist())
    assert words < set(build_pool("reed_muller", blocks, balance=balance).masks)


def test_data_decides_the_pool():
    """All energy in columns 0 and 1: one pattern keeps it, and every builder but the code finds it."""
    blocks = np.zeros((400, 4, 4))
    blocks[:, :, :2] = np.random.default_rng(1).standard_normal((400, 4, 2))
    for build in ("greedy", "kmeans", "frequency"):
        pool = build_pool(build, blocks.reshape(-1, 16), size=2)
        assert 0x3333 in pool.masks, build
        assert retained_energy(pool.patterns, blocks.reshape(-1, 16)) == 1.0


def test_frequency_takes_the_most_frequent():
    masks = [0x3333] * 5 + [0xCCCC] * 3 + [0x5555] * 4 + [0xAAAA] * 1
    blocks = patterns_of_masks(masks) + 0.1
    assert set(build_pool("frequency", blocks, size=2).masks) == {0x3333, 0x5555}
    assert set(build_pool("frequency", blocks, size=3).masks) == {0x3333, 0x5555, 0xCCCC}


def test_retained_energy_of_normal_blocks():
    """On normally distributed weights: 0.813 for the code, 0.800 for random patterns."""
    test = np.random.default_rng(7).standard_normal((20_000, 16))
    found = {balance: retained_energy(build_pool("reed_muller", balance=balance).patterns, test)
             for balance in ("row", "none")}
    assert found["none"] == pytest.approx(0.813, abs=0.002)
    assert found["row"] == pytest.approx(0.807, abs=0.002)
    random = candidate_patterns()[np.random.default_rng(1).choice(12870, 32, replace=False)]
    assert retained_energy(random, test) == pytest.approx(0.800, abs=0.003)


@pytest.mark.parametrize("build", ["kmeans", "frequency", "reed_muller", "greedy"])
def test_pool_of_every_candidate(build):
    """keep 4, one a row: 256 candidates, all of them wanted."""
    if build == "reed_muller":
        with pytest.raises(PoolError, match="keeps 8 of 16, not 4; use build: greedy"):
            build_pool(build, size=4, keep=4)
        return
    pool = build_pool(build, np.eye(16), size=256, keep=4)
    assert pool.size == 256


def test_pool_is_immutable_and_compared_by_value():
    source = patterns_of_masks([0x3333])
    pool = PatternPool(patterns=source)
    source[:] = 0
    assert pool.masks == (0x3333,)
    with pytest.raises(ValueError, match="read-only"):
        pool.patterns[0, 0] = 0
    assert pool == PatternPool(patterns=patterns_of_masks([0x3333]))
    assert pool != PatternPool(patterns=patterns_of_masks([0x3333]), balance="none")
    assert len({pool, PatternPool(patterns=patterns_of_masks([0x3333]))}) == 1


@pytest.mark.parametrize(("patterns", "options", "message"), [
    (np.ones((2, 8)), {}, "patterns must have shape (P, 16), not (2, 8)"),
    (np.zeros((0, 16)), {}, "a pool has 1 to 256 patterns, not 0"),
    (np.full((1, 16), 0.5), {}, "patterns must consist of 0 and 1"),
    (patterns_of_masks([0x3333, 0x3331]), {}, "pattern 1 keeps 7 of 16 positions; every pattern of this "
                                              "pool must keep 8"),
    (patterns_of_masks([0x3333, 0x3333]), {}, "two patterns of the pool are equal; list each pattern once"),
    (patterns_of_masks([0x00FF]), {}, 'balance is "row", but pattern 0 keeps unequal numbers in its rows; '
                                      'use balance "none"'),
    (patterns_of_masks([0x5555]), {"balance": "bank"},
     'balance is "bank", but pattern 0 keeps unequal numbers in its banks; use balance "none"'),
    (patterns_of_masks([0x3333]), {"balance": "col"}, "balance must be row, bank or none, not 'col'"),
])
def test_bad_pools_are_refused(patterns, options, message):
    with pytest.raises(PoolError, match=f"^{re.escape(message)}$"):
        PatternPool(patterns=patterns, **options)


def test_impossible_sizes_are_refused():
    with pytest.raises(PoolError, match="has 1 to 256 patterns, not 300"):
        build_pool("greedy", size=300)
    with pytest.raises(PoolError, match="has 1 to 16 patterns, not 17"):
        build_pool("greedy", size=17, keep=15, balance="none")
    with pytest.raises(PoolError, match="needs a multiple of 4 kept positions, not 7"):
        build_pool("greedy", keep=7)
    with pytest.raises(PoolError, match="unknown pool builder 'best'"):
        build_pool("best")


def test_pool_files(tmp_path):
    path = tmp_path / "pool.txt"
    path.write_text("# two patterns\n1100 1100 1100 1100\n\n0011001100110011  # right half\n")
    assert build_pool("file", file=path).masks == (0x3333, 0xCCCC)
    path.write_text("1100 1100 1100 1100\n1100 1100 1102 1100\n")
    with pytest.raises(PoolError, match=r"pool\.txt, line 2: .* is not a pattern"):
        read_pool(path)
    path.write_text("1111 1111 0000 0000\n")
    with pytest.raises(PoolError, match=r"pool\.txt: balance is"):
        read_pool(path)
    assert read_pool(path, balance="none").size == 1
    path.write_text("\n")
    with pytest.raises(PoolError, match="no patterns in the file"):
        read_pool(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(PoolError, match="cannot read"):
        read_pool(path)
    with pytest.raises(PoolError, match="needs the name of a pool file"):
        build_pool("file")
