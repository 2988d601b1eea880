"""The shape of a network, and where each of its numbers is stored.

Parameters live in one flat vector ``theta`` while a network trains: the weights of all
layers, then the biases of all layers, both padded and arranged in the panels that the
register tiles read (see ``fastbp.kernels.gemm``). The optimizer's moments have the same
layout. ``pack`` and ``unpack`` translate to and from ``coefs_`` and ``intercepts_``.
"""

import functools
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fastbp import launch
from fastbp.tables import (
    ACTIVATIONS,
    LAYER,
    OUTPUT_ACTIVATIONS,
    PANEL,
    Network,
    Workspace,
)

_CACHE_LINE = 64
#: Rows that a worker takes through the whole network at a time when predicting.
_PREDICTION_ROWS = 48
#: Deltas that region 2 keeps in the second-level cache while it walks over the inputs.
_DELTA_BYTES = 512 * 1024


class Layout(NamedTuple):
    """A ``Network`` with the sizes that only Python needs."""

    net: Network
    dtype: np.dtype
    rows: tuple  # stored rows of each layer's weights (inputs, padded)
    columns: tuple  # padded units of each layer
    multiplications: int  # real weights: products per row of a forward pass
    n_weights: int  # elements of theta before the biases
    n_parameters: int  # elements of theta
    n_transposed: int


