"""Each kernel beside NumPy doing the same arithmetic, verified equal before it is timed.

The share is of the multiply-adds that registers could do, or, for kernels that wait for
memory, of the bytes that a += b moves in arrays of the same size.
"""

import functools

import numpy as np
import pytest

from benchmarks import machine, numpy_kernels, peak

#: (rows, inputs, outputs) of a layer.
LAYERS = {
    "small": (32, 32, 32),
    "medium": (200, 256, 128),
    "large": (1024, 1024, 1024),
}
LOGITS = {"small": (32, 10), "medium": (1000, 10), "large": (10_000, 100)}
PARAMETERS = {"small": (1_000,), "medium": (30_000,), "large": (3_000_000,)}
#: Units of a network and rows of a batch.
STEPS = {
    "small": ((20, 32, 1), 32),
    "medium": ((64, 100, 10), 200),
    "large": ((784, 256, 128, 10), 200),
}
KERNELS = {
    "dense_forward": LAYERS,
    "dense_backward": LAYERS,
    "weight_gradient_and_adam": LAYERS,
    "softmax_cross_entropy": LOGITS,
    "logistic_cross_entropy": LOGITS,
    "squared_error": LOGITS,
    "poisson_loss": LOGITS,
    "adam_update": PARAMETERS,
    "sgd_update": PARAMETERS,
    "training_step": STEPS,
}
_QUICK = {
    *("dense_forward", "dense_backward", "weight_gradient_and_adam"),
    *("softmax_cross_entropy", "adam_update", "training_step"),
}


def _cases():
    for kernel, sizes in KERNELS.items():
        for size in sizes:
            for dtype in ("float32", "float64"):
                quick = kernel in _QUICK and dtype == "float32"
                marks = [pytest.mark.quick] if quick else []
                yield pytest.param(kernel, size, dtype, marks=marks)


#: Seconds: for so long BLAS's threads look for work after a call, and take cores.
_PAUSE = 0.03


def _limit(contest, dtype):
    threads = machine.threads()
    if contest.limited_by == "fma":
        return functools.partial(peak.gflops, np.dtype(dtype), threads, 0.005)
    return functools.partial(peak.bandwidth, int(contest.footprint), threads, 0.005)


@pytest.mark.parametrize(("kernel", "size", "dtype"), list(_cases()))
def bench_kernel(race, kernel, size, dtype):
    shape = KERNELS[kernel][size]
    contest = getattr(numpy_kernels, kernel)(*shape, dtype)
    contest.verify()
    race(
        "kernels",
        f"{kernel} {size}",
        dtype,
        contest.ways,
        rounds=15,
        pause=_PAUSE,
        limit=_limit(contest, dtype),
        facts={
            "kernel": kernel,
            "size": size,
            "shape": shape,
            "flops": contest.flops,
            "bytes": contest.nbytes,
            "limited_by": contest.limited_by,
        },
    )
