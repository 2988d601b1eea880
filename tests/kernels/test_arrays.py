"""The public array kernels, from Python and from ``@njit``, against NumPy."""

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError
from scipy.special import expit, log_softmax, softmax, xlogy

from fastbp import kernels, launch
from fastbp.kernels import calls

ACTIVATIONS = {
    "identity": (lambda z: z, np.ones_like),
    "logistic": (expit, lambda a: a * (1 - a)),
    "tanh": (np.tanh, lambda a: 1 - a**2),
    "relu": (lambda z: np.maximum(z, 0), lambda a: (a > 0).astype(a.dtype)),
}
DTYPES = [np.float32, np.float64]


def sizes():
    """Every size around the tile in each dimension, and some panels."""
    tile = launch.tile_shape(np.dtype("f8"))
    for n in range(1, 2 * tile.rows + 2):
        yield n, 3, 2
        yield 3, n, 5
    for n in range(1, 2 * tile.panel + 2):
        yield 2, 3, n
    yield 101, 77, 150
    deep = 2 * tile.depth + 33  # summed in parts
    yield 3, deep, 5
    yield deep, 3, 5
    yield 0, 3, 2


def close(dtype, inner):
    """Tolerance for sums of ``inner`` products of standard normal numbers.

    One rounding per term, at a partial sum of about sqrt(inner).
    """
    return {"rtol": 0, "atol": 4 * (inner + 4) * np.finfo(dtype).eps}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_layer_equals_numpy_for_every_size(rng, dtype, activation):
    f, slope = ACTIVATIONS[activation]
    for rows, inputs, outputs in sizes():
        X = f(rng.standard_normal((rows, inputs))).astype(dtype)
        W = rng.standard_normal((inputs, outputs)).astype(dtype)
        b = rng.standard_normal(outputs).astype(dtype)
        A = kernels.dense_forward(X, W, b, activation)
        assert A.dtype == dtype
        expected = f(X.astype("f8") @ W.astype("f8") + b)
        np.testing.assert_allclose(A, expected, **close(dtype, inputs))

        dZ = rng.standard_normal((rows, outputs)).astype(dtype)
        dX, dW, db = kernels.dense_backward(dZ, X, W, activation)
        D = dZ.astype("f8")
        np.testing.assert_allclose(dX, (D @ W.T) * slope(X), **close(dtype, outputs))
        np.testing.assert_allclose(dW, X.T.astype("f8") @ D, **close(dtype, rows))
        np.testing.assert_allclose(db, D.sum(axis=0), **close(dtype, rows))


def test_relu_passes_nan_on():
    X = np.array([[np.nan, 1.0]])
    A = kernels.dense_forward(X, np.ones((2, 1)), np.zeros(1), "relu")
    assert np.isnan(A).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "outputs"), [(1, 1), (7, 3), (50, 10), (9, 100)])
def test_losses_equal_their_formulas(rng, dtype, rows, outputs):
    Z = rng.standard_normal((rows, outputs)).astype(dtype)
    y = rng.integers(outputs, size=rows)
    Y = (rng.random((rows, outputs)) < 0.5).astype(dtype)
    Z8 = Z.astype("f8")
    # a few roundings of exp, log and the sum over the outputs
    near = {"rtol": 20 * np.finfo(dtype).eps, "atol": 20 * np.finfo(dtype).eps}

    loss, d = kernels.softmax_cross_entropy(Z, y)
    expected = -log_softmax(Z8, axis=1)[np.arange(rows), y].mean()
    np.testing.assert_allclose(loss, expected, **near)
    onehot = np.eye(outputs)[y]
    np.testing.assert_allclose(d, (softmax(Z8, axis=1) - onehot) / rows, **near)

    loss, d = kernels.logistic_cross_entropy(Z, Y)
    expected = (np.logaddexp(0, Z8) - Y * Z8).sum() / rows
    np.testing.assert_allclose(loss, expected, **near)
    np.testing.assert_allclose(d, (expit(Z8) - Y) / rows, **near)

    loss, d = kernels.squared_error(Z, Y)
    np.testing.assert_allclose(loss, 0.5 * ((Z8 - Y) ** 2).sum() / rows, **near)
    np.testing.assert_allclose(d, (Z8 - Y) / rows, **near)

    counts = rng.poisson(1.0, (rows, outputs)).astype(dtype)
    loss, d = kernels.poisson_loss(Z, counts)
    expected = (xlogy(counts, counts) - counts * Z8 - counts + np.exp(Z8)).sum() / rows
    np.testing.assert_allclose(loss, expected, **near)
    np.testing.assert_allclose(d, (np.exp(Z8) - counts) / rows, **near)


