"""Models as ONNX graphs, which other runtimes execute without Python.

skl2onnx converts pipelines step by step; ``to_onnx`` tells it how to convert ours.
"""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastbp.estimators import MLPClassifier, MLPRegressor
from fastbp.tables import SELU_ALPHA, SELU_SCALE

#: ONNX operators of the activations, hidden and output.
_OPERATORS = {
    "identity": "Identity",
    "logistic": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "softmax": "Softmax",
    "exp": "Exp",
}
_END = np.iinfo(np.int64).max  # of a slice
#: Probabilities as dictionaries, as an array, or as a column for each class; skl2onnx
#: names the first and the last by the classes unless told not to ('nocl').
_CLASSIFIER_OPTIONS = {"zipmap": [True, False, "columns"], "nocl": [True, False]}


def to_onnx(model: Any, X: Any = None, **options: Any) -> Any:
    """The ONNX graph of an estimator, or of a pipeline that has one in it.

    The graph computes in float64 if ``X`` is float64, and in float32 if it is anything
    else, whatever the model was trained in; the erf of 'gelu' in float32 always, as ONNX
    Runtime has no other. A classifier has the outputs ``label`` and
    ``probabilities``, both arrays; a regressor ``variable`` of shape
    (n_samples, n_outputs), of one output too.

    Parameters
    ----------
    model : estimator
        Fitted: an estimator of fastbp's, or anything that skl2onnx can convert with one
        inside, such as a ``Pipeline``.
    X : ndarray or pandas DataFrame of shape (n_samples, n_features), default=None
        Rows from which the dtypes and the number of columns are taken; one is enough.
        The columns of a DataFrame become inputs of their own. May be left out if
        ``options`` has ``initial_types``.
    **options
        For ``skl2onnx.to_onnx``: ``target_opset``, ``initial_types``, ``options`` and
        others. Its ``options`` replace the default, which is that the probabilities are
        an array instead of a list of dictionaries (``zipmap`` is False); ONNX has such
        dictionaries in float32 only.

    Returns
    -------
    onnx.ModelProto
        ``SerializeToString()`` of it is what a file holds and ONNX Runtime loads.

    Raises
    ------
    ImportError
        If skl2onnx is not installed.
    TypeError
        If ``X`` is neither a NumPy array nor a pandas DataFrame, or left out without
        ``initial_types``.
    sklearn.exceptions.NotFittedError
        If an estimator has not been fitted.
    ValueError
        If classes are neither whole numbers nor strings, which ONNX does not have.

    Examples
    --------
    >>> from fastbp import MLPRegressor, to_onnx
    >>> from sklearn.datasets import make_regression
    >>> X, y = make_regression(n_samples=50, n_features=4, random_state=0)
    >>> model = MLPRegressor(tol=1e9, random_state=0).fit(X, y)  # 12 epochs
    >>> [node.op_type for node in to_onnx(model, X).graph.node]
    ['Gemm', 'Relu', 'Gemm', 'Identity']
    """
    try:
        import skl2onnx
    except ImportError as error:
        raise ImportError(
            "to_onnx needs the package skl2onnx: pip install skl2onnx"
        ) from error
    if X is None and "initial_types" not in options:
        raise TypeError("to_onnx needs X, one row of it at least, or initial_types.")
    if not (X is None or isinstance(X, np.ndarray) or hasattr(X, "iloc")):
        kind = f"{type(X).__module__.partition('.')[0]}.{type(X).__name__}"
        raise TypeError(
            f"X must be a NumPy array or a pandas DataFrame, got {kind}. One row of that "
            "kind is enough, such as X[:1].to_pandas() or X[:1].toarray()."
        )
    skl2onnx.update_registered_converter(
        MLPClassifier,
        "FastbpMLPClassifier",
        _classifier_shapes,
        _convert_classifier,
        overwrite=True,
        options=_CLASSIFIER_OPTIONS,
    )
    skl2onnx.update_registered_converter(
        MLPRegressor,
        "FastbpMLPRegressor",
        _regressor_shapes,
        _convert_regressor,
        overwrite=True,
    )
    options.setdefault("options", {MLPClassifier: {"zipmap": False}})
    return skl2onnx.to_onnx(model, X, **options)


