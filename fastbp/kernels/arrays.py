"""The steps of backpropagation on plain NumPy arrays, on the tiles of the epoch program.

Shapes   R rows, K inner, N columns of a product; B rows and O outputs of a loss.
Arrays   flat views of C-contiguous matrices, one dtype a call; the output comes first.
Tasks    each owns what it writes and computes the same bits whoever takes it: threads of
         a team (``multiply_all`` and the others that Python calls, see ``team``), or a
         ``prange`` loop (``*_in_prange``, for users' own ``@njit`` code).

These programs pack the operands into panels and copy the tiles out. Training does not
pay for that, it keeps everything in panels. ``fastbp.kernels`` has the functions that
users call.
"""

import numpy as np
from numba import prange

from fastbp.kernels.activations import activate, apply_derivative
from fastbp.kernels.gemm import (
    MOST_DEPTH,
    RESUME,
    TILE_ROWS,
    Left,
    Out,
    Right,
    depth_at,
    multiply,
    panel_width,
)
from fastbp.kernels.losses import loss_lanes, predict_lanes, target_columns
from fastbp.kernels.simd import (
    kernel,
    lanes_of,
    part,
    transpose_square,
    vload,
    vstore,
)
from fastbp.kernels.team import (
    finish_task,
    is_stopped,
    open_region,
    region_of,
    take_ticket,
    task_of,
    wait_for_region,
    wait_for_tasks,
)
from fastbp.kernels.updates import make_step, update
from fastbp.tables import ADAM, RELU, SQUARED_ERROR, UPDATE_RUN, Room

#: Regions of a product: the right operand is packed, then rows are multiplied.
PANELS, BLOCKS = 0, 1

#: Rows that a task in a prange loop takes: panels (whole tiles) of a product's, at most,
#: and vectors of a loss's.
_PANELS_OF_ROWS = 4
_VECTORS_OF_ROWS = 16


# ---------------------------------------------------------------- products


