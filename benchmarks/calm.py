"""Timings begin when the machine gives what it has, as a shared one does not always.

The processors of a virtual machine may have half their speed for tenths of a second, or
be far from each other on the host, while inside it nothing else runs. The rate of
multiply-adds in registers tells the first, as caches and memory have no part in it, and
how long a word takes from one thread to another the second. The gate does not know who is
to be timed.
"""

import math
import time

import numpy as np

from benchmarks import peak

#: Seconds of a look at the rate, and until the next one.
_LOOK, _PAUSE = 5e-3, 20e-3
#: Share of the best rate seen that is good enough, and how many times the shortest way
#: from thread to thread is.
_ENOUGH, _NEAR = 0.85, 2.0


class Calm:
    """Waits for the processors to be as fast as they have been.

    Parameters
    ----------
    n_threads : int
        Threads that multiply and add at the same time.
    patience : float, default=2.0
        Seconds to wait at most; a timing then begins all the same.
    """

    def __init__(self, n_threads: int, patience: float = 2.0):
        self._n_threads, self._patience = n_threads, patience
        self._best, self._nearest = 0.0, math.inf

    def wait(self) -> bool:
        """Wait; whether the processors are fast."""
        deadline = time.perf_counter() + self._patience
        while True:
            if self._is_fast() and self._is_near():
                return True
            if time.perf_counter() > deadline:
                return False
            time.sleep(_PAUSE)

    def _is_fast(self) -> bool:
        rate = peak.gflops(np.dtype(np.float32), self._n_threads, _LOOK)
        self._best = max(self._best, rate)
        return rate >= _ENOUGH * self._best

    def _is_near(self) -> bool:
        """Asked of fast processors only: two on one core are nearer still, and slow."""
        if self._n_threads == 1:
            return True
        seconds = peak.seconds_to_pass()
        self._nearest = min(self._nearest, seconds)
        return seconds <= _NEAR * self._nearest
