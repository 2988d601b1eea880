"""Dense layers over a block of rows, and the weight tiles that they train.

Shapes   layer l maps the units u = l to the units u = l + 1; B rows in the batch.
Storage  A (activations) and D (deltas) of all units in panels of ``capacity`` rows, W
         and its transpose in panels too (see ``gemm``). ``net.layers[u]`` has the units'
         number and their first panel; ``net.panels[p]`` has a panel's first column
         among its units (``start``) and among all units (``column``), its ``width``,
         and where the ``weights`` and ``biases`` into these units and the
         ``transposed`` weights out of them begin.
Padding  weights beyond the real rows and columns are zero and stay zero: the strips
         of inputs and the output deltas that would change them are zero there.
Threads  region 1 owns rows, region 2 owns weights; nothing is summed across owners,
         so the bits do not depend on who computes what.
"""

import numpy as np

from fastbp.kernels.activations import activate, apply_derivative
from fastbp.kernels.gemm import (
    ONE,
    THREE,
    TILE_ROWS,
    TWO,
    evenly,
    listed,
    product,
    tile_of_rows,
    tile_of_zeros,
    tile_store,
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


@part
def _times_panels(tile, net, u, left, base, capacity, b, right, first, width):
    """tile + left[u][b : b + TILE_ROWS] @ right, left in panels."""
    for q in range(net.layers[u].first_panel, net.layers[u + 1].first_panel):
        start, stride = net.panels[q].start, net.panels[q].width
        rows = evenly(base + net.panels[q].column * capacity + b * stride, stride)
        n = min(stride, net.layers[u].units - start)
        tile = product(tile, left, rows, 1, right, first + start * width, width, n)
    return tile


@kernel
def _forward_panel(
    net, layer, p, theta, X, offsets, A, base, capacity, begin, end, vectors
):
    width, weights = net.panels[p].width, net.panels[p].weights
    biases = net.panels[p].biases
    out = base + net.panels[p].column * capacity
    hidden = layer + 1 < net.depth
    floor = A.dtype.type(-np.inf)
    if hidden and net.activation == RELU:
        floor = A.dtype.type(0)
    for b in range(begin, end, TILE_ROWS):
        tile = tile_of_rows(theta, biases, vectors)
        if layer == 0:
            inputs = net.layers[0].units
            tile = product(
                tile, X, listed(offsets, b), 1, theta, weights, width, inputs
            )
        else:
            tile = _times_panels(
                tile, net, layer, A, base, capacity, b, theta, weights, width
            )
        tile_store(A, out + b * width, tile, floor)
        if hidden:
            activate(net.activation, A, out + b * width, TILE_ROWS * width)


@part
def dense_forward_block(net, layer, theta, X, offsets, A, base, capacity, begin, end):
    """A[layer + 1][begin:end] = f(A[layer][begin:end] @ W + b); A[0] is X[offsets].

    The last layer stores its pre-activations; ``losses`` takes it from there.
    """
    lanes = lanes_of(theta)
    for p in range(
        net.layers[layer + 1].first_panel, net.layers[layer + 2].first_panel
    ):
        vectors = net.panels[p].width // lanes
        if vectors == 3:
            _forward_panel(
                net, layer, p, theta, X, offsets, A, base, capacity, begin, end, THREE
            )
        elif vectors == 2:
            _forward_panel(
                net, layer, p, theta, X, offsets, A, base, capacity, begin, end, TWO
            )
        else:
            _forward_panel(
                net, layer, p, theta, X, offsets, A, base, capacity, begin, end, ONE
            )


@kernel
def _backward_panel(net, layer, p, A, D, transposed, capacity, begin, end, vectors):
    width, weights = net.panels[p].width, net.panels[p].transposed
    out = net.panels[p].column * capacity
    for b in range(begin, end, TILE_ROWS):
        tile = tile_of_zeros(D, vectors)
        tile = _times_panels(
            tile, net, layer + 1, D, 0, capacity, b, transposed, weights, width
        )
        at = out + b * width
        tile_store(D, at, tile, D.dtype.type(-np.inf))
        apply_derivative(net.activation, D, A, at, TILE_ROWS * width)


@part
def dense_backward_block(net, layer, A, D, transposed, capacity, begin, end):
    """D[layer][begin:end] = (D[layer + 1][begin:end] @ W.T) * f'(A[layer][begin:end])

    for layer >= 1: nothing asks for the delta of the inputs.
    """
    lanes = lanes_of(D)
    for p in range(net.layers[layer].first_panel, net.layers[layer + 1].first_panel):
        vectors = net.panels[p].width // lanes
        if vectors == 3:
            _backward_panel(
                net, layer, p, A, D, transposed, capacity, begin, end, THREE
            )
        elif vectors == 2:
            _backward_panel(net, layer, p, A, D, transposed, capacity, begin, end, TWO)
        else:
            _backward_panel(net, layer, p, A, D, transposed, capacity, begin, end, ONE)


@part
def _panel_of(net, u, column):
    """The panel of the units u that holds a column, or the one behind the last."""
    q, last = net.layers[u].first_panel, net.layers[u + 1].first_panel
    while q < last and net.panels[q].start + net.panels[q].width <= column:
        q += 1
    return q


@part
def _pack_inputs(net, layer, first, X, offsets, A, capacity, batch, strips, at):
    """strips[at + b * strip + i] = A[layer][b, first + i], zero beyond the inputs."""
    lanes = lanes_of(A)
    strip = strip_width(A)
    zero = constant(vload(strips, at), 0.0)
    for c in range(0, strip, lanes):
        column = first + c
        to = at + c
        real = min(lanes, net.layers[layer].units - column)
        if layer > 0 and real > 0:
            q = _panel_of(net, layer, column)
            stride = net.panels[q].width
            source = net.panels[q].column * capacity + column - net.panels[q].start
            inside = first_lanes(zero, real)
            for b in range(batch):
                a = vload(A, source + b * stride)
                vstore(strips, to + b * strip, select(inside, a, zero))
        elif real == lanes:
            for b in range(batch):
                vstore(strips, to + b * strip, vload(X, offsets[b] + column))
        else:
            for b in range(batch):
                vstore(strips, to + b * strip, zero)
                for i in range(real):
                    strips[to + b * strip + i] = X[offsets[b] + column + i]


@kernel
def _train_panel(
    net, p, first, theta, m, v, D, capacity, batch, strips, at, step, vectors
):
    """Gradient tiles of one strip and panel, and their update; sum of W^2 before it."""
    strip, width = strip_width(theta), net.panels[p].width
    deltas = net.panels[p].column * capacity
    weights = net.panels[p].weights + first * width
    gradient = at + capacity * strip
    squares = 0.0
    for i in range(0, strip, TILE_ROWS):
        tile = tile_of_zeros(theta, vectors)
        inputs = evenly(at + i, 1)
        tile = product(tile, strips, inputs, strip, D, deltas, width, batch)
        tile_store(strips, gradient, tile, theta.dtype.type(-np.inf))
        squares += update(
            theta,
            m,
            v,
            weights + i * width,
            TILE_ROWS * width,
            strips,
            gradient,
            step.alpha,
            step,
        )
    return squares


@part
def _train_biases(net, p, theta, m, v, D, capacity, batch, strips, at, step):
    """b -= optimizer(column sums of D), for the columns of one panel."""
    width = net.panels[p].width
    deltas = net.panels[p].column * capacity
    for c in range(0, width, lanes_of(theta)):
        total = constant(vload(strips, at), 0.0)
        for b in range(batch):
            total = total + vload(D, deltas + b * width + c)
        vstore(strips, at + c, total)
    no_decay = theta.dtype.type(0)
    update(theta, m, v, net.panels[p].biases, width, strips, at, no_decay, step)


@part
def _transpose_weights(net, layer, p, first, theta, transposed):
    """Write the strip's new weights of one panel to the transposed copy."""
    lanes = lanes_of(theta)
    width, start = net.panels[p].width, net.panels[p].start
    for i in range(first, first + strip_width(theta), lanes):
        q = _panel_of(net, layer, i)
        if q < net.layers[layer + 1].first_panel:
            pitch = net.panels[q].width
            to = net.panels[q].transposed + start * pitch + i - net.panels[q].start
            source = net.panels[p].weights + i * width
            for c in range(0, width, lanes):
                transpose_square(
                    theta, source + c, width, transposed, to + c * pitch, pitch
                )


@part
def train_strip(net, layer, first, panels, parameters, X, work, batch, at, step):
    """W[layer][first : first + strip, panels] -= optimizer(A[layer].T @ D[layer + 1])

    and, with the first strip, the biases. ``at`` is the worker's place in
    ``work.strips``. Returns the sum of the squared weights before the update.
    """
    theta, m, v = parameters
    D, capacity, strips = work.deltas, work.capacity, work.strips
    lanes = lanes_of(theta)
    _pack_inputs(
        net,
        layer,
        first,
        X,
        work.offsets,
        work.activations,
        capacity,
        batch,
        strips,
        at,
    )
    squares = 0.0
    for p in range(panels[0], panels[1]):
        vectors = net.panels[p].width // lanes
        if vectors == 3:
            squares += _train_panel(
                net, p, first, theta, m, v, D, capacity, batch, strips, at, step, THREE
            )
        elif vectors == 2:
            squares += _train_panel(
                net, p, first, theta, m, v, D, capacity, batch, strips, at, step, TWO
            )
        else:
            squares += _train_panel(
                net, p, first, theta, m, v, D, capacity, batch, strips, at, step, ONE
            )
        if layer > 0 and step.kind != GRADIENT:
            _transpose_weights(net, layer, p, first, theta, work.transposed)
    if first == 0:
        for p in range(panels[0], panels[1]):
            _train_biases(net, p, theta, m, v, D, capacity, batch, strips, at, step)
    return squares
