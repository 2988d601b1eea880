"""Output activation, loss and output delta of extended networks.

Shapes   as in ``losses``: ``lanes`` rows, O outputs, [O][lanes] in a scratch array.
Losses   one number a row, with z the pre-activations and p the predictions:

           smoothing   cross-entropy with the targets (1 - s) y + s / K, K classes; two
                       for each logistic output (Szegedy et al., 2016)
           gamma       sum_o y_o / p_o - 1 - log(y_o / p_o)          p = e^z, y > 0
           absolute    mean_o |p_o - y_o|                              p = z
           huber       mean_o d^2 / 2 if |d| <= delta, else delta (|d| - delta / 2),
                       d = p_o - y_o (Huber, 1964)                     p = z
           quantile    mean_o max(q d, (q - 1) d), d = y_o - p_o (Koenker and Bassett,
                       1978)                                           p = z
           quantiles   mean_o of the same for the q of each output and one y, with
                       p_0 = z_0, p_o = p_(o-1) + softplus(z_o): they never cross
           own         what the user's function says                   p = z

         The delta is the loss's derivative by z; at a kink it is 0.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from fastbp.kernels.activations import vexpm1, vlog
from fastbp.kernels.hidden import is_extended, vsoftplus
from fastbp.kernels.losses import (
    loss_lanes,
    minus_log,
    predict_lanes,
    target_columns,
)
from fastbp.kernels.simd import (
    OVERLOAD,
    constant,
    emit_pointer,
    flush,
    fma,
    kernel,
    lanes_of,
    machine_epsilon,
    part,
    select,
    smallest_normal,
    vabs,
    vload,
    vstore,
)
from fastbp.tables import (
    GAMMA,
    HUBER,
    LOG_LOSS,
    OWN,
    POISSON,
    QUANTILE,
    QUANTILES,
    SOFTMAX,
)


@kernel
def _predict_more(kind, outputs, Z, at):
    """P = output activation of Z, in place."""
    lanes = lanes_of(Z)
    if kind == GAMMA:
        predict_lanes(POISSON, outputs, Z, at)
    elif kind == QUANTILES:
        p = vload(Z, at)
        for i in range(at + lanes, at + outputs * lanes, lanes):
            p = p + vsoftplus(vload(Z, i))
            vstore(Z, i, p)
    elif kind <= POISSON:
        predict_lanes(kind, outputs, Z, at)


@part
def _smoothed(kind, outputs, share, P, at, targets):
    """Cross-entropy with smoothed targets."""
    lanes = lanes_of(P)
    zero = constant(vload(P, at), 0.0)
    one, eps = constant(zero, 1.0), constant(zero, machine_epsilon(P))
    classes = float(outputs) if kind == SOFTMAX else 2.0
    off = constant(zero, share / classes)
    on = constant(zero, 1.0 - share + share / classes)
    label, number, total = vload(P, targets), zero, zero
    for o in range(outputs):
        i = at + o * lanes
        p = vload(P, i)
        if kind == SOFTMAX:
            y = select(number == label, on, off)
            total = fma(y, minus_log(p, eps), total)
            number = number + one
        else:
            y = fma(vload(P, targets + o * lanes), on - off, off)
            total = fma(y, minus_log(p, eps), total)
            total = fma(one - y, minus_log(one - p, eps), total)
        vstore(P, i, flush(p - y))
    return total


@part
def _pinball(p, y, q):
    """(loss, its derivative by p) of the quantile q."""
    zero, d = constant(p, 0.0), y - p
    above, below = q, q - constant(p, 1.0)
    slope = select(d > zero, above, select(d < zero, below, d))  # NaN stays NaN
    return slope * d, zero - slope


@intrinsic
def _call_own(typingctx, address, array, y, z, gradient, outputs):
    """The function at ``address``, told of elements of ``array`` (see ``own_loss``)."""

    def codegen(context, builder, sig, args):
        address, array, *places, outputs = args
        element = context.get_data_type(sig.args[1].dtype)
        pointer, int64 = element.as_pointer(), ir.IntType(64)
        function = ir.FunctionType(ir.DoubleType(), [pointer, pointer, pointer, int64])
        where = [
            emit_pointer(context, builder, sig.args[1], array, place) for place in places
        ]
        callee = builder.inttoptr(address, function.as_pointer())
        return builder.call(callee, [*where, outputs])

    i = types.int64
    return types.float64(i, array, i, i, i, i), codegen


@kernel
def _own(address, outputs, P, at, targets):
    """The user's loss of each row, and its gradient in the place of the predictions."""
    lanes = lanes_of(P)
    y = targets + outputs * lanes  # one row's targets, outputs and gradient
    z = y + outputs
    gradient = z + outputs
    for r in range(lanes):
        for o in range(outputs):
            P[y + o] = P[targets + o * lanes + r]
            P[z + o] = P[at + o * lanes + r]
            P[gradient + o] = 0.0
        loss = _call_own(address, P, y, z, gradient, outputs)
        for o in range(outputs):
            P[at + o * lanes + r] = P[gradient + o]
        P[targets + r] = loss  # this lane's targets are not read again
    return vload(P, targets)


