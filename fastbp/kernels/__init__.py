"""The steps of backpropagation on plain NumPy arrays.

Each function can be called from Python, where shapes and dtypes are checked, and from
your own ``@numba.njit`` functions, where a wrong dtype does not compile and a wrong shape
raises ValueError; what values arrays hold is checked from Python only, but for class
numbers. They run on the same register tiles as the estimators, in parallel: on
fastbp's own threads, or called from ``@njit`` code on Numba's (whose 'workqueue' layer
ends a process in which two threads do so at once). The bits of a result do not depend on
the number of threads.

B rows in the batch, I inputs, O outputs. All floating arrays of a call have one dtype,
float32 or float64; inside ``@njit`` they must be C-contiguous.
"""

import math
from itertools import combinations

import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from fastbp.kernels import calls, overloads
from fastbp.tables import (
    ACTIVATIONS,
    ADAM,
    IDENTITY,
    LOG_LOSS,
    POISSON,
    SGD,
    SOFTMAX,
    SQUARED_ERROR,
)
from fastbp.typing import ArrayActivation, Float

__all__ = [
    "adam_update",
    "dense_backward",
    "dense_forward",
    "logistic_cross_entropy",
    "poisson_loss",
    "sgd_update",
    "softmax_cross_entropy",
    "squared_error",
]

_DTYPES = frozenset(map(np.dtype, (np.float32, np.float64)))


# ------------------------------------------------------------- checks in Python


def _checked(**given):
    """The arrays, C-contiguous, after checks of type, one dtype and dimensions.

    Each argument is (array, number of dimensions or None for any).
    """
    dtype = None
    checked = []
    for name, (array, ndim) in given.items():
        if not isinstance(array, np.ndarray):
            raise TypeError(
                f"{name} must be a NumPy array, got {type(array).__name__} instead."
            )
        if array.dtype not in _DTYPES:
            raise TypeError(
                f"{name} must have dtype float32 or float64, got {array.dtype}: "
                f"convert it with {name}.astype(...)."
            )
        if dtype is not None and array.dtype != dtype:
            raise TypeError(
                f"all arrays must have one dtype: {name} has {array.dtype}, "
                f"{next(iter(given))} has {dtype}."
            )
        dtype = array.dtype
        if ndim is not None and array.ndim != ndim:
            raise ValueError(
                f"{name} must have {ndim} dimension{'s' * (ndim > 1)}, "
                f"got shape {array.shape}."
            )
        if not (array.flags.c_contiguous and array.flags.aligned):
            array = np.require(array, dtype, ["C_CONTIGUOUS", "ALIGNED"])
        checked.append(array)
    return checked


def _check_shape(name, array, shape, because):
    if array.shape != shape:
        raise ValueError(
            f"{name} must have shape {shape} because {because}, got {array.shape}."
        )


def _check_rows(name, array):
    if not len(array):
        raise ValueError(
            f"{name} must have at least one row, got shape {array.shape}: "
            "a loss is a mean over the rows."
        )


def _activation_number(activation):
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {ACTIVATIONS}, got {activation!r}.")
    return ACTIVATIONS.index(activation)


# ------------------------------------------------------------- dense layers


def dense_forward(
    X: NDArray[Float],
    W: NDArray[Float],
    b: NDArray[Float],
    activation: ArrayActivation = "identity",
) -> NDArray[Float]:
    """Forward pass of one layer, ``f(X @ W + b)``.

    Parameters
    ----------
    X : ndarray of shape (B, I)
    W : ndarray of shape (I, O)
    b : ndarray of shape (O,)
    activation : {'identity', 'logistic', 'tanh', 'relu'}, default='identity'

    Returns
    -------
    A : ndarray of shape (B, O)

    Raises
    ------
    TypeError
        If an argument is no array of float32 or float64, or the dtypes differ.
    ValueError
        If a shape or the activation is wrong.
    """
    X, W, b = _checked(X=(X, 2), W=(W, 2), b=(b, 1))
    _check_shape("W", W, (X.shape[1], W.shape[1]), f"X has {X.shape[1]} columns")
    _check_shape("b", b, (W.shape[1],), f"W has {W.shape[1]} columns")
    kind = _activation_number(activation)
    size = (X.shape[0], *W.shape)
    return calls.multiply(calls.matrix(X), calls.matrix(W), b, kind, None, size)


