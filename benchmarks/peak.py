"""The machine's own limit: multiply-adds that touch nothing but registers."""

import threading
import time

import numpy as np
from numba import njit

from fastbp.kernels import simd
from fastbp.kernels.simd import fma, lanes_of, vload, vstore

_CHAINS = 12  # independent sums: two units of four cycles' latency need eight
_STEPS = 20_000


@njit(error_model="numpy", nogil=True)
def _multiply_add(a, steps):
    x = vload(a, lanes_of(a))
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = s10 = s11 = vload(a, 0)
    for _ in range(steps):
        s0, s1, s2 = fma(s0, x, x), fma(s1, x, x), fma(s2, x, x)
        s3, s4, s5 = fma(s3, x, x), fma(s4, x, x), fma(s5, x, x)
        s6, s7, s8 = fma(s6, x, x), fma(s7, x, x), fma(s8, x, x)
        s9, s10, s11 = fma(s9, x, x), fma(s10, x, x), fma(s11, x, x)
        x = x * x  # keeps the sums apart for the compiler; x is 0
    vstore(a, 0, s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9 + s10 + s11)


def gflops(dtype, threads, seconds=0.02):
    """Multiply-adds and adds a second, in 1e9, on so many threads for about so long."""
    arrays = [np.zeros(4 * simd.lanes(dtype), dtype) for _ in range(threads)]
    _multiply_add(arrays[0], 1)
    calls = np.zeros(threads)
    start = threading.Barrier(threads + 1)
    deadline = [0.0]

    def work(worker):
        start.wait()
        while time.perf_counter() < deadline[0]:
            _multiply_add(arrays[worker], _STEPS)
            calls[worker] += 1

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    started = time.perf_counter()
    deadline[0] = started + seconds
    start.wait()
    for worker in workers:
        worker.join()
    flops = calls.sum() * _STEPS * _CHAINS * 2 * simd.lanes(dtype)
    return flops / (time.perf_counter() - started) / 1e9
