"""Threads for one native program: a team of helpers, and how many are worth having.

A program (``kernels.programs``) is called by the thread that wants its result, which is
worker 0, and at the same time by helpers from a pool of this process. They share its
tasks, and nobody waits for a helper that holds none (``kernels.team``). Helpers stay in
native code between calls, for a few milliseconds of an idle processor, so that a fit of
many short epochs starts them once. There is no OpenMP in this: it works after a fork and
in any thread.

A helper keeps off the processor of the thread that calls it. With few processors Linux
often wakes it right there, beside an idle one, and where calls are short it can take
until the end of a fit before it moves one of the two.
"""

import contextlib
import ctypes
import functools
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastbp import cache, launch
from fastbp.aside import Aside, Pool
from fastbp.tables import (
    DONE,
    DRIVEN,
    LEFT,
    STOP,
    TASKS_SHIFT,
    TEAM_WORDS,
    TICKET,
    YIELD,
)

#: Seconds of a call in which Ctrl-C must not wait for its end.
_LONG = 0.1
#: More tasks than any region has.
_ALL_DONE = 1 << 62


@functools.cache
def _pool() -> Pool:
    # a helper for each other core, and a driver; one more while a helper is leaving
    return Pool((os.cpu_count() or 1) + 1, "fastbp")


if hasattr(os, "register_at_fork"):  # a pool's threads do not survive
    os.register_at_fork(after_in_child=_pool.cache_clear)


@functools.cache
def _yield_address() -> int:
    """Address of the C function that lets other threads have the processor."""
    if sys.platform == "win32":
        function = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@functools.cache
