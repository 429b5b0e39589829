"""The planner's resource model against what Yosys synthesizes, for a whole accelerator with an encoder."""

from pathlib import Path

import pytest

from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.resource_model import encoder_costs, memories, modelled_resources
from hwgen.synthesis import synthesize
from rtl_templates.accelerator import emit_verilog
from tests.bundles import random_encoder_bundle

TOLERANCE = 0.2


@pytest.fixture
def plan():
    bundle = random_encoder_bundle(hidden=64, layers=1, heads=2, ffn=128, max_tokens=32)
    return make_plan(bundle, PlanRequest(rows=2, lanes=8))


def test_an_encoder_costs_more_than_its_linear_layers(plan):
    linear = make_plan(random_encoder_bundle(hidden=64, layers=1, heads=2, ffn=128, max_tokens=32),
                       PlanRequest(rows=2, lanes=8, linear_only=True))
    luts, ffs, dsps = encoder_costs(plan.spec)
    assert plan.modelled["luts"] - linear.modelled["luts"] >= round(luts) > 0
    assert plan.modelled["ffs"] - linear.modelled["ffs"] >= round(ffs) > 0
    assert plan.modelled["dsps"] - linear.modelled["dsps"] == dsps
    added = memories(plan.spec).keys() - memories(linear.spec).keys()
    assert {"side bank", "exp tables", "LayerNorm buffer"} <= added


@pytest.mark.nightly
@pytest.mark.parametrize("family", ["xcup", "xc7"])
def test_model_and_synthesis(plan, family, tmp_path):
    file = Path(tmp_path) / "accelerator.v"
    file.write_text(emit_verilog(plan.spec))
    found, modelled = synthesize([file], "accelerator", family), modelled_resources(plan.spec, family)
    for name, value in (("luts", found.lut_sites), ("ffs", found.ff), ("dsps", found.dsp),
                        ("rams", found.bram36)):
        assert modelled[name] == pytest.approx(value, rel=TOLERANCE), name
