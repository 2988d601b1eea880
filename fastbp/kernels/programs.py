"""The entry points into native code: a run of training steps, and prediction.

A training step is two regions of independent tasks:

  1. over blocks of rows: forward through all layers, loss and output delta, deltas back
     to the first hidden layer;
  2. over panels of weights: gradient, L2 term, optimizer, transposed copy.

Any number of threads may call a program at the same time with the same arrays. Worker 0
drives: it opens the regions and returns when the last is done. The others help, with
whatever task is next (see ``team``). What a task computes does not depend on who takes
it or when, so alone or together they compute the same bits.
"""

import math

from fastbp.kernels.dense import (
    dense_backward_block,
    dense_forward_block,
    first_forward_block,
    train_weights,
)
from fastbp.kernels.gemm import TILE_ROWS, panel_width, row_grain
from fastbp.kernels.losses import (
    loss_lanes,
    predict_lanes,
    target_columns,
    weigh_lanes,
)
from fastbp.kernels.simd import kernel, lanes_of, part, transpose_square, vload, vstore
from fastbp.kernels.team import (
    finish_task,
    is_stopped,
    open_region,
    take_ticket,
    task_of,
    wait_for_region,
    wait_for_tasks,
)
from fastbp.kernels.updates import make_step
from fastbp.tables import GRADIENT

#: Phases of a training step: its two regions.
ROWS, WEIGHTS = 1, 2


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


@kernel
def _loss_block(net, data, work, start, batch, begin, end, at):
    """row_loss[begin:end] and the output deltas of these rows, times their weights."""
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
        if data.weights.size > 0:
            for r in range(lanes):  # in the place of the targets
                row = data.order[start + min(b + r, batch - 1)]
                scratch[targets + r] = data.weights[row]
            weight = vload(scratch, targets)
            loss = loss * weight
            weigh_lanes(outputs, scratch, at, weight)
        vstore(work.row_loss, b, loss)
        _write_deltas(net, D, capacity, b, scratch, at)


