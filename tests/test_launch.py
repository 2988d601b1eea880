"""The gate: thread counts, the pace of calls, the compile cache."""

import os
import subprocess
import sys
import textwrap
import warnings

import numba
import numpy as np
import pytest
from sklearn.datasets import load_digits

from fastbp import MLPClassifier, launch

FIT = """
import time, warnings
import numpy as np
from fastbp import MLPClassifier, launch
warnings.simplefilter("ignore")
X = np.random.default_rng(0).standard_normal((300, 20))
y = (X[:, 0] > 0).astype(int)
model = MLPClassifier(max_iter=3, random_state=0, n_jobs=1).fit(X, y)
hits = launch._program("train_steps", "<f8", False).stats.cache_hits
print(sum(hits.values()), repr(model.loss_))
"""


def run(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_thread_limit_obeys_n_jobs_and_the_environment(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    everything = launch.thread_limit()
    assert launch.thread_limit(1) == 1
    assert launch.thread_limit(-1) == everything
    assert launch.thread_limit(1000) == everything
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert launch.thread_limit() == 1


def test_thread_mask_is_restored_when_a_program_fails(monkeypatch):
    def fail(*args):
        raise RuntimeError("no")

    monkeypatch.setattr(launch, "_ready", lambda program, args: fail)
    mask = numba.get_num_threads()
    with pytest.raises(RuntimeError, match="no"):
        launch._run_parallel("train_steps", (), np.dtype("f8"), 1)
    assert numba.get_num_threads() == mask


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(launch.time, "perf_counter", clock)
    return clock


def test_pace_goes_on_alone_when_threads_slow_each_other_down(clock):
    pace = launch.Pace(limit=2, seconds_per_step=1e-4)
    assert pace.next() == (2, 1)
    pace.record(7e-3)  # may have been cold: tried once more
    assert pace.next()[0] == 2
    pace.record(7e-3)
    assert pace.next() == (1, 1)
    pace.record(1e-4)
    threads, steps = pace.next()
    assert threads == 1
    assert steps == int(launch.Pace._CALL / 1e-4)


def test_pace_returns_to_all_threads_when_the_neighbour_has_gone(clock):
    pace = launch.Pace(limit=2, seconds_per_step=1e-4)
    for seconds in (7e-3, 7e-3, 1e-4):
        pace.next()
        pace.record(seconds)
    clock.now += 2 * launch.Pace._RETRY
    assert pace.next() == (2, 1)
    pace.record(6e-5)
    assert pace.next()[0] == 2
    # and while the neighbour is there, one slow step a retry is enough
    pace.record(7e-3)
    pace.record(7e-3)
    assert pace.next()[0] == 1
    clock.now += 2 * launch.Pace._RETRY
    pace.next()
    pace.record(7e-3)
    assert pace.next()[0] == 1


def test_changing_threads_between_calls_does_not_change_the_result(monkeypatch):
    X, y = load_digits(return_X_y=True)
    parameters = {"hidden_layer_sizes": (150,), "max_iter": 3, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steady = MLPClassifier(**parameters).fit(X, y)
        turns = iter(range(10**6))
        monkeypatch.setattr(launch.Pace, "next", lambda self: (1 + next(turns) % 2, 2))
        mixed = MLPClassifier(**parameters).fit(X, y)
    assert steady.loss_curve_ == mixed.loss_curve_
    for a, b in zip(steady.coefs_, mixed.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_second_process_loads_the_compiled_program(tmp_path):
    first = run(FIT, NUMBA_CACHE_DIR=str(tmp_path))
    second = run(FIT, NUMBA_CACHE_DIR=str(tmp_path))
    assert first[0] == "0"
    assert second[0] == "1"
    assert first[1] == second[1]

    for damaged in list(tmp_path.rglob("*.nbi")) + list(tmp_path.rglob("*.nbc")):
        damaged.write_bytes(damaged.read_bytes()[:50])
    assert run(FIT, NUMBA_CACHE_DIR=str(tmp_path))[1] == first[1]
    assert run(FIT, NUMBA_CACHE_DIR=str(tmp_path))[0] == "1"
