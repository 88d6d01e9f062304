"""Callbacks, which scikit-learn has from version 1.9 on."""

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:
        """Stand in for the mixin of later versions: there are no callbacks to set."""


class FitTasks:
    """Tell the callbacks of an estimator about a fit and each of its sweeps.

    Parameters
    ----------
    estimator : estimator
        One that has callbacks, and `max_iter`.
    X, y : array-like
        As `fit` got them, so that a callback can hand them to `score`.
    metadata : dict of str -> array-like or None
        The other arguments of `fit`.
    """

    def __init__(self, estimator, X, y, metadata):
        given = {name: value for name, value in metadata.items() if value is not None}
        self._about = {
            "estimator": estimator,
            "X": X,
            "y": X if y is None else y,  # ScoringMonitor scores nothing without y
            "metadata": given,
        }
        self._fit = estimator._init_callback_context(max_subtasks=estimator.max_iter)
        self._fit.call_on_fit_task_begin(**self._about)
        self._sweep = None

    def advance(self, descent, attributes):
        """End the task of the last sweep and begin that of the next, if there are any.

        Parameters
        ----------
        descent : Descent
            Where it is, before the first sweep or after any.
        attributes : callable () -> dict
            The attributes that the fit would leave if it ended here. Only called when
            a callback asks for the fitted estimator.

        Returns
        -------
        stop : bool
            Whether a callback asks for the fit to end here.
        """
        stop = descent.n_iter > 0 and self._sweep.call_on_fit_task_end(
            **self._about, reconstruction_attributes=attributes
        )
        if not (stop or descent.converged or descent.n_iter == self._fit.max_subtasks):
            self._sweep = self._fit.subcontext(task_name="sweep")
            self._sweep.call_on_fit_task_begin(**self._about)
        return stop

    def end(self):
        """End the task of the fit, now that the estimator is fitted."""
        self._fit.call_on_fit_task_end(**self._about, reconstruction_attributes={})


class PartTasks:
    """Tell of the sweeps of a part in the name of the whole estimator.

    Parameters
    ----------
    tasks : FitTasks
        Those of the whole.
    whole : callable (dict) -> dict
        The attributes of the whole, given those of its part.
    """

    def __init__(self, tasks, whole):
        self._tasks, self._whole = tasks, whole

    def advance(self, descent, attributes):
        """Advance the tasks of the whole; see `FitTasks`."""
        return self._tasks.advance(descent, lambda: self._whole(attributes()))

    def end(self):
        """Leave the end to the whole, which has still to take its part over."""
