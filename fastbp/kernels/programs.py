"""The entry points into native code: a run of training steps, and prediction.

A training step is two parallel regions:

  1. over blocks of rows: forward through all layers, loss and output delta, deltas back
     to the first hidden layer;
  2. over panels of weights: gradient, L2 term, optimizer, transposed copy.

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
    pack_inputs,
    row_grain,
    train_weights,
)
from fastbp.kernels.gemm import TILE_ROWS, panel_width
from fastbp.kernels.losses import loss_lanes, predict_lanes, target_columns
from fastbp.kernels.simd import (
    kernel,
    lanes_of,
    part,
    take_next,
    transpose_square,
    vstore,
)
from fastbp.kernels.updates import make_step

# The next task and the next worker's number of each region, each on its own cache line.
ROW_TASKS, ROW_WORKERS, WEIGHT_TASKS, WEIGHT_WORKERS = 0, 8, 16, 24


@part
def _block_rows(rows, most, grain, workers):
    """Rows of one task: at most ``most``, fewer when workers would stay idle."""
    share = -(-rows // (2 * workers))
    return min(most, -(-share // grain) * grain)


@part
def _read_outputs(net, A, base, capacity, b, scratch, at):
    """scratch[at:] = pre-activations [O][lanes] of the rows b, ..., b + lanes - 1."""
    lanes, pitch = lanes_of(A), panel_width(A)
    outputs = net.layers[net.depth]
    for o in range(0, outputs.columns, lanes):
        panel = (outputs.place + o // pitch * pitch) * capacity
        source = base + panel + b * pitch + o % pitch
        transpose_square(A, source, pitch, scratch, at + o * lanes, lanes)


@part
def _write_deltas(net, D, capacity, b, scratch, at):
    """D of the rows b, ..., b + lanes - 1 = scratch[at:], [O][lanes]."""
    lanes, pitch = lanes_of(D), panel_width(D)
    outputs = net.layers[net.depth]
    for o in range(0, outputs.columns, lanes):
        panel = (outputs.place + o // pitch * pitch) * capacity
        to = panel + b * pitch + o % pitch
        transpose_square(scratch, at + o * lanes, lanes, D, to, pitch)


@part
def _loss_block(net, data, work, start, batch, begin, end, at):
    """row_loss[begin:end] and the output deltas of these rows."""
    A, D, capacity, scratch = work.activations, work.deltas, work.capacity, work.scratch
    lanes = lanes_of(A)
    outputs = net.layers[net.depth].units
    columns = target_columns(net.loss, outputs)
    targets = at + net.layers[net.depth].columns * lanes
    for b in range(begin, end, lanes):
        _read_outputs(net, A, 0, capacity, b, scratch, at)
        predict_lanes(net.loss, outputs, scratch, at)
        for r in range(lanes):  # rows beyond the batch repeat the last one
            row = data.order[start + min(b + r, batch - 1)] * columns
            for o in range(columns):
                scratch[targets + o * lanes + r] = data.targets[row + o]
        loss = loss_lanes(net.loss, outputs, scratch, at, targets)
        vstore(work.row_loss, b, loss)
        _write_deltas(net, D, capacity, b, scratch, at)


@kernel
def _train_rows(net, theta, data, work, start, batch, workers):
    A, D, capacity = work.activations, work.deltas, work.capacity
    block = _block_rows(batch, work.block, row_grain(theta), workers)
    at = take_next(work.counters, ROW_WORKERS) * work.share
    while True:
        begin = take_next(work.counters, ROW_TASKS) * block
        if begin >= batch:
            break
        last = min(begin + block, batch)
        end = -(-last // TILE_ROWS) * TILE_ROWS
        pack_inputs(net, data, start, A, 0, capacity, begin, last)
        for layer in range(net.depth):
            dense_forward_block(net, layer, theta, A, 0, capacity, begin, end)
        _loss_block(net, data, work, start, batch, begin, end, at)
        for layer in range(net.depth - 1, 0, -1):
            dense_backward_block(net, layer, A, D, work.transposed, capacity, begin, end)


@kernel
def _train_weights(net, parameters, work, optimizer, t, batch):
    step = _step(optimizer, t, batch, parameters[0])
    at = take_next(work.counters, WEIGHT_WORKERS) * work.share
    while True:
        task = take_next(work.counters, WEIGHT_TASKS)
        if task >= work.tasks.shape[0]:
            break
        layer, first = work.tasks[task, 0], work.tasks[task, 1]
        columns = (work.tasks[task, 2], work.tasks[task, 3])
        work.squares[task] = train_weights(
            net, layer, first, columns, parameters, work, batch, at, step
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
        work.counters[:] = 0
        for _ in prange(workers):
            _train_rows(net, parameters[0], data, work, start, batch, workers)
        for _ in prange(workers):
            _train_weights(net, parameters, work, optimizer, t, batch)
        losses[i] = _mean_loss(work, batch, optimizer.alpha)
        taken[0] = t


@kernel
def _predict_blocks(net, theta, data, out, work):
    lanes, capacity = lanes_of(theta), work.capacity
    outputs, rows = net.layers[net.depth].units, data.order.size
    worker = take_next(work.counters, ROW_WORKERS)
    base, at = worker * work.columns * capacity, worker * work.share
    A, scratch = work.activations, work.scratch
    while True:
        start = take_next(work.counters, ROW_TASKS) * capacity
        if start >= rows:
            break
        batch = min(capacity, rows - start)
        end = -(-batch // TILE_ROWS) * TILE_ROWS
        pack_inputs(net, data, start, A, base, capacity, 0, batch)
        for layer in range(net.depth):
            dense_forward_block(net, layer, theta, A, base, capacity, 0, end)
        for b in range(0, batch, lanes):
            _read_outputs(net, A, base, capacity, b, scratch, at)
            predict_lanes(net.loss, outputs, scratch, at)
            for r in range(min(lanes, batch - b)):
                to = (start + b + r) * outputs
                for o in range(outputs):
                    out[to + o] = scratch[at + o * lanes + r]


def predict_rows(net, theta, data, out, work, workers):
    """out[n, O] = the network's predictions for the rows of X in their order."""
    work.counters[:] = 0
    for _ in prange(workers):
        _predict_blocks(net, theta, data, out, work)
