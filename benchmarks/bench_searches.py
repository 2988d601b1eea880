"""Searches and cross-validation on digits, under every backend of joblib."""

import pytest
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import ThreadpoolController

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
    for what in _WHAT:
        for backend in _BACKENDS:
            dtypes = ("float64", "float32") if backend == "threading" else ("float64",)
            for dtype in dtypes:
                yield what, backend, dtype


@pytest.mark.parametrize(("what", "backend", "dtype"), list(_cases()))
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs")
def bench_search(race, monkeypatch, what, backend, dtype):
    """With as many jobs as there are threads; one job is the same under all backends."""
    n_jobs = machine.threads()
    if n_jobs == 1 and backend != "threading":
        pytest.skip("one job has no backend")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # of joblib's processes
    X, y = load_digits(return_X_y=True)
    X = X.astype(dtype)

    def contestant(model):
        def run():
            with parallel_config(backend=backend):
                return _WHAT[what](_pipeline(model), X, y, n_jobs)

        return run

    def limited(blas_threads):
        search, controller = contestant(Theirs), ThreadpoolController()

        def run():  # processes that are forked have the limit too
            with controller.limit(limits=blas_threads, user_api="blas"):
                return search()

        return run

    # joblib's own loky processes limit BLAS so that all of them share the processors
    theirs = {peers.SKLEARN: contestant(Theirs)}
    if backend != "loky":
        counts = sorted({1, machine.threads()})
        theirs = {peers.sklearn_name(count): limited(count) for count in counts}

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
    )
