"""The smallest accelerator that meets a latency, or why none does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwgen.cost import program_cycles
from hwgen.design_points import Evaluation, Evaluator, with_share
from hwgen.design_search import all_points
from hwgen.plan import PlanError

SHARE_STEPS = 7
"""Halvings of the search for a share of weights: to 1 %."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What meets a latency.

    Parameters
    ----------
    limit : int
        Clock cycles that a sequence may take.
    found : Evaluation or None
        The point with the fewest LUTs (then DSPs, then cycles) that takes no more.
    fastest : Evaluation or None
        The fastest point that fits the device, if none is found; None if not even one fits.
    needed_share : float or None
        If none is found: share of today's K-steps with which the fastest point would meet the limit.
    least_cycles : int or None
        If no share does either: cycles of the fastest point with next to no weights.
    """

    limit: int
    found: Evaluation | None
    fastest: Evaluation | None = None
    needed_share: float | None = None
    least_cycles: int | None = None


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The smallest accelerator that meets a latency.

    Parameters
    ----------
    model, device : str
        The bundle's path, and the device's name.
    tokens : int
    clock_mhz : float
    evaluation : Evaluation
        Its point and what that costs: cycles are exact, resources modelled.
    """

    model: str
    device: str
    tokens: int
    clock_mhz: float
    evaluation: Evaluation

    @property
    def milliseconds(self) -> float:
        """What a sequence takes at the clock frequency."""
        return self.evaluation.cycles / self.clock_mhz / 1e3

    @property
    def command(self) -> str:
        """The `hwgen build` command that builds it."""
        return self.evaluation.point.command(self.model, "BUILD", self.device, self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**self.evaluation.to_dict(), "milliseconds": self.milliseconds, "clock_mhz": self.clock_mhz,
                "command": self.command}


def smallest(evaluator: Evaluator, limit: int, progress: Callable[[int], None] | None = None) -> Fit:
    """Find the smallest point that takes at most ``limit`` cycles.

    Every point of the space is considered: those that cannot meet the limit, because their passes alone take
    longer, are never timed.

    Parameters
    ----------
    evaluator : hwgen.design_points.Evaluator
    limit : int
    progress : callable(int), optional
        Called with the number of points that were evaluated.

    Returns
    -------
    Fit
    """
    found, fastest, done = None, None, 0
    for point in all_points(evaluator):
        try:
            bound = evaluator.least_cycles(point)
            if bound > limit and (found or (fastest and bound >= fastest.cycles)):
                continue
            one = evaluator(point)
        except PlanError:
            continue
        done += 1
        if progress:
            progress(done)
        if not one.fits:
            continue
        if fastest is None or (one.cycles, one.luts) < (fastest.cycles, fastest.luts):
            fastest = one
        if one.cycles <= limit and (found is None or _size(one) < _size(found)):
            found = one
    if found is not None or fastest is None:
        return Fit(limit=limit, found=found, fastest=fastest)
    return _with_less(evaluator, limit, fastest)


def refusal_line(fit: Fit, evaluator: Evaluator, latency_ms: float, clock: float) -> str:
    """Why nothing meets a latency, and what sparsity would.

    Parameters
    ----------
    fit : Fit
        Without a point that was found.
    evaluator : hwgen.design_points.Evaluator
    latency_ms, clock : float
        What was asked for, and the clock frequency in MHz.

    Returns
    -------
    str
        One line.
    """
    asked = f"no accelerator on {evaluator.device.name} meets {latency_ms:g} ms at {clock:g} MHz"
    if fit.fastest is None:
        return f"{asked}: none fits the device at {evaluator.tokens} tokens; use fewer --tokens"
    one, bundle = fit.fastest, evaluator.bundle
    line = (f"{asked}, {fit.limit:,} cycles: the fastest that fits, R = {one.point.rows} and "
            f"T = {one.point.lanes}, takes {one.cycles:,} ({one.cycles / clock / 1e3:.3f} ms)")
    if fit.needed_share is None:
        return (f"{line}; no sparsity of the linear layers would: without their weights it still takes "
                f"{fit.least_cycles:,}; use fewer --tokens or a larger device")
    kept = bundle.kept_weights / bundle.weights
    return (f"{line}; with {100 * fit.needed_share * kept:.0f} % of the weights kept instead of "
            f"{100 * kept:.0f} % it would (by the cost model); prune more, use fewer --tokens or a larger "
            "device")


def _size(one: Evaluation) -> tuple[Any, ...]:
    return one.luts, one.dsps, one.cycles, one.point.plainness


def _with_less(evaluator: Evaluator, limit: int, fastest: Evaluation) -> Fit:
    """What sparsity would make the fastest point meet the limit."""
    plan = evaluator.plan(fastest.point)
    least = program_cycles(with_share(plan, 0))
    if least > limit:
        return Fit(limit=limit, found=None, fastest=fastest, least_cycles=least)
    low, high = 0.0, 1.0
    for _ in range(SHARE_STEPS):
        middle = (low + high) / 2
        if program_cycles(with_share(plan, middle)) <= limit:
            low = middle
        else:
            high = middle
    return Fit(limit=limit, found=None, fastest=fastest, needed_share=low)
