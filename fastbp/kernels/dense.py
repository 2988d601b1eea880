"""Dense layers over a block of rows, and the weight tiles that they train.

Shapes   layer l maps the units u = l to the units u = l + 1; B rows in the batch.
Storage  A (activations) and D (deltas) of all units in panels of ``capacity`` rows and
         PW columns, W and its transpose in panels too (see ``gemm``). ``net.layers[u]``
         has the units' number, their ``columns`` (padded to whole registers), the
         ``place`` of their panels in A and D, where the ``weights`` into them (of
         ``rows`` padded inputs) and their ``biases`` begin in theta, and where the
         ``transposed`` weights out of them begin.
Padding  weights beyond the real rows and columns are zero and stay zero: the strips
         of inputs and the output deltas that would change them are zero there.
Threads  region 1 owns rows, region 2 owns weights; nothing is summed across owners,
         so the bits do not depend on who computes what.
"""

import numpy as np

from fastbp.kernels.activations import activate, apply_derivative
from fastbp.kernels.gemm import (
    TILE_ROWS,
    evenly,
    listed,
    multiply_tile,
    panel_width,
)
from fastbp.kernels.simd import (
    constant,
    first_lanes,
    kernel,
    lanes_of,
    part,
    select,
    transpose_square,
    vload,
    vstore,
)
from fastbp.kernels.updates import update
from fastbp.tables import GRADIENT, RELU


@part
def strip_width(array):
    """Inputs whose weights one task of region 2 owns: whole registers, whole tiles."""
    return max(lanes_of(array), TILE_ROWS)


@kernel
def dense_forward_block(net, layer, theta, X, offsets, A, base, capacity, begin, end):
    """A[layer + 1][begin:end] = f(A[layer][begin:end] @ W + b); A[0] is X[offsets].

    The last layer stores its pre-activations; ``losses`` takes it from there.
    """
    pitch = panel_width(A)
    inputs, outputs = net.layers[layer], net.layers[layer + 1]
    hidden = layer + 1 < net.depth
    floor = A.dtype.type(-np.inf)
    if hidden and net.activation == RELU:
        floor = A.dtype.type(0)
    left = base + inputs.place * capacity
    for start in range(0, outputs.columns, pitch):  # a panel of W for all rows
        width = min(pitch, outputs.columns - start)
        weights = outputs.weights + start * outputs.rows
        out = base + (outputs.place + start) * capacity
        for b in range(begin, end, TILE_ROWS):
            at = out + b * pitch
            if layer == 0:
                multiply_tile(
                    A,
                    at,
                    pitch,
                    floor,
                    theta,
                    outputs.biases + start,
                    X,
                    listed(offsets, b),
                    1,
                    inputs.units,
                    0,
                    theta,
                    weights,
                    width,
                    inputs.units,
                    width,
                )
            else:
                multiply_tile(
                    A,
                    at,
                    pitch,
                    floor,
                    theta,
                    outputs.biases + start,
                    A,
                    evenly(left + b * pitch, pitch),
                    1,
                    pitch,
                    pitch * capacity,
                    theta,
                    weights,
                    width,
                    inputs.units,
                    width,
                )
            if hidden:
                activate(net.activation, A, at, pitch, width, TILE_ROWS)


@kernel
def dense_backward_block(net, layer, A, D, transposed, capacity, begin, end):
    """D[layer][begin:end] = (D[layer + 1][begin:end] @ W.T) * f'(A[layer][begin:end])

    for layer >= 1: nothing asks for the delta of the inputs.
    """
    pitch = panel_width(D)
    inputs, outputs = net.layers[layer], net.layers[layer + 1]
    floor = D.dtype.type(-np.inf)
    left = outputs.place * capacity
    for start in range(0, inputs.columns, pitch):
        width = min(pitch, inputs.columns - start)
        weights = inputs.transposed + start * outputs.columns
        out = (inputs.place + start) * capacity
        for b in range(begin, end, TILE_ROWS):
            at = out + b * pitch
            multiply_tile(
                D,
                at,
                pitch,
                floor,
                D,
                -1,
                D,
                evenly(left + b * pitch, pitch),
                1,
                pitch,
                pitch * capacity,
                transposed,
                weights,
                width,
                outputs.units,
                width,
            )
            apply_derivative(net.activation, D, A, at, pitch, width, TILE_ROWS)


