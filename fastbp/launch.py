"""The one gate to native code: on how many threads a call runs, and beside which others.

The number of threads never changes a result, only the time it takes. A call may use as
many as the smallest of

- ``n_jobs``: None and -1 set no limit of their own, -2 leaves one core free;
- the processors that this process may use, as joblib counts them: its affinity mask, and
  the quota of a container (cgroups);
- ``NUMBA_NUM_THREADS``, and ``numba.set_num_threads`` in the calling thread;
- ``OMP_NUM_THREADS``, which joblib's and dask's processes are given so that all of them
  together have a thread for each core;
- ``threadpoolctl.threadpool_limits``, for OpenMP, in the calling thread;
- 1 in a process that was forked from this one: pools of processes use the cores.

Within this limit a call takes what other calls of this process leave, those under way and
those that threads which have just called are about to make: two fits in two threads on
two cores have one thread each. It goes alone when it is too small to share.
Fits in more threads than cores take turns, a slice of an epoch each; so they do in one of
joblib's processes, which together have a thread for each core. Predictions do not wait.

The threads are fastbp's own (``fastbp.threads``): they survive a fork, work from any
thread, and nobody waits for one that the system has descheduled. Numba's threading layer
is used by nothing but users' own ``@njit`` code that calls ``fastbp.kernels``.
"""

import functools
import multiprocessing
import os
import threading
import time
import weakref
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np

from fastbp import cache

#: Flops a second, two for a multiply-add, that one core is assumed to reach at least.
_FLOPS = {4: 50e9, 8: 25e9}


#: In a thread whose work may become worthless: set when it has. Ctrl-C reaches the main
#: thread only, and so do errors of other fits.
abandoned: ContextVar[threading.Event | None] = ContextVar("abandoned", default=None)


class AbandonedError(BaseException):
    """Nobody wants the result of this thread's work any more."""


class _Call:
    """A native call that is under way or waits, as the context of its making.

    Parameters
    ----------
    wanted : int
        Threads that it could use.
    waits : bool
        Whether it waits for a free core, and for its turn.

    Attributes
    ----------
    threads : int
        Those that it has.
    """

    def __init__(self, wanted: int, waits: bool):
        self.wanted, self.waits = wanted, waits
        self.threads = 1
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def __enter__(self) -> int:
        worthless = abandoned.get()
        if worthless is not None and worthless.is_set():
            raise AbandonedError
        try:
            with _counting:
                _ended.pop(threading.get_ident(), None)
                begun = _begin(self, self.waits)
                if not begun:
                    _queue.append(weakref.ref(self))
            if not begun:
                self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self.threads

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        begun = False
        while not begun:
            left = max(0.0, deadline - time.monotonic())
            in_time = self._asleep.acquire(timeout=left)
            with _counting:
                begun = _begin(self, in_time)

    def wake(self) -> None:
        """End its sleep, or the next one."""
        if self._asleep.locked():
            self._asleep.release()

    def __exit__(self, *error: object) -> None:
        with _counting:
            _calls.discard(self)
            _ended[threading.get_ident()] = time.monotonic()
            for place in _queue:
                if (other := place()) is not None:
                    other.wake()


# The native calls of this process, and those that wait for their turn; weak, so that none
# is counted for ever when Ctrl-C comes between two lines. An RLock is entered and left in
# one piece; threading.Condition is not, and would stay locked.
_calls: weakref.WeakSet[_Call] = weakref.WeakSet()
_queue: list[weakref.ref[_Call]] = []
_counting = threading.RLock()
# When the threads that have called ended their last calls, by their numbers.
_ended: dict[int, float] = {}
#: Seconds for which a thread that has called is expected to call again: what Python does
#: between two calls of a fit, or between two fits of a search.
_SOON = 0.03
#: Seconds that a call waits for its turn at most, so that nothing can wait for ever.
_PATIENCE = 1.0
_forked = False


