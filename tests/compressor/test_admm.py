"""ADMM, fixed masks and the schedule: against formulas, against AdamW, and on a convex problem."""

import numpy as np
import pytest
import torch

from compressor.admm import AdmmState, rate_budget_warning
from compressor.masks import FixedMasks
from compressor.pools import build_pool
from compressor.recipe_stages import AdmmStage
from compressor.recipes import Recipe
from compressor.schedule import Schedule, StageSpan
from compressor.structures import NM, Pattern

STRUCTURE = Pattern(build_pool("reed_muller"))


def parameter(rows=16, inner=16, seed=0):
    values = torch.randn(rows, inner, generator=torch.Generator().manual_seed(seed))
    return torch.nn.Parameter(values)


def test_penalty_gradient_is_the_gradient_of_the_squared_norm():
    weights = {"a": parameter(seed=0), "b": parameter(8, 24, seed=1)}
    state = AdmmState(weights, STRUCTURE, rho=0.3)
    state.update()
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(0.1)
    penalty = sum(0.3 / 2 * (weight - state.z[name] + state.u[name]).square().sum()
                  for name, weight in weights.items())
    expected = torch.autograd.grad(penalty, list(weights.values()))
    weights["a"].grad = torch.ones_like(weights["a"])  # b has no gradient yet
    norm = state.add_penalty_gradient()
    assert torch.allclose(weights["a"].grad, 1 + expected[0], atol=1e-6)
    assert torch.allclose(weights["b"].grad, expected[1], atol=1e-6)
    assert norm == pytest.approx(float(torch.stack([g.square().sum() for g in expected]).sum().sqrt()))


def test_update_follows_the_scaled_form():
    weight = parameter()
    state = AdmmState({"w": weight}, STRUCTURE, rho=0.1)
    z0 = state.z["w"].clone()
    assert torch.equal(z0, STRUCTURE.project(weight)[0])
    assert state.u["w"].abs().sum() == 0
    u = torch.zeros_like(weight)
    for _ in range(3):
        with torch.no_grad():
            weight.mul_(0.9)
        logs = state.update()
        z = STRUCTURE.project(weight + u)[0]
        u = u + weight.detach() - z
        assert torch.allclose(state.z["w"], z, atol=1e-6)
        assert torch.allclose(state.u["w"], u, atol=1e-6)
    gap = float(((weight - z).norm() / weight.norm()).detach())
    assert logs["primal_residual"] == pytest.approx(gap, rel=1e-5)
    assert logs["dual_norm"] == pytest.approx(float((u.norm() / weight.norm()).detach()), rel=1e-5)
    assert 0 < logs["mask_similarity"] <= 1
    assert logs["retained_energy"] == pytest.approx(STRUCTURE.project(weight)[1].retained_energy)


def test_init_zero_is_plain_decay_at_first():
    weight = parameter()
    state = AdmmState({"w": weight}, STRUCTURE, rho=0.5, init="zero")
    state.add_penalty_gradient()
    assert torch.allclose(weight.grad, 0.5 * weight.detach())


def test_mask_similarity_counts_kept_positions():
    weight = torch.nn.Parameter(torch.tensor([[4.0, 3, 2, 1]]).repeat(4, 1))
    state = AdmmState({"w": weight}, NM(), rho=1.0, init="projected")
    assert state.update()["mask_similarity"] == 1.0
    with torch.no_grad():  # U holds (0, 0, 2, 1): one of the two kept positions moves in every row
        weight.copy_(torch.tensor([[4.0, 0, 0, 4]]).repeat(4, 1))
    assert state.update()["mask_similarity"] == 0.5


@pytest.mark.parametrize("coupling", ["loss", "decoupled"])
def test_convex_problem_reaches_the_structure(coupling):
    """f(W) = ||W - T||^2 / 2 under plain gradient descent: W and Z must meet."""
    target = parameter(seed=3).detach()
    weight = torch.nn.Parameter(target.clone())
    state = AdmmState({"w": weight}, STRUCTURE, rho=1.0 if coupling == "loss" else 0.1)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(60):
        for _ in range(20):
            optimizer.zero_grad()
            (0.5 * (weight - target).square().sum()).backward()
            if coupling == "loss":
                state.add_penalty_gradient()
            optimizer.step()
            if coupling == "decoupled":
                state.proximal_step(1.0)
        logs = state.update()
    assert logs["primal_residual"] < 1e-3
    assert logs["mask_similarity"] == 1.0
    projected = STRUCTURE.project(weight)[0]
    best = STRUCTURE.project(target)[0]
    assert (projected - target).norm() == pytest.approx(float((best - target).norm()), rel=0.05)


def test_proximal_step_never_overshoots():
    weight = parameter()
    state = AdmmState({"w": weight}, STRUCTURE, rho=50.0)
    state.proximal_step(1.0)
    assert torch.allclose(weight, state.z["w"] - state.u["w"])


