"""How a fitted imputer fills in missing values, and how uncertain they are."""

from copy import copy
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples, check_is_fitted

from .._base import BaseMatrixFactorization
from .._data.discrete import to_nearest
from .._data.table_weights import weighted_rows
from .._data.tables import is_frame
from .._data.target import check_target
from .._data.timeline import Timeline
from .._losses import are_squared
from .._parameters import Data
from ._columns import Table, Wanted, with_entries
from ._marginals import WeightedColumns
from ._output import in_container
from ._refusals import no_mask, refusing_mask


class FillingMixin(TransformerMixin):
    """Impute, tell how uncertain that is, and score; a subclass fits."""

    _base: WeightedColumns
    _levels: list | None
    _residual: Any
    random_state: Any
    reg: Any
    sample_posterior: bool
    statistic: str
    time: str | None

    @refusing_mask
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
        """Fit the imputer to X and fill in the missing values of X.

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

    @refusing_mask
    def transform(self, X: Data, *, times: Data = None, groups: Data = None) -> Any:
        """Fill in the missing values of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows seen in `fit` or new ones.
        times, groups : array-like of shape (n_samples,), default=None
            Times and series of the rows. Needed if `fit` had them.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_output_features)
            X without missing values. Observed values are unchanged. The result is a
            data frame if `fit` had columns of categories; a column keeps its type if
            the imputed values fit into it.
        """
        check_is_fitted(self)
        X, timeline = table_in_time(X, self.time, times, groups)
        encoded, missing = self._validate(X, reset=False)
        self._refuse_outside_losses(encoded, missing)
        rng, given = self._rng(), (encoded, missing, timeline, Wanted(self.statistic))
        filled = self._fill(*given, rng)[0]
        expected = self._expected(filled, *given, rng)
        filled = self._decoded(
            X, filled, missing, self._kept, expected=expected, rng=rng
        )
        return self._with_indicator(filled, X, missing)

    @refusing_mask
    def impute(
        self,
        X: Data,
        *,
        return_std: bool = False,
        return_quantiles: Data = None,
        return_proba: bool = False,
        times: Data = None,
        groups: Data = None,
    ) -> Any:
        """Fill in the missing values of X and return how uncertain each one is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows seen in `fit` or new ones.
        return_std : bool, default=False
            Whether to return the standard deviation of each value. Needs
            ``reg="auto"`` and ``sample_posterior=False``.
        return_quantiles : array-like of float of shape (n_quantiles,), default=None
            Probabilities of the quantiles to return, such as ``(0.025, 0.975)`` for the
            ends of 95 % intervals. In skewed columns use them with `marginal`: a mean
            plus or minus a multiple of the standard deviation is wrong there. Needs the
            same as `return_std`.
        return_proba : bool, default=False
            Whether to return the probability of each unordered category.
        times, groups : array-like of shape (n_samples,), default=None
            Times and series of the rows. Needed if `fit` had them.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_output_features)
            The result of `transform`, without the columns of `add_indicator`.
        std : ndarray or DataFrame of shape (n_samples, n_output_features)
            Standard deviation of the true value around the imputed one, in units of X
            and with the noise; 0 where X is observed. Except in skewed columns, the
            imputed value plus or minus 1.96 standard deviations is a 95 % interval,
            even if a column has few values. With times, the fit hides some observed
            values and calibrates the standard deviation on them. It is infinite in a
            column with fewer than two values in `fit`, and zero in a column whose
            values were all equal. In a column of ordered categories the unit is one
            step to the next category. In unordered categories it is NaN. Only with
            ``return_std=True``.
        quantiles : ndarray of shape (n_quantiles, n_samples, n_output_features)
            Quantiles of the true value, in units of X; the value itself where X is
            observed. In a column of ordered categories they are positions, counted from
            0. In unordered categories they are NaN. If ``set_output`` asks for data
            frames, a list with one for each quantile. Only with `return_quantiles`.
        proba : dict of DataFrame of shape (n_samples, n_categories)
            A data frame for each column of unordered categories, by its name. It has
            the probability of each category that occurred in `fit`; 0 or 1 where X is
            observed. Only with ``return_proba=True``.

        Raises
        ------
        ValueError
            If the imputer cannot tell how uncertain its values are: with a number for
            `reg`, or ``sample_posterior=True``.
        """
        check_is_fitted(self)
        probabilities = check_probabilities(return_quantiles)
        asked = return_std or return_quantiles is not None
        if asked and (self.reg != "auto" or self.sample_posterior):
            name = "return_std=True" if return_std else "return_quantiles"
            raise ValueError(
                f"{name} needs a fit with reg='auto' and "
                f"sample_posterior=False; this one had reg={self.reg!r} and "
                f"sample_posterior={self.sample_posterior}."
            )
        X, timeline = table_in_time(X, self.time, times, groups)
        encoded, missing = self._validate(X, reset=False)
        self._refuse_outside_losses(encoded, missing)
        wanted = Wanted(self.statistic, return_std, probabilities)
        rng, kept, given = self._rng(), self._kept, (encoded, missing, timeline, wanted)
        filled, std, quantiles = self._fill(*given, rng)
        expected = self._expected(filled, *given, rng)
        decoded = self._decoded(X, filled, missing, kept, expected=expected, rng=rng)
        results = [in_container(self, decoded, X)]
        if return_std:
            results.append(in_container(self, self._decoded_numbers(std, kept), X))
        if return_quantiles is not None:
            quantiles = self._decoded_numbers(quantiles, kept)
            results.append(in_container(self, quantiles, X))
        if return_proba:
            results.append(self._probabilities(X, expected, kept))
        return tuple(results) if len(results) > 1 else results[0]

    @refusing_mask
    def score(
        self, X: Data, y: Data = None, *, times: Data = None, groups: Data = None
    ) -> float:
        """Return how well held-out entries of X are predicted; 1 is perfect.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, preferably rows that `fit` has not seen.
        y : Ignored
            Not used, present for API consistency by convention.
        times, groups : array-like of shape (n_samples,), default=None
            Times and series of the rows. Needed if `fit` had them.

        Returns
        -------
        score : float
            The share Q² of the variance explained, over the standardized columns: 1 is
            perfect, 0 is no better than column means. See
            :meth:`sklearn_mfgd.MaskedGradientMF.score`.
        """
        check_is_fitted(self)
        check_target(y, X, no_mask(self), stacklevel=5)
        X, timeline = table_in_time(X, self.time, times, groups)
        X, missing = self._validate(X, reset=False)
        self._refuse_outside_losses(X, missing)
        return self.factorization_._score(self._standardized(X, missing), timeline)

    @property
    def factorization_(self) -> BaseMatrixFactorization:
        """The factorization of the standardized columns, or of their normal scores."""
        return self._base.members[0].factorization

    @property
    def rank_(self) -> int:
        """Number of factors that the fit kept.

        It is near the true number if the data are a sum of few factors.
        """
        return self.factorization_.rank_

    @property
    def n_iter_(self) -> int:
        """Number of sweeps."""
        return self.factorization_.n_iter_

    @property
    def marginal_weights_(self) -> np.ndarray | None:
        """Weight of normal scores in each column, 0 to 1, with ``marginal="auto"``."""
        return self._base.weights[1] if len(self._base.members) > 1 else None

    @property
    def residual_weights_(self) -> np.ndarray | None:
        """Weight of the corrections by `residual` in each column, from 0 to 1."""
        return None if self._residual is None else self._residual.weights

    def _fit_links(self, X, sample_weight, entry_weight):
        """Learn the probabilities of unordered categories, given the factorization."""
        X, missing = self._validate(X, reset=False)
        entry_weight = self._encoded_weights(entry_weight, len(X))
        given = weighted_rows(X, missing, sample_weight, entry_weight)
        X, missing, weights, _ = given
        self._learn_links(self._fill_expected, X, missing, weights)

    def _on_sweep(self, tasks, columns, descent, attributes):
        """Tell of a sweep of a factorization in the name of the imputer."""

        def _attributes():
            fitted, imputer = copy(columns.factorization), copy(self)
            fitted.__dict__.update(attributes())
            member = columns._replace(factorization=fitted)
            imputer._base = WeightedColumns([member], np.ones((1, len(self._filled))))
            imputer._residual = None
            # Samples follow the last sweep: until then there are expected values.
            imputer.sample_posterior = False
            return vars(imputer)

        return tasks.advance(descent, _attributes)

    def _rng(self):
        """Return the generator of samples, or None without samples."""
        return check_random_state(self.random_state) if self.sample_posterior else None

    def _expected(self, filled, X, missing, timeline, wanted, rng):
        """Return expected values besides samples, if categories are sampled by them."""
        if rng is None or not self._has_unordered():
            return filled
        return self._fill(X, missing, timeline, wanted, None)[0]

    def _fill_expected(self, X, missing):
        """Fill a copy of X with expected values, whatever `sample_posterior` says."""
        return self._fill(X, missing, None, Wanted(self.statistic), None)[0]

    def _fill(self, X, missing, timeline, wanted, rng):
        """Fill a copy of X, with samples if there is a generator.

        Return deviations and quantiles, too, or None.
        """
        table, rows_and_columns = Table(X, missing, None, timeline), np.nonzero(missing)
        columns = rows_and_columns[1]
        imputed = self._base.impute(table, wanted, self._limits, rng)
        if self._residual is not None:
            imputed = self._residual.correct(X, missing, imputed)
            imputed = imputed.clipped(self._base.ranges(), columns)
        if self._levels is not None:
            imputed = imputed._replace(
                values=to_nearest(imputed.values, columns, self._levels),
                quantiles=to_nearest(imputed.quantiles, columns, self._levels),
            )
        values, std, quantiles = imputed.clipped(self._limits, columns)
        observed = np.where(missing, X.dtype.type(0), X)
        results = [with_entries(observed, rows_and_columns, values), None, None]
        if std is not None:
            results[1] = with_entries(np.zeros_like(X), rows_and_columns, std)
        if wanted.probabilities:
            results[2] = np.stack(
                [with_entries(observed, rows_and_columns, q) for q in quantiles]
            )
        return results


def check_together(imputer):
    """Refuse values of parameters that contradict one another."""
    if imputer.sample_posterior and imputer.reg != "auto":
        raise ValueError(
            "sample_posterior=True draws from what reg='auto' learns; with "
            f"reg={imputer.reg!r} use sample_posterior=False."
        )
    if imputer.marginal != "none" and not are_squared(imputer.loss):
        raise ValueError(
            f"marginal={imputer.marginal!r} makes normal scores of the columns, which "
            f"have squared errors; with loss={imputer.loss!r} use marginal='none'."
        )
    if imputer.marginal != "none" and imputer.reg != "auto":
        raise ValueError(
            f"marginal={imputer.marginal!r} needs reg='auto', which learns how certain "
            f"each value is; with reg={imputer.reg!r} use marginal='none'."
        )
    if imputer.residual is not None and imputer.sample_posterior:
        raise ValueError(
            "sample_posterior=True samples what the factors tell, without a regressor "
            "of what they leave: use residual=None."
        )


def check_probabilities(probabilities) -> tuple:
    """Validate the probabilities of quantiles; none without any."""
    if probabilities is None:
        return ()
    try:
        given = np.asarray(probabilities, dtype=np.float64)
    except (TypeError, ValueError):
        given = np.zeros(0)
    if given.ndim != 1 or not len(given) or not ((given > 0) & (given < 1)).all():
        raise ValueError(
            "return_quantiles must be a sequence of probabilities between 0 and 1, "
            f"such as (0.025, 0.975); got {probabilities!r}."
        )
    return tuple(given)


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
