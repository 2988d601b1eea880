"""The entry points into native code: a run of training steps, and prediction.

A training step is two parallel regions:

  1. over blocks of rows: forward through all layers, loss and output delta, deltas back
     to the first hidden layer;
  2. over strips of weights: gradient, L2 term, optimizer, transposed copy.

In each region a worker takes the next task from an atomic counter until none is left,
so that a thread which the system has descheduled holds up one task and not its share
of the region. What a task computes does not depend on who takes it or when.

``launch`` compiles each program twice, serially (where ``prange`` is ``range``) and
with ``parallel=True``.
"""

import math

from numba import prange

from fastbp.kernels.dense import (
    dense_backward_block,
    dense_forward_block,
    strip_width,
    train_strip,
)
from fastbp.kernels.gemm import TILE_ROWS, panel_width
from fastbp.kernels.losses import finish_losses, loss_row, predict_row
from fastbp.kernels.simd import kernel, part, take_next
from fastbp.kernels.updates import make_step

#: Rows that pass through the whole network together: their activations stay in the
#: second-level cache while each panel of weights is used for several tiles.
BLOCK_ROWS = 48

# The next task of each region and the next worker's number, each on its own cache line.
ROW_TASKS, STRIP_TASKS, WORKERS = 0, 8, 16


@part
def _block_rows(rows, grain, workers):
    """Rows of one task: at most BLOCK_ROWS, fewer when workers would stay idle."""
    share = -(-rows // (2 * workers))
    return min(BLOCK_ROWS, -(-share // grain) * grain)


@kernel
def _work_on_rows(net, theta, data, work, start, batch, workers):
    block = _block_rows(batch, strip_width(theta), workers)
    padded = -(-batch // TILE_ROWS) * TILE_ROWS
    while True:
        begin = take_next(work.counters, ROW_TASKS) * block
        if begin >= batch:
            break
        end = min(begin + block, padded)
        for b in range(begin, end):  # rows of padding repeat the last one
            work.offsets[b] = data.order[start + min(b, batch - 1)] * net.layers[0].units
        for layer in range(net.depth):
            dense_forward_block(
                net,
                layer,
                theta,
                data.X,
                work.offsets,
                work.activations,
                0,
                work.capacity,
                begin,
                end,
            )
        for b in range(begin, min(end, batch)):
            predict_row(net.loss, net, work.activations, 0, work.capacity, b)
            loss_row(net.loss, net, work, data.targets, data.order[start + b], b)
        finish_losses(net.loss, work.row_loss, begin, end)
        for layer in range(net.depth - 1, 0, -1):
            dense_backward_block(
                net,
                layer,
                work.activations,
                work.deltas,
                work.transposed,
                work.capacity,
                begin,
                end,
            )


@kernel
def _work_on_strips(net, parameters, data, work, optimizer, t, batch):
    step = _step(optimizer, t, batch, parameters[0])
    at = take_next(work.counters, WORKERS) * work.scratch
    while True:
        task = take_next(work.counters, STRIP_TASKS)
        if task >= work.tasks.shape[0]:
            break
        layer, first = work.tasks[task, 0], work.tasks[task, 1]
        columns = (work.tasks[task, 2], work.tasks[task, 3])
        work.squares[task] = train_strip(
            net, layer, first, columns, parameters, data.X, work, batch, at, step
        )


@part
def _step(optimizer, t, batch, theta):
    """The scalars of the t-th update (t = 1, 2, ...), in theta's dtype."""
    rate = optimizer.learning_rate
    if optimizer.corrects_bias:
        rate *= math.sqrt(1.0 - optimizer.beta_2**t) / (1.0 - optimizer.beta_1**t)
    decays = (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon, optimizer.momentum)
    kind, nesterov = optimizer.kind, optimizer.nesterov
    return make_step(theta, kind, 1.0 / batch, optimizer.alpha, rate, decays, nesterov)


@part
def _mean_loss(work, batch, alpha):
    """mean of row_loss + alpha / 2 ||W||^2 / batch, summed in one order in float64."""
    total = 0.0
    for b in range(batch):
        total += work.row_loss[b]
    squares = 0.0
    for task in range(work.tasks.shape[0]):
        squares += work.squares[task]
    return (total + 0.5 * alpha * squares) / batch


def train_steps(
    net, parameters, work, data, optimizer, batches, batch_size, losses, taken, workers
):
    """Take the steps ``batches = (first, last)`` of an epoch.

    Batch i holds the rows ``order[i * batch_size : (i + 1) * batch_size]``.
    Everything that a step changes is in arrays, so that an interrupted call leaves
    whole steps behind: ``parameters`` (theta, m, v), ``losses[i]``, and ``taken[0]``,
    the number of updates since the optimizer was new.
    """
    n = data.order.size
    for i in range(batches[0], batches[1]):
        start = i * batch_size
        batch = min(batch_size, n - start)
        t = taken[0] + 1
        work.counters[ROW_TASKS] = 0
        work.counters[STRIP_TASKS] = 0
        work.counters[WORKERS] = 0
        for _ in prange(workers):
            _work_on_rows(net, parameters[0], data, work, start, batch, workers)
        for _ in prange(workers):
            _work_on_strips(net, parameters, data, work, optimizer, t, batch)
        losses[i] = _mean_loss(work, batch, optimizer.alpha)
        taken[0] = t


@kernel
def _predict_blocks(net, theta, X, out, work, rows):
    inputs, outputs = net.layers[0].units, net.layers[net.depth].units
    pitch, place = panel_width(theta), net.layers[net.depth].place
    capacity = work.capacity
    worker = take_next(work.counters, WORKERS)
    base = worker * work.columns * capacity
    first_offset = worker * capacity
    offsets = work.offsets[first_offset : first_offset + capacity]
    while True:
        start = take_next(work.counters, ROW_TASKS) * capacity
        if start >= rows:
            break
        batch = min(capacity, rows - start)
        padded = -(-batch // TILE_ROWS) * TILE_ROWS
        for b in range(padded):
            offsets[b] = (start + min(b, batch - 1)) * inputs
        for layer in range(net.depth):
            dense_forward_block(
                net,
                layer,
                theta,
                X,
                offsets,
                work.activations,
                base,
                capacity,
                0,
                padded,
            )
        for b in range(batch):
            predict_row(net.loss, net, work.activations, base, capacity, b)
            row = base + place * capacity + b * pitch
            for o in range(outputs):
                at = row + o // pitch * pitch * capacity + o % pitch
                out[(start + b) * outputs + o] = work.activations[at]


def predict_rows(net, theta, X, out, work, rows, workers):
    """out[rows, O] = the network's predictions for X[rows, I], both row-major."""
    work.counters[ROW_TASKS] = 0
    work.counters[WORKERS] = 0
    for _ in prange(workers):
        _predict_blocks(net, theta, X, out, work, rows)