def dense_backward(
    dZ: NDArray[Float],
    X: NDArray[Float],
    W: NDArray[Float],
    activation: ArrayActivation = "identity",
) -> tuple[NDArray[Float], NDArray[Float], NDArray[Float]]:
    """Backward pass of one layer, from the gradient with respect to ``X @ W + b``.

    Parameters
    ----------
    dZ : ndarray of shape (B, O)
        Gradient of the loss with respect to the layer's pre-activations.
    X : ndarray of shape (B, I)
        The layer's inputs.
    W : ndarray of shape (I, O)
    activation : {'identity', 'logistic', 'tanh', 'relu'}, default='identity'
        The function whose output ``X`` is, that is the activation of the layer below.

    Returns
    -------
    dX : ndarray of shape (B, I)
        ``(dZ @ W.T) * f'``: the gradient with respect to the pre-activations of the
        layer below, or with 'identity' with respect to ``X``.
    dW : ndarray of shape (I, O)
        ``X.T @ dZ``
    db : ndarray of shape (O,)
        Column sums of ``dZ``.

    Raises
    ------
    TypeError, ValueError
        As ``dense_forward``.
    """
    dZ, X, W = _checked(dZ=(dZ, 2), X=(X, 2), W=(W, 2))
    rows, inputs, outputs = X.shape[0], X.shape[1], dZ.shape[1]
    _check_shape("dZ", dZ, (rows, outputs), f"X has {rows} rows")
    _check_shape("W", W, (inputs, outputs), "X and dZ have as many columns")
    kind = _activation_number(activation)
    none = np.zeros(0, X.dtype)
    size = rows, outputs, inputs
    dX = calls.multiply(calls.matrix(dZ), calls.transposed(W), none, kind, X, size)
    size = inputs + 1, rows, outputs
    both = calls.multiply(
        *(calls.transposed(X), calls.matrix(dZ), none, IDENTITY, None, size), ones=1
    )
    return dX, both[:-1], both[-1]


# ------------------------------------------------------------- losses


def softmax_cross_entropy(
    logits: NDArray[Float], y: NDArray[np.integer]
) -> tuple[float, NDArray[Float]]:
    """Cross-entropy of the softmax of ``logits``, and its gradient.

    Parameters
    ----------
    logits : ndarray of shape (B, O)
        Pre-activations of the output layer.
    y : ndarray of int of shape (B,)
        Class numbers, from 0 to O - 1.

    Returns
    -------
    loss : float
        Mean over the rows of ``-log(p_y)``, ``p`` limited to [eps, 1 - eps] of the
        dtype as scikit-learn does.
    dlogits : ndarray of shape (B, O)
        ``(p - onehot(y)) / B``

    Raises
    ------
    TypeError, ValueError
        As ``dense_forward``; and if a class number is out of range.
    """
    (logits,) = _checked(logits=(logits, 2))
    y = np.asarray(y)
    if y.dtype.kind not in "iu":
        raise TypeError(f"y must hold integer class numbers, got dtype {y.dtype}.")
    _check_rows("logits", logits)
    _check_shape("y", y, (len(logits),), f"logits has {len(logits)} rows")
    if not (y.min() >= 0 and y.max() < logits.shape[1]):
        raise ValueError(
            f"y must hold class numbers from 0 to {logits.shape[1] - 1}, "
            f"got values from {y.min()} to {y.max()}."
        )
    return calls.loss_and_delta(logits, y.astype(logits.dtype), SOFTMAX)


def logistic_cross_entropy(
    logits: NDArray[Float], Y: NDArray[Float]
) -> tuple[float, NDArray[Float]]:
    """Binary cross-entropy of the logistic function of ``logits``, and its gradient.

    Parameters
    ----------
    logits : ndarray of shape (B, O)
    Y : ndarray of shape (B, O)
        Zeros and ones.

    Returns
    -------
    loss : float
        Mean over the rows of the sum over the outputs.
    dlogits : ndarray of shape (B, O)
        ``(p - Y) / B``

    Raises
    ------
    TypeError, ValueError
        As ``dense_forward``; and if ``Y`` holds anything but zeros and ones.
    """
    logits, Y = _checked(logits=(logits, 2), Y=(Y, 2))
    _check_rows("logits", logits)
    _check_shape("Y", Y, logits.shape, "logits has that shape")
    if not np.isin(Y, (0, 1)).all():
        raise ValueError("Y must hold zeros and ones only.")
    return calls.loss_and_delta(logits, Y, LOG_LOSS)


def squared_error(
    output: NDArray[Float], Y: NDArray[Float]
) -> tuple[float, NDArray[Float]]:
    """Half the squared error, and its gradient.

    Parameters
    ----------
    output, Y : ndarray of shape (B, O)

    Returns
    -------
    loss : float
        Mean over the rows of ``0.5 * sum((output - Y) ** 2)``.
    doutput : ndarray of shape (B, O)
        ``(output - Y) / B``

    Raises
    ------
    TypeError, ValueError
        As ``dense_forward``.
    """
    output, Y = _checked(output=(output, 2), Y=(Y, 2))
    _check_rows("output", output)
    _check_shape("Y", Y, output.shape, "output has that shape")
    return calls.loss_and_delta(output, Y, SQUARED_ERROR)


def poisson_loss(
    logits: NDArray[Float], Y: NDArray[Float]
) -> tuple[float, NDArray[Float]]:
    """Half the Poisson deviance of ``exp(logits)``, and its gradient.

    Parameters
    ----------
    logits : ndarray of shape (B, O)
    Y : ndarray of shape (B, O)
        Counts or rates, none of them negative.

    Returns
    -------
    loss : float
        Mean over the rows of ``sum(Y * log(Y / p) - Y + p)`` with ``p = exp(logits)``;
        a term is ``p`` where ``Y`` is 0.
    dlogits : ndarray of shape (B, O)
        ``(p - Y) / B``

    Raises
    ------
    TypeError, ValueError
        As ``dense_forward``; and if a number of ``Y`` is negative.
    """
    logits, Y = _checked(logits=(logits, 2), Y=(Y, 2))
    _check_rows("logits", logits)
    _check_shape("Y", Y, logits.shape, "logits has that shape")
    if (Y < 0).any():
        raise ValueError("Y must not hold negative numbers.")
    return calls.loss_and_delta(logits, Y, POISSON)


