"""Factorization of matrices with many holes."""

from ._base import BaseMatrixFactorization


class MaskedGradientMF(BaseMatrixFactorization):
    r"""Matrix factorization of data with many holes: biases, and nothing to tune.

    Finds a bias for each row and column and factors W, H that approximate the observed
    entries,

    .. math::

        x_{ij} \approx \mu + b_i + c_j + w_i \cdot h_j,

    with :math:`\mu` their mean. With ``reg="auto"`` the factors have a Gaussian prior
    and every column noise, whose precisions are learned with them by variational Bayes
    [2]_ [3]_: how much to shrink each factor, how many factors there are, how certain
    each value is, and what it says of a row which of its entries are observed. See
    :doc:`/nothing_to_tune`. With a number for `reg` they minimize

    .. math::

        F = \tfrac12 \sum_{(i,j) \text{ observed}}
        \left(x_{ij} - \mu - b_i - c_j - w_i \cdot h_j\right)^2
        + \tfrac12 \, \mathrm{reg}
        \left(\|W\|_F^2 + \|H\|_F^2 + \|b\|^2 + \|c\|^2\right)

    This is the biased factorization of recommender systems [1]_. It also fills in
    tables: scale the columns first, as their errors are summed up. An entry that a
    sparse X does not store is missing (:class:`GradientMF` takes it as a zero).

    Read more in the :ref:`user guide <which-estimator>`.

    Parameters
    ----------
    rank : int, default=32
        Number of factors, the columns of W and of H. With ``reg="auto"`` the largest
        number: factors that explain nothing are dropped, and a rank that is too large
        costs time alone. There are never more than rows or columns with entries.

    eta : "auto" or float, default="auto"
        Length of the steps: the best one for every row, or a fixed one. See
        :class:`GradientMF`.

    solver : {"auto", "gd", "scaled", "als", "sgd"}, default="auto"
        Direction of the steps. ``reg="auto"`` has a solver of its own, on the rows of
        "als"; the others need a number for `reg`. See :class:`GradientMF`.

    reg : "auto" or float, default="auto"
        What keeps the factors from fitting the noise.

        - "auto": precisions of factors and noise that are learned, see `noise`.
        - A number: a ridge of this weight, in units of X, also for the biases.

    noise : {"column", "shared"}, default="column"
        Whether ``reg="auto"`` learns a variance of the noise for each column, or one
        for all.

    pattern : bool, default=True
        Whether ``reg="auto"`` also learns from which entries are observed: the prior
        mean of factors and biases depends on the number of entries of a row or column
        and on what else it has in common with others, as far as that helps to explain
        the values [6]_. Where holes are chance it makes no difference but time.

    n_draws : int, default=0
        With ``reg="auto"``: how many draws from the posterior follow the fit. What is
        predicted is the mean over draws, which is more accurate where there are few
        entries to a factor, as in ratings [4]_. `components_` then holds the factors
        of all draws, one draw after the other, over `n_draws`; of such a fit no
        covariances are known.

    fit_bias : bool or "columns", default=True
        What is modelled besides the factors. True: the mean of the observed entries, a
        bias for each row and one for each column. "columns": the mean and the column
        biases, which with ``reg="auto"`` are not shrunk, as columns are quantities of
        their own then. False: nothing, as suits data that are centred already.

    init : {"svd", "random"} or pair of array-like, default="svd"
        Where to start: at singular vectors of X, at random, or at ``(W0, H0)`` of
        shape (n_samples, rank) and (n_features, rank). With ``reg="auto"``, "random"
        are those of random combinations of the columns.

    max_iter : int, default=200
        Largest number of sweeps. A sweep moves all rows, then all columns.

    tol : float, default=1e-3
        With ``reg="auto"`` factors are dropped once the evidence lower bound has less
        than this for each observed entry left to rise, judged by how its last rises
        shrank. The fit has converged when no more are to be dropped and the same holds
        again. Beyond 50,000 entries and 20 rows and columns the last rise itself is
        compared; where the fit learns from the pattern, that has to be less than 15 %
        of this three times.
        With a number for `reg`, when F has less than this share of itself left to fall,
        its gains going on to shrink as in the last two sweeps. With 0 it goes on to
        `max_iter`, or until F is rounding error, without a warning.

    random_state : int, RandomState instance or None, default=None
        Seed of ``init="random"``, of the entries that `early_stopping` holds out, of
        the order in which "sgd" visits the entries, and of draws. Nothing else is
        random.

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
    components_ : ndarray of shape (`rank_`, n_features)
        The column factors, :math:`H^\top`. The row factors are what `fit_transform`
        returns; they are not stored. With `n_draws` those of all draws, of shape
        (``n_draws * rank``, n_features).

    mean_ : float
        Weighted mean of the observed entries, 0.0 with ``fit_bias=False``.

    column_bias_ : ndarray of shape (n_features,)
        Column biases, zeros with ``fit_bias=False``. Row biases are the last column of
        what `transform` returns.

    column_mean_ : ndarray of shape (n_features,)
        Mean of the observed entries of each column, which `score` compares with. The
        mean of all for a column never observed.

    rank_ : int
        Number of factors: what is left of `rank` with ``reg="auto"``, one at least.

    noise_variance_ : ndarray of shape (n_features,), float or None
        Variance of the noise of an entry of weight one, of each column or of all. In a
        column never observed, the level of the others. None without ``reg="auto"``.

    row_precision_, column_precision_ : ndarray of shape (`rank_`,) or None
        Precision of the prior of each factor of a row, and of a column. None without
        ``reg="auto"``.

    eta_ : float
        The step that was used: `eta`, or the median of the steps of the last sweep
        with ``eta="auto"``.

    n_iter_ : int
        Number of sweeps.

    loss_curve_ : list of float
        With ``reg="auto"`` the evidence lower bound after each sweep, which never
        falls; with a number F, which never rises.

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

    The model is right about what is missing as far as that does not depend on the
    value it has, given what else is observed. With ``reg="auto"`` that includes which
    other entries of its row and column are observed, unless ``pattern=False``; with a
    number for `reg` only their values count.

    With a number for `reg`: of all factors with the product Z, the smallest have
    :math:`\tfrac12 (\|W\|_F^2 + \|H\|_F^2)` equal to the nuclear norm of Z. So the
    ridge is a penalty of the nuclear norm, and where the rank is large enough, the
    problem is convex in Z [5]_.

    References
    ----------
    .. [1] Y. Koren, R. Bell, C. Volinsky, "Matrix Factorization Techniques for
       Recommender Systems", Computer 42 (2009).
    .. [2] Y. J. Lim, Y. W. Teh, "Variational Bayesian Approach to Movie Rating
       Prediction", KDD Cup and Workshop (2007).
    .. [3] A. Ilin, T. Raiko, "Practical Approaches to Principal Component Analysis in
       the Presence of Missing Values", Journal of Machine Learning Research 11 (2010).
    .. [4] R. Salakhutdinov, A. Mnih, "Bayesian Probabilistic Matrix Factorization using
       Markov Chain Monte Carlo", ICML (2008).
    .. [5] T. Hastie, R. Mazumder, J. D. Lee, R. Zadeh, "Matrix Completion and Low-Rank
       SVD via Fast Alternating Least Squares", Journal of Machine Learning Research 16
       (2015).
    .. [6] Y. Koren, "Factorization Meets the Neighborhood: a Multifaceted Collaborative
       Filtering Model", KDD (2008).

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
    >>> model = MaskedGradientMF()
    >>> Z = model.fit_transform(X)
    >>> model.rank_, Z.shape  # three factors and the bias of the row
    (3, (300, 4))

    The root mean squared error of the missing entries, and of column means:

    >>> error = (model.inverse_transform(Z) - truth)[hidden]
    >>> print(f"{np.sqrt(np.mean(error**2)):.2f}")
    0.07
    >>> error = (np.nanmean(X, axis=0) - truth)[hidden]
    >>> print(f"{np.sqrt(np.mean(error**2)):.2f}")
    1.65

    How far off an observation of the first of them is expected to be:

    >>> Z, covariance = model.transform(X, return_cov=True)
    >>> places = np.argwhere(hidden)[:1].T
    >>> x, std = model.predict_entries(
    ...     Z, *places, covariance=covariance, return_std=True
    ... )
    >>> print(f"{x[0]:.1f} ± {std[0]:.2f}, in truth {truth[tuple(places)][0]:.1f}")
    5.4 ± 0.11, in truth 5.4

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
        pattern=True,
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
        self.pattern = pattern
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
