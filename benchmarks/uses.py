"""Time what users do besides one long fit: ``python -m benchmarks.uses``.

Searches, predictions of one row and of many, the first fit of a process, the cost of a
row as rows grow, sparse data, the other solvers and ways to train. scikit-learn runs the
same beside it, interleaved, with a pause before each timing.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
import sklearn.neural_network
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastbp
from benchmarks.fits import processor, versions

_PAUSE = 0.15
_THEIRS, _OURS = sklearn.neural_network.MLPClassifier, fastbp.MLPClassifier

GRID = {
    "mlpclassifier__hidden_layer_sizes": [(50,), (100,), (50, 50)],
    "mlpclassifier__alpha": [1e-4, 1e-2],
    "mlpclassifier__learning_rate_init": [1e-3, 3e-3],
}

FIRST_FIT = """
import time, warnings
warnings.simplefilter("ignore")
import sklearn.neural_network
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
started = time.perf_counter()
import fastbp
imported = time.perf_counter()
model = fastbp.MLPClassifier(max_iter=2, random_state=0)
model.fit(X, y)
first = time.perf_counter()
model.fit(X, y)
print(imported - started, first - imported, time.perf_counter() - first)
"""


SPARSE_FIT = """
import importlib, re, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
from scipy.sparse import random_array
model = importlib.import_module(sys.argv[1]).MLPClassifier
rng = np.random.default_rng(0)
X = random_array((20_000, 20_000), density=0.005, format="csr", rng=rng)
X = X.astype(sys.argv[2])
y = rng.integers(0, 2, 20_000)
model(max_iter=1).fit(X[:400, :50], y[:400])  # compiles

