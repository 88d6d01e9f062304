"""The default imputers of a stack, and the parameters that it sets in clones."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import check_random_state

from .._data.standardize import Standardization
from .._parameters import LARGEST_RANK
from .._state import PlainStateMixin
from ._mf_imputer import MFImputer

# Most rows for nearest neighbours: their time grows with the square of the rows.
LARGEST_NEIGHBOURHOOD = 20_000

# Largest number of rows times the square of columns for trees: the forests try about
# as many splits.
LARGEST_FOREST = 20_000_000

# Rounds in which columns are predicted from one another.
N_ROUNDS = 2

# A regressor learns nothing from fewer rows.
FEWEST_ROWS = 10

# Factors of the member that has more than the default.
MANY_FACTORS = 80

# Parameters that a stack sets in the clones of its imputers, and in imputers inside
# them. It passes NaN for missing values and expects a table with the same columns.
IN_A_STACK = {
    "missing_values": np.nan,
    "keep_empty_features": True,
    "add_indicator": False,
}


def default_imputers(m: int, n: int, statistic: str) -> list[tuple]:
    """Return names and imputers of ``imputers="auto"`` for a table of m rows.

    The factors come first. The other imputers help where factors fail: with skewed
    columns, with rows that resemble one another, and, in wide tables, with factors that
    only few columns share.
    """
    # Here, as the imputers of scikit-learn take long to import.
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.impute import KNNImputer

    imputers: list[tuple] = [
        ("factors", MFImputer(statistic=statistic)),
        ("scores", MFImputer(marginal="normal", statistic=statistic)),
    ]
    if m <= LARGEST_NEIGHBOURHOOD:
        imputers.append(("neighbours", StandardizedColumns(KNNImputer())))
    if m * n**2 <= LARGEST_FOREST:
        trees = ExtraTreesRegressor(n_estimators=40)
        imputers.append(("trees", RegressedColumns(trees)))
    rank = min(m, n, MANY_FACTORS + 1) - 1
    if rank > LARGEST_RANK:
        imputers.append(("many factors", MFImputer(rank, statistic=statistic)))
    return imputers


def default_regressor(m: int, n: int) -> Any:
    """Return the regressor of ``residual="auto"``, None for a large table."""
    if m * n**2 > LARGEST_FOREST:
        return None
    # Here, as above.
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(n_estimators=40, min_samples_leaf=2, max_features=0.5)


class RegressedColumns(TransformerMixin, PlainStateMixin, BaseEstimator):
    """Fill by factors, then predict each column by a regressor from the others.

    This works as :class:`sklearn.impute.IterativeImputer` does. It starts from better
    values, so two rounds are enough.
    """

    def __init__(self, regressor, random_state=None):
        self.regressor = regressor
        self.random_state = random_state

    def fit(self, X, y=None):
        """Fit the factors and, in each round, a regressor of each column."""
        rng = check_random_state(self.random_state)
        missing = np.isnan(X)
        self._standardization = Standardization.of(X, missing, scale=True)
        self._start = MFImputer().fit(X)
        self._others = _others_of_columns(missing)
        self._rounds = []
        Z, filled = _standardized(self._standardization, X), self._filled(X)
        for _ in range(N_ROUNDS):
            regressors = []
            for j, others in enumerate(self._others):
                observed, regressor = ~missing[:, j], None
                if observed.sum() >= FEWEST_ROWS and len(others):
                    seed = rng.randint(np.iinfo(np.int32).max)
                    regressor = clone(self.regressor).set_params(random_state=seed)
                    regressor.fit(filled[observed][:, others], Z[observed, j])
                    _replace(filled, ~observed, j, others, regressor)
                regressors.append(regressor)
            self._rounds.append(regressors)
        return self

    def transform(self, X):
        """Impute X."""
        missing, filled = np.isnan(X), self._filled(X)
        for regressors in self._rounds:
            for j, regressor in enumerate(regressors):
                if regressor is not None:
                    _replace(filled, missing[:, j], j, self._others[j], regressor)
        return _in_units(self._standardization, filled, X)

    def _filled(self, X):
        return _standardized(self._standardization, self._start.transform(X))


def _others_of_columns(missing: np.ndarray) -> list[np.ndarray]:
    """Return, for each column, those that it is predicted from.

    A column that is missing in the same rows is imputed, too, wherever it would be
    used. A regressor would rely on it, as it is observed in all rows of its training.
    """
    others = []
    for j in range(missing.shape[1]):
        together = (missing == missing[:, [j]]).all(axis=0) & missing[:, j].any()
        together[j] = True
        others.append(np.flatnonzero(~together))
    return others


def _replace(filled, rows, j, others, regressor):
    """Predict rows of column j from other columns, in place."""
    if rows.any():
        filled[rows, j] = regressor.predict(filled[rows][:, others])


class StandardizedColumns(TransformerMixin, PlainStateMixin, BaseEstimator):
    """Impute standardized columns, and return them in the units of the data."""

    def __init__(self, imputer):
        self.imputer = imputer

    def fit(self, X, y=None):
        """Fit a clone of the imputer to the columns divided by their deviations."""
        self._standardization = Standardization.of(X, np.isnan(X), scale=True)
        Z = _standardized(self._standardization, X)
        self.imputer_ = clone(self.imputer).fit(Z)
        return self

    def transform(self, X):
        """Impute X."""
        filled = self.imputer_.transform(_standardized(self._standardization, X))
        return _in_units(self._standardization, np.asarray(filled), X)


def _standardized(standardization: Standardization, X: np.ndarray) -> np.ndarray:
    """Standardize all columns of a table with NaN where values are missing."""
    every = np.ones(X.shape[1], bool)
    return standardization.apply(X, np.isnan(X), every, X.dtype)


def _in_units(standardization: Standardization, filled, X) -> np.ndarray:
    """Return X with its missing values taken from a standardized table."""
    columns = np.broadcast_to(np.arange(X.shape[1]), X.shape)
    filled = standardization.undo(filled, columns).astype(X.dtype)
    return np.where(np.isnan(X), filled, X)


def check_names(stack, imputers: Any) -> list[tuple]:
    """Validate a list of names and imputers; leave out those that are "drop"."""
    pairs = all(isinstance(item, list | tuple) and len(item) == 2 for item in imputers)
    if not pairs or not all(isinstance(name, str) for name, _ in imputers):
        raise ValueError(
            'imputers must be "auto" or a list of pairs (name, imputer), each name a '
            f"string; got {imputers!r}."
        )
    stack._validate_names([name for name, _ in imputers])
    kept = [
        (name, imputer)
        for name, imputer in imputers
        if not (isinstance(imputer, str) and imputer == "drop")
    ]
    if not kept:
        raise ValueError('imputers must have a member that is not "drop".')
    for name, imputer in kept:
        if isinstance(imputer, type) or not (
            hasattr(imputer, "fit") and hasattr(imputer, "transform")
        ):
            raise TypeError(
                f"imputers must have fit and transform; {name!r} is {imputer!r}. Pass "
                "an instance of an imputer."
            )
    return kept


def prepared(imputer, rng: np.random.RandomState):
    """Clone an imputer for a stack, with a seed wherever it has none of its own."""
    imputer = clone(imputer)
    own = imputer.get_params(deep=True)
    changed: dict[str, Any] = {}
    for name in sorted(own):
        parameter = name.rpartition("__")[2]
        if parameter in IN_A_STACK:
            changed[name] = IN_A_STACK[parameter]
        elif parameter == "random_state" and own[name] is None:
            changed[name] = rng.randint(np.iinfo(np.int32).max)
    return imputer.set_params(**changed)
