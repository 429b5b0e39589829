"""Searches design points for the Pareto front of cycles, resources and memory traffic.

Optuna's NSGA-II searches in memory, a *batch* of points at a time; each finished batch is one trial of a
study in a database, its points in one attribute. A database takes some 20 Optuna trials a second and the cost
model hundreds of points, so a trial a point would wait for the database. Any number of workers on any number
of machines share a study: each begins a batch from the front that all of them have found so far. What is
interrupted keeps its points and goes on where it stopped. What is killed keeps those of finished batches: its
heartbeat in the database stops, another worker marks its batch failed, and the points of that batch are found
again, since the search goes on until the study holds enough.
"""

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from hwgen.design_points import OBJECTIVES, ROWS, DesignPoint, Evaluation, Evaluator, pareto_front
from hwgen.explore_request import ExploreRequest
from hwgen.explore_study import add_batch, known_points, one_line, open_study
from hwgen.plan import PlanError
from hwgen.planner import CANDIDATE_ROWS, CYCLES_TOLERANCE

BATCH = 200
"""Points of a batch at least; a second's work or less."""

POPULATION = 50
STALE_BATCHES = 2
"""Batches in a row without a new point after which a worker stops: the space is searched."""


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """What a search found.

    Parameters
    ----------
    model, device : str
        The bundle's path, and the device's name.
    tokens : int
        Sequence length.
    default : Evaluation or None
        What the planner chooses by itself; None if nothing fits.
    evaluations : tuple of Evaluation
        Every point of the study.
    front : tuple of Evaluation
        Those that fit and that no other one dominates, by cycles.
    points_per_second : float
        Of this process's processor time; 0 if it evaluated none, because all were known.
    """

    model: str
    device: str
    tokens: int
    default: Evaluation | None
    evaluations: tuple[Evaluation, ...]
    front: tuple[Evaluation, ...]
    points_per_second: float = 0.0

    @property
    def fastest(self) -> Evaluation | None:
        """The point with the fewest cycles, of several the one with the fewest LUTs."""
        return self.front[0] if self.front else None

    @property
    def thriftiest(self) -> Evaluation | None:
        """By the planner's own measure: least LUTs x cycles of those about as fast as any."""
        fast = [one for one in self.front if one.cycles <= CYCLES_TOLERANCE * self.front[0].cycles]
        return min(fast, key=lambda one: (one.luts * one.cycles, one.point.plainness), default=None)


def search_designs(evaluator: Evaluator, request: ExploreRequest, *, workers: int = 1,
                   progress: Callable[[int], None] | None = None) -> Exploration:
    """Search until ``request.points`` points are known: :func:`search_all` of one study."""
    return search_all([(evaluator, request)], workers=workers, progress=progress)[0]


def search_all(searches: Sequence[tuple[Evaluator, ExploreRequest]], *, workers: int = 1,
               progress: Callable[[int], None] | None = None) -> list[Exploration]:
    """Search one study after the other, each until its request's number of points are known.

    Parameters
    ----------
    searches : sequence of (Evaluator, ExploreRequest)
        Each evaluator is of its request's bundle, device and tokens.
    workers : int
        Processes on this machine; the others read the bundles by themselves.
    progress : callable(int), optional
        Called with the number of points that are known, of all studies.

    Returns
    -------
    list of Exploration

    Raises
    ------
    PlanError
        If the database cannot be used, or holds a study of another bundle or device.
    """
    for evaluator, request in searches:
        open_study(request, evaluator)
    context = multiprocessing.get_context("spawn")
    requests = [request for _, request in searches]
    others = [context.Process(target=_other_worker, args=(requests,)) for _ in range(workers - 1)]
    for other in others:
        other.start()
    done = 0
    try:
        for evaluator, request in searches:
            done += run_worker(evaluator, request, progress and _counting_from(done, progress))
        for other in others:
            other.join()
    finally:
        for other in others:
            other.terminate()
    return [summarize(evaluator, request) for evaluator, request in searches]


def _counting_from(done: int, progress: Callable[[int], None]) -> Callable[[int], None]:
    return lambda known: progress(done + known)


