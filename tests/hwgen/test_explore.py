"""Design points cost what their builds cost; searches find the front, resume, and share a database."""

import itertools
import json
import operator
import random
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from compressor.bundle import save_bundle
from hwgen import design_search
from hwgen.cli import main
from hwgen.cost import cost_report, program_cycles
from hwgen.design_points import DesignPoint, Evaluator, dominates, pareto_front, with_share
from hwgen.design_search import all_points, search_designs
from hwgen.encoder_program import whole_program
from hwgen.explore_request import ExploreRequest
from hwgen.explore_study import known_points, open_study
from hwgen.plan import PlanError
from hwgen.plan_request import PlanRequest
from hwgen.planner import make_plan
from hwgen.report.explore_page import explore_data, explore_page
from hwgen.report.files import render
from hwgen.smallest import SHARE_STEPS, smallest
from rtl_templates.array_spec import Accumulation, PoolStorage
from tests.bundles import random_bundle, random_encoder_bundle
from tests.hwgen.test_report import parsed


@pytest.fixture(scope="module")
def bundle():
    return random_encoder_bundle(hidden=64, heads=4, ffn=128, absent_blocks=0.2)


@pytest.fixture(scope="module")
def evaluator(bundle):
    return Evaluator(bundle, "kv260")


@pytest.fixture(scope="module")
def space(evaluator):
    """Every point of the space that is not contradictory, evaluated."""
    found = {}
    for point in all_points(evaluator):
        try:
            found[point] = evaluator(point)
        except PlanError:
            continue
    return found


@pytest.fixture
def request_for(tmp_path, bundle):
    save_bundle(bundle, tmp_path / "pruned.pt")

    def make(points, **changes):
        values = {"model": str(tmp_path / "pruned.pt"), "device": "kv260", "tokens": None, "points": points,
                  "storage": f"sqlite:///{tmp_path / 'explore.db'}", "study": "test"}
        return ExploreRequest(**{**values, **changes})
    return make


@pytest.mark.parametrize(("kind", "device"), [("encoder", "kv260"), ("linear", "arty-a7-100"),
                                              ("mixed", "kv260")])
def test_points_cost_what_their_builds_cost(kind, device, bundle):
    if kind != "encoder":
        structure = "mixed" if kind == "mixed" else "pattern"
        bundle = random_bundle(hidden=16, heads=2, ffn=32, layers=1, structure=structure)
    evaluator = Evaluator(bundle, device)
    points = [point for point in all_points(evaluator) if point.rows <= 6]
    checked = 0
    for point in random.Random(3).sample(points, 60):
        request = PlanRequest(device=device, rows=point.rows, lanes=point.lanes, bus_bits=point.bus_bits,
                              tokens=evaluator.tokens, storage=PoolStorage(point.pool),
                              accumulation=Accumulation(point.accumulation))
        try:
            plan = make_plan(bundle, request)
        except PlanError:
            plan = None
        try:
            found = evaluator(point)
        except PlanError:
            assert plan is None
            continue
        assert found.fits == (plan is not None)
        if plan is not None:
            checked += 1
            cost = cost_report(plan, whole_program(plan))
            assert found.cycles == plan.predicted_cycles
            assert {key: getattr(found, key) for key in ("luts", "ffs", "dsps", "rams", "urams")} \
                == {key: plan.modelled[key] for key in ("luts", "ffs", "dsps", "rams", "urams")}
            moved = cost.weight_bytes + cost.input_bytes + cost.output_bytes + cost.program_bytes
            assert found.bytes >= moved if kind == "encoder" else found.bytes == moved
    assert checked >= 10


def test_the_front_is_what_nothing_dominates(space):
    fitting = [one for one in space.values() if one.fits]
    front = pareto_front(space.values())
    values = {one.values for one in front}
    assert len(values) == len(front) < len(fitting)
    for one in fitting:
        beaten = any(other.values != one.values and max(map(operator.sub, other.values, one.values)) <= 0
                     for other in fitting)
        assert (one.values in values) == (not beaten)
    assert [one.cycles for one in front] == sorted(one.cycles for one in front)
    assert all(one.point.pool == "rom" or one.values not in
               {other.values for other in fitting if other.point.pool == "rom"} for one in front)


def test_a_search_of_the_whole_space_finds_its_front(evaluator, space, request_for):
    progress = []
    found = search_designs(evaluator, request_for(10 * len(space)), progress=progress.append)
    assert {one.point for one in found.evaluations} == set(space)
    assert [one.point for one in found.front] == [one.point for one in pareto_front(space.values())]
    assert progress == sorted(progress)
    assert found.fastest.cycles == min(one.cycles for one in space.values() if one.fits)
    assert found.fastest.cycles <= found.default.cycles
    assert found.thriftiest.luts * found.thriftiest.cycles <= found.default.luts * found.default.cycles


def test_a_short_search_holds_the_planners_default(evaluator, request_for):
    found = search_designs(evaluator, request_for(90))
    assert 90 <= len(found.evaluations) <= 90
    assert not any(dominates(found.default, one) for one in found.front
                   if one.cycles == found.fastest.cycles)


