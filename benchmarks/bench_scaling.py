"""How the seconds of an epoch grow with rows, width, depth and batch.

With threads too: fits run on one and on all of them, and the report compares the two.
"""

import functools

import pytest

from benchmarks import peers
from benchmarks.problems import Problem, random_classes

ALONG = {
    "rows": [(n, 64, (100,), 200) for n in (1_000, 10_000, 100_000, 1_000_000)],
    "width": [(10_000, 64, (w, w), 200) for w in (8, 32, 128, 512)],
    "depth": [(10_000, 64, (64,) * d, 200) for d in (1, 2, 4, 8)],
    "batch": [(10_000, 64, (100,), b) for b in (8, 32, 128, 512, 2048)],
}
#: What is varied: the number that a case stands for.
VALUE = {
    "rows": lambda shape: shape[0],
    "width": lambda shape: shape[2][0],
    "depth": lambda shape: len(shape[2]),
    "batch": lambda shape: shape[3],
}


def _cases():
    for along, shapes in ALONG.items():
        for shape in shapes:
            case = f"{along} {VALUE[along](shape)}"
            yield pytest.param(along, shape, id=case)


@pytest.mark.parametrize(("along", "shape"), list(_cases()))
def bench_scaling(race, along, shape):
    rows, features, hidden, batch = shape
    load = random_classes(rows, features, 10)
    problem = Problem(along, load, hidden, batch, epochs=1)
    data = problem.data("float32")
    trainers = peers.contestants(problem, data, without=["PyTorch, compiled", "skorch"])
    value = VALUE[along](shape)
    race(
        "scaling",
        f"{along} {value}",
        "float32",
        {name: functools.partial(train, 1) for name, train in trainers.items()},
        rounds=5 if rows < 10**6 else 3,
        pause=0.05,
        check=peers.agreement(trainers, problem, "float32"),
        facts={"along": along, "value": value, "flops": problem.flops(data)},
    )
