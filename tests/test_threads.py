"""The team of threads of a fit, and the pace of its calls."""

import multiprocessing
import os
import sys
import threading
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits

from fastbp import MLPClassifier, cache, launch, network, threads
from fastbp.aside import Aside, Pool
from fastbp.tables import DONE, GRADIENT, LEFT, OPTIMIZER, STOP

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

PARAMETERS = {"hidden_layer_sizes": (150,), "max_iter": 3, "random_state": 0}


@pytest.fixture(autouse=True)
def no_earlier_neighbour(monkeypatch):
    monkeypatch.setattr(threads.Pace, "_retry_at", 0.0)
    monkeypatch.setattr(threads.Pace, "_share", 1.0)


@pytest.fixture
def two_threads(monkeypatch):
    """Fits may have two threads, however few processors there are."""
    monkeypatch.setattr(launch, "thread_limit", lambda n_jobs=None: n_jobs or 2)
    monkeypatch.setattr(launch, "_free", lambda: 2)


def fit(n_jobs=None):
    return MLPClassifier(**PARAMETERS, n_jobs=n_jobs).fit(*load_digits(return_X_y=True))


def assert_same_bits(a, b):
    assert a.loss_curve_ == b.loss_curve_
    for one, other in zip(a.coefs_, b.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(threads.time, "perf_counter", clock)
    return clock


def test_pace_goes_on_alone_when_threads_slow_each_other_down(clock):
    pace = threads.Pace(limit=2, seconds_per_step=1e-4)
    assert pace.next() == (2, 1)
    pace.record(7e-3)  # may have been cold: tried once more
    assert pace.next()[0] == 2
    pace.record(7e-3)
    assert pace.next() == (1, 1)
    pace.record(1e-4)
    n_threads, steps = pace.next()
    assert n_threads == 1
    assert steps == int(threads.Pace._CALL / 1e-4)


def test_pace_returns_to_all_threads_when_the_neighbour_has_gone(clock):
    pace = threads.Pace(limit=2, seconds_per_step=1e-4)
    for seconds in (7e-3, 7e-3, 1e-4):
        pace.next()
        pace.record(seconds)
    clock.now += 2 * threads.Pace._RETRY
    assert pace.next() == (2, 1)
    pace.record(2e-4)  # the first step always takes longer: a helper is on its way
    n_threads, steps = pace.next()
    assert n_threads == 2
    assert steps == int(threads.Pace._TRIAL / 2e-4)
    pace.record(6e-5)
    assert pace.next() == (2, int(threads.Pace._CALL / 6e-5))


def test_a_first_step_that_took_very_long_does_not_decide(clock):
    # as when a thread had to be started, or something to be imported
    pace = threads.Pace(limit=2, seconds_per_step=1e-4)
    pace.next()
    pace.record(6e-3)
    assert pace.next() == (2, threads.Pace._TRIAL_STEPS)
    # but nothing takes longer than other calls do
    pace.record(6e-5)
    pace.record(2e-2)
    assert pace.next() == (2, int(threads.Pace._CALL / 2e-2))


def test_long_steps_alone_are_many_before_a_retry(clock):
    # as those of L-BFGS on many rows, which would be tried again after each
    pace = threads.Pace(limit=2, seconds_per_step=1.0)
    for _ in range(2):
        pace.next()
        pace.record(1.5)
    alone = 0
    while pace.next()[0] == 1:
        clock.now += 1.0
        pace.record(1.0)
        alone += 1
    assert alone == threads.Pace._RETRY_STEPS


def test_a_retry_beside_a_neighbour_takes_milliseconds(clock):
    pace = threads.Pace(limit=2, seconds_per_step=1e-4)
    for seconds in (7e-3, 7e-3, 1e-4):
        pace.next()
        pace.record(seconds)
    for _ in range(3):
        clock.now += 2 * threads.Pace._RETRY
        tried = 0.0
        while (step := pace.next())[0] == 2:
            tried += 3e-4 * step[1]
            pace.record(3e-4)
        assert tried <= threads.Pace._TRIAL + 3e-4
        assert step == (1, int(threads.Pace._CALL / 1e-4))


def test_fits_in_a_row_remember_the_busy_neighbour(clock):
    pace = threads.Pace(limit=2, seconds_per_step=1e-4)
    for _ in range(2):
        pace.next()
        pace.record(7e-3)
    assert threads.Pace(limit=2, seconds_per_step=1e-4).next()[0] == 1
    clock.now += 2 * threads.Pace._RETRY
    assert threads.Pace(limit=2, seconds_per_step=1e-4).next()[0] == 2


def threads_after(*seconds):
    """Of a new fit whose steps, 1e-4 s at most if alone, took so long on two threads."""
    pace = threads.Pace(limit=2, seconds_per_step=1e-4)
    for took in seconds:
        assert pace.next()[0] == 2
        pace.record(took)
    return pace.next()[0]


def test_fits_beside_a_neighbour_know_how_fast_steps_alone_were(clock):
    assert threads_after(8e-5, 8e-5) == 2  # as far as it can know
    pace = threads.Pace(limit=2, seconds_per_step=2e-4)
    for seconds in (7e-3, 7e-3, 1e-4):  # the last alone: half of what it may take
        pace.next()
        pace.record(seconds)
    for _ in range(2):
        clock.now += 2 * threads.Pace._RETRY
        assert threads_after(8e-5, 8e-5) == 1
        # of this one nobody knows: Ctrl-C shall not wait for it if it is long
        assert threads.Pace(limit=2, seconds_per_step=1.0).expects(1) == 1.0
    clock.now += 2 * threads.Pace._RETRY
    assert threads_after(4e-5, 8e-5) == 2  # the neighbour has gone
    assert threads_after(8e-5, 8e-5) == 2


def test_steps_too_small_to_share_are_taken_alone():
    assert threads.Pace(limit=2, seconds_per_step=1e-7).next()[0] == 1


def test_changing_threads_between_calls_does_not_change_the_result(
    two_threads, monkeypatch
):
    steady, turns = fit(), iter(range(10**6))
    monkeypatch.setattr(threads.Pace, "next", lambda self: (1 + next(turns) % 2, 2))
    assert_same_bits(fit(), steady)


def test_the_look_at_the_last_weights_has_helpers_of_its_own(two_threads, monkeypatch):
    # those of the training would go on with an update of the weights
    call, helpers = threads.Team.call, []

    def watched(self, args, *others):
        if args[4]["kind"][0] == GRADIENT:
            helpers.append(dict(self._helpers))
        return call(self, args, *others)

    X, y = load_digits(return_X_y=True)
    alone = MLPClassifier(**PARAMETERS, n_jobs=1).fit(X, y)
    monkeypatch.setattr(threads.Team, "call", watched)
    monkeypatch.setattr(threads.Pace, "next", lambda self: (2, 1000))
    model = MLPClassifier(**PARAMETERS, restore_best_weights=True).fit(X, y)
    assert helpers == [{}]
    assert_same_bits(model, alone)  # the last are the best here


class Unwilling:
    """A pool whose threads never come."""

    def __init__(self):
        self.asked = 0

    def submit(self, *args):
        self.asked += 1


def test_nobody_waits_for_helpers_that_never_come(two_threads, monkeypatch):
    alone, pool = fit(n_jobs=1), Unwilling()
    monkeypatch.setattr(threads, "_pool", lambda: pool)
    monkeypatch.setattr(threads.Pace, "next", lambda self: (2, 2))
    monkeypatch.setattr(threads.Pace, "expects", lambda self, steps: 0.0)  # own driver
    assert_same_bits(fit(), alone)
    assert pool.asked == 1


def test_a_fit_goes_on_alone_when_no_thread_can_be_started(monkeypatch):
    class Full:
        def submit(self, *args):
            raise RuntimeError("can't start new thread")

    alone = fit(n_jobs=1)
    monkeypatch.setattr(threads, "_pool", Full)
    monkeypatch.setattr(threads.Pace, "next", lambda self: (2, 2))
    assert_same_bits(fit(), alone)


def test_nobody_waits_for_a_helper_that_has_failed(monkeypatch):
    # as of an access out of bounds, while its task keeps the driver waiting
    def program(state, workers, worker):
        if worker > 0:
            raise IndexError("out of bounds")
        while state[DONE] < 1:
            time.sleep(0.001)

    monkeypatch.setattr(cache, "ready", lambda *args: program)
    monkeypatch.setattr(launch, "_free", lambda: 2)
    state = threads.team_state(1)
    team = threads.Team("train_steps", np.dtype(np.float64), state)
    with pytest.raises(IndexError, match="out of bounds"):
        team.call((state,), 2)
    team.dismiss()


class Late:
    """A pool that says that it has no thread, and has one after all."""

    def submit(self, work):
        threading.Timer(0.01, work).start()
        raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("expected", [0.0, 1.0])  # seconds: with and without attendance
def test_threads_that_come_too_late_do_not_work(expected, monkeypatch):
    # a step that two take in the name of one would be taken twice
    alone = fit(n_jobs=1)
    monkeypatch.setattr(threads, "_pool", Late)
    monkeypatch.setattr(threads.Pace, "next", lambda self: (2, 2))
    monkeypatch.setattr(threads.Pace, "expects", lambda self, steps: expected)
    for _ in range(5):
        assert_same_bits(fit(), alone)


def test_an_interrupted_call_waits_for_its_driver(monkeypatch):
    # or fit would go on with weights that are still being written
    plan, args = small_team()
    left = threading.Event()

    def program(*arguments):
        while args[2].team[STOP] == 0:
            time.sleep(0.001)
        time.sleep(0.05)
        left.set()

    def interrupted(self):
        while not self._taker:  # until it has begun
            time.sleep(0.001)
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "ready", lambda *args: program)
    team = threads.Team("train_steps", plan.dtype, args[2].team)
    monkeypatch.setattr(Aside, "outcome", interrupted)
    with pytest.raises(KeyboardInterrupt):
        team.call(args, 1, expected=1.0)
    assert left.is_set()
    assert args[2].team[STOP] == 0


