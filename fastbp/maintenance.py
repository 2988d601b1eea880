"""Looking after an installation: compile ahead of time, and tell what there is."""

import importlib.metadata
import platform
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import sklearn.neural_network
from scipy.sparse import csr_array

from fastbp import cache, launch
from fastbp.estimators import MLPRegressor

_PACKAGES = ("fastbp", "numba", "llvmlite", "numpy", "scipy", "scikit-learn", "joblib")


def warmup(
    dtypes: Any = (np.float64, np.float32),
    *,
    sparse: bool = False,
    extended: bool = False,
) -> None:
    """Compile what training and prediction need, or load it from the compile cache.

    Call it once before many processes start at the same time, or while an image of a
    container is built: with no cache each of them would compile for itself, some ten
    seconds for a dtype.

    Parameters
    ----------
    dtypes : dtype or sequence of dtype, default=(float64, float32)
        Those of the data to come. Whatever is not float32 is trained in float64, unless
        the estimator's ``dtype`` says otherwise.
    sparse : bool, default=False
        Whether sparse data are to come too.
    extended : bool, default=False
        Whether networks are to come that have something that scikit-learn's have not, as
        dropout or other activations: they have programs of their own.

    Raises
    ------
    ValueError
        If a dtype is neither float32 nor float64.
    """
    one = isinstance(dtypes, str) or not isinstance(dtypes, Iterable)
    for dtype in map(np.dtype, [dtypes] if one else dtypes):
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"dtypes must be float32 or float64, got {dtype}.")
        X, y = _trial_data(dtype)
        for inputs in [X, csr_array(X)] if sparse else [X]:
            for options in [{}, {"activation": "elu"}] if extended else [{}]:
                model = _trial(MLPRegressor, inputs, y, **options)
                model.predict(inputs)
                model.predict(inputs[:1])


def _trial_data(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.RandomState(0).standard_normal((64, 9)).astype(dtype)
    return X, X[:, 0]


def _trial(estimator: Any, X: Any, y: np.ndarray, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        model = estimator(hidden_layer_sizes=(7, 5), max_iter=3, random_state=0)
        return model.set_params(**options).fit(X, y)


def report() -> Iterator[str]:
    """What a report of a problem needs: versions, processor, threads, cache, a trial.

    Line by line, so that what is known is told even where the trial takes the process
    down.
    """
    for part in (_versions, _processor, _threads, _cache, _trials):
        for name, what in part():
            yield f"{name:<16} {what}"


def _versions() -> Iterator[tuple[str, str]]:
    yield "Python", f"{platform.python_version()}, {sys.executable}"
    yield "system", platform.platform()
    for package in _PACKAGES:
        yield package, importlib.metadata.version(package)


def _processor() -> Iterator[tuple[str, str]]:
    from fastbp.kernels import simd

    triple, name, _ = simd.TARGET
    yield "target", f"{name}, {triple}"
    lanes = ", ".join(f"{simd.lanes(d)} {np.dtype(d)}" for d in (np.float32, np.float64))
    fused = "fused" if simd.HAS_FMA else "no fused"
    yield (
        "vectors",
        f"{simd.REGISTERS} registers of {lanes}; {fused} multiply-add",
    )
    yield "bounds checks", "on (NUMBA_BOUNDSCHECK)" if simd.CHECKED else "off"


def _threads() -> Iterator[tuple[str, str]]:
    try:
        layer = launch.threading_layer()
    except Exception as error:  # one was asked for that cannot be loaded
        layer = f"none: {type(error).__name__}: {error}"
    limits = launch.thread_limits()
    causes = ", ".join(f"{name} {limit}" for name, limit in limits.items())
    yield "threads", f"{launch.thread_limit()} (the least of: {causes})"
    yield "threading layer", f"{layer}, for @njit code that calls fastbp.kernels"
    if layer == "workqueue":
        yield (
            "WARNING",
            "Numba has no OpenMP runtime (on Linux: the package libgomp1), or was told "
            "to do without. Under its workqueue layer a process that runs parallel "
            "Numba code of its own in two threads at once is aborted by Numba. fastbp "
            "itself avoids that.",
        )


def _cache() -> Iterator[tuple[str, str]]:
    directory = cache.directory()
    if not cache.is_on():
        yield "compile cache", "off (FASTBP_CACHE=0): every process compiles"
        return
    if directory is None:
        yield "compile cache", "off, as no directory can be written: set NUMBA_CACHE_DIR"
    else:
        files = cache.files()
        current = [path for path in files if cache.stamp() in path.name]
        size = sum(path.stat().st_size for path in files) / 1e6
        yield "compile cache", str(directory)
        yield (
            "",
            f"{len(files)} files, {size:.1f} MB; {len(current)} of this version. "
            "fastbp.clear_cache() deletes them all",
        )


def _trials() -> Iterator[tuple[str, str]]:
    for dtype in (np.float64, np.float32):
        name = f"trial {np.dtype(dtype)}"
        X, y = _trial_data(dtype)
        started = time.perf_counter()
        try:
            model = _trial(MLPRegressor, X, y)
        except Exception as error:  # which is what the report is about
            yield name, f"FAILED with {type(error).__name__}: {error}"
            continue
        seconds = time.perf_counter() - started
        expected = _trial(sklearn.neural_network.MLPRegressor, X, y)
        deviation = abs(model.loss_ / expected.loss_ - 1)
        yield (
            name,
            f"first fit in {seconds:.2f} s, its loss within {deviation:.0e} of "
            "scikit-learn's",
        )
