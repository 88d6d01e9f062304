"""The estimator for matrices with many missing values."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ._base import BaseMatrixFactorization
from ._parameters import LossName, Solver


class MaskedGradientMF(BaseMatrixFactorization):
    r"""Factors of ratings and other matrices with many missing values; nothing to tune.

    The estimator predicts an observed entry as a mean, a bias of its row, a bias of its
    column, and the product of their factors [1]_:

    .. math::

        x_{ij} \approx \mu + b_i + c_j + w_i \cdot h_j.

    By default (``reg="auto"``) it learns from the data how much to shrink each factor,
    how many factors to keep, and how noisy each column is. It also knows how uncertain
    each prediction is, and it learns from which entries of a row are observed, such as
    which films a user has rated. The method is variational Bayes [2]_ [3]_ with normal
    distributions for factors and noise, see :doc:`/nothing_to_tune`.

    With a number for `reg`, the fit minimizes instead

    .. math::

        F = {}&\tfrac12 \sum_{(i,j) \text{ observed}}
        \left(x_{ij} - \mu - b_i - c_j - w_i \cdot h_j\right)^2 \\
        &+ \tfrac12 \, \mathrm{reg}
        \left(\|W\|_F^2 + \|H\|_F^2 + \|b\|^2 + \|c\|^2\right).

    An entry that a sparse X does not store is missing; :class:`GradientMF` treats it as
    a zero. To fill in a table, use :class:`MFImputer`, which scales the columns first.
    Read more in the :ref:`user guide <which-estimator>`.

    Parameters
    ----------
    rank : int, default=32
        With ``reg="auto"`` the largest number of factors. The fit drops the factors
        that explain nothing, so a rank that is too large only costs time. Increase it
        if `rank_` reaches it. With a number for `reg` it is the number of factors.
        There are never more factors than rows or columns with entries.

    eta : "auto" or float, default="auto"
        Step size: the best one for each row, or a fixed one. Leave it at "auto" unless
        `reg` is a number and you want to reproduce a method with a fixed step. See
        :class:`GradientMF`.

    solver : {"auto", "gd", "scaled", "als", "sgd"}, default="auto"
        Direction of the steps, see :class:`GradientMF`. ``reg="auto"`` always uses
        coordinate ascent with the row updates of "als"; the other solvers need a number
        for `reg`.

    reg : "auto" or float, default="auto"
        Regularization, which keeps the factors from fitting the noise. Leave it at
        "auto" unless you have tuned a ridge for these data.

        - "auto": the model learns how much to shrink each factor, and the noise.
        - A number: a ridge of this weight, in the units of X, for factors and biases.

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
        Whether ``reg="auto"`` also learns from the pattern of missing values [6]_. The
        factors expected of a row or column then depend on how many entries it has, and
        on which other rows or columns have entries in the same places. The fit uses
        this only as far as it helps to explain the values. Set it to False to save time
        if values are missing by chance.

    n_draws : int, default=0
        With ``reg="auto"``: number of samples from the posterior to generate by Gibbs
        sampling after the fit. Predictions are then means over the samples. This can be
        more accurate when there are few entries per factor, as in ratings [4]_.
        `components_` then holds the factors of all samples, one sample after the other,
        divided by `n_draws`. After such a fit, ``return_cov=True`` and
        ``return_std=True`` raise an error.

    fit_bias : bool or "columns", default=True
        Whether to model means in addition to the factors.

        - True: the mean of the observed entries, and a bias for each row and column.
          If less than half of X is observed, ``reg="auto"`` also learns a scale for
          each row: some raters use more of a rating scale than others.
        - "columns": the mean and a bias for each column. It suits columns that are
          different quantities: ``reg="auto"`` does not shrink these biases.
        - False: no means and no biases, for data that are centred.

    non_negative : bool or "components", default=False
        Which factors must not be negative: those of rows and columns (True), those of
        columns alone ("components"), or none (False). Needs a number for `reg`, such as
        1.0, and ``fit_bias=False``. See :class:`GradientMF`.

    init : {"svd", "random"} or pair of array-like, default="svd"
        Starting factors: singular vectors of X, random factors, or ``(W0, H0)`` of
        shape (n_samples, rank) and (n_features, rank). With ``reg="auto"``, "random"
        starts from a randomized sketch of the SVD. Leave it at "svd" unless you want to
        see how much a fit depends on its start.

    clip : (low, high) or "observed", default=None
        Range of predictions, such as the scale of ratings. `inverse_transform`,
        `predict_entries` and `recommend` move a prediction outside the range to its
        nearest end. "observed" stands for the smallest and the largest observed entry
        in `fit`. `score` does not clip.

    max_iter : int, default=200
        Largest number of sweeps. A sweep moves all rows, then all columns. Increase it
        after a ConvergenceWarning.

    tol : float, default=1e-3
        When to end the fit. Decrease it for more exact factors.

        With ``reg="auto"`` the fit looks at how far the evidence lower bound (ELBO) can
        still rise, estimated from its last increases. If that is below `tol` per
        observed entry, the fit drops factors that explain nothing, and ends if there
        are none to drop. If X has more than 50,000 entries, more than 20 rows and more
        than 20 columns, the fit compares the last increase with `tol`, without an
        estimate of what is to come. If the fit learns from the pattern of missing
        values, the increase must be below 25 % of `tol` in three sweeps in a row.

        With a number for `reg` the fit ends when the decrease of F that is still to
        come is estimated to be below ``tol * F``. With ``tol=0`` it runs for `max_iter`
        sweeps, or until F is rounding error, and gives no warning.

    random_state : int, RandomState instance or None, default=None
        Seed for ``init="random"``, for the entries that `early_stopping` holds out, for
        the order in which "sgd" visits the entries, and for `n_draws`. Nothing else is
        random.

    verbose : int, default=0
        If not 0, print the objective after each sweep.

    warm_start : bool, default=False
        Whether `fit` starts from the `components_` and biases of the previous fit
        instead of `init`.

    early_stopping : bool, default=False
        Whether to hold out a share of the observed entries, stop when their error no
        longer decreases, and keep the factors with the smallest error.

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
        Number of factors that the fit kept. It is near the true number if the data are
        a sum of few factors with many observed entries for each.

    noise_variance_ : ndarray of shape (n_features,), float or None
        Noise variance in squared units of X, per column or shared.

    row_precision_ : ndarray of shape (`rank_`,) or None
        How much each row factor is shrunk: the precision, one over the variance, of its
        prior.

    column_precision_ : ndarray of shape (`rank_`,) or None
        The same for each column factor.

    eta_ : float
        The step size: `eta`, or with ``eta="auto"`` the median of the steps in the last
        sweep.

    n_iter_ : int
        Number of sweeps.

    loss_curve_ : list of float
        With ``reg="auto"`` the evidence lower bound (ELBO) after each sweep, which
        never decreases. With a number for `reg`, F after each sweep; with
        ``eta="auto"`` it never increases.

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
    GradientMF : The same model for complete or nearly complete data.
    MFImputer : Fills in the missing values of a table.
    sklearn_mfgd.dask.MaskedGradientMF : The same model for data larger than memory.

    Notes
    -----
    An entry is missing if it is NaN, False in `mask`, of weight 0, or not stored in a
    sparse X (CSR, CSC or COO). A stored zero is an observed zero. Time and memory grow
    with the number of observed entries: no array of the size of X is created.

    The model assumes that values are missing at random: whether a value is missing may
    depend on what is observed, but not on the value itself. With ``reg="auto"`` and
    ``pattern=True``, what is observed includes which other entries of the row and
    column are present. Otherwise only the observed values count.

    A number for `reg` penalizes the nuclear norm: among all factors with the product Z,
    the smallest :math:`\tfrac12 (\|W\|_F^2 + \|H\|_F^2)` is the nuclear norm of Z. If
    the rank is large enough, the problem is convex in Z [5]_.

    References
    ----------
    .. [1] Koren, Y., Bell, R. and Volinsky, C. (2009). Matrix Factorization Techniques
       for Recommender Systems. Computer 42.
    .. [2] Lim, Y. J. and Teh, Y. W. (2007). Variational Bayesian Approach to Movie
       Rating Prediction. KDD Cup and Workshop.
    .. [3] Ilin, A. and Raiko, T. (2010). Practical Approaches to Principal Component
       Analysis in the Presence of Missing Values. Journal of Machine Learning Research
       11.
    .. [4] Salakhutdinov, R. and Mnih, A. (2008). Bayesian Probabilistic Matrix
       Factorization using Markov Chain Monte Carlo. ICML.
    .. [5] Hastie, T., Mazumder, R., Lee, J. D. and Zadeh, R. (2015). Matrix Completion
       and Low-Rank SVD via Fast Alternating Least Squares. Journal of Machine Learning
       Research 16.
    .. [6] Koren, Y. (2008). Factorization Meets the Neighborhood: a Multifaceted
       Collaborative Filtering Model. KDD.

    Examples
    --------
    A matrix of rank 3 with noise, 40 % of which is missing:

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

    The root mean squared error of its predictions of the missing entries, and of column
    means:

    >>> error = (model.inverse_transform(Z) - truth)[hidden]
    >>> print(f"{np.sqrt(np.mean(error**2)):.2f}")
    0.07
    >>> error = (np.nanmean(X, axis=0) - truth)[hidden]
    >>> print(f"{np.sqrt(np.mean(error**2)):.2f}")
    1.65

    `predict_entries` returns the prediction of a single entry and how far an
    observation is expected to be from it:

    >>> Z, covariance = model.transform(X, return_cov=True)
    >>> places = np.argwhere(hidden)[:1].T
    >>> x, std = model.predict_entries(
    ...     Z, *places, covariance=covariance, return_std=True
    ... )
    >>> print(f"{x[0]:.1f} ± {std[0]:.2f}, in truth {truth[tuple(places)][0]:.1f}")
    5.4 ± 0.11, in truth 5.4

    A sparse matrix that stores only the observed entries gives the same:

    >>> from scipy.sparse import csr_array
    >>> rows, columns = np.nonzero(~hidden)
    >>> S = csr_array((X[rows, columns], (rows, columns)), shape=X.shape)
    >>> bool(np.allclose(model.transform(S), Z))
    True
    """

    def __init__(
        self,
        rank: int = 32,
        *,
        eta: Literal["auto"] | float = "auto",
        solver: Solver = "auto",
        reg: Literal["auto"] | float = "auto",
        loss: LossName | Mapping = "squared",
        noise: Literal["column", "shared"] = "column",
        pattern: bool = True,
        n_draws: int = 0,
        fit_bias: bool | Literal["columns"] = True,
        non_negative: bool | Literal["components"] = False,
        init: Literal["svd", "random"] | tuple[ArrayLike, ArrayLike] = "svd",
        clip: Literal["observed"] | tuple[float, float] | None = None,
        max_iter: int = 200,
        tol: float = 1e-3,
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
