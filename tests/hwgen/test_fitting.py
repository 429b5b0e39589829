"""Other bundles on hardware that exists: what fits keeps the Verilog; the rest is refused with numbers."""

import json
import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from click.testing import CliRunner

from compressor.bundle import save_bundle
from compressor.pools import build_pool
from hwgen import cli, packaging
from hwgen.fitting import fit_plan
from hwgen.packaging import BuildError, build, load_plan, verify_build
from hwgen.plan import Plan, PlanError
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from rtl_templates.accelerator import emit_verilog
from rtl_templates.array_spec import PoolStorage
from tests.bundles import random_bundle, random_encoder_bundle

SMALL = {"hidden": 16, "heads": 2, "ffn": 32, "layers": 1}
RAM = PlanRequest(rows=2, lanes=8, tokens=12, storage=PoolStorage.RAM)
ROM = replace(RAM, storage=PoolStorage.ROM)
OTHER_POOL = build_pool("frequency", size=16)
UNBALANCED = build_pool("frequency", size=8, balance="none")

encoder = cache(random_encoder_bundle)
linear = cache(random_bundle)


@cache
def plan_of(request, **model):
    return make_plan(encoder(**{**SMALL, **model}), request)


@pytest.mark.parametrize("model", [
    {"seed": 1}, {"pool": OTHER_POOL, "seed": 2}, {"hidden": 8, "heads": 1}, {"ffn": 16},
    {"max_tokens": 9}], ids=str)
def test_what_fits_describes_the_same_hardware(model):
    built = plan_of(RAM)
    bundle = encoder(**{**SMALL, **model})
    plan = fit_plan(bundle, built)
    pool = bundle.pool.patterns
    assert plan.spec.array.assignment.masks[:len(pool)].reshape(-1, 16).tolist() == pool.tolist()
    assert plan.configuration_hash == built.configuration_hash
    assert plan.spec.configuration == built.spec.configuration
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.predicted_cycles > 0
    assert plan.tokens == min(12, model.get("max_tokens", 16))


@pytest.mark.nightly
@pytest.mark.parametrize("model", [{"pool": OTHER_POOL, "seed": 2}, {"hidden": 8, "heads": 1}], ids=str)
def test_the_verilog_is_the_same(model):
    built = plan_of(RAM)
    assert emit_verilog(fit_plan(encoder(**{**SMALL, **model}), built).spec) == emit_verilog(built.spec)


REFUSED = [
    ({"hidden": 24}, r"needs 24 hidden channels; this accelerator has 16"),
    ({"heads": 1}, r"needs 16 channels in a head; this accelerator has 8"),
    ({"ffn": 48}, r"needs 12 activation columns; this accelerator has 8"),
    ({"heads": 4}, r"needs 35 descriptors; this accelerator has 32"),
    ({"layers": 3}, r"needs 63 descriptors; this accelerator has 32"),
    ({"pool": build_pool("reed_muller", size=33)}, r"needs 33 patterns; this accelerator has 32"),
    ({"pool": UNBALANCED}, r"which takes routing; this accelerator was built for a row-balanced pool"),
    ({"pool": build_pool("frequency", size=8, keep=4)},
     r"keep 4 of 16, which takes n = 1 slots a row; this accelerator has n = 2"),
    ({"map_pruning": True}, r"needs 8 patterns of attention maps; this accelerator has 0"),
    ({"structure": "dense"}, r"needs 16 K-steps in a tile; this accelerator has 8"),
]


