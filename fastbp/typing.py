"""Types of the public signatures, for type checkers and users' own annotations."""

from collections.abc import Sequence
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


#: Rows of features or targets: an array, a list, a DataFrame, a sparse matrix.
Matrix: TypeAlias = ArrayLike | SparseMatrix
#: An array of some dtype.
Array: TypeAlias = NDArray[Any]
#: Units of the hidden layers.
Sizes: TypeAlias = int | Sequence[int] | NDArray[Any]
#: What ``random_state`` takes.
Seed: TypeAlias = int | RandomState | None
#: What hidden layers apply to their sums.
Activation: TypeAlias = Literal["identity", "logistic", "tanh", "relu"]
#: What finds the weights.
Solver: TypeAlias = Literal["lbfgs", "sgd", "adam"]
#: How the learning rate of 'sgd' goes on.
Schedule: TypeAlias = Literal["constant", "invscaling", "adaptive"]
#: What the computation is done in.
Precision: TypeAlias = Literal["auto", "float32", "float64"]
#: The one dtype of all floating arrays of a call to ``fastbp.kernels``.
Float = TypeVar("Float", np.float32, np.float64)
