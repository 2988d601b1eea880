"""Output activation, loss and output delta of a block of rows.

Shapes   B rows, O outputs. The last layer's pre-activations Z are in panels; each is
         replaced by the prediction P, and the delta D = P - Y is written beside it.
Targets  row-major [n, O] in the dtype of the network, read through the shuffled
         order; for softmax [n, 1], holding each row's class number.
Losses   one number a row in ``row_loss``, before any division by B:

           softmax    -log clip(p_y)                               cross-entropy
           logistic   -sum_o log clip(p_o if y_o = 1 else 1 - p_o)   binary, multilabel
           squared    sum_o (p_o - y_o)^2 / (2 O)

         clip(p) limits p to [eps, 1 - eps], eps of the dtype (as scikit-learn does).
An activation and its loss live here together: their joint delta is P - Y only as a pair.
"""

import numpy as np

from fastbp.kernels.activations import lowest, vexp, vlog, vlogistic
from fastbp.kernels.gemm import panel_width
from fastbp.kernels.simd import (
    constant,
    first_lanes,
    flush,
    lane_max,
    lane_sum,
    lanes_of,
    machine_epsilon,
    part,
    select,
    smallest_normal,
    splat,
    vload,
    vstore,
)
from fastbp.tables import LOG_LOSS, SOFTMAX, SQUARED_ERROR


@part
def _clip(p, eps):
    """p limited to [eps, 1 - eps]; NaN stays NaN."""
    high = constant(p, 1.0) - eps
    return select(p < eps, eps, select(p > high, high, p))


@part
def predict_row(kind, net, Z, origin, capacity, b):
    """P[b] = output activation of Z[b], in place; padded lanes become 0."""
    lanes, pitch = lanes_of(Z), panel_width(Z)
    outputs = net.layers[net.depth]
    row = origin + outputs.place * capacity + b * pitch
    zero = constant(vload(Z, origin), 0.0)
    if kind == SOFTMAX:
        infinite = constant(zero, -np.inf)
        peak = infinite
        for o in range(0, outputs.units, lanes):
            at = row + o // pitch * pitch * capacity + o % pitch
            z = select(first_lanes(zero, outputs.units - o), vload(Z, at), infinite)
            peak = select(peak < z, z, peak)
        peak = splat(lane_max(peak))
        total = zero
        for o in range(0, outputs.units, lanes):
            at = row + o // pitch * pitch * capacity + o % pitch
            real = first_lanes(zero, outputs.units - o)
            z = vload(Z, at) - peak
            e = select(real, select(z < lowest(z), zero, vexp(z)), zero)
            vstore(Z, at, e)
            total = total + e
        total = splat(lane_sum(total))
        least = constant(zero, smallest_normal(Z))
        for o in range(0, outputs.units, lanes):
            at = row + o // pitch * pitch * capacity + o % pitch
            p = vload(Z, at) / total
            vstore(Z, at, select(p < least, zero, p))  # denormal numbers are slow
    elif kind == LOG_LOSS:
        for o in range(0, outputs.units, lanes):
            at = row + o // pitch * pitch * capacity + o % pitch
            real = first_lanes(zero, outputs.units - o)
            vstore(Z, at, select(real, vlogistic(vload(Z, at)), zero))


@part
def loss_row(kind, net, work, targets, row, b):
    """row_loss[b] and D[b] = P[b] - Y[row]; softmax leaves p_y for ``finish_losses``."""
    P, D, capacity = work.activations, work.deltas, work.capacity
    lanes, pitch = lanes_of(P), panel_width(P)
    outputs = net.layers[net.depth]
    first = outputs.place * capacity + b * pitch
    zero = constant(vload(P, first), 0.0)
    if kind == SOFTMAX:
        for o in range(0, outputs.units, lanes):
            at = first + o // pitch * pitch * capacity + o % pitch
            vstore(D, at, flush(vload(P, at)))
        label = np.int64(targets[row])
        at = first + label // pitch * pitch * capacity + label % pitch
        work.row_loss[b] = P[at]
        D[at] -= work.row_loss.dtype.type(1)
    else:
        one, half = constant(zero, 1.0), constant(zero, 0.5)
        eps = constant(zero, machine_epsilon(P))
        total = zero
        for o in range(0, outputs.units, lanes):
            at = first + o // pitch * pitch * capacity + o % pitch
            real = min(lanes, outputs.units - o)
            for i in range(real):
                D[at + i] = targets[row * outputs.units + o + i]
            mask = first_lanes(zero, real)
            y, p = vload(D, at), vload(P, at)
            d = select(mask, flush(p - y), zero)
            vstore(D, at, d)
            if kind == LOG_LOSS:
                p = _clip(p, eps)
                total = total - select(mask, vlog(select(y > half, p, one - p)), zero)
            else:
                total = total + d * d
        if kind == SQUARED_ERROR:
            total = total / splat(work.row_loss.dtype.type(2 * outputs.units))
        work.row_loss[b] = lane_sum(total)


@part
def finish_losses(kind, row_loss, begin, end):
    """row_loss[b] = -log clip(row_loss[b]) for softmax, where it holds p_y so far.

    ``begin`` and ``end`` are multiples of the lanes; logarithms are taken of whole
    registers of rows because a row has only one.
    """
    if kind == SOFTMAX:
        for b in range(begin, end, lanes_of(row_loss)):
            p = vload(row_loss, b)
            p = _clip(p, constant(p, machine_epsilon(row_loss)))
            vstore(row_loss, b, constant(p, 0.0) - vlog(p))
