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
from numba import types
from numba.extending import overload

from fastbp.kernels.activations import vexp, vlog, vlogistic
from fastbp.kernels.simd import (
    constant,
    first_lanes,
    lane_max,
    lane_sum,
    lanes_of,
    part,
    select,
    splat,
    vload,
    vstore,
)
from fastbp.tables import LOG_LOSS, SOFTMAX, SQUARED_ERROR


def machine_epsilon(array):
    """eps of the array's dtype."""
    raise NotImplementedError("only inside kernels")


@overload(machine_epsilon)
def _overload_machine_epsilon(array):
    eps = {t: np.finfo(str(t)).eps for t in (types.float32, types.float64)}[array.dtype]
    return lambda array: eps


@part
def _clip(p, eps):
    """p limited to [eps, 1 - eps]; NaN stays NaN."""
    high = constant(p, 1.0) - eps
    return select(p < eps, eps, select(p > high, high, p))


@part
def predict_row(kind, net, Z, origin, capacity, b):
    """P[b] = output activation of Z[b], in place; padded lanes become 0."""
    lanes = lanes_of(Z)
    outputs = net.layers[net.depth].units
    first, last = (
        net.layers[net.depth].first_panel,
        net.layers[net.depth + 1].first_panel,
    )
    zero = constant(vload(Z, origin), 0.0)
    if kind == SOFTMAX:
        lowest = constant(zero, -np.inf)
        peak = lowest
        for p in range(first, last):
            at = origin + net.panels[p].column * capacity + b * net.panels[p].width
            for c in range(0, net.panels[p].width, lanes):
                real = first_lanes(zero, outputs - net.panels[p].start - c)
                z = select(real, vload(Z, at + c), lowest)
                peak = select(peak < z, z, peak)
        peak = splat(lane_max(peak))
        total = zero
        for p in range(first, last):
            at = origin + net.panels[p].column * capacity + b * net.panels[p].width
            for c in range(0, net.panels[p].width, lanes):
                real = first_lanes(zero, outputs - net.panels[p].start - c)
                e = select(real, vexp(vload(Z, at + c) - peak), zero)
                vstore(Z, at + c, e)
                total = total + e
        total = splat(lane_sum(total))
        for p in range(first, last):
            at = origin + net.panels[p].column * capacity + b * net.panels[p].width
            for c in range(0, net.panels[p].width, lanes):
                vstore(Z, at + c, vload(Z, at + c) / total)
    elif kind == LOG_LOSS:
        for p in range(first, last):
            at = origin + net.panels[p].column * capacity + b * net.panels[p].width
            for c in range(0, net.panels[p].width, lanes):
                real = first_lanes(zero, outputs - net.panels[p].start - c)
                vstore(Z, at + c, select(real, vlogistic(vload(Z, at + c)), zero))


@part
def loss_row(kind, net, work, targets, row, b):
    """row_loss[b] and D[b] = P[b] - Y[row]; softmax leaves p_y for ``finish_losses``."""
    P, D = work.activations, work.deltas
    lanes = lanes_of(P)
    outputs = net.layers[net.depth].units
    first, last = (
        net.layers[net.depth].first_panel,
        net.layers[net.depth + 1].first_panel,
    )
    if kind == SOFTMAX:
        label = np.int64(targets[row])
        for p in range(first, last):
            at = net.panels[p].column * work.capacity + b * net.panels[p].width
            for c in range(0, net.panels[p].width, lanes):
                vstore(D, at + c, vload(P, at + c))
            place = label - net.panels[p].start
            if 0 <= place < net.panels[p].width:
                work.row_loss[b] = P[at + place]
                D[at + place] -= work.row_loss.dtype.type(1)
        return
    total = constant(vload(P, 0), 0.0)
    one, half = constant(total, 1.0), constant(total, 0.5)
    eps = constant(total, machine_epsilon(P))
    for p in range(first, last):
        at = net.panels[p].column * work.capacity + b * net.panels[p].width
        real = min(net.panels[p].width, outputs - net.panels[p].start)
        for o in range(real):
            D[at + o] = targets[row * outputs + net.panels[p].start + o]
        for c in range(0, net.panels[p].width, lanes):
            mask = first_lanes(total, real - c)
            y, q = vload(D, at + c), vload(P, at + c)
            d = select(mask, q - y, constant(total, 0.0))
            vstore(D, at + c, d)
            if kind == LOG_LOSS:
                q = _clip(q, eps)
                loss = vlog(select(y > half, q, one - q))
                total = total - select(mask, loss, constant(total, 0.0))
            else:
                total = total + d * d
    if kind == SQUARED_ERROR:
        total = total / splat(work.row_loss.dtype.type(2 * outputs))
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
