"""The example scripts, one after the other, as a reader would run them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TESTED_ELSEWHERE = {"demo.py"}
"""`make demo` runs it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


def run(script, folder, *arguments):
    """Output of a script that must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, EXAMPLES / script, *map(str, arguments)], cwd=folder,
                          env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_example_is_run():
    text = Path(__file__).read_text()
    missing = [path.name for path in EXAMPLES.glob("*.py")
               if path.name not in TESTED_ELSEWHERE and f'run("{path.name}"' not in text]
    assert missing == []


@pytest.mark.nightly
def test_from_training_to_predictions(folder):
    assert "weights in out/pruned.pt" in run("compress.py", folder, "--out", "out", "--train-rows", 640)
    simulated = run("build_and_simulate.py", folder, "--model", "out/pruned.pt", "--out", "build")
    assert ", 0 mismatches" in simulated
    assert "2 sentences in" in run("drive.py", folder, "--build", "build", "about food : soup very tasty",
                                   "about price : bill quite steep")
    explored = run("explore_and_plot.py", folder, "--model", "out/pruned.pt", "--points", 40,
                   "--out", "exploration")
    assert "hwgen build" in explored
    assert (folder / "exploration" / "front.svg").read_text().count("<circle") > 1


@pytest.mark.nightly
def test_structures_side_by_side(folder):
    rows = [line for line in run("compare_structures.py", folder).splitlines() if line[:5] in
            ("dense", "2:4  ", "patte", "whole", "40 %,")]
    assert len(rows) == 7
    ratios = [float(row.split()[-2]) for row in rows]
    assert ratios[0] == 1
    assert max(ratios[1:]) < 1
    assert max(ratios[5:]) < min(ratios[1:5])  # blocks and then patterns: fewer cycles than either
