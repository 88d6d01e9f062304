"""How the objective of a fit falls, or how its ELBO rises."""

from typing import Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._display import BaseDisplay
from ._models import factorization_of

STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^vP"

# Between two markers of a line, in diagonals of its axes.
MARKER_SPACING = 0.12


class LossCurveDisplay(BaseDisplay):
    """Picture of how the objective of one or several fits changes during the fit.

    The horizontal axis counts sweeps, or seconds if you pass them.

    Parameters
    ----------
    curves : dict of str to array-like
        The objective after each sweep, by the name of the fit.
    validation : dict of str to array-like, default=None
        The error of held-out entries after each sweep, for the fits that have it. These
        errors get a panel of their own.
    seconds : dict of str to array-like, default=None
        Time at which each sweep ended, by the name of the fit. By default the picture
        counts sweeps.
    label : str, default="objective"
        Label of the axis of `curves`.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    axes_ : ndarray of matplotlib Axes
        The axes: one, or two with `validation`.
    lines_ : dict of matplotlib Line2D
        The curves, by the name of the fit.
    validation_lines_ : dict of matplotlib Line2D
        The errors of held-out entries, by the name of the fit.

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
    def from_estimator(cls, estimator, *, names=None, seconds=None, ax=None) -> Self:
        """Draw the curves of fitted estimators.

        Parameters
        ----------
        estimator : fitted estimator or list of them
            GradientMF, MaskedGradientMF or MFImputer. All of them have ``reg="auto"``,
            or all have a number for `reg`.
        names : list of str, default=None
            Names of the fits. By default the names of their solvers.
        seconds : list of array-like, default=None
            Seconds at which each sweep ended, for every estimator.
        ax : matplotlib Axes or array of them, default=None
            Where to draw. The errors of held-out entries need a second one.

        Returns
        -------
        display : LossCurveDisplay
            The picture.

        Raises
        ------
        ValueError
            If objective and ELBO would share an axis, or if a name or an array of
            seconds is missing.
        """
        models = estimator if isinstance(estimator, (list, tuple)) else [estimator]
        if not models:
            raise ValueError("There is nothing to draw: estimator is an empty list.")
        for model in models:
            check_is_fitted(model)
        models = [factorization_of(model) for model in models]
        n_learned = sum(model.reg == "auto" for model in models)
        label = "ELBO (nats)" if n_learned else "objective (squared units of X)"
        if 0 < n_learned < len(models):
            raise ValueError(
                "Fits with reg='auto' have an ELBO, those with a number for reg an "
                "objective: draw them on axes of their own."
            )
        if names is None:  # the solvers, numbered where they occur more than once
            names = ["learned" if m.reg == "auto" else m.solver for m in models]
            names = [
                name if names.count(name) == 1 else f"{name} {names[:k].count(name)}"
                for k, name in enumerate(names, 1)
            ]
        for given, what in ((names, "names"), (seconds, "seconds")):
            if given is not None and len(given) != len(models):
                raise ValueError(
                    f"{what} must hold one for each of the {len(models)} fits; got "
                    f"{len(given)}."
                )
        if len(set(names)) < len(names):
            raise ValueError(f"names must differ from each other; got {names}.")
        curves = {name: m.loss_curve_ for name, m in zip(names, models, strict=True)}
        held_out = {
            name: m.validation_curve_
            for name, m in zip(names, models, strict=True)
            if m.validation_curve_ is not None
        }
        if seconds is not None:
            seconds = dict(zip(names, seconds, strict=True))
        options = {"validation": held_out or None, "seconds": seconds, "label": label}
        return cls(curves, **options).plot(ax)

    def _draw(self, ax):
        panels = [(self.curves, self.label)]
        if self.validation:
            panels.append((self.validation, "RMSE of held-out entries (units of X)"))
        width = 4.5 if len(panels) == 1 else 3.7
        self.axes_ = self._open_axes(ax, len(panels), width=width)
        self.lines_, self.validation_lines_ = drawn = {}, {}
        for ax, (curves, label), lines in zip(self.axes_, panels, drawn, strict=False):
            for name, curve in curves.items():
                lines[name] = self._draw_line(ax, name, curve)
            values = np.concatenate([np.asarray(curve) for curve in curves.values()])
            if 0 < 10 * values.min() < values.max():
                ax.set_yscale("log")
            ax.set(xlabel="time (s)" if self.seconds else "sweep", ylabel=label)
            if not self.seconds:
                self._count_in_integers(ax.xaxis)
            if len(curves) > 1:
                ax.legend(frameon=False)
            self._hide_frame(ax)

    def _draw_line(self, ax, name, curve):
        k = list(self.curves).index(name)  # a fit looks the same on both axes
        x = self.seconds[name] if self.seconds else np.arange(1, len(curve) + 1)
        look = {"color": f"C{k}", "linestyle": STYLES[k % len(STYLES)]}
        look |= {"marker": MARKERS[k % len(MARKERS)], "markersize": 4}
        # Along the line as it is drawn, whatever the scale and the part in view.
        # Markers of lines that lie on each other alternate.
        look["markevery"] = MARKER_SPACING * k / len(self.curves), MARKER_SPACING
        return ax.plot(x, curve, label=name, **look)[0]