def _sched_getcpu() -> Any:
    """The C function that tells a thread's processor, where threads can choose theirs."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)


def _here() -> int | None:
    """The processor on which this thread is running, if it could choose another."""
    function = _sched_getcpu()
    return None if function is None else function()


@contextlib.contextmanager
def _off(processor: int | None) -> Iterator[None]:
    """Keep this thread off a processor, if it may run on others."""
    everywhere = set() if processor is None else os.sched_getaffinity(0)
    elsewhere = everywhere - {processor}
    if elsewhere:
        _keep_to(elsewhere)
    try:
        yield
    finally:
        if elsewhere:
            _keep_to(everywhere)


def _keep_to(processors: set[int]) -> None:
    with contextlib.suppress(OSError):  # the system may have taken them away meanwhile
        os.sched_setaffinity(0, processors)


def team_state(tasks: int = 0) -> np.ndarray:
    """State of a team, with a region of so many tasks open."""
    state = np.zeros(TEAM_WORDS, np.int64)
    state[TICKET], state[YIELD] = tasks << TASKS_SHIFT, _yield_address()
    return state


class Team:
    """The calling thread and its helpers, at one program.

    Parameters
    ----------
    name : str
        The program.
    dtype : dtype
    state : ndarray
        The team's state among the program's arguments, from ``team_state``.
    waits : bool, default=False
        Whether calls wait for a free core.
    """

    def __init__(
        self, name: str, dtype: np.dtype, state: np.ndarray, waits: bool = False
    ):
        self._name, self._dtype, self._state = name, dtype, state
        self._waits = waits
        self._program: Any = None
        self._helpers: dict[int, Aside] = {}  # the driver too, if another thread drives
        self._errors: list[BaseException] = []

    def call(self, args: tuple, n_threads: int, expected: float = 0.0) -> float:
        """Call the program on up to ``n_threads`` threads; return the call's seconds.

        All calls of a team must share the arrays that tasks work on. Compilation is
        not timed. A call that is ``expected`` to take long can be interrupted by Ctrl-C
        between two tasks: the program then leaves whole steps behind.
        """
        program = self._program
        if program is None:
            program = cache.ready(self._name, self._dtype, (*args, n_threads, 0))
            self._program = program
        with launch.threads_for_call(n_threads, self._waits) as n_threads:
            try:
                if n_threads > 1:
                    self._call_helpers(program, args, n_threads)
                elif self._helpers:
                    self.dismiss()
                drive = self._attend if _is_long(expected) else _timed
                seconds = drive(program, (*args, n_threads, 0))
            except BaseException:
                self.dismiss()
                raise
        if self._errors:
            raise self._errors[0]
        return seconds

    def _call_helpers(self, program: Any, args: tuple, n_threads: int) -> None:
        # who has not said by now that it leaves stays until the driver goes
        self._state[DRIVEN] = 1
        # one that has left native code cannot tell Python while Python is at work
        if self._state[LEFT] or len(self._helpers) >= n_threads:
            self.dismiss()
        for worker in range(1, n_threads):
            helper = self._helpers.get(worker)
            if helper is None or helper.finished:
                arguments = (*args, n_threads, worker)
                helper = Aside(self._help, program, arguments, _here())
                self._helpers[worker] = helper
                if not helper.start(_pool()):
                    del self._helpers[worker]
                    return

    def _help(self, program: Any, args: tuple, caller_runs_on: int | None) -> None:
        try:
            with _off(caller_runs_on):
                program(*args)
        except BaseException as error:  # of an access out of bounds, if they are checked
            self._errors.append(error)
            self._state[DONE] = _ALL_DONE  # nobody shall wait for its task

    def _attend(self, program: Any, args: tuple) -> float:
        """As ``_timed``, in another thread, so that an exception can reach this one."""
        driver = self._helpers[0] = Aside(_timed, program, args)
        if not driver.start(_pool()):
            del self._helpers[0]
            return _timed(program, args)
        seconds = driver.outcome()
        del self._helpers[0]
        return seconds

    def dismiss(self) -> None:
        """Send everyone away and wait until they have left.

        When an exception comes meanwhile, it is to be called again.
        """
        self._state[STOP] = 1
        for helper in self._helpers.values():
            if not helper.withdraw():
                helper.wait()
        self._helpers.clear()
        self._state[[STOP, LEFT]] = 0


def _is_long(seconds: float) -> bool:
    """Whether the user, whose Ctrl-C the main thread gets, should not wait for it."""
    return seconds > _LONG and threading.current_thread() is threading.main_thread()


def _timed(program: Any, args: tuple) -> float:
    started = time.perf_counter()
    program(*args)
    return time.perf_counter() - started


class Pace:
    """How many threads and steps the next call should take, from how the last ones went.

    With another busy process on one of two cores, the system takes a thread away for
    milliseconds at a time, and with it the task that it holds. So when steps on several
    threads are slower than steps on one, twice in a row, the calls go on alone and try
    the other threads again twice a second; so do the fits that begin in the meantime.
    The first call on several threads is one step, in which helpers may still be on their
    way and the data on another core; when it is slow, some more steps decide.

    Parameters
    ----------
    limit : int
        Largest number of threads.
    seconds_per_step : float
        What a step should take at most on one thread, until that has been measured.
    """

    #: Seconds of a call: Ctrl-C and a busy neighbour are noticed between calls.
    _CALL = 0.05
    #: Seconds of the call that decides after a slow one, and its steps at least.
    _TRIAL, _TRIAL_STEPS = 0.005, 8
    #: Seconds, and steps, after which the other threads are tried again.
    _RETRY, _RETRY_STEPS = 0.5, 20
    #: Slow calls in a row after which steps are taken alone.
    _SLOW_CALLS = 2
    #: Seconds of a step that are worth sharing.
    _WORTH_SHARING = 3e-6

    #: When the threads of this process are to be tried again, and what steps alone took
    #: of what they should at most, if that was needed of late.
    _retry_at, _share = 0.0, 1.0

    def __init__(self, limit: int, seconds_per_step: float):
        self._limit = limit if seconds_per_step > self._WORTH_SHARING else 1
        alone = time.perf_counter() < Pace._retry_at
        self._threads = 1 if alone else self._limit
        self._at_most = seconds_per_step
        self._alone = seconds_per_step * Pace._share
        self._measured: dict[int, float] = {}
        self._patience = self._SLOW_CALLS  # how many more of them

    def next(self) -> tuple[int, int]:
        """Threads and steps of the next call."""
        if self._threads < self._limit and time.perf_counter() >= Pace._retry_at:
            self._threads, self._patience = self._limit, self._SLOW_CALLS
            self._measured.pop(self._limit, None)
        measured = self._measured.get(self._threads)
        if measured is None:
            return self._threads, 1
        steps = int(self._CALL / measured)
        if self._patience == 1:
            steps = min(steps, max(self._TRIAL_STEPS, int(self._TRIAL / measured)))
        return self._threads, max(1, steps)

    def expects(self, steps: int) -> float:
        """How many seconds the call of so many steps may take."""
        alone = self._measured.get(1, self._at_most)
        return steps * self._measured.get(self._threads, alone)

    def record(self, seconds_per_step: float) -> None:
        """Take note of how long the steps of the last call took."""
        self._measured[self._threads] = seconds_per_step
        if self._threads == 1:
            self._alone = seconds_per_step
            if self._limit > 1:
                Pace._share = seconds_per_step / self._at_most
        elif seconds_per_step <= self._alone:
            self._patience, Pace._share = self._SLOW_CALLS, 1.0
        else:
            self._patience -= 1
            if self._patience == 0:
                self._threads = 1
                pause = max(self._RETRY, self._RETRY_STEPS * self._alone)
                Pace._retry_at = time.perf_counter() + pause