def memory(name):
    with open("/proc/self/status") as file:
        return int(re.search(name + r":\\s+(\\d+)", file.read())[1]) / 1e3

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # from now on VmHWM is the peak
before = memory("VmRSS")
started = time.perf_counter()
model(max_iter=2, random_state=0).fit(X, y)
seconds = time.perf_counter() - started
print(seconds, memory("VmHWM") - before)
"""


def interleaved(functions, repeats):
    """Median seconds of each function."""
    times = [[] for _ in functions]
    for _ in range(repeats):
        for runs, function in zip(times, functions, strict=True):
            time.sleep(_PAUSE)
            started = time.perf_counter()
            function()
            runs.append(time.perf_counter() - started)
    return [statistics.median(runs) for runs in times]


def row(what, theirs, ours, unit="s", scale=1.0):
    ratio = f"{theirs / ours:.1f}" if theirs else "-"
    before = f"{theirs * scale:.3g} {unit}" if theirs else "-"
    print(f"| {what} | {before} | {ours * scale:.3g} {unit} | {ratio} |", flush=True)


def searches(repeats):
    X, y = load_digits(return_X_y=True)

    def search(model, n_jobs, **parameters):
        pipeline = make_pipeline(
            StandardScaler(), model(max_iter=50, random_state=0, **parameters)
        )
        backend = "threading" if model is _OURS else "loky"  # each one's better one

        def run():
            with parallel_config(backend=backend):
                GridSearchCV(pipeline, GRID, cv=5, n_jobs=n_jobs).fit(X, y)

        return run

    for n_jobs in (1, 2):
        theirs = search(_THEIRS, n_jobs)
        ours = [search(_OURS, n_jobs, dtype=dtype) for dtype in ("auto", "float32")]
        for function in ours:
            function()  # compiles
        times = interleaved([theirs, *ours], repeats)
        for dtype, seconds in zip(("float64", "float32"), times[1:], strict=True):
            row(f"GridSearchCV, 60 fits, n_jobs={n_jobs}, {dtype}", times[0], seconds)


def predictions(repeats):
    X, y = load_digits(return_X_y=True)
    many = np.random.default_rng(0).standard_normal((100_000, 64))
    for dtype in ("float64", "float32"):
        models = [
            model(max_iter=5, random_state=0).fit((X / 16).astype(dtype), y)
            for model in (_THEIRS, _OURS)
        ]
        one, rows = X[:1].astype(dtype), many.astype(dtype)

        def thousand(model, one=one):
            return lambda: [model.predict_proba(one) for _ in range(1000)]

        def all_rows(model, rows=rows):
            return lambda: model.predict_proba(rows)

        for model in models:
            all_rows(model)()
            thousand(model)()
        times = interleaved([thousand(model) for model in models], repeats)
        row(f"predict_proba, 1 row, {dtype}", *times, unit="us", scale=1e3)
        times = interleaved([all_rows(model) for model in models], repeats)
        row(f"predict_proba, 100,000 rows, {dtype}", *times, unit="ms", scale=1e3)


def starts(repeats):
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
        runs = []
        for _ in range(repeats + 1):
            result = subprocess.run(
                [sys.executable, "-c", FIRST_FIT],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            runs.append([float(number) for number in result.stdout.split()])
    imported, first, later = (
        statistics.median(column) for column in zip(*runs[1:], strict=True)
    )
    row("import fastbp, after sklearn.neural_network", None, imported, "ms", 1e3)
    row("first fit of a process, nothing compiled", None, runs[0][1])
    row("first fit of a process, compiled before", None, first)
    row("a later fit", None, later)


def scaling(repeats):
    rng = np.random.default_rng(0)
    for rows in (10_000, 100_000, 1_000_000):
        X = rng.standard_normal((rows, 64), dtype=np.float32)
        y = rng.integers(0, 10, rows)
        fits = [
            lambda model=model, X=X, y=y: model(max_iter=1, random_state=0).fit(X, y)
            for model in (_THEIRS, _OURS)
        ]
        fits[1]()
        seconds = interleaved(fits, max(1, repeats // 2))
        row(f"an epoch of {rows} rows, per row", *seconds, unit="us", scale=1e6 / rows)


def sparse(repeats):
    for dtype in ("float64", "float32"):
        runs = {"sklearn.neural_network": [], "fastbp": []}
        for _ in range(max(1, repeats // 2)):
            for package, found in runs.items():
                result = subprocess.run(
                    [sys.executable, "-c", SPARSE_FIT, package, dtype],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                found.append([float(number) for number in result.stdout.split()])
        theirs, ours = (
            [statistics.median(column) for column in zip(*found, strict=True)]
            for found in runs.values()
        )
        what = f"20,000 x 20,000, 0.5 % stored, (100,), 2 epochs, {dtype}"
        row(what, theirs[0], ours[0])
        row("the most memory that it took beyond the data", theirs[1], ours[1], "MB")


def solvers(repeats):
    X, y = load_digits(return_X_y=True)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X))
    cases = {
        "early_stopping, 30 epochs": {"early_stopping": True, "n_iter_no_change": 50},
        "sample_weight, 30 epochs": {"sample_weight": weight},
        "lbfgs, 30 iterations": {"solver": "lbfgs"},
    }
    for what, options in cases.items():
        options = {"max_iter": 30, "random_state": 0, **options}
        fit = {"sample_weight": options.pop("sample_weight", None)}
        fits = [
            lambda model=model, options=options, fit=fit: model(**options).fit(
                X, y, **fit
            )
            for model in (_THEIRS, _OURS)
        ]
        fits[1]()
        row(f"digits, {what}", *interleaved(fits, repeats))

    def chunks(model):
        learner = model(random_state=0)
        for begin in range(0, len(X), 100):
            part = slice(begin, begin + 100)
            learner.partial_fit(X[part], y[part], classes=np.arange(10))

    fits = [lambda model=model: chunks(model) for model in (_THEIRS, _OURS)]
    row("digits, partial_fit, 100 rows a call", *interleaved(fits, repeats))


def main():
    parts = {
        "searches": searches,
        "predictions": predictions,
        "starts": starts,
        "scaling": scaling,
        "sparse": sparse,
        "solvers": solvers,
    }
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.uses", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--parts", nargs="*", choices=parts, default=list(parts))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    os.environ["PYTHONWARNINGS"] = "ignore"  # for joblib's processes
    print(f"{processor()}; {versions()}; median of {arguments.repeats} runs\n")
    print("| what | scikit-learn | fastbp | ratio |\n|---|---:|---:|---:|")
    for name in arguments.parts:
        parts[name](arguments.repeats)


if __name__ == "__main__":
    main()
