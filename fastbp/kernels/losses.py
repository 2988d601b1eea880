"""Output activation, loss and output delta of as many rows as a register has lanes.

Shapes   ``lanes`` rows, O outputs. The values are columns of a scratch array,
         [O][lanes], so that one operation serves all rows and none has a lane to mask.
         The pre-activations Z come in panels; the delta D = P - Y leaves so.
Targets  row-major [n, O] in the dtype of the network, read through the shuffled
         order; for softmax [n, 1], holding each row's class number.
Losses   one number a row, before its weight and any division by their sum:

           softmax    -log clip(p_y)                               cross-entropy
           logistic   -sum_o log clip(p_o if y_o = 1 else 1 - p_o)   binary, multilabel
           squared    sum_o (p_o - y_o)^2 / (2 O)
           poisson    sum_o y_o log(y_o / p_o) - y_o + p_o           p = e^z, y >= 0

         clip(p) limits p to [eps, 1 - eps], eps of the dtype (as scikit-learn does).
         y log(y / p) is 0 where y = 0, whatever p is; the loss is infinite where p = 0
         and y is not, or where p is infinite (scikit-learn: NaN if y is not 0).
An activation and its loss live here together: their joint delta is P - Y only as a pair.
"""

import numpy as np

from fastbp.kernels.activations import lowest, vexp, vexp_unlimited, vlog, vlogistic
from fastbp.kernels.simd import (
    constant,
    flush,
    fma,
    lanes_of,
    machine_epsilon,
    part,
    select,
    smallest_normal,
    splat,
    vload,
    vstore,
)
from fastbp.tables import LOG_LOSS, POISSON, SOFTMAX, SQUARED_ERROR


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
    elif kind == POISSON:
        for i in range(at, end, lanes):
            vstore(Z, i, vexp_unlimited(vload(Z, i)))


@part
def minus_log(p, eps):
    """-log of p limited to [eps, 1 - eps]; NaN stays NaN."""
    high = constant(p, 1.0) - eps
    return constant(p, 0.0) - vlog(select(p < eps, eps, select(p > high, high, p)))


@part
def _deviance(p, y, least):
    """Half the Poisson deviance y log(y / p) - y + p; p where y = 0, NaN where y < 0.

    ``least``, the smallest normal number, limits y / p from below: there y log(y / p)
    is nothing beside p.
    """
    zero, ratio, d = constant(y, 0.0), y / p, p - y
    log = vlog(select(ratio < least, least, ratio))
    log = select(y < zero, constant(y, np.nan), log)
    return select(y == zero, d, fma(y, log, d))


@part
def loss_lanes(kind, outputs, P, at, targets):
    """The loss of each row; D = P - Y takes the place of P, [O][lanes] at P[at:].

    Y is at P[targets:], its columns as ``target_columns`` says.
    """
    lanes = lanes_of(P)
    zero = constant(vload(P, at), 0.0)
    one, half = constant(zero, 1.0), constant(zero, 0.5)
    eps = constant(zero, machine_epsilon(P))
    least = constant(zero, smallest_normal(P))
    total = zero
    if kind == SOFTMAX:
        label, number, likelihood = vload(P, targets), zero, zero
        for i in range(at, at + outputs * lanes, lanes):
            p, y = vload(P, i), number == label
            likelihood = select(y, p, likelihood)
            vstore(P, i, flush(p - select(y, one, zero)))
            number = number + one
        total = minus_log(likelihood, eps)
    else:
        for o in range(outputs):
            i = at + o * lanes
            p, y = vload(P, i), vload(P, targets + o * lanes)
            d = flush(p - y)
            vstore(P, i, d)
            if kind == LOG_LOSS:
                total = total + minus_log(select(y > half, p, one - p), eps)
            elif kind == POISSON:
                total = total + _deviance(p, y, least)
            else:
                total = total + d * d
        if kind == SQUARED_ERROR:
            total = total / splat(P.dtype.type(2 * outputs))
    return total


@part
def weigh_lanes(outputs, D, at, weight):
    """D[o] *= the weights of the rows, [O][lanes] at D[at:]."""
    lanes = lanes_of(D)
    for i in range(at, at + outputs * lanes, lanes):
        vstore(D, i, flush(vload(D, i) * weight))
