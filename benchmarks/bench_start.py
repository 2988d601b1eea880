"""The first seconds of a process: import, first fit cold and warm, a later fit."""

import os
import subprocess
import sys

import pytest

from benchmarks.rows import OURS

_PROGRAM = """
import importlib, sys, time, warnings
warnings.simplefilter("ignore")
from sklearn.datasets import load_digits
import sklearn.neural_network
X, y = load_digits(return_X_y=True)
started = time.perf_counter()
MLPClassifier = importlib.import_module(sys.argv[1]).MLPClassifier
imported = time.perf_counter()
model = MLPClassifier(max_iter=2, random_state=0)
model.fit(X, y)
first = time.perf_counter()
model.fit(X, y)
print(imported - started, first - imported, time.perf_counter() - first)
"""
_PACKAGES = {OURS: "fastbp", "scikit-learn": "sklearn.neural_network"}


def _seconds(name, cache):
    """(import, first fit, later fit) of a new process."""
    # modules as an installation leaves them: compiled
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, _PACKAGES[name]],
        env={**environment, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(number) for number in result.stdout.split()]


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (0, "import, after sklearn.neural_network"),
        (1, "first fit of a process, compiled before"),
        (2, "a later fit"),
    ],
)
def bench_warm(measured, tmp_path_factory, number, what):
    cache = tmp_path_factory.getbasetemp() / "warm"
    _seconds(OURS, cache)  # compiles
    names = [OURS] if number == 0 else list(_PACKAGES)
    measured(
        "start",
        what,
        "float64",
        {name: lambda name=name: _seconds(name, cache)[number] for name in names},
        rounds=5,
        unit="s",
    )


def bench_cold(measured, tmp_path):
    caches = iter(range(100))
    measured(
        "start",
        "first fit on a machine, nothing compiled",
        "float64",
        {OURS: lambda: _seconds(OURS, tmp_path / str(next(caches)))[1]},
        rounds=3,
        unit="s",
    )
