"""The gate: how many threads a call gets."""

import gc
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import joblib
import numba
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from fastbp import MLPClassifier, cache, launch, training
from tests.processes import run_python


@pytest.fixture(autouse=True)
def no_limit_from_outside(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def two_cores(monkeypatch):
    """A machine with two cores, and no other thread that has just called."""
    monkeypatch.setattr(launch, "_ended", {})
    set_cores(monkeypatch, 2)


def set_cores(monkeypatch, cores):
    """The machine has so many, whatever this one has."""
    monkeypatch.setattr(launch, "_cores", lambda: cores)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", cores)


def test_n_jobs_limits_the_threads():
    everything = launch.thread_limit()
    assert launch.thread_limit(1) == 1
    assert launch.thread_limit(-1) == everything
    assert launch.thread_limit(1000) == everything
    assert launch.thread_limit(-1000) == 1


def test_the_environment_limits_the_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert launch.thread_limit() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "all of them")
    assert launch.thread_limit() >= 1


def test_threadpoolctl_limits_the_threads():
    everything = launch.thread_limit()
    with threadpool_limits(1):
        assert launch.thread_limit() == 1
    assert launch.thread_limit() == everything


def test_numbas_mask_limits_the_threads():
    everything, mask = launch.thread_limit(), numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert launch.thread_limit() == 1
    finally:
        numba.set_num_threads(mask)
    assert launch.thread_limit() == everything


def test_a_containers_quota_limits_the_threads(monkeypatch):
    # joblib reads the quota of cgroups and the affinity mask
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    launch._cores.cache_clear()
    try:
        assert launch.thread_limit() == 1
    finally:
        launch._cores.cache_clear()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_the_affinity_mask_limits_the_threads(tmp_path):
    run_python(
        """
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from fastbp import launch
        assert launch.thread_limit() == 1
        """,
        tmp_path,
    )


@pytest.mark.parametrize("number", ["1", "16"])
def test_any_number_of_numbas_threads(number, tmp_path):
    code = """
    import hashlib, joblib
    from fastbp import launch, kernels
    X, _ = data()
    model = fit(n_jobs=4)
    outputs = model.predict_proba(X)
    A = kernels.dense_forward(X, model.coefs_[0], model.intercepts_[0])
    print(hashlib.sha256(outputs.tobytes() + A.tobytes()).hexdigest())
    assert launch.thread_limit(4) <= joblib.cpu_count()
    """
    limited = run_python(code, tmp_path, NUMBA_NUM_THREADS=number)
    assert limited == run_python(code, tmp_path)


def test_calls_share_the_cores(two_cores):
    with launch.threads_for_call(8) as first:
        assert first == 2
        with launch.threads_for_call(2) as second:
            assert second == 1  # every call has its own thread at least
    with launch.threads_for_call(1), launch.threads_for_call(2) as beside_one:
        assert beside_one == 1
    with launch.threads_for_call(2) as alone:
        assert alone == 2


def test_a_core_is_left_for_a_moment_to_a_thread_that_has_just_called(
    two_cores, monkeypatch
):
    now = [0.0]
    monkeypatch.setattr(launch.time, "monotonic", lambda: now[0])

    def call():
        with launch.threads_for_call(2) as n_threads:
            return n_threads

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(call).result() == 2
        assert call() == 1  # the other is expected to call again
        assert call() == 1
        assert pool.submit(call).result() == 1
        now[0] += launch._SOON / 2
        assert call() == 1
        now[0] += launch._SOON
        assert call() == 2
        assert len(launch._ended) == 1  # that thread's own call


def test_a_call_that_fails_gives_its_threads_back(two_cores):
    with pytest.raises(RuntimeError, match="no"), launch.threads_for_call(2):
        raise RuntimeError("no")
    with launch.threads_for_call(2) as n_threads:
        assert n_threads == 2


def test_a_call_that_was_lost_gives_its_threads_back(two_cores):
    # as when Ctrl-C comes between the count and the call: nobody leaves it
    lost = launch.threads_for_call(2)
    lost.__enter__()
    del lost
    gc.collect()
    with launch.threads_for_call(2) as n_threads:
        assert n_threads == 2


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("cores", [1, 2])
def test_fits_in_many_threads_take_turns(cores, monkeypatch):
    running, most, counting = [], [], threading.Lock()
    ready = cache.ready

    def watched(*args):
        program = ready(*args)

        def call(*arguments):
            if arguments[-1] > 0:  # a helper, which stays between calls for a moment
                return program(*arguments)
            with counting:
                running.append(program)
                most.append(len(running))
            time.sleep(0.001)  # long enough for others to come
            program(*arguments)
            with counting:
                running.remove(program)

        return call

    set_cores(monkeypatch, cores)
    monkeypatch.setattr(launch, "_PATIENCE", 100)
    monkeypatch.setattr(cache, "ready", watched)
    monkeypatch.setattr(training, "_EPOCHS_AHEAD", 1)  # a call each
    X, y = np.random.default_rng(0).standard_normal((200, 20)), np.arange(200) % 2
    models = [MLPClassifier((50,), max_iter=10, random_state=0) for _ in range(5)]
    fits = [threading.Thread(target=model.fit, args=(X, y)) for model in models]
    for fit in fits:
        fit.start()
    for fit in fits:
        fit.join(timeout=120)
    assert len(most) >= 5 * 10
    assert max(most) == cores
    assert all(model.loss_curve_ == models[0].loss_curve_ for model in models)
    assert not launch._queue
    assert not launch._calls


def test_a_call_whose_turn_never_comes_goes_ahead(two_cores, monkeypatch):
    monkeypatch.setattr(launch, "_PATIENCE", 0.01)
    with launch.threads_for_call(2, waits=True), launch.threads_for_call(2, waits=True):
        assert len(launch._calls) == 2
    # neither does one wait behind a call that was given up
    abandoned = launch.threads_for_call(2, waits=True)
    launch._queue.append(weakref.ref(abandoned))
    try:
        del abandoned
        monkeypatch.setattr(launch, "_PATIENCE", 100)
        with launch.threads_for_call(2, waits=True):
            pass
    finally:
        launch._queue.clear()


def test_ctrl_c_never_leaves_a_lock_behind(tmp_path):
    # entering and leaving a lock must be one step each, or other threads hang
    run_python(
        """
        import random, signal, threading, time
        from fastbp import launch

        with launch.threads_for_call(2, waits=True):
            pass  # imports what it needs: Python cannot resume an interrupted import

        def interrupted():
            try:
                while True:
                    with launch.threads_for_call(2, waits=True):
                        pass
            except KeyboardInterrupt:
                pass

        def interrupt():
            while not done:
                time.sleep(random.uniform(0, 0.001))
                os.kill(os.getpid(), signal.SIGINT)

        def free():
            # in another thread: whoever holds an RLock can enter it again
            entered = launch._counting.acquire(timeout=5)
            return entered and (launch._counting.release() or True)

        def handle(*args):
            global fitting
            if fitting:
                fitting = False  # once: nobody would catch another
                raise KeyboardInterrupt

        from concurrent.futures import ThreadPoolExecutor
        fitting = done = False
        signal.signal(signal.SIGINT, handle)
        thread = threading.Thread(target=interrupt)
        with ThreadPoolExecutor(1) as other:
            thread.start()
            for _ in range(1000):
                try:
                    fitting = True
                    interrupted()
                except KeyboardInterrupt:
                    pass
                assert other.submit(free).result()
            done = True
            thread.join()
        assert len(launch._calls) == 0
        """,
        tmp_path,
    )