def test_softmax_stays_finite_for_distant_logits():
    Z = np.array([[1e4, -1e4, 0.0], [-1e300, 1e300, 0.0]])
    loss, d = kernels.softmax_cross_entropy(Z, np.array([1, 1]))
    assert np.isfinite(loss)
    # a probability is limited to eps, so a hopeless row costs -log(eps)
    np.testing.assert_allclose(loss, -np.log(np.finfo("f8").eps) / 2, rtol=1e-12)
    np.testing.assert_allclose(d[0], [0.5, -0.5, 0], atol=1e-300)


@pytest.mark.parametrize(
    "loss", ["logistic_cross_entropy", "poisson_loss", "squared_error"]
)
def test_gradient_of_a_loss_is_its_finite_difference(rng, loss):
    function = getattr(kernels, loss)
    Z, Y = rng.standard_normal((4, 3)), (rng.random((4, 3)) < 0.5) * 1.0
    _, d = function(Z, Y)
    h = 1e-6
    for i in np.ndindex(Z.shape):
        up, down = Z.copy(), Z.copy()
        up[i] += h
        down[i] -= h
        slope = (function(up, Y)[0] - function(down, Y)[0]) / (2 * h)
        # truncation h^2, rounding eps / h
        np.testing.assert_allclose(d[i], slope, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 16, 17, 4096, 4099, 10_000])
def test_updates_equal_their_formulas(rng, dtype, size):
    theta, m, velocity, g = rng.standard_normal((4, size)).astype(dtype)
    v = rng.random(size).astype(dtype)
    near = {"rtol": 20 * np.finfo(dtype).eps, "atol": 20 * np.finfo(dtype).eps}

    new = [a.copy() for a in (theta, m, v)]
    kernels.adam_update(*new, g, t=3, learning_rate=0.01)
    m_new, v_new = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    rate = 0.01 * np.sqrt(1 - 0.999**3) / (1 - 0.9**3)
    expected = theta - rate * m_new / (np.sqrt(v_new) + 1e-8)
    for got, want in zip(new, (expected, m_new, v_new), strict=True):
        np.testing.assert_allclose(got, want, **near)

    for nesterov in (False, True):
        new = [theta.copy(), velocity.copy()]
        kernels.sgd_update(*new, g, learning_rate=0.1, nesterov=nesterov)
        moved = 0.9 * velocity - 0.1 * g
        step = 0.9 * moved - 0.1 * g if nesterov else moved
        np.testing.assert_allclose(new[0], theta + step, **near)
        np.testing.assert_allclose(new[1], moved, **near)


@numba.njit(parallel=True)
def _step_in_user_code(X, y, W, b, m, v):
    Z = kernels.dense_forward(X, W, b)
    loss, dZ = kernels.softmax_cross_entropy(Z, y)
    dX, dW, db = kernels.dense_backward(dZ, X, W, "tanh")
    kernels.adam_update(W, m, v, dW, 1)
    kernels.sgd_update(b, np.zeros_like(b), db, 0.1)
    other, _ = kernels.squared_error(Z, Z + 1)
    third, _ = kernels.logistic_cross_entropy(Z, np.zeros_like(Z))
    fourth, _ = kernels.poisson_loss(Z, Z * Z)
    return loss, dX, other, third, fourth


