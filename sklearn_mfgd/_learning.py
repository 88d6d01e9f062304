"""How an estimator learns, and how it informs the callbacks of scikit-learn."""

import warnings
from collections import deque
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.validation import _get_feature_names

from ._bayes import fit as bayes_fit
from ._bayes import loss_fit as bayes_loss_fit
from ._data.labels import refuse_other_labels
from ._data.observed import n_observed_of, warn_if_constant
from ._data.prepared import PreparedData
from ._data.target import check_target
from ._data.units import Units
from ._kernels.rows import Biases, Rows
from ._losses import LossMixin
from ._optim import fit as optim_fit
from ._optim.init import given_factors
from ._optim.loss_model import LossModelMixin
from ._optim.parameters import FitParameters, sides_of
from ._parameters import (
    advice_on_rank,
    check_goes_with_times,
    check_parameters_together,
)
from ._state import all_or_nothing

try:  # from version 1.9 on
    from sklearn.callback import CallbackSupportMixin
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stand in for the mixin of later versions: there are no callbacks to set."""


KEYWORDS = "pass it by its name, fit(X, mask=mask) or fit(X, entry_weight=weights)"


class LearningMixin(LossMixin, CallbackSupportMixin):
    """Learn a model of observed entries; a subclass says what is observed."""

    def _validate_params(self):
        try:
            super()._validate_params()
        except InvalidParameterError as error:
            if "The 'rank' parameter" not in str(error):
                raise
            advice = advice_on_rank(self.rank, self.reg == "auto")
            raise InvalidParameterError(f"{error} {advice}") from error

    def _learn(
        self, X, y, mask, entry_weight, timeline=None, *, on_sweep=None, **in_time
    ):
        """Fit, and yield row indices and row factors, block by block.

        An error or Ctrl-C leaves the estimator as it was; so does closing this early.
        ``on_sweep(descent, attributes)`` is called after each sweep; `in_time` is what
        else `fit` was given.
        """
        check_target(y, X, KEYWORDS)
        metadata = {"mask": mask, "entry_weight": entry_weight, **in_time}
        tasks = begin_tasks(self, X, y, **metadata)
        on_sweep = tasks.advance if tasks is not None else on_sweep
        check_parameters_together(self)
        with all_or_nothing(self), self._prepared(X, mask, entry_weight) as data:
            extra = self._in_time(timeline, data)
            if data.losses is not None:
                extra["losses"] = data.losses
            monitor = None
            if self.verbose or on_sweep is not None:
                monitor = partial(self._monitor, on_sweep, data)
            model, descent = self._fit_module.fit(
                data.matrix,
                FitParameters.of(self, init=self._start(data)),
                biases=data.biases,
                units=data.units,
                start=self._warm_start(data),
                rng=check_random_state(self.random_state),
                monitor=monitor,
                **extra,
            )
            self._had_times = timeline is not None
            self._set_fitted(model, descent, data)
            yield from self._row_factors(data)
            if "timeline" in extra:
                self._model = self._model.at(None)
            if tasks is not None:
                tasks.end()
            if not descent.converged and self.tol > 0:
                warnings.warn(
                    f"The fit had not converged to tol={self.tol:g} after "
                    f"{descent.n_iter} sweeps. Increase max_iter, or tol.",
                    ConvergenceWarning,
                    stacklevel=4,
                )

    @contextmanager
    def _prepared(self, X, mask, entry_weight):
        """Validate data, and bring what is observed to the units of the solvers."""
        losses, names = self._losses_of(X), _get_feature_names(X)
        refuse_other_labels(X, mask=mask, entry_weight=entry_weight)
        X = self._validate(X, reset=True)
        observed = self._observe(X, mask, entry_weight)
        if n_observed_of(observed) == 0:
            raise ValueError(
                "There is nothing to fit: every entry of X is missing. A mask is True "
                "where X is observed: ~mask inverts it. An entry_weight of 0 means "
                "missing."
            )
        if isinstance(observed, Rows):
            warn_if_constant(observed.values, X.shape)
        self._note_range(observed)
        if losses is not None:
            yield self._prepared_for(losses, observed, names)
            return
        yield PreparedData.of(observed, self._biases, unit_variance=self.reg == "auto")

    @property
    def _biases(self):
        return Biases(row=self.fit_bias is True, column=self.fit_bias is not False)

    def _in_time(self, timeline, data):
        """The argument for a fit of rows in time, or none."""
        if timeline is None:
            return {}
        if data.occupied.rows is not None:
            timeline = timeline.take(data.occupied.rows)
        if not timeline.has_order:  # rows are exchangeable
            return {}
        check_goes_with_times(self)
        return {"timeline": timeline}

    @property
    def _fit_module(self):
        """The module that fits, with `CURVE` and `curve_in_units` for its objective."""
        if self.reg != "auto":
            return optim_fit
        return bayes_fit if self._is_squared else bayes_loss_fit

    def _monitor(self, on_sweep, data, descent, model):
        """Report a sweep; return whether a callback asks to end the fit."""
        if self.verbose and descent.n_iter:
            loss = self._curve(descent.loss_curve[-1:], data)[0]
            line = f"Sweep {descent.n_iter}: {self._fit_module.CURVE} {loss:.6g}"
            if descent.validation_curve:
                error = data.units.leave(descent.validation_curve[-1])
                line += f", held-out error {error:.6g}"
            print(line)
        return on_sweep is not None and on_sweep(
            descent, lambda: self._attributes_at(model(), descent, data)
        )

    def _attributes_at(self, model, descent, data):
        """Attributes of the estimator if the fit ended here; it stays as it is."""
        ended = copy(self)
        ended._set_fitted(model, descent, data)
        deque(ended._row_factors(data), maxlen=0)
        return vars(ended)

    def _set_fitted(self, model, descent, data):
        """Store the fitted model, and the public attributes in the units of X."""
        occupied, matrix, units = data.occupied, data.matrix, data.units
        self._model = model.over(occupied.numbers())
        self._units, self._centre = units, matrix.mean
        self._intercept = 0.0 if data.losses is None else data.losses.intercept
        means = occupied.spread_columns(matrix.column_means(), matrix.mean)
        self.column_mean_ = units.leave(means).astype(matrix.dtype)
        self.eta_, self.n_iter_ = descent.step, descent.n_iter
        self.loss_curve_ = self._curve(descent.loss_curve, data)
        self.validation_curve_ = None
        if self.early_stopping:
            self.validation_curve_ = [
                units.leave(error) for error in descent.validation_curve
            ]

    def _curve(self, curve, data):
        """The objective or the ELBO after each sweep, of data in their units."""
        n_observed = data.matrix.n_observed
        if self.early_stopping:
            n_observed -= int(self.validation_fraction * n_observed)
        return self._fit_module.curve_in_units(curve, data.units, n_observed)

    def _row_factors(self, data):
        """Yield row indices and row factors; set `reconstruction_err_`."""
        occupied, start, loss = data.occupied, 0, 0.0
        # Restricted to the columns of `data`, none of which is empty.
        for W, block_loss in self._model.over(None).reconstruct(data.matrix):
            rows = slice(start, start + len(W))
            yield occupied.row_numbers(rows), self._in_units_of_X(W)
            start, loss = rows.stop, loss + block_loss
        self.reconstruction_err_ = float(self._units.leave_in_range(np.sqrt(2 * loss)))

    def _start(self, data):
        """The parameter `init`: given factors are checked and in the solvers' units."""
        if isinstance(self.init, str):
            return self.init
        W, H = given_factors(
            self.init,
            data.occupied.shape,
            self.rank,
            data.matrix.dtype,
            data.units.exponent,
            sides_of(self.non_negative),
        )
        return data.occupied.take_rows(W), data.occupied.take_columns(H)

    def _warm_start(self, data):
        """Column factors of the last fit, or None before the first."""
        if not (self.warm_start and self.__sklearn_is_fitted__()):
            return None
        (rank, n), n_features = self.components_.shape, data.occupied.shape[1]
        same_rank = rank == self.rank or (self.reg == "auto" and rank < self.rank)
        if not same_rank or n != n_features or self._model.biases != data.biases:
            raise ValueError(
                "warm_start=True continues a fit with components_ of shape "
                f"{self.components_.shape} and fit_bias of the same kind; got rank="
                f"{self.rank}, {n_features} features and fit_bias={self.fit_bias!r}. "
                "Use warm_start=False to start afresh."
            )
        H = self._model.H.astype(data.matrix.dtype)
        if self.non_negative and (H < 0).any():
            raise ValueError(
                "warm_start=True continues from components_ that have negative values; "
                f"for non_negative={self.non_negative!r} use warm_start=False."
            )
        H = self._units.leave_factors(H, data.biases.column)
        return data.occupied.take_columns(
            data.units.enter_factors(H, data.biases.column)
        )


