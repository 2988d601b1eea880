"""What extended networks do to hidden layers: more activations, and dropout.

Shapes   B rows of a unit layer's panels, as in ``dense``, whose sums are there already.
         S has the places of A: the slopes that backward multiplies deltas with, where
         they are not a function of A alone (see ``tables.LAYER``).

           leaky_relu  z if z > 0 else 0.01 z                  Maas et al., 2013
           elu         z if z > 0 else e^z - 1                 Clevert et al., 2016
           selu        1.0507 (z if z > 0 else 1.6733 (e^z - 1))  Klambauer et al., 2017
           gelu        z Phi(z), Phi of the normal distribution   Hendrycks & Gimpel, 2016
           silu        z logistic(z)                           Elfwing et al., 2018
           mish        z tanh(softplus(z))                     Misra, 2020
           softplus    log(1 + e^z)                            Dugas et al., 2001

Dropout  (Srivastava et al., 2014, in the form that scales while it trains): a unit stays
         with the probability 1 - p and is divided by it, else it is 0 for this row in
         this step. Which ones stay is a function of the seed, the step, the layer and
         the unit's place in the batch, so that it depends on no thread and no register.
Padding  columns beyond the units stay 0 in A. In S they hold anything finite.
"""

from numba import types
from numba.extending import overload

from fastbp.kernels.activations import vexp, vexpm1, vlog, vlogistic
from fastbp.kernels.gemm import panel_width
from fastbp.kernels.simd import (
    OVERLOAD,
    chebyshev,
    constant,
    first_lanes,
    flush,
    fma,
    kernel,
    lanes_of,
    mixed,
    part,
    random_lanes,
    select,
    vabs,
    vload,
    vstore,
)
from fastbp.tables import (
    ELU,
    GELU,
    LEAKY_RELU,
    LOGISTIC,
    MISH,
    RELU,
    SELU,
    SELU_ALPHA,
    SELU_SCALE,
    SILU,
    STORED,
    TANH,
)

_ROOT_HALF = 0.7071067811865476
_PEAK = 0.3989422804014327  # density of the normal distribution at 0
#: log(erfcx(x) / t) with t = 2 / (2 + x) in Chebyshev polynomials of 2 t - 1, x >= 0;
#: 12 terms are good for 1e-8 of erfc, all of them for 1e-14.
_ERFC = (
    -0.6513268598908547,
    0.6419697923564902,
    0.019476473204185836,
    -0.009561514786808632,
    -0.0009465953444820368,
    0.00036683949785276145,
    4.2523324806907776e-05,
    -2.027857811253425e-05,
    -1.6242900046470207e-06,
    1.3036558355805188e-06,
    1.562644172207037e-08,
    -8.523809591493047e-08,
    6.529054439102472e-09,
    5.059343495548183e-09,
    -9.91364156490099e-10,
    -2.2736512229574948e-10,
    9.646791102233921e-11,
    2.394038081248956e-12,
    -6.886027525110881e-12,
    8.944879263334013e-13,
    3.1309214049367887e-13,
    -1.1270822375373606e-13,
    3.810902455039784e-16,
    7.106098312185193e-15,
    -1.5230293148083846e-15,
    -9.457342361969772e-17,
    1.2102179633567605e-16,
    -2.816431821588822e-17,
)
_ERFC_TERMS = {types.float32: _ERFC[:12], types.float64: _ERFC}


def is_extended(net):
    """Whether a type of ``Network`` is that of extended networks."""
    return not isinstance(net.types[net.fields.index("extras")], types.NoneType)


def _log_erfcx(y):
    """log(erfcx(x) / t) with t = 2 / (2 + x), y = 2 t - 1, x >= 0."""
    raise NotImplementedError("only inside kernels")


@overload(_log_erfcx, jit_options=OVERLOAD)
def _overload_log_erfcx(y):
    terms = _ERFC_TERMS[y.dtype]
    return lambda y: chebyshev(y, terms)


@part
def vnormal(z):
    """(Phi(z), e^(-z^2 / 2)): of the normal distribution, and its density's form"""
    one, two = constant(z, 1.0), constant(z, 2.0)
    t = two / fma(vabs(z), constant(z, _ROOT_HALF), two)
    exponent = constant(z, -0.5) * z * z
    tail = constant(z, 0.5) * t * vexp(exponent + _log_erfcx(t + t - one))
    return select(z < constant(z, 0.0), tail, one - tail), vexp(exponent)


@part
def vsoftplus(z):
    """log(1 + e^z) = max(z, 0) + log(1 + e^-|z|)"""
    one, zero = constant(z, 1.0), constant(z, 0.0)
    e = vexp(zero - vabs(z))
    u = one + e
    # log(u) / (u - 1) times e makes good for the rounding of u
    rest = select(u == one, e, vlog(u) * e / (u - one))
    return select(z > zero, z, zero) + rest