@pytest.mark.parametrize(("model", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_does_not_fit_is_refused_with_numbers(model, message):
    with pytest.raises(PlanError, match=message) as refusal:
        fit_plan(encoder(**{**SMALL, **model}), plan_of(RAM))
    assert "\n" not in str(refusal.value)


def test_more_tokens_and_bundles_without_operators_are_refused():
    with pytest.raises(PlanError, match="needs 13 tokens; this accelerator has 12"):
        fit_plan(encoder(**SMALL), plan_of(RAM), tokens=13)
    with pytest.raises(PlanError, match="the bundle has linear layers alone"):
        fit_plan(linear(**SMALL), plan_of(RAM))


def test_a_pool_in_logic_serves_other_weights_of_the_same_pool():
    built = plan_of(ROM)
    assert fit_plan(encoder(**SMALL, seed=1), built).configuration_hash == built.configuration_hash
    with pytest.raises(PlanError, match="its patterns are not those in this accelerator's logic"):
        fit_plan(encoder(**SMALL, pool=OTHER_POOL), built)


def test_accumulators_of_a_pool_in_logic_were_proven_for_other_weights():
    built = plan_of(ROM)
    narrow = replace(built, spec=replace(built.spec, array=replace(built.spec.array, accumulator_bits=17)))
    narrow = replace(narrow, spec=replace(narrow.spec, configuration=0))
    with pytest.raises(PlanError, match=r"needs \d+ bits in the accumulators; this accelerator has 17"):
        fit_plan(encoder(**SMALL, seed=1), narrow)


def test_patterns_of_attention_maps_are_in_the_logic():
    """A pool in RAM whose first patterns differ would make other maps, also without pruning."""
    built = plan_of(RAM, map_pruning=True)
    for model in ({"map_pruning": True, "seed": 1}, {"seed": 2}):
        assert fit_plan(encoder(**SMALL, **model), built).configuration_hash == built.configuration_hash
    for model in ({"map_pruning": True, "pool": OTHER_POOL}, {"pool": OTHER_POOL}):
        with pytest.raises(PlanError, match="patterns 0 to 7 of the pool are fixed in this"):
            fit_plan(encoder(**SMALL, **model), built)
    assert plan_of(RAM, map_pruning=True, pool=OTHER_POOL).configuration_hash != built.configuration_hash


def test_an_accelerator_with_routing_takes_any_pool():
    """Of linear layers: the units that make tiles on chip need balanced rows."""
    built = make_plan(linear(**SMALL, pool=UNBALANCED), replace(RAM, linear_only=True))
    other = build_pool("frequency", size=8, balance="none", blocks=np.random.default_rng(3).normal(
        size=(500, 16)) * np.linspace(0.2, 3, 16))
    for pool in (other, build_pool("reed_muller", size=8)):
        plan = fit_plan(linear(**SMALL, pool=pool), built)
        assert plan.configuration_hash == built.configuration_hash
        assert plan.spec.array.assignment.masks[:8].reshape(8, 16).tolist() == pool.patterns.tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A build in RAM, with a stand-in for its Verilog, and bundles."""
    folder = tmp_path_factory.mktemp("fitting")
    save_bundle(encoder(**SMALL), folder / "first.pt")
    save_bundle(encoder(**SMALL, pool=OTHER_POOL, seed=2), folder / "other.pt")
    save_bundle(encoder(**{**SMALL, "hidden": 24}), folder / "larger.pt")

    def write(plan, directory):
        directory.mkdir()
        (directory / "accelerator.v").write_text("// the first build's\n")
        (directory / "files.f").write_text("accelerator.v\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaging, "write_verilog", write)
        build(folder / "first.pt", folder / "first", RAM)
    return folder


def hwgen(*arguments):
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_build_for_a_build(folder):
    code, out, err = hwgen("build", "--model", folder / "other.pt", "--for", folder / "first",
                           "--out", folder / "second")
    assert (code, err) == (0, "")
    assert f"the Verilog of {folder / 'first'}" in out
    verify_build(folder / "second")
    manifests = [json.loads((folder / name / "manifest.json").read_text()) for name in ("first", "second")]
    first, second = (manifest["files"] for manifest in manifests)
    assert first["rtl/accelerator.v"] == second["rtl/accelerator.v"]
    assert manifests[0]["configuration_hash"] == manifests[1]["configuration_hash"]
    for name in ("weights/weights.bin", "weights/pool.bin", "bundle.pt"):
        assert first[name] != second[name]
    assert load_plan(folder / "second").spec.array.storage is PoolStorage.RAM


@pytest.mark.parametrize(("arguments", "message"), [
    (("--model", "larger.pt"), "needs 24 hidden channels; this accelerator has 16"),
    (("--model", "other.pt", "--rows", 4), "--rows cannot be chosen with --for"),
    (("--model", "other.pt", "--pool", "ram"), "--pool cannot be chosen with --for"),
    (("--model", "other.pt", "--tokens", 40), "needs 40 tokens; this accelerator has 12"),
    (("--model", "other.pt", "--emit", "hls"), "leave --emit out"),
    (("--model", "other.pt", "--for", "nowhere"), "is not a build"),
])
def test_refusals_are_one_line(folder, arguments, message, monkeypatch):
    monkeypatch.chdir(folder)
    code, out, err = hwgen("build", "--for", "first", "--out", "refused", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (folder / "refused").exists()


def test_damaged_hardware_is_refused(folder, tmp_path):
    shutil.copytree(folder / "first", tmp_path / "first")
    (tmp_path / "first" / "rtl" / "accelerator.v").write_text("// changed\n")
    with pytest.raises(BuildError, match=r"rtl/accelerator.v differs from manifest.json"):
        build(folder / "other.pt", tmp_path / "out", hardware=tmp_path / "first")
