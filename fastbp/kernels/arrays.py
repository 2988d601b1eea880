"""The steps of backpropagation on plain NumPy arrays, on the tiles of the epoch program.

Shapes   R rows, K inner, N columns of a product; B rows and O outputs of a loss.
Arrays   flat views of C-contiguous matrices, one dtype a call; the output comes first.
Threads  a task owns what it writes; the bits do not depend on threads.

These programs pack the operands into panels and copy the tiles out. Training does not
pay for that, it keeps everything in panels. ``fastbp.kernels`` has the functions that
users call.
"""

import numpy as np
from numba import prange

from fastbp.kernels.activations import activate, apply_derivative
from fastbp.kernels.gemm import TALL_ROWS, Left, Out, Right, multiply, panel_width
from fastbp.kernels.losses import loss_lanes, predict_lanes, target_columns
from fastbp.kernels.simd import kernel, lanes_of, vstore
from fastbp.kernels.updates import make_step, update
from fastbp.tables import ADAM, RELU, SQUARED_ERROR

#: Elements of an update, and rows of a product or a loss, that one task takes.
_RUN, _ROWS = 4096, 2 * TALL_ROWS


# ---------------------------------------------------------------- products


@kernel
def _multiply_rows(
    out, left, strides, panels, other, kind, slope, size, begin, packed, scratch
):
    """Rows ``begin`` to ``begin + _ROWS`` of ``multiply_all``, through scratch tiles."""
    rows, inner, columns = size
    lanes, pitch = lanes_of(out), panel_width(out)
    padded = -(-columns // lanes) * lanes
    real_rows = min(_ROWS, rows - begin)
    for k in range(inner):
        for r in range(real_rows):
            packed[k * _ROWS + r] = left[(begin + r) * strides[0] + k * strides[1]]
    zero, one, tall = np.int64(0), np.int64(1), np.int64(_ROWS)
    operand = Left(packed, zero, one, tall, inner, zero)
    tile = Out(scratch, zero, pitch)
    floor = out.dtype.type(-np.inf)
    if kind == RELU and not slope:
        floor = out.dtype.type(0)
    copied = _ROWS * pitch  # the second half of the scratch
    for start in range(0, columns, pitch):
        width = min(pitch, padded - start)
        real = min(width, columns - start)
        panel, bias = Right(panels, start * inner, width), padded * inner + start
        multiply(tile, operand, panel, inner, tall, width, bias, floor)
        if slope:
            for i in range(real_rows):
                for c in range(real):
                    a = other[(begin + i) * columns + start + c]
                    scratch[copied + i * pitch + c] = a
            apply_derivative(
                kind, scratch, scratch[copied:], zero, pitch, width, real_rows
            )
        else:
            activate(kind, scratch, zero, pitch, width, real, real_rows)
        for i in range(real_rows):
            for c in range(real):
                out[(begin + i) * columns + start + c] = scratch[i * pitch + c]


def multiply_all(
    out, left, strides, right, right_strides, bias, other, kind, slope, size, workers
):
    """out[R, N] = f(left[R, K] @ right[K, N] + bias[N]), or (left @ right) * f'(other)

    with ``slope``. ``size`` is (R, K, N); the strides count elements, so that either
    operand may be a transpose.
    """
    rows, inner, columns = size
    lanes, wide = lanes_of(out), panel_width(out)
    padded = -(-columns // lanes) * lanes
    panels = np.zeros(padded * (inner + 1), out.dtype)  # the last row is the bias
    for k in range(inner):
        for n in range(columns):
            start = n // wide * wide
            width = min(wide, padded - start)
            to = start * inner + k * width + n - start
            panels[to] = right[k * right_strides[0] + n * right_strides[1]]
    panels[padded * inner : padded * inner + bias.size] = bias
    blocks = -(-rows // _ROWS)
    packed = np.zeros((blocks, _ROWS * inner), out.dtype)
    scratch = np.zeros((blocks, 2 * _ROWS * wide), out.dtype)
    for b in prange(blocks):
        _multiply_rows(
            out,
            left,
            strides,
            panels,
            other,
            kind,
            slope,
            size,
            b * _ROWS,
            packed[b],
            scratch[b],
        )


# ---------------------------------------------------------------- losses


@kernel
def _loss_rows(delta, Z, targets, kind, size, begin, scratch):
    """Deltas of the rows ``begin`` to ``begin + _ROWS``; the sum of their losses."""
    rows, outputs = size
    lanes, columns = lanes_of(Z), target_columns(kind, outputs)
    divisor, total = Z.dtype.type(rows), 0.0
    labels = outputs * lanes
    losses = labels + columns * lanes
    for b in range(begin, min(begin + _ROWS, rows), lanes):
        for r in range(lanes):  # rows beyond the last repeat it
            row = min(b + r, rows - 1)
            for o in range(outputs):
                scratch[o * lanes + r] = Z[row * outputs + o]
            for o in range(columns):
                scratch[labels + o * lanes + r] = targets[row * columns + o]
        predict_lanes(kind, outputs, scratch, 0)
        vstore(scratch, losses, loss_lanes(kind, outputs, scratch, 0, labels))
        for r in range(min(lanes, rows - b)):
            total += scratch[losses + r]
            for o in range(outputs):
                delta[(b + r) * outputs + o] = scratch[o * lanes + r] / divisor
    return total


def loss_and_delta(loss, delta, Z, targets, kind, size, workers):
    """loss[0] = mean over the rows, delta[B, O] = its gradient with respect to Z[B, O]"""
    rows, outputs = size
    blocks = -(-rows // _ROWS)
    scratch = np.zeros((blocks, (2 * outputs + 1) * lanes_of(Z)), Z.dtype)
    losses = np.zeros(blocks)
    for b in prange(blocks):
        losses[b] = _loss_rows(delta, Z, targets, kind, size, b * _ROWS, scratch[b])
    total = 0.0
    for b in range(blocks):
        total += losses[b]
    if kind == SQUARED_ERROR:  # the row losses are means over the outputs
        total *= outputs
    loss[0] = total / rows


# ---------------------------------------------------------------- updates


@kernel
def _update_task(theta, m, v, gradient, task, step, buffer):
    """One run of the vectors; a rest of less than a register goes through a buffer."""
    lanes = lanes_of(theta)
    first = task * _RUN
    count = min(_RUN, theta.size - first)
    whole = count // lanes * lanes
    update(theta, m, v, first, whole, gradient, first, step.alpha, step)
    if whole < count:
        first += whole
        count -= whole
        t, a, b, g = buffer[0], buffer[1], buffer[2], buffer[3]
        for i in range(count):
            t[i], a[i], g[i] = theta[first + i], m[first + i], gradient[first + i]
            if step.kind == ADAM:
                b[i] = v[first + i]
        update(t, a, b, 0, lanes, g, 0, step.alpha, step)
        for i in range(count):
            theta[first + i], m[first + i] = t[i], a[i]
            if step.kind == ADAM:
                v[first + i] = b[i]


def update_all(theta, m, v, gradient, kind, rate, decays, nesterov, workers):
    """One optimizer step on flat vectors, in place; SGD does not touch v.

    ``decays`` are beta_1, beta_2, epsilon and momentum.
    """
    buffer = np.ones((4, lanes_of(theta)), theta.dtype)
    for task in prange(-(-theta.size // _RUN)):
        step = make_step(theta, kind, 1.0, 0.0, rate, decays, nesterov)
        _update_task(theta, m, v, gradient, task, step, buffer)