def test_what_is_interrupted_goes_on(evaluator, request_for, monkeypatch):
    seen, real = itertools.count(), design_search.Evaluator.__call__

    def interrupted(self, point):
        if next(seen) == 60:
            raise KeyboardInterrupt
        return real(self, point)
    monkeypatch.setattr(design_search.Evaluator, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search_designs(evaluator, request_for(150))
    monkeypatch.undo()
    before = known_points(open_study(request_for(150), evaluator))
    assert 20 <= len(before) <= 60
    found = search_designs(evaluator, request_for(150))
    assert set(before) <= {one.point for one in found.evaluations}
    assert len(found.evaluations) == 150


def test_another_bundle_does_not_join(evaluator, request_for):
    search_designs(evaluator, request_for(20))
    other = Evaluator(random_bundle(hidden=16, heads=2, ffn=32, layers=1), "kv260")
    with pytest.raises(PlanError, match=r"study 'test' in sqlite.* is of .*choose another"):
        search_designs(other, request_for(20))
    with pytest.raises(PlanError, match="--storage nonsense://x"):
        search_designs(evaluator, request_for(20, storage="nonsense://x"))


@pytest.mark.nightly
def test_workers_share_a_study(evaluator, request_for):
    found = search_designs(evaluator, request_for(400), workers=2)
    assert len(found.evaluations) >= 400


def test_the_page_of_an_exploration(evaluator, request_for, tmp_path):
    found = replace(search_designs(evaluator, request_for(120)), model="a model.pt")
    data = explore_data(found)
    assert json.loads(json.dumps(data))["points"] == 120
    assert "--model 'a model.pt'" in data["fastest"]["command"]
    page = render("explore.html", explore_page(found, data))
    parsed(page)
    assert page.count("<circle") == 4 * sum(one.fits for one in {*found.evaluations, found.default})
    assert "<script" not in page


@pytest.mark.parametrize("share", [0.2, 1.5, 6])
def test_the_smallest_that_meets_a_latency(evaluator, space, share):
    fastest = min(one.cycles for one in space.values() if one.fits)
    limit = int(fastest * (1 + share))
    meeting = [one for one in space.values() if one.fits and one.cycles <= limit]
    fit = smallest(evaluator, limit)
    assert fit.found.luts == min(one.luts for one in meeting)
    assert fit.found.cycles <= limit
    assert smallest(evaluator, fastest).found.cycles == fastest


def test_why_nothing_meets_a_latency(evaluator, space):
    fastest = min((one for one in space.values() if one.fits), key=lambda one: (one.cycles, one.luts))
    fit = smallest(evaluator, 10)
    assert fit.found is None
    assert fit.fastest.cycles == fastest.cycles
    assert 10 < fit.least_cycles < fastest.cycles
    fit = smallest(evaluator, (fit.least_cycles + fastest.cycles) // 2)
    assert fit.found is None
    assert 0 < fit.needed_share < 1
    plan = evaluator.plan(fit.fastest.point)
    limit = fit.limit
    assert program_cycles(with_share(plan, fit.needed_share)) <= limit
    assert program_cycles(with_share(plan, fit.needed_share + 2**-SHARE_STEPS)) > limit
    assert all(less <= full for a, b in zip(with_share(plan, 0.5).layers, plan.layers, strict=True)
               for less, full in zip(a.ksteps, b.ksteps, strict=True))
    assert with_share(plan, 1) == plan


@pytest.fixture
def command(request_for):
    request = request_for(1)

    def run(*arguments):
        result = CliRunner().invoke(main, [*map(str, arguments), "--model", request.model,
                                           "--device", "kv260"])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result
    return run


def test_explore_prints_the_front_and_its_commands(command, tmp_path):
    out = tmp_path / "found"
    done = command("explore", "--points", 100, "--out", out)
    assert done.exit_code == 0
    assert "on the Pareto front" in done.stdout
    assert "the planner's default: R = " in done.stdout
    assert done.stdout.count("  hwgen build --model ") == 3
    data = json.loads((out / "explore.json").read_text())
    assert json.loads(command("explore", "--points", 100, "--out", out, "--json").stdout) == data
    assert (out / "explore.html").is_file()


def test_fit_prints_the_command_or_the_reason(command):
    done = command("fit", "--latency-ms", 10)
    assert done.exit_code == 0
    assert "ms at 250 MHz (assumed)" in done.stdout
    assert "hwgen build --model" in done.stdout
    point = json.loads(command("fit", "--latency-ms", 10, "--json").stdout)["point"]
    assert DesignPoint(**point).rows >= 1
    done = command("fit", "--latency-ms", 0.0001)
    assert done.exit_code == 1
    assert "no accelerator on kv260 meets 0.0001 ms" in done.stderr
    assert "no sparsity of the linear layers would" in done.stderr


@pytest.mark.nightly
@pytest.mark.parametrize("arguments", [("explore", "--points", 60), ("fit", "--latency-ms", 10)])
def test_what_is_chosen_is_built_and_simulated(arguments, command, tmp_path):
    done = command(*arguments, "--confirm", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0
    confirmed = json.loads(done.stdout)["confirmed"]
    assert confirmed["cycles"] == confirmed["evaluated_cycles"]
    assert confirmed["words"] > 0 == confirmed["mismatches"]
    assert (Path(confirmed["directory"]) / "report" / "index.html").is_file()
