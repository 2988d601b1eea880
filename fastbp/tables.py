"""The numbers and tuples in which Python hands its work to the kernels.

Kept apart from both: it needs no Numba, and the kernels need nothing else of Python's.
"""

from typing import NamedTuple

import numpy as np

#: Hidden activations by scikit-learn's names, and their numbers in the kernels.
ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
IDENTITY, LOGISTIC, TANH, RELU = range(4)
#: Those that it does not have (see ``kernels.hidden``); their numbers follow.
MORE_ACTIVATIONS = ("leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softplus")
LEAKY_RELU, ELU, SELU, GELU, SILU, MISH, SOFTPLUS = range(4, 11)
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
#: In place of an activation's number: its slope is stored, not known from its value.
STORED = -1

#: Output activations by scikit-learn's names; each stands for its loss too.
OUTPUT_ACTIVATIONS = ("softmax", "logistic", "identity", "exp")
SOFTMAX, LOG_LOSS, SQUARED_ERROR, POISSON = range(4)
#: Losses that it does not have (see ``kernels.more_losses``), and their numbers.
MORE_LOSSES = ("gamma", "absolute_error", "huber", "quantile", "quantiles", "own")
GAMMA, ABSOLUTE_ERROR, HUBER, QUANTILE, QUANTILES, OWN = range(4, 10)

#: Stochastic solvers; GRADIENT writes the gradient and updates nothing.
ADAM, SGD, GRADIENT = range(3)
#: Those that it does not have (see ``kernels.more_updates``).
RMSPROP, NADAM = range(3, 5)
#: What the kernels do for each; AdamW is Adam with weight decay.
SOLVER_KINDS = {
    "adam": ADAM,
    "sgd": SGD,
    "rmsprop": RMSPROP,
    "nadam": NADAM,
    "adamw": ADAM,
}

#: Bytes that come from memory, and go from core to core, together.
CACHE_LINE = 64

#: Words of a team's state, each on its own cache line (see ``kernels.team``).
TICKET, DONE, STOP, YIELD, EVEN, ODD, DRIVEN, LEFT = 0, 8, 16, 24, 32, 40, 48, 56
TEAM_WORDS = 64
#: Bits of a ticket for the number of a task, and for the number of tasks.
TASKS_SHIFT = 24

#: The units u of a network, u = 0 the inputs; PW is the width of a panel.
LAYER = np.dtype(
    [
        ("units", "i8"),
        ("columns", "i8"),  # units, padded to whole registers
        ("place", "i8"),  # first column of their panels; sparse inputs have none
        ("rows", "i8"),  # stored rows of the weights into them: inputs, padded
        ("weights", "i8"),  # where the weights into them start in theta
        ("biases", "i8"),  # where their biases start in theta
        ("transposed", "i8"),  # where the weights out of them start, transposed
        ("activation", "i8"),  # which gives them their values
        ("by_output", "i8"),  # whose slope is known from their values; or STORED
        ("dropout", "f8"),  # share of them that a training step leaves out
    ]
)

#: What a network has that scikit-learn's have not.
EXTRAS = np.dtype(
    [
        ("frozen", "i8"),  # layers, from the first, that do not train
        ("label_smoothing", "f8"),
        ("delta", "f8"),  # of Huber's loss
        ("own_loss", "i8"),  # address of the user's loss
    ]
)


class Network(NamedTuple):
    """The shape of a network and where its numbers are stored.

    Only extended networks, which have something that scikit-learn's have not, have
    ``extras`` and ``quantiles``: for the others they are None, a type of their own, and
    their programs are compiled without a word of all that.
    """

    layers: np.ndarray  # [L + 1] of LAYER
    depth: int  # L, the number of weight matrices
    loss: int  # output activation with its loss
    extras: np.ndarray | None = None  # [1] of EXTRAS
    quantiles: np.ndarray | None = None  # [outputs], or empty


class Workspace(NamedTuple):
    """Scratch memory of one fit or one prediction, never larger than one batch."""

    activations: np.ndarray  # all units but sparse inputs, in panels of ``capacity`` rows
    deltas: np.ndarray  # likewise
    transposed: np.ndarray  # transposed weights of all layers but the first
    slopes: np.ndarray  # as activations: f' of layers that store it; empty without any
    gradient: np.ndarray  # as theta, for clipping; empty without
    row_loss: np.ndarray  # [capacity]
    squares: np.ndarray  # [tasks] sums of squared weights
    gradient_squares: np.ndarray  # [tasks] sums of squared gradients, for clipping
    scratch: np.ndarray  # per worker: a task's gradient, or outputs and targets of rows
    tasks: np.ndarray  # [tasks] of TASK
    team: np.ndarray  # tickets for the tasks, see ``kernels.team``
    region: np.ndarray  # [1] of REGION
    capacity: int  # rows
    share: int  # elements of ``scratch`` for one worker
    columns: int  # of the panels of all units
    block: int  # rows that pass through the whole network together, at most


