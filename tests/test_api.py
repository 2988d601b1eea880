"""Importing, forking, spawning and threads: each in a process of its own."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import run_python

LAYERS = ["omp", "workqueue", "tbb"]


@functools.cache
def environment_of(layer):
    """What makes Numba use a threading layer; skips if it cannot be had."""
    environment = {"NUMBA_THREADING_LAYER": layer}
    if layer == "tbb":  # pip puts its library where the system does not look
        paths = [str(Path(sys.prefix) / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(paths)
    if layer != "workqueue":
        load = subprocess.run(
            [sys.executable, "-c", f"import numba.np.ufunc.{layer}pool"],
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
        )
        if load.returncode != 0:
            pytest.skip(f"the library of {layer} cannot be loaded")
    return environment


def test_numba_is_not_imported_before_it_is_needed(tmp_path):
    run_python(
        """
        import fastbp
        assert "sklearn" not in sys.modules  # nor anything else that is slow
        dir(fastbp), fastbp.__version__
        from fastbp import MLPClassifier, MLPRegressor
        from sklearn.base import clone
        for model in (MLPClassifier, MLPRegressor):
            estimator = clone(model(alpha=0.5).set_params(hidden_layer_sizes=(3,)))
            repr(estimator), estimator._repr_html_(), estimator.__sklearn_tags__()
            try:
                model(alpha=-1).fit([[0.0]], [0])
            except ValueError:
                pass
        import fastbp.launch, fastbp.network, fastbp.training, fastbp.estimators
        loaded = [name for name in sys.modules if name.split(".")[0] == "numba"]
        assert not loaded, loaded
        """,
        tmp_path,
    )


def test_numba_is_imported_by_the_first_fit(tmp_path):
    run_python(
        """
        fit()
        assert "numba" in sys.modules
        """,
        tmp_path,
    )


@pytest.mark.parametrize(
    ("before", "layer"),
    [
        ("import fastbp.launch", "omp"),
        ("fit(n_jobs=1)", "omp"),
        ("fit()", "omp"),
        ("fit()", "workqueue"),
    ],
)
def test_the_start_method_can_still_be_chosen(before, layer, tmp_path):
    run_python(
        f"""
        import multiprocessing
        {before}
        assert multiprocessing.get_start_method(allow_none=True) is None
        multiprocessing.set_start_method("spawn")
        assert multiprocessing.get_start_method() == "spawn"
        """,
        tmp_path,
        **environment_of(layer),
    )


def test_a_start_method_that_was_chosen_stays(tmp_path):
    run_python(
        """
        import multiprocessing
        multiprocessing.set_start_method("forkserver")
        fit()
        assert multiprocessing.get_start_method() == "forkserver"
        """,
        tmp_path,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("before", [1, 2])
def test_a_forked_child_fits_after_a_fit_of_its_parent(before, layer, tmp_path):
    output = run_python(
        f"""
        import time
        expected = fit(n_jobs={before})
        child = os.fork()
        if child == 0:
            status = 1
            try:
                model = fit()
                X, _ = data()
                alike = np.array_equal(
                    model.predict_proba(X), expected.predict_proba(X)
                )
                status = 0 if alike and same(model, expected) else 2
            finally:
                os._exit(status)
        for _ in range(600):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.1)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
            sys.exit("the child hangs")
        assert same(fit(), expected)  # the parent's threads are still there
        print("status", os.waitstatus_to_exitcode(status))
        """,
        tmp_path,
        **environment_of(layer),
    )
    assert output.split() == ["status", "0"]


def test_pools_of_forked_and_spawned_processes_fit(tmp_path):
    run_python(
        """
        if __name__ == "__main__":
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor
            expected = fit()
            for method in ("fork", "spawn"):
                context = multiprocessing.get_context(method)
                with ProcessPoolExecutor(2, mp_context=context) as pool:
                    models = [pool.submit(fit) for _ in range(2)]
                    assert all(same(m.result(), expected) for m in models), method
        """,
        tmp_path,
    )


FITS_IN_THREADS = """
        from concurrent.futures import ThreadPoolExecutor
        from fastbp import kernels
        number = int(os.environ["THREADS"])

        def outputs_of(model):
            # estimators have threads of their own, kernels those of the layer
            return (
                model.predict_proba(X),
                kernels.dense_forward(X, model.coefs_[0], model.intercepts_[0]),
            )

        X, _ = data()
        with ThreadPoolExecutor(number) as pool:
            jobs = [pool.submit(fit, seed=i % 2) for i in range(max(number, 4))]
            models = [job.result() for job in jobs]
            outputs = list(pool.map(outputs_of, models))
        for seed in (0, 1):
            alone = fit(n_jobs=1, seed=seed)
            expected = outputs_of(alone)
            for model, both in zip(models[seed::2], outputs[seed::2]):
                assert same(model, alone)
                assert np.array_equal(both[0], expected[0])
                assert np.array_equal(both[1], expected[1])
"""


@pytest.mark.parametrize("number", [2, 8])
@pytest.mark.parametrize("layer", LAYERS)
def test_threads_that_fit_at_once_get_the_same_models(layer, number, tmp_path):
    run_python(
        """
        fit().predict_proba(data()[0])  # loads the programs
        """
        + FITS_IN_THREADS,
        tmp_path,
        **environment_of(layer),
        THREADS=str(number),
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_first_fits_of_several_threads_at_once(layer, tmp_path):
    run_python(
        """
        import time
        from numba.core.dispatcher import Dispatcher
        compile_ = Dispatcher.compile

        def slow(self, signature):
            # as long as compiling without a cache: all threads get here
            time.sleep(0.5)
            return compile_(self, signature)

        Dispatcher.compile = slow
        """
        + FITS_IN_THREADS,
        tmp_path,
        **environment_of(layer),
        THREADS="4",
    )


def test_the_result_is_the_same_under_every_threading_layer(tmp_path):
    code = """
    import hashlib
    X, _ = data()
    print(hashlib.sha256(fit().predict_proba(X).tobytes()).hexdigest())
    """
    digests = set()
    for layer in ("omp", "workqueue"):
        digests.add(run_python(code, tmp_path, NUMBA_THREADING_LAYER=layer))
    digests.add(run_python(code, tmp_path, NUMBA_NUM_THREADS="1"))
    assert len(digests) == 1
