"""The estimator for complete and nearly complete matrices."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ._base import BaseMatrixFactorization
from ._parameters import LossName, Solver


class GradientMF(BaseMatrixFactorization):
    r"""Factors of a matrix that is complete or nearly so, with a rank that you give.

    The estimator finds row factors W and column factors H such that
    :math:`X \approx W H^\top` where X is observed. It minimizes

    .. math::

        F(W, H) = {}&\tfrac12 \sum_{(i,j) \text{ observed}}
        \left(x_{ij} - w_i \cdot h_j\right)^2 \\
        &+ \tfrac12 \, \mathrm{reg} \left(\|W\|_F^2 + \|H\|_F^2\right).

    Missing entries, which are NaN or False in `mask`, do not enter the sum. A zero that
    a sparse X does not store is an observed zero here; :class:`MaskedGradientMF` treats
    it as missing. Use this for clicks and purchases: X has a one for each click,
    `entry_weight` gives the ones a larger weight, and the zeros have a weight of 1. See
    :ref:`implicit_feedback`.

    To fill in a table, use :class:`MFImputer`. For ratings and other sparse matrices,
    use :class:`MaskedGradientMF`. Read more in the :ref:`user guide <the-model>`.

    Parameters
    ----------
    rank : int, default=10
        Number of factors: the columns of W and of H. It may exceed the smaller side of
        X. Compare several ranks by `score` if you do not know which one suits the data.

    eta : "auto" or float, default="auto"
        Step size. Leave it at "auto" unless you want to reproduce a method with a fixed
        step.

        - "auto": each row takes the step that minimizes F along its direction, so F
          never increases and the units of X do not matter. "scaled" and "als" are
          accelerated when progress is slow. With "sgd" the step of a row shrinks as its
          squared gradients add up.
        - A positive number: this step, always. For ``solver="gd"`` it multiplies the
          gradient of F in the units of X, and for "sgd" the gradient of a single entry.
          For "scaled" and "als" it is a fraction of the full step: 1 is the full step.
          A step that is too long raises a :class:`DivergenceError`, which names one
          that works.

    solver : {"auto", "gd", "scaled", "als", "sgd"}, default="auto"
        Direction of the steps. Leave it at "auto" unless you compare solvers. All of
        them minimize the same F.

        - "gd": the negative gradient.
        - "scaled": the gradient preconditioned by :math:`H^\top H + \mathrm{reg}\,I`,
          which all rows share [1]_ [2]_. It is cheap when most entries are observed.
        - "als": each row moves to its exact least-squares solution. It takes fewer
          sweeps, but each sweep costs more.
        - "sgd": stochastic gradient descent, one step per observed entry [3]_. Use it
          to compare with the literature; the others are as fast and more exact.
        - "auto": "als" with `non_negative`, and for a sparse X with an `entry_weight`.
          Also "als" if values are missing and the rank is at most 64, or if values are
          missing and rows and columns have at most ``2 * rank`` entries on average.
          Otherwise "scaled".

    reg : "auto" or float, default=0.0
        Ridge: the weight of the squared factors in F, in the units of X. Larger values
        shrink the factors more and keep them from fitting noise. With "auto" the model
        learns how much to shrink each factor, see :class:`MaskedGradientMF`. "auto"
        needs ``solver="als"`` or "auto", ``eta="auto"``, and dense X.

    loss : str or dict, default="squared"
        How the fit measures errors. Change it if X has outliers, counts or answers of
        yes and no, see :doc:`/which_loss`. Here x is a value and p is its prediction:
        the sum of mean, biases and products of factors. With ``reg="auto"`` the loss
        says which distribution x has, given p.

        - "squared": :math:`(x - p)^2 / 2`, for normal noise.
        - "huber": for outliers. The loss grows linearly beyond 1.345 robust standard
          deviations of the noise. Needs a number for `reg`.
        - "student_t": for outliers. The noise has Student's t distribution, with
          degrees of freedom that are learned. Needs ``reg="auto"``.
        - "logistic": x is 0 or 1, and p is the logit of the probability of a 1.
        - "poisson": x is a count, and p is the logarithm of its expected value.
          Fractions are allowed (quasi-Poisson).

        A dictionary gives the losses of some columns, by their names or numbers; the
        other columns have squared errors. Predictions are on the scale of X: they are
        probabilities ("logistic") or expected counts ("poisson").

    noise : {"column", "shared"}, default="column"
        Whether ``reg="auto"`` learns one noise variance for each column or a single one
        for all. "shared" suits columns of the same kind with few entries each.

    pattern : bool, default=True
        Whether ``reg="auto"`` also learns from the pattern of missing values, see
        :class:`MaskedGradientMF`.

    n_draws : int, default=0
        With ``reg="auto"``: number of samples from the posterior to average, see
        :class:`MaskedGradientMF`.

    fit_bias : bool or "columns", default=False
        Whether to model means in addition to the factors. Leave it at False if the
        columns are centred.

        - True: the mean of the observed entries, and a bias for each row and column.
        - "columns": the mean and a bias for each column.
        - False: no means and no biases.

    non_negative : bool or "components", default=False
        Which factors must not be negative. X may have negative values. Needs a number
        for `reg`, ``fit_bias=False``, and another solver than "sgd".

        - True: the factors of rows and of columns, as in non-negative matrix
          factorization (NMF) [4]_.
        - "components": only the factors of columns. `components_` are then non-negative
          parts, and each row may add or subtract them [5]_.
        - False: none.

    init : {"svd", "random"} or pair of array-like, default="svd"
        Starting factors. Change it if you want to see how much a fit depends on them.

        - "svd": the leading singular vectors of X with zeros for missing values,
          divided by the observed share. If the data are far from zero, means of rows
          and columns stand in for the missing values instead. With `non_negative`, the
          fit starts from the positive or negative parts of such vectors [6]_.
        - "random": Gaussian factors, scaled to suit X. With `non_negative`, their
          absolute values.
        - ``(W0, H0)``: these factors, of shape (n_samples, rank) and
          (n_features, rank).

    clip : (low, high) or "observed", default=None
        Range of predictions, such as the scale of ratings. `inverse_transform`,
        `predict_entries` and `recommend` move a prediction outside the range to its
        nearest end. "observed" stands for the smallest and the largest observed entry
        in `fit`. `score` does not clip.

    max_iter : int, default=200
        Largest number of sweeps. A sweep moves all rows, then all columns. Increase it
        after a ConvergenceWarning.

    tol : float, default=1e-4
        The fit ends when the decrease of F that is still to come is estimated to be
        below ``tol * F``, from the last two sweeps. Decrease it for more exact factors.
        With 0 the fit runs for `max_iter` sweeps, or until F is rounding error, and
        gives no warning.

    random_state : int, RandomState instance or None, default=None
        Seed for ``init="random"``, for the entries that `early_stopping` holds out, and
        for the order in which "sgd" visits the entries. Nothing else is random.

    verbose : int, default=0
        If not 0, print the objective after each sweep.

    warm_start : bool, default=False
        Whether `fit` starts from the `components_` and biases of the previous fit
        instead of `init`.

    early_stopping : bool, default=False
        Whether to hold out a share of the observed entries, stop when their error no
        longer decreases, and keep the factors with the smallest error. Needs dense X.

    validation_fraction : float, default=0.1
        Share of the observed entries that `early_stopping` holds out, between 0 and 1.

    n_iter_no_change : int, default=5
        `early_stopping` ends the fit after this number of sweeps in a row that do not
        reduce the held-out error by more than the share `tol`.

    Attributes
    ----------
    components_ : ndarray of shape (`rank_`, n_features)
        Column factors, :math:`H^\top`.

    mean_ : float
        Weighted mean of the observed entries, in the units of X.

    column_bias_ : ndarray of shape (n_features,)
        Column biases, in the units of X.

    column_mean_ : ndarray of shape (n_features,)
        Mean of the observed entries of each column, in the units of X. A column without
        observed entries has the overall mean. `score` compares with these means.

    rank_ : int
        Number of factors that the fit kept: `rank`, or fewer with ``reg="auto"``.

    noise_variance_, row_precision_, column_precision_ : ndarray or None
        Learned by ``reg="auto"``, see :class:`MaskedGradientMF`.

    eta_ : float
        The step size: `eta`, or with ``eta="auto"`` the median of the steps in the last
        sweep.

    n_iter_ : int
        Number of sweeps.

    loss_curve_ : list of float
        F after each sweep. With ``reg="auto"`` it is the evidence lower bound (ELBO),
        which increases.

    validation_curve_ : list of float or None
        Root mean squared error of the held-out entries after each sweep, in the units
        of X. None without `early_stopping`.

    reconstruction_err_ : float
        Root of the summed squared residuals over all observed entries, in the units of
        X. With another `loss`, the root of twice the summed loss.

    timescale_ : ndarray of shape (`rank_`,) or None
        Time after which the correlation of each factor with itself has fallen to
        exp(-1), in the units of `times` (seconds for dates). None unless `fit` had
        times.

    seasonality_ : ndarray of shape (`rank_`,) or None
        Share of the variance of each factor that the day, week and year explain.

    residual_timescale_ : ndarray of shape (n_features,) or None
        Time after which the correlation of each column's residuals with themselves has
        fallen to exp(-1); 0 if they are only noise.

    residual_variance_ : ndarray of shape (n_features,) or None
        Variance of the part of each column's residuals that is not noise.

    n_samples_seen_ : int or None
        Number of rows with entries in all batches of `partial_fit`, None after `fit`.

    n_features_in_ : int
        Number of features seen in `fit`, with those that `fold_in_columns` added.

    feature_names_in_ : ndarray of shape (n_features,)
        Names of features seen in `fit`, if X has names that are all strings.

    See Also
    --------
    MaskedGradientMF : The same model for data with many missing values.
    MFImputer : Fills in the missing values of a table.
    sklearn.decomposition.PCA : Orthogonal components of complete data.
    sklearn.decomposition.TruncatedSVD : The optimum for complete data and ``reg=0``.
    sklearn.decomposition.NMF : Non-negative factors of complete data.

    Notes
    -----
    Given H, the rows of W are independent least-squares problems, and so are the rows
    of H given W. A sweep takes one step for every row of both. Row i, with gradient
    :math:`g_i`, moves along :math:`-P_i^{-1} g_i`; the solvers differ only in
    :math:`P_i`. F is not convex, but without missing values and biases "svd" starts at
    or near its minimum.

    W and H are unique only up to an invertible matrix between them, or a rotation if
    ``reg > 0``. Compare reconstructions of two fits, not their factors. Non-negative
    factors are often unique up to their order and scale, but F then has local minima:
    another `init` may lead to another one.

    With `non_negative`, "als" finds the exact minimum of each row by an active-set
    method. For complete data a sweep makes eight passes of coordinate descent instead,
    and `transform` finds the minimum. The steps of "gd" and "scaled" end where a factor
    would become negative.

    References
    ----------
    .. [1] Tong, T., Ma, C. and Chi, Y. (2021). Accelerating Ill-Conditioned Low-Rank
       Matrix Estimation via Scaled Gradient Descent. Journal of Machine Learning
       Research 22.
    .. [2] Hastie, T., Mazumder, R., Lee, J. D. and Zadeh, R. (2015). Matrix Completion
       and Low-Rank SVD via Fast Alternating Least Squares. Journal of Machine Learning
       Research 16.
    .. [3] Koren, Y., Bell, R. and Volinsky, C. (2009). Matrix Factorization Techniques
       for Recommender Systems. Computer 42.
    .. [4] Lee, D. D. and Seung, H. S. (1999). Learning the Parts of Objects by
       Non-negative Matrix Factorization. Nature 401.
    .. [5] Ding, C., Li, T. and Jordan, M. I. (2010). Convex and Semi-Nonnegative Matrix
       Factorizations. IEEE Transactions on Pattern Analysis and Machine Intelligence
       32.
    .. [6] Boutsidis, C. and Gallopoulos, E. (2008). SVD Based Initialization: A Head
       Start for Nonnegative Matrix Factorization. Pattern Recognition 41.

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

    Here each row is a mixture of two parts without negative values. The fit finds the
    parts:

    >>> parts = np.array([[1.0, 2, 0, 0, 3], [0, 0, 2, 1, 1]])
    >>> mixtures = np.array([[1, 0], [2, 1], [1, 3], [0, 1]]) @ parts
    >>> mixtures[1, 2] = np.nan
    >>> model = GradientMF(rank=2, non_negative=True, tol=1e-8).fit(mixtures)
    >>> (model.components_ / model.components_.sum(axis=1, keepdims=True)).round(2)
    array([[0.17, 0.33, 0.  , 0.  , 0.5 ],
           [0.  , 0.  , 0.5 , 0.25, 0.25]])
    """

    _unstored_is_zero = True

    def __init__(
        self,
        rank: int = 10,
        *,
        eta: Literal["auto"] | float = "auto",
        solver: Solver = "auto",
        reg: Literal["auto"] | float = 0.0,
        loss: LossName | Mapping = "squared",
        noise: Literal["column", "shared"] = "column",
        pattern: bool = True,
        n_draws: int = 0,
        fit_bias: bool | Literal["columns"] = False,
        non_negative: bool | Literal["components"] = False,
        init: Literal["svd", "random"] | tuple[ArrayLike, ArrayLike] = "svd",
        clip: Literal["observed"] | tuple[float, float] | None = None,
        max_iter: int = 200,
        tol: float = 1e-4,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
    ) -> None:
        self.rank = rank
        self.eta = eta
        self.solver = solver
        self.reg = reg
        self.loss = loss
        self.noise = noise
        self.pattern = pattern
        self.n_draws = n_draws
        self.fit_bias = fit_bias
        self.non_negative = non_negative
        self.init = init
        self.clip = clip
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
