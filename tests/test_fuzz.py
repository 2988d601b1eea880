"""A short run of ``tests.fuzz``, and that it notices what it is there for.

Bounds are checked if they are for all tests: the checked programs would be compiled for
these few cases only.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# With nothing in the cache all programs are compiled, in silence.
pytestmark = pytest.mark.timeout(600)
SILENCE = "--limit=500"


def fuzz(*options, **variables):
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seed=0", *options],
        cwd=Path(__file__).parents[1],
        env={"NUMBA_BOUNDSCHECK": "0", "FUZZ_PLAIN": "1", **os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=550,
    )


@pytest.mark.slow  # minutes with nothing in the cache; ``.ci/run`` has it
def test_random_calls_end_in_results_or_ordinary_errors():
    run = fuzz("--cases=120", "--batch=120", SILENCE)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr
    assert "cases finished: 120," in run.stdout


@pytest.mark.slow  # as many programs again
def test_random_calls_with_all_options_end_so_too():
    run = fuzz("--cases=500", "--batch=500", SILENCE, FUZZ_PLAIN="0")
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr


@pytest.mark.parametrize(
    ("how", "reported", "finished"),
    [("crash", "exit code -6", 1), ("exception", "IndexError", 2)],
)
def test_a_defect_is_reported_and_other_cases_go_on(how, reported, finished):
    run = fuzz("--cases=2", f"--sabotage={how}", SILENCE)
    assert run.returncode == 1, run.stdout + run.stderr
    assert f"DEFECT: {reported} in case 0," in run.stdout
    assert "python -m tests.fuzz --seed 0 --case 0\n" in run.stdout
    assert f"cases finished: {finished}," in run.stdout


def test_a_hang_is_reported():
    run = fuzz("--cases=1", "--sabotage=hang", "--limit=6")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "DEFECT: hang in case 0," in run.stdout
