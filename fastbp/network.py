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
from scipy.sparse import issparse

from fastbp import launch, threads
from fastbp.tables import (
    ACTIVATIONS,
    CACHE_LINE,
    EXTRAS,
    LAYER,
    MORE_ACTIVATIONS,
    MORE_LOSSES,
    OUTPUT_ACTIVATIONS,
    OWN,
    REGION,
    STORED,
    TASK,
    Data,
    Network,
    Workspace,
)

#: Rows that a worker takes through the whole network at a time: their activations stay
#: in the second-level cache while each panel of weights is used for several tiles. More
#: where the weights do not stay there, and every block reads them anew.
_BLOCK_ROWS = 48
_WIDE_BLOCK_ROWS = 256
_CACHE_BYTES = 1024 * 1024
#: Deltas that region 2 keeps in the second-level cache while it walks over the inputs.
_DELTA_BYTES = 512 * 1024
#: Panels of inputs and of outputs of a task of region 2 where the deltas do not stay: the
#: second-level cache holds their gradient while the batch passes by.
_WIDE_TASK = 4, 8
#: Tasks of region 2 at least, if that takes no more than cutting panels in thirds: as
#: many registers of inputs where AVX-512 multiplies them, and whole tiles everywhere.
_TASKS = 12
#: All names, in the order of their numbers.
_ACTIVATIONS = (*ACTIVATIONS, *MORE_ACTIVATIONS)
_LOSSES = (*OUTPUT_ACTIVATIONS, *MORE_LOSSES)
#: Seconds of a call that are worth calling for help.
WORTH_HELP = 2e-4


class Layout(NamedTuple):
    """A ``Network`` with the sizes that only Python needs."""

    net: Network
    dtype: np.dtype
    multiplications: int  # real weights: products per row of a forward pass
    n_parameters: int  # elements of theta
    n_transposed: int  # elements of the transposed weights
    n_columns: int  # of the panels of all units that have some
    panel: int  # columns of a panel
    grain: int  # blocks of rows come in multiples of it
    sparse: bool  # inputs are sparse: they have no panels
    frozen: int  # layers, from the first, that do not train
    variant: str  # of the programs: for sparse inputs, for extended networks

    def program(self, name: str) -> str:
        """The program's name for ``launch``, with the variant behind a colon."""
        return f"{name}:{self.variant}" if self.variant else name


def padded(n: int, grain: int) -> int:
    """The least multiple of ``grain`` that is not below ``n``."""
    return -(-n // grain) * grain


def _starts(sizes: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *sizes])


class Extras(NamedTuple):
    """What a network may have that scikit-learn's have not."""

    dropout: tuple[float, ...] = ()  # a rate for each hidden layer, or nothing
    frozen: int = 0  # layers that do not train
    label_smoothing: float = 0.0
    quantiles: tuple[float, ...] = ()
    delta: float = 1.0
    own_loss: int = 0  # address
    optimizer: bool = False  # an optimizer with more than scikit-learn's


NO_EXTRAS = Extras()


def loss_of(out_activation: str) -> str:
    """A loss, as ``layout`` takes it, with this output activation: enough to predict."""
    return {"cumulative_softplus": "quantiles"}.get(out_activation, out_activation)


