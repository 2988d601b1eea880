"""The machine's own limits: multiply-adds in registers, numbers through memory, and how
soon a thread sees what another one wrote."""

import math
import os
import threading
import time

import numpy as np
from numba import njit

from fastbp.kernels import simd, team
from fastbp.kernels.simd import fma, lanes_of, vload, vstore

_CHAINS = 12  # independent sums: two units of four cycles' latency need eight
_STEPS = 20_000
_PASSES = 10_000


@njit(error_model="numpy", nogil=True)
def _multiply_add(a, steps):
    n = lanes_of(a)  # the sums start at numbers that the compiler cannot know to be equal
    x = vload(a, 12 * n)
    s0, s1, s2, s3 = vload(a, 0), vload(a, n), vload(a, 2 * n), vload(a, 3 * n)
    s4, s5, s6, s7 = vload(a, 4 * n), vload(a, 5 * n), vload(a, 6 * n), vload(a, 7 * n)
    s8, s9 = vload(a, 8 * n), vload(a, 9 * n)
    s10, s11 = vload(a, 10 * n), vload(a, 11 * n)
    for _ in range(steps):
        s0, s1, s2 = fma(s0, x, x), fma(s1, x, x), fma(s2, x, x)
        s3, s4, s5 = fma(s3, x, x), fma(s4, x, x), fma(s5, x, x)
        s6, s7, s8 = fma(s6, x, x), fma(s7, x, x), fma(s8, x, x)
        s9, s10, s11 = fma(s9, x, x), fma(s10, x, x), fma(s11, x, x)
    vstore(a, 0, s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9 + s10 + s11)


@njit(error_model="numpy", nogil=True)
def _add(a, b, times):
    """a += b; two reads and a write of 8 bytes for each element."""
    for _ in range(times):
        for i in range(a.size):
            a[i] += b[i]


@njit(error_model="numpy", nogil=True)
def _pass_to_and_fro(words, side):
    """Two threads, side 0 and side 1, take turns to write words[0]."""
    for turn in range(side, 2 * _PASSES, 2):
        while team.read(words, 0) != turn:
            team.pause()
        team.write(words, 0, turn + 1)


def _rate(works, seconds):
    """Calls a second of all these functions together, each in a thread of its own."""
    for work in works:
        work()  # compiles
    calls = np.zeros(len(works))
    start = threading.Barrier(len(works) + 1)
    deadline = [math.inf]

    def repeat(worker):
        start.wait()
        while time.perf_counter() < deadline[0]:
            works[worker]()
            calls[worker] += 1

    workers = [threading.Thread(target=repeat, args=(i,)) for i in range(len(works))]
    for worker in workers:
        worker.start()
    start.wait()
    started = time.perf_counter()
    deadline[0] = started + seconds
    for worker in workers:
        worker.join()
    return calls.sum() / (time.perf_counter() - started)


def gflops(dtype, threads, seconds=0.02):
    """Multiplications and additions a second, in 1e9, on so many threads.

    Measured for about so many seconds.
    """
    lanes = simd.lanes(dtype)
    arrays = [np.zeros((_CHAINS + 1) * lanes, dtype) for _ in range(threads)]
    works = [lambda a=a: _multiply_add(a, _STEPS) for a in arrays]
    return _rate(works, seconds) * _STEPS * _CHAINS * 2 * lanes / 1e9


def bandwidth(nbytes, threads, seconds=0.02):
    """Bytes a second, in 1e9, read and written by a += b.

    The arrays take ``nbytes`` in all, a share for each thread.
    """
    size = max(64, nbytes // (2 * 8 * threads))
    times = max(1, 2**16 // size)
    arrays = [(np.zeros(size), np.ones(size)) for _ in range(threads)]
    works = [lambda a=a, b=b: _add(a, b, times) for a, b in arrays]
    return _rate(works, seconds) * times * size * 24 / 1e9


def seconds_to_pass():
    """From the write of a word to its sight by another thread, on another processor.

    On virtual processors it tells which ones of the host they are: two of one core take
    20 ns, two cores that share a cache 40, two that do not 150 and more.
    """
    words = np.zeros(8, np.int64)
    _pass_to_and_fro(words, 2 * _PASSES)  # compiles
    start = threading.Barrier(3)

    def take_turns(side):
        if hasattr(os, "sched_setaffinity"):  # of this thread
            os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[side]})
        start.wait()
        _pass_to_and_fro(words, side)

    workers = [threading.Thread(target=take_turns, args=(side,)) for side in (0, 1)]
    for worker in workers:
        worker.start()
    start.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return (time.perf_counter() - started) / (2 * _PASSES)