def packed_columns(inner, pitch):
    """Columns of a left operand that are packed at a time: whole panels.

    For Python, which makes room for them, and for kernels.
    """
    return -(-min(inner, MOST_DEPTH) // pitch) * pitch


_packed_columns = part(packed_columns)


@part
def _copy(target, to, source, start, count):
    """target[to:to + count] = source[start:start + count], in registers."""
    lanes = lanes_of(target)
    whole = count // lanes * lanes
    for c in range(0, whole, lanes):
        vstore(target, to + c, vload(source, start + c))
    for c in range(whole, count):
        target[to + c] = source[start + c]


@part
def _fill(target, to, count, value):
    """target[to:to + count] = value, a few."""
    for c in range(to, to + count):
        target[c] = value


@kernel
def _transpose(product, room, start, real, width, at):
    """``real`` columns of a right operand whose columns are contiguous, as a panel."""
    right, inner, column = product.right, product.inner, product.right_column
    lanes = lanes_of(right)
    steps, whole = inner // lanes * lanes, real // lanes * lanes
    for c in range(0, whole, lanes):
        source = (start + c) * column
        for k in range(0, steps, lanes):
            to = at + k * width + c
            transpose_square(right, source + k, column, room.panels, to, width)
    for c in range(real):
        for k in range(steps if c < whole else 0, inner):
            room.panels[at + k * width + c] = right[(start + c) * column + k]


@kernel
def _pack_panel(product, room, panel):
    """A panel of the right operand and of the bias, with zeros beyond column N."""
    right, inner, columns = product.right, product.inner, product.columns
    row, column = product.right_row, product.right_column
    lanes, pitch = lanes_of(room.panels), panel_width(room.panels)
    padded = -(-columns // lanes) * lanes
    start = panel * pitch
    width = min(pitch, padded - start)
    real = min(width, columns - start)
    at, bias = start * inner, padded * inner + start
    if column == 1:
        for k in range(inner):
            _copy(room.panels, at + k * width, right, k * row + start, real)
    else:
        _transpose(product, room, start, real, width, at)
    if real < width:
        for k in range(inner):
            _fill(room.panels, at + k * width + real, width - real, 0)
    given = min(real, product.bias.size - start)
    if given > 0:
        _copy(room.panels, bias, product.bias, start, given)
    _fill(room.panels, bias + max(given, 0), width - max(given, 0), 0)


@kernel
def _pack_rows(product, room, begin, real, rows, k, depth, at):
    """Steps k to k + depth of ``rows`` rows of the left operand from ``begin``.

    With zeros beyond the real ones, of which the last may be a row of ones.
    """
    left, block = product.left, room.block
    row, column = product.left_row, product.left_column
    pitch = panel_width(room.packed)
    if row != 1:  # its rows lie in one piece, and become rows of panels
        for first in range(0, depth, pitch):
            to, width = at + first * block, min(pitch, depth - first)
            for i in range(real):
                source = (begin + i) * row + k + first
                _copy(room.packed, to + i * pitch, left, source, width)
            for i in range(real, rows):
                _fill(room.packed, to + i * pitch, width, 0)
    else:
        given = min(real, product.rows - product.ones - begin)
        for step in range(depth):
            to = at + step * block
            _copy(room.packed, to, left, begin + (k + step) * column, given)
            _fill(room.packed, to + given, real - given, 1)
            _fill(room.packed, to + real, rows - real, 0)


@part
def _packed_left(product, room, at, depth):
    """What ``_pack_rows`` has packed, as a left operand."""
    block, zero, one = room.block, np.int64(0), np.int64(1)
    pitch = panel_width(room.packed)
    if product.left_row != 1:
        return Left(room.packed, at, pitch, one, pitch, pitch * block)
    return Left(room.packed, at, one, block, depth + one, zero)


@part
def _finish_panel(product, room, start, begin, real, at, copied):
    """Activation or slope of a panel's sums."""
    lanes, pitch = lanes_of(room.sums), panel_width(room.sums)
    columns, kind, zero = product.columns, product.kind, np.int64(0)
    padded = -(-columns // lanes) * lanes
    width = min(pitch, padded - start)
    count = min(width, columns - start)
    if product.slope:
        for i in range(real):
            source = (begin + i) * columns + start
            _copy(room.sums, copied + i * pitch, product.other, source, count)
        sums, other = room.sums[at:], room.sums[copied:]
        apply_derivative(kind, sums, other, zero, pitch, width, real)
    else:
        activate(kind, room.sums, at, pitch, width, count, real)


@kernel
def _multiply_block(out, product, room, task, slot):
    """A block of rows of the product, in the packed rows and sums of a slot."""
    inner, columns, block = product.inner, product.columns, room.block
    lanes, pitch = lanes_of(out), panel_width(out)
    padded = -(-columns // lanes) * lanes
    begin = task * block
    real = min(block, product.rows - begin)
    rows = -(-real // TILE_ROWS) * TILE_ROWS
    packed = slot * block * _packed_columns(inner, pitch)
    sums = slot * block * (padded + 2 * pitch)
    copied = sums + block * (padded + pitch)
    none = out.dtype.type(-np.inf)
    floor = out.dtype.type(0) if product.kind == RELU and not product.slope else none
    k, last = 0, False
    while not last:
        depth = depth_at(k, inner)
        last = k + depth == inner
        _pack_rows(product, room, begin, real, rows, k, depth, packed)
        left = _packed_left(product, room, packed, depth)
        for start in range(0, padded, pitch):
            width = min(pitch, padded - start)
            right = Right(room.panels, start * inner + k * width, width)
            to = Out(room.sums, sums + start * block, pitch)
            first = padded * inner + start if k == 0 else RESUME
            low = floor if last else none
            multiply(to, left, right, depth, rows, width, first, low)
        k += depth
    for start in range(0, columns, pitch):
        at = sums + start * block
        _finish_panel(product, room, start, begin, real, at, copied)
        for i in range(real):
            to, count = (begin + i) * columns + start, min(pitch, columns - start)
            _copy(out, to, room.sums, at + i * pitch, count)


@part
def _panels_of(product, out):
    pitch = panel_width(out)
    return -(-product.columns // pitch)


def multiply_all(out, product, room, team, workers, worker):
    """out[R, N] = f(left[R, K] @ right[K, N] + bias[N]), or (left @ right) * f'(other)

    with ``slope``. The region of all panels is open before the call.
    """
    while not is_stopped(team):
        ticket = take_ticket(team)
        task = task_of(team, ticket, worker)
        if task >= 0:
            if region_of(ticket) == PANELS:
                _pack_panel(product, room, task)
            else:
                _multiply_block(out, product, room, task, worker)
            finish_task(team)
        elif worker > 0:
            if region_of(ticket) == BLOCKS or not wait_for_region(team, ticket):
                break
        else:
            wait_for_tasks(team, ticket)
            if region_of(ticket) == BLOCKS:
                break
            open_region(team, -(-product.rows // room.block))


def multiply_in_prange(out, product):
    """``multiply_all`` as two loops, each block of rows with memory of its own."""
    lanes, pitch = lanes_of(out), panel_width(out)
    padded = -(-product.columns // lanes) * lanes
    most = _PANELS_OF_ROWS * pitch
    block = min(-(-product.rows // TILE_ROWS) * TILE_ROWS, most)
    panels = np.empty(padded * (product.inner + 1), out.dtype)
    none = np.empty(0, out.dtype)
    for p in prange(_panels_of(product, out)):
        _pack_panel(product, Room(panels, none, none, block), p)
    for b in prange(-(-product.rows // block)):
        packed = np.empty(block * _packed_columns(product.inner, pitch), out.dtype)
        sums = np.empty(block * (padded + 2 * pitch), out.dtype)
        _multiply_block(out, product, Room(panels, packed, sums, block), b, 0)


# ---------------------------------------------------------------- losses


@kernel
def _loss_rows(delta, losses, Z, targets, kind, size, begin, end, scratch, at):
    """Deltas of the rows ``begin`` to ``end``, and the losses of each vector of them."""
    rows, outputs = size
    lanes, columns = lanes_of(Z), target_columns(kind, outputs)
    divisor = Z.dtype.type(rows)
    labels = at + outputs * lanes
    of_rows = labels + columns * lanes
    for b in range(begin, end, lanes):
        for r in range(lanes):  # rows beyond the last repeat it
            row = min(b + r, rows - 1)
            for o in range(outputs):
                scratch[at + o * lanes + r] = Z[row * outputs + o]
            for o in range(columns):
                scratch[labels + o * lanes + r] = targets[row * columns + o]
        predict_lanes(kind, outputs, scratch, at)
        vstore(scratch, of_rows, loss_lanes(kind, outputs, scratch, at, labels))
        total = 0.0
        for r in range(min(lanes, rows - b)):
            total += scratch[of_rows + r]
            for o in range(outputs):
                delta[(b + r) * outputs + o] = scratch[at + o * lanes + r] / divisor
        losses[b // lanes] = total


@part
def _mean_loss(losses, kind, size):
    """The mean of the rows' losses, vector after vector, in float64."""
    total = 0.0
    for b in range(losses.size):
        total += losses[b]
    if kind == SQUARED_ERROR:  # the row losses are means over the outputs
        total *= size[1]
    return total / size[0]


def loss_and_delta(
    loss, delta, Z, targets, kind, size, block, losses, scratch, team, workers, worker
):
    """loss[0] = mean over the rows, delta[B, O] = its gradient with respect to Z[B, O]

    ``block`` rows, whole vectors, are a task; ``losses`` has a place for each vector of
    rows. The region of all blocks is open before the call.
    """
    at = worker * (scratch.size // workers)
    while not is_stopped(team):
        ticket = take_ticket(team)
        task = task_of(team, ticket, worker)
        if task < 0:
            if worker == 0:
                wait_for_tasks(team, ticket)
                loss[0] = _mean_loss(losses, kind, size)
            break
        end = min((task + 1) * block, size[0])
        begin = task * block
        _loss_rows(delta, losses, Z, targets, kind, size, begin, end, scratch, at)
        finish_task(team)


def loss_and_delta_in_prange(loss, delta, Z, targets, kind, size):
    """``loss_and_delta`` as a loop, each block of rows with memory of its own."""
    rows, outputs = size
    block = _VECTORS_OF_ROWS * lanes_of(Z)
    blocks = -(-rows // block)
    losses = np.empty(-(-rows // lanes_of(Z)))
    share = (2 * outputs + 1) * lanes_of(Z)
    scratch = np.empty(blocks * share, Z.dtype)
    for b in prange(blocks):
        begin, end = b * block, min((b + 1) * block, rows)
        at = b * share
        _loss_rows(delta, losses, Z, targets, kind, size, begin, end, scratch, at)
    loss[0] = _mean_loss(losses, kind, size)


# ---------------------------------------------------------------- updates


@kernel
def _update_task(theta, m, v, gradient, task, step, buffer):
    """One run of the vectors; a rest of less than a register goes through a buffer."""
    lanes = lanes_of(theta)
    first = task * UPDATE_RUN
    count = min(UPDATE_RUN, theta.size - first)
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


def update_all(
    theta, m, v, gradient, kind, rate, decays, nesterov, buffer, team, workers, worker
):
    """One optimizer step on flat vectors, in place; SGD does not touch v.

    ``decays`` are beta_1, beta_2, epsilon and momentum. The region of all runs is open
    before the call.
    """
    step = make_step(theta, kind, 1.0, 0.0, rate, decays, nesterov)
    while not is_stopped(team):
        ticket = take_ticket(team)
        task = task_of(team, ticket, worker)
        if task < 0:
            if worker == 0:
                wait_for_tasks(team, ticket)
            break
        _update_task(theta, m, v, gradient, task, step, buffer)
        finish_task(team)


def update_in_prange(theta, m, v, gradient, kind, rate, decays, nesterov):
    """``update_all`` as a loop."""
    buffer = np.ones((4, lanes_of(theta)), theta.dtype)
    for task in prange(-(-theta.size // UPDATE_RUN)):
        step = make_step(theta, kind, 1.0, 0.0, rate, decays, nesterov)
        _update_task(theta, m, v, gradient, task, step, buffer)