@part
def _pack_inputs(net, layer, first, X, offsets, A, capacity, batch, strips, at):
    """strips[at + b * strip + i] = A[layer][b, first + i], zero beyond the inputs."""
    lanes, pitch, strip = lanes_of(A), panel_width(A), strip_width(A)
    inputs = net.layers[layer]
    zero = constant(vload(strips, at), 0.0)
    for c in range(0, strip, lanes):
        column = first + c
        to = at + c
        real = min(lanes, inputs.units - column)
        if layer > 0 and real > 0:
            panel = column // pitch * pitch
            source = (inputs.place + panel) * capacity + column - panel
            inside = first_lanes(zero, real)
            for b in range(batch):
                a = vload(A, source + b * pitch)
                vstore(strips, to + b * strip, select(inside, a, zero))
        elif real == lanes:
            for b in range(batch):
                vstore(strips, to + b * strip, vload(X, offsets[b] + column))
        else:
            for b in range(batch):
                vstore(strips, to + b * strip, zero)
                for i in range(real):
                    strips[to + b * strip + i] = X[offsets[b] + column + i]


@part
def _train_panel(net, layer, start, first, parameters, work, batch, at, step):
    """Gradient tiles of one strip and panel, and their update; sum of W^2 before it."""
    theta, m, v = parameters
    pitch, strip = panel_width(theta), strip_width(theta)
    outputs = net.layers[layer + 1]
    width = min(pitch, outputs.columns - start)
    deltas = (outputs.place + start) * work.capacity
    weights = outputs.weights + start * outputs.rows + first * width
    gradient = at + work.capacity * strip
    squares = 0.0
    for i in range(0, strip, TILE_ROWS):
        multiply_tile(
            work.strips,
            gradient,
            width,
            theta.dtype.type(-np.inf),
            theta,
            -1,
            work.strips,
            evenly(at + i, 1),
            strip,
            batch,
            0,
            work.deltas,
            deltas,
            pitch,
            batch,
            width,
        )
        squares += update(
            theta,
            m,
            v,
            weights + i * width,
            TILE_ROWS * width,
            work.strips,
            gradient,
            step.alpha,
            step,
        )
    return squares


@part
def _train_biases(net, layer, start, parameters, work, batch, at, step):
    """b -= optimizer(column sums of D), for the columns of one panel."""
    theta, m, v = parameters
    pitch = panel_width(theta)
    outputs = net.layers[layer + 1]
    width = min(pitch, outputs.columns - start)
    deltas = (outputs.place + start) * work.capacity
    for c in range(0, width, lanes_of(theta)):
        total = constant(vload(work.strips, at), 0.0)
        for b in range(batch):
            total = total + vload(work.deltas, deltas + b * pitch + c)
        vstore(work.strips, at + c, total)
    no_decay = theta.dtype.type(0)
    biases = outputs.biases + start
    update(theta, m, v, biases, width, work.strips, at, no_decay, step)


@part
def _transpose_weights(net, layer, start, first, theta, transposed):
    """Write the strip's new weights of one panel to the transposed copy."""
    lanes, pitch = lanes_of(theta), panel_width(theta)
    inputs, outputs = net.layers[layer], net.layers[layer + 1]
    width = min(pitch, outputs.columns - start)
    weights = outputs.weights + start * outputs.rows
    last = min(first + strip_width(theta), inputs.columns)
    for i in range(first, last, lanes):
        panel = i // pitch * pitch
        span = min(pitch, inputs.columns - panel)
        to = inputs.transposed + panel * outputs.columns + start * span + i - panel
        for c in range(0, width, lanes):
            source = weights + i * width + c
            transpose_square(theta, source, width, transposed, to + c * span, span)


@part
def train_strip(net, layer, first, columns, parameters, X, work, batch, at, step):
    """W[layer][first : first + strip, columns] -= optimizer(A[layer].T @ D[layer + 1])

    and, with the first strip, the biases. ``columns`` (from, to) are whole panels;
    ``at`` is the worker's place in ``work.strips``. Returns the sum of the squared
    weights before the update.
    """
    pitch = panel_width(work.strips)
    A, capacity = work.activations, work.capacity
    _pack_inputs(net, layer, first, X, work.offsets, A, capacity, batch, work.strips, at)
    squares = 0.0
    for start in range(columns[0], columns[1], pitch):
        squares += _train_panel(
            net, layer, start, first, parameters, work, batch, at, step
        )
        if layer > 0 and step.kind != GRADIENT:
            _transpose_weights(net, layer, start, first, parameters[0], work.transposed)
    if first == 0:
        for start in range(columns[0], columns[1], pitch):
            _train_biases(net, layer, start, parameters, work, batch, at, step)
    return squares
