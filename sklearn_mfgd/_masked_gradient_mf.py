"""Factorization of matrices with many missing values."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ._base import BaseMatrixFactorization
from ._parameters import LossName, Solver


class MaskedGradientMF(BaseMatrixFactorization):
    r"""Matrix factorization of data with many missing values and nothing to tune.

    Finds biases of rows and columns and factors W, H that approximate the observed
    entries,

    .. math::

        x_{ij} \approx \mu + b_i + c_j + w_i \cdot h_j,

    with :math:`\mu` their mean. With ``reg="auto"`` the factors have Gaussian priors
    and each column has Gaussian noise. Variational Bayes [2]_ [3]_ learns their
    precisions together with the factors: how much to shrink each factor, how many
    factors there are, how certain each value is, and what the choice of observed
    entries tells about a row. See :doc:`/nothing_to_tune`. With a number for `reg` the
    fit minimizes

    .. math::

        F = \tfrac12 \sum_{(i,j) \text{ observed}}
        \left(x_{ij} - \mu - b_i - c_j - w_i \cdot h_j\right)^2
        + \tfrac12 \, \mathrm{reg}
        \left(\|W\|_F^2 + \|H\|_F^2 + \|b\|^2 + \|c\|^2\right)

    This is the biased matrix factorization of recommender systems [1]_. It also suits
    tables, but scale their columns first, because the errors of all columns are added
    up. An entry that a sparse X does not store is missing (:class:`GradientMF` treats
    it as a zero).

    Read more in the :ref:`user guide <which-estimator>`.

    Parameters
    ----------
    rank : int, default=32
        Number of factors, the columns of W and of H. With ``reg="auto"`` the maximum:
        factors that explain nothing are dropped, so that a rank that is too large only
        costs time. There are never more factors than rows or columns with entries.

    eta : "auto" or float, default="auto"
        Step size: the best one for each row, or a fixed one. See :class:`GradientMF`.

    solver : {"auto", "gd", "scaled", "als", "sgd"}, default="auto"
        Direction of the steps. ``reg="auto"`` has a solver of its own, coordinate
        ascent with the row updates of "als"; the others need a number for `reg`. See
        :class:`GradientMF`.

    reg : "auto" or float, default="auto"
        Regularization, which keeps the factors from fitting the noise.

        - "auto": the precisions of factors and noise are learned, see `noise`.
        - A number: a ridge of this weight, in units of X, for factors and biases.

    loss : str or dict, default="squared"
        What is minimized or, with ``reg="auto"``, the likelihood of a value x given its
        prediction p, the sum of mean, biases and products of factors. See
        :doc:`/which_loss`.

        - "squared": :math:`(x - p)^2 / 2`, normal noise.
        - "huber": the same, growing linearly beyond 1.345 robust deviations of the
          noise, so that outliers do little harm. Needs a number for `reg`.
        - "student_t": noise of Student's t distribution, of learned degrees of freedom,
          for outliers. Needs ``reg="auto"``.
        - "logistic": x is 0 or 1, and p the logit of the probability of a 1.
        - "poisson": x is a count, and p the logarithm of its rate. Fractions are
          taken, too (quasi-Poisson).

        A dictionary names the losses of some columns, by their names or numbers; the
        others are squared. Predictions come back on the scale of X: as probabilities
        and rates.

    noise : {"column", "shared"}, default="column"
        Whether ``reg="auto"`` learns one noise variance per column or a shared one.

    pattern : bool, default=True
        Whether ``reg="auto"`` also learns from which entries are observed: the prior
        mean of factors and biases depends on how many entries a row or column has and
        on which others have entries in the same places, as far as that helps to explain
        the values [6]_. If values are missing by chance, it only costs time.

    n_draws : int, default=0
        With ``reg="auto"``: number of samples of the posterior to generate by Gibbs
        sampling after the fit. Predictions are means over the samples, which is more
        accurate when there are few entries per factor, as in ratings [4]_.
        `components_` then holds the factors of all samples, one sample after the other,
        divided by `n_draws`; such a fit knows no covariances.

    fit_bias : bool or "columns", default=True
        What is modelled besides the factors. True: the mean of the observed entries and
        a bias for each row and each column; with ``reg="auto"`` also a scale for each
        row, if less than half of X is observed: the rows are taken to be raters who use
        more or less of a rating scale. "columns": the mean and the column biases;
        with ``reg="auto"`` these are not shrunk, because the columns are taken to be
        different quantities. False: nothing, which suits data that are already centred.

    non_negative : bool or "components", default=False
        Which factors must not be negative: those of rows and columns (True), those of
        columns alone ("components"), or none (False). Needs a number for `reg`, such as
        1.0, and ``fit_bias=False``. See :class:`GradientMF`.

    init : {"svd", "random"} or pair of array-like, default="svd"
        Starting factors: singular vectors of X, random factors, or ``(W0, H0)`` of
        shape (n_samples, rank) and (n_features, rank). With ``reg="auto"``, "random"
        starts from a randomized sketch of the SVD.

    clip : (low, high) or "observed", default=None
        Range of predictions, as on a scale of ratings: those of `inverse_transform`,
        `predict_entries` and `recommend` outside of it become its nearest end.
        "observed": from the smallest to the largest observed entry in `fit`. `score` is
        that of predictions as the model makes them.

    max_iter : int, default=200
        Largest number of sweeps. A sweep moves all rows, then all columns.

    tol : float, default=1e-3
        With ``reg="auto"`` factors are dropped once the increase of the evidence lower
        bound (ELBO) still to come, extrapolated from its last increases, is below `tol`
        per observed entry. The fit has converged when this holds again and no factor is
        to be dropped. Beyond 50,000 entries and 20 rows and columns the last increase
        itself is compared; if the fit learns from which entries are observed, it has to
        be below 25 % of `tol` three times in a row.
        With a number for `reg` the fit has converged when the decrease still to come,
        extrapolated geometrically from the last two sweeps, is below ``tol * F``. With
        0 it runs for `max_iter` sweeps, or until F is rounding error, without warning.

    random_state : int, RandomState instance or None, default=None
        Seed for ``init="random"``, for the entries that `early_stopping` holds out, for
        the order in which "sgd" visits the entries, and for `n_draws`. Nothing else is
        random.

    verbose : int, default=0
        If not 0, print the objective after each sweep.

    warm_start : bool, default=False
        Whether `fit` starts from the `components_` and biases of the previous fit
        instead of `init`; the row factors are solved for.

    early_stopping : bool, default=False
        Whether to hold out a share of the observed entries, stop when their error no
        longer decreases, and keep the factors where it was smallest.

    validation_fraction : float, default=0.1
        Share of the observed entries held out, between 0 and 1. Only used with
        `early_stopping`.

    n_iter_no_change : int, default=5
        Number of consecutive sweeps without a relative improvement of more than `tol`
        after which `early_stopping` ends the fit.

    Attributes
    ----------
    components_ : ndarray of shape (`rank_`, n_features)
        Column factors, :math:`H^\top`.

    mean_ : float
        Weighted mean of the observed entries.

    column_bias_ : ndarray of shape (n_features,)
        Column biases.

    column_mean_ : ndarray of shape (n_features,)
        Mean of the observed entries of each column, the baseline of `score`. The
        overall mean for a column without observed entries.

    rank_ : int
        Number of factors.

    noise_variance_ : ndarray of shape (n_features,), float or None
        Noise variance, per column or shared.

    row_precision_ : ndarray of shape (`rank_`,) or None
        Precision of the prior of each row factor.

    column_precision_ : ndarray of shape (`rank_`,) or None
        Precision of the prior of each column factor.

    eta_ : float
        The step size that was used: `eta`, or with ``eta="auto"`` the median over the
        steps of the last sweep.

    n_iter_ : int
        Number of sweeps.

    loss_curve_ : list of float
        With ``reg="auto"`` the evidence lower bound (ELBO) after each sweep, which
        never decreases; with a number F, which never increases.

    validation_curve_ : list of float or None
        Root mean squared error of the held-out entries after each sweep, None without
        `early_stopping`.

    reconstruction_err_ : float
        Root of the summed squared residuals over all observed entries; of twice the
        loss, if that is not squared error.

    timescale_ : ndarray of shape (`rank_`,) or None
        Time in which each factor forgets, in units of `times` (seconds for dates); None
        unless `fit` had times.

    seasonality_ : ndarray of shape (`rank_`,) or None
        Share of the variance of each factor that the day, week and year explain.

    residual_timescale_ : ndarray of shape (n_features,) or None
        Timescale of what the factors leave of each column, 0 if that is all noise.

    residual_variance_ : ndarray of shape (n_features,) or None
        Variance of what the factors leave of each column, without the noise.

    n_samples_seen_ : int or None
        Number of rows with entries in all batches of `partial_fit`, None after `fit`.

    n_features_in_ : int
        Number of features seen in `fit`, and of those that `fold_in_columns` added.

    feature_names_in_ : ndarray of shape (n_features,)
        Names of features seen in `fit`, where X has names that are all strings.

    See Also
    --------
    GradientMF : The same model with defaults for complete or nearly complete data.
    sklearn.impute.IterativeImputer : Predicts each column from all others.
    sklearn.impute.KNNImputer : Averages the most similar rows.

    Notes
    -----
    An entry is missing if it is NaN, False in `mask`, of weight 0, or not stored in a
    sparse X (CSR, CSC or COO; a stored zero is an observed zero). Time and memory grow
    with the number of observed entries: no array of the size of X is created.

    The model assumes that, given what is observed, whether a value is missing does not
    depend on the value itself. With ``reg="auto"`` "what is observed" includes which
    other entries of its row and column are observed, unless ``pattern=False``; with a
    number for `reg` it is only their values.

    With a number for `reg`: among all factors with the product Z, the minimum of
    :math:`\tfrac12 (\|W\|_F^2 + \|H\|_F^2)` is the nuclear norm of Z. The ridge is
    therefore a penalty on the nuclear norm, and if the rank is large enough, the
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
