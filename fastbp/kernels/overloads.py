"""The functions of ``fastbp.kernels`` for users' own ``@njit`` code: prange loops.

Each has the name and the parameters of the function whose overload it is, takes Numba's
types, and returns what Numba compiles for them.
"""

import math

import numpy as np
from numba import njit, types
from numba.core.cpu_options import ParallelOptions
from numba.core.errors import TypingError

from fastbp.kernels import arrays
from fastbp.kernels.simd import CHECKED
from fastbp.tables import (
    ACTIVATIONS,
    ADAM,
    IDENTITY,
    LOG_LOSS,
    POISSON,
    SGD,
    SOFTMAX,
    SQUARED_ERROR,
    Product,
)

# Of Numba's rewrites for parallel code none but prange; not even that where accesses are
# checked, as an error in a parallel loop would be lost.
_PARALLEL = ParallelOptions(False)
_PARALLEL.enabled = _PARALLEL.prange = not CHECKED
_OPTIONS = {"parallel": _PARALLEL, "error_model": "numpy", "nogil": True}
_multiply = njit(**_OPTIONS)(arrays.multiply_in_prange)
_loss_and_delta = njit(**_OPTIONS)(arrays.loss_and_delta_in_prange)
_update_all = njit(**_OPTIONS)(arrays.update_in_prange)


# ------------------------------------------------------------- checks and parts


def _require_arrays(function, *given):
    """Raise TypingError unless all are C-contiguous arrays of one float dtype."""
    for array, ndim in given:
        if not (
            isinstance(array, types.Array)
            and array.dtype in (types.float32, types.float64)
            and array.dtype == given[0][0].dtype
            and array.layout == "C"
            and ndim in (None, array.ndim)
        ):
            raise TypingError(
                f"{function} takes C-contiguous arrays of one dtype, float32 or "
                f"float64, with {[n for _, n in given]} dimensions; got {array}"
            )


def _literal_activation(activation):
    if isinstance(activation, types.Omitted):
        activation = activation.value
    elif isinstance(activation, types.StringLiteral):
        activation = activation.literal_value
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise TypingError(f"activation must be a constant, one of {ACTIVATIONS}")
    return ACTIVATIONS.index(activation)


@njit(error_model="numpy")
def _overlap(a, b):
    """Whether two contiguous arrays share memory."""
    a_starts, b_starts = a.ctypes.data, b.ctypes.data
    a_ends, b_ends = a_starts + a.size * a.itemsize, b_starts + b.size * b.itemsize
    return a_starts < b_ends and b_starts < a_ends


@njit(error_model="numpy")
def _mean_loss(outputs, targets, kind):
    """(mean loss, gradient) for flat targets."""
    if outputs.shape[0] == 0:
        raise ValueError("a loss is a mean over the rows: there must be one at least")
    loss, delta = np.zeros(1), np.empty_like(outputs)
    flat = outputs.reshape(-1)
    number = np.int64(kind)  # no constant, for each of which Numba would compile anew
    _loss_and_delta(loss, delta.reshape(-1), flat, targets, number, outputs.shape)
    return loss[0], delta


# ------------------------------------------------------------- what users call


def dense_forward(X, W, b, activation="identity"):
    """f(X @ W + b)."""
    _require_arrays("dense_forward", (X, 2), (W, 2), (b, 1))
    kind = _literal_activation(activation)

    def implementation(X, W, b, activation="identity"):
        rows, inputs, outputs = X.shape[0], X.shape[1], W.shape[1]
        if W.shape[0] != inputs or b.shape[0] != outputs:
            raise ValueError("dense_forward takes X (B, I), W (I, O) and b (O,)")
        x = X.reshape(-1)
        out, w = np.empty((rows, outputs), X.dtype), W.reshape(-1)
        size = rows, inputs, outputs
        _multiply(
            out.reshape(-1),
            Product(x, inputs, 1, w, outputs, 1, b, x, kind, False, 0, *size),
        )
        return out

    return implementation


