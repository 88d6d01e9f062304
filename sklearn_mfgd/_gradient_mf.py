"""Factorization of complete and nearly complete matrices."""

from ._base import BaseMatrixFactorization


class GradientMF(BaseMatrixFactorization):
    r"""Matrix factorization of complete or nearly complete data by gradient methods.

    Finds row factors W and column factors H such that :math:`X \approx W H^\top`
    where X is observed, by minimizing

    .. math::

        F(W, H) = \tfrac12 \sum_{(i,j) \text{ observed}}
        \left(x_{ij} - w_i \cdot h_j\right)^2
        + \tfrac12 \, \mathrm{reg} \left(\|W\|_F^2 + \|H\|_F^2\right)

    A missing entry, NaN or False in `mask`, has no part in it; an entry that a sparse X
    does not store is an observed zero (:class:`MaskedGradientMF` takes it as missing).
    With `fit_bias` a mean and biases are added to :math:`w_i \cdot h_j`. The factors
    may have either sign.

    Read more in the :ref:`user guide <the-model>`.

    Parameters
    ----------
    rank : int, default=10
        Number of factors, the columns of W and of H. It may exceed the smaller side of
        X.

    eta : "auto" or float, default="auto"
        Length of the steps.

        - "auto": every row takes the step that minimizes F along its direction, and
          "scaled" and "als" are accelerated where they gain slowly; with "sgd" the
          step of a row shrinks with the gradients it has seen. F never increases,
          there is nothing to tune, and the units of X do not matter.
        - A positive number: that step, always. For ``solver="gd"`` it multiplies the
          gradient of F in the units of X, for "sgd" that of a single entry; for
          "scaled" and "als" it is a fraction of the full step, which is 1. A step that
          is too long ends in a :class:`DivergenceError` that names one that works.

    solver : {"auto", "gd", "scaled", "als", "sgd"}, default="auto"
        Direction of the steps.

        - "gd": the gradient.
        - "scaled": the gradient divided by :math:`H^\top H + \mathrm{reg}\,I`, which
          the rows share [1]_ [2]_. Cheap where most entries are observed.
        - "als": each row goes to its exact least-squares solution. Fewer sweeps, each
          of which costs more.
        - "sgd": stochastic gradient, one step for every observed entry [3]_. To compare
          with the literature; the others are as fast and more exact.
        - "auto": "als" when X has holes and the rank is at most 64, or rows and columns
          have at most ``2 * rank`` entries in the mean; otherwise "scaled".

    reg : "auto" or float, default=0.0
        Ridge: the weight of the squared factors in F, in units of X. Larger values
        shrink the factors more. "auto" learns what regularizes each factor from the
        data, see :class:`MaskedGradientMF`; it needs ``solver="als"`` or "auto",
        ``eta="auto"``, and dense X.

    noise : {"column", "shared"}, default="column"
        Whether ``reg="auto"`` learns a variance of the noise for each column or one.

    pattern : bool, default=True
        Whether ``reg="auto"`` also learns from which entries are observed, see
        :class:`MaskedGradientMF`.

    n_draws : int, default=0
        With ``reg="auto"``: how many draws from the posterior to average, see
        :class:`MaskedGradientMF`.

    fit_bias : bool or "columns", default=False
        What is modelled besides the factors. True: the mean of the observed entries, a
        bias for each row and one for each column. "columns": the mean and the column
        biases. False: nothing, as suits data that are centred already.

    init : {"svd", "random"} or pair of array-like, default="svd"
        Where to start.

        - "svd": the leading singular vectors of X with zeros in the holes, divided by
          the observed share. Far from zero, the holes are filled by means of rows and
          columns.
        - "random": Gaussian factors of a size that suits X.
        - ``(W0, H0)``: these factors, of shape (n_samples, rank) and
          (n_features, rank).

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
        no longer falls, and to return the factors where it was least. Needs dense X.

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
        Column biases, zeros with ``fit_bias=False``.

    column_mean_ : ndarray of shape (n_features,)
        Mean of the observed entries of each column, which `score` compares with. The
        mean of all for a column never observed.

    rank_ : int
        Number of factors: `rank`, or what is left of it with ``reg="auto"``.

    noise_variance_, row_precision_, column_precision_ : None
        What ``reg="auto"`` learns, see :class:`MaskedGradientMF`.

    eta_ : float
        The step that was used: `eta`, or the median of the steps of the last sweep
        with ``eta="auto"``.

    n_iter_ : int
        Number of sweeps.

    loss_curve_ : list of float
        F after each sweep; with ``reg="auto"`` the evidence lower bound, which rises.

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
    MaskedGradientMF : The same model with defaults for data with many holes.
    sklearn.decomposition.PCA : Orthogonal components of complete data.
    sklearn.decomposition.TruncatedSVD : The optimum for complete data and ``reg=0``.
    sklearn.decomposition.NMF : Nonnegative factors of complete data.

    Notes
    -----
    Given H, the rows of W are separate least-squares problems, and so are the rows of
    H given W. A sweep takes one step of every row on either side. Row i moves along
    :math:`-P_i^{-1} g_i` with its gradient :math:`g_i`, and the solvers differ in
    :math:`P_i` alone. F is not convex, but without holes and biases "svd" starts at or
    near its minimum.

    W and H are unique only up to an invertible matrix between them (a rotation where
    ``reg > 0``): compare reconstructions, not factors.

    References
    ----------
    .. [1] T. Tong, C. Ma, Y. Chi, "Accelerating Ill-Conditioned Low-Rank Matrix
       Estimation via Scaled Gradient Descent", Journal of Machine Learning Research 22
       (2021).
    .. [2] T. Hastie, R. Mazumder, J. D. Lee, R. Zadeh, "Matrix Completion and Low-Rank
       SVD via Fast Alternating Least Squares", Journal of Machine Learning Research 16
       (2015).
    .. [3] Y. Koren, R. Bell, C. Volinsky, "Matrix Factorization Techniques for
       Recommender Systems", Computer 42 (2009).

    Examples
    --------
    Two entries of a matrix of rank 1 are missing:

    >>> import numpy as np
    >>> from sklearn_mfgd import GradientMF
    >>> X = np.array([[1, 2, 3], [2, 4, np.nan], [3, np.nan, 9]])
    >>> model = GradientMF(rank=1)
    >>> W = model.fit_transform(X)
    >>> model.inverse_transform(W).round(2)
    array([[1., 2., 3.],
           [2., 4., 6.],
           [3., 6., 9.]])

    A new row needs no new fit:

    >>> W_new = model.transform([[np.nan, 10, np.nan]])
    >>> model.inverse_transform(W_new).round(2)
    array([[ 5., 10., 15.]])
    """

    _unstored_is_zero = True

    def __init__(
        self,
        rank=10,
        *,
        eta="auto",
        solver="auto",
        reg=0.0,
        noise="column",
        pattern=True,
        n_draws=0,
        fit_bias=False,
        init="svd",
        max_iter=200,
        tol=1e-4,
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