def _padded(n: int, grain: int) -> int:
    return -(-n // grain) * grain


def _panel_widths(columns: int, lanes: int, vectors: int) -> list[int]:
    """Split padded columns into the fewest panels, of widths as even as possible."""
    registers = columns // lanes
    panels = -(-registers // vectors)
    wide, more = divmod(registers, panels)
    return [lanes * (wide + (p < more)) for p in range(panels)]


@functools.lru_cache(maxsize=64)
def layout(
    units: tuple[int, ...], activation: str, out_activation: str, dtype: np.dtype
) -> Layout:
    """Lay out a network of ``units`` for the tiles of this machine."""
    tile = launch.tile_shape(dtype)
    strip = max(tile.lanes, tile.rows)
    columns = [_padded(n, tile.lanes) for n in units]
    rows = [_padded(n, strip) for n in units[:-1]]
    sizes = [r * c for r, c in zip(rows, columns[1:], strict=True)]
    first_weight = np.cumsum([0, *sizes])
    first_bias = first_weight[-1] + np.cumsum([0, *columns[1:]])
    # layer 0 needs no transposed weights: nothing asks for the inputs' delta
    turned = [0] + [a * b for a, b in pairwise(columns[1:])]
    first_turned = np.cumsum([0, *turned])

    panels: list[tuple[int, ...]] = []
    layers = []
    for u, n in enumerate(columns):
        layers.append((units[u], len(panels)))
        start = 0
        for width in _panel_widths(n, tile.lanes, tile.vectors):
            weights = first_weight[u - 1] + start * rows[u - 1] if u else -1
            biases = first_bias[u - 1] + start if u else -1
            inner = 0 < u < len(columns) - 1
            transposed = first_turned[u] + start * columns[u + 1] if inner else -1
            column = sum(columns[:u]) + start
            panels.append((start, width, column, weights, biases, transposed))
            start += width
    layers.append((0, len(panels)))
    net = Network(
        np.array(layers, LAYER),
        np.array(panels, PANEL),
        depth=len(rows),
        activation=ACTIVATIONS.index(activation),
        loss=OUTPUT_ACTIVATIONS.index(out_activation),
    )
    return Layout(
        net,
        dtype,
        tuple(rows),
        tuple(columns),
        sum(a * b for a, b in pairwise(units)),
        int(first_weight[-1]),
        int(first_bias[-1]),
        int(first_turned[-1]),
    )


def aligned_zeros(n: int, dtype: Any) -> np.ndarray:
    """``n`` zeros that start on a cache line."""
    itemsize = np.dtype(dtype).itemsize
    buffer = np.zeros(n + _CACHE_LINE // itemsize, dtype)
    first = (-buffer.ctypes.data % _CACHE_LINE) // itemsize
    return buffer[first : first + n]


def _panels_of(plan: Layout, u: int):
    """(first column, width, PANEL record) of the panels of the units u."""
    first, last = plan.net.layers["first_panel"][u : u + 2]
    for panel in plan.net.panels[first:last]:
        yield int(panel["start"]), int(panel["width"]), panel


def _weight_views(plan: Layout, theta: np.ndarray):
    """(layer, first column, panel) of all weight panels, each panel a 2-D view."""
    for layer, rows in enumerate(plan.rows):
        for start, width, panel in _panels_of(plan, layer + 1):
            first = int(panel["weights"])
            view = theta[first : first + rows * width].reshape(rows, width)
            yield layer, start, view


def _bias_view(plan: Layout, theta: np.ndarray, layer: int) -> np.ndarray:
    first = int(next(_panels_of(plan, layer + 1))[2]["biases"])
    return theta[first : first + int(plan.net.layers["units"][layer + 1])]


def pack(plan: Layout, coefs, intercepts) -> np.ndarray:
    """``theta`` from one (fan_in, fan_out) matrix and one (fan_out,) vector a layer."""
    theta = aligned_zeros(plan.n_parameters, plan.dtype)
    for layer, start, panel in _weight_views(plan, theta):
        block = coefs[layer][:, start : start + panel.shape[1]]
        panel[: block.shape[0], : block.shape[1]] = block
    for layer, intercept in enumerate(intercepts):
        _bias_view(plan, theta, layer)[:] = intercept
    return theta


def unpack(
    plan: Layout, theta: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """New arrays ``coefs`` and ``intercepts`` from ``theta``."""
    units = plan.net.layers["units"][:-1].tolist()
    coefs = [np.empty(shape, plan.dtype) for shape in pairwise(units)]
    for layer, start, panel in _weight_views(plan, theta):
        block = coefs[layer][:, start : start + panel.shape[1]]
        block[:] = panel[: block.shape[0], : block.shape[1]]
    intercepts = [
        _bias_view(plan, theta, layer).copy() for layer in range(len(units) - 1)
    ]
    return coefs, intercepts


def transposed_weights(plan: Layout, coefs) -> np.ndarray:
    """The transposed copy of all weights but the first layer's, in panels."""
    turned = aligned_zeros(plan.n_transposed, plan.dtype)
    for u in range(1, len(plan.columns) - 1):
        rows = plan.columns[u + 1]
        for start, width, record in _panels_of(plan, u):
            first = int(record["transposed"])
            panel = turned[first : first + rows * width].reshape(rows, width)
            block = coefs[u][start : start + width].T
            panel[: block.shape[0], : block.shape[1]] = block
    return turned


def initial_weights(
    units: Sequence[int],
    activation: str,
    random_state: np.random.RandomState,
    dtype: Any,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Uniform weights and biases in +-sqrt(6 / (fan_in + fan_out)), as scikit-learn.

    The bound is that of Glorot and Bengio (2010), equation 16, with 2 for 6 when the
    hidden activation is 'logistic'. Drawn layer by layer, weights before biases, in
    float64.
    """
    factor = 2.0 if activation == "logistic" else 6.0
    coefs, intercepts = [], []
    for fan_in, fan_out in pairwise(units):
        bound = np.sqrt(factor / (fan_in + fan_out))
        coefs.append(
            random_state.uniform(-bound, bound, (fan_in, fan_out)).astype(dtype)
        )
        intercepts.append(random_state.uniform(-bound, bound, fan_out).astype(dtype))
    return coefs, intercepts


def _strip_tasks(
    plan: Layout, capacity: int, strip: int, tile_width: int
) -> np.ndarray:
    """The tasks of region 2: strips of inputs by groups of panels.

    A group's deltas fit in the second-level cache; consecutive tasks share them.
    """
    panel_bytes = capacity * tile_width * plan.dtype.itemsize
    group = max(1, _DELTA_BYTES // panel_bytes)
    first_panel = plan.net.layers["first_panel"].tolist()
    tasks = [
        (layer, first, p, min(p + group, first_panel[layer + 2]))
        for layer, rows in enumerate(plan.rows)
        for p in range(first_panel[layer + 1], first_panel[layer + 2], group)
        for first in range(0, rows, strip)
    ]
    return np.array(tasks, dtype=np.int64)


def training_workspace(plan: Layout, batch_size: int, workers: int, coefs) -> Workspace:
    """Scratch memory for batches of up to ``batch_size`` rows."""
    tile = launch.tile_shape(plan.dtype)
    strip = max(tile.lanes, tile.rows)
    capacity = _padded(batch_size, strip)
    tile_width = tile.lanes * tile.vectors
    columns = sum(plan.columns)
    tasks = _strip_tasks(plan, capacity, strip, tile_width)
    scratch = capacity * strip + tile.rows * tile_width
    return Workspace(
        activations=aligned_zeros(capacity * columns, plan.dtype),
        deltas=aligned_zeros(capacity * columns, plan.dtype),
        transposed=transposed_weights(plan, coefs),
        offsets=np.zeros(capacity, np.int64),
        row_loss=aligned_zeros(capacity, plan.dtype),
        squares=np.zeros(len(tasks)),
        strips=aligned_zeros(scratch * workers, plan.dtype),
        tasks=tasks,
        counters=np.zeros(16, np.int64),
        capacity=capacity,
        scratch=scratch,
        columns=columns,
    )


def prediction_workspace(plan: Layout, block_rows: int, workers: int) -> Workspace:
    """Scratch memory for one block of rows a worker, without anything to train."""
    tile = launch.tile_shape(plan.dtype)
    capacity = _padded(block_rows, tile.rows)
    columns = sum(plan.columns)
    nothing = np.zeros(0, plan.dtype)
    return Workspace(
        activations=aligned_zeros(capacity * columns * workers, plan.dtype),
        deltas=nothing,
        transposed=nothing,
        offsets=np.zeros(capacity * workers, np.int64),
        row_loss=nothing,
        squares=np.zeros(0),
        strips=nothing,
        tasks=np.zeros((0, 4), np.int64),
        counters=np.zeros(16, np.int64),
        capacity=capacity,
        scratch=0,
        columns=columns,
    )


def read_only(array: np.ndarray) -> np.ndarray:
    """A flat view that programs may not write, so that all inputs have one type."""
    flat = array.reshape(-1)
    flat.flags.writeable = False
    return flat


def in_place(X: np.ndarray, dtype: Any) -> np.ndarray:
    """``X`` as the kernels read it, without a copy where it is so already."""
    return np.require(X, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def predict(plan: Layout, coefs, intercepts, X, n_jobs: int | None) -> np.ndarray:
    """Outputs of the network for the rows of ``X``, shape (n, n_outputs)."""
    X = in_place(X, plan.dtype)
    n, outputs = len(X), int(plan.net.layers["units"][plan.net.depth])
    out = np.empty((n, outputs), plan.dtype)
    workers = launch.thread_limit(n_jobs)
    block = min(_PREDICTION_ROWS, -(-n // workers))
    launch.run(
        "predict_rows",
        (
            plan.net,
            pack(plan, coefs, intercepts),
            read_only(X),
            out.reshape(-1),
            prediction_workspace(plan, block, workers),
            n,
        ),
        plan.dtype,
        workers,
        2 * n * plan.multiplications,
    )
    return out