def _after_fork() -> None:
    global _calls, _queue, _counting, _ended, _forked
    _calls, _queue, _counting = weakref.WeakSet(), [], threading.RLock()
    _ended, _forked = {}, True
    _cores.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class TileShape(NamedTuple):
    """The register tiles and panels of this machine for one dtype."""

    lanes: int  # elements of a register
    rows: int
    panel: int  # columns of a panel
    depth: int  # a product of more terms may be summed in parts


@functools.cache
def tile_shape(dtype: np.dtype) -> TileShape:
    """The shapes that the kernels use for ``dtype``."""
    return cache.unbroken(_tile_shape, dtype)


def _tile_shape(dtype: np.dtype) -> TileShape:
    from fastbp.kernels import gemm, simd

    lanes = simd.lanes(dtype)
    return TileShape(lanes, gemm.TILE_ROWS, gemm.panel_elements(lanes), gemm.DEPTH)


@functools.cache
def _cores() -> int:
    """Processors that this process may use; asked once, as it reads several files."""
    import joblib

    return joblib.cpu_count()


def thread_limits(n_jobs: int | None = None) -> dict[str, int]:
    """What limits the threads of a call, and to how many; see the top of this module."""
    import joblib
    import numba
    from numba.np.ufunc import parallel
    from sklearn.utils import _openmp_helpers as openmp

    limits = {
        "processors": _cores(),
        "NUMBA_NUM_THREADS": numba.config.NUMBA_NUM_THREADS,
    }
    if parallel._is_initialized:  # asking for a mask would launch the threading layer
        limits["numba.set_num_threads"] = numba.get_num_threads()
    if openmp._openmp_parallelism_enabled():  # where threadpoolctl sets its limit
        n_threads = openmp._openmp_effective_n_threads(only_physical_cores=False)
        limits["OpenMP"] = n_threads
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        limits["OMP_NUM_THREADS"] = int(os.environ["OMP_NUM_THREADS"])
    if n_jobs is not None and n_jobs != -1:
        limits["n_jobs"] = joblib.effective_n_jobs(n_jobs)
    if _forked:
        limits["forked"] = 1
    return limits


def thread_limit(n_jobs: int | None = None) -> int:
    """How many threads a fit or prediction may use; see the top of this module."""
    return max(1, min(thread_limits(n_jobs).values()))


def _free() -> int:
    """Threads that the calls under way leave of those that this process may have."""
    import numba

    most = min(_cores(), numba.config.NUMBA_NUM_THREADS)
    return most - sum(call.threads for call in _calls) if _calls else most


def _coming() -> int:
    """Threads that have just called, and are expected to call again."""
    recently = time.monotonic() - _SOON
    for thread in [thread for thread, ended in _ended.items() if ended < recently]:
        del _ended[thread]
    return len(_ended)


def _begin(call: _Call, waits: bool) -> bool:
    """Whether the call may begin, or, if it ``waits``, does not have to wait.

    It then has its threads, one at least, but leaves one for each that waits or comes.
    """
    waiting = [other for place in _queue if (other := place()) is not None]
    free = 1 if _forked else _free()
    if waits and (free < 1 or (waiting and waiting[0] is not call)):
        return False
    waiting = [other for other in waiting if other is not call]
    _queue[:] = map(weakref.ref, waiting)
    call.threads = max(1, min(call.wanted, free - len(waiting) - _coming()))
    _calls.add(call)
    for other in waiting:  # there may be a core for the next one too
        other.wake()
    return True


def threads_for_call(n_threads: int, waits: bool = False) -> _Call:
    """A context: threads that a call gets of the ``n_threads`` it could use.

    It gets one at least, if it ``waits`` when one is free and it is its turn.
    """
    return _Call(n_threads, waits)


def serial_seconds(flops: float, dtype: np.dtype) -> float:
    """Seconds that ``flops`` should take at most on one thread."""
    return flops / _FLOPS[dtype.itemsize]


def threading_layer() -> str:
    """The name of Numba's threading layer. Asking launches it."""
    import numba

    # launching Numba's threads asks for multiprocessing's start method, and so fixes it
    unset = multiprocessing.get_start_method(allow_none=True) is None
    try:
        numba.get_num_threads()
    finally:
        if unset:
            multiprocessing.set_start_method(None, force=True)
    return numba.threading_layer()