@part
def _value_and_slope(kind, z):
    """(f(z), f'(z)); a NaN stays one in both."""
    zero, one = constant(z, 0.0), constant(z, 1.0)
    above = z > zero
    if kind == LEAKY_RELU:
        slope = select(above, one, constant(z, 0.01))
        a = z * slope
    elif kind == ELU:
        below = vexpm1(z)
        a, slope = select(above, z, below), select(above, one, below + one)
    elif kind == SELU:
        scale, alpha = constant(z, SELU_SCALE), constant(z, SELU_ALPHA)
        below = alpha * vexpm1(z)
        a = scale * select(above, z, below)
        slope = scale * select(above, one, below + alpha)
    elif kind == GELU:
        phi, density = vnormal(z)
        a = z * phi
        slope = fma(z * constant(z, _PEAK), density, phi)
    elif kind == SILU:
        p = vlogistic(z)
        a = z * p
        slope = p * fma(z, one - p, one)
    elif kind == MISH:
        # tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2); 1 where e^2 is too large
        limit = constant(z, 20.0)
        e = vexp(select(z > limit, limit, z))
        n = e * (e + constant(z, 2.0))
        t = n / (n + constant(z, 2.0))
        a = z * t
        slope = fma(z * vlogistic(z), one - t * t, t)
    else:  # SOFTPLUS
        a, slope = vsoftplus(z), vlogistic(z)
    return flush(a), flush(slope)


@part
def _slope_by_output(kind, a):
    """f' of scikit-learn's activations by their output."""
    one, zero = constant(a, 1.0), constant(a, 0.0)
    slope = one
    if kind == RELU:
        slope = select(a == zero, zero, one)
    elif kind == TANH:
        slope = one - a * a
    elif kind == LOGISTIC:
        slope = a * (one - a)
    return slope


@kernel
def _finish_panel(layer, A, S, at, start, width, begin, rows, key):
    """f and, where there is room for slopes, f' and dropout for the rows of a panel.

    The sums, or the activations if f is one of scikit-learn's, are at A[at:].
    """
    lanes, pitch = lanes_of(A), panel_width(A)
    trains = S.size > 0
    drops = trains and layer.dropout > 0
    kept = 1.0 - layer.dropout
    zero = constant(vload(A, at), 0.0)
    scale = constant(zero, 1.0 / kept)
    for c in range(0, width, lanes):
        real = first_lanes(zero, layer.units - start - c)
        for r in range(rows):
            i = at + r * pitch + c
            a = vload(A, i)
            if layer.activation >= LEAKY_RELU:
                a, slope = _value_and_slope(layer.activation, a)
                a = select(real, a, zero)
            else:
                slope = _slope_by_output(layer.activation, a)
            if drops:
                place = (begin + r) * layer.units + start + c
                stays = random_lanes(zero, key, place, kept)
                a = select(stays, a * scale, zero)
                slope = select(stays, slope * scale, zero)
            vstore(A, i, a)
            if trains:
                vstore(S, i, slope)


def finish_units(net, unit, A, S, base, capacity, begin, end, seed, t):
    """A[unit][begin:end] = dropout(f(A[unit][begin:end])), S[unit][begin:end] = its slope

    of extended networks, where ``dense`` has not done all of it; t is the number of the
    step. Nothing is dropped where S is empty: that is no training.
    """
    raise NotImplementedError("only inside kernels")


@overload(finish_units, jit_options=OVERLOAD)
def _overload_finish_units(net, unit, A, S, base, capacity, begin, end, seed, t):
    def extended(net, unit, A, S, base, capacity, begin, end, seed, t):
        pitch, layer = panel_width(A), net.layers[unit]
        if layer.by_output == STORED:
            key = mixed(mixed(seed, t), unit)
            for start in range(0, layer.columns, pitch):
                at = base + (layer.place + start) * capacity + begin * pitch
                width = min(pitch, layer.columns - start)
                _finish_panel(layer, A, S, at, start, width, begin, end - begin, key)

    def plain(net, unit, A, S, base, capacity, begin, end, seed, t):
        return None

    return extended if is_extended(net) else plain


def multiply_slopes(net, unit, D, S, capacity, begin, end):
    """D[unit][begin:end] *= S[unit][begin:end], if the layer stores its slopes."""
    raise NotImplementedError("only inside kernels")


@overload(multiply_slopes, jit_options=OVERLOAD)
def _overload_multiply_slopes(net, unit, D, S, capacity, begin, end):
    def extended(net, unit, D, S, capacity, begin, end):
        lanes, pitch, layer = lanes_of(D), panel_width(D), net.layers[unit]
        if layer.by_output == STORED:
            for start in range(0, layer.columns, pitch):
                first = (layer.place + start) * capacity
                width = min(pitch, layer.columns - start)
                for row in range(first + begin * pitch, first + end * pitch, pitch):
                    for i in range(row, row + width, lanes):
                        vstore(D, i, flush(vload(D, i) * vload(S, i)))

    def plain(net, unit, D, S, capacity, begin, end):
        return None

    return extended if is_extended(net) else plain


def first_trained(net):
    """The first layer that trains: 0 but in extended networks."""
    raise NotImplementedError("only inside kernels")


@overload(first_trained, jit_options=OVERLOAD)
def _overload_first_trained(net):
    if is_extended(net):
        return lambda net: net.extras[0].frozen
    return lambda net: 0