# ------------------------------------------------------------- updates


def _check_state(state, gradient):
    """Of arrays by name that an update is to overwrite."""
    for name, array in state.items():
        if not array.flags.carray:
            raise ValueError(f"{name} must be C-contiguous, aligned and writeable.")
        _check_shape(name, array, gradient.shape, "the gradient has that shape")
    for (name, array), (other, another) in combinations(
        {**state, "gradient": gradient}.items(), 2
    ):
        if np.may_share_memory(array, another):  # exact, as both are contiguous
            raise ValueError(
                f"{name} and {other} must not share memory, as they are read and "
                f"overwritten side by side: pass a copy of {other}."
            )


def adam_update(
    theta: NDArray[Float],
    m: NDArray[Float],
    v: NDArray[Float],
    gradient: NDArray[Float],
    t: int,
    learning_rate: float = 0.001,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
) -> None:
    """One step of Adam, in place (Kingma and Ba, 2015).

    ``m = beta_1 m + (1 - beta_1) g``, ``v = beta_2 v + (1 - beta_2) g**2``,
    ``theta -= rate m / (sqrt(v) + epsilon)`` with
    ``rate = learning_rate sqrt(1 - beta_2**t) / (1 - beta_1**t)``, as scikit-learn.

    Parameters
    ----------
    theta, m, v : ndarray
        Parameters and moments, of one shape; they are overwritten. Moments that are too
        small to matter become zero, as their products would be denormal, which is slow:
        ``v`` below 1e-36, ``m`` below 1e-25 in float32 and 1e-280 in float64.
    gradient : ndarray of the same shape
    t : int
        Number of this step, from 1.
    learning_rate, beta_1, beta_2, epsilon : float

    Raises
    ------
    TypeError, ValueError
        As ``dense_forward``; and if an array to be overwritten is not C-contiguous, if
        two of the arrays share memory, if ``t`` is less than 1 or a beta not in [0, 1).
    """
    _checked(theta=(theta, None), m=(m, None), v=(v, None))
    *_, gradient = _checked(theta=(theta, None), gradient=(gradient, None))
    if not t >= 1:
        raise ValueError(f"t counts steps from 1, got {t}.")
    for name, beta in (("beta_1", beta_1), ("beta_2", beta_2)):
        if not 0 <= beta < 1:
            raise ValueError(f"{name} must be in [0, 1), got {beta}.")
    rate = learning_rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    decays = (float(beta_1), float(beta_2), float(epsilon), 0.0)
    _check_state({"theta": theta, "m": m, "v": v}, gradient)
    flat = theta.reshape(-1), m.reshape(-1), v.reshape(-1)
    calls.update(*flat, gradient, ADAM, float(rate), decays, False)


def sgd_update(
    theta: NDArray[Float],
    velocity: NDArray[Float],
    gradient: NDArray[Float],
    learning_rate: float = 0.001,
    momentum: float = 0.9,
    nesterov: bool = True,
) -> None:
    """One step of gradient descent with momentum, in place.

    ``velocity = momentum velocity - learning_rate g``; ``theta += velocity``, or with
    ``nesterov`` ``theta += momentum velocity - learning_rate g``, as scikit-learn.

    Parameters
    ----------
    theta, velocity : ndarray
        Parameters and velocity, of one shape; they are overwritten. A velocity below
        1e-25 in float32, 1e-280 in float64, becomes zero.
    gradient : ndarray of the same shape
    learning_rate, momentum : float
    nesterov : bool

    Raises
    ------
    TypeError, ValueError
        As ``adam_update``.
    """
    _checked(theta=(theta, None), velocity=(velocity, None))
    *_, gradient = _checked(theta=(theta, None), gradient=(gradient, None))
    decays = (0.0, 0.0, 1.0, float(momentum))
    _check_state({"theta": theta, "velocity": velocity}, gradient)
    # there is no second moment
    flat = theta.reshape(-1), velocity.reshape(-1), np.empty(0, theta.dtype)
    calls.update(*flat, gradient, SGD, float(learning_rate), decays, bool(nesterov))


# ------------------------------------------------------------- for users' @njit code

overload(dense_forward, prefer_literal=True)(overloads.dense_forward)
overload(dense_backward, prefer_literal=True)(overloads.dense_backward)
overload(softmax_cross_entropy)(overloads.softmax_cross_entropy)
overload(logistic_cross_entropy)(overloads.logistic_cross_entropy)
overload(squared_error)(overloads.squared_error)
overload(poisson_loss)(overloads.poisson_loss)
overload(adam_update)(overloads.adam_update)
overload(sgd_update)(overloads.sgd_update)
