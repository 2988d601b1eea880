"""Searches and cross-validation on digits, under every backend of joblib."""

import pytest
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastbp
from benchmarks import machine, peers
from benchmarks.rows import OURS

GRID = {
    "mlpclassifier__hidden_layer_sizes": [(50,), (100,), (50, 50)],
    "mlpclassifier__alpha": [1e-4, 1e-2],
    "mlpclassifier__learning_rate_init": [1e-3, 3e-3],
}
_BACKENDS = ("loky", "threading", "multiprocessing")


def _pipeline(model, **parameters):
    return make_pipeline(
        StandardScaler(), model(max_iter=50, random_state=0, **parameters)
    )


def _search(pipeline, X, y, n_jobs):
    return GridSearchCV(pipeline, GRID, cv=5, n_jobs=n_jobs).fit(X, y).best_score_


def _cross_validate(pipeline, X, y, n_jobs):
    return cross_val_score(pipeline, X, y, cv=10, n_jobs=n_jobs).mean()


_WHAT = {
    "GridSearchCV, 60 fits": _search,
    "cross_val_score, 10 fits": _cross_validate,
}


def _cases():
    backends = _BACKENDS if machine.threads() > 1 else ("threading",)
    for what in _WHAT:
        for backend in backends:
            dtypes = ("float64", "float32") if backend == "threading" else ("float64",)
            for dtype in dtypes:
                yield what, backend, dtype


@pytest.mark.parametrize(("what", "backend", "dtype"), list(_cases()))
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs")
def bench_search(race, monkeypatch, what, backend, dtype):
    """With as many jobs as there are threads; one job is the same under all backends."""
    n_jobs = machine.threads()
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # of joblib's processes
    X, y = load_digits(return_X_y=True)
    X = X.astype(dtype)

    def contestant(model):
        def run():
            with parallel_config(backend=backend):
                return _WHAT[what](_pipeline(model), X, y, n_jobs)

        return run

    # processes that are forked have a limit of BLAS too; joblib's own loky processes
    # limit it so that all of them share the processors
    if backend == "loky":
        theirs = {peers.SKLEARN: contestant(Theirs)}
    else:
        theirs = peers.on_blas_threads(contestant(Theirs))

    scores = {}

    def check(name, score):
        scores[name] = score
        # the same folds, seeds and, up to rounding, models
        assert all(abs(score - other) < 0.01 for other in scores.values())

    race(
        "searches",
        f"{what}, n_jobs={n_jobs}, {backend}",
        dtype,
        {OURS: contestant(fastbp.MLPClassifier), **theirs},
        rounds=3,
        pause=0.15,
        check=check,
        facts={"backend": backend, "n_jobs": n_jobs},
        bundled=False,
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def bench_own_search(race, monkeypatch, dtype):
    """fastbp.GridSearchCV beside scikit-learn's estimator in scikit-learn's search."""
    n_jobs = machine.threads()
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # of joblib's processes
    X, y = load_digits(return_X_y=True)
    X, found = X.astype(dtype), {}

    def contestant(search, model):
        return lambda: search(_pipeline(model), GRID, cv=5, n_jobs=n_jobs).fit(X, y)

    def check(name, search):
        found[name] = search.cv_results_["mean_test_score"]
        # the same folds, seeds and, up to rounding, models: a row of 1797 more or less
        assert all(abs(found[name] - scores).max() < 0.01 for scores in found.values())

    race(
        "searches",
        f"fastbp.GridSearchCV, 60 fits, n_jobs={n_jobs}",
        dtype,
        {
            OURS: contestant(fastbp.GridSearchCV, fastbp.MLPClassifier),
            peers.SKLEARN: contestant(GridSearchCV, Theirs),
        },
        rounds=3,
        pause=0.15,
        check=check,
        facts={"n_jobs": n_jobs},
        bundled=False,
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def bench_many_models(race, dtype):
    """20 models for folds of the same rows: at once, and one after the other."""
    X, y = load_digits(return_X_y=True)
    X = StandardScaler().fit_transform(X).astype(dtype)
    folds = [train for train, _ in StratifiedKFold(20).split(X, y)]

    def models(estimator):
        options = {"max_iter": 50, "n_iter_no_change": 50, "random_state": 0}
        return [estimator(**options) for _ in folds]

    def one_by_one(estimator):
        fitted = models(estimator)
        for model, rows in zip(fitted, folds, strict=True):
            model.fit(X[rows], y[rows])
        return fitted

    def check(name, fitted):
        assert min(model.score(X, y) for model in fitted) > 0.99

    race(
        "searches",
        "fit_many, 20 models",
        dtype,
        {
            OURS: lambda: fastbp.fit_many(models(fastbp.MLPClassifier), X, y, folds),
            "fastbp, one by one": lambda: one_by_one(fastbp.MLPClassifier),
            **peers.on_blas_threads(lambda: one_by_one(Theirs)),
        },
        rounds=3,
        check=check,
        bundled=False,
    )
