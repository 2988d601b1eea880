"""The register vocabulary: every operation does to each lane what its name says."""

import operator

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

from fastbp.kernels import simd
from fastbp.kernels.simd import (
    constant,
    copysign,
    first_lanes,
    fma,
    lane_sum,
    lanes_of,
    polynomial,
    select,
    shift_into_exponent,
    splat,
    split_exponent,
    transpose_square,
    vabs,
    vload,
    vsqrt,
    vstore,
)

DTYPES = [np.float32, np.float64]
COEFFICIENTS = (0.5, -1.25, 3.0, 0.1)

#: What ``elementwise`` writes, one register each, in this order.
ELEMENTWISE = {
    "copy": lambda a, b: a,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "less": lambda a, b: np.where(a < b, a, b),
    "greater": lambda a, b: np.where(a > b, a, b),
    "equal": lambda a, b: np.where(a == b, a, b),
    "sqrt": lambda a, b: np.sqrt(a),
    "abs": lambda a, b: np.abs(a),
    "copysign": np.copysign,
    "splat": lambda a, b: np.full_like(a, a[0]),
    "constant": lambda a, b: np.full_like(a, 0.1),
}


@numba.njit(error_model="numpy")
def elementwise(a, b, out):
    """Each operation of ELEMENTWISE on the first registers of a and b."""
    x, y = vload(a, 0), vload(b, 0)
    lanes = lanes_of(a)
    vstore(out, 0 * lanes, x)
    vstore(out, 1 * lanes, x + y)
    vstore(out, 2 * lanes, x - y)
    vstore(out, 3 * lanes, x * y)
    vstore(out, 4 * lanes, x / y)
    vstore(out, 5 * lanes, select(x < y, x, y))
    vstore(out, 6 * lanes, select(x > y, x, y))
    vstore(out, 7 * lanes, select(x == y, x, y))
    vstore(out, 8 * lanes, vsqrt(x))
    vstore(out, 9 * lanes, vabs(x))
    vstore(out, 10 * lanes, copysign(x, y))
    vstore(out, 11 * lanes, splat(a[0]))
    vstore(out, 12 * lanes, constant(x, 0.1))


@numba.njit(error_model="numpy")
def bits(a, first, out, to):
    """Scalings by powers of two on the register at a[first]."""
    lanes = lanes_of(a)
    x = vload(a, first)
    f, e = split_exponent(x)
    vstore(out, to, f)
    vstore(out, to + lanes, e)
    vstore(out, to + 2 * lanes, shift_into_exponent(x))


@numba.njit(error_model="numpy")
def fused(a, b, c, out):
    vstore(out, 0, fma(vload(a, 0), vload(b, 0), vload(c, 0)))
    vstore(out, lanes_of(a), polynomial(vload(a, 0), COEFFICIENTS))


@numba.njit(error_model="numpy")
def copy(source, first, target, to, n):
    """Copy one register, the lanes from the n-th on replaced by zero."""
    x = vload(source, first)
    vstore(target, to, select(first_lanes(x, n), x, constant(x, 0.0)))


@numba.njit(error_model="numpy")
def fold(a, out):
    out[0] = lane_sum(vload(a, 0))


@numba.njit(error_model="numpy")
def transpose(source, first, stride, target, to, pitch):
    transpose_square(source, first, stride, target, to, pitch)


def lanes_for(dtype):
    return simd.lanes(dtype)


