"""Several processes, as ``accelerate launch`` starts them for GPUs: one directory, one model, every stage."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from compressor.model_dir import check_model, read_compression
from compressor.stage_checkpoint import STATE_FILE
from compressor.training_run import LAUNCHER_SECONDS, REPEAT_SECONDS, stop_on_signal

RECIPE = """
schema_version: 1
structure: {kind: nm}
training: {learning_rate: 1.0e-3, batch: 8, max_tokens: 24}
stages:
  - {method: dense, epochs: 1}
"""
STAGES = {
    "admm": """
  - {method: admm, epochs: 1, interval: 2}
  - {method: sr_ste, epochs: 1}
  - {method: retrain, epochs: 1}
""",
    "long": """
  - {method: admm, epochs: 40, interval: 2}
  - {method: retrain, epochs: 1}
""",
    "fit": """
  - {method: retrain, epochs: 1, fit_rows: 64}
""",
}


def launch(recipe, out, *arguments):
    # For the CPU accelerate's own launcher wants MPI; for GPUs it does what torch's does here.
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port",
               "29537", "-m", "compressor.cli", "train", str(recipe), "--model", "tiny", "--task",
               "synthetic", "--train-rows", "64", "--validation-rows", "20", "--out", str(out), *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True,
                            env=os.environ | {"ACCELERATE_USE_CPU": "true"})


def finish(*arguments):
    run = launch(*arguments)
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors[-2000:]


@pytest.mark.nightly
@pytest.mark.parametrize(("stages", "steps"), [("admm", 16), ("fit", 8)])
def test_two_processes_train_one_model(stages, steps, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE.rstrip() + STAGES[stages])
    finish(tmp_path / "recipe.yaml", tmp_path / "out")
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    assert max(record["step"] for record in log) == steps  # 64 rows / (2 processes x 8) a stage
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    check_model(model, read_compression(tmp_path / "out"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    (folder / "recipe.yaml").write_text(RECIPE.rstrip() + STAGES["long"])
    finish(folder / "recipe.yaml", folder / "model")
    return folder


@pytest.mark.nightly
@pytest.mark.parametrize("reached", ["every process", "one process"])
def test_two_processes_stop_after_the_same_step_and_go_on_exactly(reached, whole, tmp_path):
    """Ctrl-C reaches both, and the launcher repeats it; a signal may reach one of them alone."""
    part = tmp_path / "part"
    run, log = launch(whole / "recipe.yaml", part), part / "train_log.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and "admm_primal" in log.read_text()):
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.05)
    if reached == "one process":
        psutil.Process(run.pid).children()[-1].send_signal(signal.SIGTERM)
    else:
        os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    stops = set(re.findall(r"stopped at step (\d+) of 168; go on with the same command", errors))
    assert len(stops) == 1, errors[-2000:]
    checkpoint = part / "checkpoints" / f"checkpoint-{stops.pop()}"
    assert {"rng_state_0.pth", "rng_state_1.pth", STATE_FILE} <= {file.name for file in checkpoint.iterdir()}
    finish(whole / "recipe.yaml", part, "--resume")
    found, wanted = (load_file(folder / "model.safetensors") for folder in (part, whole / "model"))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(("processes", "seconds"), [(1, REPEAT_SECONDS), (2, LAUNCHER_SECONDS)])
def test_a_signal_that_the_launcher_repeats_is_the_same_request(processes, seconds, monkeypatch):
    trainer = SimpleNamespace(stop_requested=False, args=SimpleNamespace(world_size=processes),
                              is_world_process_zero=lambda: False)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with stop_on_signal(trainer):
        signal.raise_signal(signal.SIGINT)
        assert trainer.stop_requested
        now[0] = 0.9 * seconds
        signal.raise_signal(signal.SIGINT)
        now[0] = 1.1 * seconds
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
