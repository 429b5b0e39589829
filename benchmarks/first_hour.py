"""The first hour of a user, with its time: a clean clone, ``make demo``, the tutorial on a fine-tuned model.

    python -m benchmarks.first_hour [--model DIRECTORY --data FOLDER --task NAME] [--here]

Without a model it fine-tunes a small BERT on the generated task beforehand; that is not counted, since the
tutorial begins with a model. ``--here`` leaves clone and demo out and runs the tutorial in this environment.
The goal is 15 minutes on two cores. ``make`` downloads what it installs, so set-up depends on the network.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compressor import synthetic_task

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.md"
DENSE = "schema_version: 1\ntraining: {learning_rate: 1.0e-3, batch: 32, max_tokens: 32}\n" \
        "stages:\n  - {method: dense, epochs: 4}\n"
TUNE = 'compress train dense.yaml --model tiny --task "$TASK" --data "$DATA" --out "$MODEL"'


def tutorial_commands():
    """The tutorial's shell blocks that a reader runs: list of (heading, commands), in order."""
    steps = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    return [(heading, block) for heading, text in steps
            for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def own_model(folder):
    """Make data and recipe of a small model, which ``TUNE`` trains; return the tutorial's variables."""
    data = folder / "rows"
    data.mkdir()
    for split, count, seed in (("train", 2000, 0), ("validation", 200, 1)):
        rows = synthetic_task.generate(count, seed=seed)
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "dense.yaml").write_text(DENSE)
    return {"MODEL": str(folder / "tuned"), "DATA": str(data), "TASK": "sst2"}


def environment_of(python, variables):
    """Environment of a shell in which the commands of that Python's environment are found first."""
    return {**os.environ, **variables, "PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}


def timed(commands, folder, environment):
    """Run a shell block; return its output, seconds and seconds of processor time."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(["bash", "-euc", commands], cwd=folder, env=environment, text=True,
                          capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{commands}\n{done.stdout}\n{done.stderr}")
    return (done.stdout, time.perf_counter() - begin,
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main():
    """Print the minutes of each step, and their sum."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="fine-tuned model directory")
    parser.add_argument("--data", type=Path, help="folder with its train and validation files")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--here", action="store_true", help="without a clone and its set-up")
    chosen = parser.parse_args()
    if bool(chosen.model) != bool(chosen.data):
        parser.error("--model and --data belong together")
    total, total_cpu = 0.0, 0.0

    def step(name, commands, folder, environment):
        nonlocal total, total_cpu
        output, seconds, cpu = timed(commands, folder, environment)
        total, total_cpu = total + seconds, total_cpu + cpu
        print(f"{name:24s} {seconds / 60:6.1f} min {cpu / 60:6.1f} min of processor time", flush=True)
        return output

    with tempfile.TemporaryDirectory(prefix="first-hour-") as name:
        folder, python = Path(name), sys.executable
        if not chosen.here:
            step("git clone", f"git clone -q '{ROOT}' clone", folder, os.environ)
            step("make demo", "make demo", folder / "clone", os.environ)
            python = folder / "clone" / ".venv" / "bin" / "python"
        variables = own_model(folder)
        if chosen.model:
            variables = {"MODEL": str(chosen.model.resolve()), "DATA": str(chosen.data.resolve()),
                         "TASK": chosen.task}
        else:
            timed(TUNE, folder, environment_of(python, variables))
        for heading, commands in tutorial_commands():
            output = step(f"tutorial {heading}", commands, folder, environment_of(python, variables))
        page = folder / "build" / "report" / "index.html"
        print(f"{'together':24s} {total / 60:6.1f} min {total_cpu / 60:6.1f} min of processor time")
        print(f"the accelerator's page has {page.stat().st_size:,} bytes; the last command's last line:")
        print(output.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
