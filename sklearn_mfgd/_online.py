"""Estimators that learn from batches of rows, and take in new columns."""

import warnings
from collections import deque
from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _get_feature_names,
    _num_samples,
    check_is_fitted,
)

from ._bayes import fit as bayes_fit
from ._bayes.moments import pack
from ._bayes.online import learn_batch, learn_first, refuse_diagonal_covariances
from ._data.labels import refuse_other_labels
from ._data.matrix import matrix_of
from ._data.prepared import PreparedData
from ._data.target import check_target
from ._kernels.rows import Rows
from ._learning import KEYWORDS
from ._optim.parameters import FitParameters
from ._parameters import (
    Data,
    check_covariance,
    check_parameters_together,
    check_row_factors,
)
from ._state import all_or_nothing


def _learns_from_sums(estimator):
    """Whether sums of the rows tell all that a fit learns from them."""
    if not estimator._learns_batches:
        raise AttributeError(
            "partial_fit takes batches that are in memory: pass them one by one to "
            f"sklearn_mfgd.{type(estimator).__name__}."
        )
    needed = {"reg": "auto", "loss": "squared", "n_draws": 0, "early_stopping": False}
    for name, value in needed.items():
        if getattr(estimator, name) != value:
            raise AttributeError(
                f"partial_fit needs {name}={value!r}; this estimator has {name}="
                f"{getattr(estimator, name)!r}, for which it would have to keep the "
                "rows. Change it, or fit to all rows at once."
            )
    return True