def test_helpers_leave_when_the_fit_is_over(two_threads, monkeypatch):
    helpers = []
    dismiss = threads.Team.dismiss

    def watched(self):
        helpers.extend(self._helpers.values())
        dismiss(self)

    monkeypatch.setattr(threads.Team, "dismiss", watched)
    monkeypatch.setattr(threads.Pace, "next", lambda self: (2, 2))
    fit()
    assert helpers
    assert all(helper.finished or helper.withdraw() for helper in helpers)


def test_a_team_can_be_dismissed_again_when_that_was_interrupted(monkeypatch):
    # one that nobody has begun, and one that takes its time to leave
    begun, leaves = threading.Event(), threading.Event()
    team = threads.Team("train_steps", np.dtype(np.float64), threads.team_state())
    queued = Aside(lambda: None)
    slow = Aside(lambda: begun.set() or leaves.wait(timeout=60))
    assert queued.start(Unwilling())
    assert slow.start(Pool(1, "one thread"))
    assert begun.wait(timeout=60)
    team._helpers = {1: queued, 2: slow}

    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Aside, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            team.dismiss()
    leaves.set()
    team.dismiss()
    assert slow.finished
    assert not queued.finished
    assert not team._helpers


def test_helpers_leave_a_team_that_is_idle(two_threads):
    # the state of a team between two calls: no task left, nobody dismissed
    plan, args = small_team()
    team = threads.Team("train_steps", plan.dtype, args[2].team, waits=True)
    team.call(args, 2)
    assert team._helpers
    for helper in team._helpers.values():
        helper.wait()
    team.dismiss()


