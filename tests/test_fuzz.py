"""A short run of ``tests.fuzz``, and that it notices what it is there for."""

import subprocess
import sys
from pathlib import Path

import pytest


def fuzz(*options):
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *options],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_random_calls_end_in_results_or_ordinary_errors():
    run = fuzz("--seed=0", "--cases=300", "--batch=300")
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr
    assert "cases finished: 300" in run.stdout


@pytest.mark.parametrize(
    ("how", "what"),
    [("crash", "exit code -6"), ("hang", "hang"), ("exception", "IndexError")],
)
def test_defects_are_reported(how, what):
    # the first case that compiles is silent for as long as that takes
    limit = "--limit=60" if how == "hang" else "--limit=120"
    run = fuzz("--cases=3", f"--sabotage={how}", limit)
    assert run.returncode == 1, run.stdout + run.stderr
    assert f"DEFECT: {what} in case 1," in run.stdout
    assert "--seed 0 --case 1" in run.stdout