@functools.lru_cache(maxsize=64)
def layout(
    units: tuple[int, ...],
    activations: str | tuple[str, ...],
    loss: str,
    dtype: np.dtype,
    sparse: bool = False,
    extras: Extras = NO_EXTRAS,
) -> Layout:
    """Lay out a network of ``units`` for the tiles of this machine.

    ``activations`` is one for all hidden layers or one for each, ``loss`` one of
    scikit-learn's output activations, which stands for its loss, or of ``MORE_LOSSES``.
    Sparse inputs change nothing in theta: only the workspaces have no place for them.
    """
    tile = launch.tile_shape(dtype)
    grain, panel = max(tile.lanes, tile.rows), tile.panel
    columns = [padded(n, tile.lanes) for n in units]
    # whole registers of inputs where the weights have a transposed copy
    grains = [tile.rows, *[grain] * len(units)]
    rows = [0, *(padded(n, g) for n, g in zip(units[:-1], grains, strict=False))]
    weights = _starts([r * c for r, c in zip(rows, columns, strict=True)])
    biases = weights[-1] + _starts([0, *columns[1:]])
    # layer 0 needs no transposed weights: nothing asks for the inputs' delta
    transposed = _starts([0] + [a * b for a, b in pairwise(columns[1:])])
    panels = [padded(n, panel) for n in columns]
    if sparse:
        panels[0] = 0
    places = _starts(panels)

    layers = np.zeros(len(units), LAYER)
    layers["units"], layers["columns"], layers["rows"] = units, columns, rows
    layers["place"] = places[:-1]
    layers["weights"], layers["biases"] = weights[:-1], biases[:-1]
    layers["transposed"][: len(transposed)] = transposed
    hidden = layers[1:-1]
    if isinstance(activations, str):
        activations = (activations,) * len(hidden)
    hidden["activation"] = [_ACTIVATIONS.index(name) for name in activations]
    hidden["dropout"] = extras.dropout or 0.0
    stored = (hidden["activation"] >= len(ACTIVATIONS)) | (hidden["dropout"] > 0)
    hidden["by_output"] = np.where(stored, STORED, hidden["activation"])
    number = _LOSSES.index(loss)
    extended = bool(stored.any()) or number >= len(OUTPUT_ACTIVATIONS)
    extended = extended or extras != NO_EXTRAS
    return Layout(
        Network(
            layers,
            len(units) - 1,
            number,
            *(_extra_arrays(extras) if extended else (None, None)),
        ),
        dtype,
        multiplications=sum(a * b for a, b in pairwise(units)),
        n_parameters=int(biases[-1]),
        n_transposed=int(transposed[-1]),
        n_columns=int(places[-1]),
        panel=panel,
        grain=grain,
        sparse=sparse,
        frozen=extras.frozen,
        variant="sparse" * sparse + "extended" * extended,
    )


def _extra_arrays(extras: Extras) -> tuple[np.ndarray, np.ndarray]:
    record = np.zeros(1, EXTRAS)
    for name in EXTRAS.names or ():
        record[name] = getattr(extras, name)
    return record, np.array(extras.quantiles, np.float64)


