"""Where gradients vanish or explode: what a network does with some rows, by layer."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils._optional_dependencies import check_matplotlib_support

from fastbp import lbfgs, network
from fastbp.network import Weights

#: Verdicts: the gradient of the first layer is that much smaller or larger than that of
#: the last, each as a root mean square; units that are dead, values that are saturated;
#: an update that large beside the weights, or that small.
_VANISHING, _EXPLODING, _MANY = 1e-3, 1e3, 0.5
_LARGE_UPDATE, _SMALL_UPDATE = 0.1, 1e-6
#: A value is saturated when it is that near to a bound of its activation's range, 1.
_NEAR = 0.01


class LayerReport(NamedTuple):
    """One layer of weights, and the units that it leads to."""

    #: Those that it leads to.
    units: int
    #: Their activation.
    activation: str
    #: Root mean square of the activations (of the predictions, in the last layer).
    activation_rms: float
    #: Root mean square of the gradient of the weights.
    gradient_rms: float
    #: Root mean square of the weights.
    weight_rms: float
    #: Norm of the optimizer's update, as its moments tell (without look-ahead and weight
    #: decay), over that of the weights; NaN without moments.
    update_ratio: float
    #: Share of the units that are 0 for all rows; 0 but for 'relu'.
    dead: float
    #: Share of the values near a bound; 0 for activations without two bounds.
    saturated: float
    #: Whether the weights do not train: there is no gradient for them then.
    frozen: bool = False


class GradientReport:
    """What :meth:`MLPClassifier.gradient_report` finds; printing it shows a table.

    Attributes
    ----------
    layers : list of LayerReport
        From the first to the output layer.
    loss : float
        Mean loss of the rows, penalty included.
    gradient_norm : float
        Norm of the gradient over all weights and biases that train, which
        ``max_grad_norm`` limits.
    verdict : str
        What is wrong, if something is, and what to try.
    """

    def __init__(
        self, layers: list[LayerReport], loss: float, gradient_norm: float
    ) -> None:
        self.layers, self.loss, self.gradient_norm = layers, loss, gradient_norm
        self.verdict = _verdict([layer for layer in layers if not layer.frozen])

    def __str__(self) -> str:
        """A table, and the verdict."""
        head = "layer  units  activation   activations  gradient   weights    update"
        lines = [head + "     dead  saturated"]
        for number, layer in enumerate(self.layers, 1):
            lines.append(
                f"{number:5d}  {layer.units:5d}  {layer.activation:11s}  "
                f"{layer.activation_rms:11.3g}  {layer.gradient_rms:9.2e}  "
                f"{layer.weight_rms:9.2e}  {layer.update_ratio:9.2e}  "
                f"{layer.dead:4.0%}  {layer.saturated:9.0%}"
            )
        return "\n".join([*lines, self.verdict])

    def plot(self, *, ax: Any = None) -> Any:
        """Draw gradients, weights and activations of the layers.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib Axes
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots()
        numbers = np.arange(1, len(self.layers) + 1)
        for name, style in (
            ("gradient_rms", "o-"),
            ("weight_rms", "s--"),
            ("activation_rms", "^:"),
        ):
            values = [getattr(layer, name) for layer in self.layers]
            ax.semilogy(numbers, values, style, label=name.removesuffix("_rms") + "s")
        ax.set(xlabel="layer", ylabel="root mean square", xticks=numbers)
        ax.set_title(self.verdict.partition(":")[0])
        ax.legend()
        return ax


def _verdict(layers: list[LayerReport]) -> str:
    """The first thing that is wrong, from the worst on."""
    gradients = np.array([layer.gradient_rms for layer in layers])
    figures = np.array([layer[2:5] for layer in layers])
    if not np.isfinite(figures).all():
        return (
            "Exploded: numbers are not finite. Scale the data, lower learning_rate_init, "
            "or set max_grad_norm."
        )
    dead = max(layer.dead for layer in layers)
    saturated = max(layer.saturated for layer in layers)
    updates = np.array([layer.update_ratio for layer in layers])
    if gradients[-1] == 0 and dead < 1:
        return "No gradient: the loss of these rows cannot become smaller."
    if dead > _MANY:
        return (
            f"Dead units: {dead:.0%} of a layer are 0 for all rows. Try "
            "activation='leaky_relu' or 'elu', init='he_normal', or a lower "
            "learning_rate_init."
        )
    if saturated > _MANY:
        return (
            f"Saturated: {saturated:.0%} of a layer's values are near a bound of its "
            "activation. Scale the data, or try activation='relu'."
        )
    ratio = gradients[0] / gradients[-1]
    if ratio < _VANISHING:
        return (
            f"Vanishing gradients: that of the first layer is {ratio:.1e} times that of "
            "the last. Try activation='relu' with init='he_normal', 'selu' with "
            "init='lecun_normal', or fewer layers."
        )
    if ratio > _EXPLODING:
        return (
            f"Exploding gradients: that of the first layer is {ratio:.1e} times that of "
            "the last. Try init='he_normal', max_grad_norm, or fewer layers."
        )
    if np.nanmax(updates, initial=0.0) > _LARGE_UPDATE:
        return (
            f"Large steps: an update moves weights by {np.nanmax(updates):.0%} of their "
            "size. Lower learning_rate_init, or set max_grad_norm or warmup_epochs."
        )
    if np.nanmin(updates, initial=1.0) < _SMALL_UPDATE:
        return (
            f"Small steps: an update moves weights by {np.nanmin(updates):.1e} of their "
            "size. The training has converged, or learning_rate_init is too low."
        )
    return "Healthy: gradients reach all layers, and no layer is dead or saturated."


