"""Time ``fit`` of fastbp and scikit-learn side by side: ``python -m benchmarks.fits``.

Both train the same epochs from the same seed on the same data; their losses are compared
before the times are believed. Runs are interleaved (A B A B ...) and the ratio is that of
the medians. scikit-learn gets the better of one and two BLAS threads. Compilation is not
part of a time.
"""

import argparse
import platform
import statistics
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sklearn
import sklearn.neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

import fastbp
from fastbp import launch


class Case(NamedTuple):
    rows: int
    features: int
    hidden: tuple
    batch: int
    classes: int
    epochs: int

    def data(self, dtype):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((self.rows, self.features))
        w = rng.standard_normal((self.features, self.classes))
        y = (X @ w + rng.standard_normal((self.rows, self.classes))).argmax(axis=1)
        return X.astype(dtype), y


class Digits(Case):
    """scikit-learn's digits with its MLP's default parameters."""

    def data(self, dtype):
        X, y = load_digits(return_X_y=True)
        return (X / 16).astype(dtype), y


CASES = {
    "digits": Digits(1797, 64, (100,), 200, 10, 40),
    "small steps": Case(10_000, 20, (32,), 32, 2, 5),
    "three hidden layers": Case(50_000, 30, (128, 128, 128), 256, 2, 2),
    "image sized": Case(20_000, 784, (256, 128), 200, 10, 2),
    "wide": Case(8_192, 512, (1024, 1024), 1024, 10, 2),
}


def seconds(model, X, y):
    started = time.perf_counter()
    model.fit(X, y)
    return time.perf_counter() - started


def compare(case, dtype, repeats):
    """Median seconds of both, and the spread of fastbp's (max / min)."""
    X, y = case.data(dtype)
    parameters = {
        "hidden_layer_sizes": case.hidden,
        "batch_size": case.batch,
        "max_iter": case.epochs,
        "n_iter_no_change": case.epochs,
        "random_state": 0,
    }
    ours = fastbp.MLPClassifier(**parameters)
    theirs = sklearn.neural_network.MLPClassifier(**parameters)
    ours.fit(X, y)  # compiles
    times = {"fastbp": [], 1: [], 2: []}
    for _ in range(repeats):
        for threads in (1, 2):
            with threadpool_limits(threads, user_api="blas"):
                times[threads].append(seconds(theirs, X, y))
        times["fastbp"].append(seconds(ours, X, y))
    np.testing.assert_allclose(
        ours.loss_curve_,
        theirs.loss_curve_,
        rtol=1e-3 if dtype == "float32" else 1e-7,  # a float32 trajectory drifts
    )
    spread = max(times["fastbp"]) / min(times["fastbp"])
    best = min(statistics.median(times[threads]) for threads in (1, 2))
    return statistics.median(times["fastbp"]), best, spread


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fits", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    print(
        f"{processor()}, {launch.thread_limit()} threads; "
        f"fastbp {fastbp.__version__}, scikit-learn {sklearn.__version__}, "
        f"NumPy {np.__version__}, Python {platform.python_version()}; "
        f"median of {arguments.repeats} interleaved runs\n"
    )
    print("| case | rows x features, hidden, batch, epochs | dtype ", end="")
    print("| scikit-learn | fastbp | ratio | spread |")
    print("|---|---|---|---:|---:|---:|---:|")
    for name in arguments.cases:
        case = CASES[name]
        shape = (
            f"{case.rows} x {case.features}, {case.hidden}, {case.batch}, {case.epochs}"
        )
        for dtype in ("float64", "float32"):
            ours, theirs, spread = compare(case, dtype, arguments.repeats)
            print(
                f"| {name} | {shape} | {dtype} | {theirs:.3f} s | {ours:.3f} s "
                f"| {theirs / ours:.1f} | {spread:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
