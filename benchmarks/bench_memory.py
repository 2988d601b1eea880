"""The most memory that a fit takes beyond its data, and sparse data's speed.

Every fit is in a process of its own, whose peak Linux counts.
"""

import functools
import subprocess
import sys

import pytest

from benchmarks.rows import OURS

_PROGRAM = """
import importlib, re, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
package, kind, dtype, what = sys.argv[1:]
model = importlib.import_module(package).MLPClassifier
rng = np.random.default_rng(0)
if kind == "sparse":
    from scipy.sparse import random_array
    X = random_array((20_000, 20_000), density=0.005, format="csr", rng=rng)
    X, few = X.astype(dtype), np.s_[:400, :50]
    y = rng.integers(0, 2, 20_000)
else:
    X = rng.standard_normal((int(kind), 64), dtype=dtype)
    y, few = rng.integers(0, 10, len(X)), np.s_[:400]
model(max_iter=1).fit(X[few], y[:400])  # compiles

def memory(name):
    with open("/proc/self/status") as file:
        return int(re.search(name + r":\\s+(\\d+)", file.read())[1]) * 1024 / 1e6

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # from now on VmHWM is the peak
before = memory("VmRSS")
started = time.perf_counter()
model(max_iter=2, random_state=0).fit(X, y)
seconds = time.perf_counter() - started
print(seconds if what == "seconds" else memory("VmHWM") - before)
"""
DTYPES = ("float32", "float64")
_PACKAGES = {OURS: "fastbp", "scikit-learn": "sklearn.neural_network"}
_DATA = {
    "100000": "100,000 x 64",
    "1000000": "1,000,000 x 64",
    "sparse": "20,000 x 20,000, 0.5 % stored",
}


def _contestants(kind, dtype, what):
    def measure(package):
        result = subprocess.run(
            [sys.executable, "-c", _PROGRAM, package, kind, dtype, what],
            capture_output=True,
            text=True,
            check=True,
        )
        return float(result.stdout)

    return {
        name: functools.partial(measure, package) for name, package in _PACKAGES.items()
    }


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        pytest.param("100000", "float32", marks=pytest.mark.quick),
        ("100000", "float64"),
        *((kind, dtype) for kind in ("1000000", "sparse") for dtype in DTYPES),
    ],
)
def bench_memory(measured, kind, dtype):
    measured(
        "memory",
        f"{_DATA[kind]}, (100,): megabytes beyond the data",
        dtype,
        _contestants(kind, dtype, "memory"),
        rounds=1,
        unit="MB",
    )


@pytest.mark.parametrize("dtype", DTYPES)
def bench_sparse(measured, dtype):
    measured(
        "ways",
        f"{_DATA['sparse']}, (100,), 2 epochs",
        dtype,
        _contestants("sparse", dtype, "seconds"),
        rounds=3,
        unit="s",
    )