def draw(rng, dtype, n):
    """Numbers of both signs over 17 orders of magnitude."""
    return (rng.standard_normal(n) * 10.0 ** rng.integers(-8, 9, n)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_register_holds_the_lanes_that_python_is_told(dtype):
    @numba.njit
    def count(a):
        return lanes_of(a)

    assert count(np.zeros(1, dtype)) == lanes_for(dtype)
    assert lanes_for(dtype) * np.dtype(dtype).itemsize == simd.REGISTER_BYTES


@pytest.mark.parametrize("dtype", DTYPES)
def test_operations_equal_numpy_in_every_lane(dtype):
    lanes, rng = lanes_for(dtype), np.random.default_rng(0)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 3.5], dtype)
    pairs = [(draw(rng, dtype, lanes), draw(rng, dtype, lanes)) for _ in range(50)]
    # every special value meets every other, in changing lanes
    left, right = (grid.ravel() for grid in np.meshgrid(special, special))
    pairs += [(left[i:][:lanes], right[i:][:lanes]) for i in range(64 - lanes + 1)]
    out = np.empty(len(ELEMENTWISE) * lanes, dtype)
    for a, b in pairs:
        a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
        elementwise(a, b, out)
        for row, (name, truth) in enumerate(ELEMENTWISE.items()):
            with np.errstate(all="ignore"):
                expected = truth(a, b)
            got = out[row * lanes :][:lanes]
            np.testing.assert_array_equal(got, expected, err_msg=name)
            real = ~np.isnan(expected)
            same_sign = np.signbit(got[real]) == np.signbit(expected[real])
            assert same_sign.all(), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_loads_and_stores_need_no_alignment_and_touch_one_register(dtype):
    lanes = lanes_for(dtype)
    source = np.arange(1, 4 * lanes + 1, dtype=dtype)
    for first in range(2 * lanes):
        target = np.full(4 * lanes, -1, dtype)
        to = (3 * first + 1) % (2 * lanes)
        copy(source, first, target, to, lanes)
        expected = np.full(4 * lanes, -1, dtype)
        expected[to : to + lanes] = source[first : first + lanes]
        np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_first_lanes_selects_as_many_as_asked_for(dtype):
    lanes = lanes_for(dtype)
    source, target = np.arange(1, lanes + 1, dtype=dtype), np.empty(lanes, dtype)
    for n in (-lanes - 3, -1, *range(lanes + 1), lanes + 1, 1000):
        copy(source, 0, target, 0, n)
        np.testing.assert_array_equal(target, np.where(np.arange(lanes) < n, source, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_fma_rounds_once_where_the_target_has_it(dtype):
    lanes, eps = lanes_for(dtype), np.finfo(dtype).eps
    a, b = np.full(lanes, 1 + eps, dtype), np.full(lanes, 1 - eps, dtype)
    out = np.empty(2 * lanes, dtype)
    fused(a, b, np.full(lanes, -1, dtype), out)
    # (1 + eps) (1 - eps) - 1 = -eps^2, which rounding the product first turns into 0
    if simd.HAS_FMA:
        assert (out[:lanes] == -(eps**2)).all()
    else:
        assert np.isin(out[:lanes], [0, -(eps**2)]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_polynomial_takes_its_coefficients_from_the_constant_term_up(dtype):
    lanes, rng = lanes_for(dtype), np.random.default_rng(1)
    x, zero = rng.uniform(-3, 3, lanes).astype(dtype), np.zeros(lanes, dtype)
    out = np.empty(2 * lanes, dtype)
    fused(x, zero, zero, out)
    truth = np.polynomial.Polynomial(COEFFICIENTS)(x.astype(np.longdouble))
    scale = np.polynomial.Polynomial(np.abs(COEFFICIENTS))(np.abs(x))
    # three steps of Horner's rule and the rounding of the coefficients
    assert (np.abs(out[lanes:] - truth) <= 4 * np.finfo(dtype).eps * scale).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_lane_sum_adds_in_one_fixed_tree(dtype):
    lanes, rng = lanes_for(dtype), np.random.default_rng(2)
    out = np.empty(2, dtype)
    for _ in range(20):
        a = draw(rng, dtype, lanes)
        fold(a, out)
        tree = a
        while len(tree) > 1:
            tree = tree[: len(tree) // 2] + tree[len(tree) // 2 :]
        assert out[0] == tree[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_transpose_square_writes_the_square_and_nothing_else(dtype):
    lanes = lanes_for(dtype)
    for stride, pitch, first, to in (
        (lanes, lanes, 0, 0),
        (lanes + 3, 2 * lanes, 5, 1),
        (3 * lanes, lanes + 1, 1, 7),
    ):
        source = np.arange(first + lanes * stride, dtype=dtype)
        target = np.full(to + lanes * pitch, -1, dtype)
        transpose(source, first, stride, target, to, pitch)
        expected = np.full_like(target, -1)
        for r in range(lanes):
            for c in range(lanes):
                expected[to + c * pitch + r] = source[first + r * stride + c]
        np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_split_exponent_gives_a_fraction_around_one_and_a_power_of_two(dtype):
    lanes, rng = lanes_for(dtype), np.random.default_rng(4)
    info = np.finfo(dtype)
    root = np.sqrt(dtype(0.5))
    around = [np.nextafter(root, dtype(0)), root, np.nextafter(root, dtype(1))]
    edges = np.array([*around, 1, 2, 0.5, info.tiny, info.max], dtype)
    edges = np.concatenate([edges, edges[:3] * 2, edges[:3] * 4])
    wide = 2.0 ** rng.uniform(info.minexp, info.maxexp - 1, 1000)
    a = np.resize(np.concatenate([edges, wide.astype(dtype)]), 64 * lanes)
    out = np.empty(3 * lanes, dtype)
    for i in range(0, a.size, lanes):
        bits(a, i, out, 0)
        f, e = out[:lanes], out[lanes : 2 * lanes]
        # half an eps of freedom: sqrt(1/2) itself is no floating-point number
        assert (f >= np.nextafter(root, dtype(0))).all()
        assert (f < np.sqrt(2) * (1 + info.eps)).all()
        np.testing.assert_array_equal(e, np.round(e))
        np.testing.assert_array_equal(
            np.ldexp(f.astype(np.longdouble), e.astype(int)), a[i : i + lanes]
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_shift_into_exponent_makes_every_normal_power_of_two(dtype):
    lanes, info = lanes_for(dtype), np.finfo(dtype)
    k = np.arange(info.minexp, info.maxexp)
    a = (1.5 * 2.0**info.nmant - info.minexp + 1 + k).astype(dtype)
    a, k = np.resize(a, -(-a.size // lanes) * lanes), np.resize(k, a.size + lanes)
    out = np.empty(3 * lanes, dtype)
    for i in range(0, a.size, lanes):
        bits(a, i, out, 0)
        np.testing.assert_array_equal(
            out[2 * lanes :], np.ldexp(dtype(1), k[i : i + lanes])
        )


@pytest.mark.parametrize(
    "function",
    [
        operator.add,
        operator.sub,
        operator.mul,
        operator.truediv,
        operator.lt,
        operator.gt,
        operator.eq,
    ],
)
def test_operators_do_not_widen(function):
    @numba.njit
    def mixed(a, b):
        function(vload(a, 0), vload(b, 0))

    @numba.njit
    def with_scalar(a):
        function(vload(a, 0), 2.0)

    single, double = np.ones(64, np.float32), np.ones(64, np.float64)
    with pytest.raises(TypingError):
        mixed(single, double)
    with pytest.raises(TypingError):
        mixed(double, single)
    with pytest.raises(TypingError):
        with_scalar(double)


def test_other_operations_do_not_widen():
    @numba.njit
    def stored(a, b):
        vstore(a, 0, vload(b, 0))

    @numba.njit
    def multiplied(a, b):
        fma(vload(a, 0), vload(a, 0), vload(b, 0))

    @numba.njit
    def selected(a, b):
        x = vload(a, 0)
        select(x > x, vload(b, 0), vload(b, 0))

    @numba.njit
    def transposed(a, b):
        transpose_square(a, 0, 1, b, 0, 1)

    for function in (stored, multiplied, selected, transposed):
        with pytest.raises(TypingError):
            function(np.ones(256, np.float32), np.ones(256, np.float64))
