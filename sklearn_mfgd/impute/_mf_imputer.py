"""Imputation of the missing values of a table by factorizing its columns."""

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
    r"""Imputation of missing values by matrix factorization.

    Columns are standardized, and :class:`MaskedGradientMF` finds

    .. math::

        \frac{x_{ij} - m_j}{s_j} = c_j + w_i \cdot h_j + \epsilon_{ij}, \qquad
        \epsilon_{ij} \sim N(0, 1 / \alpha_j)

    from the observed entries, with the mean :math:`m_j` and the standard deviation
    :math:`s_j` of the observed entries of column j. Variational Bayes [1]_ learns from
    the data how many factors there are, how much each is regularized, and how noisy
    each column is. A missing value is replaced by its expectation given the other
    entries of its row; observed values are returned unchanged. Rows that `fit` has not
    seen are imputed in the same way and change nothing.

    Read more in the :ref:`user guide <imputation>`.

    Parameters
    ----------
    rank : int or "auto", default="auto"
        Maximum number of factors. "auto": one less than the number of rows or of
        columns that vary, whichever is smaller, but at most 50.

    missing_values : int, float, np.nan or pandas.NA, default=np.nan
        The placeholder of missing values; NaN and pandas.NA mean the same. With any
        other value, which is rounded to the type of the column, NaN in X is an error.
        Masked entries of a `numpy.ma.MaskedArray` are always missing. In a column of
        categories only what pandas takes for missing is.

    reg : "auto" or float, default="auto"
        "auto" learns the regularization of each factor; a number is the ridge for all
        of them, in units of the standardized columns, see :class:`MaskedGradientMF`.

    solver : {"auto", "gd", "scaled", "als", "sgd"}, default="auto"
        Direction of the steps if `reg` is a number.

    eta : "auto" or float, default="auto"
        Step size if `reg` is a number.

    loss : str or dict, default="squared"
        The loss of all columns, or a dictionary with those of some columns, by their
        names or numbers: "squared", "huber", "student_t", "logistic" or "poisson", see
        :class:`MaskedGradientMF` and :doc:`/which_loss`. Columns of "logistic" and
        "poisson" are not standardized, those of "huber" and "student_t" by medians.
        What is imputed is on the scale of X: probabilities and rates.

    noise : {"column", "shared"}, default="column"
        Whether one noise variance per column is learned or a shared one.

    scale : bool, default=True
        Whether each column is divided by its own standard deviation, or all columns by
        the pooled one. False suits columns in the same unit, when those that vary more
        are to count more.

    marginal : {"none", "normal", "auto"}, default="none"
        What is factorized: with "none" the columns, with "normal" their normal scores.
        A score is the quantile of the standard normal distribution at the rank of a
        value in its column, so skewed columns and outliers become harmless, and no
        value is imputed outside the range that was observed. "auto" fits both and
        weighs them in each column by how well they predict hidden entries, in four
        times the time or, in small tables, ten. Needs ``reg="auto"``.

    statistic : {"mean", "median"}, default="mean"
        Which value of its distribution replaces a missing one. The mean has the least
        squared error, the median the least absolute error; without `marginal` they are
        equal, and a `loss` of counts or of answers has the mean.

    discrete : {"mean", "nearest"}, default="mean"
        What is imputed in columns whose observed values are all whole numbers: with
        "mean" any number, with "nearest" the observed value within `min_value` and
        `max_value` that is nearest to it.

    residual : regressor or None, default=None
        A regressor of scikit-learn, such as
        :class:`~sklearn.ensemble.ExtraTreesRegressor`, that predicts, for each column,
        what the factors leave of it, from the other columns and what the factors say of
        this one, in standardized units. It learns from entries that were hidden from
        the factors (five folds of them, so a fit takes six times the time and that of
        the regressors), and is weighted by how well it predicts entries that it has not
        seen. New rows are corrected in the same way.

    max_iter : int, default=200
        Maximum number of sweeps.

    tol : float, default=1e-3
        Tolerance of the convergence criterion, see :class:`MaskedGradientMF`.

    sample_posterior : bool, default=False
        Whether missing values are sampled from their posterior instead of replaced by
        its mean: row factors, column factors and noise are sampled by Gibbs sampling
        [2]_. Use it for multiple imputation, with a different `random_state` for each
        [3]_. Needs ``reg="auto"``.

    min_value, max_value : float or array-like of shape (n_features,)
        Limits of imputed values, for all columns or for each; the defaults, -inf and
        inf, are no limits. Observed values are left as they are. A mean beyond a limit
        is replaced by that limit; with ``sample_posterior=True`` values are sampled
        from the normal distribution truncated there.

    add_indicator : bool, default=False
        Whether to append an indicator column for each feature with missing values in
        `fit`, as :class:`sklearn.impute.MissingIndicator` does.

    keep_empty_features : bool, default=False
        Whether columns without any value in `fit` are kept. If not, `fit` warns of
        them and `transform` leaves them out. In a column that is kept, missing values
        are replaced by zero, or by the limit that is nearest to it; in a column of
        categories, by the first of these.

    time : "index", str or None, default=None
        Where a data frame X has the times of its rows, for pipelines that pass no
        `times`: "index" for its index, or the name of a column, which is taken out of
        the table and is no feature. See :ref:`rows_in_time`.

    random_state : int, RandomState instance or None, default=None
        Seed for ``sample_posterior=True`` (with a number every call of `transform`
        returns the same samples), for ``solver="sgd"``, and for the choice of hidden
        entries with ``marginal="auto"`` and with `residual`; nothing else is random.

    verbose : int, default=0
        If not 0, print the objective after each sweep.

    Attributes
    ----------
    factorization_ : MaskedGradientMF
        The factorization of the standardized columns that are not constant; with
        ``marginal="normal"`` of their normal scores.

    marginal_weights_ : ndarray of shape (n_features,) or None
        With ``marginal="auto"`` the weight of the factorization of normal scores in
        each column; that of the columns as they are has the rest. None otherwise.

    residual_weights_ : ndarray of shape (n_features,) or None
        Weight, from 0 to 1, of what the regressor of each column predicts; None without
        `residual`.

    mean_ : ndarray of shape (n_features,)
        Mean of each column, with ``marginal="normal"`` of its normal scores.

    scale_ : ndarray of shape (n_features,)
        Standard deviation of each column, or of its normal scores.

    rank_ : int
        Number of factors that the fit kept.

    n_iter_ : int
        Number of sweeps.

    indicator_ : MissingIndicator or None
        The transformer that adds the columns of `add_indicator`.

    timescale_ : ndarray of shape (`rank_`,) or None
        Time in which each factor forgets, in units of `times` (seconds for dates); None
        unless `fit` had times.

    seasonality_ : ndarray of shape (`rank_`,) or None
        Share of the variance of each factor that the day, week and year explain.

    residual_timescale_ : ndarray of shape (n_features,) or None
        Timescale of what the factors leave of each column, 0 if that is all noise.

    residual_variance_ : ndarray of shape (n_features,) or None
        Variance of what the factors leave of each column, without the noise.

    n_features_in_ : int
        Number of features seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen in `fit`, where X has names that are all strings.

    See Also
    --------
    MaskedGradientMF : The factors themselves; sparse data.
    sklearn.impute.IterativeImputer : Predicts each column from the others.
    sklearn.impute.KNNImputer : Averages the most similar rows.

    Notes
    -----
    Values are assumed to be missing at random: whether a value is missing may depend on
    what is observed, but not on the value itself.

    A pandas data frame may have columns of categories, of dtype "category". Ordered
    categories are encoded as 0, 1, 2, ..., and a missing one is replaced by the one
    nearest to its expectation, or to a sample. Unordered categories are encoded as the
    principal components of their indicators, one column less than categories that
    occur in `fit`. A logistic regression on what the other columns of the row tell of
    these components gives the probabilities that ``impute(X, return_proba=True)``
    returns; for rows in time, they are those nearest to the expected indicators. A
    missing category is replaced by the most probable one or, with
    ``sample_posterior=True``, sampled by its probability. `transform` then returns a
    data frame like X.

    Squared errors are sensitive to gross outliers: a single value a thousand deviations
    off can spoil all imputed values of its column. Mark such values as missing first;
    the :ref:`user guide <outliers>` shows how.

    A table of more than 250,000 entries is factorized in single precision: without any
    noise, imputed values are exact to about a thousandth of the standard deviation of
    their column. Observed values are never rounded.

    References
    ----------
    .. [1] A. Ilin, T. Raiko, "Practical Approaches to Principal Component Analysis in
       the Presence of Missing Values", Journal of Machine Learning Research 11 (2010).
    .. [2] R. Salakhutdinov, A. Mnih, "Bayesian Probabilistic Matrix Factorization using
       Markov Chain Monte Carlo", ICML (2008).
    .. [3] D. B. Rubin, "Multiple Imputation for Nonresponse in Surveys", Wiley (1987).

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

    The uncertainty of the imputed values:

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
        """Learn from the observed entries of X how to impute the missing ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Table with missing values.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each row, in means and scales and in the squared error. A row of
            weight 0 is left out. `transform` imputes rows of average weight, so a
            common factor on all weights changes nothing.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of each entry; 0 means missing. The two weights are multiplied.
        times : array-like of shape (n_samples,), default=None
            Time of each row, numbers or dates (datetime64): rows that are near in time
            inform one another. Only with ``reg="auto"``; see :ref:`rows_in_time`.
        groups : array-like of shape (n_samples,), default=None
            Labels of the series of each row; different series are independent.

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
