"""Dense layers over a block of rows, and the weights that they train.

Shapes   layer l maps the units u = l to the units u = l + 1; B rows in the batch.
Storage  A (activations) and D (deltas) of all units in panels of ``capacity`` rows and
         PW columns, W and its transpose in panels too (see ``gemm``). ``net.layers[u]``
         has the units' number, their ``columns`` (padded to whole registers), the
         ``place`` of their panels in A and D, where the ``weights`` into them (of
         ``rows`` padded inputs) and their ``biases`` begin in theta, and where the
         ``transposed`` weights out of them begin.
Padding  columns of A and D beyond the units are zero, and so are the weights beyond the
         real rows and columns, which therefore never change. Rows of A and D beyond the
         batch hold anything: only whole tiles of rows are computed, and nothing that
         counts is read from the rest.
Threads  region 1 owns rows, region 2 owns weights; nothing is summed across owners,
         so the bits do not depend on who computes what.
"""

import numpy as np

from fastbp.kernels.activations import activate, apply_derivative
from fastbp.kernels.gemm import (
    TILE_VECTORS,
    Left,
    Out,
    Right,
    multiply,
    panel_width,
)
from fastbp.kernels.simd import (
    constant,
    fma,
    kernel,
    lane_sum,
    lanes_of,
    part,
    splat,
    transpose_square,
    vload,
    vstore,
)
from fastbp.kernels.updates import update
from fastbp.tables import GRADIENT, RELU


@part
def _rows_of(array, first, pitch, capacity):
    """The rows of panels that begin at ``first``, as a left operand."""
    return Left(array, first, pitch, np.int64(1), pitch, pitch * capacity)


@part
def pack_inputs(net, data, start, A, base, capacity, begin, end):
    """A[0][b] = X[order[start + b]] for begin <= b < end; whether all are finite.

    The rows are read once, and in panels they serve forward pass and weight gradient
    without the stalls of reading single numbers from rows all over X.
    """
    lanes, pitch = lanes_of(A), panel_width(A)
    units = net.layers[0].units
    whole = units // lanes * lanes
    nought = A.dtype.type(0)
    rest, zero = nought, splat(nought)
    sums = zero  # of 0 x, which is NaN if x is not finite
    for b in range(begin, end):
        row = data.order[start + b] * units
        for panel in range(0, units, pitch):
            to = base + panel * capacity + b * pitch
            for i in range(panel, min(panel + pitch, whole), lanes):
                x = vload(data.X, row + i)
                vstore(A, to + i - panel, x)
                sums = fma(x, zero, sums)
            for i in range(max(panel, whole), min(panel + pitch, units)):
                a = data.X[row + i]
                A[to + i - panel] = a
                rest += a * nought
    return lane_sum(sums) + rest == 0


@kernel
def dense_forward_block(net, layer, theta, A, base, capacity, begin, end):
    """A[layer + 1][begin:end] = f(A[layer][begin:end] @ W + b)

    The last layer stores its pre-activations; ``losses`` takes it from there.
    """
    pitch = panel_width(A)
    inputs, outputs = net.layers[layer], net.layers[layer + 1]
    hidden = layer + 1 < net.depth
    floor = A.dtype.type(-np.inf)
    if hidden and net.activation == RELU:
        floor = A.dtype.type(0)
    rows = end - begin
    left = _rows_of(A, base + inputs.place * capacity + begin * pitch, pitch, capacity)
    for start in range(0, outputs.columns, pitch):
        width = min(pitch, outputs.columns - start)
        weights = Right(theta, outputs.weights + start * outputs.rows, width)
        at = base + (outputs.place + start) * capacity + begin * pitch
        biases = outputs.biases + start
        out = Out(A, at, pitch)
        multiply(out, left, weights, inputs.units, rows, width, biases, floor)
        if hidden:
            real = min(width, outputs.units - start)
            activate(net.activation, A, at, pitch, width, real, rows)


