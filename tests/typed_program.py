"""A user's program, for a type checker: it is checked, and runs.

Every ``type: ignore`` is an error that the checker has to find: it reports those that it
does not need.
"""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from fastbp import (
    GridSearchCV,
    MLPClassifier,
    MLPRegressor,
    fit_many,
    kernels,
    warmup,
)

X = np.random.default_rng(0).standard_normal((40, 3))
y = (X[:, 0] > 0).astype(int)

classifier = MLPClassifier(
    (8, 4), "tanh", solver="adam", batch_size=20, tol=1e9, dtype="float32"
)
assert_type(classifier.fit(X, y), MLPClassifier)
assert_type(classifier.fit(X.tolist(), y.tolist(), sample_weight=[1] * 40), MLPClassifier)
assert_type(classifier.partial_fit(X, y, classes=[0, 1]), MLPClassifier)
assert_type(classifier.predict(X), NDArray[Any])
assert_type(classifier.predict_proba(X), NDArray[Any])
assert_type(classifier.predict_log_proba(X), NDArray[Any])
assert_type(classifier.coefs_, list[NDArray[Any]])
assert_type(classifier.loss_curve_, list[float])
assert_type(classifier.n_iter_, int)
assert_type(classifier.classes_, NDArray[Any])

tuned = MLPClassifier(
    (8, 4),
    ["tanh", "tanh"],
    solver="nadam",
    learning_rate="one_cycle",
    tol=1e9,
    init=classifier,
    frozen_layers=1,
    dropout=[0.1, 0.2],
    max_grad_norm=1.0,
    class_weight={0: 2.0},
    scoring="neg_log_loss",
)
assert_type(tuned.fit(X, y, X_val=X, y_val=y), MLPClassifier)
assert_type(tuned.validation_loss_curve_, list[float])
assert_type(tuned.gradient_report(X, y).layers[0].gradient_rms, float)
quick = [MLPClassifier((8, 4), ["relu", "gelu"], tol=1e9) for _ in range(2)]
assert_type(fit_many(quick, X, y, [range(30), None]), list[MLPClassifier])
search = GridSearchCV(quick[0], {"alpha": [0.1, 1.0]}, cv=2)
assert_type(search.fit(X, y), GridSearchCV)

regressor = MLPRegressor("poisson", 8, batch_size="auto", tol=1e9)
assert_type(regressor.fit(X, y).predict(X), NDArray[Any])
assert_type(regressor.partial_fit(X, y), MLPRegressor)
regressor.set_params(loss="squared_error")  # the only one of older scikit-learns
assert_type(MLPRegressor.from_sklearn(regressor.to_sklearn()), MLPRegressor)

W, b = np.ones((3, 2), np.float32), np.ones(2, np.float32)
hidden = kernels.dense_forward(X.astype(np.float32), W, b, "relu")
assert_type(hidden, NDArray[np.float32])
loss, delta = kernels.squared_error(hidden, hidden)
assert_type(loss, float)
assert_type(delta, NDArray[np.float32])
warmup(["float32"])


def wrong() -> None:
    """What the checker has to refuse."""
    from fastbp import MLPClasifier  # type: ignore[attr-defined]

    MLPClasifier()
    MLPClassifier(activation="swish")  # type: ignore[arg-type]
    MLPClassifier(hidden_layer_sizes=(8.5,))  # type: ignore[arg-type]
    MLPClassifier(dtype="float16")  # type: ignore[arg-type]
    MLPClassifier((8,), "relu", "adam")  # type: ignore[call-arg]
    MLPClassifier(learning_rate=0.1)  # type: ignore[arg-type]
    MLPClassifier(activation=["relu", "swish"])  # type: ignore[list-item]
    MLPRegressor(class_weight="balanced")  # type: ignore[call-arg]
    classifier.fit(X)  # type: ignore[call-arg]
    regressor.partial_fit(X, y, classes=[0, 1])  # type: ignore[call-arg]
    kernels.dense_forward(X, W, b, "relu")  # type: ignore[type-var]
    kernels.dense_forward(hidden, W, b, "softmax")  # type: ignore[arg-type]
