"""The steps of backpropagation on plain NumPy arrays.

Each function can be called from Python, where shapes and dtypes are checked, and from
your own ``@numba.njit`` functions, where a wrong dtype does not compile and a wrong shape
raises ValueError. They run on the same register tiles as the estimators, in parallel: on
fastbp's own threads, or called from ``@njit(parallel=True)`` code on Numba's. The bits of
a result do not depend on the number of threads.

B rows in the batch, I inputs, O outputs. All floating arrays of a call have one dtype,
float32 or float64; inside ``@njit`` they must be C-contiguous.
"""

import math
from collections import deque
from itertools import combinations

import numpy as np
from numba import njit, types
from numba.core.cpu_options import ParallelOptions
from numba.core.errors import TypingError
from numba.extending import overload

from fastbp import cache, launch, threads
from fastbp.kernels import arrays as _arrays
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
    UPDATE_RUN,
    Product,
    Room,
)

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

# Of Numba's rewrites for parallel code none but prange; not even that where accesses are
# checked, as an error in a parallel loop would be lost.
_PARALLEL = ParallelOptions(False)
_PARALLEL.enabled = _PARALLEL.prange = not CHECKED
_OPTIONS = {"parallel": _PARALLEL, "error_model": "numpy", "nogil": True}
_multiply = njit(**_OPTIONS)(_arrays.multiply_in_prange)
_loss_and_delta = njit(**_OPTIONS)(_arrays.loss_and_delta_in_prange)
_update_all = njit(**_OPTIONS)(_arrays.update_in_prange)

_DTYPES = frozenset(map(np.dtype, (np.float32, np.float64)))
#: Rows of a product or a loss that one task takes at most.
_BLOCK_ROWS = 192
#: Multiply-adds that last as long as an element of a loss: two functions, and its moves
#: between rows and registers.
_LOSS_FLOPS = 150
#: The same of an element of an update, which waits for memory.
_UPDATE_FLOPS = 16
#: Bytes of a cache line.
_LINE = 64
#: Scratch memory that is kept between two calls, and of how many bytes at most. A call
#: takes it away, so that no other can have it too.
_spare: deque = deque(maxlen=1)
_SPARE_BYTES = 1 << 25
_NO_MEMORY = np.empty(0, np.uint8)
#: Seconds of a call that are worth calling for help, which wakes threads.
_WORTH_HELP = 5e-4


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


def _activation_number(activation):
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {ACTIVATIONS}, got {activation!r}.")
    return ACTIVATIONS.index(activation)


def _flat(array):
    """A read-only flat view, so that all inputs of a program have one type."""
    view = array.reshape(-1)
    view.setflags(write=False)
    return view


