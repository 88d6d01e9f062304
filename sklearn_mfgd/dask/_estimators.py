"""The estimator for matrices in blocks of rows, on Dask or on disk."""

from typing import Literal

import numpy as np
from distributed import Client

from .._masked_gradient_mf import MaskedGradientMF as LocalMF
from .._parameters import LossName, Solver
from ._blockwise import BlockwiseFactorization


class MaskedGradientMF(BlockwiseFactorization, LocalMF, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    r"""Factors of a matrix that is larger than memory, with many missing values.

    This is the model of :class:`sklearn_mfgd.MaskedGradientMF` for a matrix in blocks
    of rows, on disk or on the workers of a Dask cluster. Fitted attributes are NumPy
    arrays. For a collection of Dask, `transform`, `inverse_transform` and
    `predict_entries` return a dask.array, with one chunk for each block of X. It is
    computed when you ask for it.

    Read more in :doc:`/larger_than_memory`.

    Parameters
    ----------
    rank : int, default=32
        With ``reg="auto"`` the largest number of factors. The fit drops the factors
        that explain nothing. With a number for `reg` it is the number of factors.

    eta : "auto", default="auto"
        Step size: the best one for each row. A number is refused.

    solver : {"auto", "als"}, default="auto"
        Each row moves to its exact solution. Other solvers are refused.

    reg : "auto" or float, default="auto"
        Regularization: "auto" learns it, a number is the weight of a ridge. Leave it at
        "auto" unless you have tuned a ridge for these data.

    loss : {"squared"}, default="squared"
        Squared error. Other losses need :class:`sklearn_mfgd.MaskedGradientMF`.

    noise : {"column", "shared"}, default="column"
        Whether ``reg="auto"`` learns one noise variance for each column or a single one
        for all.

    pattern : bool, default=True
        Whether ``reg="auto"`` also learns from the pattern of missing values. Set it to
        False to save time if values are missing by chance.

    n_draws : int, default=0
        Number of samples from the posterior. Only 0 is possible.

    fit_bias : bool or "columns", default=True
        Whether to model means beside the factors: of all entries, of rows and of
        columns (True), without those of rows ("columns"), or none (False).

    non_negative : bool, default=False
        Whether factors must not be negative. True is refused.

    init : {"svd", "random"}, default="svd"
        Starting factors. Given factors are refused.

    clip : (low, high), default=None
        Range of predictions. A prediction outside the range becomes its nearest end.

    max_iter : int, default=200
        Largest number of sweeps. Each sweep reads all of X. Increase it after a
        ConvergenceWarning.

    tol : float, default=1e-3
        When to end the fit, see :class:`sklearn_mfgd.MaskedGradientMF`. Increase it to
        save sweeps.

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
        Share of the observed entries that `early_stopping` holds out, between 0 and 1.

    n_iter_no_change : int, default=5
        `early_stopping` ends the fit after this number of sweeps without improvement.

    client : distributed.Client or None, default=None
        Where to compute. None stands for the current client if there is one, else for
        the scheduler that Dask is set to, by default threads of this process. The
        client is not saved with the estimator. Copies of the estimator share it.

    Attributes
    ----------
    components_ : ndarray of shape (`rank_`, n_features)
        Column factors, :math:`H^\top`.

    mean_ : float
        Weighted mean of the observed entries, in the units of X.

    column_bias_ : ndarray of shape (n_features,)
        Column biases, in the units of X.

    column_mean_ : ndarray of shape (n_features,)
        Mean of the observed entries of each column, in the units of X. `score` compares
        with these means.

    rank_ : int
        Number of factors that the fit kept.

    noise_variance_, row_precision_, column_precision_ : ndarray or None
        Learned by ``reg="auto"``, see :class:`sklearn_mfgd.MaskedGradientMF`.

    eta_ : float
        The step size that was used.

    n_iter_ : int
        Number of sweeps.

    loss_curve_ : list of float
        The evidence lower bound (ELBO) after each sweep, or the objective if `reg` is a
        number.

    validation_curve_ : list of float or None
        Root mean squared error of the held-out entries after each sweep, in the units
        of X. None without `early_stopping`.

    reconstruction_err_ : float
        Root of the summed squared residuals over all observed entries, in the units of
        X.

    timescale_, seasonality_, residual_timescale_, residual_variance_ : None
        Not used: this estimator does not take times.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (n_features,)
        Names of features seen in `fit`, if X has names that are all strings.

    See Also
    --------
    sklearn_mfgd.MaskedGradientMF : The same model for data in memory.
    from_triplets : Makes a matrix from a data frame of its entries.

    Notes
    -----
    X may be one of these collections:

    - a ``dask.array``, with chunks that are dense, with NaN for missing values, or
      sparse (CSR, CSC or COO), as its `meta` says;
    - a ``dask.dataframe`` of numbers;
    - a list of blocks of rows: delayed ones, or arrays and sparse matrices in memory.

    Every block has all columns. The same entries are missing as in the estimator for
    data in memory. All blocks have values of one type, float32 or float64; other types
    become float64. A list that begins with a delayed block does not say how many
    columns it has, so `fit` reads that block once more.

    X may also be an array, a table or a sparse matrix in memory. `fit` takes it as a
    single block, and the other methods return NumPy arrays.

    Examples
    --------
    A matrix of rank 2 in five blocks, half of which is missing:

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

    `transform` returns at once. ``compute`` then computes what you ask for:

    >>> Z = model.transform(X)
    >>> Z.shape, Z.chunks[0]
    ((500, 3), (100, 100, 100, 100, 100))
    >>> error = model.inverse_transform(Z) - truth
    >>> print(f"{np.sqrt((error**2).mean().compute()):.2f}")
    0.08

    `to_local` returns the ordinary estimator, which does not need Dask:

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
        non_negative: bool = False,
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
            non_negative=non_negative,
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
