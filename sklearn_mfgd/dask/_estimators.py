"""The estimator for collections: blocks of rows on Dask."""

from contextlib import contextmanager
from copy import copy
from typing import Any, Literal, Self

import dask.array as da
import numpy as np
from dask import delayed
from distributed import Client
from sklearn.base import _fit_context
from sklearn.utils.validation import check_is_fitted, validate_data

from .._data.target import check_target
from .._learning import KEYWORDS
from .._masked_gradient_mf import MaskedGradientMF as LocalMF
from .._parameters import CONSTRAINTS, Data, Solver
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
class MaskedGradientMF(LocalMF, auto_wrap_output_keys=None):
    r"""Matrix factorization of a collection with many missing values.

    The model of :class:`sklearn_mfgd.MaskedGradientMF`, fitted to a matrix that lies in
    blocks of rows, on the workers of a Dask cluster or on disk. Fitted attributes are
    NumPy arrays, and what methods return for a collection is computed when it is asked
    for: a dask.array with one chunk for each block of X.

    Read more in the :ref:`user guide <which-estimator>`.

    Parameters
    ----------
    rank : int, default=32
        Number of factors, the columns of W and of H. With ``reg="auto"`` the maximum.

    eta : "auto", default="auto"
        Step size: the best one for each row. A number is refused.

    solver : {"auto", "als"}, default="auto"
        Each row moves to its exact solution. Other solvers are refused.

    reg : "auto" or float, default="auto"
        Regularization: learned, or the weight of a ridge.

    noise : {"column", "shared"}, default="column"
        Whether ``reg="auto"`` learns one noise variance per column or a shared one.

    pattern : bool, default=True
        Whether ``reg="auto"`` also learns from which entries are observed.

    n_draws : int, default=0
        Number of samples of the posterior. Others than 0 are refused.

    fit_bias : bool or "columns", default=True
        What is modelled besides the factors.

    init : {"svd", "random"}, default="svd"
        Starting factors. Given factors are refused.

    max_iter : int, default=200
        Largest number of sweeps.

    tol : float, default=1e-3
        When the fit has converged.

    random_state : int, RandomState instance or None, default=None
        Seed for ``init="random"`` and for the entries that `early_stopping` holds out.

    verbose : int, default=0
        If not 0, print the objective after each sweep.

    warm_start : bool, default=False
        Whether `fit` starts from the `components_` and biases of the previous fit.

    early_stopping : bool, default=False
        Whether to hold out a share of the observed entries, and to stop when their
        error no longer decreases.

    validation_fraction : float, default=0.1
        Share of the observed entries held out by `early_stopping`.

    n_iter_no_change : int, default=5
        Number of sweeps without improvement after which `early_stopping` ends the fit.

    client : distributed.Client or None, default=None
        Where to compute. None: on the current client if there is one, else on the
        scheduler that Dask is set to, which are threads of this process by default. It
        is not stored with the estimator, and copies of the estimator share it.

    Attributes
    ----------
    components_ : ndarray of shape (`rank_`, n_features)
        Column factors, :math:`H^\top`.

    mean_ : float
        Weighted mean of the observed entries.

    column_bias_ : ndarray of shape (n_features,)
        Column biases.

    column_mean_ : ndarray of shape (n_features,)
        Mean of the observed entries of each column, the baseline of `score`.

    rank_ : int
        Number of factors.

    noise_variance_, row_precision_, column_precision_ : ndarray or None
        Learned by ``reg="auto"``, see :class:`sklearn_mfgd.MaskedGradientMF`.

    eta_ : float
        The step size that was used.

    n_iter_ : int
        Number of sweeps.

    loss_curve_ : list of float
        The evidence lower bound or the objective after each sweep.

    validation_curve_ : list of float or None
        Root mean squared error of the held-out entries after each sweep.

    reconstruction_err_ : float
        Root of the summed squared residuals over all observed entries.

    timescale_, seasonality_, residual_timescale_, residual_variance_ : None
        What a fit of rows in time learns, which this one is not.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (n_features,)
        Names of features seen in `fit`, where X has names that are all strings.

    See Also
    --------
    sklearn_mfgd.MaskedGradientMF : The same model in one process.
    from_triplets : Makes a matrix of a data frame of its entries.

    Notes
    -----
    A collection is a ``dask.array`` with chunks that are dense, with NaN for what is
    missing, or sparse (CSR, CSC or COO), which its `meta` says; a ``dask.dataframe`` of
    numbers; or a list of blocks of rows, delayed ones or arrays and sparse matrices in
    memory. Every block has all columns. What is observed is the same as in the
    estimator in memory. All blocks have values of one type, float32 or float64; what is
    neither becomes float64. A list that begins with a delayed block does not say how
    many columns it has, so `fit` reads that block once more.

    X may also be an array, a table or a sparse matrix in memory: to `fit` it is a
    single block, and the other methods return NumPy arrays.

    Examples
    --------
    A table of rank 2 in five blocks, half of which is missing:

    >>> import dask.array as da
    >>> import numpy as np
    >>> from sklearn_mfgd.dask import MaskedGradientMF
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=(500, 2)) @ rng.normal(size=(2, 20))
    >>> X = truth + 0.1 * rng.normal(size=truth.shape)
    >>> X[rng.random(X.shape) < 0.5] = np.nan
    >>> X = da.from_array(X, chunks=(100, 20))
    >>> model = MaskedGradientMF().fit(X)
    >>> model.rank_
    2

    Nothing is computed before it is asked for:

    >>> Z = model.transform(X)
    >>> Z.shape, Z.chunks[0]
    ((500, 3), (100, 100, 100, 100, 100))
    >>> error = model.inverse_transform(Z) - truth
    >>> print(f"{np.sqrt((error**2).mean().compute()):.2f}")
    0.08

    The ordinary estimator, which does not need Dask:

    >>> local = model.to_local()
    >>> bool(np.allclose(local.transform(X.compute()), Z))
    True
    """

    _learns_batches = False

    _parameter_constraints: dict = CONSTRAINTS | {"client": [Client, None]}

    def __init__(
        self,
        rank: int = 32,
        *,
        eta: Literal["auto"] | float = "auto",
        solver: Solver = "auto",
        reg: Literal["auto"] | float = "auto",
        noise: Literal["column", "shared"] = "column",
        pattern: bool = True,
        n_draws: int = 0,
        fit_bias: bool | Literal["columns"] = True,
        init: Literal["svd", "random"] = "svd",
        max_iter: int = 200,
        tol: float = 1e-3,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        client: Client | None = None,
    ) -> None:
        super().__init__(
            rank,
            eta=eta,
            solver=solver,
            reg=reg,
            noise=noise,
            pattern=pattern,
            n_draws=n_draws,
            fit_bias=fit_bias,
            init=init,
            max_iter=max_iter,
            tol=tol,
            random_state=random_state,
            verbose=verbose,
            warm_start=warm_start,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
        )
        self.client = client

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(  # type: ignore[override]
        self, X: Data, y: Data = None, *, mask: Data = None, entry_weight: Data = None
    ) -> Self:
        """Factorize the observed entries of X.

        Parameters
        ----------
        X : collection or array-like of shape (n_samples, n_features)
            The matrix, see Notes; NaN is missing, and so is what a sparse block does
            not store.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : collection of bool like X, default=None
            True where X is observed; NaN is missing whatever the mask says. In blocks
            like those of X.
        entry_weight : collection like X, default=None
            Weight of the squared error of each entry; 0 means missing. In blocks like
            those of X, and for sparse blocks with the same entries stored.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            If no entry is observed, a parameter does not suit the data, or a block
            cannot be read or differs from the first one in width or type.
        """
        refuse_unsupported(self)
        for _ in self._learn(X, _target(y, X), mask, entry_weight):
            pass  # row factors, which are not kept
        return self

    def fit_transform(  # type: ignore[override]
        self, X: Data, y: Data = None, *, mask: Data = None, entry_weight: Data = None
    ) -> Any:
        """Factorize the observed entries of X and return its row factors.

        Parameters
        ----------
        X : collection or array-like of shape (n_samples, n_features)
            The matrix, as in `fit`.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : collection of bool like X, default=None
            True where X is observed.
        entry_weight : collection like X, default=None
            Weight of the squared error of each entry; 0 means missing.

        Returns
        -------
        Z : dask.array.Array or ndarray of shape (n_samples, n_factors)
            The result of ``fit(X).transform(X)``, lazy for a collection.
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
        """Fold rows in: find their factors given `components_`.

        Parameters
        ----------
        X : collection or array-like of shape (n_samples, n_features)
            Rows seen in `fit` or new ones. The blocks of a list that begins with a
            delayed one must have the type of those of `fit`.
        mask : collection of bool like X, default=None
            True where X is observed.
        entry_weight : collection like X, default=None
            Weight of the squared error of each entry; 0 means missing.
        return_cov : bool, default=False
            Whether to also return the covariances of the factors. Only with
            ``reg="auto"``.

        Returns
        -------
        Z : dask.array.Array or ndarray of shape (n_samples, n_factors)
            Row factors, lazy for a collection. With row biases (``fit_bias=True``) the
            last column is the bias of the row.
        covariance : dask.array.Array or ndarray
            Posterior covariance of each row of Z, of shape (n_samples, n_factors,
            n_factors). Only with ``return_cov=True``.
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
        """Reconstruct the complete rows: ``mean + biases + W @ components_``.

        Parameters
        ----------
        Z : dask.array.Array or array-like of shape (n_samples, n_factors)
            Row factors as `transform` returns them.

        Returns
        -------
        X : dask.array.Array or ndarray of shape (n_samples, n_features)
            The reconstruction, without missing values; lazy where Z is.
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
        """Reconstruct chosen entries of a matrix, which may be too large to store.

        Parameters
        ----------
        Z : dask.array.Array or array-like of shape (n_samples, n_factors)
            Row factors as `transform` returns them, in blocks of known length.
        rows, columns : dask.array.Array or array-like of int of shape (n_entries,)
            The entries, those of ``inverse_transform(Z)[rows, columns]``. Places in
            memory are sent to the blocks that they lie in; each chunk of lazy ones is
            sent to every block of Z.
        covariance : dask.array.Array or array-like, default=None
            The covariances that ``transform(X, return_cov=True)`` returns with Z.
            Needed for `return_std`.
        return_std : bool, default=False
            Whether to also return the standard deviations of predictions.

        Returns
        -------
        x : dask.array.Array or ndarray of shape (n_entries,)
            The reconstructed entries; lazy where Z, `rows` or `columns` are.
        std : dask.array.Array or ndarray of shape (n_entries,)
            Standard deviation of an observation of each entry. Only with
            ``return_std=True``.
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
        """Predict held-out entries of X and return the share of variance explained.

        The score Q² of :meth:`sklearn_mfgd.MaskedGradientMF.score`. It is computed at
        once; a worker sends two sums for each block.

        Parameters
        ----------
        X : collection or array-like of shape (n_samples, n_features)
            Rows, preferably rows that `fit` has not seen.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : collection of bool like X, default=None
            True where X is observed.
        entry_weight : collection like X, default=None
            Weight of the squared error of each entry; 0 means missing.

        Returns
        -------
        score : float
            Q²: 1 is perfect, 0 no better than column means.
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
        if total == 0:
            return 1.0 if press == 0 else 0.0
        return 1.0 - press / total

    def to_local(self) -> LocalMF:
        """Return the ordinary estimator, with the same parameters and fit.

        It needs no Dask, neither to be used nor to be loaded from a file.

        Returns
        -------
        estimator : sklearn_mfgd.MaskedGradientMF
            The estimator for data in memory.
        """
        return copy_of(self, LocalMF)

    @contextmanager
    def _prepared(self, X, mask, entry_weight):
        blocks = self._blocks(X, mask, entry_weight, reset=True)
        given = blocks, self._biases
        with Engine(self.client) as engine:
            yield prepare(engine, *given, unit_variance=self.reg == "auto")

    def _row_factors(self, data):
        """Yield nothing, as `fit` keeps no row factors; set `reconstruction_err_`."""
        loss = data.matrix.squared_error(self._model.over(None))
        self.reconstruction_err_ = float(self._units.leave_in_range(np.sqrt(loss)))
        yield from ()

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
        cloned = super(MaskedGradientMF, copy(self)).__sklearn_clone__()
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
