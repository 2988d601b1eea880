"""A multilayer perceptron in plain NumPy: the benchmarks' baseline, the tests' truth.

Shapes   X (n, inputs); Y and P (n, outputs), Y one-hot for softmax; ``coefs`` one
         (fan_in, fan_out) matrix and ``intercepts`` one (fan_out,) vector a layer;
         ``weights`` (n,) of the rows, or None: all count the same.
Dtype    computed in that of the arguments: the tests hand in float64.

All formulas are scikit-learn's, with one inconsistency of its own: with several
outputs the squared error is a mean over rows and outputs, yet its delta is P - Y, the
derivative of a sum over the outputs.
"""

import math

import numpy as np
from scipy.special import expit, log_softmax, xlogy

HIDDEN = {
    "identity": lambda z: z,
    "logistic": expit,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
}
#: Derivatives, written with the output a = f(z).
DERIVATIVES = {
    "identity": np.ones_like,
    "logistic": lambda a: a * (1 - a),
    "tanh": lambda a: 1 - a * a,
    "relu": lambda a: (a > 0).astype(a.dtype),
}
OUTPUT = {
    "softmax": lambda z: np.exp(log_softmax(z, axis=1)),
    "logistic": expit,
    "identity": lambda z: z,
    "exp": np.exp,
}


def forward(coefs, intercepts, X, activation, out_activation):
    """Activations of all layers, the inputs first and the prediction last."""
    layers = [X]
    last = len(coefs) - 1
    for depth, (W, b) in enumerate(zip(coefs, intercepts, strict=True)):
        f = OUTPUT[out_activation] if depth == last else HIDDEN[activation]
        layers.append(f(layers[-1] @ W + b))
    return layers


def row_losses(P, Y, out_activation, eps):
    """Loss of each row of P; probabilities are limited to [eps, 1 - eps]."""
    if out_activation == "identity":
        return 0.5 * np.mean((P - Y) ** 2, axis=1)
    if out_activation == "exp":
        # y log(y / p), written so that it is 0 where y = 0 even if p is 0
        return (xlogy(Y, Y) - np.where(Y > 0, Y * np.log(P), 0) - Y + P).sum(axis=1)
    P = np.clip(P, eps, 1 - eps)
    likelihood = xlogy(Y, P)
    if out_activation == "logistic":
        likelihood = likelihood + xlogy(1 - Y, 1 - P)
    return -likelihood.sum(axis=1)


def data_loss(P, Y, out_activation, eps, weights=None):
    """Mean loss of the predictions P, weighted if there are ``weights``."""
    losses = row_losses(P, Y, out_activation, eps)
    if weights is None:
        return losses.mean()
    return (weights * losses).sum() / weights.sum()


def penalty(coefs, alpha, n):
    """L2 term of the loss of n rows, or of rows whose weights add up to n.

    Intercepts are not penalised.
    """
    return 0.5 * alpha * sum(np.sum(W * W) for W in coefs) / n


def loss_and_gradients(
    coefs, intercepts, X, Y, activation, out_activation, alpha, eps=None, weights=None
):
    """(loss, gradients of the coefs, gradients of the intercepts) of one batch.

    ``eps`` is the machine epsilon of the dtype that is being imitated.
    """
    n = len(X) if weights is None else weights.sum()
    eps = np.finfo(X.dtype).eps if eps is None else eps
    layers = forward(coefs, intercepts, X, activation, out_activation)
    loss = data_loss(layers[-1], Y, out_activation, eps, weights)
    loss += penalty(coefs, alpha, n)
    delta = layers[-1] - Y
    if weights is not None:
        delta = delta * weights[:, None]
    d_coefs, d_intercepts = [], []
    for depth in reversed(range(len(coefs))):
        A = layers[depth]
        d_coefs.insert(0, (A.T @ delta + alpha * coefs[depth]) / n)
        d_intercepts.insert(0, delta.sum(axis=0) / n)
        if depth > 0:
            delta = (delta @ coefs[depth].T) * DERIVATIVES[activation](A)
    return loss, d_coefs, d_intercepts


def adam(params, gradients, state, rate, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """One Adam step in place on lists of arrays; ``state`` starts as an empty dict."""
    t = state["t"] = state.get("t", 0) + 1
    means = state.setdefault("m", [np.zeros_like(p) for p in params])
    squares = state.setdefault("v", [np.zeros_like(p) for p in params])
    # a Python float: one of NumPy's would turn float32 arrays into float64
    rate = rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    for p, g, m, v in zip(params, gradients, means, squares, strict=True):
        m[:] = beta_1 * m + (1 - beta_1) * g
        v[:] = beta_2 * v + (1 - beta_2) * g * g
        p -= rate * m / (np.sqrt(v) + epsilon)


def sgd(params, gradients, state, rate, momentum=0.9, nesterov=True):
    """One step of gradient descent in place; ``state`` starts as an empty dict."""
    velocities = state.setdefault("m", [np.zeros_like(p) for p in params])
    for p, g, velocity in zip(params, gradients, velocities, strict=True):
        velocity[:] = momentum * velocity - rate * g
        p += momentum * velocity - rate * g if nesterov else velocity


def train_epoch(
    coefs,
    intercepts,
    X,
    Y,
    order,
    batch_size,
    activation,
    out_activation,
    alpha,
    update,
):
    """Train in place on every row once, in batches of the ``order``; the mean loss.

    ``update(params, gradients)`` changes the arrays of the list ``params`` in place.
    """
    total = 0.0
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        loss, d_coefs, d_intercepts = loss_and_gradients(
            coefs, intercepts, X[rows], Y[rows], activation, out_activation, alpha
        )
        update([*coefs, *intercepts], [*d_coefs, *d_intercepts])
        total += loss * len(rows)
    return total / len(order)
