"""Types of the public signatures, for type checkers and users' own annotations."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray


class SparseMatrix(Protocol):
    """A sparse matrix or array of SciPy's."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its rows and columns."""

    def tocsr(self, copy: bool = False) -> Any:
        """The same in compressed rows."""


class Fitted(Protocol):
    """A fitted perceptron, fastbp's or scikit-learn's, alone or frozen."""

    def predict(self, X: Any) -> Any:
        """Predict targets."""


#: Rows of features or targets: an array, a list, a DataFrame, a sparse matrix.
Matrix: TypeAlias = ArrayLike | SparseMatrix
#: An array of some dtype.
Array: TypeAlias = NDArray[Any]
#: Units of the hidden layers.
Sizes: TypeAlias = int | Sequence[int] | NDArray[Any]
#: What ``random_state`` takes.
Seed: TypeAlias = int | np.integer[Any] | RandomState | None
#: What hidden layers apply to their sums.
ActivationName: TypeAlias = Literal[
    "identity",
    "logistic",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "mish",
    "softplus",
]
#: One for all hidden layers, or one for each.
Activation: TypeAlias = ActivationName | Sequence[ActivationName]
#: What the kernels for plain arrays apply.
ArrayActivation: TypeAlias = Literal["identity", "logistic", "tanh", "relu"]
#: What finds the weights.
Solver: TypeAlias = Literal["lbfgs", "sgd", "adam", "adamw", "rmsprop", "nadam"]
#: How the learning rate goes on.
Schedule: TypeAlias = Literal[
    "constant", "invscaling", "adaptive", "cosine", "one_cycle", "reduce_on_plateau"
]
#: What weights start from; a fitted estimator gives its hidden layers.
Initialization: TypeAlias = (
    Literal["glorot_uniform", "he_normal", "lecun_normal", "orthogonal"] | Fitted
)
#: What a regressor minimises; a function is ``loss(y, z, gradient)`` of Numba's.
RegressionLoss: TypeAlias = (
    Literal["squared_error", "poisson", "gamma", "absolute_error", "huber", "quantile"]
    | Callable[..., float]
)
#: What validation rows are scored with: a scorer's name, 'loss', or a scorer.
Scoring: TypeAlias = str | Callable[..., float] | None
#: What the computation is done in.
Precision: TypeAlias = Literal["auto", "float32", "float64"]
#: The one dtype of all floating arrays of a call to ``fastbp.kernels``.
Float = TypeVar("Float", np.float32, np.float64)
#: A method that a decorator gives back with the same signature.
Method = TypeVar("Method", bound=Callable[..., Any])