def _borrow(dtype, *sizes):
    """Memory to give back after the call, and arrays of ``sizes`` elements in it.

    Fresh memory costs more than a small product: the system clears each page of it.
    """
    line = _LINE // dtype.itemsize  # each begins on a line of its own
    n_bytes = (sum(sizes) + len(sizes) * line) * dtype.itemsize
    try:
        memory = _spare.pop()
    except IndexError:  # another thread has it, or nobody has used any
        memory = _NO_MEMORY
    if memory.size < n_bytes:
        memory = np.empty(n_bytes + _LINE, np.uint8)
        memory = memory[-memory.ctypes.data % _LINE :]
    elements, arrays, at = memory[:n_bytes].view(dtype), [], 0
    for size in sizes:
        arrays.append(elements[at : at + size])
        at += -(-size // line) * line
    return memory, arrays


def _give_back(memory):
    if memory.size <= _SPARE_BYTES:
        _spare.append(memory)


def _run(name, dtype, args, state, n_threads, flops):
    """Call a program on a team whose region is open in its ``state``."""
    seconds = launch.serial_seconds(flops, dtype)
    if n_threads == 1:  # not worth counting
        cache.ready(name, dtype, (*args, state, 1, 0))(*args, state, 1, 0)
    else:
        threads.Team(name, dtype, state).call((*args, state), n_threads, seconds)


def _threads_for(flops, dtype):
    """Threads that so much work is worth."""
    if launch.serial_seconds(flops, dtype) < _WORTH_HELP:
        return 1
    return launch.thread_limit()


def _block_rows(rows, n_threads, grain):
    """Rows of a task: whole tiles, and as many tasks for each thread, two at least."""
    tasks_each = -(-rows // (n_threads * _BLOCK_ROWS))
    if n_threads > 1:
        tasks_each = max(2, tasks_each)
    share = -(-rows // (n_threads * tasks_each))
    return max(1, -(-share // grain)) * grain


def _run_multiply(left, right, bias, kind, other, size, ones=0):
    """f(left @ right + bias), or left @ right * f'(other) if there is an ``other``.

    The last row of ``left`` is of ``ones`` if that is 1; the array does not hold it.
    """
    rows, inner, columns = size
    dtype = left[0].dtype
    out = np.empty((rows, columns), dtype)
    if out.size == 0:
        return out
    flops = 2.0 * rows * inner * columns
    n_threads = _threads_for(flops, dtype)
    tile = launch.tile_shape(dtype)
    block = _block_rows(rows, n_threads, tile.rows)
    padded = -(-columns // tile.lanes) * tile.lanes
    whole = -(-inner // tile.panel) * tile.panel
    memory, scratch = _borrow(
        dtype,
        padded * (inner + 1),
        n_threads * block * whole,
        n_threads * block * (padded + 2 * tile.panel),
    )
    room = Room(*scratch, block)
    slope = other is not None
    product = Product(
        *(*left, *right, _flat(bias), _flat(other) if slope else left[0]),
        *(kind, slope, ones, *size),
    )
    state = threads.team_state(-(-padded // tile.panel))
    args = out.reshape(-1), product, room
    _run("multiply_all", dtype, args, state, n_threads, flops)
    _give_back(memory)
    return out


def _matrix(array):
    """A matrix as an operand: (flat array, stride of rows, stride of columns)."""
    return _flat(array), array.shape[1], 1


def _transposed(array):
    """Its transpose as an operand."""
    return _flat(array), 1, array.shape[1]


# ------------------------------------------------------------- dense layers


def dense_forward(X, W, b, activation="identity"):
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
    return _run_multiply(_matrix(X), _matrix(W), b, kind, None, size)


def dense_backward(dZ, X, W, activation="identity"):
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
    dX = _run_multiply(_matrix(dZ), _transposed(W), none, kind, X, size)
    size = inputs + 1, rows, outputs
    both = _run_multiply(
        *(_transposed(X), _matrix(dZ), none, IDENTITY, None, size), ones=1
    )
    return dX, both[:-1], both[-1]


@overload(dense_forward, prefer_literal=True)
def _overload_dense_forward(X, W, b, activation="identity"):
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


@overload(dense_backward, prefer_literal=True)
def _overload_dense_backward(dZ, X, W, activation="identity"):
    _require_arrays("dense_backward", (dZ, 2), (X, 2), (W, 2))
    kind = _literal_activation(activation)

    def implementation(dZ, X, W, activation="identity"):
        rows, inputs, outputs = X.shape[0], X.shape[1], dZ.shape[1]
        if dZ.shape[0] != rows or W.shape[0] != inputs or W.shape[1] != outputs:
            raise ValueError("dense_backward takes dZ (B, O), X (B, I) and W (I, O)")
        d, x, w = dZ.reshape(-1), X.reshape(-1), W.reshape(-1)
        none, total = np.zeros(0, X.dtype), inputs * outputs
        dX, size = np.empty((rows, inputs), X.dtype), (rows, outputs, inputs)
        _multiply(
            dX.reshape(-1),
            Product(d, outputs, 1, w, 1, outputs, none, x, kind, True, 0, *size),
        )
        both, size = np.empty(total + outputs, X.dtype), (inputs + 1, rows, outputs)
        _multiply(both, Product(x, 1, inputs, d, outputs, 1, none, x, 0, False, 1, *size))
        return dX, both[:total].reshape(inputs, outputs), both[total:]

    return implementation


# ------------------------------------------------------------- losses


def _run_loss(logits, targets, kind):
    """(mean loss, gradient), of the kinds of ``tables``."""
    loss, delta, dtype = np.zeros(1), np.empty_like(logits), logits.dtype
    rows, outputs = logits.shape
    flops = _LOSS_FLOPS * logits.size
    n_threads, tile = _threads_for(flops, dtype), launch.tile_shape(dtype)
    block = _block_rows(rows, n_threads, tile.lanes)
    losses = np.empty(-(-rows // tile.lanes))
    memory, (scratch,) = _borrow(dtype, n_threads * (2 * outputs + 1) * tile.lanes)
    args = loss, delta.reshape(-1), _flat(logits), _flat(targets), kind, logits.shape
    args = *args, block, losses, scratch
    state = threads.team_state(-(-rows // block))
    _run("loss_and_delta", dtype, args, state, n_threads, flops)
    _give_back(memory)
    return float(loss[0]), delta


def softmax_cross_entropy(logits, y):
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
    _check_shape("y", y, (len(logits),), f"logits has {len(logits)} rows")
    if len(y) and not (y.min() >= 0 and y.max() < logits.shape[1]):
        raise ValueError(
            f"y must hold class numbers from 0 to {logits.shape[1] - 1}, "
            f"got values from {y.min()} to {y.max()}."
        )
    return _run_loss(logits, y.astype(logits.dtype), SOFTMAX)


def logistic_cross_entropy(logits, Y):
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
    _check_shape("Y", Y, logits.shape, "logits has that shape")
    if not np.isin(Y, (0, 1)).all():
        raise ValueError("Y must hold zeros and ones only.")
    return _run_loss(logits, Y, LOG_LOSS)


def squared_error(output, Y):
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
    _check_shape("Y", Y, output.shape, "output has that shape")
    return _run_loss(output, Y, SQUARED_ERROR)


def poisson_loss(logits, Y):
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
    _check_shape("Y", Y, logits.shape, "logits has that shape")
    if (Y < 0).any():
        raise ValueError("Y must not hold negative numbers.")
    return _run_loss(logits, Y, POISSON)


@overload(softmax_cross_entropy)
def _overload_softmax_cross_entropy(logits, y):
    _require_arrays("softmax_cross_entropy", (logits, 2))
    if not (isinstance(y, types.Array) and isinstance(y.dtype, types.Integer)):
        raise TypingError("softmax_cross_entropy: y must be an array of integers")

    def implementation(logits, y):
        if y.shape[0] != logits.shape[0]:
            raise ValueError("softmax_cross_entropy takes logits (B, O) and y (B,)")
        for label in y:
            if label < 0 or label >= logits.shape[1]:
                raise ValueError("y must hold class numbers from 0 to O - 1")
        loss, delta = np.zeros(1), np.empty_like(logits)
        targets = y.astype(logits.dtype)
        flat = logits.reshape(-1)
        _loss_and_delta(
            loss, delta.reshape(-1), flat, targets, SOFTMAX, logits.shape, _BLOCK_ROWS
        )
        return loss[0], delta

    return implementation


def _overload_of_loss(function, kind):
    name = function.__name__

    @overload(function)
    def overloaded(logits, Y):
        _require_arrays(name, (logits, 2), (Y, 2))

        def implementation(logits, Y):
            if Y.shape != logits.shape:
                raise ValueError("outputs and targets must have the same shape")
            loss, delta = np.zeros(1), np.empty_like(logits)
            flat, targets = logits.reshape(-1), Y.reshape(-1)
            _loss_and_delta(
                loss, delta.reshape(-1), flat, targets, kind, logits.shape, _BLOCK_ROWS
            )
            return loss[0], delta

        return implementation


_overload_of_loss(logistic_cross_entropy, LOG_LOSS)
_overload_of_loss(poisson_loss, POISSON)


@overload(squared_error)
def _overload_squared_error(output, Y):
    _require_arrays("squared_error", (output, 2), (Y, 2))

    def implementation(output, Y):
        if Y.shape != output.shape:
            raise ValueError("squared_error takes output and Y of one shape")
        loss, delta = np.zeros(1), np.empty_like(output)
        flat, targets = output.reshape(-1), Y.reshape(-1)
        _loss_and_delta(
            *(loss, delta.reshape(-1), flat, targets),
            *(SQUARED_ERROR, output.shape, _BLOCK_ROWS),
        )
        return loss[0], delta

    return implementation


# ------------------------------------------------------------- updates


def _run_update(state, gradient, kind, rate, decays, nesterov):
    """Update the arrays of ``state`` in place; each must be C-contiguous."""
    for name, array in state.items():
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise ValueError(f"{name} must be C-contiguous and writeable.")
        _check_shape(name, array, gradient.shape, "the gradient has that shape")
    for (name, array), (other, another) in combinations(
        {**state, "gradient": gradient}.items(), 2
    ):
        if np.may_share_memory(array, another):  # exact, as both are contiguous
            raise ValueError(
                f"{name} and {other} must not share memory, as they are read and "
                f"overwritten side by side: pass a copy of {other}."
            )
    theta, m, *v = (array.reshape(-1) for array in state.values())
    v = v[0] if v else np.empty(0, theta.dtype)  # SGD has no second moment
    dtype = theta.dtype
    buffer = np.ones((4, launch.tile_shape(dtype).lanes), dtype)
    args = theta, m, v, _flat(gradient), kind, rate, decays, nesterov, buffer
    flops = _UPDATE_FLOPS * theta.size
    n_threads = _threads_for(flops, dtype)
    state = threads.team_state(-(-theta.size // UPDATE_RUN))
    _run("update_all", dtype, args, state, n_threads, flops)


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
    """One step of Adam, in place (Kingma and Ba, 2015).

    ``m = beta_1 m + (1 - beta_1) g``, ``v = beta_2 v + (1 - beta_2) g**2``,
    ``theta -= rate m / (sqrt(v) + epsilon)`` with
    ``rate = learning_rate sqrt(1 - beta_2**t) / (1 - beta_1**t)``, as scikit-learn.

    Parameters
    ----------
    theta, m, v : ndarray
        Parameters and moments, of one shape; they are overwritten. A moment so small that
        it would become denormal becomes zero.
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
    state = {"theta": theta, "m": m, "v": v}
    _run_update(state, gradient, ADAM, float(rate), decays, False)


def sgd_update(
    theta, velocity, gradient, learning_rate=0.001, momentum=0.9, nesterov=True
):
    """One step of gradient descent with momentum, in place.

    ``velocity = momentum velocity - learning_rate g``; ``theta += velocity``, or with
    ``nesterov`` ``theta += momentum velocity - learning_rate g``, as scikit-learn.

    Parameters
    ----------
    theta, velocity : ndarray
        Parameters and velocity, of one shape; they are overwritten.
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
    state = {"theta": theta, "velocity": velocity}
    _run_update(state, gradient, SGD, float(learning_rate), decays, bool(nesterov))


def _share_memory(a, b):
    """Whether two contiguous arrays share memory, for ``@njit`` code."""
    a_starts, b_starts = a.ctypes.data, b.ctypes.data
    a_ends, b_ends = a_starts + a.size * a.itemsize, b_starts + b.size * b.itemsize
    return a_starts < b_ends and b_starts < a_ends


_overlap = njit(error_model="numpy")(_share_memory)


@overload(adam_update)
def _overload_adam_update(
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
            ADAM,
            rate,
            (beta_1, beta_2, epsilon, 0.0),
            False,
        )

    return implementation


@overload(sgd_update)
def _overload_sgd_update(
    theta, velocity, gradient, learning_rate=0.001, momentum=0.9, nesterov=True
):
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
            SGD,
            learning_rate,
            (0.0, 0.0, 1.0, momentum),
            nesterov,
        )

    return implementation


# ------------------------------------------------------------- checks under @njit


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