def _tensor_type(operator: Any) -> Any:
    """skl2onnx's type of the floating tensors: double if an input is, else float."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    double = any(isinstance(given.type, DoubleTensorType) for given in operator.inputs)
    return DoubleTensorType if double else FloatTensorType


def _is_multilabel(model: Any) -> bool:
    return model._label_binarizer.y_type_.startswith("multilabel")


def _onnx_classes(model: Any) -> np.ndarray:
    """The labels as ONNX has them: int64 or str."""
    classes = model.classes_
    if all(isinstance(label, str) for label in classes.tolist()):
        return classes.astype(str)
    if classes.dtype.kind in "biuf":
        with np.errstate(invalid="ignore"):  # of a float that is too large
            numbers = classes.astype(np.int64)
        if (numbers == classes).all():
            return numbers
    raise ValueError(
        "ONNX has labels that are whole numbers or strings, but classes_ is "
        f"{classes!r}: fit with others."
    )


def _classifier_shapes(operator: Any) -> None:
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    model = operator.raw_operator
    check_is_fitted(model)
    rows = operator.inputs[0].get_first_dimension()
    labels, probabilities = operator.outputs
    if _is_multilabel(model):
        labels.set_type(Int64TensorType([rows, model.n_outputs_]))
    elif _onnx_classes(model).dtype.kind == "U":
        labels.set_type(StringTensorType([rows]))
    else:
        labels.set_type(Int64TensorType([rows]))
    columns = max(model.n_outputs_, 1 if _is_multilabel(model) else 2)
    probabilities.set_type(_tensor_type(operator)([rows, columns]))


def _regressor_shapes(operator: Any) -> None:
    model = operator.raw_operator
    check_is_fitted(model)
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].set_type(_tensor_type(operator)([rows, model.n_outputs_]))


class _Graph:
    """Nodes and constants of one estimator in skl2onnx's container."""

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        from onnx import TensorProto
        from skl2onnx.common.data_types import DoubleTensorType

        self._scope, self._operator, self._container = scope, operator, container
        self._type = _tensor_type(operator)
        double = self._type is DoubleTensorType
        self._element = TensorProto.DOUBLE if double else TensorProto.FLOAT
        self._float, self._int64 = TensorProto.FLOAT, TensorProto.INT64

    def node(
        self, kind: str, inputs: list[str], output: str = "", **attributes: Any
    ) -> str:
        """The name of what a new node computes."""
        output = output or self._scope.get_unique_variable_name(kind.lower())
        name = self._scope.get_unique_operator_name(kind)
        self._container.add_node(kind, inputs, [output], name=name, **attributes)
        return output

    def constant(self, name: str, value: np.ndarray, element: int | None = None) -> str:
        """The name of an array, of the floating type if no other is given."""
        name = self._scope.get_unique_variable_name(name)
        element = self._element if element is None else element
        self._container.add_initializer(name, element, value.shape, value.ravel())
        return name

    def network(self, output: str = "") -> str:
        """The name of the network's outputs, shape (n, n_outputs)."""
        model, inputs = self._operator.raw_operator, self._operator.inputs
        columns = [given.full_name for given in inputs]
        if any(type(given.type) is not self._type for given in inputs):
            columns = [self.node("Cast", [name], to=self._element) for name in columns]
        units = columns[0]
        if len(columns) > 1:
            units = self.node("Concat", columns, axis=1)
        last, hidden = len(model.coefs_) - 1, model.activation
        if isinstance(hidden, str):
            hidden = [hidden] * last
        for i, (W, b) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
            parameters = [self.constant("coefs", W), self.constant("intercepts", b)]
            units = self.node("Gemm", [units, *parameters])
            activation = model.out_activation_ if i == last else hidden[i]
            units = self.activation(activation, units, output if i == last else "")
        return units

    def activation(self, kind: str, z: str, output: str) -> str:
        """The name of f(z); those that ONNX has no operator for in float64 in parts."""
        if kind in _OPERATORS:
            axis = {"axis": 1} if kind == "softmax" else {}
            return self.node(_OPERATORS[kind], [z], output, **axis)
        if kind == "silu":
            return self.node("Mul", [z, self.node("Sigmoid", [z])], output)
        if kind == "mish":
            tanh = self.node("Tanh", [self._softplus(z)])
            return self.node("Mul", [z, tanh], output)
        if kind == "softplus":
            return self._softplus(z, output)
        if kind == "leaky_relu":
            return self.node("Max", [z, self._times(z, 0.01)], output)
        if kind == "gelu":
            erf = self._erf(self._times(z, np.sqrt(0.5)))
            both = self.node("Add", [erf, self._number(1.0)])
            return self.node("Mul", [self._times(z, 0.5), both], output)
        if kind == "cumulative_softplus":
            ends = [
                self.constant("ends", np.array([n]), self._int64) for n in (0, 1, _END)
            ]
            along = self.constant("axis", np.array([1]), self._int64)
            first = self.node("Slice", [z, ends[0], ends[1], along])
            steps = self._softplus(self.node("Slice", [z, ends[1], ends[2], along]))
            both = self.node("Concat", [first, steps], axis=1)
            return self.node("CumSum", [both, along], output)
        scale, alpha = (SELU_SCALE, SELU_ALPHA) if kind == "selu" else (1.0, 1.0)
        exp = self.node("Exp", [self.node("Min", [z, self._number(0.0)])])
        below = self._times(self.node("Sub", [exp, self._number(1.0)]), alpha)
        both = self.node("Add", [self.node("Relu", [z]), below])
        return self._times(both, scale, output)

    def _number(self, value: float) -> str:
        return self.constant("number", np.array([value]))

    def _times(self, z: str, factor: float, output: str = "") -> str:
        return self.node("Mul", [z, self._number(factor)], output)

    def _erf(self, z: str) -> str:
        """In float32: ONNX Runtime has no other."""
        if self._element == self._float:
            return self.node("Erf", [z])
        single = self.node("Cast", [z], to=self._float)
        return self.node("Cast", [self.node("Erf", [single])], to=self._element)

    def _softplus(self, z: str, output: str = "") -> str:
        """log(1 + e^z) = max(z, 0) + log(1 + e^-|z|)"""
        e = self.node("Exp", [self.node("Neg", [self.node("Abs", [z])])])
        rest = self.node("Log", [self.node("Add", [e, self._number(1.0)])])
        return self.node("Add", [self.node("Relu", [z]), rest], output)


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    _Graph(scope, operator, container).network(operator.outputs[0].full_name)


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    from onnx import TensorProto

    model, graph = operator.raw_operator, _Graph(scope, operator, container)
    label, probabilities = (output.full_name for output in operator.outputs)
    if _is_multilabel(model):
        graph.network(probabilities)
        half = graph.constant("half", np.array([0.5]))
        chosen = graph.node("Greater", [probabilities, half])
        graph.node("Cast", [chosen], label, to=TensorProto.INT64)
        return
    if model.n_outputs_ == 1:
        positive = graph.network()
        one = graph.constant("one", np.array([1.0]))
        negative = graph.node("Sub", [one, positive])
        graph.node("Concat", [negative, positive], probabilities, axis=1)
    else:
        graph.network(probabilities)
    classes = _onnx_classes(model)
    if len(classes) == 1:  # whatever its probability is
        classes = np.repeat(classes, 2)
    element = TensorProto.STRING if classes.dtype.kind == "U" else TensorProto.INT64
    number = graph.node("ArgMax", [probabilities], axis=1, keepdims=0)
    graph.node("Gather", [graph.constant("classes", classes, element), number], label)
