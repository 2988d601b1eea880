"""What takes other compiled libraries down: signals, forks, pools, much memory.

Each case in a process of its own that has to end in time, whatever happens to it.
"""

import os
import signal
import statistics
import time
from pathlib import Path

import joblib
import pytest

from tests.processes import finish, run_python, start_python

#: A fit that lasts until it is interrupted, in many short steps or in few long ones.
ENDLESS = """
from fastbp import MLPClassifier, MLPRegressor
rng = np.random.RandomState(0)

def endless(solver, n, n_features, hidden, batch_size):
    X, y = rng.standard_normal((n, n_features)), rng.standard_normal(n)
    model = MLPRegressor(
        hidden_layer_sizes=hidden, batch_size=batch_size, solver=solver, tol=0,
        max_iter=10**6, max_fun=10**9, n_iter_no_change=10**6, random_state=0,
    )
    return model, X, y

CASES = {
    "small": lambda: endless("adam", 2000, 10, (20,), 50),
    "large": lambda: endless("sgd", 20000, 400, (600, 600), 20000),
    "lbfgs": lambda: endless("lbfgs", 20000, 400, (600, 600), "auto"),
}
"""

INTERRUPTED = (
    ENDLESS
    + """
import time
model, X, y = CASES[os.environ["CASE"]]()
fresh = MLPRegressor(**{**model.get_params(), "max_iter": 1, "max_fun": 1})
fresh.fit(X[:300], y[:300])  # compiles
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print("ready", flush=True)
    model.fit(X, y)
print("back", flush=True)
messages = [str(warning.message) for warning in caught]
assert "Training interrupted by user." in messages, messages
assert all(np.isfinite(w).all() for w in model.coefs_ + model.intercepts_)
assert len(model.predict(X[:10])) == 10
assert len(model.loss_curve_) == model.n_iter_ if hasattr(model, "loss_curve_") else 1
if model.solver != "lbfgs":
    before = model.t_
    model.partial_fit(X, y)
    assert model.t_ == before + len(X)
again = MLPRegressor(hidden_layer_sizes=(5,), max_iter=2).fit(X[:100], y[:100])
assert again.n_iter_ == 2  # and other fits have their threads
"""
)


