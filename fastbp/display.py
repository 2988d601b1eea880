"""Plots of fitted estimators in the manner of scikit-learn's displays."""

from typing import Any, Self

from sklearn.pipeline import Pipeline
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils.validation import check_is_fitted


class LossCurveDisplay:
    """Loss of the training rows, and of validation rows if there were some, by epoch.

    Made by :meth:`from_estimator`; all parameters become attributes.

    Parameters
    ----------
    loss_curve : list of float
        Mean training loss of each epoch.
    validation_loss_curve : list of float, default=None
        Mean loss of the validation rows after each epoch.
    validation_scores : list of float, default=None
        Their scores after each epoch.
    estimator_name : str, default=None
        Goes into the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        With the losses.
    score_ax_ : matplotlib Axes or None
        On its right side, with the scores.
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        Training loss, validation loss, validation scores, as far as there are some.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from fastbp import LossCurveDisplay, MLPClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(tol=0.1, random_state=0).fit(X, y)
    >>> display = LossCurveDisplay.from_estimator(model)
    >>> plt.close()
    """

    ax_: Any
    score_ax_: Any
    figure_: Any
    lines_: list[Any]

    def __init__(
        self,
        *,
        loss_curve: list[float],
        validation_loss_curve: list[float] | None = None,
        validation_scores: list[float] | None = None,
        estimator_name: str | None = None,
    ) -> None:
        self.loss_curve = loss_curve
        self.validation_loss_curve = validation_loss_curve
        self.validation_scores = validation_scores
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, ax: Any = None, name: str | None = None, **kwargs: Any
    ) -> Self:
        """Plot the curves of a fitted estimator.

        Parameters
        ----------
        estimator : fastbp.MLPClassifier, fastbp.MLPRegressor or scikit-learn's
            Fitted by a stochastic solver. The last step of a pipeline is
            ``pipeline[-1]``.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        name : str, default=None
            For the legend; None takes the name of the class.
        **kwargs : dict
            Goes to ``matplotlib.axes.Axes.plot`` for the losses.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If it has no loss curve, as ``solver='lbfgs'`` leaves none.
        """
        check_is_fitted(estimator)
        name_of_class = type(estimator).__name__
        if isinstance(estimator, Pipeline):
            raise ValueError(
                f"{name_of_class} has no loss_curve_, but its last step may have: give "
                "pipeline[-1]."
            )
        curve = getattr(estimator, "loss_curve_", None)
        if curve is None or getattr(estimator, "solver", None) == "lbfgs":
            raise ValueError(
                f"This {name_of_class} has no loss_curve_; the stochastic solvers of "
                "multilayer perceptrons leave one, 'lbfgs' does not."
            )
        display = cls(
            loss_curve=curve,
            validation_loss_curve=getattr(estimator, "validation_loss_curve_", None),
            validation_scores=getattr(estimator, "validation_scores_", None),
            estimator_name=name_of_class if name is None else name,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, name: str | None = None, **kwargs: Any) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        name : str, default=None
            For the legend; None takes ``estimator_name``.
        **kwargs : dict
            Goes to ``matplotlib.axes.Axes.plot`` for the losses.

        Returns
        -------
        LossCurveDisplay
        """
        check_matplotlib_support(f"{type(self).__name__}.plot")
        import matplotlib.pyplot as plt

        name = self.estimator_name if name is None else name
        of_name = f" of {name}" if name else ""
        if ax is None:
            _, ax = plt.subplots()
        curves = {"training loss": self.loss_curve}
        if self.validation_loss_curve:
            curves["validation loss"] = self.validation_loss_curve
        self.lines_, last = [], len(self.loss_curve)
        for label, curve in curves.items():
            # validation rows may be of the last of several calls only
            epochs = range(last - len(curve) + 1, last + 1)
            self.lines_ += ax.plot(epochs, curve, label=label + of_name, **kwargs)
        ax.set(xlabel="epoch", ylabel="loss")
        self.ax_, self.figure_, self.score_ax_ = ax, ax.figure, None
        if self.validation_scores:
            self.score_ax_ = ax.twinx()
            epochs = range(last - len(self.validation_scores) + 1, last + 1)
            self.lines_ += self.score_ax_.plot(
                epochs, self.validation_scores, "C2--", label="validation score" + of_name
            )
            self.score_ax_.set_ylabel("score")
        # on top of all lines, where falling losses and rising scores leave room
        (self.score_ax_ or ax).legend(handles=self.lines_, loc="center right")
        return self
