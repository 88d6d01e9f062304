"""The methods that both estimators share: fit, fold in, reconstruct and score."""

from collections import deque
from contextlib import closing
from typing import Any, Self

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils.validation import _num_samples, check_is_fitted

from ._bayes.moments import unpack
from ._data.labels import refuse_other_labels
from ._data.matrix import matrix_of
from ._data.observed import SPARSE_FORMATS, check_sparse, observe
from ._data.tables import check_table, note_features
from ._data.target import check_target
from ._data.timeline import Timeline
from ._kernels.dispatch import entry_products
from ._kernels.linalg import row_slices
from ._learning import KEYWORDS, FittedMixin, LearningMixin
from ._online import OnlineMixin
from ._optim.score import explained_share, score_sums
from ._parameters import (
    CONSTRAINTS,
    Data,
    check_covariance,
    check_places,
    check_row_factors,
    refuse_overflow,
)
from ._recommending import RecommendingMixin
from ._state import PlainStateMixin


class BaseMatrixFactorization(
    LearningMixin,
    OnlineMixin,
    RecommendingMixin,
    FittedMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    PlainStateMixin,
    BaseEstimator,
):
    """Fit, fold in, reconstruct and score; a subclass holds parameters and defaults."""

    _unstored_is_zero = False
    _parameter_constraints: dict = CONSTRAINTS

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Data,
        y: Data = None,
        *,
        mask: Data = None,
        entry_weight: Data = None,
        times: Data = None,
        groups: Data = None,
    ) -> Self:
        """Learn the factors from the observed entries of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The matrix. NaN and masked entries of a masked array are missing. Entries
            that a sparse X does not store are missing in MaskedGradientMF and observed
            zeros in GradientMF.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed. NaN is missing even where the mask is True.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of the error of each entry; 0 means missing. If X is sparse, the
            weights are sparse with the same entries stored.
        times : array-like of shape (n_samples,), default=None
            Time of each row: numbers or dates (datetime64). Rows that are near in time
            then inform one another. Needs ``reg="auto"``, see :ref:`rows_in_time`.
        groups : array-like of shape (n_samples,), default=None
            Label of the series that each row belongs to, if there are several. Rows of
            different series do not inform one another.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            If no entry is observed, if a parameter does not suit the data, or if y is
            a mask.
        DivergenceError
            If a fixed `eta` makes the objective grow.
        """
        timeline = Timeline.of(times, groups, _num_samples(X))
        in_time = {"times": times, "groups": groups}
        # Row factors are not kept.
        deque(self._learn(X, y, mask, entry_weight, timeline, **in_time), maxlen=0)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(
        self,
        X: Data,
        y: Data = None,
        *,
        mask: Data = None,
        entry_weight: Data = None,
        times: Data = None,
        groups: Data = None,
    ) -> np.ndarray:
        """Learn the factors from X and return those of its rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The matrix. NaN and masked entries of a masked array are missing. Entries
            that a sparse X does not store are missing in MaskedGradientMF and observed
            zeros in GradientMF.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed. NaN is missing even where the mask is True.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of the error of each entry; 0 means missing. If X is sparse, the
            weights are sparse with the same entries stored.
        times, groups : array-like of shape (n_samples,), default=None
            Times and series of the rows. Needed if `fit` had them.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_factors) or (n_samples, n_factors + 1)
            Row factors, the same as ``fit(X).transform(X)``: one column for each row of
            `components_`. With ``fit_bias=True`` the last column is the row bias.
        """
        Z: Any = None
        in_time = {"times": times, "groups": groups}
        timeline = Timeline.of(times, groups, _num_samples(X))
        if timeline is not None:  # rows without entries have neighbours, too
            self.fit(X, y, mask=mask, entry_weight=entry_weight, **in_time)
            return self._fold_in(X, mask, entry_weight, timeline)
        with closing(self._learn(X, y, mask, entry_weight)) as blocks:
            for rows, W in blocks:
                if Z is None:  # zeros are for rows without entries
                    Z = np.zeros((_num_samples(X), W.shape[1]), W.dtype)
                Z[rows] = W
        return Z

    def transform(
        self,
        X: Data,
        *,
        mask: Data = None,
        entry_weight: Data = None,
        times: Data = None,
        groups: Data = None,
        return_cov: bool = False,
    ) -> Any:
        r"""Find the factors of new rows, or of those of `fit`, given `components_`.

        This is called fold-in. Each row is treated by itself, so neither the other rows
        nor their order matter, unless `fit` had times.

        With ``reg="auto"`` the factors are posterior means. With a number they minimize

        .. math::

            \tfrac12 \sum_{j \text{ observed}} s_j (x_j - \mu - c_j - b
            - w \cdot h_j)^2 \\
            + \tfrac12 \, \mathrm{reg} \, (\|w\|^2 + b^2)

        where s are the weights of the entries. Other losses take the place of the
        square. If several minima exist, the one of least norm is taken. A row without
        observed entries gets zeros.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows seen in `fit` or new ones. NaN means missing.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed. NaN is missing even where the mask is True.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of the error of each entry; 0 means missing. If X is sparse, the
            weights are sparse with the same entries stored.
        times, groups : array-like of shape (n_samples,), default=None
            Times and series of the rows. Needed if `fit` had them.
        return_cov : bool, default=False
            Whether to also return the covariances of the factors. Only with
            ``reg="auto"``.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_factors) or (n_samples, n_factors + 1)
            Row factors, one column for each row of `components_`. With
            ``fit_bias=True`` the last column is the row bias.
        covariance : ndarray of shape (n_samples, Z.shape[1], Z.shape[1])
            How uncertain each row of Z is: its posterior covariance. Its type is
            float64 if the squares of X are too large for float32. Only with
            ``return_cov=True``.
        """
        check_is_fitted(self)
        if return_cov:
            self._check_variances("return_cov=True")
            self._check_squares()
        timeline = Timeline.of(times, groups, _num_samples(X))
        if not return_cov:
            return self._fold_in(X, mask, entry_weight, timeline)
        matrix, model = self._matrix(X, mask, entry_weight), self._model_at(timeline)
        W, packed = model.row_posteriors(matrix, with_covariances=True)
        unit = self._unit_of_factors()
        units = np.outer(unit, unit)
        dtype = W.dtype  # or double precision, where squares have no place in single
        if packed.size and units.max() > np.finfo(dtype).max / max(1, packed.max()):
            dtype = np.float64
        covariance = np.empty((len(W), *units.shape), dtype)
        for rows in row_slices(len(W), units.size):
            covariance[rows] = units * unpack(packed[rows], len(unit))
        return self._in_units_of_X(W), covariance

    def inverse_transform(self, Z: Data) -> np.ndarray:
        """Predict every entry of the rows: ``mean + biases + W @ components_``.

        Predictions are on the scale of X. With ``loss="logistic"`` they are the
        probabilities of a 1, with "poisson" expected counts.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_factors) or (n_samples, n_factors + 1)
            Row factors as `transform` returns them.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The predictions, without missing values.
        """
        check_is_fitted(self)
        Z = check_row_factors(Z, self._n_features_out)
        X = self._reconstruct(Z, *self._column_terms(Z.dtype))
        return self._in_range(self._responses(X))

    def predict_entries(
        self,
        Z: Data,
        rows: Data,
        columns: Data,
        *,
        covariance: Data = None,
        return_std: bool = False,
    ) -> Any:
        """Predict some entries, without computing the others.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_factors) or (n_samples, n_factors + 1)
            Row factors as `transform` returns them.
        rows, columns : array-like of int of shape (n_entries,)
            Row and column of each entry, counted from 0. The result is the same as
            ``inverse_transform(Z)[rows, columns]``.
        covariance : array-like of shape (n_samples, Z.shape[1], Z.shape[1])
            The covariances that ``transform(X, return_cov=True)`` returns with Z.
            Needed for `return_std`. With them, probabilities and expected counts are
            averaged over the uncertain factors.
        return_std : bool, default=False
            Whether to also return how uncertain each prediction is.

        Returns
        -------
        x : ndarray of shape (n_entries,)
            The predictions, in the units of X.
        std : ndarray of shape (n_entries,)
            Standard deviation of an observation of each entry around its prediction, in
            the units of X. It includes the noise and the uncertainty of row and column
            factors. If rows have scales of their own (see `fit_bias`), the noise is
            that of an average row. With ``loss="student_t"``, 1.96 standard deviations
            are half of a 95 % interval. Only with ``return_std=True``.
        """
        check_is_fitted(self)
        Z = check_row_factors(Z, self._n_features_out)
        rows, columns = check_places(rows, columns, (len(Z), self.n_features_in_))
        H, offset = self._column_terms(Z.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            x = entry_products(Z[:, : H.shape[1]], H, rows, columns)
            x += offset[columns]
            if self._model.biases.row:
                x += Z[rows, -1]
        posterior: Any = None
        if return_std:
            self._check_variances("return_std=True")
        if return_std or (covariance is not None and self._model.has_variances):
            covariance, unit = check_covariance(covariance, Z), self._unit_of_factors()
            posterior = Z / unit, covariance / np.outer(unit, unit), rows, columns
        x = self._in_range(refuse_overflow(self._responses_at(columns, x, posterior)))
        if not return_std:
            return x
        variances = self._model.variances(*posterior)
        deviations = self._units.leave(np.sqrt(variances))
        return x, deviations.astype(Z.dtype, copy=False)

    def _fold_in(self, X, mask, entry_weight, timeline):
        """Row factors in units of X."""
        matrix = self._matrix(X, mask, entry_weight)
        return self._in_units_of_X(self._model_at(timeline).fold_in(matrix))

    def score(
        self,
        X: Data,
        y: Data = None,
        *,
        mask: Data = None,
        entry_weight: Data = None,
        times: Data = None,
        groups: Data = None,
    ) -> float:
        r"""Return how well held-out entries of X are predicted; 1 is perfect.

        The entries of each row are divided into five folds: the k-th observed entry
        belongs to fold k mod 5. Each fold is predicted from the other four. The score

        .. math::

            Q^2 = 1 - \frac{\sum (x_{ij} - \hat x_{ij})^2}{\sum (x_{ij} - \bar x_j)^2}

        is 1 for perfect predictions, and 0 if they are no better than the column means
        of `fit`. Use it to choose a rank: unlike the error of a reconstruction, it does
        not keep improving with the rank. On rows that `fit` has not seen, this is
        bi-cross-validation [1]_.

        With another `loss`, twice that loss takes the place of the squares. The score
        is then the share of the deviance explained, D², as in
        :func:`sklearn.metrics.d2_tweedie_score`. With losses for outliers the medians
        of columns take the place of their means.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows, preferably rows that `fit` has not seen. NaN means missing.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed. NaN is missing even where the mask is True.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of the error of each entry; 0 means missing. If X is sparse, the
            weights are sparse with the same entries stored.
        times, groups : array-like of shape (n_samples,), default=None
            Times and series of the rows. Needed if `fit` had them.

        Returns
        -------
        score : float
            Q². If the denominator is zero: 1.0 if every prediction is right, else 0.0,
            as in :func:`sklearn.metrics.r2_score`.

        References
        ----------
        .. [1] Owen, A. B. and Perry, P. O. (2009). Bi-Cross-Validation of the SVD and
           the Nonnegative Matrix Factorization. Annals of Applied Statistics 3.
        """
        check_is_fitted(self)
        check_target(y, X, KEYWORDS)
        timeline = Timeline.of(times, groups, _num_samples(X))
        return self._score(X, timeline, mask, entry_weight)

    def _score(self, X, timeline, mask=None, entry_weight=None):
        matrix, model = self._matrix(X, mask, entry_weight), self._model_at(timeline)
        if matrix.n_observed == 0:
            raise ValueError("There is nothing to score: every entry of X is missing.")
        centre = self._units.enter(self.column_mean_) - matrix.mean
        return explained_share(*score_sums(matrix, model, centre))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        by_entry = self.early_stopping or self.reg == "auto" or self.solver == "sgd"
        by_entry = by_entry or not self._is_squared
        tags.input_tags.sparse = not (self._unstored_is_zero and by_entry)
        tags.input_tags.positive_only = self.loss == "poisson"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_model")

    @property
    def _n_features_out(self):
        return self._model.n_factors + self._model.biases.row

    def _validate(self, X, *, reset):
        checked = self._check_table(X)
        note_features(self, X, reset=reset)
        return checked

    def _check_table(self, X):
        zero = self._unstored_is_zero
        return check_table(
            check_sparse(X, type(self).__name__, unstored_is_zero=zero),
            estimator=self,
            unstored="zero" if zero else "missing",
            times="times",
            accept_sparse=("csr", "csc") if zero else SPARSE_FORMATS,
            ensure_all_finite="allow-nan",
        )

    def _observe(self, X, mask, entry_weight):
        """Find the observed entries of validated X."""
        return observe(X, mask, entry_weight, unstored_is_zero=self._unstored_is_zero)

    def _matrix(self, X, mask, entry_weight):
        """Rows to fold in, in the units of the fitted model."""
        checked = self._validate(X, reset=False)
        refuse_other_labels(X, mask=mask, entry_weight=entry_weight)
        observed = self._observe(checked, mask, entry_weight)
        self._refuse_outside_losses(observed)
        return matrix_of(observed, self._units, mean=self._centre)

    def _in_units_of_X(self, W):
        return self._units.leave_factors(W, self._model.biases.row)

    def _column_terms(self, dtype):
        """Column factors, and what else every entry of a column has."""
        H, bias = self._column_factors()
        return H.astype(dtype, copy=False), (self.mean_ + bias).astype(dtype)

    def _unit_of_factors(self):
        """Size of the unit of each column of Z, float64."""
        return self._units.of_factors(self.rank_, self._model.biases.row)

    def _check_variances(self, what):
        if not self._model.has_variances:
            raise ValueError(
                f"{what} needs a fit with reg='auto' and n_draws=0, which learns how "
                f"uncertain its factors are; this one had reg={self.reg!r} and "
                f"n_draws={self.n_draws}."
            )

    def _check_squares(self):
        """Refuse to square factors and biases whose squares are no floats."""
        if not self._units.have_squares_of_factors(self._model.biases.row):
            raise ValueError(
                "return_cov=True needs the squares of values of the size of "
                f"{self._units.leave(1.0):.1g}, as X has them, which are "
                "beyond the range of float64. Fit to X in another unit."
            )
