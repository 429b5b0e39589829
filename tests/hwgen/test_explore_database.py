"""Searches that share a PostgreSQL: one worker is killed, nothing is lost; databases that cannot be used."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from compressor.bundle import load_bundle, save_bundle
from hwgen.design_points import Evaluator
from hwgen.design_search import search_designs
from hwgen.explore_request import ExploreRequest
from hwgen.explore_study import known_points, open_study
from hwgen.plan import PlanError
from tests.bundles import random_encoder_bundle
from tests.hwgen.postgres_server import postgres_server

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from hwgen.cli import main; main()", "explore", "--device", "u250")
POINTS = 900


@pytest.fixture(scope="module")
def url():
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "pruned.pt"
    save_bundle(random_encoder_bundle(hidden=128, heads=4, ffn=512, layers=4), path)
    return path


@pytest.fixture(scope="module")
def evaluator(model):
    return Evaluator(load_bundle(model), "u250")


def request_for(url, model, **changes):
    values = {"model": str(model), "device": "u250", "tokens": None, "points": POINTS, "storage": url,
              "study": "u250-16"}
    return ExploreRequest(**{**values, **changes})


def trials_of(study, process):
    """Trials of a worker by their state: dict of state to list."""
    trials = {}
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get("worker", "").endswith(f":{process.pid}"):
            trials.setdefault(trial.state, []).append(trial)
    return trials


def kill_within_a_batch(study, process):
    """Kill a worker that has finished a batch and is in the middle of the next; return that trial."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        if optuna.trial.TrialState.COMPLETE in (trials := trials_of(study, process)) \
                and optuna.trial.TrialState.RUNNING in trials:
            process.send_signal(signal.SIGSTOP)  # what the database says of it stays true from here on
            if running := trials_of(study, process).get(optuna.trial.TrialState.RUNNING):
                process.kill()
                process.wait()
                return running[0]
            process.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("the worker made no batch")


def test_a_killed_worker_loses_nothing(url, model, evaluator, tmp_path):
    def worker(name):
        return subprocess.Popen(
            [*COMMAND, "--model", model, "--storage", url, "--points", str(POINTS), "--out", tmp_path / name],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})

    request = request_for(url, model)
    study = open_study(request, evaluator)
    one, other = worker("one"), worker("other")
    try:
        killed = kill_within_a_batch(study, other)
        before = known_points(study)
        printed, complaints = one.communicate(timeout=120)
    finally:
        for process in (one, other):
            process.kill()
    assert one.returncode == 0, complaints
    after = known_points(study)
    assert before.items() <= after.items()
    assert len(after) >= POINTS
    assert f"{len(after):,} points evaluated" in printed
    data = json.loads((tmp_path / "one" / "explore.json").read_text())
    assert data["points"] == len(after)
    assert {trial.user_attrs["worker"].rpartition(":")[2] for trial in study.trials} \
        == {str(one.pid), str(other.pid)}

    # An hour later another worker finds the killed one's batch without a heartbeat, and gives it up.
    assert study.trials[killed.number].state is optuna.trial.TrialState.RUNNING
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.execute(sqlalchemy.text(
            "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 hour'"))
    search_designs(evaluator, request_for(url, model, points=len(after) + 1))
    assert study.trials[killed.number].state is optuna.trial.TrialState.FAIL
    assert not any(trial.state is optuna.trial.TrialState.RUNNING for trial in study.trials)


def test_workers_may_open_an_empty_database_at_once(url, model, evaluator):
    with sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sqlalchemy.text("CREATE DATABASE empty"))
    request = request_for(url.replace("/postgres?", "/empty?"), model, study="new")
    with ThreadPoolExecutor(4) as pool:
        studies = list(pool.map(lambda _: open_study(request, evaluator), range(4)))
    assert len({study._study_id for study in studies}) == 1


def test_a_worker_that_was_given_up_goes_on(model, evaluator, tmp_path, monkeypatch):
    """As after a sleep: its batch has been marked failed when it comes to write the points."""
    request = request_for(f"sqlite:///{tmp_path / 'explore.db'}", model, points=250)
    study, real = open_study(request, evaluator), Evaluator.__call__

    def slept(self, point):
        if len(trials := study.get_trials(deepcopy=False)) == 1 and not trials[0].state.is_finished():
            study.tell(trials[0].number, state=optuna.trial.TrialState.FAIL)
        return real(self, point)
    monkeypatch.setattr(Evaluator, "__call__", slept)
    found = search_designs(evaluator, request)
    assert len(found.evaluations) == 250
    assert study.trials[0].state is optuna.trial.TrialState.FAIL


@pytest.mark.parametrize(("storage", "message"), [
    ("postgresql://me:secret@127.0.0.1:1/x", r"--storage postgresql://me:\*\*\*@127.0.0.1:1/x: .*refused$"),
    ("postgresql://me@/x?host=/nowhere", r"--storage postgresql://me@/x\?host=.*: .*No such file"),
    ("nonsense://x", "--storage nonsense://x: Can't load plugin"),
    ("nonsense", "--storage nonsense: Could not parse"),
    ("sqlite:////nowhere/x.db", "--storage sqlite:////nowhere/x.db: unable to open database file"),
])
def test_a_database_that_cannot_be_used(storage, message, model, evaluator):
    with pytest.raises(PlanError, match=message) as caught:
        open_study(request_for(storage, model), evaluator)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named(model, evaluator, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(PlanError, match=r"psycopg.*; install the extra: pip install 'hwgen\[postgres\]'$"):
        open_study(request_for("postgresql://me@127.0.0.1/x", model), evaluator)


def test_a_database_that_goes_away(model, evaluator, monkeypatch):
    server, real = ExitStack(), Evaluator.__call__
    request = request_for(server.enter_context(postgres_server()), model)

    def stopped(self, point):
        server.close()
        return real(self, point)
    monkeypatch.setattr(Evaluator, "__call__", stopped)
    with pytest.raises(PlanError, match=r"--storage postgresql://explorer@/postgres.*: ") as caught:
        search_designs(evaluator, request)
    assert "\n" not in str(caught.value)
