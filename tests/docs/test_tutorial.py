"""The tutorial's commands, as they stand there, on a small model that was fine-tuned beforehand."""

import sys

import pytest

from benchmarks.first_hour import TUNE, environment_of, own_model, timed, tutorial_commands


def test_the_tutorial_has_its_steps():
    headings = [heading for heading, _ in tutorial_commands()]
    assert headings == ["3. Prune", "4. Quantize and export", "5. Generate", "6. Prove"]


@pytest.mark.nightly
def test_a_fine_tuned_model_becomes_a_proven_accelerator(tmp_path):
    environment = environment_of(sys.executable, own_model(tmp_path))
    for commands in (TUNE, *(block for _, block in tutorial_commands())):
        output, _, _ = timed(commands, tmp_path, environment)
    assert "0 mismatches, 0 other predictions" in output
