"""Factorization of complete and nearly complete matrices."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ._base import BaseMatrixFactorization
from ._parameters import LossName, Solver


class GradientMF(BaseMatrixFactorization):
    r"""Matrix factorization of complete or nearly complete data by gradient methods.

    Finds row factors W and column factors H such that :math:`X \approx W H^\top`
    where X is observed, by minimizing

    .. math::

        F(W, H) = \tfrac12 \sum_{(i,j) \text{ observed}}
        \left(x_{ij} - w_i \cdot h_j\right)^2
        + \tfrac12 \, \mathrm{reg} \left(\|W\|_F^2 + \|H\|_F^2\right)

    Entries that are missing, NaN or False in `mask`, do not enter the sum. An entry
    that a sparse X does not store is an observed zero (:class:`MaskedGradientMF` treats
    it as missing). If such an X comes with an `entry_weight`, these zeros have a weight
    of 1: that is how clicks and purchases are factorized, see
    :ref:`implicit_feedback`. With `fit_bias` a mean and biases are added to
    :math:`w_i \cdot h_j`. The factors may have either sign.

    Read more in the :ref:`user guide <the-model>`.

    Parameters
    ----------
    rank : int, default=10
        Number of factors, the columns of W and of H. It may exceed the smaller side of
        X.

    eta : "auto" or float, default="auto"
        Step size.

        - "auto": each row takes the step that minimizes F along its direction; "scaled"
          and "als" are accelerated when progress is slow; with "sgd" the step of a row
          shrinks as its squared gradients add up. F never increases, there is nothing
          to tune, and the units of X do not matter.
        - A positive number: that step, always. For ``solver="gd"`` it multiplies the
          gradient of F in the units of X, for "sgd" the gradient of a single entry; for
          "scaled" and "als" it is a fraction of the full step, which is 1. A step that
          is too long raises a :class:`DivergenceError`, which names one that works.

    solver : {"auto", "gd", "scaled", "als", "sgd"}, default="auto"
        Direction of the steps.

        - "gd": the negative gradient.
        - "scaled": the gradient preconditioned by :math:`H^\top H + \mathrm{reg}\,I`,
          which all rows share [1]_ [2]_. Cheap when most entries are observed.
        - "als": each row moves to its exact least-squares solution. It takes fewer
          sweeps, each of which costs more.
        - "sgd": stochastic gradient descent, one step per observed entry [3]_. Provided
          to compare with the literature; the others are as fast and more exact.
        - "auto": "als" if values are missing and either the rank is at most 64 or rows
          and columns have at most ``2 * rank`` entries on average, and for a sparse X
          with an `entry_weight`; "scaled" otherwise.

    reg : "auto" or float, default=0.0
        Ridge: the weight of the squared factors in F, in units of X. Larger values
        shrink the factors more. "auto" learns the regularization of each factor from
        the data, see :class:`MaskedGradientMF`; it needs ``solver="als"`` or "auto",
        ``eta="auto"``, and dense X.

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
        Whether ``reg="auto"`` also learns from which entries are observed, see
        :class:`MaskedGradientMF`.

    n_draws : int, default=0
        With ``reg="auto"``: number of posterior samples to average, see
        :class:`MaskedGradientMF`.

    fit_bias : bool or "columns", default=False
        What is modelled besides the factors. True: the mean of the observed entries and
        a bias for each row and each column. "columns": the mean and the column biases.
        False: nothing, which suits data that are already centred.

    init : {"svd", "random"} or pair of array-like, default="svd"
        Starting factors.

        - "svd": the leading singular vectors of X with zeros for missing values,
          divided by the observed share. If the data are far from zero, means of rows
          and columns stand in for the missing values instead.
        - "random": Gaussian factors, scaled to suit X.
        - ``(W0, H0)``: these factors, of shape (n_samples, rank) and
          (n_features, rank).

    clip : (low, high) or "observed", default=None
        Range of predictions, as on a scale of ratings: those of `inverse_transform`,
        `predict_entries` and `recommend` outside of it become its nearest end.
        "observed": from the smallest to the largest observed entry in `fit`. `score` is
        that of predictions as the model makes them.

    max_iter : int, default=200
        Largest number of sweeps. A sweep moves all rows, then all columns.

    tol : float, default=1e-4
        The fit has converged when the decrease still to come, extrapolated
        geometrically from the last two sweeps, is below ``tol * F``. With 0 it runs for
        `max_iter` sweeps, or until F is rounding error, without a warning.

    random_state : int, RandomState instance or None, default=None
        Seed for ``init="random"``, for the entries that `early_stopping` holds out, and
        for the order in which "sgd" visits the entries. Nothing else is random.

    verbose : int, default=0
        If not 0, print the objective after each sweep.

    warm_start : bool, default=False
        Whether `fit` starts from the `components_` and biases of the previous fit
        instead of `init`; the row factors are solved for.

    early_stopping : bool, default=False
        Whether to hold out a share of the observed entries, stop when their error no
        longer decreases, and keep the factors where it was smallest. Needs dense X.

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

    noise_variance_, row_precision_, column_precision_ : ndarray or None
        Learned by ``reg="auto"``, see :class:`MaskedGradientMF`.

    eta_ : float
        The step size that was used: `eta`, or with ``eta="auto"`` the median over the
        steps of the last sweep.

    n_iter_ : int
        Number of sweeps.

    loss_curve_ : list of float
        F after each sweep; with ``reg="auto"`` the evidence lower bound (ELBO), which
        increases.

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
    MaskedGradientMF : The same model with defaults for data with many missing values.
    sklearn.decomposition.PCA : Orthogonal components of complete data.
    sklearn.decomposition.TruncatedSVD : The optimum for complete data and ``reg=0``.
    sklearn.decomposition.NMF : Nonnegative factors of complete data.

    Notes
    -----
    Given H, the rows of W are independent least-squares problems, and so are the rows
    of H given W. A sweep takes one step for every row of both. Row i, with gradient
    :math:`g_i`, moves along :math:`-P_i^{-1} g_i`; the solvers differ only in
    :math:`P_i`. F is not convex, but without missing values and biases "svd" starts at
    or near its minimum.

    W and H are unique only up to an invertible matrix between them (a rotation if
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
