"""Predictions: one row at a time, as a service gets them, and a hundred thousand."""

import functools
import time
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier as Theirs

import fastbp
from benchmarks.rows import OURS

DTYPES = (pytest.param("float32", marks=pytest.mark.quick), "float64")
#: Calls of a round, of which the percentiles are taken.
_CALLS = 1000


def _models(dtype):
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = {
            name: model(max_iter=20, random_state=0).fit(X, y)
            for name, model in ((OURS, fastbp.MLPClassifier), ("scikit-learn", Theirs))
        }
    P = [model.predict_proba(X) for model in models.values()]
    # the same training but for rounding, which float32 fits amplify
    np.testing.assert_allclose(*P, atol=1e-2 if dtype == "float32" else 1e-9)
    return models, X


@pytest.mark.parametrize("percentile", [50, 99])
@pytest.mark.parametrize("dtype", DTYPES)
def bench_one_row(measured, dtype, percentile):
    models, X = _models(dtype)
    rows = [X[i : i + 1] for i in range(100)]

    def seconds(model):
        found = np.empty(_CALLS)
        for i in range(_CALLS):
            started = time.perf_counter()
            model.predict_proba(rows[i % 100])
            found[i] = time.perf_counter() - started
        return np.percentile(found, percentile)

    measured(
        "latency",
        f"predict_proba of one row, p{percentile}",
        dtype,
        {name: functools.partial(seconds, model) for name, model in models.items()},
        rounds=7,
        unit="s",
    )


@pytest.mark.parametrize("dtype", DTYPES)
def bench_many_rows(race, dtype):
    models, _ = _models(dtype)
    rows = np.random.default_rng(0).standard_normal((100_000, 64)).astype(dtype)
    race(
        "latency",
        "predict_proba of 100,000 rows",
        dtype,
        {name: lambda m=model: m.predict_proba(rows) for name, model in models.items()},
        rounds=9,
        pause=0.05,
    )