def aligned_zeros(n: int, dtype: Any) -> np.ndarray:
    """``n`` zeros that start on a cache line."""
    itemsize = np.dtype(dtype).itemsize
    buffer = np.zeros(n + CACHE_LINE // itemsize, dtype)
    first = (-buffer.ctypes.data % CACHE_LINE) // itemsize
    return buffer[first : first + n]


class Weights(NamedTuple):
    """What users see of a network: a matrix and a vector of one dtype a layer."""

    coefs: list[np.ndarray]  # (fan_in, fan_out)
    intercepts: list[np.ndarray]  # (fan_out,)


def checked_weights(coefs, intercepts, n_features: int) -> Weights:
    """``coefs_`` and ``intercepts_``, which users may have edited, as ``Weights``.

    They keep float32 if all have it and become float64 otherwise.

    Raises
    ------
    ValueError
        If their shapes do not fit each other or ``n_features``.
    """
    arrays = [np.asarray(w) for w in (*coefs, *intercepts)]
    dtype = np.float32 if all(w.dtype == np.float32 for w in arrays) else np.float64
    arrays = [w.astype(dtype, copy=False) for w in arrays]
    depth, fan_in = len(coefs), n_features
    if len(intercepts) != depth or depth == 0:
        raise ValueError(
            f"coefs_ has {depth} entries, intercepts_ {len(intercepts)}; both must have "
            "one for each layer."
        )
    weights = Weights(arrays[:depth], [])
    for layer, (coef, intercept) in enumerate(
        zip(weights.coefs, arrays[depth:], strict=True)
    ):
        if coef.ndim != 2 or len(coef) != fan_in or coef.size == 0:
            raise ValueError(
                f"coefs_[{layer}] must have shape ({fan_in}, fan_out) to follow "
                f"{fan_in} inputs, and at least one column, got {coef.shape}."
            )
        fan_in = coef.shape[1]
        if intercept.size not in (1, fan_in):
            raise ValueError(
                f"intercepts_[{layer}] must have shape ({fan_in},) as coefs_[{layer}] "
                f"has {fan_in} columns, got {intercept.shape}."
            )
        weights.intercepts.append(np.broadcast_to(intercept.reshape(-1), fan_in))
    return weights


def _panels(flat: np.ndarray, first: int, rows: int, columns: int, width: int):
    """(first column, panel) of a matrix in panels, each panel a 2-D view of ``flat``."""
    for start in range(0, columns, width):
        span = min(width, columns - start)
        at = first + start * rows
        yield start, flat[at : at + rows * span].reshape(rows, span)


def _weight_panels(plan: Layout, theta: np.ndarray, layer: int):
    outputs = plan.net.layers[layer + 1]
    first, rows, columns = (int(outputs[k]) for k in ("weights", "rows", "columns"))
    return _panels(theta, first, rows, columns, plan.panel)


def _biases(plan: Layout, theta: np.ndarray, layer: int) -> np.ndarray:
    outputs = plan.net.layers[layer + 1]
    return theta[outputs["biases"] : outputs["biases"] + outputs["units"]]


def pack(plan: Layout, coefs, intercepts) -> np.ndarray:
    """``theta`` from one (fan_in, fan_out) matrix and one (fan_out,) vector a layer."""
    theta = aligned_zeros(plan.n_parameters, plan.dtype)
    for layer, (coef, intercept) in enumerate(zip(coefs, intercepts, strict=True)):
        for start, panel in _weight_panels(plan, theta, layer):
            block = coef[:, start : start + panel.shape[1]]
            panel[: block.shape[0], : block.shape[1]] = block
        _biases(plan, theta, layer)[:] = intercept
    return theta


def unpack(plan: Layout, theta: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """New arrays ``coefs`` and ``intercepts`` from ``theta``."""
    units = plan.net.layers["units"].tolist()
    coefs = [np.empty(shape, plan.dtype) for shape in pairwise(units)]
    for layer, coef in enumerate(coefs):
        for start, panel in _weight_panels(plan, theta, layer):
            block = coef[:, start : start + panel.shape[1]]
            block[:] = panel[: block.shape[0], : block.shape[1]]
    return coefs, [_biases(plan, theta, layer).copy() for layer in range(len(coefs))]


def _transpose(plan: Layout, layer: int, start: int, block, transposed) -> None:
    """Write the columns of a layer's weights from ``start`` on to the transposed copy."""
    inputs, outputs = plan.net.layers[layer : layer + 2]
    first, columns = int(inputs["transposed"]), int(inputs["columns"])
    rows = int(outputs["columns"])
    for i, panel in _panels(transposed, first, rows, columns, plan.panel):
        turned = block[i : i + panel.shape[1]].T
        panel[start : start + turned.shape[0], : turned.shape[1]] = turned


def transposed_weights(plan: Layout, coefs) -> np.ndarray:
    """The transposed copy of all weights but the first layer's, in panels."""
    transposed = aligned_zeros(plan.n_transposed, plan.dtype)
    for layer in range(1, plan.net.depth):
        _transpose(plan, layer, 0, coefs[layer], transposed)
    return transposed


def transpose_weights(plan: Layout, theta: np.ndarray, transposed: np.ndarray) -> None:
    """Rewrite ``transposed_weights``, in place, from ``theta``."""
    for layer in range(1, plan.net.depth):
        for start, panel in _weight_panels(plan, theta, layer):
            _transpose(plan, layer, start, panel, transposed)


def _weight_tasks(plan: Layout, capacity: int) -> np.ndarray:
    """The tasks of region 2: panels of inputs by panels of outputs (see ``TASK``).

    A panel that is a large part of all the work is taken in thirds, and the largest tasks
    come first, so that workers end at about the same time. Among tasks of one size,
    neighbours share the deltas of their outputs.
    """
    panel_bytes = capacity * plan.panel * plan.dtype.itemsize
    trained = plan.net.layers[plan.frozen + 1 :]
    large = (trained["rows"] * trained["columns"]).sum() / _TASKS
    tasks = []
    for layer in range(plan.frozen, plan.net.depth):
        outputs = plan.net.layers[layer + 1]
        rows, columns = int(outputs["rows"]), int(outputs["columns"])
        delta_bytes = panel_bytes * -(-columns // plan.panel)
        height, width = plan.panel, columns
        if delta_bytes > _DELTA_BYTES:
            height, width = (n * plan.panel for n in _WIDE_TASK)
        elif min(height, rows) * width > large:
            height //= 3
        tasks += [
            (layer, i, min(i + height, rows), o, min(o + width, columns))
            for o in range(0, columns, width)
            for i in range(0, rows, height)
        ]
    tasks.sort(key=lambda task: (task[2] - task[1]) * (task[4] - task[3]), reverse=True)
    return np.array(tasks, dtype=TASK)


def _gradient_elements(plan: Layout, tasks: np.ndarray, capacity: int) -> int:
    """Scratch elements for a task's gradient, or for a panel of it at a time."""
    if capacity <= launch.tile_shape(plan.dtype).depth and not plan.sparse:
        return plan.panel**2
    heights = tasks["end_input"] - tasks["first_input"]
    widths = tasks["end_output"] - tasks["first_output"]
    return max(
        padded(h, plan.panel) * padded(w, plan.panel)
        for h, w in zip(heights.tolist(), widths.tolist(), strict=True)
    )


def _scratch(plan: Layout, gradient: int = 0) -> int:
    """Elements of scratch memory for one worker, in whole cache lines."""
    outputs = int(plan.net.layers["columns"][-1])
    outputs_and_targets = 2 * launch.tile_shape(plan.dtype).lanes * outputs
    one_row = 3 * outputs if plan.net.loss == OWN else 0  # as the user's loss has it
    return padded(max(gradient, outputs_and_targets + one_row), CACHE_LINE)


def _block_rows(plan: Layout) -> int:
    weights = plan.n_parameters * plan.dtype.itemsize
    return _BLOCK_ROWS if weights < _CACHE_BYTES else _WIDE_BLOCK_ROWS


def training_workspace(
    plan: Layout, batch_size: int, workers: int, coefs, clips: bool = False
) -> Workspace:
    """Scratch memory for batches of up to ``batch_size`` rows.

    ``clips`` tells whether gradients are clipped.
    """
    capacity = padded(batch_size, plan.grain)
    tasks = _weight_tasks(plan, capacity)
    share = _scratch(plan, _gradient_elements(plan, tasks, capacity))
    stores = bool((plan.net.layers["by_output"] == STORED).any())
    return Workspace(
        activations=aligned_zeros(capacity * plan.n_columns, plan.dtype),
        deltas=aligned_zeros(capacity * plan.n_columns, plan.dtype),
        transposed=transposed_weights(plan, coefs),
        slopes=aligned_zeros(capacity * plan.n_columns * stores, plan.dtype),
        gradient=aligned_zeros(plan.n_parameters * clips, plan.dtype),
        row_loss=aligned_zeros(capacity, plan.dtype),
        squares=np.zeros(len(tasks)),
        gradient_squares=np.zeros(len(tasks)),
        scratch=aligned_zeros(share * workers, plan.dtype),
        tasks=tasks,
        team=threads.team_state(),
        region=np.zeros(1, REGION),
        capacity=capacity,
        share=share,
        columns=plan.n_columns,
        block=_block_rows(plan),
    )


def prediction_workspace(
    plan: Layout, rows: int, block_rows: int, workers: int
) -> Workspace:
    """Scratch memory for one block of rows a worker, and a region of all blocks."""
    capacity = padded(max(1, block_rows), plan.grain)
    share = _scratch(plan)
    nothing = np.zeros(0, plan.dtype)
    return Workspace(
        activations=aligned_zeros(capacity * plan.n_columns * workers, plan.dtype),
        deltas=nothing,
        transposed=nothing,
        slopes=nothing,
        gradient=nothing,
        row_loss=nothing,
        squares=np.zeros(0),
        gradient_squares=np.zeros(0),
        scratch=aligned_zeros(share * workers, plan.dtype),
        tasks=np.zeros((0, 4), np.int64),
        team=threads.team_state(-(-rows // capacity)),
        region=np.zeros(1, REGION),
        capacity=capacity,
        share=share,
        columns=plan.n_columns,
        block=capacity,
    )


def read_only(array: np.ndarray) -> np.ndarray:
    """A flat view that programs may not write, so that all inputs have one type."""
    flat = array.reshape(-1)
    flat.flags.writeable = False
    return flat


def in_place(X: Any, dtype: Any) -> np.ndarray:
    """The array ``X`` as the kernels read it, without a copy where it is so already."""
    return np.require(X, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def check_indices(X: Any) -> None:
    """Raise ValueError if a sparse matrix tells of numbers where it has none.

    SciPy believes it, and reads and writes outside of its arrays. Does nothing for other
    inputs.
    """
    if not issparse(X):
        return
    if X.format in ("csr", "csc", "bsr"):
        if (np.diff(X.indptr) < 0).any():  # not checked by SciPy if the last is 0
            raise ValueError("indptr must be a non-decreasing sequence")
        # another matrix of the same arrays, as the check may replace them
        same = type(X)((X.data, X.indices, X.indptr), shape=X.shape, copy=False)
        same.check_format(full_check=True)
    elif X.format == "coo" and X.ndim == 2:
        type(X)((X.data, (X.row, X.col)), shape=X.shape)


def _stored(X, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(numbers, indices, indptr) of a CSR matrix, rows sorted and without duplicates.

    The matrix, which must have passed ``check_indices``, is not changed, and its arrays
    are not copied where they are so already.

    Raises
    ------
    ValueError
        If it is no CSR matrix.
    """
    if X.format != "csr":
        raise ValueError(f"Sparse X must have format 'csr', got {X.format!r}.")
    # another matrix of the same arrays: what it finds out about itself is up to date
    data = X.data.astype(dtype, copy=False)
    X = type(X)((data, X.indices, X.indptr), shape=X.shape, copy=False)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return (
        in_place(X.data, dtype),
        in_place(X.indices, np.int32),
        in_place(X.indptr, np.int64),
    )


def training_data(plan: Layout, X, targets, weights, order: np.ndarray) -> Data:
    """What training steps read; ``order`` is read in place, whoever changes it later.

    Parameters
    ----------
    plan : Layout
    X : ndarray of shape (n, n_features), or a CSR matrix if the plan is for sparse inputs
    targets : ndarray of shape (n, n_outputs), or (n,) class numbers for softmax
    weights : ndarray of shape (n,), or None
    order : ndarray of int64 of shape (rows,) or (n_epochs, rows)
        Rows of ``X`` in the order in which they are taken, in one epoch or in several.
    """
    if issparse(X) != plan.sparse:
        raise ValueError("The layout and X must be both for sparse inputs, or neither.")
    where: tuple = (None, None)
    if plan.sparse:
        numbers, indices, indptr = _stored(X, plan.dtype)
        where = read_only(indices), read_only(indptr)
    else:
        numbers = in_place(X, plan.dtype)
    return Data(
        read_only(numbers),
        read_only(in_place(targets, plan.dtype)),
        read_only(order[:]),
        read_only(in_place(() if weights is None else weights, plan.dtype)),
        order.shape[-1],
        *where,
    )


def predict(
    plan: Layout, coefs, intercepts, X, n_jobs: int | None
) -> tuple[np.ndarray, bool]:
    """Outputs for the rows of ``X``, (n, n_outputs), and whether all of ``X`` is finite.

    ``X`` is an array, or a CSR matrix if the plan is for sparse inputs.
    """
    return predict_packed(plan, pack(plan, coefs, intercepts), X, n_jobs)


def predict_packed(
    plan: Layout, theta: np.ndarray, X, n_jobs: int | None
) -> tuple[np.ndarray, bool]:
    """``predict`` with parameters as they are while a network trains."""
    n, units = X.shape[0], plan.net.layers["units"].tolist()
    data = training_data(plan, X, (), None, np.arange(n))
    out = np.empty((n, units[-1]), plan.dtype)
    flops = 2 * n * plan.multiplications
    if plan.sparse:
        flops -= 2 * (n * units[0] - data.X.size) * units[1]
    expected = launch.serial_seconds(flops, plan.dtype)
    workers = launch.thread_limit(n_jobs) if expected > WORTH_HELP else 1
    block = min(_block_rows(plan), -(-n // workers))
    finite = np.ones(1, np.bool_)
    work = prediction_workspace(plan, n, block, workers)
    threads.Team(plan.program("predict_rows"), plan.dtype, work.team).call(
        (
            plan.net,
            theta,
            data,
            out.reshape(-1),
            work,
            finite,
        ),
        workers,
        expected,
    )
    return out, bool(finite[0])