# Numba finds nothing to parallelise in the function above itself, only in its callees
@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPerformanceWarning")
def test_kernels_called_from_user_njit_code_give_the_same_bits(rng):
    X, y = np.tanh(rng.standard_normal((20, 6))), rng.integers(5, size=20)
    W, b = rng.standard_normal((6, 5)), rng.standard_normal(5)
    m, v = np.zeros_like(W), np.zeros_like(W)
    W_njit, b_njit = W.copy(), b.copy()
    got = _step_in_user_code(X, y, W_njit, b_njit, m.copy(), v.copy())

    Z = kernels.dense_forward(X, W, b)
    loss, dZ = kernels.softmax_cross_entropy(Z, y)
    dX, dW, db = kernels.dense_backward(dZ, X, W, "tanh")
    kernels.adam_update(W, m, v, dW, 1)
    kernels.sgd_update(b, np.zeros_like(b), db, 0.1)
    others = (
        kernels.squared_error(Z, Z + 1)[0],
        kernels.logistic_cross_entropy(Z, 0 * Z)[0],
        kernels.poisson_loss(Z, Z * Z)[0],
    )
    assert got[0] == loss
    assert got[2:] == others
    np.testing.assert_array_equal(got[1], dX)
    np.testing.assert_array_equal(W_njit, W)
    np.testing.assert_array_equal(b_njit, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bits_do_not_depend_on_the_number_of_threads(rng, dtype, monkeypatch):
    # shapes with a rest in every direction, and sums in parts
    X, W = rng.standard_normal((130, 801)), rng.standard_normal((801, 101))
    X, W, b = X.astype(dtype), W.astype(dtype), np.ones(101, dtype)
    y = rng.integers(101, size=130)

    def results(n_threads):
        monkeypatch.setattr(calls, "_threads_for", lambda *args: n_threads)
        Z = kernels.dense_forward(X, W, b, "tanh")
        loss, dZ = kernels.softmax_cross_entropy(Z, y)
        dX, dW, db = kernels.dense_backward(dZ, X, W, "tanh")
        theta, m, v = W.copy(), np.zeros_like(W), np.zeros_like(W)
        kernels.adam_update(theta, m, v, dW, 1)
        return Z, loss, dZ, dX, dW, db, theta, m, v

    monkeypatch.setattr(launch, "_cores", lambda: 3)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
    alone = results(1)
    for n_threads in (2, 3):
        for one, other in zip(alone, results(n_threads), strict=True):
            np.testing.assert_array_equal(one, other)


def test_wrong_types_in_user_njit_code_do_not_compile():
    @numba.njit
    def mixed(X, W, b):
        return kernels.dense_forward(X, W, b)

    X, W, b = np.ones((2, 2)), np.ones((2, 2), np.float32), np.ones(2)
    with pytest.raises(TypingError, match="dense_forward takes C-contiguous arrays"):
        mixed(X, W, b)
    with pytest.raises(TypingError, match="dense_forward takes C-contiguous arrays"):
        mixed(X, X.T, b)


def test_wrong_shapes_in_user_njit_code_raise():
    @numba.njit
    def forward(X, W, b):
        return kernels.dense_forward(X, W, b)

    with pytest.raises(ValueError, match=r"dense_forward takes X \(B, I\)"):
        forward(np.ones((2, 3)), np.ones((2, 3)), np.ones(3))


@pytest.mark.parametrize("pair", ["theta m", "theta gradient", "m v", "v gradient"])
def test_overlapping_arrays_are_not_updated(pair):
    # what one register writes another would read, by then or not yet
    memory = np.zeros(50)
    arrays = {name: np.zeros(40) for name in ("theta", "m", "v", "gradient")}
    one, other = pair.split()
    arrays[one], arrays[other] = memory[:40], memory[10:]
    with pytest.raises(ValueError, match=f"{one} and {other} must not share memory"):
        kernels.adam_update(*arrays.values(), 1)
    assert not memory.any()
    with pytest.raises(ValueError, match="theta and gradient must not share memory"):
        kernels.sgd_update(memory, np.zeros(50), memory)


def test_overlapping_arrays_in_user_njit_code_raise():
    @numba.njit
    def update(theta, velocity, gradient):
        kernels.sgd_update(theta, velocity, gradient)

    memory = np.ones(50)
    update(memory[:20], memory[20:40], np.ones(20))
    np.testing.assert_array_equal(memory[40:], 1)
    with pytest.raises(ValueError, match="do not share memory"):
        update(memory[:40], np.ones(40), memory[10:])


X, W, B = np.ones((4, 3)), np.ones((3, 2)), np.ones(2)
UNALIGNED = np.frombuffer(bytearray(25), np.uint8)[1:].view("f8")
BAD_CALLS = [
    ("dense_forward", ([[1.0]], W, B), TypeError, "X must be a NumPy array, got list"),
    ("dense_forward", (X.astype(int), W, B), TypeError, "X must have dtype float32 or"),
    ("dense_forward", (X, W.astype("f4"), B), TypeError, "must have one dtype"),
    ("dense_forward", (X[0], W, B), ValueError, "X must have 2 dimensions, got shape"),
    ("dense_forward", (X, W.T, B), ValueError, "W must have shape .* X has 3 columns"),
    ("dense_forward", (X, W, X[0]), ValueError, "b must have shape .* W has 2 columns"),
    ("dense_forward", (X, W, B, "selu"), ValueError, "activation must be one of"),
    ("dense_backward", (X, X, W), ValueError, "W must have shape"),
    ("dense_backward", (X[:2], X, W), ValueError, "dZ must have shape"),
    ("softmax_cross_entropy", (X, np.ones(4)), TypeError, "y must hold integer"),
    ("softmax_cross_entropy", (X, np.array([0, 1])), ValueError, "y must have shape"),
    ("softmax_cross_entropy", (X, np.array([0, 1, 2, 3])), ValueError, "from 0 to 2"),
    ("softmax_cross_entropy", (X, np.array([0, 1, 2, -1])), ValueError, "from 0 to 2"),
    ("logistic_cross_entropy", (X, X / 2), ValueError, "zeros and ones only"),
    ("poisson_loss", (X, -X), ValueError, "must not hold negative"),
    ("poisson_loss", (X, X[:, :1]), ValueError, "Y must have shape"),
    ("squared_error", (X, X[:, :1]), ValueError, "Y must have shape"),
    ("squared_error", (X[:0], X[:0]), ValueError, "at least one row"),
    ("softmax_cross_entropy", (X[:0], np.arange(0)), ValueError, "at least one row"),
    ("adam_update", (X, X, X, X, 0), ValueError, "t counts steps from 1"),
    ("adam_update", (X, X, X, X, np.nan), ValueError, "t counts steps from 1, got nan"),
    ("adam_update", (X, X, X, X, 1, 0.1, 1.0), ValueError, r"beta_1 must be in \[0, 1\)"),
    ("adam_update", (X, X, X[:1], X, 1), ValueError, "v must have shape"),
    ("adam_update", (X.T, X.T, X.T, X.T, 1), ValueError, "theta must be C-contiguous"),
    ("sgd_update", (UNALIGNED, np.ones(3), np.ones(3)), ValueError, "must be .* aligned"),
    ("sgd_update", (X, X, X[:1]), ValueError, "theta must have shape"),
]


@pytest.mark.parametrize(("name", "arguments", "error", "message"), BAD_CALLS)
def test_bad_input_raises_a_named_error(name, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(kernels, name)(*arguments)


def test_inputs_may_have_any_layout_and_are_not_modified(rng):
    X, W, b = rng.standard_normal((8, 6)), rng.standard_normal((6, 4)), np.zeros(4)
    expected = kernels.dense_forward(X, W, b)
    before = X.copy()
    X.flags.writeable = False
    for layout in (np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X):
        np.testing.assert_array_equal(kernels.dense_forward(layout, W, b), expected)
    np.testing.assert_array_equal(X, before)