def dense_backward(dZ, X, W, activation="identity"):
    """((dZ @ W.T) * f'(X), X.T @ dZ, column sums of dZ)."""
    _require_arrays("dense_backward", (dZ, 2), (X, 2), (W, 2))
    kind = _literal_activation(activation)
    slope = kind != IDENTITY

    def implementation(dZ, X, W, activation="identity"):
        rows, inputs, outputs = X.shape[0], X.shape[1], dZ.shape[1]
        if dZ.shape[0] != rows or W.shape[0] != inputs or W.shape[1] != outputs:
            raise ValueError("dense_backward takes dZ (B, O), X (B, I) and W (I, O)")
        d, x, w = dZ.reshape(-1), X.reshape(-1), W.reshape(-1)
        none, total = np.zeros(0, X.dtype), inputs * outputs
        dX, size = np.empty((rows, inputs), X.dtype), (rows, outputs, inputs)
        _multiply(
            dX.reshape(-1),
            Product(d, outputs, 1, w, 1, outputs, none, x, kind, slope, 0, *size),
        )
        both, size = np.empty(total + outputs, X.dtype), (inputs + 1, rows, outputs)
        _multiply(both, Product(x, 1, inputs, d, outputs, 1, none, x, 0, False, 1, *size))
        return dX, both[:total].reshape(inputs, outputs), both[total:]

    return implementation


def softmax_cross_entropy(logits, y):
    """(mean loss, its gradient) for class numbers."""
    _require_arrays("softmax_cross_entropy", (logits, 2))
    if not (isinstance(y, types.Array) and isinstance(y.dtype, types.Integer)):
        raise TypingError("softmax_cross_entropy: y must be an array of integers")

    def implementation(logits, y):
        if y.shape[0] != logits.shape[0]:
            raise ValueError("softmax_cross_entropy takes logits (B, O) and y (B,)")
        for label in y:
            if label < 0 or label >= logits.shape[1]:
                raise ValueError("y must hold class numbers from 0 to O - 1")
        return _mean_loss(logits, y.astype(logits.dtype), SOFTMAX)

    return implementation


def squared_error(output, Y):
    """(mean loss, its gradient)."""
    _require_arrays("squared_error", (output, 2), (Y, 2))

    def implementation(output, Y):
        if Y.shape != output.shape:
            raise ValueError("squared_error takes output and Y of one shape")
        return _mean_loss(output, Y.reshape(-1), SQUARED_ERROR)

    return implementation


def _loss_of_logits(name, kind):
    """An overload that gives (mean loss, its gradient), of a kind of ``tables``."""

    def overloaded(logits, Y):
        _require_arrays(name, (logits, 2), (Y, 2))

        def implementation(logits, Y):
            if Y.shape != logits.shape:
                raise ValueError("logits and targets must have the same shape")
            return _mean_loss(logits, Y.reshape(-1), kind)

        return implementation

    return overloaded


logistic_cross_entropy = _loss_of_logits("logistic_cross_entropy", LOG_LOSS)
poisson_loss = _loss_of_logits("poisson_loss", POISSON)


def adam_update(
    theta,
    m,
    v,
    gradient,
    t,
    learning_rate=0.001,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-8,
):
    """One step of Adam, in place."""
    _require_arrays("adam_update", (theta, None), (m, None), (v, None), (gradient, None))

    def implementation(
        theta,
        m,
        v,
        gradient,
        t,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
    ):
        if m.shape != theta.shape or v.shape != theta.shape:
            raise ValueError("adam_update takes theta, m and v of one shape")
        if gradient.shape != theta.shape:
            raise ValueError("the gradient must have the shape of theta")
        if (
            _overlap(theta, m)
            or _overlap(theta, v)
            or _overlap(theta, gradient)
            or _overlap(m, v)
            or _overlap(m, gradient)
            or _overlap(v, gradient)
        ):
            raise ValueError("adam_update takes arrays that do not share memory")
        rate = learning_rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        _update_all(
            theta.reshape(-1),
            m.reshape(-1),
            v.reshape(-1),
            gradient.reshape(-1),
            np.int64(ADAM),  # no constants, as in _mean_loss
            rate,
            (beta_1, beta_2, epsilon, 0.0),
            np.int64(0),
        )

    return implementation


def sgd_update(
    theta, velocity, gradient, learning_rate=0.001, momentum=0.9, nesterov=True
):
    """One step with momentum, in place."""
    _require_arrays("sgd_update", (theta, None), (velocity, None), (gradient, None))

    def implementation(
        theta, velocity, gradient, learning_rate=0.001, momentum=0.9, nesterov=True
    ):
        if velocity.shape != theta.shape or gradient.shape != theta.shape:
            raise ValueError("sgd_update takes arrays of one shape")
        if (
            _overlap(theta, velocity)
            or _overlap(theta, gradient)
            or _overlap(velocity, gradient)
        ):
            raise ValueError("sgd_update takes arrays that do not share memory")
        _update_all(
            theta.reshape(-1),
            velocity.reshape(-1),
            np.empty(0, theta.dtype),
            gradient.reshape(-1),
            np.int64(SGD),
            learning_rate,
            (0.0, 0.0, 1.0, momentum),
            np.int64(nesterov),
        )

    return implementation
