"""Factorization of matrices with many holes."""

from ._base import BaseMatrixFactorization


class MaskedGradientMF(BaseMatrixFactorization):
    r"""Matrix factorization of data with many holes: biases and a chosen ridge.

    Finds a bias for each row and column and factors W, H that approximate the observed
    entries,

    .. math::

        x_{ij} \approx \mu + b_i + c_j + w_i \cdot h_j,

    with :math:`\mu` their mean, by minimizing

    .. math::

        F = \tfrac12 \sum_{(i,j) \text{ observed}}
        \left(x_{ij} - \mu - b_i - c_j - w_i \cdot h_j\right)^2
        + \tfrac12 \, \mathrm{reg} \left(\|W\|_F^2 + \|H\|_F^2\right)
        + \tfrac12 \, \mathrm{reg}_b \left(\|b\|^2 + \|c\|^2\right)

    This is the biased factorization of recommender systems [1]_. It also fills in
    tables: scale the columns first, as their errors are summed up. An entry that a
    sparse X does not store is missing (:class:`GradientMF` takes it as a zero).

    Read more in the :ref:`user guide <which-estimator>`.

    Parameters
    ----------
    rank : int, default=32
        Number of factors, the columns of W and of H. With a ridge chosen by the data
        a rank that is somewhat too large does little harm.

    eta : "auto" or float, default="auto"
        Length of the steps: the best one for every row, or a fixed one. See
        :class:`GradientMF`.

    solver : {"auto", "gd", "scaled", "als", "sgd"}, default="auto"
        Direction of the steps. "gd", "scaled" and "sgd" need a number for `reg`. See
        :class:`GradientMF`.

    reg : "auto" or float, default="auto"
        Ridge: the weight of the squared factors in F, in units of X.

        - "auto": a tenth of the entries is hidden, a short fit is made with each of
          eight ridges scaled by the data, and the one with the least error on the
          hidden entries is kept. See `reg_` and `bias_reg_`.
        - A number: that ridge, also for the biases.

    fit_bias : bool or "columns", default=True
        What is modelled besides the factors. True: the mean of the observed entries, a
        bias for each row and one for each column. "columns": the mean and the column
        biases. False: nothing, as suits data that are centred already.

    init : {"svd", "random"} or pair of array-like, default="svd"
        Where to start: at singular vectors of X, at random, or at ``(W0, H0)`` of
        shape (n_samples, rank) and (n_features, rank).

    max_iter : int, default=200
        Largest number of sweeps. A sweep moves all rows, then all columns.

    tol : float, default=1e-4
        The fit has converged when F has less than this share of itself left to fall,
        its gains going on to shrink as in the last two sweeps. With 0 it goes on to
        `max_iter`, or until F is rounding error, without a warning.

    random_state : int, RandomState instance or None, default=None
        Seed of ``init="random"``, of the entries that `early_stopping` holds out, and
        of the order in which "sgd" visits the entries. Nothing else is random.

    verbose : int, default=0
        If not 0, print the objective after each sweep.

    warm_start : bool, default=False
        Whether `fit` starts from the `components_` and biases of the last fit, with
        row factors solved for, instead of `init`.

    early_stopping : bool, default=False
        Whether to hold out a share of the observed entries, to stop when their error
        no longer falls, and to return the factors where it was least.

    validation_fraction : float, default=0.1
        Share of the observed entries held out, between 0 and 1. Only used with
        `early_stopping`.

    n_iter_no_change : int, default=5
        Number of sweeps without improvement by more than `tol`, relatively, that
        `early_stopping` waits for.

    Attributes
    ----------
    components_ : ndarray of shape (rank, n_features)
        The column factors, :math:`H^\top`. The row factors are what `fit_transform`
        returns; they are not stored.

    mean_ : float
        Weighted mean of the observed entries, 0.0 with ``fit_bias=False``.

    column_bias_ : ndarray of shape (n_features,)
        Column biases, zeros with ``fit_bias=False``. Row biases are the last column of
        what `transform` returns.

    column_mean_ : ndarray of shape (n_features,)
        Mean of the observed entries of each column, which `score` compares with. The
        mean of all for a column never observed.

    reg_ : float
        The ridge on the factors that was used.

    bias_reg_ : float
        The ridge on the biases that was used. Equal to `reg_` unless `reg` is "auto".

    eta_ : float
        The step that was used: `eta`, or the median of the steps of the last sweep
        with ``eta="auto"``.

    n_iter_ : int
        Number of sweeps.

    loss_curve_ : list of float
        F after each sweep.

    validation_curve_ : list of float or None
        Root mean squared error of the held-out entries after each sweep, None without
        `early_stopping`.

    reconstruction_err_ : float
        Root of the summed squared residuals over all observed entries.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (n_features,)
        Names of features seen in `fit`, where X has names that are all strings.

    See Also
    --------
    GradientMF : The same model with defaults for complete or nearly complete data.
    sklearn.impute.IterativeImputer : Predicts each column from all others.
    sklearn.impute.KNNImputer : Averages the most similar rows.

    Notes
    -----
    Missing is what is NaN, False in `mask`, of weight 0, or not stored in a sparse X
    (CSR, CSC or COO; a stored zero is an observed zero). Time and memory grow with the
    number of observed entries: nothing of the size of X is made.

    Only the observed entries count, so the model is right about the others as far as
    what is missing does not depend on the value it has.

    Of all factors with the product Z, the smallest have :math:`\tfrac12 (\|W\|_F^2 +
    \|H\|_F^2)` equal to the nuclear norm of Z. So the ridge is a penalty of the nuclear
    norm, and where the rank is large enough, the problem is convex in Z [2]_.

    References
    ----------
    .. [1] Y. Koren, R. Bell, C. Volinsky, "Matrix Factorization Techniques for
       Recommender Systems", Computer 42 (2009).
    .. [2] T. Hastie, R. Mazumder, J. D. Lee, R. Zadeh, "Matrix Completion and Low-Rank
       SVD via Fast Alternating Least Squares", Journal of Machine Learning Research 16
       (2015).

    Examples
    --------
    A table of rank 3 with noise, 40 % of which is missing:

    >>> import numpy as np
    >>> from sklearn_mfgd import MaskedGradientMF
    >>> rng = np.random.default_rng(0)
    >>> truth = 5 + rng.normal(size=(300, 3)) @ rng.normal(size=(3, 20))
    >>> X = truth + 0.1 * rng.normal(size=truth.shape)
    >>> hidden = rng.random(X.shape) < 0.4
    >>> X[hidden] = np.nan
    >>> model = MaskedGradientMF(rank=8)
    >>> Z = model.fit_transform(X)
    >>> Z.shape  # eight factors and the bias of the row
    (300, 9)

    The root mean squared error of the missing entries, and of column means:

    >>> error = (model.inverse_transform(Z) - truth)[hidden]
    >>> print(f"{np.sqrt(np.mean(error**2)):.1f}")
    0.2
    >>> error = (np.nanmean(X, axis=0) - truth)[hidden]
    >>> print(f"{np.sqrt(np.mean(error**2)):.1f}")
    1.7

    The same as a sparse matrix, of which only the observed entries are stored:

    >>> from scipy.sparse import csr_array
    >>> rows, columns = np.nonzero(~hidden)
    >>> S = csr_array((X[rows, columns], (rows, columns)), shape=X.shape)
    >>> bool(np.allclose(model.transform(S), Z))
    True
    """

    def __init__(
        self,
        rank=32,
        *,
        eta="auto",
        solver="auto",
        reg="auto",
        noise="column",
        n_draws=0,
        fit_bias=True,
        init="svd",
        max_iter=200,
        tol=1e-3,
        random_state=None,
        verbose=0,
        warm_start=False,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
    ):
        self.rank = rank
        self.eta = eta
        self.solver = solver
        self.reg = reg
        self.noise = noise
        self.n_draws = n_draws
        self.fit_bias = fit_bias
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