@pytest.mark.skipif(launch._cores() < 2, reason="its caller needs the only processor")
def test_a_helper_that_has_left_is_replaced_before_python_hears_of_it(monkeypatch):
    # it may not come to say so while the caller's Python works, as between two epochs
    monkeypatch.setattr(launch, "_free", lambda: 2)
    monkeypatch.setattr(threads, "_here", lambda: None)  # it may avoid a busy processor
    plan, args = small_team()
    state, interval = args[2].team, sys.getswitchinterval()
    team = threads.Team("train_steps", plan.dtype, state, waits=True)
    unheard = False
    for _ in range(200):
        team.call(args, 2)
        first = team._helpers[1]
        sys.setswitchinterval(60)  # nobody else gets to run Python
        try:
            end = time.perf_counter() + 0.1  # time to leave, if it has come
            while not state[LEFT] and time.perf_counter() < end:
                pass
            unheard = bool(state[LEFT]) and not first.finished
            if unheard:
                team.call(args, 2)
                break
        finally:
            sys.setswitchinterval(interval)
    assert unheard
    assert first.finished
    assert team._helpers[1] is not first
    team.dismiss()


def test_a_helper_stays_for_a_driver_that_is_on_its_way(monkeypatch):
    # looked for, found there, and gone by the time the driver opens its first region
    plan, args = small_team()
    native = cache.ready("train_steps", plan.dtype, (*args, 2, 0))
    state, left = args[2].team, []

    def program(*args):
        if args[-1] == 0:
            time.sleep(0.1)  # many times as long as a helper's patience
            left.append(int(state[LEFT]))
        native(*args)

    monkeypatch.setattr(cache, "ready", lambda *args: program)
    monkeypatch.setattr(launch, "_free", lambda: 2)
    team = threads.Team("train_steps", plan.dtype, state, waits=True)
    for _ in range(2):
        team.call(args, 2)
    team.dismiss()
    assert left == [0, 0]


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="threads have no choice of processors here",
)
def test_a_helper_keeps_off_the_processor_of_its_caller(monkeypatch):
    everywhere, seen = os.sched_getaffinity(0), []

    def program(state, workers, worker):
        if worker == 1:
            seen.append(os.sched_getaffinity(0))

    monkeypatch.setattr(cache, "ready", lambda *args: program)
    monkeypatch.setattr(launch, "_free", lambda: 2)
    pool = Pool(1, "one thread")
    monkeypatch.setattr(threads, "_pool", lambda: pool)
    pool.submit(lambda: None)  # the thread begins with the processors of this one
    state, here = threads.team_state(1), min(everywhere)
    team = threads.Team("train_steps", np.dtype(np.float64), state)
    os.sched_setaffinity(0, {here})  # where the caller is then for certain
    try:
        team.call((state,), 2)
        team._helpers[1].wait()
    finally:
        os.sched_setaffinity(0, everywhere)
    assert seen == [everywhere - {here}]
    afterwards = Aside(os.sched_getaffinity, 0)
    afterwards.start(pool)
    assert afterwards.outcome() == everywhere


