"""How the objective of a fit falls, or its evidence rises."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._axes import axes_for, count_in_integers, tidy
from ._models import factorization_of

STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^vP"

# Between two markers of a line, in diagonals of its axes.
APART = 0.12


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
    validation_lines_ : dict of matplotlib Line2D
        Those of the errors of held-out entries, likewise.

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
            When objective and evidence would share an axis, or there is not one name
            and one array of seconds for each fit.
        """
        models = estimator if isinstance(estimator, (list, tuple)) else [estimator]
        if not models:
            raise ValueError("There is nothing to draw: estimator is an empty list.")
        for model in models:
            check_is_fitted(model)
        models = [factorization_of(model) for model in models]
        learned = {model.reg == "auto" for model in models}
        if len(learned) > 1:
            raise ValueError(
                "Fits with reg='auto' have an evidence, those with a number for reg an "
                "objective: draw them on axes of their own."
            )
        if names is None:
            names = _distinct([_name_of(model) for model in models])
        for given, what in ((names, "names"), (seconds, "seconds")):
            if given is not None and len(given) != len(models):
                raise ValueError(
                    f"{what} must hold one for each of the {len(models)} fits; got "
                    f"{len(given)}."
                )
        if len(set(names)) < len(names):
            raise ValueError(f"names must differ from each other; got {names}.")
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
        label = "objective (squared units of X)"
        if learned == {True}:
            label = "log evidence, lower bound (nats)"
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
            groups.append((self.validation, "RMSE of held-out entries (units of X)"))
        width = 4.5 if len(groups) == 1 else 3.7
        self.figure_, self.axes_ = axes_for(ax, len(groups), width=width)
        drawn = []
        for axes, (curves, label) in zip(self.axes_, groups, strict=True):
            drawn.append(self._draw(axes, curves))
            values = np.concatenate([np.asarray(curve) for curve in curves.values()])
            if 0 < 10 * values.min() < values.max():
                axes.set_yscale("log")
            axes.set(xlabel="time (s)" if self.seconds else "sweep", ylabel=label)
            if not self.seconds:
                count_in_integers(axes.xaxis)
            if len(curves) > 1:
                axes.legend(frameon=False)
            tidy(axes)
        self.lines_, self.validation_lines_ = (*drawn, {})[:2]
        return self

    def _draw(self, axes, curves):
        lines = {}
        order = list(self.curves)
        for name, curve in curves.items():
            k = order.index(name)  # a fit looks the same on both axes
            at = np.arange(1, len(curve) + 1)
            if self.seconds:
                at = self.seconds[name]
            (lines[name],) = axes.plot(
                at,
                curve,
                STYLES[k % len(STYLES)],
                color=f"C{k}",
                marker=MARKERS[k % len(MARKERS)],
                # Along the line as it is drawn, whatever the scale and the part in
                # view. Markers of lines that lie on each other alternate.
                markevery=(APART * k / len(order), APART),
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
