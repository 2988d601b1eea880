"""Output activation, loss and output delta of as many rows as a register has lanes.

Shapes   ``lanes`` rows, O outputs. The values are columns of a scratch array,
         [O][lanes], so that one operation serves all rows and none has a lane to mask.
         The pre-activations Z come in panels; the delta D = P - Y leaves so.
Targets  row-major [n, O] in the dtype of the network, read through the shuffled
         order; for softmax [n, 1], holding each row's class number.
Losses   one number a row, before any division by B:

           softmax    -log clip(p_y)                               cross-entropy
           logistic   -sum_o log clip(p_o if y_o = 1 else 1 - p_o)   binary, multilabel
           squared    sum_o (p_o - y_o)^2 / (2 O)

         clip(p) limits p to [eps, 1 - eps], eps of the dtype (as scikit-learn does).
An activation and its loss live here together: their joint delta is P - Y only as a pair.
"""

from fastbp.kernels.activations import lowest, vexp, vlog, vlogistic
from fastbp.kernels.simd import (
    constant,
    flush,
    lanes_of,
    machine_epsilon,
    part,
    select,
    smallest_normal,
    splat,
    vload,
    vstore,
)
from fastbp.tables import LOG_LOSS, SOFTMAX


@part
def target_columns(kind, outputs):
    """Columns of targets: a class number, or one for each output."""
    return 1 if kind == SOFTMAX else outputs


@part
def predict_lanes(kind, outputs, Z, at):
    """P = output activation of Z, [O][lanes] at Z[at:], in place.

    Probabilities of softmax that would be denormal become 0.
    """
    lanes = lanes_of(Z)
    end = at + outputs * lanes
    zero = constant(vload(Z, at), 0.0)
    if kind == SOFTMAX:
        peak = vload(Z, at)
        for i in range(at + lanes, end, lanes):
            z = vload(Z, i)
            peak = select(peak < z, z, peak)
        total = zero
        for i in range(at, end, lanes):
            z = vload(Z, i) - peak
            e = select(z < lowest(z), zero, vexp(z))
            vstore(Z, i, e)
            total = total + e
        least = constant(zero, smallest_normal(Z))
        for i in range(at, end, lanes):
            p = vload(Z, i) / total
            vstore(Z, i, select(p < least, zero, p))
    elif kind == LOG_LOSS:
        for i in range(at, end, lanes):
            vstore(Z, i, vlogistic(vload(Z, i)))


@part
def _minus_log(p, eps):
    """-log of p limited to [eps, 1 - eps]; NaN stays NaN."""
    high = constant(p, 1.0) - eps
    return constant(p, 0.0) - vlog(select(p < eps, eps, select(p > high, high, p)))


@part
def loss_lanes(kind, outputs, P, at, targets):
    """The loss of each row; D = P - Y takes the place of P, [O][lanes] at P[at:].

    Y is at P[targets:], its columns as ``target_columns`` says.
    """
    lanes = lanes_of(P)
    zero = constant(vload(P, at), 0.0)
    one, half = constant(zero, 1.0), constant(zero, 0.5)
    eps = constant(zero, machine_epsilon(P))
    total = zero
    if kind == SOFTMAX:
        label, number, likelihood = vload(P, targets), zero, zero
        for i in range(at, at + outputs * lanes, lanes):
            p, y = vload(P, i), number == label
            likelihood = select(y, p, likelihood)
            vstore(P, i, flush(p - select(y, one, zero)))
            number = number + one
        total = _minus_log(likelihood, eps)
    else:
        for o in range(outputs):
            i = at + o * lanes
            p, y = vload(P, i), vload(P, targets + o * lanes)
            d = flush(p - y)
            vstore(P, i, d)
            if kind == LOG_LOSS:
                total = total + _minus_log(select(y > half, p, one - p), eps)
            else:
                total = total + d * d
        if kind != LOG_LOSS:
            total = total / splat(P.dtype.type(2 * outputs))
    return total
