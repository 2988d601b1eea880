"""Ways to train that scikit-learn's users have and the other peers do not."""

import numpy as np
import pytest
import sklearn.neural_network

import fastbp
from benchmarks import problems
from benchmarks.rows import OURS

#: Ways to train that have no peer but scikit-learn.
WAYS = {
    "early_stopping, 30 epochs": {"early_stopping": True, "n_iter_no_change": 50},
    "lbfgs, 30 iterations": {"solver": "lbfgs"},
    "sample_weight, 30 epochs": {},
}


@pytest.mark.parametrize("way", WAYS)
def bench_ways(race, way):
    data = problems.digits()
    weight = None
    if way.startswith("sample_weight"):
        weight = np.random.default_rng(0).uniform(0.5, 2, len(data.X))
    parameters = {"max_iter": 30, "random_state": 0, **WAYS[way]}
    models = {
        OURS: fastbp.MLPClassifier(**parameters),
        "scikit-learn": sklearn.neural_network.MLPClassifier(**parameters),
    }
    race(
        "ways",
        f"digits, {way}",
        "float64",
        {
            name: lambda model=model: model.fit(data.X, data.y, sample_weight=weight)
            for name, model in models.items()
        },
        rounds=5,
        pause=0.1,
    )


def bench_partial_fit(race):
    X, y = problems.digits()[:2]

    def learn(package):
        model = package.MLPClassifier(random_state=0)
        for begin in range(0, len(X), 100):
            part = slice(begin, begin + 100)
            model.partial_fit(X[part], y[part], classes=np.arange(10))

    race(
        "ways",
        "digits, partial_fit, 100 rows a call",
        "float64",
        {
            OURS: lambda: learn(fastbp),
            "scikit-learn": lambda: learn(sklearn.neural_network),
        },
        rounds=5,
        pause=0.1,
    )