def summarize(evaluator: Evaluator, request: ExploreRequest) -> Exploration:
    """What a study holds, and the planner's default beside it."""
    evaluations = tuple(known_points(open_study(request, evaluator)).values())
    try:
        default = evaluator.default()
    except PlanError:
        default = None
    return Exploration(model=request.model, device=evaluator.device.name, tokens=evaluator.tokens,
                       default=default, evaluations=evaluations, front=tuple(pareto_front(evaluations)),
                       points_per_second=evaluator.points_per_second if evaluator.seconds else 0.0)


def run_worker(evaluator: Evaluator, request: ExploreRequest,
               progress: Callable[[int], None] | None = None) -> int:
    """Add batches to a study until it holds enough points, or a worker finds no new ones; their number."""
    study, stale = open_study(request, evaluator), 0
    with one_line(request):
        while True:
            known = known_points(study)
            if progress:
                progress(len(known))
            if len(known) >= request.points or stale == STALE_BATCHES:
                return len(known)
            found = add_batch(study, functools.partial(search, evaluator, known,
                                                       enough=request.points - len(known)))
            stale = 0 if found else stale + 1


def search(evaluator: Evaluator, known: Mapping[DesignPoint, Evaluation], seed: int, *,
           enough: int = BATCH) -> Iterator[Evaluation]:
    """Yield new points, evaluated: a batch of NSGA-II that begins with the front of ``known``.

    Parameters
    ----------
    evaluator : Evaluator
    known : dict of DesignPoint to Evaluation
    seed : int
        Equal arguments yield equal points.
    enough : int
        Stop after so many.
    """
    sampler = optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
    study = optuna.create_study(directions=["minimize"] * len(OBJECTIVES), sampler=sampler)
    for parameters in _first_points(evaluator, known):
        study.enqueue_trial(parameters)
    new: dict[DesignPoint, Evaluation] = {}
    for _ in range(4 * BATCH):
        trial = study.ask()
        point = evaluator.point(
            trial.suggest_int("rows", ROWS[0], ROWS[-1]), trial.suggest_categorical("lanes", evaluator.lanes),
            trial.suggest_categorical("bus_bits", evaluator.buses),
            trial.suggest_categorical("pool", evaluator.pools),
            trial.suggest_categorical("accumulation", evaluator.accumulations))
        try:
            one = known.get(point) or evaluator(point)
        except PlanError:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        trial.set_constraint("fits", one.excess - 1)
        study.tell(trial, one.values)
        if point not in known and point not in new:
            new[point] = one
            yield one
        if len(new) >= min(BATCH, enough):
            return
    # NSGA-II has nothing new left near its front: take the rest in order.
    for point in all_points(evaluator):
        if len(new) >= min(BATCH, enough):
            return
        if point not in known and point not in new:
            try:
                new[point] = evaluator(point)
            except PlanError:
                continue
            yield new[point]


def all_points(evaluator: Evaluator) -> Iterator[DesignPoint]:
    """Every point of the space, each once, some of them with sizes that contradict each other."""
    seen = set()
    for rows in ROWS:
        for lanes in evaluator.lanes:
            for bus_bits in evaluator.buses:
                for pool in evaluator.pools:
                    for accumulation in evaluator.accumulations:
                        point = evaluator.point(rows, lanes, bus_bits, pool, accumulation)
                        if point not in seen:
                            seen.add(point)
                            yield point


def _first_points(evaluator: Evaluator, known: Mapping[DesignPoint, Evaluation]) -> Iterator[dict[str, Any]]:
    """Where a batch begins: the front so far; the first one with the planner's own candidates."""
    for one in pareto_front(known.values())[:POPULATION]:
        point = one.point
        yield {"rows": point.rows, "lanes": point.lanes, "bus_bits": point.bus_bits, "pool": point.pool,
               "accumulation": point.accumulation}
    if not known:
        for rows in CANDIDATE_ROWS:
            for lanes in evaluator.lanes:
                yield {"rows": rows, "lanes": lanes, "bus_bits": evaluator.buses[-1],
                       "pool": evaluator.pools[0], "accumulation": evaluator.accumulations[0]}


def _other_worker(requests: Sequence[ExploreRequest]) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for request in requests:
        run_worker(Evaluator(request.bundle(), request.device, request.tokens), request)
