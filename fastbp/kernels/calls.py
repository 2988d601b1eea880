"""Calls of the programs on plain arrays from Python: their memory, tasks and threads.

Arrays are C-contiguous, of one dtype, and checked (``fastbp.kernels``).
"""

from collections import deque

import numpy as np

from fastbp import cache, launch, threads
from fastbp.kernels.arrays import packed_columns
from fastbp.tables import CACHE_LINE, IDENTITY, UPDATE_RUN, Product, Room

#: Rows of a product or a loss that one task takes at most.
_BLOCK_ROWS = 192
#: Flops that last as long as an element of a loss: two functions, and its moves
#: between rows and registers.
_LOSS_FLOPS = 150
#: The same of an element of an update, which waits for memory.
_UPDATE_FLOPS = 16
#: Scratch memory that is kept between two calls, and of how many bytes at most. A call
#: takes it away, so that no other can have it too.
_spare: deque = deque(maxlen=1)
_SPARE_BYTES = 1 << 25
_NO_MEMORY = np.empty(0, np.uint8)
#: Seconds of a call that are worth calling for help, which wakes threads.
_WORTH_HELP = 5e-4


def _flat(array):
    """A read-only flat view, so that all inputs of a program have one type."""
    view = array.reshape(-1)
    view.setflags(write=False)
    return view


def _borrow(dtype, *sizes):
    """Memory to give back after the call, and arrays of ``sizes`` elements in it.

    Fresh memory costs more than a small product: the system clears each page of it.
    """
    line = CACHE_LINE // dtype.itemsize  # each begins on a line of its own
    n_bytes = (sum(sizes) + len(sizes) * line) * dtype.itemsize
    try:
        memory = _spare.pop()
    except IndexError:  # another thread has it, or nobody has used any
        memory = _NO_MEMORY
    if memory.size < n_bytes:
        memory = np.empty(n_bytes + CACHE_LINE, np.uint8)
        memory = memory[-memory.ctypes.data % CACHE_LINE :]
    elements, arrays, at = memory[:n_bytes].view(dtype), [], 0
    for size in sizes:
        arrays.append(elements[at : at + size])
        at += -(-size // line) * line
    return memory, arrays


def _give_back(memory):
    if memory.size <= _SPARE_BYTES:
        _spare.append(memory)


def _run(name, dtype, args, state, n_threads, flops):
    """Call a program on a team whose region is open in its ``state``."""
    seconds = launch.serial_seconds(flops, dtype)
    if n_threads == 1 and seconds < _WORTH_HELP:  # not worth counting
        cache.ready(name, dtype, (*args, state, 1, 0))(*args, state, 1, 0)
    else:
        threads.Team(name, dtype, state).call((*args, state), n_threads, seconds)


def _threads_for(flops, dtype):
    """Threads that so much work is worth."""
    if launch.serial_seconds(flops, dtype) < _WORTH_HELP:
        return 1
    return launch.thread_limit()


def _block_rows(rows, n_threads, grain):
    """Rows of a task: whole tiles, and as many tasks for each of several threads.

    Two at least, so that one that comes late leaves less to wait for.
    """
    tasks_each = max(-(-rows // (n_threads * _BLOCK_ROWS)), 2 if n_threads > 1 else 1)
    share = -(-rows // (n_threads * tasks_each))
    return max(1, -(-share // grain)) * grain


def multiply(left, right, bias, kind, other, size, ones=0):
    """f(left @ right + bias), or left @ right * f'(other) if there is an ``other``.

    The last row of ``left`` is of ``ones`` if that is 1; the array does not hold it.
    """
    rows, inner, columns = size
    dtype = left[0].dtype
    out = np.empty((rows, columns), dtype)
    if out.size == 0:
        return out
    flops = 2.0 * rows * inner * columns
    n_threads = _threads_for(flops, dtype)
    tile = launch.tile_shape(dtype)
    block = _block_rows(rows, n_threads, tile.rows)
    padded = -(-columns // tile.lanes) * tile.lanes
    memory, scratch = _borrow(
        dtype,
        padded * (inner + 1),
        n_threads * block * packed_columns(inner, tile.panel),
        n_threads * block * (padded + 2 * tile.panel),
    )
    room = Room(*scratch, block)
    slope = other is not None and kind != IDENTITY
    product = Product(
        *(*left, *right, _flat(bias), _flat(other) if slope else left[0]),
        *(kind, slope, ones, *size),
    )
    state = threads.team_state(-(-padded // tile.panel))
    args = out.reshape(-1), product, room
    _run("multiply_all", dtype, args, state, n_threads, flops)
    _give_back(memory)
    return out


def matrix(array):
    """A matrix as an operand: (flat array, stride of rows, stride of columns)."""
    return _flat(array), array.shape[1], 1


def transposed(array):
    """Its transpose as an operand."""
    return _flat(array), 1, array.shape[1]


def loss_and_delta(logits, targets, kind):
    """(mean loss, gradient), of the kinds of ``tables``."""
    loss, delta, dtype = np.zeros(1), np.empty_like(logits), logits.dtype
    rows, outputs = logits.shape
    flops = _LOSS_FLOPS * logits.size
    n_threads, tile = _threads_for(flops, dtype), launch.tile_shape(dtype)
    block = _block_rows(rows, n_threads, tile.lanes)
    losses = np.empty(-(-rows // tile.lanes))
    memory, (scratch,) = _borrow(dtype, n_threads * (2 * outputs + 1) * tile.lanes)
    args = loss, delta.reshape(-1), _flat(logits), _flat(targets), kind, logits.shape
    args = *args, block, losses, scratch
    state = threads.team_state(-(-rows // block))
    _run("loss_and_delta", dtype, args, state, n_threads, flops)
    _give_back(memory)
    return float(loss[0]), delta


def update(theta, m, v, gradient, kind, rate, decays, nesterov):
    """One optimizer step on flat arrays, in place; SGD does not touch ``v``."""
    dtype = theta.dtype
    buffer = np.ones((4, launch.tile_shape(dtype).lanes), dtype)
    args = theta, m, v, _flat(gradient), kind, rate, decays, nesterov, buffer
    flops = _UPDATE_FLOPS * theta.size
    n_threads = _threads_for(flops, dtype)
    state = threads.team_state(-(-theta.size // UPDATE_RUN))
    # as if it were short: Ctrl-C is not to leave half of the numbers updated
    _run("update_all", dtype, args, state, n_threads, flops=0.0)