class FittedMixin:
    """The attributes of a fitted estimator, in units of X, read from its model."""

    _matrix: Any
    _model: Any
    _units: Units
    _centre: float
    _had_times: bool
    _intercept: float
    noise: str

    @property
    def components_(self) -> np.ndarray:
        """Column factors, the transpose of H.

        With `n_draws` those of all samples, divided by `n_draws`.
        """
        return np.ascontiguousarray(self._column_factors()[0].T)

    @property
    def column_bias_(self) -> np.ndarray:
        """Column biases, in the units of X; zeros with ``fit_bias=False``."""
        return self._column_factors()[1]

    @property
    def mean_(self) -> float:
        """Weighted mean of the observed entries; 0.0 with ``fit_bias=False``."""
        return self._units.leave(self._centre) + self._intercept

    @property
    def rank_(self) -> int:
        """Number of factors that the fit kept: `rank`, or fewer with ``reg="auto"``.

        The number that ``reg="auto"`` keeps is near the true number if the data are a
        sum of few factors with many observed entries for each.
        """
        return self._model.rank

    @property
    def noise_variance_(self) -> np.ndarray | float | None:
        """Noise variance in squared units of X, per column or shared.

        It is the variance of an entry of weight one; None unless ``reg="auto"``.
        """
        if self._model.noise_variance is None:
            return None
        variance = self._units.leave_squares(self._model.noise_variance)
        if self.noise != "shared":
            return variance
        is_other = isinstance(self._model, LossModelMixin)
        return float(variance[np.argmax(self._model.has_noise) if is_other else 0])

    @property
    def row_precision_(self) -> np.ndarray | None:
        """How much each row factor is shrunk: the precision of its prior.

        None unless ``reg="auto"``.
        """
        return self._factor_precision(self._model.row_precision)

    @property
    def column_precision_(self) -> np.ndarray | None:
        """How much each column factor is shrunk: the precision of its prior.

        None unless ``reg="auto"``.
        """
        return self._factor_precision(self._model.column_precision)

    @property
    def timescale_(self) -> np.ndarray | None:
        """Time after which the correlation of a factor with itself is down to exp(-1).

        The unit is that of `times`, or seconds for dates. It is 0 for a factor whose
        rows are independent. None unless `fit` had times that order the rows.
        """
        return self._in_time_of("timescales", self.rank_)

    @property
    def seasonality_(self) -> np.ndarray | None:
        """Share of the variance of each factor that the day, week and year explain."""
        return self._in_time_of("seasonal_shares", self.rank_)

    @property
    def residual_timescale_(self) -> np.ndarray | None:
        """Like `timescale_`, of the residuals of each column; 0 if only noise."""
        return self._in_time_of("residual_timescale")

    @property
    def residual_variance_(self) -> np.ndarray | None:
        """Variance of the part of each column's residuals that is not noise."""
        variance = self._in_time_of("residual_variance")
        return None if variance is None else self._units.leave_squares(variance)

    def _in_time_of(self, name, count=None):
        if not self._model.has_times:
            return None
        return getattr(self._model, name)[:count]

    def _factor_precision(self, precision):
        if precision is None:
            return None
        return self._units.leave_precisions(precision[: self.rank_])

    def _column_factors(self):
        """Column factors and biases in the units of X, in the precision of the data."""
        model, dtype = self._model, self.column_mean_.dtype
        H = model.H.astype(dtype, copy=False)
        H = self._units.leave_factors(H, model.biases.column)
        if model.biases.column:
            return H[:, :-1], H[:, -1]
        return H, np.zeros(len(H), dtype)

    def _model_at(self, timeline):
        """The fitted model, for rows at these times if the fit had times."""
        if self._model.has_times:
            if timeline is None:
                raise ValueError(
                    "This fit was given times=, so each of its rows has neighbours. "
                    "Pass the times of these rows, too: times=..."
                )
            return self._model.at(timeline)
        if timeline is not None and not self._had_times:
            raise ValueError(
                "times= was not given to fit: it did not learn how rows change in "
                "time. Fit with times=..., or leave them out here."
            )
        return self._model

    def _sample_entries(self, X, places, number, rng, limits=None):
        """Sample chosen entries of X given the columns of one of the draws."""
        matrix = self._matrix(X, None, None)
        limits = self._limits_in(matrix, limits)
        x = self._model.sample(number, matrix, places, rng, limits)
        return self._units.leave(x + matrix.mean)

    def _sample_in_time(self, X, timeline, places, rng, limits=None):
        """Sample chosen entries of X given all rows of the batch."""
        matrix = self._matrix(X, None, None)
        limits = self._limits_in(matrix, limits)
        x = self._model_at(timeline).sample(matrix, places, rng, limits)
        return self._units.leave(x + matrix.mean)

    def _predict_in_time(self, X, timeline, places, return_std):
        """Predict chosen entries of X with residuals; deviations or None, too."""
        matrix, model = self._matrix(X, None, None), self._model_at(timeline)
        x, variances = model.predict(matrix, *places, with_variances=return_std)
        x = self._units.leave(x + matrix.mean)
        return x, self._units.leave(np.sqrt(variances)) if return_std else None

    def _limits_in(self, matrix, limits):
        """Limits of entries in the units of the model, centred as the matrix is."""
        if limits is None:
            return None
        return [self._units.enter(limit) - matrix.mean for limit in limits]


class FitTasks:
    """Tells the callbacks of an estimator about a fit and each of its sweeps.

    X, y and `metadata`, the other arguments of `fit`, are as `fit` got them, so that a
    callback can hand them to `score`.
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

        ``attributes()`` are those that the fit would leave if it ended here; they are
        only asked for by a callback that wants the fitted estimator. Returns whether a
        callback asks for the fit to end here.
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


def begin_tasks(estimator, X, y, **metadata):
    """Tell callbacks that a fit begins; None without callbacks.

    It has to precede `all_or_nothing`, which after an error would lose the attribute by
    which scikit-learn ends the callbacks.
    """
    if hasattr(estimator, "_skl_callbacks"):
        return FitTasks(estimator, X, y, metadata)
    return None