class OnlineMixin:
    """Learn batch by batch; the rest of an estimator is in other mixins."""

    # Of the other mixins, and of the estimator.
    _model: Any
    _units: Any
    _centre: float
    _n_features_out: Any
    _refuse_losses: Any
    _check_table: Any
    _check_variances: Any
    _observe: Any
    _unit_of_factors: Any
    __sklearn_is_fitted__: Any
    n_features_in_: int
    reg: Any

    _learns_batches = True

    @available_if(_learns_from_sums)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: Data,
        y: Data = None,
        *,
        mask: Data = None,
        entry_weight: Data = None,
        forget_factor: float = 1.0,
    ) -> Self:
        """Learn from a batch of new rows, and keep what was learned before.

        The first call fits the model to the first batch. Each further call adds rows.
        The model does not keep the rows. It keeps sums over them for each column, which
        are ``n_features * (rank + 2) ** 2 / 2`` numbers. See :ref:`online`. Needs
        ``reg="auto"``, ``loss="squared"``, ``n_draws=0`` and ``early_stopping=False``.

        All entries of a row must be in the same batch. A user who comes back with new
        ratings would count as another user. To predict for that user, pass all ratings,
        old and new, to `transform`.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            New rows. NaN, masked entries of a masked array, and entries that a sparse X
            does not store are missing. Columns may be empty until a later batch has
            entries in them.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed. NaN is missing even where the mask is True.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of the error of each entry; 0 means missing. If X is sparse, the
            weights are sparse with the same entries stored.
        forget_factor : float, default=1.0
            Multiplies the weight of all earlier batches; above 0 and at most 1. With
            1.0 every row counts the same. Use a smaller number if the columns change
            over time.

        Returns
        -------
        self : object
            Fitted estimator. `loss_curve_`, `n_iter_` and `reconstruction_err_` refer
            to the last batch.

        Raises
        ------
        ValueError
            If the first batch has fewer rows than the rank.

        Warns
        -----
        UserWarning
            If the estimator was fitted by `fit`, which keeps no sums. The batch then
            begins a new model.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_mfgd import MaskedGradientMF
        >>> rng = np.random.default_rng(0)
        >>> truth = 5 + rng.normal(size=(300, 3)) @ rng.normal(size=(3, 20))
        >>> X = truth + 0.1 * rng.normal(size=truth.shape)
        >>> X[rng.random(X.shape) < 0.4] = np.nan
        >>> model = MaskedGradientMF()
        >>> for batch in np.split(X, 3):
        ...     model = model.partial_fit(batch)
        >>> model.n_samples_seen_, model.rank_
        (300, 3)
        """
        check_target(y, X, KEYWORDS)
        check_parameters_together(self)
        self._check_learns_online(forget_factor)
        with all_or_nothing(self):
            if self.__sklearn_is_fitted__() and self.n_samples_seen_ is not None:
                self._learn_following(X, mask, entry_weight, forget_factor)
            else:
                self._learn_first(X, mask, entry_weight)
        return self

    @property
    def n_samples_seen_(self) -> int | None:
        """Number of rows with entries in all batches; None after `fit`."""
        memory = getattr(self._model, "memory", None)
        return None if memory is None else memory.n_rows

    def _check_learns_online(self, forget_factor):
        """Refuse what does not go with `partial_fit`."""
        if not 0 < forget_factor <= 1:
            raise ValueError(
                f"forget_factor must be above 0 and at most 1; got {forget_factor!r}."
            )
        if not self.__sklearn_is_fitted__():
            return
        if self.n_samples_seen_ is None:
            warnings.warn(
                "fit keeps no sums of the rows: partial_fit begins a new model with "
                "this batch, and what fit has learned is lost. To add batches to a "
                "model, begin it with partial_fit.",
                UserWarning,
                stacklevel=4,
            )
        elif self._model.memory.n_columns != self.n_features_in_:
            raise ValueError(
                "partial_fit cannot go on after fold_in_columns, which keeps no sums "
                "of the rows. In a model that is to learn from more batches, leave "
                "room for new columns: these may be empty until there are entries."
            )

    def _learn_first(self, X, mask, entry_weight):
        with self._prepared(X, mask, entry_weight) as data:
            rank = self.rank
            if not isinstance(self.init, str):
                rank = min(rank, data.occupied.shape[0])
            n_rows, n_columns = data.matrix.shape
            if n_rows < min(rank, n_columns):
                raise ValueError(
                    f"The first batch has {n_rows} rows with entries, which tell no "
                    f"more than {n_rows} factors, and rank={rank}. Begin with a batch "
                    "of more rows, many times the rank if there are, or use a smaller "
                    "rank."
                )
            rank = min(rank, n_rows, n_columns)
            refuse_diagonal_covariances(data.matrix.shape[1], rank, data.biases)
            model, descent = learn_first(
                data.matrix,
                FitParameters.of(self, init=self._start(data)),
                biases=data.biases,
                units=data.units,
                rng=check_random_state(self.random_state),
                monitor=self._printing(data),
            )
            if data.occupied.columns is not None:
                memory = model.memory._replace(
                    columns=data.occupied.columns, n_columns=data.occupied.shape[1]
                )
                model = model._replace(memory=memory)
            self._had_times = False
            self._set_fitted(model, descent, data)
            deque(self._row_factors(data), maxlen=0)

    def _learn_following(self, X, mask, entry_weight, forget_factor):
        observed = self._observe(self._validate(X, reset=False), mask, entry_weight)
        if isinstance(observed, Rows) and observed.indices.size == 0:
            return
        old = self._model
        self._note_range(observed, extend=True)
        data = PreparedData.following(
            observed, old.biases, self._units, self._centre, old.memory.columns
        )
        columns = data.occupied.columns
        if columns is None:
            columns = np.arange(data.occupied.shape[1])
        rank = len(old.memory.row_prior["rotation"])
        refuse_diagonal_covariances(len(columns), rank, data.biases)
        model, descent = learn_batch(
            old,
            data.matrix,
            columns,
            FitParameters.of(self),
            forget_factor=forget_factor,
            monitor=self._printing(data),
        )
        dtype = self.column_mean_.dtype
        self._set_fitted(model, descent, data)
        means = model.memory.column_means() + self._centre
        means = data.occupied.spread_columns(means, self._centre)
        self.column_mean_ = self._units.leave(means).astype(dtype)
        n_observed = model.memory.counts.sum()
        self.loss_curve_ = bayes_fit.curve_in_units(
            descent.loss_curve, self._units, n_observed
        )
        deque(self._row_factors(data), maxlen=0)

    def _printing(self, data):
        return partial(self._monitor, None, data) if self.verbose else None

    def fold_in_columns(
        self,
        X: Data,
        Z: Data,
        *,
        covariance: Data = None,
        mask: Data = None,
        entry_weight: Data = None,
    ) -> Self:
        """Add new columns, such as new items, without a new fit.

        `transform` finds the factors of new rows, and this method those of new columns.
        Nothing else changes. The new columns come after the last one.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_new_features)
            Entries of the new columns. NaN is missing.
        Z : array-like of shape (n_samples, n_factors) or (n_samples, n_factors + 1)
            Factors of these rows, as `transform` returns them for their entries in the
            known columns.
        covariance : array-like of shape (n_samples, Z.shape[1], Z.shape[1])
            The covariances that ``transform(X, return_cov=True)`` returns with Z. With
            them, rows with uncertain factors count for less. Without them, or with a
            number for `reg`, Z counts as exact.
        mask : array-like of bool of shape (n_samples, n_new_features), default=None
            True where X is observed. NaN is missing even where the mask is True.
        entry_weight : array-like of shape (n_samples, n_new_features), default=None
            Weight of the error of each entry; 0 means missing. If X is sparse, the
            weights are sparse with the same entries stored.

        Returns
        -------
        self : object
            The estimator with more columns. If X is a data frame, `feature_names_in_`
            has their names, too.

        Raises
        ------
        ValueError
            If Z and X have different numbers of rows, if a name exists already, or
            after a fit with `n_draws`, `times` or a `loss` other than "squared".

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_mfgd import MaskedGradientMF
        >>> rng = np.random.default_rng(0)
        >>> X = 5 + rng.normal(size=(300, 3)) @ rng.normal(size=(3, 20))
        >>> model = MaskedGradientMF().fit(X[:, :19])
        >>> Z, covariance = model.transform(X[:, :19], return_cov=True)
        >>> model = model.fold_in_columns(
        ...     X[:50, 19:], Z[:50], covariance=covariance[:50]
        ... )
        >>> model.n_features_in_
        20
        >>> error = (model.inverse_transform(Z) - X)[50:, 19]
        >>> print(f"{np.sqrt(np.mean(error**2)):.3f}")
        0.000
        """
        self._refuse_losses("fold_in_columns")
        check_is_fitted(self)
        if not hasattr(self._model, "with_new_columns"):
            raise ValueError(
                "fold_in_columns needs a fit without n_draws and without times; fit "
                "again without, or with the new columns."
            )
        Z = check_row_factors(Z, self._n_features_out)
        if _num_samples(X) != len(Z):
            raise ValueError(
                f"X has {_num_samples(X)} rows and Z has {len(Z)}; Z must have the "
                "factors of each row of X."
            )
        names = self._names_with(X)
        if covariance is not None:
            self._check_variances("covariance=")
            covariance = check_covariance(covariance, Z)
            unit = self._unit_of_factors()
            covariance = pack(covariance / np.outer(unit, unit))
        refuse_other_labels(X, mask=mask, entry_weight=entry_weight)
        observed = self._observe(self._check_table(X), mask, entry_weight)
        matrix = matrix_of(observed, self._units, mean=self._centre)
        W = self._units.enter_factors(Z, self._model.biases.row)
        with all_or_nothing(self):
            self._model = self._model.with_new_columns(matrix, W, covariance, self.reg)
            means = self._units.leave(matrix.column_means())
            self.column_mean_ = np.append(
                self.column_mean_, means.astype(self.column_mean_.dtype)
            )
            self.n_features_in_ += matrix.shape[1]
            if names is not None:
                self.feature_names_in_ = names
        return self

    def _names_with(self, X):
        """Names of all features with those of new columns, None without names."""
        known, new = getattr(self, "feature_names_in_", None), _get_feature_names(X)
        if known is None:
            if new is not None:
                warnings.warn(
                    f"X has feature names, but {type(self).__name__} was fitted "
                    "without feature names",
                    UserWarning,
                    stacklevel=3,
                )
            return None
        if new is None:
            raise ValueError(
                "The columns of this fit have names. Pass X as a data frame whose "
                "columns are named, too."
            )
        names = np.concatenate([known, new])
        unique, counts = np.unique(names.astype(str), return_counts=True)
        if len(unique) < len(names):
            name = str(unique[counts.argmax()])
            raise ValueError(
                f"There is a column of the name {name!r} already. fold_in_columns "
                "appends columns and changes none: give it another name."
            )
        return names