@part
def _elementwise(kind, p, y, q, delta, least):
    """(loss, its derivative by z) of one output; NaN stays NaN in both."""
    zero, one, half = constant(p, 0.0), constant(p, 1.0), constant(p, 0.5)
    d = p - y
    if kind == GAMMA:
        ratio = y / p
        log = vlog(select(ratio < least, least, ratio))
        loss, slope = ratio - one - log, one - ratio
    elif kind == HUBER:
        size = vabs(d)
        sign = select(d > zero, delta, select(d < zero, zero - delta, d))
        near = size < delta
        slope = select(near, d, sign)
        loss = select(near, half * d * d, delta * (size - half * delta))
    elif kind == QUANTILE:
        loss, slope = _pinball(p, y, q)
    else:  # ABSOLUTE_ERROR
        loss = vabs(d)
        slope = select(d > zero, one, select(d < zero, zero - one, d))
    return loss, slope


@part
def _crossing_free(quantiles, outputs, P, at, targets):
    """The mean loss of several quantiles of one target."""
    lanes = lanes_of(P)
    y = vload(P, targets)
    zero = constant(y, 0.0)
    share = constant(y, 1.0 / outputs)
    total, slopes = zero, zero  # of this output and all behind it: they move with it
    for back in range(outputs):
        o = outputs - 1 - back
        i = at + o * lanes
        p = vload(P, i)
        loss, slope = _pinball(p, y, constant(p, quantiles[o]))
        total = total + loss
        slopes = slopes + slope
        delta = slopes * share
        if o > 0:  # the step s = softplus(z) has the slope 1 - e^-s
            step = p - vload(P, i - lanes)
            delta = delta * (zero - vexpm1(zero - step))
        vstore(P, i, flush(delta))
    return total * share


@kernel
def _loss_more(net, P, at, targets):
    """The loss of each row; its derivative by z takes the place of P."""
    lanes, kind, extras = lanes_of(P), net.loss, net.extras[0]
    outputs = net.layers[net.depth].units
    if kind == OWN:
        return _own(extras.own_loss, outputs, P, at, targets)
    if kind == QUANTILES:
        return _crossing_free(net.quantiles, outputs, P, at, targets)
    if kind <= LOG_LOSS and extras.label_smoothing > 0:
        return _smoothed(kind, outputs, extras.label_smoothing, P, at, targets)
    if kind <= POISSON:
        return loss_lanes(kind, outputs, P, at, targets)
    total = constant(vload(P, at), 0.0)
    share = constant(total, 1.0 if kind == GAMMA else 1.0 / outputs)
    delta = constant(total, extras.delta)
    q = constant(total, net.quantiles[0] if kind == QUANTILE else 0.5)
    least = constant(total, smallest_normal(P))
    for o in range(outputs):
        p, y = vload(P, at + o * lanes), vload(P, targets + o * lanes)
        loss, slope = _elementwise(kind, p, y, q, delta, least)
        total = total + loss
        vstore(P, at + o * lanes, flush(slope * share))
    return total * share


# ------------------------------------------------- for every network, as its type says


def columns_of_targets(net):
    """Columns of targets: a class number, one y for all quantiles, or one an output."""
    raise NotImplementedError("only inside kernels")


@overload(columns_of_targets, jit_options=OVERLOAD)
def _overload_columns_of_targets(net):
    def extended(net):
        if net.loss == QUANTILES:
            return 1
        return target_columns(net.loss, net.layers[net.depth].units)

    def plain(net):
        return target_columns(net.loss, net.layers[net.depth].units)

    return extended if is_extended(net) else plain


def predict_outputs(net, Z, at):
    """P = output activation of Z, [O][lanes] at Z[at:], in place."""
    raise NotImplementedError("only inside kernels")


@overload(predict_outputs, jit_options=OVERLOAD)
def _overload_predict_outputs(net, Z, at):
    def extended(net, Z, at):
        _predict_more(net.loss, net.layers[net.depth].units, Z, at)

    def plain(net, Z, at):
        predict_lanes(net.loss, net.layers[net.depth].units, Z, at)

    return extended if is_extended(net) else plain


def loss_of_outputs(net, P, at, targets):
    """The loss of each row; its delta takes the place of P, [O][lanes] at P[at:]."""
    raise NotImplementedError("only inside kernels")


@overload(loss_of_outputs, jit_options=OVERLOAD)
def _overload_loss_of_outputs(net, P, at, targets):
    def extended(net, P, at, targets):
        return _loss_more(net, P, at, targets)

    def plain(net, P, at, targets):
        return loss_lanes(net.loss, net.layers[net.depth].units, P, at, targets)

    return extended if is_extended(net) else plain
