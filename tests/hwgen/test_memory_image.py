"""The weight image decodes to the bundle's weights, for every structure, size and storage of the pool."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.pools import build_pool
from hwgen.image_reader import ImageError, read_image
from hwgen.memory_image import kept_columns, pattern_memory, tile_ksteps, weight_image, write_image
from hwgen.plan import PlanError
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from rtl_templates.array_spec import PoolStorage
from tests.bundles import random_bundle as uncached_random_bundle

random_bundle = cache(uncached_random_bundle)

POOLS = {
    "balanced, n = 2": build_pool("reed_muller", size=12),
    "unbalanced, n = 2": build_pool("frequency", size=6, balance="none"),
    "balanced, n = 1": build_pool("frequency", size=8, keep=4),
    "dense, n = 4": build_pool("frequency", size=1, keep=16),
    "7 of 16": build_pool("frequency", size=5, keep=7, balance="none"),
    "12 of 16, rows of 3": build_pool("frequency", size=5, keep=12),
}


def decode(bundle, plan, image):
    return read_image(image, plan.spec, [(layer.rows, layer.inner) for layer in plan.layers])


def assert_round_trip(bundle, plan, image):
    for planned, decoded in zip(plan.layers, decode(bundle, plan, image), strict=True):
        layer = bundle.layers[planned.name]
        for field in ("weight", "bias", "multiplier", "shift"):
            np.testing.assert_array_equal(getattr(decoded, field), getattr(layer, field),
                                          err_msg=f"{layer.name} {field}")
        assert decoded.ksteps == planned.ksteps


@settings(max_examples=30, deadline=None)
@given(structure=st.sampled_from(["pattern", "dense", "nm", "mixed"]), pool=st.sampled_from(sorted(POOLS)),
       storage=st.sampled_from(list(PoolStorage)), rows=st.integers(1, 7),
       lanes=st.sampled_from([1, 2, 3, 8]),
       hidden=st.sampled_from([8, 12, 24]), ffn=st.sampled_from([4, 36]),
       absent=st.sampled_from([0.0, 0.5, 0.95, 1.0]), seed=st.integers(0, 3))
def test_image_round_trip(structure, pool, storage, rows, lanes, hidden, ffn, absent, seed):
    bundle = random_bundle(hidden=hidden, heads=1, ffn=ffn, layers=1, structure=structure,
                           pool=POOLS[pool], absent_blocks=absent, seed=seed)
    has_nm = structure in ("nm", "mixed")
    request = PlanRequest(rows=rows, lanes=lanes, storage=PoolStorage.STREAM if has_nm else storage)
    if has_nm and "n = 2" not in pool and pool != "7 of 16":
        with pytest.raises(PlanError, match="2:4 layers need n = 2"):
            make_plan(bundle, request)
        return
    plan = make_plan(bundle, request)
    assert_round_trip(bundle, plan, weight_image(bundle, plan.spec, list(bundle.layers)))


def test_absent_blocks_cost_no_ksteps():
    bundle = random_bundle(structure="pattern", absent_blocks=0.9)
    layer = next(iter(bundle.layers.values()))
    present = layer.block_mask.reshape(-1, 2, layer.inner // 4).any(axis=1)
    assert present.sum() < present.size
    assert tile_ksteps(layer, 2, 2) == tuple(np.maximum(present.sum(axis=1), 1))


def test_a_tile_without_blocks_still_has_one_kstep_for_its_biases():
    bundle = random_bundle(structure="dense", absent_blocks=1.0)
    layer = next(iter(bundle.layers.values()))
    assert kept_columns(layer, 4).sum(axis=1).tolist() == [1] * 4
    assert tile_ksteps(layer, 4, 2) == (2,) * 4


def test_dense_blocks_take_two_ksteps_where_patterns_take_one():
    pattern, dense = (next(iter(random_bundle(structure=s).layers.values())) for s in ("pattern", "dense"))
    assert tile_ksteps(pattern, 4, 2) == (16,) * 4
    assert tile_ksteps(dense, 4, 2) == (32,) * 4


def test_write_image_equals_weight_image_and_tells_where_layers_lie(tmp_path):
    bundle = random_bundle(structure="mixed", absent_blocks=0.3)
    plan = make_plan(bundle, PlanRequest(rows=3, lanes=4))
    names = list(bundle.layers)
    images = write_image(bundle, plan.spec, names, tmp_path / "weights.bin")
    raw = (tmp_path / "weights.bin").read_bytes()
    assert raw == weight_image(bundle, plan.spec, names).tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["weights.bin"]
    for image, planned in zip(images, plan.layers, strict=True):
        part = raw[image.offset:image.offset + image.bytes]
        decoded, = read_image(part, plan.spec, [(planned.rows, planned.inner)])
        np.testing.assert_array_equal(decoded.weight, bundle.layers[image.name].weight)
        assert (image.name, image.tiles) == (planned.name, len(planned.ksteps))
        assert image.beats * plan.spec.bus_bits == 8 * image.bytes


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    bundle = random_bundle()
    plan = make_plan(bundle)
    with pytest.raises(KeyError):
        write_image(bundle, plan.spec, [*bundle.layers, "no such layer"], tmp_path / "weights.bin")
    assert list(tmp_path.iterdir()) == []


def flip_marker(raw):
    raw[3] ^= 0xFF


def flip_weight(raw):
    raw[-1 - 16 * 8] ^= 1  # before the constants of 16 rows


def flip_column(raw):
    # Bits 7:0 of the first index record: one beat of header before it.
    raw[16] = 0xFF


@pytest.mark.parametrize("damage", [flip_marker, flip_weight, flip_column])
def test_damaged_images_do_not_decode_to_the_same_weights(damage):
    bundle = random_bundle()
    plan = make_plan(bundle)
    raw = weight_image(bundle, plan.spec, list(bundle.layers))
    assert_round_trip(bundle, plan, raw)
    damage(raw)
    with pytest.raises((ImageError, AssertionError)):
        assert_round_trip(bundle, plan, raw)


@pytest.mark.parametrize("change", [lambda raw: raw[:-16],
                                    lambda raw: np.append(raw, np.zeros(16, np.uint8))])
def test_images_of_the_wrong_length_are_refused(change):
    bundle = random_bundle()
    plan = make_plan(bundle)
    with pytest.raises(ImageError, match=r"byte \d+|the image has"):
        decode(bundle, plan, change(weight_image(bundle, plan.spec, list(bundle.layers))))


@pytest.mark.parametrize("pool", ["balanced, n = 2", "unbalanced, n = 2"])
def test_pattern_memory_holds_the_control_word_of_every_entry(pool):
    plan = make_plan(random_bundle(pool=POOLS[pool]), PlanRequest(storage=PoolStorage.RAM))
    array = plan.spec.array
    memory = pattern_memory(array).astype(np.uint64).reshape(-1, 2)
    for entry in range(array.assignment.entries):
        low, high = memory[array.entry_code(entry)].tolist()
        assert low | high << 32 == array.assignment.control_word(entry)
