"""Vector exp, log, tanh and logistic, and the activations with their derivatives.

Accuracy  maximum relative error over the range, in units of the dtype's eps:
          exp 1, log 1, tanh 2, logistic 2, float32 and float64 alike.
          NaN stays NaN. Beyond its range exp saturates, at 2.4e38 and 1.2e-38 in
          float32; it never gives 0, a denormal number or infinity, which is left to
          ``vexp_unlimited``.
Method    exp(x) = 2^k e^r with k = round(x / ln 2) and |r| <= ln 2 / 2. Adding MAGIC
          rounds x / ln 2 to a whole number in the low bits of the sum, from where a
          shift moves it into an exponent. log(x) = e ln 2 + 2 atanh((f-1)/(f+1)).
Derivatives are written with the output of the activation, so that pre-activations
          need not be stored.
"""

from typing import NamedTuple

from numba import types
from numba.extending import overload

from fastbp.kernels.simd import (
    OVERLOAD,
    constant,
    copysign,
    first_lanes,
    flush,
    fma,
    kernel,
    lanes_of,
    part,
    polynomial,
    select,
    shift_into_exponent,
    split_exponent,
    vabs,
    vload,
    vstore,
)
from fastbp.tables import IDENTITY, LOGISTIC, RELU, TANH


class _Constants(NamedTuple):
    lowest: float  # exp saturates below and above these arguments
    highest: float
    infinite: float  # e^x is too large for the dtype here, but 2^(k - 1) is not
    magic: float  # 1.5 * 2**mantissa + exponent bias
    q: tuple  # e^r - 1 - r = r^2 q(r), minimax
    atanh: tuple  # atanh(s) / s - 1 = s^2 (1/3 + s^2/5 + ...), Taylor


_CONSTANTS = {
    types.float32: _Constants(
        -87.33,
        88.37,
        89.0,
        1.5 * 2.0**23 + 127,
        (0.4999999343, 0.166665204, 0.04166839083, 0.00836874532, 0.001381453789),
        tuple(1 / n for n in (3, 5, 7, 9)),
    ),
    types.float64: _Constants(
        -708.3,
        709.4,
        710.0,
        1.5 * 2.0**52 + 1023,
        (
            0.500000000000001062,
            0.166666666666664128,
            0.0416666666665302591,
            0.00833333333349433612,
            0.00138888889435994111,
            0.000198412695067792009,
            0.0000248014931345149843,
            2.75575862630190051e-6,
            2.76302344821093339e-7,
            2.50000742256233157e-8,
        ),
        tuple(1 / n for n in range(3, 22, 2)),
    ),
}
_LOG2_E = 1.4426950408889634
# ln 2 in two parts; the first has so few bits that k * _LN2_HIGH is exact
_LN2_HIGH = {types.float32: 0.693359375, types.float64: 6.93147180369123816490e-01}
_LN2_LOW = {types.float32: -2.12194440e-4, types.float64: 1.90821492927058770002e-10}


def _reduced(x, low, high):
    """(2^k for ``shift_into_exponent``, p) with e^x = 2^k (p + 1), low <= x <= high."""
    raise NotImplementedError("only inside kernels")


@overload(_reduced, jit_options=OVERLOAD)
def _overload_reduced(x, low, high):
    magic, q = _CONSTANTS[x.dtype].magic, _CONSTANTS[x.dtype].q
    ln2_high, ln2_low = _LN2_HIGH[x.dtype], _LN2_LOW[x.dtype]

    def implementation(x, low, high):
        x = select(x < low, low, select(x > high, high, x))
        shifted = fma(x, constant(x, _LOG2_E), constant(x, magic))
        k = shifted - constant(x, magic)
        r = fma(k, constant(x, -ln2_low), fma(k, constant(x, -ln2_high), x))
        return shifted, fma(polynomial(r, q), r * r, r)

    return implementation


def _scaled_expm1(x):
    """(s, p) with e^x = s (p + 1), s a power of two."""
    raise NotImplementedError("only inside kernels")


@overload(_scaled_expm1, jit_options=OVERLOAD)
def _overload_scaled_expm1(x):
    least, highest = _CONSTANTS[x.dtype].lowest, _CONSTANTS[x.dtype].highest

    def implementation(x):
        shifted, p = _reduced(x, constant(x, least), constant(x, highest))
        return shift_into_exponent(shifted), p

    return implementation


def vlog(x):
    """Natural logarithm of positive normal numbers and infinity."""
    raise NotImplementedError("only inside kernels")


