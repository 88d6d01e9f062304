"""How a fitted factorization of standardized columns fills the missing values of X."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples, check_is_fitted

from .._base import BaseMatrixFactorization
from .._data.tables import is_frame
from .._data.target import check_target
from .._data.timeline import Timeline
from .._kernels.linalg import row_slices
from .._parameters import Data

# Draws of a chain that sampling chooses from, and those before, while it forgets where
# it started.
N_DRAWS, N_BURN_IN = 100, 50

NO_MASK = "pass np.where(mask, X, np.nan) as X, since MFImputer takes neither"


class FillingMixin(TransformerMixin):
    """Impute, tell how uncertain that is, and score; a subclass fits."""

    factorization_: BaseMatrixFactorization
    random_state: Any
    reg: Any
    sample_posterior: bool
    time: str | None

    def fit_transform(
        self,
        X: Data,
        y: Data = None,
        *,
        sample_weight: Data = None,
        entry_weight: Data = None,
        times: Data = None,
        groups: Data = None,
    ) -> Any:
        """Fit to X and impute its missing values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Table with missing values.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, see `fit`.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of each entry, see `fit`.
        times, groups : array-like of shape (n_samples,), default=None
            Times and series of the rows, see `fit`.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_output_features)
            The result of ``fit(X).transform(X)``.
        """
        weights = {"sample_weight": sample_weight, "entry_weight": entry_weight}
        in_time = {"times": times, "groups": groups}
        return self.fit(X, y, **weights, **in_time).transform(X, **in_time)

    def transform(self, X: Data, *, times: Data = None, groups: Data = None) -> Any:
        """Impute the missing values of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows seen in `fit` or new ones.
        times, groups : array-like of shape (n_samples,), default=None
            Times and series of the rows, as in `fit`, and needed if it had times.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_output_features)
            X without missing values. Observed values are unchanged. A data frame if
            `fit` had columns of categories; a column keeps its type if imputed values
            fit into it.
        """
        check_is_fitted(self)
        X, timeline = table_in_time(X, self.time, times, groups)
        given, missing = self._validate(X, reset=False)
        rng = self._rng()
        filled, _ = self._fill(given, missing, timeline, rng)
        expected = self._expected(filled, given, missing, timeline, rng)
        filled = self._decoded(
            X, filled, missing, self._kept, expected=expected, rng=rng
        )
        return self._with_indicator(filled, X, missing)

    def impute(
        self,
        X: Data,
        *,
        return_std: bool = False,
        return_proba: bool = False,
        times: Data = None,
        groups: Data = None,
    ) -> Any:
        """Impute the missing values of X and tell how uncertain each one is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows seen in `fit` or new ones.
        return_std : bool, default=False
            Whether to return standard deviations. Needs ``reg="auto"`` and
            ``sample_posterior=False``.
        return_proba : bool, default=False
            Whether to return the probabilities of unordered categories.
        times, groups : array-like of shape (n_samples,), default=None
            Times and series of the rows, as in `fit`, and needed if it had times.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_output_features)
            The result of `transform`, without the columns of `add_indicator`.
        std : ndarray of shape (n_samples, n_output_features)
            Standard deviation of the true value around the imputed one, noise included;
            0 where X is observed. It is widened so that an interval of 1.96 deviations
            covers 95 % even if the mean and scale of a column are known from few
            values only; with times, such intervals cover 95 % of gaps that the fit made
            on purpose. It is infinite in a column with one value in `fit` or none, and
            zero in a column whose values, two or more, were all equal. In a column of
            ordered categories the unit is one step to the next category; in one of
            unordered categories all are NaN. Only with ``return_std=True``.
        proba : dict of DataFrame of shape (n_samples, n_categories)
            For each column of unordered categories, by its name, the probability of
            each category that occurred in `fit`; 0 and 1 where X is observed. Empty if
            there is no such column. Only with ``return_proba=True``.

        Raises
        ------
        ValueError
            If the fit does not know how uncertain its values are.
        """
        check_is_fitted(self)
        if return_std and (self.reg != "auto" or self.sample_posterior):
            raise ValueError(
                "return_std=True needs a fit with reg='auto' and "
                f"sample_posterior=False; this one had reg={self.reg!r} and "
                f"sample_posterior={self.sample_posterior}."
            )
        X, timeline = table_in_time(X, self.time, times, groups)
        given, missing = self._validate(X, reset=False)
        rng, kept = self._rng(), self._kept
        filled, std = self._fill(given, missing, timeline, rng, return_std=return_std)
        expected = self._expected(filled, given, missing, timeline, rng)
        result = [self._decoded(X, filled, missing, kept, expected=expected, rng=rng)]
        if return_std:
            result.append(self._decoded_std(std, kept))
        if return_proba:
            result.append(self._probabilities(X, expected, kept))
        return tuple(result) if len(result) > 1 else result[0]

    def score(
        self, X: Data, y: Data = None, *, times: Data = None, groups: Data = None
    ) -> float:
        """Predict held-out entries of X and return the share of variance explained.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, preferably rows that `fit` has not seen.
        y : Ignored
            Not used, present for API consistency by convention.
        times, groups : array-like of shape (n_samples,), default=None
            Times and series of the rows, as in `fit`, and needed if it had times.

        Returns
        -------
        score : float
            Q² over the standardized columns, see :meth:`MaskedGradientMF.score`: 1 is
            perfect, 0 no better than column means.
        """
        check_is_fitted(self)
        check_target(y, X, NO_MASK)
        X, timeline = table_in_time(X, self.time, times, groups)
        X, missing = self._validate(X, reset=False)
        return self.factorization_._score(self._standardized(X, missing), timeline)

    @property
    def rank_(self) -> int:
        """Number of factors."""
        return self.factorization_.rank_

    @property
    def n_iter_(self) -> int:
        """Number of sweeps."""
        return self.factorization_.n_iter_

    def _rng(self):
        """Return what samples are drawn by, or None without samples."""
        return check_random_state(self.random_state) if self.sample_posterior else None

    def _expected(self, filled, X, missing, timeline, rng):
        """Return expected values besides samples, if categories are drawn by them."""
        if rng is None or not self._has_unordered():
            return filled
        return self._fill_expected(X, missing, timeline)

    def _fill_expected(self, X, missing, timeline=None):
        """Fill a copy of X with expected values, whatever `sample_posterior` says."""
        return self._fill(X, missing, timeline, None)[0]

    def _fill(self, X, missing, timeline, rng, return_std=False):
        """Fill a copy of X, with samples if there is a generator.

        Return standard deviations, too, or None.
        """
        model, Z = self.factorization_, self._standardized(X, missing)
        if model._model_at(timeline).has_times:
            places = np.nonzero(missing[:, self._standardization.varies])
            limits = limits_at(places[1], self._standardization, self._limits)
            given = model, Z, timeline, places, limits, rng
            predictor = TimePredictor.of(*given, with_std=return_std)
        else:
            # All are sampled given one sample of the columns.
            number = None if rng is None else N_BURN_IN + rng.randint(N_DRAWS)
            predictor = Predictor(model, Z, number, rng)
        return fill_missing(
            X,
            missing,
            self._standardization,
            self._limits,
            predictor,
            with_std=return_std,
        )


class Predictor(NamedTuple):
    """What predicts, or samples, entries of the standardized columns Z."""

    model: BaseMatrixFactorization
    Z: np.ndarray
    number: int | None = None  # of the sample of the posterior to fill with
    rng: np.random.RandomState | None = None

    def __call__(self, rows, places, limits, with_std):
        """Return values, and deviations or None, at places in a slice of the rows."""
        Z = self.Z[rows]
        if self.number is not None:
            sampled = self.model._sample_entries(
                Z, places, self.number, self.rng, limits
            )
            return sampled, None
        if not with_std:
            return self.model.predict_entries(self.model.transform(Z), *places), None
        W, covariance = self.model.transform(Z, return_cov=True)
        return self.model.predict_entries(
            W, *places, covariance=covariance, return_std=True
        )


class TimePredictor:
    """The same for rows in time: all that is missing is predicted at once."""

    def __init__(self, model, values, deviations):
        self.model = model
        self._values, self._deviations, self._n_given = values, deviations, 0

    @classmethod
    def of(cls, model, Z, timeline, places, limits, rng, *, with_std):
        """Predict, or sample if there is a generator, all places in sequence."""
        if rng is None:
            found = model._predict_in_time(Z, timeline, places, with_std)
            return cls(model, *found)
        return cls(model, model._sample_in_time(Z, timeline, places, rng, limits), None)

    def __call__(self, rows, places, limits, with_std):
        """Return the next of the values: row by row, as all that is asked for."""
        of = slice(self._n_given, self._n_given + len(places[0]))
        self._n_given = of.stop
        return self._values[of], self._deviations[of] if with_std else None


def fill_missing(X, missing, standardization, limits, predictor, *, with_std):
    """Return a copy of X with its missing values filled, and their deviations or None.

    `limits` are the least and the largest imputed value of each column. Deviations are
    zero where X is observed.
    """
    filled = np.where(missing, X.dtype.type(0), X)
    std = np.where(missing, X.dtype.type(np.inf), X.dtype.type(0)) if with_std else None
    varies = standardization.varies
    numbers = np.flatnonzero(varies)
    width = predictor.model.rank_ + 1
    for part in row_slices(len(X), len(numbers) + width ** (1 + with_std)):
        rows, columns = np.nonzero(missing[part][:, varies])
        of_X = numbers[columns]
        bounds = [limit[of_X] for limit in limits]
        standardized = limits_at(columns, standardization, limits)
        values, deviations = predictor(part, (rows, columns), standardized, with_std)
        rows = rows + part.start
        filled[rows, of_X] = np.clip(standardization.undo(values, of_X), *bounds)
        if with_std:
            std[rows, of_X] = standardization.widen(deviations, of_X)
    _fill_other_columns(filled, std, missing & ~varies, standardization, limits)
    return filled, std


def limits_at(columns, standardization, limits):
    """Limits of standardized entries of columns that vary, None without any."""
    of_X = np.flatnonzero(standardization.varies)[columns]
    bounds = [limit[of_X] for limit in limits]
    if not np.isfinite(bounds).any():
        return None
    return [standardization.apply_to(bound, of_X) for bound in bounds]


def _fill_other_columns(filled, std, missing, standardization, limits):
    """Fill constant columns with their value, and empty ones with zero, in place."""
    rows, columns = np.nonzero(missing)
    values = standardization.undo(np.zeros(len(columns)), columns)
    values = np.where(standardization.counts[columns] > 0, values, 0)
    filled[rows, columns] = np.clip(values, *(limit[columns] for limit in limits))
    if std is not None:
        std[rows, columns] = standardization.deviations_of_constants()[columns]


def check_limits(min_value, max_value, n_features):
    """Validate limits of imputed values; return the pair, one of each per column."""
    limits = []
    given = ("min_value", min_value, np.inf), ("max_value", max_value, -np.inf)
    for name, value, useless in given:
        limit = np.asarray(value, dtype=np.float64)
        if limit.ndim and limit.shape != (n_features,):
            raise ValueError(
                f"{name} must be a number or have shape ({n_features},), one for each "
                f"feature; got shape {limit.shape}."
            )
        if np.isnan(limit).any():
            raise ValueError(f"{name} must not be NaN.")
        if (limit == useless).any():
            raise ValueError(
                f"{name} leaves no finite value to impute where it is {useless}; "
                f"{-useless} is no limit."
            )
        limits.append(np.broadcast_to(limit, n_features))
    crossed = np.flatnonzero(limits[0] > limits[1])
    if crossed.size:
        j = crossed[0]
        raise ValueError(
            f"min_value must not exceed max_value; in column {j} they are "
            f"{limits[0][j]:g} and {limits[1][j]:g}."
        )
    return limits


def table_in_time(X, time, times, groups):
    """Return X without its column of times, and the `Timeline` of its rows or None."""
    if time is not None:
        if times is not None:
            raise ValueError(
                f"times= and time={time!r} both say when rows were measured; pass one."
            )
        X, times = _taken_out(X, time)
    return X, Timeline.of(times, groups, _num_samples(X))


def is_ordered(timeline, missing):
    """Whether the times of rows with any value order these."""
    return timeline.take(np.flatnonzero(~missing.all(axis=1))).has_order


def _taken_out(X, time):
    """Return a data frame without a column, and the column; or its index."""
    if not (is_frame(X) or hasattr(X, "iloc")):
        raise ValueError(
            f"time={time!r} needs a data frame X; got {type(X).__name__}. Pass times= "
            "to fit and transform instead."
        )
    if time == "index":
        if not hasattr(X, "index"):
            raise ValueError(
                "time='index' needs a data frame with an index; name a column instead."
            )
        return X, X.index
    if time not in list(X.columns):
        raise ValueError(f"time={time!r} is no column of X.")
    others = [name for name in X.columns if name != time]
    if not others:
        raise ValueError(f"X has no column besides that of time={time!r}.")
    return X[others], X[time]