@part
def _train_rows(net, theta, data, work, task, worker):
    """Task of region 1: activations, row losses and deltas of a block of rows."""
    A, D, capacity = work.activations, work.deltas, work.capacity
    region = work.region[0]
    start, batch, block = region.start, region.batch, region.block
    begin = task * block
    last = min(begin + block, batch)
    end = -(-last // TILE_ROWS) * TILE_ROWS
    first_forward_block(net, data, start, theta, A, 0, capacity, begin, last)
    for layer in range(1, net.depth):
        dense_forward_block(net, layer, theta, A, 0, capacity, begin, end)
    at = worker * work.share
    _loss_block(net, data, work, start, batch, begin, end, at)
    for layer in range(net.depth - 1, 0, -1):
        dense_backward_block(net, layer, A, D, work.transposed, capacity, begin, end)


@part
def _train_weights(net, parameters, data, work, optimizer, task, worker):
    """Task of region 2: update of some panels of weights, and the squares they had."""
    region = work.region[0]
    step = _step(optimizer, region.step, region.weight, parameters[0])
    at = worker * work.share
    start, batch = region.start, region.batch
    work.squares[task] = train_weights(
        net, work.tasks[task], parameters, data, work, start, batch, at, step
    )


@part
def _step(optimizer, t, weight, theta):
    """The scalars of the t-th update (t = 1, 2, ...), in theta's dtype.

    ``weight`` is S, the sum of the weights of the batch.
    """
    rate = optimizer.learning_rate
    if optimizer.corrects_bias:
        rate *= math.sqrt(1.0 - optimizer.beta_2**t) / (1.0 - optimizer.beta_1**t)
    decays = (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon, optimizer.momentum)
    kind, nesterov = optimizer.kind, optimizer.nesterov
    return make_step(theta, kind, 1.0 / weight, optimizer.alpha, rate, decays, nesterov)


@part
def _mean_loss(work, batch, weight, alpha):
    """(sum of row_loss + alpha / 2 ||W||^2) / S, summed in one order in float64."""
    total = 0.0
    for b in range(batch):
        total += work.row_loss[b]
    squares = 0.0
    for task in range(work.tasks.shape[0]):
        squares += work.squares[task]
    return (total + 0.5 * alpha * squares) / weight


@part
def _weight_of(data, start, batch):
    """S: the sum of the weights of the rows start, ..., start + batch - 1 of the order.

    In float64, in this order; their number if they have no weights.
    """
    total = float(batch)
    if data.weights.size > 0:
        total = 0.0
        for b in range(start, start + batch):
            total += data.weights[data.order[b]]
    return total


@part
def _open_batch(data, work, start, batch, t, grain, workers):
    """Open region 1 of a step: the rows start, ..., start + batch - 1 of the order.

    Not if their weights add up to 0, as a mean over them would mean nothing. Returns
    whether it is open.
    """
    region = work.region[0]
    weight = _weight_of(data, start, batch)
    if weight != 0.0:
        block = _block_rows(batch, work.block, grain, workers)
        region.phase, region.start, region.batch = ROWS, start, batch
        region.block, region.step, region.weight = block, t, weight
        open_region(work.team, -(-batch // block))
    return weight != 0.0


@part
def _open_next(data, work, i, end, batch_size, losses, t, grain, workers):
    """Open the first of the batches i, ..., end - 1 that can be, and return its number.

    Those before it change nothing, and their loss is 0.
    """
    n = data.order.size
    while i < end:
        start = i * batch_size
        batch = min(batch_size, n - start)
        if _open_batch(data, work, start, batch, t, grain, workers):
            break
        losses[i] = 0.0
        i += 1
    return i


def train_steps(
    net,
    parameters,
    work,
    data,
    optimizer,
    batches,
    batch_size,
    losses,
    taken,
    workers,
    worker,
):
    """Take the steps ``batches = (first, last)`` of an epoch, or help with them.

    Batch i holds the rows ``order[i * batch_size : (i + 1) * batch_size]``.
    Everything that a step changes is in arrays, so that an interrupted call leaves
    whole steps behind: ``parameters`` (theta, m, v), ``losses[i]``, and ``taken[0]``,
    the number of updates since the optimizer was new. A batch whose weights add up to
    0 has the loss 0 and no update. When the team is stopped, a step that has not begun
    to write ``parameters`` is given up.
    """
    i, end = batches
    region, grain = work.region[0], row_grain(parameters[0])
    opens = worker == 0  # the next batch
    kind = optimizer[0].kind
    while True:
        unwritten = opens or region.phase == ROWS or kind == GRADIENT
        if is_stopped(work.team) and (worker > 0 or unwritten):
            break
        if opens:
            t = taken[0] + 1
            i = _open_next(data, work, i, end, batch_size, losses, t, grain, workers)
            if i == end:
                break
            opens = False
        ticket = take_ticket(work.team)
        task = task_of(ticket)
        if task >= 0:
            if region.phase == ROWS:
                _train_rows(net, parameters[0], data, work, task, worker)
            else:
                _train_weights(net, parameters, data, work, optimizer[0], task, worker)
            finish_task(work.team)
        elif worker > 0:
            if not wait_for_region(work.team, ticket):
                break
        else:
            wait_for_tasks(work.team, ticket)
            if region.phase == ROWS:
                region.phase = WEIGHTS
                open_region(work.team, work.tasks.shape[0])
            else:
                alpha = optimizer[0].alpha
                losses[i] = _mean_loss(work, region.batch, region.weight, alpha)
                taken[0] += 1
                i += 1
                opens = True


@part
def _predict_block(net, theta, data, out, work, finite, task, worker):
    """Predictions for one block of rows."""
    lanes, capacity = lanes_of(theta), work.capacity
    outputs, rows = net.layers[net.depth].units, data.order.size
    base, at = worker * work.columns * capacity, worker * work.share
    A, scratch = work.activations, work.scratch
    start = task * capacity
    batch = min(capacity, rows - start)
    end = -(-batch // TILE_ROWS) * TILE_ROWS
    if not first_forward_block(net, data, start, theta, A, base, capacity, 0, batch):
        finite[0] = False
    for layer in range(1, net.depth):
        dense_forward_block(net, layer, theta, A, base, capacity, 0, end)
    for b in range(0, batch, lanes):
        _read_outputs(net, A, base, capacity, b, scratch, at)
        predict_lanes(net.loss, outputs, scratch, at)
        for r in range(min(lanes, batch - b)):
            to = (start + b + r) * outputs
            for o in range(outputs):
                out[to + o] = scratch[at + o * lanes + r]


def predict_rows(net, theta, data, out, work, finite, workers, worker):
    """out[n, O] = the network's predictions for the rows of X in their order.

    finite[0] becomes False if a number of X is not finite.
    The region of all blocks of rows is open before the call. When the team is stopped,
    the rest is left undone.
    """
    while not is_stopped(work.team):
        ticket = take_ticket(work.team)
        task = task_of(ticket)
        if task < 0:
            if worker == 0:
                wait_for_tasks(work.team, ticket)
            break
        _predict_block(net, theta, data, out, work, finite, task, worker)
        finish_task(work.team)
