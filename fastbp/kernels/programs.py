"""The entry points into native code: a run of training steps, and prediction.

A training step is two regions of independent tasks:

  1. over blocks of rows: forward through all layers, loss and output delta, deltas back
     to the first hidden layer;
  2. over panels of weights: gradient, L2 term, optimizer, transposed copy.

Clipping, which needs the whole gradient before any update, makes a third: region 2 ends
with the gradient, and

  3. over the same panels: optimizer, transposed copy.

Any number of threads may call a program at the same time with the same arrays. Worker 0
drives: it opens the regions and returns when the last is done. The others help, with
whatever task is next (see ``team``). What a task computes does not depend on who takes
it or when, so alone or together they compute the same bits.
"""

import math

import numpy as np
from numba.extending import overload

from fastbp.kernels.clipping import clip_factor, gradient_squares, update_clipped
from fastbp.kernels.dense import (
    begin_forward,
    dense_backward_block,
    dense_forward_block,
    train_weights,
)
from fastbp.kernels.gemm import TILE_ROWS, panel_width, row_grain
from fastbp.kernels.hidden import (
    finish_units,
    first_trained,
    is_extended,
    multiply_slopes,
)
from fastbp.kernels.losses import weigh_lanes
from fastbp.kernels.more_losses import (
    columns_of_targets,
    loss_of_outputs,
    predict_outputs,
)
from fastbp.kernels.more_updates import make_more_step
from fastbp.kernels.simd import (
    OVERLOAD,
    kernel,
    lanes_of,
    part,
    transpose_square,
    vload,
    vstore,
)
from fastbp.kernels.team import (
    end_drive,
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

#: Phases of a training step: its regions.
ROWS, WEIGHTS, CLIPPED = 1, 2, 3


@part
def _block_rows(rows, most, grain, workers):
    """Rows of one task: at most ``most``, so that the last worker ends soonest."""
    best, least = grain, rows + grain
    for block in range(grain, most + 1, grain):
        blocks = -(-rows // block)
        rounds = -(-blocks // workers)
        longest = rounds * block  # rows of the worker that has most of them
        if (blocks - 1) % workers == 0:  # one has the last block, which may be short
            longest = max((rounds - 1) * block, longest - blocks * block + rows)
        if longest <= least:
            best, least = block, longest
    return best


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
    columns = columns_of_targets(net)
    targets = at + net.layers[net.depth].columns * lanes
    for b in range(begin, end, lanes):
        _read_outputs(net, A, 0, capacity, b, scratch, at)
        predict_outputs(net, scratch, at)
        for r in range(lanes):  # rows beyond the batch repeat the last one
            row = data.order[start + min(b + r, batch - 1)] * columns
            for o in range(columns):
                scratch[targets + o * lanes + r] = data.targets[row + o]
        loss = loss_of_outputs(net, scratch, at, targets)
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
def _forward_rows(net, theta, data, work, base, start, begin, end, seed, t):
    """A[1:][begin:end] for the rows order[start + begin : start + end]

    and whether their inputs are all finite.
    """
    A, S, capacity = work.activations, work.slopes, work.capacity
    first, finite = begin_forward(net, data, start, theta, A, base, capacity, begin, end)
    whole = -(-end // TILE_ROWS) * TILE_ROWS
    for layer in range(first, net.depth):
        if layer > 0:
            finish_units(net, layer, A, S, base, capacity, begin, whole, seed, t)
        dense_forward_block(net, layer, theta, A, base, capacity, begin, whole)
    return finite


@part
def _train_rows(net, theta, data, work, optimizer, task, worker):
    """Task of region 1: activations, row losses and deltas of a block of rows."""
    A, D, S, capacity = work.activations, work.deltas, work.slopes, work.capacity
    region, seed, t = work.region[0], optimizer.seed, work.region[0].step
    start, batch, block = region.start, region.batch, region.block
    base, begin = np.int64(0), task * block
    last = min(begin + block, batch)
    end = -(-last // TILE_ROWS) * TILE_ROWS
    _forward_rows(net, theta, data, work, base, start, begin, last, seed, t)
    at = worker * work.share
    _loss_block(net, data, work, start, batch, begin, end, at)
    for layer in range(net.depth - 1, first_trained(net), -1):
        dense_backward_block(net, layer, A, D, work.transposed, capacity, begin, end)
        multiply_slopes(net, layer, D, S, capacity, begin, end)


@part
def _train_weights(net, parameters, data, work, optimizer, task, worker):
    """Task of region 2, or 3: update of some panels of weights; the squares they had."""
    region, panels, at = work.region[0], work.tasks[task], worker * work.share
    if region.phase == WEIGHTS:
        to, step = _update_of_weights(net, parameters, work, optimizer)
        work.squares[task] = train_weights(
            net, panels, to, data, work, region.start, region.batch, at, step
        )
    _clip_gradient(net, parameters, work, optimizer, task)


def _update_of_weights(net, parameters, work, optimizer):
    """What region 2 makes of a gradient: arrays in place of (theta, m, v), and the step.

    Clipping wants the gradient itself first.
    """
    raise NotImplementedError("only inside kernels")


@overload(_update_of_weights, jit_options=OVERLOAD)
def _overload_update_of_weights(net, parameters, work, optimizer):
    def plain(net, parameters, work, optimizer):
        region, theta = work.region[0], parameters[0]
        return parameters, _step(optimizer, optimizer.kind, region, False, theta)

    def extended(net, parameters, work, optimizer):
        region, (theta, m, v) = work.region[0], parameters
        if _clips(net, optimizer):
            m, kind = work.gradient, GRADIENT
        else:
            kind = optimizer.kind
        return (theta, m, v), _more_step(optimizer, kind, region, False, theta)

    return extended if is_extended(net) else plain


def _clip_gradient(net, parameters, work, optimizer, task):
    """Clipping's share in a task: squares of the gradient, and in region 3 the update."""
    raise NotImplementedError("only inside kernels")


@overload(_clip_gradient, jit_options=OVERLOAD)
def _overload_clip_gradient(net, parameters, work, optimizer, task):
    def plain(net, parameters, work, optimizer, task):
        return None

    def extended(net, parameters, work, optimizer, task):
        region, panels = work.region[0], work.tasks[task]
        if region.phase == CLIPPED:
            step = _more_step(optimizer, optimizer.kind, region, True, parameters[0])
            update_clipped(net, panels, parameters, work, step)
        elif _clips(net, optimizer):
            work.gradient_squares[task] = gradient_squares(net, panels, work.gradient)

    return extended if is_extended(net) else plain


def _clips(net, optimizer):
    """Whether gradients are clipped, so that steps have a third region."""
    raise NotImplementedError("only inside kernels")


@overload(_clips, jit_options=OVERLOAD)
def _overload_clips(net, optimizer):
    if is_extended(net):
        return lambda net, optimizer: optimizer.max_grad_norm < math.inf
    return lambda net, optimizer: False


@part
def _step(optimizer, kind, region, is_clipped, theta):
    """The scalars of the t-th update (t = 1, 2, ...), in theta's dtype.

    Sums over the batch come to the update, or, if it ``is_clipped``, the gradient of the
    objective, penalty included.
    """
    t, rate = region.step, region.rate
    if optimizer.corrects_bias:
        rate *= math.sqrt(1.0 - optimizer.beta_2**t) / (1.0 - optimizer.beta_1**t)
    decays = (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon, optimizer.momentum)
    scale, alpha, nesterov = 1.0 / region.weight, optimizer.alpha, optimizer.nesterov
    if is_clipped:
        scale, alpha = region.clip, 0.0
    return make_step(theta, kind, scale, alpha, rate, decays, nesterov)


@part
def _more_step(optimizer, kind, region, is_clipped, theta):
    """As ``_step`` for extended networks."""
    step = _step(optimizer, kind, region, is_clipped, theta)
    return make_more_step(theta, step, optimizer, region.rate, region.step)


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
def _open_batch(data, work, start, batch, t, rate, block):
    """Open region 1 of a step: the rows start, ..., start + batch - 1 of the order.

    Not if their weights add up to 0, as a mean over them would mean nothing. Returns
    whether it is open.
    """
    region = work.region[0]
    weight = _weight_of(data, start, batch)
    if weight != 0.0:
        region.phase, region.start, region.batch = ROWS, start, batch
        region.block, region.weight = block, weight
        region.step, region.rate = t, rate
        open_region(work.team, -(-batch // block))
    return weight != 0.0


@part
def _open_next(data, work, i, end, batch_size, rates, losses, t, block):
    """Open the first of the batches i, ..., end - 1 that can be, and return its number.

    Those before it change nothing, and their loss is 0.
    """
    n_batches = -(-data.epoch_rows // batch_size)
    while i < end:
        first = i % n_batches * batch_size
        start = i // n_batches * data.epoch_rows + first
        batch = min(batch_size, data.epoch_rows - first)
        if _open_batch(data, work, start, batch, t, rates[i], block):
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
    rates,
    losses,
    taken,
    workers,
    worker,
):
    """Take the steps ``batches = (first, last)`` of some epochs, or help with them.

    Each epoch cuts its part of ``data.order`` into batches of ``batch_size`` rows, the
    last of which may be shorter. Batch i of all of them has the learning rate
    ``rates[i]``.
    Everything that a step changes is in arrays, so that an interrupted call leaves
    whole steps behind: ``parameters`` (theta, m, v), ``losses[i]``, and ``taken[0]``,
    the number of updates since the optimizer was new. A batch whose weights add up to
    0 has the loss 0 and no update. When the team is stopped, a step that has not begun
    to write ``parameters`` is given up.
    """
    i, end = batches
    region, grain = work.region[0], row_grain(parameters[0])
    block = _block_rows(min(batch_size, data.epoch_rows), work.block, grain, workers)
    opens = worker == 0  # the next batch
    clips = _clips(net, optimizer[0])
    writes = CLIPPED if clips else WEIGHTS  # the phase that does
    if optimizer[0].kind == GRADIENT:
        writes = CLIPPED + 1
    while True:
        unwritten = opens or region.phase < writes
        if is_stopped(work.team) and (worker > 0 or unwritten):
            break
        if opens:
            t = taken[0] + 1
            i = _open_next(data, work, i, end, batch_size, rates, losses, t, block)
            if i == end:
                break
            opens = False
        ticket = take_ticket(work.team)
        task = task_of(work.team, ticket, worker)
        if task >= 0:
            if region.phase == ROWS:
                _train_rows(net, parameters[0], data, work, optimizer[0], task, worker)
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
            elif region.phase == WEIGHTS and clips:
                region.clip = clip_factor(work, optimizer[0].max_grad_norm)
                region.phase = CLIPPED
                open_region(work.team, work.tasks.shape[0])
            else:
                alpha = optimizer[0].alpha
                losses[i] = _mean_loss(work, region.batch, region.weight, alpha)
                taken[0] += 1
                i += 1
                opens = True
    if worker == 0:
        end_drive(work.team)


@part
def _predict_block(net, theta, data, out, work, finite, task, worker):
    """Predictions for one block of rows."""
    lanes, capacity = lanes_of(theta), work.capacity
    outputs, rows = net.layers[net.depth].units, data.order.size
    base, at = worker * work.columns * capacity, worker * work.share
    A, scratch = work.activations, work.scratch
    start, begin = task * capacity, np.int64(0)
    batch = min(capacity, rows - start)
    if not _forward_rows(net, theta, data, work, base, start, begin, batch, 0, 0):
        finite[0] = False
    for b in range(0, batch, lanes):
        _read_outputs(net, A, base, capacity, b, scratch, at)
        predict_outputs(net, scratch, at)
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
        task = task_of(work.team, ticket, worker)
        if task < 0:
            if worker == 0:
                wait_for_tasks(work.team, ticket)
            break
        _predict_block(net, theta, data, out, work, finite, task, worker)
        finish_task(work.team)
