"""Layers over a block of rows, and the weights that they train.

Shapes   layer l maps the units u = l to the units u = l + 1; B rows in the batch.
Storage  A (activations) and D (deltas) of all units in panels of ``capacity`` rows and
         PW columns, W and its transpose in panels too (see ``gemm``). ``net.layers[u]``
         has the units' number, their ``columns`` (padded to whole registers), the
         ``place`` of their panels in A and D, where the ``weights`` into them (of
         ``rows`` padded inputs) and their ``biases`` begin in theta, where the
         ``transposed`` weights out of them begin, and their ``activation`` f. What
         extended networks do to units beyond that is in ``hidden``.
Sparse   inputs are read where they are stored (see ``tables.Data``): only layer 0 knows.
         A number that is not stored adds nothing, and those that are come in the order
         of the dense sums, so the bits are those of the same dense inputs.
Padding  columns of A and D beyond the units are zero, and so are the weights beyond the
         real rows and columns, which therefore never change. Rows of A and D beyond the
         batch hold anything: only whole tiles of rows are computed, and nothing that
         counts is read from the rest.
Threads  region 1 owns rows, region 2 owns weights; nothing is summed across owners,
         so the bits do not depend on who computes what.
"""

import numpy as np
from numba import types
from numba.extending import overload

from fastbp.kernels.activations import activate, apply_derivative
from fastbp.kernels.gemm import (
    RESUME,
    TILE_VECTORS,
    ZERO,
    Left,
    Out,
    Right,
    depth_at,
    multiply,
    panel_width,
)
from fastbp.kernels.more_updates import apply_update
from fastbp.kernels.simd import (
    OVERLOAD,
    constant,
    first_lanes,
    fma,
    kernel,
    lane_sum,
    lanes_of,
    part,
    prefetch,
    select,
    splat,
    transpose_square,
    vload,
    vstore,
)
from fastbp.tables import CACHE_LINE, GRADIENT, RELU

#: Bytes of inputs on their way from memory while others are packed.
_AHEAD = 2048


@part
def _rows_of(array, first, pitch, capacity, k):
    """The rows of panels that begin at ``first``, from column k, as a left operand."""
    to_k = k // pitch * pitch * capacity
    return Left(array, first + to_k, pitch, np.int64(1), pitch, pitch * capacity)


