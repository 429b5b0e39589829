"""The cost file: what a budget counts with it is what the build of the pruned model takes."""

import json

import pytest
import torch
from click.testing import CliRunner

from compressor.budget import CostTable
from compressor.bundle import save_bundle
from hwgen.cli import main
from hwgen.costs import cost_table, write_costs
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from tests.bundles import random_encoder_bundle

SIZES = {"hidden": 64, "layers": 2, "heads": 4, "ffn": 256, "max_tokens": 32}


@pytest.mark.parametrize(("structure", "absent", "rows", "error"), [
    ("dense", 0.5, 2, 0.02), ("pattern", 0.5, 1, 0.02), ("mixed", 0.0, 2, 0.02),
    ("dense", 0.9, 1, 0.04)])  # tiles so short that the array waits for the next
def test_cycles_of_other_bundles_follow_from_the_file(structure, absent, rows, error, tmp_path):
    request = PlanRequest(rows=rows, lanes=4)
    whole = random_encoder_bundle(structure="dense", **SIZES)
    write_costs(cost_table(whole, request), tmp_path / "costs.json")
    table = CostTable.load(tmp_path / "costs.json")
    pruned = random_encoder_bundle(structure=structure, absent_blocks=absent, seed=3, **SIZES)
    counted = table.fixed_cycles + sum(
        table.cycles(torch.tensor(layer.weight), layer.structure) for layer in pruned.layers.values())
    assert counted == pytest.approx(make_plan(pruned, request).predicted_cycles, rel=error)


def test_the_command_writes_it(tmp_path):
    save_bundle(random_encoder_bundle(hidden=32, layers=1, heads=2, ffn=32), tmp_path / "pruned.pt")
    result = CliRunner().invoke(main, ["costs", str(tmp_path / "pruned.pt"), "--rows", "1", "--lanes", "4",
                                       "-o", str(tmp_path / "costs.json")])
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "costs.json").read_text())
    assert values["ksteps"] == {"pattern": 1, "dense": 2, "nm": 1}
    assert values["token_groups"] == 4
    assert f"{values['cycles']:,} cycles for this bundle" in result.output
