"""The study of an exploration in a database: opened by any number of workers, a batch of points a trial."""

import hashlib
import json
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import optuna
import sqlalchemy

from compressor.bundle import Bundle
from hwgen.design_points import DesignPoint, Evaluation, Evaluator
from hwgen.explore_request import ExploreRequest
from hwgen.plan import PlanError

HEARTBEAT_SECONDS = 5
GRACE_SECONDS = 30
"""After so long without a heartbeat a worker counts as dead, and its batch as failed."""

OPENINGS = 4
"""Attempts to open a study: when several workers make the tables of a new database, all but one fail."""


def open_study(request: ExploreRequest, evaluator: Evaluator) -> optuna.Study:
    """The study of a request, made if it is not there; PlanError as in ``search_designs``."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    of = {"device": evaluator.device.name, "tokens": evaluator.tokens,
          "weights": int(evaluator.bundle.weights), "kept_weights": int(evaluator.bundle.kept_weights),
          "masks": _masks_digest(evaluator.bundle)}
    with one_line(request):
        study = _study(request)
        if not study.user_attrs:
            study.set_user_attr("of", of)
        found = study.user_attrs["of"]
    if found != of:
        raise PlanError(f"study {request.study!r} in {_shown(request)} is of {json.dumps(found)}, not of "
                        f"{json.dumps(of)}; choose another --out or --study")
    return study


def _masks_digest(bundle: Bundle) -> str:
    """Tells bundles apart whose accelerators cost different amounts though they keep as many weights."""
    digest = hashlib.sha256(bundle.pool.patterns.tobytes())
    for layer in bundle.layers.values():
        digest.update(layer.structure.encode() + layer.block_mask.tobytes())
    return digest.hexdigest()[:16]


def known_points(study: optuna.Study) -> dict[DesignPoint, Evaluation]:
    """Points of every finished batch: dict of DesignPoint to Evaluation."""
    known: dict[DesignPoint, Evaluation] = {}
    for trial in study.get_trials(deepcopy=False):
        for values in trial.user_attrs.get("points", ()):
            one = Evaluation.from_dict(values)
            known[one.point] = one
    return known


def add_batch(study: optuna.Study, search: Callable[[int], Iterable[Evaluation]]) -> int:
    """Make one batch a trial of the study.

    Not by ``study.optimize``, which would keep no points of an interrupted batch and whose thread for
    heartbeats complains by itself when the database goes away.

    Parameters
    ----------
    study : optuna.Study
    search : callable(int)
        From the number of the trial, an iterable of Evaluation.

    Returns
    -------
    int
        Number of points in the batch.
    """
    with _quiet():
        optuna.storages.fail_stale_trials(study)
        trial = study.ask()
    storage: Any = study._storage  # one that has heartbeats
    storage.record_heartbeat(trial._trial_id)
    trial.set_user_attr("worker", f"{socket.gethostname()}:{os.getpid()}")
    found, beat = [], time.monotonic()
    try:
        for one in search(trial.number):
            found.append(one)
            if time.monotonic() > beat + HEARTBEAT_SECONDS:
                storage.record_heartbeat(trial._trial_id)
                beat = time.monotonic()
    finally:
        # A worker that slept longer than the grace period finds its trial failed: it searches on, and finds
        # these points again at once, since they are cached.
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            trial.set_user_attr("points", [one.to_dict() for one in found])
        fitting = [one.cycles for one in found if one.fits]
        study.tell(trial, min(fitting) if fitting else None, skip_if_finished=True,
                   state=None if fitting else optuna.trial.TrialState.PRUNED)
    return len(found)


@contextmanager
def one_line(request: ExploreRequest) -> Iterator[None]:
    """Turn what a database's driver raises into one line."""
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        cause = error.__cause__ or error
        line = str(cause).strip().split("\n")[0]
        hint = "; install the extra: pip install 'hwgen[postgres]'" if "psycopg" in line and isinstance(
            error, ImportError) else ""
        raise PlanError(f"--storage {_shown(request)}: {line}{hint}") from error


def _study(request: ExploreRequest) -> optuna.Study:
    for attempt in range(OPENINGS):
        time.sleep(attempt / 2)
        try:
            with _quiet():
                storage = optuna.storages.RDBStorage(request.storage, heartbeat_interval=HEARTBEAT_SECONDS,
                                                     grace_period=GRACE_SECONDS)
            return optuna.create_study(study_name=request.study, storage=storage, direction="minimize",
                                       load_if_exists=True)
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError) as error:
            collision = error
    raise collision


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's warnings that heartbeats are experimental, and meant for ``study.optimize``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        yield


def _shown(request: ExploreRequest) -> str:
    """The database's URL, without its password."""
    try:
        return sqlalchemy.make_url(request.storage).render_as_string()
    except sqlalchemy.exc.ArgumentError:
        return request.storage
