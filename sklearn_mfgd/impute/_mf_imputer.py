"""The imputer of a table by the factors of its columns."""

from collections.abc import Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    MissingValues,
    StrOptions,
)

from .._data.discrete import levels_of_whole_numbers
from .._data.labels import refuse_other_labels
from .._data.observed import warn_if_constant
from .._data.table_weights import weighted_rows
from .._data.target import check_target
from .._learning import CallbackSupportMixin, begin_tasks
from .._parameters import CONSTRAINTS, SHARED_PARAMETERS, Data, LossName, Solver
from .._state import PlainStateMixin, all_or_nothing
from ._columns import Table, Wanted
from ._factored_columns import FactoredColumnsMixin
from ._filling import FillingMixin, check_limits, check_together, table_in_time
from ._marginals import fit_marginals
from ._refusals import no_mask, refusing_mask
from ._residual import learn_residual


class MFImputer(
    CallbackSupportMixin,
    FactoredColumnsMixin,
    FillingMixin,
    PlainStateMixin,
    BaseEstimator,
):
    r"""Fill in the missing values of a table from what its columns have in common.

    The imputer standardizes the columns and describes them by a few hidden factors:

    .. math::

        \frac{x_{ij} - m_j}{s_j} = c_j + w_i \cdot h_j + \epsilon_{ij}, \qquad
        \epsilon_{ij} \sim N(0, 1 / \alpha_j)

    Here :math:`m_j` and :math:`s_j` are the mean and the standard deviation of the
    observed entries of column j, :math:`c_j` is a bias, :math:`w_i` and :math:`h_j` are
    the factors of row i and column j, and ε is noise with precision :math:`\alpha_j`.
    :class:`MaskedGradientMF` learns how many factors to keep, how much to shrink each,
    and how noisy each column is, by variational Bayes [1]_. The expected value, given
    the observed entries of the row, replaces a missing value. Observed values are
    returned unchanged, and new rows are imputed in the same way. Read more in the
    :ref:`user guide <imputation>`.

    Parameters
    ----------
    rank : int or "auto", default="auto"
        Largest number of factors. "auto" is 50, or less in small tables: one less than
        the number of rows, or of columns that are not constant. Leave it at "auto"
        unless `rank_` reaches 50.
    missing_values : int, float, np.nan or pandas.NA, default=np.nan
        The placeholder of missing values; NaN and pandas.NA mean the same. With any
        other placeholder, NaN in X raises an error. The placeholder is rounded to the
        type of the column. Masked entries of a `numpy.ma.MaskedArray` are always
        missing. Categories are missing where pandas says so.
    reg : "auto" or float, default="auto"
        "auto" learns how much to shrink each factor. A number is the ridge of all
        factors, in units of the standardized columns. Leave it at "auto" unless you
        have tuned a ridge.
    solver : {"auto", "gd", "scaled", "als", "sgd"}, default="auto"
        Direction of the steps if `reg` is a number, see :class:`GradientMF`.
    eta : "auto" or float, default="auto"
        Step size if `reg` is a number, see :class:`GradientMF`.
    loss : str or dict, default="squared"
        "squared", "huber", "student_t", "logistic" or "poisson" for all columns, or a
        dictionary for some of them, by names or numbers. Change it for outliers, counts
        and columns of 0 and 1, see :doc:`/which_loss`. Columns of "huber" and
        "student_t" are standardized by medians. Columns of "logistic" and "poisson" are
        not standardized, and imputed values are probabilities and expected counts.
    noise : {"column", "shared"}, default="column"
        Whether to learn one noise variance for each column, or one for all.
    scale : bool, default=True
        Whether to divide each column by its own standard deviation, or all columns by
        the pooled one. False suits columns in the same unit, if columns that vary more
        should count more.
    marginal : {"none", "normal", "auto"}, default="none"
        Change it for skewed columns. "normal" replaces a value by its normal score: the
        quantile of the standard normal distribution at its rank in the column. Outliers
        are then harmless, and imputed values stay in the observed range. "auto" fits
        both and weighs them in each column by their errors at hidden entries. It takes
        four times as long, or ten times in small tables. Needs ``reg="auto"``.
    statistic : {"mean", "median"}, default="mean"
        Whether the mean or the median of its distribution replaces a missing value. The
        mean has the least squared error, the median the least absolute error. They
        differ only with `marginal`. Columns of "logistic" and "poisson" always use the
        mean.
    discrete : {"mean", "nearest"}, default="mean"
        What to impute in columns of whole numbers. "mean" imputes the expected value,
        which need not be a whole number. "nearest" imputes the nearest observed value
        between `min_value` and `max_value`.
    residual : regressor or None, default=None
        A regressor such as :class:`~sklearn.ensemble.ExtraTreesRegressor` that corrects
        the imputed values. It helps if columns depend on each other in curves rather
        than straight lines. It learns from observed entries that are hidden from the
        factors, in five folds. A fit therefore takes six times as long, and the time of
        the regressors comes on top. Its weight in a column depends on how well it
        predicts entries that it has not seen.
    max_iter : int, default=200
        Largest number of sweeps. Increase it after a ConvergenceWarning.
    tol : float, default=1e-3
        When to end the fit, see :class:`MaskedGradientMF`.
    sample_posterior : bool, default=False
        Whether to replace a missing value by a sample from its distribution, noise
        included, instead of its mean. Use it for multiple imputation [3]_, with another
        `random_state` for each table. Gibbs sampling [2]_ generates the samples. Needs
        ``reg="auto"``.
    min_value, max_value : float or array-like of shape (n_features,)
        Limits of imputed values, for all columns or for each; the defaults, -inf and
        inf, are no limits. An expected value beyond a limit is replaced by the limit.
        With ``sample_posterior=True`` samples come from the distribution truncated at
        the limits.
    add_indicator : bool, default=False
        Whether to append, for each feature with missing values in `fit`, a column that
        says where values were imputed, as :class:`sklearn.impute.MissingIndicator`
        does.
    keep_empty_features : bool, default=False
        Whether to keep columns without any value in `fit`. If not, `fit` warns of them
        and `transform` leaves them out. In a column that is kept, missing values become
        zero, or the limit nearest to zero; in a column of categories, the first one.
    time : "index", str or None, default=None
        Where a data frame X has the times of its rows: "index", or the name of a
        column, which is then not used as a feature. Use it in pipelines, which pass no
        `times`. See :ref:`rows_in_time`.
    random_state : int, RandomState instance or None, default=None
        Seed for ``sample_posterior=True`` (with a number every call of `transform`
        returns the same samples), for ``solver="sgd"``, and for the choice of hidden
        entries with ``marginal="auto"`` and with `residual`.
    verbose : int, default=0
        If not 0, print the objective after each sweep.

    Attributes
    ----------
    factorization_ : MaskedGradientMF
        The factorization of the standardized columns that are not constant, or with
        ``marginal="normal"`` of their normal scores.
    marginal_weights_ : ndarray of shape (n_features,) or None
        With ``marginal="auto"``: the weight, from 0 to 1, of normal scores in each
        column.
    residual_weights_ : ndarray of shape (n_features,) or None
        Weight, from 0 to 1, of the corrections by `residual` in each column.
    mean_ : ndarray of shape (n_features,)
        Mean of each column, or with ``marginal="normal"`` of its normal scores.
    scale_ : ndarray of shape (n_features,)
        Standard deviation of each column, or of its normal scores.
    rank_ : int
        Number of factors that the fit kept. It is near the true number if the data are
        a sum of few factors, but a factor more or less hardly changes imputed values.
    n_iter_ : int
        Number of sweeps.
    indicator_ : MissingIndicator or None
        The transformer that adds the columns of `add_indicator`.
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
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen in `fit`, if X has names that are all strings.

    See Also
    --------
    StackingImputer : Often more accurate, in much more time.
    MaskedGradientMF : The factors themselves, also of sparse matrices.
    sklearn.impute.IterativeImputer : Predicts each column from the others.
    sklearn.impute.KNNImputer : Averages the most similar rows.

    Notes
    -----
    Values are assumed to be missing at random: whether a value is missing may depend on
    what is observed, but not on the value itself.

    A pandas data frame may have columns of categories, of dtype "category". `transform`
    then returns a data frame with the same columns. Ordered categories are encoded as
    0, 1, 2, ..., and the category nearest to the expected value, or to a sample, is
    imputed. Unordered categories are encoded as the principal components of their
    indicators. A logistic regression on the expected components gives the probability
    of each category, which ``impute(X, return_proba=True)`` returns. For rows in time
    there is no regression: the probabilities are those nearest to the expected
    indicators. The most probable category is imputed or, with
    ``sample_posterior=True``, a sample by these probabilities.

    A single value that is a thousand standard deviations off can spoil all imputed
    values of its column. Mark such values as missing first; the :ref:`user guide
    <outliers>` shows how.

    A table of more than 250,000 entries is factorized in single precision. If the data
    have no noise, imputed values are exact to about a thousandth of the standard
    deviation of their column. Observed values are never rounded.

    References
    ----------
    .. [1] Ilin, A. and Raiko, T. (2010). Practical Approaches to Principal Component
       Analysis in the Presence of Missing Values. Journal of Machine Learning Research
       11.
    .. [2] Salakhutdinov, R. and Mnih, A. (2008). Bayesian Probabilistic Matrix
       Factorization using Markov Chain Monte Carlo. ICML.
    .. [3] Rubin, D. B. (1987). Multiple Imputation for Nonresponse in Surveys. Wiley.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mfgd import MFImputer
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 30))
    >>> X = truth + 0.1 * rng.normal(size=truth.shape)
    >>> hidden = rng.random(X.shape) < 0.3
    >>> X[hidden] = np.nan
    >>> imputer = MFImputer()
    >>> filled = imputer.fit_transform(X)
    >>> imputer.rank_, int(np.isnan(filled).sum())
    (2, 0)
    >>> print(f"{np.sqrt(np.mean((filled - truth)[hidden] ** 2)):.2f}")
    0.04

    More than 90 % of the true values are within two standard deviations of the imputed
    ones:

    >>> filled, std = imputer.impute(X, return_std=True)
    >>> bool(np.mean(np.abs(filled - truth)[hidden] < 2 * std[hidden]) > 0.9)
    True

    A data frame with a column of categories:

    >>> import pandas as pd
    >>> table = pd.DataFrame(X).add_prefix("x")
    >>> table["sign"] = pd.Series(np.sign(truth[:, 0])).map({-1: "minus", 1: "plus"})
    >>> table["sign"] = table["sign"].where(~hidden[:, 1]).astype("category")
    >>> filled, proba = MFImputer().fit(table).impute(table, return_proba=True)
    >>> list(proba["sign"]), int(filled["sign"].isna().sum())
    (['minus', 'plus'], 0)
    """

    _parameter_constraints: dict = {
        "rank": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "missing_values": [MissingValues(numeric_only=True)],
        "loss": CONSTRAINTS["loss"],
        "scale": ["boolean"],
        "marginal": [StrOptions({"none", "normal", "auto"})],
        "statistic": [StrOptions({"mean", "median"})],
        "discrete": [StrOptions({"mean", "nearest"})],
        "residual": [HasMethods(["fit", "predict"]), None],
        "sample_posterior": ["boolean"],
        "min_value": [Interval(Real, None, None, closed="both"), "array-like"],
        "max_value": [Interval(Real, None, None, closed="both"), "array-like"],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
        "time": [str, None],
        **{name: CONSTRAINTS[name] for name in SHARED_PARAMETERS},
    }

    def __init__(
        self,
        rank: Literal["auto"] | int = "auto",
        *,
        missing_values: Any = np.nan,
        reg: Literal["auto"] | float = "auto",
        solver: Solver = "auto",
        eta: Literal["auto"] | float = "auto",
        loss: LossName | Mapping = "squared",
        noise: Literal["column", "shared"] = "column",
        scale: bool = True,
        marginal: Literal["none", "normal", "auto"] = "none",
        statistic: Literal["mean", "median"] = "mean",
        discrete: Literal["mean", "nearest"] = "mean",
        residual: Any = None,
        max_iter: int = 200,
        tol: float = 1e-3,
        sample_posterior: bool = False,
        min_value: ArrayLike = -np.inf,
        max_value: ArrayLike = np.inf,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        time: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.rank = rank
        self.missing_values = missing_values
        self.reg = reg
        self.solver = solver
        self.eta = eta
        self.loss = loss
        self.noise = noise
        self.scale = scale
        self.marginal = marginal
        self.statistic = statistic
        self.discrete = discrete
        self.residual = residual
        self.max_iter = max_iter
        self.tol = tol
        self.sample_posterior = sample_posterior
        self.min_value = min_value
        self.max_value = max_value
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.time = time
        self.random_state = random_state
        self.verbose = verbose

    @refusing_mask
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Data,
        y: Data = None,
        *,
        sample_weight: Data = None,
        entry_weight: Data = None,
        times: Data = None,
        groups: Data = None,
    ) -> Self:
        """Learn from the observed entries of X how to fill in missing values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Table with missing values.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, in means, scales and errors. A row of weight 0 is left
            out. Multiplying all weights by the same number changes nothing.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of each entry; 0 means missing. It multiplies `sample_weight`.
        times : array-like of shape (n_samples,), default=None
            Time of each row: numbers or dates (datetime64). Rows that are near in time
            then inform one another. Needs ``reg="auto"``, see :ref:`rows_in_time`.
        groups : array-like of shape (n_samples,), default=None
            Label of the series that each row belongs to, if there are several. Rows of
            different series do not inform one another.

        Returns
        -------
        self : object
            Fitted imputer.

        Raises
        ------
        ValueError
            If every entry of X is missing, or a parameter does not suit the data.
        """
        check_target(y, X, no_mask(self), stacklevel=5)
        metadata = {
            "sample_weight": sample_weight,
            "entry_weight": entry_weight,
            "times": times,
            "groups": groups,
        }
        tasks = begin_tasks(self, X, y, **metadata)
        with all_or_nothing(self):
            X, timeline = table_in_time(X, self.time, times, groups)
            self._fit(X, sample_weight, entry_weight, timeline, tasks)
            # In time a category is imputed from those of its neighbours, too, and what
            # is expected without these is another quantity.
            if self._has_unordered() and not self.factorization_._model.has_times:
                self._fit_links(X, sample_weight, entry_weight)
        return self

    def _fit(self, X, sample_weight, entry_weight, timeline, tasks):
        check_together(self)
        refuse_other_labels(X, entry_weight=entry_weight)
        X, missing = self._validate(X, reset=True)
        self._refuse_outside_losses(X, missing)
        limits = check_limits(self.min_value, self.max_value, self.n_features_in_)
        self._limits = self._encoded_limits(limits)
        entry_weight = self._encoded_weights(entry_weight, len(X))
        self.indicator_ = self._fit_indicator(missing)
        X, missing, weights, rows = weighted_rows(
            X, missing, sample_weight, entry_weight
        )
        if timeline is not None and rows is not None:
            timeline = timeline.take(rows)
        self._note_filled(missing)
        warn_if_constant(X[~missing], X.shape)
        self._levels = None
        if self.discrete == "nearest":
            self._levels = levels_of_whole_numbers(X, missing, self._limits)
        table = Table(X, missing, weights, timeline, self._features(X.shape[1]))
        rng = check_random_state(self.random_state)
        options = {"limits": self._limits, "rng": rng}
        settings, wanted = self._settings(), Wanted(self.statistic)
        kind = {"settings": settings, "marginal": self.marginal, "wanted": wanted}
        fit = partial(fit_marginals, **kind, **options)
        on_sweep = partial(self._on_sweep, tasks) if tasks is not None else None
        base = fit(table, on_sweep=on_sweep)
        self._residual = None
        if self.residual is not None:
            self._residual = learn_residual(
                table,
                partial(fit, weights=base.weights),
                wanted,
                self.residual,
                **options,
            )
        self._base = base
        if tasks is not None:
            tasks.end()
