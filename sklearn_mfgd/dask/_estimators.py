"""The estimator for collections: blocks of rows on Dask."""

from typing import Literal

import numpy as np
from distributed import Client

from .._masked_gradient_mf import MaskedGradientMF as LocalMF
from .._parameters import LossName, Solver
from ._blockwise import BlockwiseFactorization


class MaskedGradientMF(BlockwiseFactorization, LocalMF, auto_wrap_output_keys=None):  # type: ignore[call-arg]
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

    loss : {"squared"}, default="squared"
        Squared error; the others are those of :class:`sklearn_mfgd.MaskedGradientMF`.

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

    clip : (low, high), default=None
        Range of predictions: those outside of it become its nearest end.

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

    _local_class = LocalMF
    _learns_batches = False

    def __init__(
        self,
        rank: int = 32,
        *,
        eta: Literal["auto"] | float = "auto",
        solver: Solver = "auto",
        reg: Literal["auto"] | float = "auto",
        loss: LossName = "squared",
        noise: Literal["column", "shared"] = "column",
        pattern: bool = True,
        n_draws: int = 0,
        fit_bias: bool | Literal["columns"] = True,
        init: Literal["svd", "random"] = "svd",
        clip: tuple[float, float] | None = None,
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
            loss=loss,
            noise=noise,
            pattern=pattern,
            n_draws=n_draws,
            fit_bias=fit_bias,
            init=init,
            clip=clip,
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