@pytest.mark.parametrize("worker", [0, 1])
def test_a_team_that_is_stopped_takes_no_step(worker):
    plan, args = small_team()
    theta, taken = args[1][0], args[-1]
    before = theta.copy()
    args[2].team[STOP] = 1
    program = cache.ready("train_steps", plan.dtype, (*args, 2, worker))
    program(*args, 2, worker)
    assert taken[0] == 0
    np.testing.assert_array_equal(theta, before)
    args[2].team[STOP] = 0
    program(*args, 1, 0)
    assert taken[0] == 2


def test_a_step_that_is_stopped_before_it_writes_is_given_up():
    plan, args = small_team(batch=10_000)
    theta, team, losses, taken = args[1][0], args[2].team, *args[-2:]
    program = cache.ready("train_steps", plan.dtype, (*args, 1, 0))
    before, given_up = theta.copy(), False
    for _ in range(100):  # a step of some ms, which may be over before it is stopped
        team[DONE] = 0
        step = threading.Thread(target=program, args=(*args, 1, 0))
        step.start()
        while step.is_alive() and team[DONE] == 0:
            time.sleep(0)
        team[STOP] = 1
        step.join()
        team[STOP] = 0
        given_up = taken[0] == 0 and team[DONE] > 0
        if given_up:
            break
        theta[:], losses[:], taken[:] = before, 0.0, 0
    assert given_up
    assert losses[0] == 0
    np.testing.assert_array_equal(theta, before)


def small_team(batch=50):
    """A network's layout and the arguments of ``train_steps`` to train it."""
    rng = np.random.default_rng(0)
    plan = network.layout((5, 40, 1), "relu", "identity", np.dtype(np.float64))
    coefs = [rng.standard_normal(shape) for shape in ((5, 40), (40, 1))]
    theta = network.pack(plan, coefs, [np.zeros(40), np.zeros(1)])
    parameters = (theta, *(network.aligned_zeros(theta.size, "f8") for _ in range(2)))
    X, y = rng.standard_normal((2 * batch, 5)), rng.standard_normal(2 * batch)
    data = network.training_data(plan, X, y, None, np.arange(2 * batch))
    work = network.training_workspace(plan, batch, 2, coefs)
    optimizer = np.zeros(1, OPTIMIZER)
    optimizer["epsilon"] = 1e-3
    args = (plan.net, parameters, work, data, optimizer)
    taken = np.zeros(1, np.int64)
    return plan, (*args, (0, 2), batch, np.full(2, 1e-3), np.zeros(2), taken)


def test_fits_in_many_threads_at_once_give_the_same_bits():
    alone, models = fit(n_jobs=1), []
    workers = [threading.Thread(target=lambda: models.append(fit())) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert len(models) == 8
    for model in models:
        assert_same_bits(model, alone)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork here"
)
def test_a_forked_process_fits_after_a_parallel_fit(monkeypatch):
    monkeypatch.setattr(threads.Pace, "next", lambda self: (2, 2))
    alone = fit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of forks with threads around
        with multiprocessing.get_context("fork").Pool(2) as pool:
            models = pool.map_async(fit, [None, 2]).get(timeout=120)
    for model in models:
        assert_same_bits(model, alone)


def test_fit_needs_the_memory_of_one_batch_beside_data_and_parameters():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20_000, 100)), rng.integers(0, 5, 20_000)
    model = MLPClassifier((200, 150), max_iter=1, batch_size=500, random_state=0)
    model.fit(X[:1000], y[:1000])  # compiles and imports
    tracemalloc.start()
    try:
        model.fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    units = (100, 200, 150, 5)
    plan = network.layout(units, "relu", "softmax", X.dtype)
    # weights as initial, final and packed arrays, two moments, one transposed copy
    parameters = 6 * plan.n_parameters * 8
    workers = launch.thread_limit()
    work = network.training_workspace(plan, 500, workers, model.coefs_)
    batch = sum(array.nbytes for array in work if isinstance(array, np.ndarray))
    per_row = 100 * len(X)  # labels, orders and the checks of both: no copy of X (800)
    assert peak < parameters + batch + per_row + 500_000
