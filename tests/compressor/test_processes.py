"""Several processes, as ``accelerate launch`` starts them for GPUs: one directory, one model, every stage."""

import json
import os
import subprocess
import sys

import pytest
from transformers import AutoModelForSequenceClassification

from compressor.model_dir import check_model, read_compression

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
    "fit": """
  - {method: retrain, epochs: 1, fit_rows: 64}
""",
}


@pytest.mark.nightly
@pytest.mark.parametrize(("stages", "steps"), [("admm", 16), ("fit", 8)])
def test_two_processes_train_one_model(stages, steps, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE.rstrip() + STAGES[stages])
    # For the CPU accelerate's own launcher wants MPI; for GPUs it does what torch's does here.
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port",
               "29537", "-m", "compressor.cli", "train", str(tmp_path / "recipe.yaml"), "--model", "tiny",
               "--task", "synthetic", "--train-rows", "64", "--validation-rows", "20", "--out",
               str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False,
                         env=os.environ | {"ACCELERATE_USE_CPU": "true"})
    assert run.returncode == 0, run.stderr[-2000:]
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    assert max(record["step"] for record in log) == steps  # 64 rows / (2 processes x 8) a stage
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    check_model(model, read_compression(tmp_path / "out"))
