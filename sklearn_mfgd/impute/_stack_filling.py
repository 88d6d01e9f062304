"""How a fitted stack fills in missing values from those of its members."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from .._data.standardize import Standardization
from .._data.target import check_target
from .._optim.score import explained_share
from .._parameters import Data
from ._columns import Imputed, normal_quantiles, with_entries
from ._filling import check_probabilities
from ._output import in_container
from ._refusals import no_mask, refusing_mask
from ._stack_fit import predict
from ._stack_spread import (
    all_deviations,
    combined,
    mean_deviations,
    quantiles_around,
)

# Folds of the entries of a row, for the score.
N_FOLDS = 5


class StackFillingMixin(TransformerMixin):
    """Impute, tell how uncertain that is, and score; a subclass fits."""

    imputers_: list
    weights_: np.ndarray
    _limits: list
    _names: list[str]
    _residual: Any
    _standardization: Standardization  # of the columns with values in `fit`
    _widening: np.ndarray  # factors of deviations of every column of X

    def __sklearn_is_fitted__(self):
        return hasattr(self, "imputers_")

    @property
    def named_imputers_(self) -> Bunch:
        """The fitted imputers by name."""
        return Bunch(**dict(zip(self._names, self.imputers_, strict=True)))

    @refusing_mask
    def transform(self, X: Data) -> Any:
        """Fill in the missing values of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows seen in `fit` or new ones.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_output_features)
            X without missing values. Observed values are unchanged. The result is a
            data frame if `fit` had columns of categories; a column keeps its type if
            the imputed values fit into it.
        """
        check_is_fitted(self)
        encoded, missing = self._validate(X, reset=False)
        filled = self._fill(encoded, missing)[0]
        filled = self._decoded(X, filled, missing, self._kept)
        return self._with_indicator(filled, X, missing)

    @refusing_mask
    def impute(
        self,
        X: Data,
        *,
        return_std: bool = False,
        return_quantiles: Sequence[float] | None = None,
        return_proba: bool = False,
    ) -> Any:
        """Fill in the missing values of X and return how uncertain each one is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows seen in `fit` or new ones.
        return_std : bool, default=False
            Whether to return the standard deviation of each value.
        return_quantiles : sequence of float, default=None
            Probabilities of the quantiles to return, such as ``(0.025, 0.975)`` for the
            ends of 95 % intervals.
        return_proba : bool, default=False
            Whether to return the probability of each unordered category.

        Returns
        -------
        X : ndarray or DataFrame of shape (n_samples, n_output_features)
            The result of `transform`, without the columns of `add_indicator`.
        std : ndarray or DataFrame of shape (n_samples, n_output_features)
            Standard deviation of the true value around the imputed one, in units of X;
            0 where X is observed. It is the weighted mean of the standard deviations of
            the imputers that have ``impute(X, return_std=True)``. Without such an
            imputer, all values of a column have the same standard deviation. Each
            column's standard deviations are then multiplied by a number, so that they
            agree with the errors at hidden entries. It is infinite in a column with
            fewer than two values in `fit`, and zero in a column whose values were all
            equal. In a column of ordered categories the unit is one step to the next
            category. In unordered categories it is NaN. Only with ``return_std=True``.
        quantiles : ndarray of shape (n_quantiles, n_samples, n_output_features)
            Quantiles of the true value, in units of X; the value itself where X is
            observed. They are weighted means of the quantiles of the imputers that have
            ``impute(X, return_std=True, return_quantiles=...)``, centred at the imputed
            value and widened as the standard deviation is. Without such an imputer they
            are those of a normal distribution. In a column of ordered categories they
            are positions, counted from 0. In unordered categories they are NaN. If
            ``set_output`` asks for data frames, a list with one for each quantile. Only
            with `return_quantiles`.
        proba : dict of DataFrame of shape (n_samples, n_categories)
            A data frame for each column of unordered categories, by its name. It has
            the probability of each category that occurred in `fit`; 0 or 1 where X is
            observed. Only with ``return_proba=True``.
        """
        check_is_fitted(self)
        probabilities = None
        if return_quantiles is not None:
            probabilities = np.array(check_probabilities(return_quantiles))
        encoded, missing = self._validate(X, reset=False)
        with_spread = return_std or probabilities is not None
        found = self._fill(
            encoded, missing, with_spread=with_spread, probabilities=probabilities
        )
        filled, std, quantiles = found
        kept = self._kept
        result = [in_container(self, self._decoded(X, filled, missing, kept), X)]
        if return_std:
            result.append(in_container(self, self._decoded_numbers(std, kept), X))
        if probabilities is not None:
            quantiles = self._decoded_numbers(quantiles, kept)
            result.append(in_container(self, quantiles, X))
        if return_proba:
            result.append(self._probabilities(X, filled, kept))
        return tuple(result) if len(result) > 1 else result[0]

    @refusing_mask
    def score(self, X: Data, y: Data = None) -> float:
        """Return how well held-out entries of X are predicted; 1 is perfect.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, preferably rows that `fit` has not seen.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        score : float
            The share Q² of the variance explained, over the standardized columns: 1 is
            perfect, 0 is no better than column means. Categories count as the columns
            of numbers that encode them. See
            :meth:`sklearn_mfgd.MaskedGradientMF.score`.
        """
        check_is_fitted(self)
        check_target(y, X, no_mask(self), stacklevel=5)
        X, missing = self._validate(X, reset=False)
        if missing.all():
            raise ValueError("There is nothing to score: every entry of X is missing.")
        numbers = np.flatnonzero(self._filled)[self._standardization.varies]
        scored = np.zeros_like(missing)
        scored[:, numbers] = ~missing[:, numbers]
        # All columns that a column of X is encoded as are hidden together.
        fold_of_entry = (np.cumsum(self._of_columns(scored), axis=1) - 1) % N_FOLDS
        fold_of_entry = fold_of_entry[:, self._features(len(self._filled))]
        press = 0.0
        for fold in range(N_FOLDS):
            hidden = scored & (fold_of_entry == fold)
            if hidden.any():
                filled = self._fill(X, missing | hidden)[0]
                truth = self._standardized_at(X, hidden)
                errors = self._standardized_at(filled, hidden) - truth
                press += float(np.square(errors).sum())
        total = float(np.square(self._standardized_at(X, scored)).sum())
        return explained_share(press, total)

    def _standardized_at(self, X: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Standardize the chosen entries of X, float64."""
        numbers = np.nonzero(chosen)[1]
        numbers = (np.cumsum(self._filled) - 1)[numbers]
        return self._standardization.apply_to(X[chosen].astype(np.float64), numbers)

    def _for_members(self, X: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Return the columns that members see, with NaN where values are missing."""
        X = np.where(missing, X.dtype.type(np.nan), X)
        # In the order in memory of X, as sums depend on it in the last digits.
        return X if self._filled.all() else np.ascontiguousarray(X[:, self._filled])

    def _fill(self, X, missing, *, with_spread=False, probabilities=None):
        """Return X with missing values filled, and deviations and quantiles or None."""
        places = np.nonzero(missing)
        values, std = np.zeros(len(places[0])), np.full(len(places[0]), np.inf)
        wanted = np.empty(0) if probabilities is None else probabilities
        quantiles = normal_quantiles(values, std, wanted)
        known = self._filled[places[1]]
        if known.any():
            found = self._predict(X, missing, with_spread, probabilities)
            values[known], std[known] = found.values, found.std
            quantiles[:, known] = found.quantiles
        limits = [limit[places[1]] for limit in self._limits]
        filled = with_entries(X, missing, np.clip(values, *limits))
        if with_spread:
            std = with_entries(np.zeros_like(X), missing, std)
        each = [with_entries(X, missing, np.clip(q, *limits)) for q in quantiles]
        return filled, std, np.stack(each) if each else None

    def _predict(self, X, missing, with_spread, probabilities) -> Imputed:
        """Predict the missing entries of the columns with values in `fit`."""
        X = self._for_members(X, missing)
        missing = missing[:, self._filled]
        rows, columns = np.nonzero(missing)
        numbers = np.flatnonzero(self._filled)[columns]
        features = self._features(len(self._filled))[numbers]
        limits = [limit[numbers] for limit in self._limits]
        options = {"return_std": with_spread, "probabilities": probabilities}
        predicted = []
        for name, imputer in zip(self._names, self.imputers_, strict=True):
            member = predict(name, imputer, X, (rows, columns), **options)
            values = np.clip(member.values, *limits)
            predicted.append(member._replace(values=values))
        weights = self.weights_[:, features]
        values = combined(predicted, weights)
        std, quantiles = np.full(len(values), np.nan), np.empty((0, len(values)))
        if with_spread:
            unit = self._standardization.scale[columns]
            std = mean_deviations(all_deviations(predicted, unit), weights)
            std *= unit * self._widening[features]
            constant = self._standardization.constant[columns]
            of_constants = self._standardization.deviations_of_constants()[columns]
            std[constant] = of_constants[constant]
        if probabilities is not None:
            quantiles = quantiles_around(values, std, probabilities, predicted, weights)
            normal = normal_quantiles(values, std, probabilities)
            quantiles = np.where(constant, normal, quantiles)
        imputed = Imputed(values, std, quantiles)
        if self._residual is None:
            return imputed
        return self._residual.correct(X, missing, imputed)