def interrupt(process, seconds):
    """Press Ctrl-C so long after the program is "ready": it has to be "back" at once."""
    try:
        assert process.stdout.readline() == "ready\n", finish(process)[2]
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        sent = time.perf_counter()
        assert process.stdout.readline() == "back\n", finish(process)[2]
        # a promise to the user, not a figure of speed: the steps of these fits last from
        # microseconds to seconds
        assert time.perf_counter() - sent < 1
        status, _, errors = finish(process)
        assert status == 0, errors
    finally:
        process.kill()  # it would train for ever


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("case", ["small", "large", "lbfgs"])
def test_ctrl_c_returns_within_a_second(case, tmp_path):
    process = start_python(INTERRUPTED, tmp_path, CASE=case)
    interrupt(process, 2)  # in the middle of the fit


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    "several",
    [
        "fit_many([Watched(**params) for _ in range(5)], X, y, n_jobs=2)",
        "GridSearchCV(Watched(**params), {'alpha': [1, 2, 3]}, n_jobs=2).fit(X, y)",
    ],
)
def test_ctrl_c_ends_the_fits_of_other_threads(several, tmp_path):
    code = (
        ENDLESS
        + f"""
import threading, time
from fastbp import GridSearchCV, fit_many
model, X, y = CASES["small"]()
params = {{**model.get_params(), "n_jobs": 1}}
running = []

class Watched(MLPRegressor):
    def _fit_checked(self, *args, **kwargs):
        running.append(self)
        try:
            return super()._fit_checked(*args, **kwargs)
        finally:
            running.remove(self)

MLPRegressor(**{{**params, "max_iter": 1}}).fit(X, y)  # compiles
print("ready", flush=True)
try:
    {several}
except KeyboardInterrupt:
    print("back", flush=True)
begun = time.monotonic()
while running and time.monotonic() < begun + 60:  # they would train for days
    time.sleep(0.01)
assert not running
"""
    )
    process = start_python(code, tmp_path)
    interrupt(process, 2)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_while_it_compiles_returns_within_a_second(tmp_path):
    code = (
        ENDLESS
        + """
print("ready", flush=True)
model, X, y = CASES["small"]()
model.max_iter = 2
try:
    model.fit(X, y)
    assert model.n_iter_ == 0
except KeyboardInterrupt:  # before it came to the training
    assert not hasattr(model, "coefs_")
print("back", flush=True)
assert model.fit(X, y).n_iter_ == 2  # needs what was being compiled
"""
    )
    process = start_python(code, tmp_path, FASTBP_CACHE="0")
    interrupt(process, 4)  # in the import of Numba, or in the compilation


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_again_and_again_at_any_time(tmp_path):
    # while it imports, compiles or loads, checks, trains, leaves
    run_python(
        """
        import random, signal, threading, time
        from fastbp import MLPClassifier
        X, y = data(300, 20)
        random.seed(0)
        over, fitting = threading.Event(), False

        def interrupt():
            while not over.wait(random.uniform(0, 0.05)):
                os.kill(os.getpid(), signal.SIGINT)

        def handle(*args):
            if fitting:
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, handle)
        thread = threading.Thread(target=interrupt)
        thread.start()
        for _ in range(60):
            try:
                fitting = True
                MLPClassifier((30,), max_iter=20, random_state=0).fit(X, y).predict(X)
                fitting = False
            except KeyboardInterrupt:
                fitting = False
        over.set()
        thread.join()
        assert same(fit(n_jobs=1), fit())
        """,
        tmp_path,
    )


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_sigterm_ends_the_process(tmp_path):
    process = start_python(INTERRUPTED, tmp_path, CASE="large")
    assert process.stdout.readline() == "ready\n", finish(process)[2]
    time.sleep(1)
    process.terminate()
    assert finish(process, timeout=20)[0] == -signal.SIGTERM


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_handler_of_sigterm_can_end_the_fit(tmp_path):
    # as of a server that shuts down: whatever the handler raises comes out of fit,
    # and the estimator is as it was before
    code = (
        ENDLESS
        + """
import signal
model, X, y = CASES["large"]()
fresh = MLPRegressor(max_iter=1).fit(X[:300], y[:300])
signal.signal(signal.SIGTERM, lambda *args: sys.exit(7))
print("ready", flush=True)
try:
    model.fit(X, y)
finally:
    assert not hasattr(model, "coefs_")
"""
    )
    process = start_python(code, tmp_path)
    assert process.stdout.readline() == "ready\n", finish(process)[2]
    time.sleep(1)
    process.terminate()
    assert finish(process, timeout=20)[0] == 7


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@forks
def test_a_grandchild_fits_after_a_parallel_fit(tmp_path):
    run_python(
        """
        import signal
        from fastbp import kernels
        expected, (X, _) = fit(), data()
        kernels.dense_forward(X, expected.coefs_[0], expected.intercepts_[0])
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            if grandchild == 0:
                signal.alarm(100)  # whoever hangs ends by SIGALRM
                A = kernels.dense_forward(X, expected.coefs_[0], expected.intercepts_[0])
                os._exit(0 if same(fit(), expected) and len(A) == 600 else 1)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) & 255)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
        tmp_path,
    )


@forks
def test_a_pool_of_forked_processes_after_a_parallel_fit(tmp_path):
    run_python(
        """
        import multiprocessing
        if __name__ == "__main__":
            expected = fit()
            with multiprocessing.get_context("fork").Pool(2) as pool:
                models = pool.map_async(fit, [None, 1, 2, None]).get(timeout=120)
            assert all(same(model, expected) for model in models)
        """,
        tmp_path,
    )


SEARCH = """
import joblib
from fastbp import MLPClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score

def scores(n_jobs, backend):
    X, y = data(400, 30)
    model = MLPClassifier((40,), max_iter=5, random_state=0)
    with joblib.parallel_config(backend, n_jobs=n_jobs):
        search = GridSearchCV(model, {"alpha": [1e-4, 1.0]}, cv=3).fit(X, y)
        return (
            *search.cv_results_["mean_test_score"],
            *cross_val_score(model, X, y, cv=3, scoring="neg_log_loss"),
            *search.best_estimator_.loss_curve_,
        )

if __name__ == "__main__":
    print(scores(1, "sequential") == scores(2, os.environ["BACKEND"]))
"""


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_searches_in_parallel_give_the_same_bits(backend, tmp_path):
    assert run_python(SEARCH, tmp_path, BACKEND=backend).split() == ["True"]


NESTED = """
from fastbp import MLPClassifier
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV

def search(n_jobs):
    model = MLPClassifier((150, 150), max_iter=30, batch_size=200, random_state=0)
    bagging = BaggingClassifier(model, n_estimators=4, n_jobs=n_jobs, random_state=0)
    search = GridSearchCV(bagging, {"max_samples": [0.5, 1.0]}, cv=2, n_jobs=n_jobs)
    return search.fit(*data(12000, 200)).cv_results_["mean_test_score"].tolist()

if __name__ == "__main__":
    fit()  # so that all is compiled
    print("ready", flush=True)
    print(search(2), flush=True)
    open(os.environ["DONE"], "w").close()
    print(search(1), flush=True)
"""


def running_threads(session):
    """Threads of all processes of a session that run, or would if there were a core."""
    running = 0
    for stat in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        running += fields[3] == str(session) and fields[0] == "R"
    return running


@pytest.mark.slow  # counts runnable threads: ``.ci/run`` has it alone on the machine
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Linux only")
def test_nested_parallelism_has_no_more_running_threads_than_cores(tmp_path):
    done = tmp_path / "done"
    process = start_python(NESTED, tmp_path, new_session=True, DONE=str(done))
    assert process.stdout.readline() == "ready\n", finish(process)[2]
    counts = []
    while not done.exists() and process.poll() is None:
        counts.append(running_threads(process.pid))
        time.sleep(0.02)
    status, output, errors = finish(process)
    assert status == 0, errors
    parallel, serial = output.splitlines()
    assert parallel == serial
    # joblib starts and ends processes and moves data, and predictions do not wait: in a
    # quarter of the looks there are more; in two thirds if fits do not take turns
    assert statistics.median(counts) <= joblib.cpu_count(), sorted(counts)


def test_many_refits_do_not_grow(tmp_path):
    pytest.importorskip("resource")
    run_python(
        """
        from fastbp import MLPClassifier

        def resident():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

        X, y = data(500, 100)
        model = MLPClassifier((60,), max_iter=2, random_state=0)
        for fit in range(520):
            model.fit(X, y).predict(X)
            model.partial_fit(X[:100], y[:100], classes=np.arange(10)).predict(X[:1])
            if fit == 19:
                before = resident()
        # a leak of one copy of X, or of the weights and moments, in each fit would be
        # 100 or 40 MB; what the allocator keeps varies by a few
        assert resident() - before < 8, (before, resident())
        """,
        tmp_path,
    )


def test_a_million_rows_need_the_memory_of_one_batch(tmp_path):
    # beyond the data: labels and their checks, and two orders of the rows (README)
    run_python(
        """
        import resource
        from fastbp import MLPClassifier
        n, n_features = 10**6, 30
        X = np.random.RandomState(0).standard_normal((n, n_features))
        y = np.arange(n) % 5
        model = MLPClassifier((20,), max_iter=1, batch_size=1000, random_state=0)
        model.fit(X[:1000], y[:1000])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        model.fit(X, y)
        beyond = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert beyond * 1024 < 100 * n, beyond  # X has 240 bytes a row
        """,
        tmp_path,
    )