class Data(NamedTuple):
    """What a training step reads; flat and read-only.

    A sparse X is given by its stored numbers, row after row: those of row i are
    ``X[indptr[i] : indptr[i + 1]]`` in the columns ``indices``, which ascend.
    """

    X: np.ndarray  # [n * n_features], or the stored numbers of a sparse matrix
    targets: np.ndarray  # [n * n_outputs], or [n] class numbers for softmax
    order: np.ndarray  # [epochs * epoch_rows] the rows of each epoch in their order
    weights: np.ndarray  # [n] of the rows, or empty: all count the same
    epoch_rows: int
    indices: np.ndarray | None  # [stored numbers] their columns; None for dense X
    indptr: np.ndarray | None  # [n + 1] where the rows start; None for dense X


class Product(NamedTuple):
    """f(left @ right + bias), or (left @ right) * f'(other) with ``slope``.

    Element (i, j) of an operand is [i row + j column]; one of its strides is 1. All
    arrays are flat. A row of ones gives the sums of right's columns: the gradient of a
    bias, which is the weight of an input that is always 1. No tuple in it: Numba's
    parallel loops take none within another.
    """

    left: np.ndarray  # [R - ones, K]
    left_row: int
    left_column: int
    right: np.ndarray  # [K, N]
    right_row: int
    right_column: int
    bias: np.ndarray  # [N], or empty
    other: np.ndarray  # [R * N] outputs of f; read with ``slope`` only
    kind: int  # f's number in ACTIVATIONS
    slope: bool
    ones: int  # 1: a row of ones is below left's last row; 0: none is
    rows: int  # R
    inner: int  # K
    columns: int  # N


class Room(NamedTuple):
    """Scratch memory of a product; a slot is a worker's, or a task's."""

    panels: np.ndarray  # the right operand in panels, then the bias
    packed: np.ndarray  # a block of rows of the left operand, for each slot
    sums: np.ndarray  # a block of rows of the product and a panel, for each slot
    block: int  # rows of a task, whole tiles


#: Elements of an update on plain arrays that one task takes.
UPDATE_RUN = 4096

#: A task of region 2: the weights of a layer from some panels of inputs into some panels
#: of outputs; the first of them and where they end.
TASK = np.dtype(
    [
        (name, "i8")
        for name in ("layer", "first_input", "end_input", "first_output", "end_output")
    ]
)

#: The optimizer's parameters, in float64, of a fit.
OPTIMIZER = np.dtype(
    [
        ("kind", "i8"),
        ("corrects_bias", "i8"),
        ("alpha", "f8"),
        ("beta_1", "f8"),
        ("beta_2", "f8"),
        ("epsilon", "f8"),
        ("momentum", "f8"),
        ("nesterov", "i8"),
        # of extended networks:
        ("weight_decay", "f8"),
        ("max_grad_norm", "f8"),  # infinite: no clipping
        ("seed", "i8"),  # of dropout
    ]
)

#: The region of a training step that the tasks belong to.
REGION = np.dtype(
    [
        ("phase", "i8"),
        ("start", "i8"),  # the batch's first row in the order
        ("batch", "i8"),  # its rows
        ("block", "i8"),  # rows of a task
        ("step", "i8"),  # t, the number of the update, from 1
        ("rate", "f8"),  # the learning rate of the update
        ("clip", "f8"),  # factor of the gradient
        ("weight", "f8"),  # S, the sum of the weights of its rows
    ]
)


class Step(NamedTuple):
    """What one update needs beside the arrays; floats in the dtype of the arrays."""

    kind: int
    scale: float  # 1 / S, S the number of rows or the sum of their weights
    alpha: float  # L2 penalty, before the division by S
    rate: float  # Adam: learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t)
    beta_1: float
    new_1: float  # 1 - beta_1, rounded once
    beta_2: float
    new_2: float
    epsilon: float  # positive: 0 / (0 + epsilon) must be 0
    momentum: float
    nesterov: int


class MoreStep(NamedTuple):
    """``Step`` for extended networks: the same names, and more behind them."""

    kind: int
    scale: float
    alpha: float
    rate: float
    beta_1: float
    new_1: float
    beta_2: float
    new_2: float
    epsilon: float
    momentum: float
    nesterov: int
    kept: float  # 1 - learning_rate weight_decay: what weight decay leaves
    ahead: float  # NAdam: beta_1 (1 - beta_1^t) / (1 - beta_1^(t + 1))
