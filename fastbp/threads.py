"""Threads for one native program: a team of helpers, and how many are worth having.

A program (``kernels.programs``) is called by the thread that wants its result, which is
worker 0, and at the same time by helpers from a pool of this process. They share its
tasks, and nobody waits for a helper that holds none (``kernels.team``). Helpers stay in
native code between calls, for about a millisecond, so that a fit of many short epochs
starts them once. There is no OpenMP in this: it works after a fork and in any thread.
"""

import ctypes
import functools
import os
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from fastbp import launch
from fastbp.tables import STOP, TASKS_SHIFT, TEAM_WORDS, TICKET, YIELD

# Held by the one team of this process that has helpers: more would want more cores than
# there are. A forked process has none, as pools of processes use the cores already.
_lock, _forked = threading.Lock(), False


def _after_fork() -> None:
    global _lock, _forked
    _lock, _forked = threading.Lock(), True
    _pool.cache_clear()  # its threads did not survive


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fastbp")


@functools.cache
def _yield_address() -> int:
    """Address of the C function that lets other threads have the processor."""
    if sys.platform == "win32":
        function = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


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
    """

    def __init__(self, name: str, dtype: np.dtype, state: np.ndarray):
        self._name, self._dtype, self._state = name, dtype, state
        self._helpers: dict[int, Future] = {}

    def call(self, args: tuple, n_threads: int) -> float:
        """Call the program on up to ``n_threads`` threads; return the call's seconds.

        All calls of a team must share the arrays that tasks work on. Compilation is
        not timed.
        """
        program = launch.ready(self._name, self._dtype, (*args, n_threads, 0))
        if n_threads > 1 and not _forked and _lock.acquire(blocking=False):
            try:
                self._call_helpers(program, args, n_threads)
                return _timed(program, (*args, n_threads, 0))
            finally:
                _lock.release()
        self.dismiss()
        return _timed(program, (*args, 1, 0))

    def _call_helpers(self, program: Any, args: tuple, n_threads: int) -> None:
        if len(self._helpers) >= n_threads:
            self.dismiss()
        for worker in range(1, n_threads):
            helper = self._helpers.get(worker)
            if helper is None or helper.done():
                arguments = (*args, n_threads, worker)
                try:
                    self._helpers[worker] = _pool().submit(program, *arguments)
                except RuntimeError:  # no more threads, or the interpreter is ending
                    return

    def dismiss(self) -> None:
        """Send the helpers away and wait until they have left."""
        self._state[STOP] = 1
        for helper in self._helpers.values():
            if not helper.cancel():
                helper.result()
        self._helpers.clear()
        self._state[STOP] = 0


def _timed(program: Any, args: tuple) -> float:
    started = time.perf_counter()
    program(*args)
    return time.perf_counter() - started


class Pace:
    """How many threads and steps the next call should take, from how the last ones went.

    With another busy process on one of two cores, the system takes a thread away for
    milliseconds at a time, and with it the task that it holds. So when steps on several
    threads are slower than steps on one, the calls go on alone and try the other
    threads again twice a second; so do the fits that begin in the meantime.

    Parameters
    ----------
    limit : int
        Largest number of threads.
    seconds_per_step : float
        What a step should take at most on one thread, until that has been measured.
    """

    #: Seconds of a call: Ctrl-C and a busy neighbour are noticed between calls.
    _CALL = 0.05
    _RETRY = 0.5
    #: Seconds of a step that are worth sharing.
    _WORTH_SHARING = 3e-6

    #: When the threads of this process are to be tried again.
    _retry_at = 0.0

    def __init__(self, limit: int, seconds_per_step: float):
        self._limit = limit if seconds_per_step > self._WORTH_SHARING else 1
        alone = time.perf_counter() < Pace._retry_at
        self._threads = 1 if alone else self._limit
        self._alone = seconds_per_step
        self._measured: dict[int, float] = {}
        self._patience = 2  # slow calls in a row, the first of which may be cold

    def next(self) -> tuple[int, int]:
        """Threads and steps of the next call."""
        if self._threads < self._limit and time.perf_counter() >= Pace._retry_at:
            self._threads, self._patience = self._limit, 1
            self._measured.pop(self._limit, None)
        measured = self._measured.get(self._threads)
        steps = 1 if measured is None else max(1, int(self._CALL / measured))
        return self._threads, steps

    def record(self, seconds_per_step: float) -> None:
        """Take note of how long the steps of the last call took."""
        self._measured[self._threads] = seconds_per_step
        if self._threads == 1:
            self._alone = seconds_per_step
        elif seconds_per_step <= self._alone:
            self._patience = 2
        else:
            self._patience -= 1
            if self._patience == 0:
                self._threads = 1
                Pace._retry_at = time.perf_counter() + self._RETRY
