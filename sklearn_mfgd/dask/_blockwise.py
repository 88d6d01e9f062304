"""An estimator for collections: `fit`, and methods with lazy results."""

from collections import deque
from contextlib import contextmanager
from copy import copy
from typing import Any, Self

import dask.array as da
import numpy as np
from dask import delayed
from distributed import Client
from sklearn.base import _fit_context
from sklearn.utils.validation import check_is_fitted, validate_data

from .._base import BaseMatrixFactorization
from .._data.target import check_target
from .._learning import KEYWORDS
from .._optim.score import explained_share
from .._parameters import CONSTRAINTS, Data
from . import (
    _lazy,
    _objective,  # noqa: F401  registers how collections are fitted
)
from ._blocks import Blocks, blocks_of, compute, is_collection
from ._engine import Engine
from ._models import copy_of
from ._prepare import prepare
from ._unsupported import refuse_unsupported


# What comes out is not wrapped as set_output would: that would compute a collection.
class BlockwiseFactorization(BaseMatrixFactorization, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Fit blocks of rows, and map them; data in memory go to the next class.

    A subclass has the estimator for data in memory as its second base, and names it.
    """

    _local_class: type[BaseMatrixFactorization]
    _parameter_constraints: dict = CONSTRAINTS | {"client": [Client, None]}
    client: Client | None

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(  # type: ignore[override]
        self, X: Data, y: Data = None, *, mask: Data = None, entry_weight: Data = None
    ) -> Self:
        """Learn the factors from the observed entries of X.

        Parameters
        ----------
        X : collection or array-like of shape (n_samples, n_features)
            The matrix, see Notes of the class. NaN and entries that a sparse block does
            not store are missing.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : collection of bool like X, default=None
            True where X is observed, in blocks like those of X. NaN is missing even
            where the mask is True.
        entry_weight : collection like X, default=None
            Weight of the error of each entry, in blocks like those of X; 0 means
            missing. Sparse blocks need sparse weights with the same entries stored.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            If no entry is observed, if a parameter does not suit the data, or if a
            block cannot be read or differs from the first one in width or type.
        """
        refuse_unsupported(self)
        # Row factors are not kept.
        deque(self._learn(X, _target(y, X), mask, entry_weight), maxlen=0)
        return self

    def fit_transform(  # type: ignore[override]
        self, X: Data, y: Data = None, *, mask: Data = None, entry_weight: Data = None
    ) -> Any:
        """Learn the factors from X and return those of its rows.

        Parameters
        ----------
        X : collection or array-like of shape (n_samples, n_features)
            The matrix, as in `fit`.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : collection of bool like X, default=None
            True where X is observed.
        entry_weight : collection like X, default=None
            Weight of the error of each entry; 0 means missing.

        Returns
        -------
        Z : dask.array.Array or ndarray of shape (n_samples, n_factors)
            Row factors, the same as ``fit(X).transform(X)``; lazy for a collection.
        """
        beside = {"mask": mask, "entry_weight": entry_weight}
        return self.fit(X, y, **beside).transform(X, **beside)

    def transform(  # type: ignore[override]
        self,
        X: Data,
        *,
        mask: Data = None,
        entry_weight: Data = None,
        return_cov: bool = False,
    ) -> Any:
        """Find the factors of rows, of `fit` or new ones, given `components_`.

        Parameters
        ----------
        X : collection or array-like of shape (n_samples, n_features)
            Rows seen in `fit` or new ones. If X is a list that begins with a delayed
            block, its blocks must have the same type as in `fit`.
        mask : collection of bool like X, default=None
            True where X is observed.
        entry_weight : collection like X, default=None
            Weight of the error of each entry; 0 means missing.
        return_cov : bool, default=False
            Whether to also return the covariances of the factors. Only with
            ``reg="auto"``.

        Returns
        -------
        Z : dask.array.Array or ndarray of shape (n_samples, n_factors)
            Row factors, lazy for a collection. With ``fit_bias=True`` the last column
            is the row bias.
        covariance : dask.array.Array or ndarray
            How uncertain each row of Z is: its posterior covariance, of shape
            (n_samples, n_factors, n_factors). Only with ``return_cov=True``.
        """
        if not is_collection(X):
            given = {"mask": mask, "entry_weight": entry_weight}
            return super().transform(X, **given, return_cov=return_cov)
        check_is_fitted(self)
        if return_cov:
            self._check_variances("return_cov=True")
            self._check_squares()
        blocks = self._blocks(X, mask, entry_weight, reset=False)
        if return_cov:
            return _lazy.row_factors_with_covariances(self, blocks)
        return _lazy.row_factors(self, blocks)

    def inverse_transform(self, Z: Data) -> Any:
        """Predict every entry of the rows: ``mean + biases + W @ components_``.

        Parameters
        ----------
        Z : dask.array.Array or array-like of shape (n_samples, n_factors)
            Row factors as `transform` returns them.

        Returns
        -------
        X : dask.array.Array or ndarray of shape (n_samples, n_features)
            The predictions, without missing values; lazy if Z is.
        """
        if not is_collection(Z):
            return super().inverse_transform(Z)
        check_is_fitted(self)
        return _lazy.reconstruction(self, Z)

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
        Z : dask.array.Array or array-like of shape (n_samples, n_factors)
            Row factors as `transform` returns them, in blocks of known length.
        rows, columns : dask.array.Array or array-like of int of shape (n_entries,)
            Row and column of each entry, counted from 0. Arrays in memory are quicker:
            only the block that holds a row receives its entries. Every block of Z
            receives each chunk of a dask.array.
        covariance : dask.array.Array or array-like, default=None
            The covariances that ``transform(X, return_cov=True)`` returns with Z.
            Needed for `return_std`.
        return_std : bool, default=False
            Whether to also return how uncertain each prediction is.

        Returns
        -------
        x : dask.array.Array or ndarray of shape (n_entries,)
            The predictions, in the units of X; lazy if Z, `rows` or `columns` is.
        std : dask.array.Array or ndarray of shape (n_entries,)
            Standard deviation of an observation of each entry around its prediction, in
            the units of X. Only with ``return_std=True``.
        """
        lazy = [isinstance(given, da.Array) for given in (rows, columns, covariance)]
        if not is_collection(Z) and not any(lazy):
            given = {"covariance": covariance, "return_std": return_std}
            return super().predict_entries(Z, rows, columns, **given)
        check_is_fitted(self)
        if return_std:
            self._check_variances("return_std=True")
        return _lazy.entries(self, Z, (rows, columns), covariance, return_std)

    def score(  # type: ignore[override]
        self, X: Data, y: Data = None, *, mask: Data = None, entry_weight: Data = None
    ) -> float:
        """Return how well held-out entries of X are predicted; 1 is perfect.

        This is the score Q² of :meth:`sklearn_mfgd.MaskedGradientMF.score`. It is
        computed at once.

        Parameters
        ----------
        X : collection or array-like of shape (n_samples, n_features)
            Rows, preferably rows that `fit` has not seen.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : collection of bool like X, default=None
            True where X is observed.
        entry_weight : collection like X, default=None
            Weight of the error of each entry; 0 means missing.

        Returns
        -------
        score : float
            Q²: 1 is perfect, 0 is no better than column means.
        """
        if not is_collection(X):
            return super().score(X, y, mask=mask, entry_weight=entry_weight)
        check_is_fitted(self)
        check_target(_target(y, X), X, KEYWORDS)
        blocks = self._blocks(X, mask, entry_weight, reset=False)
        sums = compute(self.client, *_lazy.sums_by_block(self, blocks))
        n_observed, press, total = np.sum(sums, axis=0).tolist()
        if n_observed == 0:
            raise ValueError("There is nothing to score: every entry of X is missing.")
        return explained_share(press, total)

    def to_local(self) -> Any:
        """Return the ordinary estimator, with the same parameters and fit.

        You can use it, and load it from a file, without Dask.

        Returns
        -------
        estimator : sklearn_mfgd.MaskedGradientMF
            The estimator for data in memory.
        """
        return copy_of(self, self._local_class)

    @classmethod
    def from_local(cls, estimator: Any, *, client: Client | None = None) -> Self:
        """Make an estimator for collections from an ordinary one, with its fit.

        Parameters
        ----------
        estimator : sklearn_mfgd.MaskedGradientMF
            The estimator for data in memory, from `to_local` or :class:`Checkpoint`.
        client : distributed.Client or None, default=None
            Where to compute, see the parameter of the class.

        Returns
        -------
        estimator : MaskedGradientMF
            The estimator for collections. If its `warm_start` is True, the next fit
            goes on from these column factors.
        """
        made = copy_of(estimator, cls)
        made.client = client
        return made

    @contextmanager
    def _prepared(self, X, mask, entry_weight):
        blocks = self._blocks(X, mask, entry_weight, reset=True)
        with Engine(self.client) as engine:
            given = engine, blocks, self._biases
            yield prepare(*given, unit_variance=self.reg == "auto")

    def _row_factors(self, data):
        """Yield nothing, as `fit` keeps no row factors; set `reconstruction_err_`."""
        loss = data.matrix.squared_error(self._model.over(None))
        self.reconstruction_err_ = float(self._units.leave_in_range(np.sqrt(loss)))
        yield from ()

    def _attributes_at(self, model, descent, data):
        """What callbacks are told; to compute the error would take a pass over X."""
        ended = copy(self)
        ended._set_fitted(model, descent, data)
        ended.reconstruction_err_ = np.nan
        return vars(ended)

    def _blocks(self, X, mask, entry_weight, *, reset: bool) -> Blocks:
        """Cut X into blocks, and set or check the number and the names of features."""
        options: dict[str, Any] = {"caller": type(self).__name__, "client": self.client}
        if not is_collection(X):  # one block
            given = [mask, entry_weight]
            beside = [a if a is None else [delayed(a, traverse=False)] for a in given]
            return blocks_of([self._validate(X, reset=reset)], *beside, **options)
        if not reset:
            options["like"] = (self.n_features_in_, self.column_mean_.dtype)
        blocks = blocks_of(X, mask, entry_weight, **options)
        validate_data(self, blocks.like_X(), reset=reset, skip_check_array=True)
        return blocks

    def __sklearn_clone__(self):
        """Clone all but the client, which clones share as no copy of it can be made."""
        cloned = super(BlockwiseFactorization, copy(self)).__sklearn_clone__()
        cloned.client = self.client
        return cloned

    def __getstate__(self):
        return super().__getstate__() | {"client": None}


def _target(y, X):
    """Y as far as it may be a mask in the wrong place; its values are not computed."""
    if not is_collection(X):
        return y
    shape = getattr(y, "shape", ())
    if not isinstance(X, da.Array) or shape != X.shape or np.isnan(X.shape).any():
        return None
    return np.broadcast_to(np.zeros((), y.dtype), shape)
