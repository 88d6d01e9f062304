"""How an estimator learns, and how it tells the callbacks of scikit-learn about it."""

import warnings
from copy import copy
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from ._bayes import fit as bayes_fit
from ._data.observed import warn_if_constant
from ._data.prepared import PreparedData
from ._data.target import check_target
from ._data.units import in_range, rescale
from ._kernels.rows import Biases, Rows
from ._optim import fit as optim_fit
from ._optim.init import given_factors
from ._optim.parameters import FitParameters
from ._parameters import check_parameters_together

try:  # from version 1.9 on
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stand in for the mixin of later versions: there are no callbacks to set."""


KEYWORDS = "pass it by its name, mask= or entry_weight="


class LearningMixin(CallbackSupportMixin):
    """Learn a model of observed entries; a subclass says what is observed."""

    def _begin(self, X, y, mask, entry_weight):
        """Check y, and tell callbacks of a fit; return what tells them of sweeps.

        Outside of the guard, which would lose what ends the callbacks after an error.
        """
        check_target(y, X, KEYWORDS)
        if hasattr(self, "_skl_callbacks"):
            weights = {"mask": mask, "entry_weight": entry_weight}
            return FitTasks(self, X, y, weights)
        return None

    def _learn(self, X, mask, entry_weight, tasks):
        """Fit, then yield numbers of rows of X and their factors, block by block."""
        check_parameters_together(self)
        X = self._validate(X, reset=True)
        observed = self._observe(X, mask, entry_weight)
        if isinstance(observed, Rows):
            if observed.indices.size == 0:
                raise ValueError(
                    "There is nothing to fit: every entry of X is missing."
                )
            warn_if_constant(observed.values, X.shape)
        biases = Biases(row=self.fit_bias is True, column=self.fit_bias is not False)
        data = PreparedData.of(
            observed, centred=biases.column, unit_variance=self.reg == "auto"
        )
        del observed  # as large as the data
        watched = self.verbose or tasks is not None
        model, descent = self._method.fit(
            data.matrix,
            FitParameters.of(self, init=self._start(data, X)),
            biases=biases,
            exponent=data.exponent,
            start=self._warm_start(data, X, biases),
            rng=check_random_state(self.random_state),
            monitor=partial(self._monitor, tasks, data) if watched else None,
        )
        self._set_fitted(model, descent, data)
        yield from self._reconstruct(data)
        if tasks is not None:
            tasks.end()
        if not descent.converged and self.tol > 0:
            warnings.warn(
                f"The fit had not converged to tol={self.tol:g} after "
                f"{descent.n_iter} sweeps. Increase max_iter, or tol.",
                ConvergenceWarning,
                stacklevel=4,
            )

    @property
    def _method(self):
        """The module that fits, and what it says of its objective."""
        return bayes_fit if self.reg == "auto" else optim_fit

    def _monitor(self, tasks, data, descent, model):
        """Report a sweep; return whether a callback asks for the fit to end there."""
        if self.verbose and descent.n_iter:
            loss = self._curve(descent.loss_curve[-1:], data)[0]
            line = f"Sweep {descent.n_iter}: {self._method.CURVE} {loss:.6g}"
            if descent.validation_curve:
                error = descent.validation_curve[-1] * 4.0**data.exponent
                line += f", held-out error {error:.6g}"
            print(line)
        return tasks is not None and tasks.advance(
            descent, lambda: self._attributes_at(model(), descent, data)
        )

    def _attributes_at(self, model, descent, data):
        """Attributes of the estimator if the fit ended here; it stays as it is."""
        ended = copy(self)
        ended._set_fitted(model, descent, data)
        for _ in ended._reconstruct(data):
            pass
        return vars(ended)

    def _set_fitted(self, model, descent, data):
        """Store the fitted model, and what is told of it in the units of X."""
        occupied, matrix, unit = data.occupied, data.matrix, 4.0**data.exponent
        self._model = model.over(occupied.numbers())
        self._exponent, self._centre = data.exponent, matrix.mean
        means = occupied.spread_columns(matrix.column_means(), matrix.mean)
        self.column_mean_ = (means * unit).astype(matrix.dtype)
        self.eta_, self.n_iter_ = descent.step, descent.n_iter
        self.loss_curve_ = self._curve(descent.loss_curve, data)
        self.validation_curve_ = None
        if self.early_stopping:
            self.validation_curve_ = [e * unit for e in descent.validation_curve]

    def _curve(self, curve, data):
        """The objective or the ELBO after each sweep, of data in their units."""
        n_observed = data.matrix.n_observed
        if self.early_stopping:
            n_observed -= int(self.validation_fraction * n_observed)
        return self._method.curve_in_units(curve, data.exponent, n_observed)

    def _reconstruct(self, data):
        """Yield numbers of rows of X and their factors; set the error."""
        occupied, start, loss = data.occupied, 0, 0.0
        # The model of the columns that `data` has: no others are empty.
        for W, block_loss in self._model.over(None).reconstruct(data.matrix):
            rows = slice(start, start + len(W))
            yield occupied.row_numbers(rows), self._in_units_of_X(W)
            start, loss = rows.stop, loss + block_loss
        self.reconstruction_err_ = float(
            in_range(np.sqrt(2 * loss), 2 * self._exponent)
        )

    def _start(self, data, X):
        """The parameter `init`: given factors are checked and in the solvers' units."""
        if isinstance(self.init, str):
            return self.init
        W, H = given_factors(self.init, X.shape, self.rank, X.dtype, data.exponent)
        return data.occupied.take_rows(W), data.occupied.take_columns(H)

    def _warm_start(self, data, X, biases):
        """Column factors of the last fit, or None before the first."""
        if not (self.warm_start and self.__sklearn_is_fitted__()):
            return None
        rank, n = self.components_.shape
        same_rank = rank == self.rank or (self.reg == "auto" and rank < self.rank)
        if not same_rank or n != X.shape[1] or self._model.biases != biases:
            raise ValueError(
                "warm_start=True continues a fit with components_ of shape "
                f"{self.components_.shape} and fit_bias of the same kind; got rank="
                f"{self.rank}, {X.shape[1]} features and fit_bias={self.fit_bias!r}. "
                "Use warm_start=False to start afresh."
            )
        H = self._model.H.astype(X.dtype)
        change = self._exponent - data.exponent
        return data.occupied.take_columns(rescale(H, biases.column, change))


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