@overload(vlog, jit_options=OVERLOAD)
def _overload_vlog(x):
    atanh = _CONSTANTS[x.dtype].atanh
    ln2_high, ln2_low = _LN2_HIGH[x.dtype], _LN2_LOW[x.dtype]

    def implementation(x):
        f, e = split_exponent(x)
        one = constant(x, 1.0)
        s = (f - one) / (f + one)
        s2 = s * s
        # 2 atanh(s) = 2 s + 2 s s^2 (...), with 2 s = (f - 1) - s (f - 1) exactly
        tail = s * (polynomial(s2, atanh) * (s2 + s2) - (f - one))
        small = fma(e, constant(x, ln2_low), tail)
        result = fma(e, constant(x, ln2_high), (f - one) + small)
        # split_exponent reads infinity and NaN as numbers
        return select(x - x == constant(x, 0.0), result, x)

    return implementation


def lowest(x):
    """The argument below which exp saturates, in every lane."""
    raise NotImplementedError("only inside kernels")


@overload(lowest, jit_options=OVERLOAD)
def _overload_lowest(x):
    argument = _CONSTANTS[x.dtype].lowest
    return lambda x: constant(x, argument)


@part
def vexp(x):
    """e^x"""
    s, p = _scaled_expm1(x)
    return fma(s, p, s)


@part
def vexpm1(x):
    """e^x - 1, accurate near 0 too"""
    s, p = _scaled_expm1(x)
    return fma(s, p, s - constant(x, 1.0))


def vexp_unlimited(x):
    """e^x, 0 where that would be denormal, and infinity where it is too large."""
    raise NotImplementedError("only inside kernels")


@overload(vexp_unlimited, jit_options=OVERLOAD)
def _overload_vexp_unlimited(x):
    least, infinite = _CONSTANTS[x.dtype].lowest, _CONSTANTS[x.dtype].infinite

    def implementation(x):
        zero, one, low = constant(x, 0.0), constant(x, 1.0), constant(x, least)
        shifted, p = _reduced(x, low, constant(x, infinite))
        # 2^k itself is infinite for the largest numbers: take half of it first
        large = x > zero
        s = shift_into_exponent(select(large, shifted - one, shifted))
        e = fma(s, p, s)
        return select(x < low, zero, select(large, e + e, e))

    return implementation


@part
def vtanh(x):
    """tanh(x) = E / (E + 2) with E = e^(2 |x|) - 1, the sign of x"""
    magnitude = vabs(x)
    s, p = _scaled_expm1(magnitude + magnitude)
    e = fma(s, p, s - constant(x, 1.0))
    return copysign(e / (e + constant(x, 2.0)), x)


@part
def vlogistic(x):
    """1 / (1 + e^-x), 0 where that would be denormal"""
    one, zero = constant(x, 1.0), constant(x, 0.0)
    return select(x < lowest(x), zero, one / (one + vexp(zero - x)))


@part
def _runs(pitch, width, rows):
    """(number, length) of the contiguous runs in ``rows`` rows of ``width`` columns."""
    if width == pitch:
        return 1, rows * pitch
    return rows, width


@kernel
def activate(kind, Z, first, pitch, width, real, rows):
    """Z[first + r * pitch + c] = f(...) for r < rows, c < width, in place.

    Columns from ``real`` on become 0, where f(0) is not. Identity leaves Z alone, and
    so does relu: that is applied where a tile is stored (``gemm.multiply``).
    """
    lanes = lanes_of(Z)
    number, length = _runs(pitch, width, rows)
    end = first + number * pitch
    if kind == TANH:
        for run in range(first, end, pitch):
            for i in range(run, run + length, lanes):
                vstore(Z, i, vtanh(vload(Z, i)))
    elif kind == LOGISTIC:
        for run in range(first, end, pitch):
            for i in range(run, run + length, lanes):
                vstore(Z, i, flush(vlogistic(vload(Z, i))))
        if real < width:
            last = first + width - lanes
            zero = constant(vload(Z, last), 0.0)
            kept = first_lanes(zero, real - (width - lanes))
            for i in range(last, last + rows * pitch, pitch):
                vstore(Z, i, select(kept, vload(Z, i), zero))


@part
def _times_derivative(kind, d, a):
    """d * f'(z), written with a = f(z)."""
    one, zero = constant(a, 1.0), constant(a, 0.0)
    if kind == RELU:
        d = select(a == zero, zero, d)
    elif kind == TANH:
        d = flush(d * (one - a * a))
    else:
        d = flush(d * a * (one - a))
    return d


@kernel
def apply_derivative(kind, D, A, first, pitch, width, rows):
    """D[first + r * pitch + c] *= f'(z) with A = f(z), for r < rows, c < width:

    relu 0 where A == 0, tanh 1 - A^2, logistic A (1 - A). STORED leaves D alone.
    """
    lanes = lanes_of(D)
    if kind > IDENTITY:
        number, length = _runs(pitch, width, rows)
        for run in range(first, first + number * pitch, pitch):
            for i in range(run, run + length, lanes):
                vstore(D, i, _times_derivative(kind, vload(D, i), vload(A, i)))
