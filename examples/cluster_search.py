"""
A grid search on a cluster
==========================

joblib hands the fits of a search to whoever registers as its backend: here to the
processes of a Dask cluster, and to Ray's, if they are installed. The estimators are
pickled there and back, every worker process compiles nothing (it finds the compile
cache), and the scores are those of a search in this process, to the last bit. For a
search of a second it is no gain, as new processes import their packages first, which
takes some seconds; it is one for searches of minutes, and for more machines than one.
"""

import importlib.util
import sys
import time
import warnings

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbp import MLPClassifier

GRID = {
    "mlpclassifier__alpha": [1e-4, 1e-2],
    "mlpclassifier__hidden_layer_sizes": [(50,), (100,)],
}


def search(X, y):
    """Mean scores of the candidates, and the seconds they took."""
    model = MLPClassifier(max_iter=3 if "--short" in sys.argv else 50, random_state=0)
    found = GridSearchCV(make_pipeline(StandardScaler(), model), GRID, cv=4, n_jobs=-1)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so many are wanted
        found.fit(X, y)
    return found.cv_results_["mean_test_score"], time.perf_counter() - started


def main():
    """Search here, on Dask and on Ray; compare the scores."""
    X, y = load_digits(return_X_y=True)
    with joblib.parallel_config("threading"):
        expected, seconds = search(X, y)
    print(f"this process: {seconds:.2f} s, scores {expected.round(4)}")

    if importlib.util.find_spec("distributed"):
        from dask.distributed import Client, LocalCluster

        cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        with cluster, Client(cluster) as client:
            with joblib.parallel_config("dask"):
                scores, seconds = search(X, y)
            workers = len(client.scheduler_info()["workers"])
        np.testing.assert_array_equal(scores, expected)
        print(f"Dask, {workers} processes: {seconds:.2f} s, the same scores")
    else:
        print("Dask is not installed: pip install distributed")

    if importlib.util.find_spec("ray"):
        import ray
        from ray.util.joblib import register_ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        register_ray()
        with joblib.parallel_config("ray"):
            scores, seconds = search(X, y)
        ray.shutdown()
        np.testing.assert_array_equal(scores, expected)
        print(f"Ray, 2 processes: {seconds:.2f} s, the same scores")
    else:
        print("Ray is not installed: pip install ray")


if __name__ == "__main__":  # the cluster's processes import this file
    main()