@kernel
def dense_backward_block(net, layer, A, D, transposed, capacity, begin, end):
    """D[layer][begin:end] = (D[layer + 1][begin:end] @ W.T) * f'(A[layer][begin:end])

    for layer >= 1: nothing asks for the delta of the inputs.
    """
    pitch = panel_width(D)
    inputs, outputs = net.layers[layer], net.layers[layer + 1]
    floor = D.dtype.type(-np.inf)
    rows = end - begin
    left = _rows_of(D, outputs.place * capacity + begin * pitch, pitch, capacity)
    for start in range(0, inputs.columns, pitch):
        width = min(pitch, inputs.columns - start)
        first = inputs.transposed + start * outputs.columns
        weights = Right(transposed, first, width)
        at = (inputs.place + start) * capacity + begin * pitch
        none = np.int64(-1)
        out = Out(D, at, pitch)
        multiply(out, left, weights, outputs.units, rows, width, none, floor)
        apply_derivative(net.activation, D, A, at, pitch, width, rows)


@part
def _train_biases(outputs, start, width, parameters, work, batch, at, step):
    """b -= optimizer(column sums of D), for the columns of one panel."""
    theta, m, v = parameters
    lanes, pitch = lanes_of(theta), panel_width(theta)
    for c in range(0, width, TILE_VECTORS * lanes):  # several sums side by side
        first = (outputs.place + start) * work.capacity + c
        one = two = three = constant(vload(theta, 0), 0.0)
        for d in range(first, first + batch * pitch, pitch):
            one = one + vload(work.deltas, d)
            two = two + vload(work.deltas, d + lanes)
            three = three + vload(work.deltas, d + 2 * lanes)
        vstore(work.scratch, at + c, one)
        vstore(work.scratch, at + c + lanes, two)
        vstore(work.scratch, at + c + 2 * lanes, three)
    biases, no_decay = outputs.biases + start, theta.dtype.type(0)
    update(theta, m, v, biases, width, work.scratch, at, no_decay, step)


@part
def _transpose_weights(inputs, outputs, start, first, height, width, theta, transposed):
    """Write the new weights W[first : first + height, start : start + width]

    to the transposed copy.
    """
    lanes, pitch = lanes_of(theta), panel_width(theta)
    weights = outputs.weights + start * outputs.rows + first * width
    span = min(pitch, inputs.columns - first)
    to = inputs.transposed + first * outputs.columns + start * span
    for i in range(0, min(height, span), lanes):  # rows are padded more than columns
        for c in range(0, width, lanes):
            source = weights + i * width + c
            transpose_square(theta, source, width, transposed, to + c * span + i, span)


@kernel
def train_weights(net, layer, first, columns, parameters, work, batch, at, step):
    """W[layer][first : first + PW, columns] -= optimizer(A[layer].T @ D[layer + 1])

    and, with the first inputs, the biases. ``columns`` (from, to) are whole panels;
    ``at`` is the worker's place in ``work.scratch``. Returns the sum of the squared
    weights before the update.
    """
    theta, m, v = parameters
    pitch, capacity = panel_width(theta), work.capacity
    inputs, outputs = net.layers[layer], net.layers[layer + 1]
    height = min(pitch, outputs.rows - first)
    inner = np.int64(1)
    left = Left(
        work.activations,
        (inputs.place + first) * capacity,
        inner,
        pitch,
        batch,
        np.int64(0),
    )
    squares = 0.0
    for start in range(columns[0], columns[1], pitch):
        width = min(pitch, outputs.columns - start)
        deltas = Right(work.deltas, (outputs.place + start) * capacity, pitch)
        floor, none = theta.dtype.type(-np.inf), np.int64(-1)
        gradient = Out(work.scratch, at, width)
        multiply(gradient, left, deltas, batch, height, width, none, floor)
        weights = outputs.weights + start * outputs.rows + first * width
        run = height * width
        squares += update(theta, m, v, weights, run, work.scratch, at, step.alpha, step)
        if layer > 0 and step.kind != GRADIENT:
            _transpose_weights(
                inputs, outputs, start, first, height, width, theta, work.transposed
            )
        if first == 0:
            _train_biases(outputs, start, width, parameters, work, batch, at, step)
    return squares
