"""The runs: parameters of fastbp's estimators, each for one option or several at once."""

from itertools import pairwise
from pathlib import Path

import numpy as np

#: Where PyTorch's results are.
FILE = Path(__file__).with_name("values.npz")

#: Of all runs, if a case does not say otherwise. Adam's epsilon is so small that it does
#: not matter whether it is added before or after the bias correction.
COMMON = {
    "activation": "tanh",
    "solver": "sgd",
    "learning_rate_init": 0.1,
    "alpha": 0.0,
    "batch_size": 16,
    "max_iter": 3,
    "shuffle": False,
    "epsilon": 1e-30,
    "tol": 0.0,
}
#: More units than a panel of weights has columns, and fewer; no multiples of anything.
HIDDEN = (53, 7)
ADAM = {"solver": "adam", "learning_rate_init": 0.01}

CLASSIFIERS = {
    **{
        name: {"activation": name}
        for name in ("leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus")
    },
    "an activation a layer": {"activation": ["mish", "logistic"]},
    "adamw": {**ADAM, "solver": "adamw", "weight_decay": 0.3},
    "adamw as usual": {**ADAM, "solver": "adamw"},
    "adam with weight decay": {**ADAM, "weight_decay": 0.3, "alpha": 0.5},
    "sgd with weight decay": {"weight_decay": 0.3, "nesterovs_momentum": False},
    "rmsprop": {"solver": "rmsprop", "learning_rate_init": 0.01, "beta_2": 0.9},
    "nadam": {**ADAM, "solver": "nadam"},
    "clipped": {"max_grad_norm": 0.2, "alpha": 0.5},
    "clipped adam": {**ADAM, "max_grad_norm": 0.2, "weight_decay": 0.1},
    "never clipped": {"max_grad_norm": 1e3},
    "label smoothing": {"label_smoothing": 0.2},
    "class weights": {"class_weight": {0: 2.0, 1: 0.5, 2: 1.0}},
    "frozen": {"frozen_layers": 1},
    "two frozen, clipped": {"frozen_layers": 2, "max_grad_norm": 0.1},
    "all together": {
        **{"activation": ["gelu", "relu"], "solver": "adamw", "weight_decay": 0.1},
        **{"max_grad_norm": 0.3, "label_smoothing": 0.1, "alpha": 0.1},
        **{"learning_rate_init": 0.01, "class_weight": {0: 2.0, 1: 0.5, 2: 1.0}},
    },
}
REGRESSORS = {
    "absolute error": {"loss": "absolute_error"},
    "huber": {"loss": "huber", "huber_delta": 0.7},
    "quantile": {"loss": "quantile", "quantile": 0.8},
    "quantiles": {"loss": "quantile", "quantile": [0.1, 0.5, 0.9]},
    "gamma": {"loss": "gamma", "learning_rate_init": 0.02},
}


def data(name):
    """X, y, and the coefs and intercepts that a case starts from."""
    rng = np.random.default_rng(sum(map(ord, name)))
    X = rng.standard_normal((40, 5))  # three batches, the last of them short
    if name in CLASSIFIERS:
        y, outputs = rng.integers(0, 3, 40), 3
        y[:3] = range(3)
    elif name == "quantiles":
        y, outputs = X[:, 0] + rng.standard_normal(40), 3
    else:
        y, outputs = X[:, :2] + 0.5 * rng.standard_normal((40, 2)), 2
        y = np.exp(y) if name == "gamma" else y
    units = (5, *HIDDEN, outputs)
    coefs = [rng.standard_normal((i, o)) / np.sqrt(i) for i, o in pairwise(units)]
    intercepts = [0.3 * rng.standard_normal(n) for n in units[1:]]
    return X, y, coefs, intercepts