def report(
    plan: network.Layout,
    weights: Weights,
    activations: list[str],
    optimizer: Any,
    options: Any,
    rows: Any,
) -> GradientReport:
    """The report of a network that stands at ``weights``.

    Parameters
    ----------
    plan : network.Layout
        Without dropout.
    weights : Weights
    activations : list of str
        Of the hidden layers and of the outputs.
    optimizer : training.Optimizer or None
        That of the training; its moments tell of updates.
    options : Parameters
    rows : training.Rows
    """
    objective = lbfgs.Objective(plan, weights, options, rows)
    try:
        _, flat = objective(objective.start())
        loss = objective.mean_loss
    finally:
        objective.dismiss()
    gradients = network.unpack(plan, flat.astype(plan.dtype))
    norm = float(np.sqrt(sum((g.astype(float) ** 2).sum() for a in gradients for g in a)))
    updates = _updates(optimizer, weights)
    layers = []
    for layer, W in enumerate(weights.coefs):
        values = _activations(weights, activations, layer, plan, rows.X, options.n_jobs)
        dead, saturated = _dead_and_saturated(activations[layer], values)
        if layer == len(weights.coefs) - 1:
            dead = saturated = 0.0  # sure predictions are no fault
        layers.append(
            LayerReport(
                W.shape[1],
                activations[layer],
                _rms(values),
                _rms(gradients[0][layer]) if layer >= plan.frozen else np.nan,
                _rms(W),
                updates[layer] / _rms(W) if layer >= plan.frozen and W.any() else np.nan,
                dead,
                saturated,
                layer < plan.frozen,
            )
        )
    return GradientReport(layers, loss, norm)


def _rms(array: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))


def _activations(weights, activations, layer, plan, X, n_jobs) -> np.ndarray:
    """The values of the units behind a layer, from the kernels themselves.

    Those of hidden units are the outputs of a network that ends with them and the unit
    matrix.
    """
    coefs, intercepts = list(weights.coefs), list(weights.intercepts)
    output = activations[-1]
    if layer < len(coefs) - 1:
        n = len(intercepts[layer])
        coefs = [*coefs[: layer + 1], np.eye(n, dtype=plan.dtype)]
        intercepts = [*intercepts[: layer + 1], np.zeros(n, plan.dtype)]
        output = "identity"
    units = (coefs[0].shape[0], *(len(b) for b in intercepts))
    short = network.layout(
        units,
        tuple(activations[: len(coefs) - 1]),
        network.loss_of(output),
        plan.dtype,
        sparse=plan.sparse,
    )
    return network.predict(short, coefs, intercepts, X, n_jobs)[0]


def _dead_and_saturated(activation: str, values: np.ndarray) -> tuple[float, float]:
    if activation == "relu":
        return float((values == 0).all(axis=0).mean()), 0.0
    if activation == "tanh":
        values = (values + 1) / 2
    elif activation != "logistic":
        return 0.0, 0.0
    return 0.0, float(((values < _NEAR) | (values > 1 - _NEAR)).mean())


def _updates(optimizer: Any, weights: Weights) -> list[float]:
    """Root mean squares of the last updates of the layers' weights; NaN without any."""
    if optimizer is None or not optimizer.moments:
        return [np.nan] * len(weights.coefs)
    m = optimizer.moments[0].coefs
    if optimizer.solver == "sgd":
        return [_rms(velocity) for velocity in m]
    t, rate = optimizer.updates, optimizer.last_rate
    if optimizer.solver == "rmsprop":  # it keeps no gradient, but the size of one
        mean = 1 - optimizer.beta_2**t
        m = [np.sqrt(squares / mean) for squares in optimizer.moments[1].coefs]
    else:
        rate *= np.sqrt(1 - optimizer.beta_2**t) / (1 - optimizer.beta_1**t)
    return [
        rate * _rms(a / (np.sqrt(b) + optimizer.epsilon))
        for a, b in zip(m, optimizer.moments[1].coefs, strict=True)
    ]
