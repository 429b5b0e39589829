"""The tutorial's commands, as they stand there, on a small model that was fine-tuned beforehand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compressor import synthetic_task

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
DENSE = "schema_version: 1\ntraining: {learning_rate: 1.0e-3, batch: 32, max_tokens: 32}\n" \
        "stages:\n  - {method: dense, epochs: 4}\n"


def commands():
    """The shell blocks that a reader runs, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.nightly
def test_a_fine_tuned_model_becomes_a_proven_accelerator(tmp_path):
    data = tmp_path / "rows"
    data.mkdir()
    for split, count, seed in (("train", 2000, 0), ("validation", 200, 1)):
        rows = synthetic_task.generate(count, seed=seed)
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "dense.yaml").write_text(DENSE)
    environment = {**os.environ, "MODEL": str(tmp_path / "tuned"), "DATA": str(data), "TASK": "sst2",
                   "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    tune = 'compress train dense.yaml --model tiny --task "$TASK" --data "$DATA" --out "$MODEL"'
    assert len(commands()) >= 4
    for block in (tune, *commands()):
        done = subprocess.run(["bash", "-euc", block], cwd=tmp_path, env=environment, text=True,
                              capture_output=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert "0 mismatches, 0 other predictions" in done.stdout