@part
def _prefetch_row(data, b, units):
    """Ask for the row that comes some rows after order[b], as rows lie all over X."""
    size = data.X.itemsize
    ahead = 1 + _AHEAD // (units * size)
    row = data.order[min(b + ahead, data.order.size - 1)] * units
    for i in range(0, units, CACHE_LINE // size):
        prefetch(data.X, row + i)
    prefetch(data.X, row + units - 1)


@part
def _load_rest(X, first, count, zero):
    """X[first : first + count] and zeros, fewer numbers than a register holds."""
    if first + lanes_of(X) <= X.size:
        return select(first_lanes(zero, count), vload(X, first), zero)
    rest = zero  # of the very last row
    for i in range(count):
        rest = select(first_lanes(zero, i), rest, splat(X[first + i]))
    return select(first_lanes(zero, count), rest, zero)


@kernel
def _pack_inputs(net, data, start, A, base, capacity, begin, end):
    """A[0][b] = X[order[start + b]] for begin <= b < end; whether all are finite.

    The rows are read once, and in panels they serve forward pass and weight gradient
    without the stalls of reading single numbers from rows all over X.
    """
    X, lanes, pitch = data.X, lanes_of(A), panel_width(A)
    units = net.layers[0].units
    whole, wide = units // lanes * lanes, TILE_VECTORS * lanes
    zero = splat(A.dtype.type(0))
    one, two, three = zero, zero, zero  # sums of 0 x, which is NaN if x is not finite
    for b in range(begin, end):
        _prefetch_row(data, start + b, units)
        row, to = data.order[start + b] * units, base + b * pitch
        for i in range(0, whole - wide + 1, wide):
            at = to + i // pitch * pitch * capacity + i % pitch
            x, y, z = (
                vload(X, row + i),
                vload(X, row + i + lanes),
                vload(X, row + i + 2 * lanes),
            )
            vstore(A, at, x)
            vstore(A, at + lanes, y)
            vstore(A, at + 2 * lanes, z)
            one, two, three = fma(x, zero, one), fma(y, zero, two), fma(z, zero, three)
        for i in range(whole // wide * wide, whole, lanes):
            x = vload(X, row + i)
            vstore(A, to + i // pitch * pitch * capacity + i % pitch, x)
            two = fma(x, zero, two)
        if whole < units:
            x = _load_rest(X, row + whole, units - whole, zero)
            vstore(A, to + whole // pitch * pitch * capacity + whole % pitch, x)
            three = fma(x, zero, three)
    return lane_sum(one + two + three) == 0


@part
def _stored_are_finite(data, start, begin, end):
    """Whether the stored numbers of the rows order[start + begin : start + end] are."""
    nought = data.X.dtype.type(0)
    rest = nought  # of 0 x, which is NaN if x is not finite
    for b in range(begin, end):
        row = data.order[start + b]
        for s in range(data.indptr[row], data.indptr[row + 1]):
            rest += data.X[s] * nought
    return rest == 0


@part
def _first_stored(data, row, column):
    """The first stored number of a row that is in ``column`` or behind it."""
    low, high = data.indptr[row], data.indptr[row + 1]
    while low < high:
        middle = (low + high) >> 1
        if data.indices[middle] < column:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _sparse_forward_block(net, data, start, theta, A, base, capacity, begin, end):
    """A[1][begin:end] = f(X @ W + b) for the rows order[start + begin : start + end]

    of sparse inputs X. Without hidden layers, their pre-activations.
    """
    lanes, pitch = lanes_of(A), panel_width(A)
    outputs = net.layers[1]
    hidden = net.depth > 1
    floor = splat(A.dtype.type(-np.inf))
    if hidden and outputs.activation == RELU:
        floor = splat(A.dtype.type(0))
    wide = TILE_VECTORS * lanes
    for first in range(0, outputs.columns, pitch):
        width = min(pitch, outputs.columns - first)
        weights = outputs.weights + first * outputs.rows
        biases = outputs.biases + first
        at = base + (outputs.place + first) * capacity + begin * pitch
        for b in range(begin, end):
            row, to = data.order[start + b], at + (b - begin) * pitch
            stored = range(data.indptr[row], data.indptr[row + 1])
            for c in range(0, width - wide + 1, wide):  # several sums side by side
                one = vload(theta, biases + c)
                two = vload(theta, biases + c + lanes)
                three = vload(theta, biases + c + 2 * lanes)
                for s in stored:
                    w, x = weights + data.indices[s] * width + c, splat(data.X[s])
                    one = fma(x, vload(theta, w), one)
                    two = fma(x, vload(theta, w + lanes), two)
                    three = fma(x, vload(theta, w + 2 * lanes), three)
                vstore(A, to + c, select(one < floor, floor, one))
                vstore(A, to + c + lanes, select(two < floor, floor, two))
                vstore(A, to + c + 2 * lanes, select(three < floor, floor, three))
            for c in range(width // wide * wide, width, lanes):
                total = vload(theta, biases + c)
                for s in stored:
                    w = weights + data.indices[s] * width + c
                    total = fma(splat(data.X[s]), vload(theta, w), total)
                vstore(A, to + c, select(total < floor, floor, total))
        if hidden:
            real = min(width, outputs.units - first)
            activate(outputs.activation, A, at, pitch, width, real, end - begin)


@kernel
def dense_forward_block(net, layer, theta, A, base, capacity, begin, end):
    """A[layer + 1][begin:end] = f(A[layer][begin:end] @ W + b)

    The last layer stores its pre-activations; ``losses`` takes it from there.
    """
    pitch = panel_width(A)
    inputs, outputs = net.layers[layer], net.layers[layer + 1]
    hidden = layer + 1 < net.depth
    floor = A.dtype.type(-np.inf)
    if hidden and outputs.activation == RELU:
        floor = A.dtype.type(0)
    none = A.dtype.type(-np.inf)
    rows, n = end - begin, inputs.units
    first = base + inputs.place * capacity + begin * pitch
    k = 0
    while k < n:
        depth = depth_at(k, n)
        last = k + depth == n
        left = _rows_of(A, first, pitch, capacity, k)
        for start in range(0, outputs.columns, pitch):
            width = min(pitch, outputs.columns - start)
            panel = outputs.weights + start * outputs.rows
            weights = Right(theta, panel + k * width, width)
            at = base + (outputs.place + start) * capacity + begin * pitch
            sums = outputs.biases + start if k == 0 else RESUME
            low = floor if last else none
            multiply(Out(A, at, pitch), left, weights, depth, rows, width, sums, low)
            if last and hidden:
                real = min(width, outputs.units - start)
                activate(outputs.activation, A, at, pitch, width, real, rows)
        k += depth


def begin_forward(net, data, start, theta, A, base, capacity, begin, end):
    """A[0][begin:end] = X[order[start + begin : start + end]] of dense inputs X, or

    A[1][begin:end] = f(X[...] @ W + b) of sparse ones, which have no place in A. Returns
    the first layer that is left to do, 0 or 1, and whether all the inputs are finite.
    Which of the two is known from the type of ``data``, so that programs for dense inputs
    are compiled without a word of the others.
    """
    raise NotImplementedError("only inside kernels")


def _is_sparse(data):
    """Whether a type of ``Data`` is that of sparse inputs."""
    return not isinstance(data.types[data.fields.index("indptr")], types.NoneType)


@overload(begin_forward, jit_options=OVERLOAD)
def _overload_begin_forward(net, data, start, theta, A, base, capacity, begin, end):
    def sparse(net, data, start, theta, A, base, capacity, begin, end):
        finite = _stored_are_finite(data, start, begin, end)
        _sparse_forward_block(net, data, start, theta, A, base, capacity, begin, end)
        return 1, finite

    def dense(net, data, start, theta, A, base, capacity, begin, end):
        return 0, _pack_inputs(net, data, start, A, base, capacity, begin, end)

    return sparse if _is_sparse(data) else dense


@kernel
def dense_backward_block(net, layer, A, D, transposed, capacity, begin, end):
    """D[layer][begin:end] = (D[layer + 1][begin:end] @ W.T) * f'(A[layer][begin:end])

    for layer >= 1: nothing asks for the delta of the inputs.
    """
    pitch = panel_width(D)
    inputs, outputs = net.layers[layer], net.layers[layer + 1]
    none = D.dtype.type(-np.inf)
    rows, n = end - begin, outputs.units
    first = outputs.place * capacity + begin * pitch
    k = 0
    while k < n:
        depth = depth_at(k, n)
        left = _rows_of(D, first, pitch, capacity, k)
        for start in range(0, inputs.columns, pitch):
            width = min(pitch, inputs.columns - start)
            panel = inputs.transposed + start * outputs.columns
            weights = Right(transposed, panel + k * width, width)
            at = (inputs.place + start) * capacity + begin * pitch
            sums = ZERO if k == 0 else RESUME
            multiply(Out(D, at, pitch), left, weights, depth, rows, width, sums, none)
            if k + depth == n:
                apply_derivative(inputs.by_output, D, A, at, pitch, width, rows)
        k += depth


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
    biases = outputs.biases + start
    apply_update(theta, m, v, biases, width, work.scratch, at, False, step)


@part
def transpose_weights(inputs, outputs, start, first, height, width, theta, transposed):
    """Write the new weights W[first : first + height, start : start + width]

    to the transposed copy.
    """
    lanes, pitch = lanes_of(theta), panel_width(theta)
    weights = outputs.weights + start * outputs.rows + first * width
    panel = first // pitch * pitch
    span = min(pitch, inputs.columns - panel)
    to = inputs.transposed + panel * outputs.columns + start * span + first - panel
    end = min(height, inputs.columns - first)  # rows are padded more than columns
    for i in range(0, end, lanes):
        for c in range(0, width, lanes):
            source = weights + i * width + c
            transpose_square(theta, source, width, transposed, to + c * span + i, span)


@part
def _train_panel(net, layer, first, height, start, parameters, work, batch, at, step):
    """Update the weights of one panel of inputs, or some of them, into one of outputs.

    Their gradient is scratch[at:]. Returns the sum of their squares before.
    """
    theta, m, v = parameters
    pitch = panel_width(theta)
    inputs, outputs = net.layers[layer], net.layers[layer + 1]
    width = min(pitch, outputs.columns - start)
    weights = outputs.weights + start * outputs.rows + first * width
    run = height * width
    squares = apply_update(theta, m, v, weights, run, work.scratch, at, True, step)
    if layer > 0 and step.kind != GRADIENT:
        transpose_weights(
            inputs, outputs, start, first, height, width, theta, work.transposed
        )
    if first == 0:
        _train_biases(outputs, start, width, parameters, work, batch, at, step)
    return squares


@kernel
def _sparse_gradient(net, task, data, work, start, batch, at):
    """scratch[at:] = X.T @ D[1] for the inputs and outputs of a task, sparse inputs X

    in tiles of PW x PW, the outputs' side by side for each panel of inputs.
    """
    D, scratch = work.deltas, work.scratch
    lanes, pitch = lanes_of(D), panel_width(D)
    place, square = net.layers[1].place, pitch * pitch
    across = -(-(task.end_output - task.first_output) // pitch)
    down = -(-(task.end_input - task.first_input) // pitch)
    zero = splat(D.dtype.type(0))
    for i in range(at, at + down * across * square, lanes):
        vstore(scratch, i, zero)
    for b in range(batch):
        row = data.order[start + b]
        s, last = _first_stored(data, row, task.first_input), data.indptr[row + 1]
        while s < last and data.indices[s] < task.end_input:
            i, x = data.indices[s] - task.first_input, splat(data.X[s])
            tile = at + i // pitch * across * square
            for first in range(task.first_output, task.end_output, pitch):
                width = min(pitch, task.end_output - first)
                d = (place + first) * work.capacity + b * pitch
                to = tile + i % pitch * width
                for c in range(0, width, lanes):
                    total = vload(scratch, to + c)
                    vstore(scratch, to + c, fma(x, vload(D, d + c), total))
                tile += square
            s += 1


def gather_gradient(net, task, data, work, start, batch, at):
    """Do ``_sparse_gradient`` for sparse inputs; whether there was anything to do."""
    raise NotImplementedError("only inside kernels")


@overload(gather_gradient, jit_options=OVERLOAD)
def _overload_gather_gradient(net, task, data, work, start, batch, at):
    def sparse(net, task, data, work, start, batch, at):
        if task.layer > 0:
            return False
        _sparse_gradient(net, task, data, work, start, batch, at)
        return True

    def dense(net, task, data, work, start, batch, at):
        return False

    return sparse if _is_sparse(data) else dense


@kernel
def train_weights(net, task, parameters, data, work, start, batch, at, step):
    """W[layer][inputs, outputs] -= optimizer(A[layer].T @ D[layer + 1])

    and, with the first inputs, the biases. ``task`` has the layer, the inputs, whole
    panels or a part of one, and the outputs, whole panels; ``at`` is the worker's place
    in ``work.scratch``, which keeps the sums of all panels of the task while the batch is
    taken in parts, or while the batch's sparse inputs are read once for all of them.
    Returns the sum of the squared weights before the update.
    """
    theta, layer = parameters[0], task.layer
    pitch, capacity = panel_width(theta), work.capacity
    inputs, outputs = net.layers[layer], net.layers[layer + 1]
    none, inner = theta.dtype.type(-np.inf), np.int64(1)
    sparse = gather_gradient(net, task, data, work, start, batch, at)
    squares = 0.0
    b = 0
    while b < batch:
        depth = batch if sparse else depth_at(b, batch)
        sums = ZERO if b == 0 else RESUME
        to = at
        for first in range(task.first_input, task.end_input, pitch):
            height = min(pitch, task.end_input - first)
            panel = first // pitch * pitch
            rows = (inputs.place + panel) * capacity + b * pitch + first - panel
            left = Left(work.activations, rows, inner, pitch, depth, np.int64(0))
            for start in range(task.first_output, task.end_output, pitch):
                width = min(pitch, outputs.columns - start)
                rows = (outputs.place + start) * capacity + b * pitch
                deltas = Right(work.deltas, rows, pitch)
                gradient = Out(work.scratch, to, width)
                if not sparse:
                    multiply(gradient, left, deltas, depth, height, width, sums, none)
                if b + depth == batch:
                    squares += _train_panel(
                        net,
                        layer,
                        first,
                        height,
                        start,
                        parameters,
                        work,
                        batch,
                        to,
                        step,
                    )
                if sparse or depth < batch:
                    to += pitch * pitch
        b += depth
    return squares
