"""Single rows: prediction from ``coefs_`` and ``intercepts_`` where they are."""

from operator import is_
from typing import Any

import numpy as np

from fastbp import cache, launch, network
from fastbp.tables import ACTIVATIONS, OUTPUT_ACTIVATIONS


def _is_in_place(array: np.ndarray) -> bool:
    return array.flags.c_contiguous and array.flags.aligned


class RowReader:
    """Predicts a few rows from ``coefs_`` and ``intercepts_`` where they are.

    Parameters
    ----------
    coefs, intercepts : list of ndarray
        As ``Weights``, and C-contiguous: they are read anew at every call, so that
        edited numbers count. ``reads`` tells whether they are still the same arrays.
    """

    def __init__(self, coefs, intercepts) -> None:
        self._arrays = [*coefs, *intercepts]
        self.dtype = coefs[0].dtype
        self._units = np.array([len(coefs[0]), *map(len, intercepts)])
        self._addresses = np.array(
            [
                (W.ctypes.data, b.ctypes.data)
                for W, b in zip(coefs, intercepts, strict=True)
            ]
        )
        lanes = launch.tile_shape(self.dtype).lanes
        self._width = network.padded(int(self._units.max()), lanes) + lanes
        self._scratch_size = 2 * self._width + lanes * int(self._units[-1])
        self._program: Any = None

    @staticmethod
    def can_read(coefs, intercepts, dtype: np.dtype) -> bool:
        """Whether weights, which fit together, may be read in place."""
        return all(
            type(w) is np.ndarray and w.dtype == dtype and _is_in_place(w)
            for w in (*coefs, *intercepts)
        ) and all(b.shape == W.shape[1:] for W, b in zip(coefs, intercepts, strict=True))

    def reads(self, coefs, intercepts, n_features: int) -> bool:
        """Whether it reads these very arrays, and they take rows of ``n_features``."""
        arrays = (*coefs, *intercepts)
        return (
            len(arrays) == len(self._arrays)
            and all(map(is_, arrays, self._arrays))
            and n_features == self._units[0]
        )

    def predict(self, X, activation: str, out_activation: str) -> tuple[np.ndarray, bool]:
        """Outputs for the rows of ``X``, and whether all of ``X`` is finite.

        ``X`` must be of the weights' dtype.
        """
        out = np.empty((len(X), int(self._units[-1])), self.dtype)
        args = (
            network.read_only(network.in_place(X, self.dtype)),
            out.reshape(-1),
            self._units,
            self._addresses,
            ACTIVATIONS.index(activation),
            OUTPUT_ACTIVATIONS.index(out_activation),
            np.empty(self._scratch_size, self.dtype),
            self._width,
        )
        if self._program is None:
            self._program = cache.ready("predict_single_rows", self.dtype, args)
        return out, self._program(*args)
