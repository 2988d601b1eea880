"""exp, log, tanh, logistic within the stated errors; activations and derivatives.

Truth is NumPy in long double. Where that is no wider than float64 it is itself wrong by
up to an eps, which the float64 bounds then allow for.
"""

import numba
import numpy as np
import pytest

from fastbp.kernels import simd
from fastbp.kernels.activations import (
    activate,
    apply_derivative,
    vexp,
    vexp_unlimited,
    vlog,
    vlogistic,
    vtanh,
)
from fastbp.kernels.simd import lanes_of, vload, vstore
from fastbp.tables import IDENTITY, LOGISTIC, RELU, TANH

DTYPES = [np.float32, np.float64]
KINDS = {"identity": IDENTITY, "logistic": LOGISTIC, "tanh": TANH, "relu": RELU}
EXP, LOG, TANH_OF, LOGISTIC_OF = range(4)
LONG = np.longdouble

#: The errors that the module promises, in units of the dtype's eps.
BOUNDS = {EXP: 1, LOG: 1, TANH_OF: 2, LOGISTIC_OF: 2}
TRUTHS = {
    EXP: np.exp,
    LOG: np.log,
    TANH_OF: np.tanh,
    LOGISTIC_OF: lambda x: 1 / (1 + np.exp(-x)),
}


@numba.njit(error_model="numpy")
def functions(x, out):
    """The four functions of x, one behind the other in out."""
    n = x.size
    for i in range(0, n, lanes_of(x)):
        z = vload(x, i)
        vstore(out, i, vexp(z))
        vstore(out, n + i, vlog(z))
        vstore(out, 2 * n + i, vtanh(z))
        vstore(out, 3 * n + i, vlogistic(z))


@numba.njit(error_model="numpy")
def call_activate(kind, Z, first, pitch, width, real, rows):
    activate(kind, Z, first, pitch, width, real, rows)


@numba.njit(error_model="numpy")
def call_derivative(kind, D, A, first, pitch, width, rows):
    apply_derivative(kind, D, A, first, pitch, width, rows)


def blocks(lanes):
    """(first, pitch, width, rows) of blocks in 16 registers, and a mask of each."""
    for block in (
        (0, lanes, lanes, 0),
        (0, lanes, lanes, 3),
        (1, 2 * lanes, 2 * lanes, 4),
        (3, 3 * lanes + 2, 2 * lanes, 5),
        (lanes, 5 * lanes, 3 * lanes, 2),
    ):
        first, pitch, width, rows = block
        inside = np.zeros(16 * lanes + 24, bool)
        for r in range(rows):
            inside[first + r * pitch : first + r * pitch + width] = True
        yield block, inside


