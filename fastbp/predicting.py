"""From rows to outputs of a fitted network, by the way that is quickest for so many."""

import weakref
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted, validate_data

from fastbp import network, parameters, rows
from fastbp.tables import ACTIVATIONS, OUTPUT_ACTIVATIONS

#: Formats of sparse matrices that are taken as they are.
SPARSE = ("csr", "csc")
_PLAIN_DTYPES = (np.dtype(np.float64), np.dtype(np.float32))
#: Packing the weights for the register tiles does not pay for so many rows and less.
_FEW_ROWS = 4
#: The row reader of each estimator; not in its state, as it holds addresses.
_ROW_READERS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class Predictor:
    """What an estimator does with its ``coefs_`` and ``intercepts_``."""

    coefs_: Any
    intercepts_: Any
    out_activation_: str
    activation: Any
    n_jobs: int | None

    def _outputs(self, X) -> np.ndarray:
        """Outputs of the network for the rows of ``X``, shape (n, n_outputs)."""
        if not hasattr(self, "coefs_"):
            check_is_fitted(self)
        plain = self._is_plain(X)
        if not plain:
            network.check_indices(X)
            X = validate_data(self, X, accept_sparse=SPARSE, reset=False)
        if issparse(X):
            X = X.tocsr()
        few = X.shape[0] <= _FEW_ROWS and not issparse(X) and self._is_plain_network()
        reader = self._row_reader(X) if few else None
        if reader is not None:
            name = str(self.activation)
            outputs, finite = reader.predict(X, name, self.out_activation_)
        else:
            outputs, finite = self._predict_blocks(X)
        if plain and not finite:
            validate_data(self, X, reset=False)  # says so, unless told to assume it
        n_outputs = getattr(self, "n_outputs_", outputs.shape[1])
        if outputs.shape[1] != n_outputs:
            raise ValueError(
                f"coefs_ and intercepts_ end in {outputs.shape[1]} outputs, but the "
                f"model has n_outputs_={n_outputs}."
            )
        return outputs

    def _predict_blocks(self, X) -> tuple[np.ndarray, bool]:
        weights = network.checked_weights(self.coefs_, self.intercepts_, X.shape[1])
        plan = network.layout(
            (X.shape[1], *(len(b) for b in weights.intercepts)),
            parameters.activations(self, len(weights.coefs) - 1),
            network.loss_of(self.out_activation_),
            weights.coefs[0].dtype,
            sparse=issparse(X),
        )
        return network.predict(plan, *weights, X, self.n_jobs)

    def _is_plain_network(self) -> bool:
        """Whether it predicts as scikit-learn's do."""
        return (
            isinstance(self.activation, str)
            and self.activation in ACTIVATIONS
            and self.out_activation_ in OUTPUT_ACTIVATIONS
        )

    def _is_plain(self, X) -> bool:
        """Whether ``X`` passes scikit-learn's checks at a glance, if it is finite.

        For anything else ``validate_data`` has the last word.
        """
        return (
            type(X) is np.ndarray
            and X.ndim == 2
            and X.dtype in _PLAIN_DTYPES
            and X.flags.c_contiguous
            and X.flags.aligned
            and len(X) > 0
            and X.shape[1] == getattr(self, "n_features_in_", None)
            and not hasattr(self, "feature_names_in_")
        )

    def _row_reader(self, X) -> rows.RowReader | None:
        """What predicts single rows from the present weights, if they allow it."""
        reader, weights = _ROW_READERS.get(self), (self.coefs_, self.intercepts_)
        if reader is None or not reader.reads(*weights, X.shape[1]):
            network.checked_weights(*weights, X.shape[1])
            if not rows.RowReader.can_read(*weights, X.dtype):
                return None
            reader = _ROW_READERS[self] = rows.RowReader(*weights)
        return reader if reader.dtype == X.dtype else None
