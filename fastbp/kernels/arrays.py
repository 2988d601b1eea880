"""The steps of backpropagation on plain NumPy arrays, on the tiles of the epoch program.

Shapes   R rows, K inner, N columns of a product; B rows and O outputs of a loss.
Arrays   flat views of C-contiguous matrices, one dtype a call; the output comes first.
Threads  a task owns what it writes; the bits do not depend on threads.

These programs pack the right operand into panels and copy the tiles out. Training does
not pay for that, it keeps everything in panels. ``fastbp.kernels`` has the functions
that users call.
"""

import numpy as np
from numba import prange

from fastbp.kernels.activations import activate, apply_derivative
from fastbp.kernels.gemm import TILE_ROWS, listed, multiply_tile, panel_width
from fastbp.kernels.losses import finish_losses, loss_row, predict_row
from fastbp.kernels.simd import kernel, lanes_of
from fastbp.kernels.updates import make_step, update
from fastbp.tables import (
    ADAM,
    LAYER,
    RELU,
    SQUARED_ERROR,
    Network,
    OutputRows,
)

#: Elements of an update, and rows of a product, that one task takes.
_RUN, _ROWS = 4096, 48


# ---------------------------------------------------------------- products


@kernel
def _multiply_rows(
    out, left, strides, panels, bias, other, kind, slope, size, begin, scratch, offsets
):
    """Rows ``begin`` to ``begin + _ROWS`` of ``multiply``, through a scratch tile."""
    rows, inner, columns = size
    lanes, pitch = lanes_of(out), panel_width(out)
    padded = -(-columns // lanes) * lanes
    floor = out.dtype.type(-np.inf)
    if kind == RELU and not slope:
        floor = out.dtype.type(0)
    copied = TILE_ROWS * pitch  # the second half of the scratch
    for r in range(begin, min(begin + _ROWS, rows), TILE_ROWS):
        real_rows = min(TILE_ROWS, rows - r)
        for i in range(TILE_ROWS):
            offsets[i] = min(r + i, rows - 1) * strides[0]
        for start in range(0, columns, pitch):
            width = min(pitch, padded - start)
            real = min(width, columns - start)
            multiply_tile(
                scratch,
                0,
                pitch,
                floor,
                bias,
                start,
                left,
                listed(offsets, 0),
                strides[1],
                inner,
                0,
                panels,
                start * inner,
                width,
                inner,
                width,
            )
            if slope:
                for i in range(real_rows):
                    for c in range(real):
                        a = other[(r + i) * columns + start + c]
                        scratch[copied + i * pitch + c] = a
                apply_derivative(
                    kind, scratch, scratch[copied:], 0, pitch, width, TILE_ROWS
                )
            else:
                activate(kind, scratch, 0, pitch, width, TILE_ROWS)
            for i in range(real_rows):
                for c in range(real):
                    z = scratch[i * pitch + c]
                    out[(r + i) * columns + start + c] = z


def multiply(
    out, left, strides, right, right_strides, bias, other, kind, slope, size, workers
):
    """out[R, N] = f(left[R, K] @ right[K, N] + bias[N]), or (left @ right) * f'(other)

    with ``slope``. ``size`` is (R, K, N); the strides count elements, so that either
    operand may be a transpose.
    """
    rows, inner, columns = size
    lanes, wide = lanes_of(out), panel_width(out)
    padded = -(-columns // lanes) * lanes
    panels = np.zeros(padded * inner, out.dtype)
    for k in range(inner):
        for n in range(columns):
            start = n // wide * wide
            width = min(wide, padded - start)
            to = start * inner + k * width + n - start
            panels[to] = right[k * right_strides[0] + n * right_strides[1]]
    start_values = np.zeros(padded, out.dtype)
    start_values[: bias.size] = bias
    blocks = -(-rows // _ROWS)
    scratch = np.zeros((blocks, 2 * TILE_ROWS * wide), out.dtype)
    offsets = np.zeros((blocks, TILE_ROWS), np.int64)
    for b in prange(blocks):
        _multiply_rows(
            out,
            left,
            strides,
            panels,
            start_values,
            other,
            kind,
            slope,
            size,
            b * _ROWS,
            scratch[b],
            offsets[b],
        )


# ---------------------------------------------------------------- losses


@kernel
def _loss_rows(net, work, targets, begin, end):
    for b in range(begin, end):
        predict_row(net.loss, net, work.activations, 0, work.capacity, b)
        loss_row(net.loss, net, work, targets, b, b)


def loss_and_delta(loss, delta, Z, targets, kind, size, workers):
    """loss[0] = mean over the rows, delta[B, O] = its gradient with respect to Z[B, O]"""
    rows, columns = size
    lanes, pitch = lanes_of(Z), panel_width(Z)
    width = -(-columns // pitch) * pitch
    capacity = -(-rows // lanes) * lanes
    layers = np.zeros(2, LAYER)
    layers[1].units = columns
    net = Network(layers, 1, 0, kind)
    activations = np.zeros(capacity * width, Z.dtype)
    deltas = np.zeros(capacity * width, Z.dtype)
    row_loss = np.ones(capacity, Z.dtype)
    work = OutputRows(activations, deltas, row_loss, capacity)
    for b in range(rows):
        for o in range(columns):
            at = o // pitch * pitch * capacity + b * pitch + o % pitch
            activations[at] = Z[b * columns + o]
    blocks = -(-rows // _ROWS)
    for i in prange(blocks):
        _loss_rows(net, work, targets, i * _ROWS, min((i + 1) * _ROWS, rows))
    finish_losses(kind, row_loss, 0, capacity)
    total = 0.0
    for b in range(rows):
        total += row_loss[b]
        for o in range(columns):
            at = o // pitch * pitch * capacity + b * pitch + o % pitch
            delta[b * columns + o] = deltas[at] / Z.dtype.type(rows)
    if kind == SQUARED_ERROR:  # the row losses are means over the outputs
        total *= columns
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