def test_the_norm_of_the_penalty_is_the_mean_over_an_interval():
    weight = parameter()
    state = AdmmState({"w": weight}, STRUCTURE, rho=0.1)
    stage = AdmmStage(method="admm", epochs=1, interval=2)
    norms = []
    for _ in range(2):
        weight.grad = None
        state.before_clipping(stage)
        norms.append(float(weight.grad.norm()))
        with torch.no_grad():
            weight.mul_(1.5)
    assert norms[1] > norms[0] > 0
    span = StageSpan(stage=stage, start=7, end=17, epoch_steps=10)
    assert state.end_step(span, 1, None) == {}
    assert state.end_step(span, 2, None)["penalty_gradient_norm"] == pytest.approx(sum(norms) / 2)
    assert state.end_step(span, 4, None)["penalty_gradient_norm"] == 0


def test_state_round_trip_and_dual_rescaling():
    weight = parameter()
    state = AdmmState({"w": weight}, STRUCTURE, rho=0.1)
    state.update()
    other = AdmmState({"w": weight}, STRUCTURE, rho=0.1)
    other.load(state.tensors())
    with torch.no_grad():
        weight.mul_(0.5)
    assert state.update() == other.update()
    assert torch.equal(state.u["w"], other.u["w"])
    u = state.u["w"].clone()
    state.rescale_dual(0.2)
    assert torch.allclose(state.u["w"], u / 2)
    with pytest.raises(KeyError):
        other.load({})


def test_masks_hold_through_adamw():
    weight = parameter()
    optimizer = torch.optim.AdamW([weight], lr=0.01, weight_decay=0.1)
    generator = torch.Generator().manual_seed(5)
    masks = None
    for step in range(40):
        weight.grad = torch.randn(weight.shape, generator=generator)
        if step == 20:
            masks, _ = FixedMasks.project({"w": weight}, STRUCTURE)
            masks.clear_moments(optimizer)
        if masks:
            masks.apply_to_gradients()
        optimizer.step()
        if masks:
            masks.apply()
    removed = ~masks.masks["w"]
    assert (weight[removed] == 0).all()
    moments = optimizer.state[weight]
    assert (moments["exp_avg"][removed] == 0).all()
    assert (moments["exp_avg_sq"][removed] == 0).all()
    assert (moments["exp_avg"][~removed] != 0).all()
    STRUCTURE.verify(weight.detach())


def test_moments_revive_weights_unless_cleared():
    """The reason for the two safeguards: without them AdamW moves removed weights off zero."""
    weight = parameter()
    optimizer = torch.optim.AdamW([weight], lr=0.01)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    projected = STRUCTURE.project(weight)[0]
    masks, retained = FixedMasks.project({"w": weight}, STRUCTURE)
    assert torch.equal(weight, projected)
    assert retained == pytest.approx(0.8, abs=0.05)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert (weight[~masks.masks["w"]] != 0).any()
    masks.apply()
    masks.clear_moments(optimizer)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert (weight[~masks.masks["w"]] == 0).all()


def schedule(steps_per_epoch=10, **training):
    return Schedule.of(Recipe.from_dict({
        "schema_version": 1, "training": {"learning_rate": 0.1, **training},
        "stages": [{"method": "dense", "epochs": 1},
                   {"method": "admm", "epochs": 2.05, "learning_rate": 0.01},
                   {"method": "retrain", "epochs": 0.01}]}), steps_per_epoch=steps_per_epoch)


def test_stages_follow_each_other_without_gaps():
    spans = schedule().spans
    assert [(span.start, span.end) for span in spans] == [(0, 10), (10, 30), (30, 31)]
    assert [schedule().span_at(step).stage.method for step in (0, 9, 10, 29, 30, 31, 99)] == [
        "dense", "dense", "admm", "admm", "retrain", "retrain", "retrain"]


def test_rates_warm_up_and_decay_in_every_stage():
    rates = [schedule(warmup=0.2).rate(step) for step in range(31)]
    assert np.allclose(rates[:10], 0.1 * np.array([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8,
                                                   2 / 8, 1 / 8]))
    assert max(rates[10:30]) == pytest.approx(0.01)
    assert min(rates) > 0


@pytest.mark.parametrize("times", [1, 2, 3, 7, 100])
def test_due_times_are_spread_evenly_and_end_each_stage(times):
    plan = schedule()
    due = [step for step in range(1, 32) if plan.is_due(step, times)]
    assert {10, 30, 31} <= set(due)
    assert len([step for step in due if step <= 10]) == min(times, 10)
    assert len([step for step in due if 10 < step <= 30]) == min(times, 20)


def test_rate_budget():
    """100 steps at 1e-5 move a weight by 1e-3; weights of deviation 0.04 have a median of 0.027."""
    weights = [0.04 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))]
    stage = AdmmStage(method="admm", epochs=1)
    assert rate_budget_warning(weights, [1e-3] * 100, stage) is None
    warning = rate_budget_warning(weights, [1e-5] * 100, stage)
    assert "add up to 0.001" in warning
    assert "0.027" in warning
    decoupled = AdmmStage(method="admm", epochs=1, coupling="decoupled", rho=0.01)
    assert rate_budget_warning(weights, [1e-5] * 100, decoupled) is None
    assert "closes only 50 %" in rate_budget_warning(weights, [1e-5] * 50, decoupled)