def evaluate(x):
    """Rows of exp, log, tanh and logistic of the vector x."""
    lanes = simd.lanes(x.dtype)
    padded = np.ones(-(-x.size // lanes) * lanes, x.dtype)
    padded[: x.size] = x
    out = np.empty(4 * padded.size, x.dtype)
    functions(padded, out)
    return out.reshape(4, -1)[:, : x.size]


def worst_error(x, which):
    """Largest error of one function over x, in units of eps of the result."""
    info = np.finfo(x.dtype)
    truth = TRUTHS[which](x.astype(LONG))
    error = np.abs(evaluate(x)[which] - truth)
    # below the normal numbers, where eps has no meaning, one rounding is allowed
    return float((error / np.maximum(info.eps * np.abs(truth), info.tiny)).max())


def allowed(which, dtype):
    wide = np.finfo(LONG).eps < np.finfo(np.float64).eps
    return BOUNDS[which] + (0 if wide or dtype == np.float32 else 1)


def ends(dtype):
    """Where exp stops growing and falling: a little inside of ln max and ln tiny."""
    info = np.finfo(dtype)
    return np.log(float(info.tiny)), np.log(float(info.max))


def every_magnitude(rng, dtype, n):
    """Positive normal numbers with evenly distributed bit patterns."""
    integer = np.uint32 if dtype == np.float32 else np.uint64
    low, high = np.array([np.finfo(dtype).tiny, np.finfo(dtype).max]).view(integer)
    return rng.integers(low, high, n, dtype=integer).view(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_is_within_its_bound_from_end_to_end(dtype):
    rng = np.random.default_rng(0)
    low, high = ends(dtype)
    # the module's saturation begins up to 0.4 inside these ends
    x = rng.uniform(low + 0.1, high - 0.4, 400_000)
    x = np.concatenate([x, rng.uniform(-2, 2, 200_000), np.log(2) * np.arange(-99, 99)])
    x = x[(x > low + 0.1) & (x < high - 0.4)].astype(dtype)
    assert worst_error(x, EXP) <= allowed(EXP, dtype)
    small = every_magnitude(rng, dtype, 100_000)
    small = small[small < 1]
    assert worst_error(small, EXP) <= allowed(EXP, dtype)
    assert worst_error(-small, EXP) <= allowed(EXP, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_is_within_its_bound_for_all_normal_numbers(dtype):
    rng, eps = np.random.default_rng(1), np.finfo(dtype).eps
    assert worst_error(every_magnitude(rng, dtype, 400_000), LOG) <= allowed(LOG, dtype)
    near_one = (1 + rng.uniform(-0.5, 1, 400_000)).astype(dtype)
    beside_one = (1 + eps * np.arange(-2000, 2000) / 2).astype(dtype)
    assert worst_error(near_one, LOG) <= allowed(LOG, dtype)
    assert worst_error(beside_one, LOG) <= allowed(LOG, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("which", [TANH_OF, LOGISTIC_OF], ids=["tanh", "logistic"])
def test_tanh_and_logistic_are_within_their_bounds(dtype, which):
    rng = np.random.default_rng(2)
    highest = ends(dtype)[1] - 0.4  # beyond it logistic saturates
    x = rng.uniform(-highest, highest, 400_000)
    x = np.concatenate([x, rng.uniform(-1, 1, 200_000), rng.uniform(-10, 10, 200_000)])
    small = every_magnitude(rng, dtype, 200_000)
    small = small[small < 1]
    x = np.concatenate([x.astype(dtype), small, -small])
    assert worst_error(x, which) <= allowed(which, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_nan(dtype):
    exp, _, tanh, logistic = evaluate(np.array([np.nan, -np.nan, 0.0], dtype))
    for values in (exp, tanh, logistic):
        assert np.isnan(values[:2]).all()
        assert np.isfinite(values[2])


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_arguments_give_exact_results(dtype):
    exp, log, tanh, logistic = evaluate(np.array([0.0, -0.0, 1.0, 2.0, 0.25], dtype))
    assert (exp[:2] == 1).all()
    assert log[2] == 0
    assert log[3] == dtype(np.log(2))
    assert (tanh[:2] == 0).all()
    assert not np.signbit(tanh[0])
    assert np.signbit(tanh[1])
    assert (logistic[:2] == 0.5).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_saturates_at_finite_positive_values(dtype):
    info = np.finfo(dtype)
    low, high = ends(dtype)
    x = np.array([low - 1, -info.max, -np.inf, high + 1, info.max, np.inf], dtype)
    exp = evaluate(x)[EXP]
    assert (exp[:3] == exp[0]).all()
    assert (exp[3:] == exp[3]).all()
    assert 0 < exp[0] < 2 * info.tiny
    assert info.max / 2 < exp[3] <= info.max


@numba.njit(error_model="numpy")
def unlimited(x, out):
    for i in range(0, x.size, lanes_of(x)):
        vstore(out, i, vexp_unlimited(vload(x, i)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_unlimited_exp_is_numpys_from_zero_to_infinity(dtype):
    rng, info = np.random.default_rng(6), np.finfo(dtype)
    low, high = ends(dtype)
    special = [np.inf, -np.inf, np.nan, info.max, -info.max, 0.0, -0.0, high + 1]
    x = np.concatenate(
        [
            *(special, special),
            rng.uniform(low - 20, high + 20, 2**18),
            np.linspace(high * (1 - 1e-5), high * (1 + 1e-5), 2**16),
            np.linspace(low * (1 - 1e-3), low * (1 + 1e-3), 2**16),
        ]
    ).astype(dtype)
    found = np.empty_like(x)
    unlimited(x, found)
    with np.errstate(over="ignore", under="ignore"):
        numpys, truth = np.exp(x), np.exp(x.astype(LONG))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(numpys))
    # 0 instead of denormal numbers, and a little before
    assert (truth[found == 0] < 1.11 * float(info.tiny)).all()
    normal = (found != 0) & np.isfinite(found)
    assert (found[normal] >= info.tiny).all()
    error = np.abs(found[normal] - truth[normal])
    assert (error <= allowed(EXP, dtype) * info.eps * truth[normal]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_and_logistic_reach_their_limits(dtype):
    info = np.finfo(dtype)
    _, _, tanh, logistic = evaluate(
        np.array([50, 1e4, info.max, np.inf, -50, -1e4, -info.max, -np.inf], dtype)
    )
    np.testing.assert_array_equal(tanh, np.repeat([1, -1], 4))
    assert (logistic[:4] == 1).all()
    assert (logistic[5:] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_stay_inside_their_ranges(dtype):
    rng = np.random.default_rng(3)
    x = np.sort(rng.uniform(-120, 120, 200_000)).astype(dtype)
    exp, _, tanh, logistic = evaluate(x)
    assert (exp > 0).all()
    assert (np.abs(tanh) <= 1).all()
    assert ((logistic >= 0) & (logistic <= 1)).all()
    np.testing.assert_array_equal(evaluate(-x)[TANH_OF], -tanh)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_activate_changes_only_its_block(dtype, kind):
    rng = np.random.default_rng(4)
    for (first, pitch, width, rows), inside in blocks(simd.lanes(dtype)):
        for padding in range(simd.lanes(dtype)):
            Z = rng.uniform(-5, 5, inside.size).astype(dtype)
            A, expected = Z.copy(), Z.copy()
            real = width - padding
            call_activate(KINDS[kind], A, first, pitch, width, real, rows)
            if kind == "tanh":
                expected[inside] = evaluate(Z)[TANH_OF][inside]
            elif kind == "logistic":
                expected[inside] = evaluate(Z)[LOGISTIC_OF][inside]
                columns = np.arange(real, width)
                expected[first + pitch * np.arange(rows)[:, None] + columns] = 0
            # identity changes nothing; relu was applied when the tile was stored
            np.testing.assert_array_equal(A, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_derivative_multiplies_only_its_block(dtype, kind):
    rng = np.random.default_rng(5)
    for block, inside in blocks(simd.lanes(dtype)):
        z = rng.uniform(-4, 4, inside.size)
        A = {
            "identity": z,
            "logistic": 1 / (1 + np.exp(-z)),
            "tanh": np.tanh(z),
            "relu": np.maximum(z, 0),
        }[kind].astype(dtype)
        delta = rng.standard_normal(inside.size).astype(dtype)
        a = A.astype(LONG)
        slope = {
            "identity": np.ones_like(a),
            "logistic": a * (1 - a),
            "tanh": 1 - a * a,
            "relu": (a > 0).astype(LONG),
        }[kind]
        D, expected = delta.copy(), delta.astype(LONG)
        call_derivative(KINDS[kind], D, A, *block)
        expected[inside] *= slope[inside]
        # a difference and two products; 1 - a^2 keeps the absolute error of its square
        bound = 2 * np.finfo(dtype).eps * np.abs(delta) * inside
        if kind in ("identity", "relu"):
            bound[:] = 0
        assert (np.abs(D - expected) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_passes_nothing_where_its_output_is_zero(dtype):
    lanes = simd.lanes(dtype)
    A, D = np.zeros(lanes, dtype), np.full(lanes, np.finfo(dtype).max, dtype)
    A[1] = np.finfo(dtype).tiny
    expected = np.where(A > 0, D, 0)
    call_derivative(RELU, D, A, 0, lanes, lanes, 1)
    np.testing.assert_array_equal(D, expected)
