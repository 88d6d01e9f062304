"""How the objective of a fit falls, or its evidence rises."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._axes import axes_for, tidy

STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^vP"


class LossCurveDisplay:
    """Objective of one or several fits by sweep, or by second.

    Parameters
    ----------
    curves : dict of str to array-like
        The objective after each sweep, by the name of the fit.
    validation : dict of str to array-like, default=None
        The error of held-out entries after each sweep, of the fits that have it. They
        are drawn on axes of their own.
    seconds : dict of str to array-like, default=None
        When each sweep ended. By default curves are drawn by sweep.
    label : str, default="objective"
        What `curves` show.

    Attributes
    ----------
    figure_ : matplotlib Figure
        What was drawn on.
    axes_ : ndarray of matplotlib Axes
        One, or two with `validation`.
    lines_ : dict of matplotlib Line2D
        The curves, by the name of the fit.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mfgd import GradientMF
    >>> from sklearn_mfgd.plotting import LossCurveDisplay
    >>> X = np.random.default_rng(0).normal(size=(30, 20))
    >>> fits = [
    ...     GradientMF(3, solver=name, tol=0.01).fit(X) for name in ("gd", "scaled")
    ... ]
    >>> display = LossCurveDisplay.from_estimator(fits)
    >>> list(display.lines_)
    ['gd', 'scaled']
    """

    def __init__(self, curves, *, validation=None, seconds=None, label="objective"):
        self.curves = curves
        self.validation = validation
        self.seconds = seconds
        self.label = label

    @classmethod
    def from_estimator(cls, estimator, *, names=None, seconds=None, ax=None):
        """Draw the curves of fitted estimators.

        Parameters
        ----------
        estimator : fitted estimator or list of them
            With `loss_curve_`, or an imputer that holds one.
        names : list of str, default=None
            What to call them; by default their solvers.
        seconds : list of array-like, default=None
            When each sweep ended, for every estimator.
        ax : matplotlib Axes or array of them, default=None
            Where to draw; a second one takes the errors of held-out entries.

        Returns
        -------
        display : LossCurveDisplay
            The picture.

        Raises
        ------
        ValueError
            When objective and evidence would share an axis.
        """
        models = estimator if isinstance(estimator, (list, tuple)) else [estimator]
        for model in models:
            check_is_fitted(model)
        models = [getattr(model, "factorization_", model) for model in models]
        learned = {model.reg == "auto" for model in models}
        if len(learned) > 1:
            raise ValueError(
                "Fits with reg='auto' have an evidence, those with a number for reg an "
                "objective: draw them on axes of their own."
            )
        if names is None:
            names = _distinct([_name_of(model) for model in models])
        curves = {
            name: model.loss_curve_ for name, model in zip(names, models, strict=True)
        }
        validation = {
            name: model.validation_curve_
            for name, model in zip(names, models, strict=True)
            if model.validation_curve_ is not None
        }
        if seconds is not None:
            seconds = dict(zip(names, seconds, strict=True))
        label = "evidence (lower bound)" if learned == {True} else "objective"
        display = cls(
            curves, validation=validation or None, seconds=seconds, label=label
        )
        return display.plot(ax)

    def plot(self, ax=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes or array of them, default=None
            Where to draw; a second one takes the errors of held-out entries.

        Returns
        -------
        display : LossCurveDisplay
            The picture.
        """
        groups = [(self.curves, self.label)]
        if self.validation:
            groups.append((self.validation, "RMSE of held-out entries"))
        self.figure_, self.axes_ = axes_for(ax, len(groups))
        self.lines_ = {}
        for axes, (curves, label) in zip(self.axes_, groups, strict=True):
            lines = self._draw(axes, curves)
            self.lines_ = self.lines_ or lines
            values = np.concatenate([np.asarray(curve) for curve in curves.values()])
            if 0 < 10 * values.min() < values.max():
                axes.set_yscale("log")
            axes.set(xlabel="second" if self.seconds else "sweep", ylabel=label)
            if len(curves) > 1:
                axes.legend(frameon=False)
            tidy(axes)
        return self

    def _draw(self, axes, curves):
        lines = {}
        for k, (name, curve) in enumerate(curves.items()):
            at = np.arange(1, len(curve) + 1)
            if self.seconds:
                at = self.seconds[name]
            (lines[name],) = axes.plot(
                at,
                curve,
                STYLES[k % len(STYLES)],
                marker=MARKERS[k % len(MARKERS)],
                markevery=max(1, len(curve) // 8),
                markersize=4,
                label=name,
            )
        return lines


def _name_of(model):
    return "learned" if model.reg == "auto" else model.solver


def _distinct(names):
    """Number the names that occur more than once."""
    return [
        name if names.count(name) == 1 else f"{name} {names[: k + 1].count(name)}"
        for k, name in enumerate(names)
    ]
