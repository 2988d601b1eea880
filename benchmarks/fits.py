"""Time the same training by fastbp and its peers: ``python -m benchmarks.fits``.

All train the same epochs from the same weights on the same batches (``peers``); their
losses are compared before the times are believed. Runs are interleaved (A B C A B C ...)
with a pause before each, in which the threads of the one before go to sleep. A ratio is
that of the medians; scikit-learn gets the better of one and two BLAS threads.
Compilation is not part of a time. *Share of peak*: useful multiply-adds a second, over
those of a loop that only multiplies registers (``peak``), run between the others.
"""

import argparse
import importlib
import importlib.metadata
import platform
import statistics
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from benchmarks import peak, peers
from fastbp import launch

_PAUSE = 0.15


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


class Result(NamedTuple):
    """Medians of one case."""

    seconds: dict  # by peer
    spread: float  # slowest over fastest run of fastbp
    share: float  # of the peak


def installed():
    """The peers that can be imported, and the names of the others."""
    modules = {"PyTorch": "torch", "JAX": "jax"}
    missing = []
    for name, module in modules.items():
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(name)
    return [name for name in peers.PEERS if name not in missing], missing


def compare(case, dtype, names, repeats, threads):
    """Medians over interleaved runs of fastbp and the named peers."""
    X, y = case.data(dtype)
    problem = peers.Problem(X, y, case.hidden, case.batch, case.epochs, threads)
    trainers = {"fastbp": peers.of_fastbp(problem)}
    trainers |= {name: peers.PEERS[name](problem) for name in names}
    losses = {name: train() for name, train in trainers.items()}  # compiles, too
    for name in names:
        # Adam's epsilon stands elsewhere in PyTorch's formula, whose loss also lacks
        # the L2 term; a float32 trajectory drifts
        tolerance = 2e-2
        if name.startswith("scikit-learn"):
            tolerance = 1e-7 if dtype == "float64" else 1e-3
        np.testing.assert_allclose(losses["fastbp"], losses[name], rtol=tolerance)
    times = {name: [] for name in trainers}
    limits = []
    for _ in range(repeats):
        for name, train in trainers.items():
            time.sleep(_PAUSE)
            started = time.perf_counter()
            train()
            times[name].append(time.perf_counter() - started)
            if name == "fastbp":
                limits.append(peak.gflops(np.dtype(dtype), threads))
    medians = {name: statistics.median(runs) for name, runs in times.items()}
    rate = problem.flops() / medians["fastbp"] / 1e9
    spread = max(times["fastbp"]) / min(times["fastbp"])
    return Result(medians, spread, rate / statistics.median(limits))


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def versions():
    names = ("fastbp", "scikit-learn", "torch", "jax", "numpy", "numba")
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {platform.python_version()}"])


def ratio(result, names):
    """Seconds of the fastest of these peers over those of fastbp; "-" without any."""
    seconds = [result.seconds[name] for name in names if name in result.seconds]
    return f"{min(seconds) / result.seconds['fastbp']:.1f}" if seconds else "-"


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fits", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=launch.thread_limit())
    parser.add_argument("--dtypes", nargs="*", default=["float64", "float32"])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    names, missing = installed()
    print(
        f"{processor()}, {arguments.threads} threads; {versions()}; "
        f"median of {arguments.repeats} interleaved runs"
        + "".join(f"; {name} is not installed" for name in missing)
        + "\n"
    )
    print("| case | rows x features, hidden, batch, epochs | dtype | fastbp ", end="")
    print("| vs scikit-learn | vs PyTorch | vs JAX | share of peak | spread |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    blas = [name for name in peers.PEERS if name.startswith("scikit-learn")]
    for name in arguments.cases:
        case = CASES[name]
        shape = (
            f"{case.rows} x {case.features}, {case.hidden}, {case.batch}, {case.epochs}"
        )
        for dtype in arguments.dtypes:
            result = compare(case, dtype, names, arguments.repeats, arguments.threads)
            ratios = [ratio(result, peer) for peer in (blas, ["PyTorch"], ["JAX"])]
            print(
                f"| {name} | {shape} | {dtype} | {result.seconds['fastbp']:.4f} s | "
                + " | ".join(ratios)
                + f" | {result.share:.0%} | {result.spread:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
