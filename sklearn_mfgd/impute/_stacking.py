"""The imputer that weighs several imputers by their errors at hidden entries."""

from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    MissingValues,
    RealNotInt,
    StrOptions,
)
from sklearn.utils.metaestimators import _BaseComposition

from .._data.categories import UNORDERED
from .._data.standardize import Standardization
from .._data.target import check_target
from .._parameters import Data
from .._state import PlainStateMixin, all_or_nothing
from . import _residual as residual
from ._filling import check_limits
from ._members import check_names, default_imputers, default_regressor, prepared
from ._refusals import no_mask, refusing_mask
from ._stack_filling import StackFillingMixin
from ._stack_fit import (
    GivenTable,
    HeldOut,
    Hidden,
    errors_of_features,
    fit_members,
    predict_hidden,
    root_mean_square,
    stacked_at_hidden,
)
from ._stack_spread import mean_deviations
from ._stack_weights import HiddenErrors, deviation_factors, parts_of, stack_weights
from ._tables import TableMixin


class StackingImputer(TableMixin, StackFillingMixin, PlainStateMixin, _BaseComposition):
    r"""Fill in a table by a weighted mean of several imputers.

    The stack hides a share of the observed entries, fits every imputer to the others,
    and compares what each imputes with the hidden values. An imputer gets a large
    weight in the columns where it is accurate. Then the stack fits all imputers again,
    to everything. The mean is often more accurate than any single imputer, but it takes
    much longer than :class:`MFImputer` alone. Observed values are returned unchanged.
    Read more in the :ref:`user guide <stacking>`.

    The weights w of column j are not negative, sum to one and minimize [1]_

    .. math:: w^\top (E_j + \lambda E) w.

    Here :math:`E_j` is the sum of :math:`e e^\top` over the hidden entries of the
    column, where e are the errors of the imputers at an entry, in standard deviations
    of the column. E is the mean of :math:`e e^\top` over all hidden entries. The term
    λE shrinks the weights of a column towards those of the whole table, which counts as
    much as λ hidden entries of the column.

    Parameters
    ----------
    imputers : "auto" or list of (str, imputer), default="auto"
        Names and imputers. An imputer must fill every missing value and keep the
        columns. The stack clones each, sets `keep_empty_features` to True,
        `add_indicator` to False and `missing_values` to NaN in the clone, and passes
        NaN where values are missing. "drop" in place of an imputer leaves it out.
        "auto" combines

        - :class:`MFImputer`, once as it is and once with ``marginal="normal"``;
        - :class:`sklearn.impute.KNNImputer` on standardized columns, in tables of up to
          20,000 rows;
        - extremely randomized trees that predict each column from the others, after
          :class:`MFImputer` has filled these, if rows times the square of columns are
          at most 20 million;
        - :class:`MFImputer` with up to 80 factors, in tables of more than 51 rows and
          columns.
    residual : "auto", regressor or None, default="auto"
        A regressor that corrects the weighted mean in each column, as `residual` of
        :class:`MFImputer` does. It learns from the hidden entries. "auto": extremely
        randomized trees if `imputers` is "auto" and includes trees, else None.
    weights : {"column", "table"}, default="column"
        Whether each column has weights of its own, or all columns have the same.
    statistic : {"mean", "median"}, default="mean"
        Choose "mean" for small squared errors, "median" for small absolute errors. It
        also sets `statistic` of the imputers of "auto", but not of imputers in a list.
    test_size : float or int, default=0.2
        Share or number of the observed entries to hide at a time. One entry of each row
        and three of each column are never hidden, nor is any of a constant column. With
        fewer than 10 hidden entries all imputers have the same weight.
    cv : int or None, default=None
        With a number: the entries are divided into this many folds, and each imputer is
        fitted once for each fold. None: the stack hides `test_size` of the entries in
        the pattern of the missing ones: it hides in a row what is missing in another
        row. It repeats this up to five times, until 20,000 entries have been hidden.
    shrinkage : "auto" or float, default="auto"
        The number λ of entries that the table counts as. Leave it at "auto", which
        chooses from 20 to 1000 and infinity by cross-validation: weights that are
        learned from four fifths of the hidden entries are tested on the last fifth.
    missing_values : int, float, np.nan or pandas.NA, default=np.nan
        The placeholder of missing values, see :class:`MFImputer`.
    min_value, max_value : float or array-like of shape (n_features,)
        Limits of imputed values, for all columns or for each; the defaults, -inf and
        inf, are no limits. An imputed value beyond a limit is replaced by the limit.
    add_indicator : bool, default=False
        Whether to append, for each feature with missing values in `fit`, a column that
        says where values were imputed, as :class:`sklearn.impute.MissingIndicator`
        does.
    keep_empty_features : bool, default=False
        Whether to keep columns without any value in `fit`. If not, `fit` warns of them
        and `transform` leaves them out. In a column that is kept, missing values become
        zero, or the limit nearest to zero. No imputer sees these columns.
    n_jobs : int or None, default=None
        Number of fits that run at the same time. None is 1 unless a
        ``joblib.parallel_backend`` says otherwise; -1 uses all processors.
    random_state : int, RandomState instance or None, default=None
        Seed for the choice of hidden entries, and for each `random_state` of an imputer
        that is None.
    verbose : int, default=0
        If not 0, print the error and the seconds of each fit with hidden entries, and
        the error of the stack.

    Attributes
    ----------
    imputers_ : list of imputers
        The fitted imputers, without those that are "drop".
    named_imputers_ : Bunch
        The fitted imputers by name.
    weights_ : ndarray of shape (n_imputers, n_features)
        Weights of the imputers in each column, from 0 to 1. A column without hidden
        entries has the weights of the table.
    errors_ : ndarray of shape (n_imputers, n_features)
        Root mean squared error of each imputer at the hidden entries of each column, in
        units of X; NaN without hidden entries. In a column of ordered categories the
        unit is one step to the next category. For unordered categories the squared
        errors of the indicators of all categories are added up.
    stacked_errors_ : ndarray of shape (n_features,)
        The same error for the stack, at entries that its weights have not seen: the
        weights for a fifth of the hidden entries come from the other four fifths.
    shrinkage_ : float
        The number λ; infinite if all columns have the weights of the table.
    indicator_ : MissingIndicator or None
        The transformer that adds the columns of `add_indicator`.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of features seen in `fit`, if X has names that are all strings.

    See Also
    --------
    MFImputer : Imputation by factors alone: quicker, and for rows in time.
    sklearn.ensemble.StackingRegressor : The same for regressors.

    Notes
    -----
    The stack does not pass weights or times to the imputers.

    A pandas data frame may have columns of categories, of dtype "category", which are
    encoded as in :class:`MFImputer`. `transform` then returns a data frame with the
    same columns. The imputers see arrays of encoded columns; all columns that encode
    one category are hidden together and have the same weights. ``impute(X,
    return_proba=True)`` returns probabilities from a logistic regression of the hidden
    categories on what the stack predicts for them. If some category of a column was
    never hidden, the probabilities are those nearest to the expected indicators.

    References
    ----------
    .. [1] Breiman, L. (1996). Stacked Regressions. Machine Learning 24.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.impute import KNNImputer, SimpleImputer
    >>> from sklearn_mfgd import StackingImputer
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(300, 6))
    >>> X[:, 1] = np.sin(3 * X[:, 0])  # the other columns are independent
    >>> X[rng.random(X.shape) < 0.1] = np.nan
    >>> members = [("mean", SimpleImputer()), ("neighbours", KNNImputer())]
    >>> stack = StackingImputer(members, random_state=0).fit(X)
    >>> filled = stack.transform(X)
    >>> int(np.isnan(filled).sum())
    0

    In the first two columns, these are the errors of both imputers, the error of the
    stack, and the weights of the imputers:

    >>> print(stack.errors_[:, :2].round(2))
    [[1.04 0.71]
     [1.14 0.55]]
    >>> print(stack.stacked_errors_[:2].round(2))
    [1.05 0.55]
    >>> print(stack.weights_[:, :2].round(2))
    [[1. 0.]
     [0. 1.]]
    """

    _takes_categories = True

    _parameter_constraints: dict = {
        "imputers": [StrOptions({"auto"}), list],
        "residual": [StrOptions({"auto"}), HasMethods(["fit", "predict"]), None],
        "weights": [StrOptions({"column", "table"})],
        "statistic": [StrOptions({"mean", "median"})],
        "test_size": [
            Interval(RealNotInt, 0, 1, closed="neither"),
            Interval(Integral, 1, None, closed="left"),
        ],
        "cv": [Interval(Integral, 2, None, closed="left"), None],
        "shrinkage": [StrOptions({"auto"}), Interval(Real, 0, None, closed="both")],
        "missing_values": [MissingValues(numeric_only=True)],
        "min_value": [Interval(Real, None, None, closed="both"), "array-like"],
        "max_value": [Interval(Real, None, None, closed="both"), "array-like"],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        imputers: Literal["auto"] | list[tuple[str, Any]] = "auto",
        *,
        residual: Any = "auto",
        weights: Literal["column", "table"] = "column",
        statistic: Literal["mean", "median"] = "mean",
        test_size: float = 0.2,
        cv: int | None = None,
        shrinkage: Literal["auto"] | float = "auto",
        missing_values: Any = np.nan,
        min_value: ArrayLike = -np.inf,
        max_value: ArrayLike = np.inf,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.imputers = imputers
        self.residual = residual
        self.weights = weights
        self.statistic = statistic
        self.test_size = test_size
        self.cv = cv
        self.shrinkage = shrinkage
        self.missing_values = missing_values
        self.min_value = min_value
        self.max_value = max_value
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def get_params(self, deep: bool = True) -> dict:
        """Return the parameters of the stack and of its imputers.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the imputers by name, and their parameters as
            ``name__parameter``.

        Returns
        -------
        params : dict
            Values of parameters by name.
        """
        return self._get_params("imputers", deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the stack or of its imputers, or replace an imputer.

        Parameters
        ----------
        **params : dict
            Values by name, as `get_params` returns them. ``name="drop"`` leaves out
            the imputer of that name.

        Returns
        -------
        self : object
            The stack.
        """
        self._set_params("imputers", **params)
        return self

    # The imputers check their own parameters.
    @refusing_mask
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Data, y: Data = None) -> Self:
        """Weigh the imputers by their errors at hidden entries, and fit them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Table with missing values.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : object
            Fitted imputer.

        Raises
        ------
        ValueError
            If every entry of X is missing, or an imputer leaves values missing or
            changes the columns; the message names it.
        """
        check_target(y, X, no_mask(self), stacklevel=5)
        with all_or_nothing(self):
            self._fit(X)
        return self

    def _fit(self, X):
        X, missing = self._validate(X, reset=True)
        limits = check_limits(self.min_value, self.max_value, self.n_features_in_)
        self._limits = self._encoded_limits(limits)
        self.indicator_ = self._fit_indicator(missing)
        self._note_filled(missing)
        X = self._for_members(X, missing)
        self._standardization = Standardization.of(X, np.isnan(X), scale=True)
        limits = [limit[self._filled] for limit in self._limits]
        rng = check_random_state(self.random_state)
        features = self._features(len(self._filled))[self._filled]
        hidden = Hidden.of(X, features, self.test_size, self.cv, rng)
        members = [
            (name, prepared(imputer, rng)) for name, imputer in self._chosen(X.shape)
        ]
        self._residual = None
        if len(hidden.rows):
            table = GivenTable(X, self._standardization, limits)
            held_out = predict_hidden(members, table, hidden, self.n_jobs, self.verbose)
            errors = self._learn_weights(hidden, held_out, features)
            stacked = self._learn_residual(X, hidden, held_out.predicted, rng)
            self._learn_links_of_hidden(X, stacked)
            if self._residual is not None:
                errors = errors * self._residual.ratio[hidden.columns]
            each = np.vstack([held_out.errors.T, errors])
            scale, n_features = self._standardization.scale, self.n_features_in_
            rms = errors_of_features(each, hidden, features, scale, n_features)
            self.errors_, self.stacked_errors_ = rms[:-1], rms[-1]
        else:
            self._weigh_equally(len(members))
        self._names = [name for name, _ in members]
        self.imputers_ = fit_members(members, X, self.n_jobs)

    def _chosen(self, shape: tuple[int, int]) -> list[tuple]:
        """Return names and imputers for a table of this shape."""
        if isinstance(self.imputers, str):
            return default_imputers(*shape, self.statistic)
        return check_names(self, self.imputers)

    def _learn_weights(
        self, hidden: Hidden, held_out: HeldOut, features: np.ndarray
    ) -> np.ndarray:
        """Learn weights from what was hidden; return the errors of the stack.

        All encoded columns of a feature have the same weights.
        """
        columns = features[hidden.columns]
        parts = parts_of(hidden.rows, columns)
        errors = HiddenErrors(held_out.errors, columns, self.n_features_in_, parts)
        shrinkage = None if self.shrinkage == "auto" else float(self.shrinkage)
        if self.weights == "table":
            shrinkage = np.inf
        found = stack_weights(errors, shrinkage, absolute=self.statistic == "median")
        self.weights_, self.shrinkage_ = found.weights, found.shrinkage
        deviations = mean_deviations(held_out.deviations.T, found.weights[:, columns])
        squares = np.square(found.errors / deviations)
        self._widening = deviation_factors(squares, errors)
        if self.verbose:
            print(
                "[StackingImputer] stack: held-out error "
                f"{root_mean_square(found.errors):.3g} standard deviations, the table "
                f"counts as {found.shrinkage:g} entries of a column"
            )
        return found.errors

    def _learn_residual(
        self, X: np.ndarray, hidden: Hidden, predicted: list, rng
    ) -> list[residual.HoldOut]:
        """Learn what the stack leaves, from what is known of hidden entries.

        Return what the stack says of these, with what it would add to unseen ones.
        """
        regressor = self.residual
        if isinstance(regressor, str):
            is_default = isinstance(self.imputers, str)
            regressor = default_regressor(*X.shape) if is_default else None
        if regressor is None and not self._has_unordered():
            return []
        features = self._features(len(self._filled))[self._filled]
        weights = self.weights_[:, features]
        of_stack = stacked_at_hidden(X, hidden, predicted, weights)
        if regressor is None:
            return of_stack
        table = residual.Table(X, np.isnan(X))
        self._residual, of_stack = residual.regress(
            table, of_stack, regressor, self.statistic, rng
        )
        return of_stack

    def _learn_links_of_hidden(self, X: np.ndarray, stacked: list[residual.HoldOut]):
        """Learn probabilities of unordered categories from those that were hidden."""
        if not self._has_unordered():
            return
        filled = [one.fill(X) for one in stacked]
        places = np.cumsum(self._filled) - 1
        for k in np.flatnonzero(self._encoding.is_of(UNORDERED)):
            span = self._encoding.spans[k]
            if not self._filled[span].all():
                continue
            columns = places[span]
            rows = [np.flatnonzero(one.hidden[:, columns[0]]) for one in stacked]
            truth = np.concatenate([X[np.ix_(r, columns)] for r in rows])
            if self._can_have_link(k, truth):
                values = [f[r] for f, r in zip(filled, rows, strict=True)]
                self._learn_link(k, np.concatenate(values)[:, columns], truth)

    def _weigh_equally(self, n_members: int):
        """Set the attributes of a table that is too small to hide entries of it."""
        shape = n_members, self.n_features_in_
        self.weights_, self.shrinkage_ = np.full(shape, 1 / n_members), np.inf
        self.errors_ = np.full(shape, np.nan)
        self.stacked_errors_ = np.full(shape[1], np.nan)
        self._widening = np.ones(shape[1])
