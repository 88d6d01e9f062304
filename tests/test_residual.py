"""What factors leave is predicted by a regressor, and only where that helps."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mfgd import MFImputer
from sklearn_mfgd.impute import _residual
from sklearn_mfgd.impute._columns import Imputed, Table
from sklearn_mfgd.impute._residual import FARTHEST, FEWEST, ResidualModel

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread", "one_hold_out"),
]

TREES = ExtraTreesRegressor(20, random_state=0)


@pytest.fixture(scope="module")
def parabola():
    """A column, its square with noise, and two of chance; a third of them missing."""
    rng = np.random.RandomState(0)
    complete = rng.standard_normal((150, 4))
    complete[:, 1] = complete[:, 0] ** 2 + 0.1 * complete[:, 1]
    mask = rng.uniform(size=complete.shape) >= 0.3
    mask[:, 0] = True
    return np.where(mask, complete, np.nan), complete


@pytest.fixture
def small(planted):
    """Forty rows of five columns; what is found in them does not matter."""
    return planted(m=40, n=5, rank=2, noise=0.3, share_missing=0.2, seed=3).X


def fit(X, residual=None, **options):
    options = {"max_iter": 10, "random_state": 0} | options
    return MFImputer(residual=residual, **options).fit(X)


def rmse(filled, X, complete):
    """Error of what was missing in standard deviations, of each column."""
    wrong = (filled - complete) / complete.std(axis=0)
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.nanmean(np.where(np.isnan(X), wrong, np.nan) ** 2, axis=0))


class Spy(RegressorMixin, BaseEstimator):
    """A regressor that predicts a number and shows what its fits were given."""

    calls: list = []

    def __init__(self, predicted=0.0):
        self.predicted = predicted

    def fit(self, X, y, sample_weight=None):
        self.calls.append((X.copy(), y.copy(), sample_weight))
        self.is_fitted_ = True
        return self

    def predict(self, X):
        return np.full(len(X), self.predicted)


@pytest.fixture
def calls(monkeypatch):
    """What the fits of spies are given, one after the other."""
    monkeypatch.setattr(Spy, "calls", [])
    return Spy.calls


@pytest.fixture
def folds(monkeypatch):
    """What is hidden from fits, fold by fold."""
    hidden_of_folds, hide = [], Table.hide

    def noted(table, hidden):
        hidden_of_folds.append(hidden)
        return hide(table, hidden)

    monkeypatch.setattr(Table, "hide", noted)
    return hidden_of_folds


# What it finds


@pytest.mark.accuracy
@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_a_relation_that_is_not_linear_is_found(parabola):
    X, _ = parabola
    plain = rmse(fit(X).transform(X), *parabola)[1]
    imputer = fit(X, TREES)
    found = rmse(imputer.transform(X), *parabola)[1]
    assert plain > 0.8
    assert found < 0.5
    assert imputer.residual_weights_[1] > 0.8
    assert fit(X).residual_weights_ is None
    # It is not for rows of the fit only.
    new = np.random.RandomState(1).standard_normal((50, 4))
    new[:, 1] = np.nan
    squares = new[:, 0] ** 2
    left = imputer.transform(new)[:, 1] - squares
    assert np.sqrt(np.mean(left**2)) < 0.5 * squares.std()


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.parametrize("regressor", [TREES, KNeighborsRegressor()], ids=str)
def test_where_factors_tell_all_a_regressor_does_no_harm(planted, regressor):
    data = planted(m=200, n=8, rank=2, noise=0.3, share_missing=0.2)
    plain, corrected = (
        np.sqrt(
            np.mean((fit(data.X, r).transform(data.X) - data.complete)[~data.mask] ** 2)
        )
        for r in (None, regressor)
    )
    assert corrected < 1.01 * plain


@pytest.mark.accuracy
@pytest.mark.filterwarnings("ignore:Mean of empty slice")
def test_intervals_shrink_as_errors_do_and_still_cover(parabola):
    X, complete = parabola
    hidden = np.isnan(X[:, 1])
    options = {"return_std": True, "return_quantiles": (0.025, 0.975)}
    _, plain, _ = fit(X).impute(X, **options)
    filled, std, (low, high) = fit(X, TREES).impute(X, **options)
    assert (std[hidden, 1] < 0.8 * plain[hidden, 1]).all()
    covered = (low <= complete) & (complete <= high)
    assert covered[hidden, 1].mean() > 0.88
    assert_allclose((low + high)[hidden, 1] / 2, filled[hidden, 1], atol=1e-9)


def test_a_regressor_that_predicts_nonsense_has_hardly_any_weight(planted):
    X = planted(m=200, n=5, rank=2, noise=0.3, share_missing=0.2).X
    expected = fit(X).impute(X, return_std=True)
    imputer = fit(X, make_pipeline(StandardScaler(), Noise()))
    assert (imputer.residual_weights_ < 0.15).all()
    found = imputer.impute(X, return_std=True)
    scale = np.nanstd(X, axis=0)
    for part, plain in zip(found, expected, strict=True):
        assert_allclose(part / scale, plain / scale, atol=0.25)


class Noise(RegressorMixin, BaseEstimator):
    """Predicts numbers at random, of the size of residuals."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y):
        self.size_ = np.std(y)
        return self

    def predict(self, X):
        rng = np.random.RandomState(self.random_state)
        return self.size_ * rng.standard_normal(len(X))


# What regressors are given


def test_regressors_learn_from_residuals_of_entries_that_factors_did_not_see(
    small, calls, folds
):
    """Residuals are those of fits to the table without a fold, made again by hand."""
    fit(small, Spy())
    observed = ~np.isnan(small)
    assert_array_equal(np.sum(folds, axis=0), observed)
    scale, mean = np.nanstd(small, axis=0), np.nanmean(small, axis=0)
    residual, features = np.zeros(small.shape), np.zeros((5, *small.shape))
    for k, hidden in enumerate(folds):
        shown = np.where(hidden, np.nan, small)
        filled = fit(shown).transform(shown)
        residual[hidden] = ((small - filled) / scale)[hidden]
        features[k] = (filled - mean) / scale
    wholes = calls[2::3]  # the third fit of a column is to all its entries
    assert len(calls) == 3 * small.shape[1]
    fold = np.argmax(folds, axis=0)
    for j, (A, y, _) in enumerate(wholes):
        rows = np.flatnonzero(observed[:, j])
        assert_allclose(y, residual[rows, j], rtol=1e-9, atol=1e-12)
        assert_allclose(A, features[fold[rows, j], rows], rtol=1e-5, atol=1e-6)


def test_what_is_predicted_is_judged_by_entries_of_the_other_half_of_the_rows(
    small, calls
):
    fit(small, Spy())
    halves = set(), set()
    for j in range(5):
        *others, whole = (y for _, y, _ in calls[3 * j : 3 * j + 3])
        row_of = dict(zip(whole, np.flatnonzero(~np.isnan(small[:, j])), strict=True))
        assert sum(map(len, others)) == len(whole)
        for half, y in zip(halves, others, strict=True):
            half.update(row_of[value] for value in y)
    assert not halves[0] & halves[1]
    assert min(map(len, halves)) > 10


def test_sample_weights_are_handed_on_where_they_are_taken(small, calls):
    counts = np.random.RandomState(0).randint(1, 4, size=40).astype(float)
    MFImputer(max_iter=3, residual=Spy(), random_state=0).fit(
        small, sample_weight=counts
    )
    observed = ~np.isnan(small)
    unit = np.count_nonzero(observed) / (observed * counts[:, None]).sum()
    for j, (_, _, given) in enumerate(calls[2::3]):
        assert_allclose(given, unit * counts[observed[:, j]], rtol=1e-12)
    # Neighbours take none.
    taken = MFImputer(max_iter=3, residual=KNeighborsRegressor(), random_state=0)
    filled = taken.fit(small, sample_weight=counts).transform(small)
    assert np.isfinite(filled).all()


def test_a_column_of_few_values_is_left_to_the_factors(small, calls):
    values = np.flatnonzero(~np.isnan(small[:, 0]))
    few, enough = small.copy(), small.copy()
    few[values[FEWEST - 1 :], 0] = np.nan
    enough[values[FEWEST:], 0] = np.nan
    options = {"return_std": True, "return_quantiles": (0.1, 0.9)}
    imputer = fit(few, Spy(1.0))
    assert len(calls) == 3 * 4
    assert imputer.residual_weights_[0] == 0
    found, plain = (i.impute(few, **options) for i in (imputer, fit(few)))
    for part, expected in zip(found, plain, strict=True):
        assert_array_equal(part[..., 0], expected[..., 0])
    calls.clear()
    fit(enough, Spy(1.0))
    assert len(calls) == 3 * 5


def test_a_constant_column_stays_constant_and_has_no_weight(parabola):
    X = parabola[0].copy()
    X[:, 2] = np.where(np.isnan(X[:, 2]), np.nan, 7.0)
    imputer = fit(X, TREES)
    assert_array_equal(imputer.transform(X)[:, 2], np.full(150, 7.0))
    assert imputer.residual_weights_[1] > 0.5
    assert imputer.residual_weights_[2] == 0


def test_features_are_finite_whatever_is_new(small):
    new = small.copy()
    new[:, 1] = 1e300
    assert np.isfinite(fit(small, KNeighborsRegressor()).transform(new)).all()
    model = ResidualModel(np.zeros(2), np.ones(2), [None] * 2, np.zeros(2), np.ones(2))
    found = model.features(np.array([[1e300, -1e300], [1.5, -2]]))
    assert_allclose(found, [[FARTHEST, -FARTHEST], [1.5, -2]])
    assert found.dtype == np.float32
    assert _residual._mean(np.array([1.5e308, 1.5e308])) == 1.5e308


# What is done with what they predict


def test_predictions_are_added_by_their_weights_and_intervals_scaled():
    X = np.array([[1.0, np.nan], [np.nan, 3.0], [np.nan, np.nan]])
    missing = np.isnan(X)
    model = ResidualModel(
        mean=np.array([1.0, 2.0]),
        scale=np.array([2.0, 10.0]),
        regressors=[LinearRegression(), None],
        weights=np.array([0.5, 0.0]),
        ratio=np.array([0.25, 1.0]),
    )
    # It predicts the second feature, of imputed values where these were missing.
    model.regressors[0].fit([[0, 0], [0, 1], [1, 0]], [0, 1, 0])
    values = np.array([5.0, 6.0, 7.0, 8.0])  # of (0, 1), (1, 0), (2, 0), (2, 1)
    std = np.array([1.0, 2, 3, 4])
    quantiles = values + np.array([[-2.0], [1.0]])
    found = model.correct(X, missing, Imputed(values, std, quantiles))
    second = (np.array([3.0, 8.0]) - 2) / 10
    expected = [5, 6 + 0.5 * 2 * second[0], 7 + 0.5 * 2 * second[1], 8]
    assert_allclose(found.values, expected, rtol=1e-6)
    assert_allclose(found.std, [1, 0.5, 0.75, 4])
    low, high = found.quantiles - found.values
    assert_allclose(low, [-2, -0.5, -0.5, -2], rtol=1e-6)
    assert_allclose(high, [1, 0.25, 0.25, 1], rtol=1e-6)
    # What was given is left as it was.
    assert_array_equal(values, [5, 6, 7, 8])


def test_weights_are_least_squares_which_the_average_column_shrinks():
    numerators, denominators = np.array([6.0, 1.0, 0]), np.array([10.0, 20.0, 0])
    counts = np.array([50, 150, 0])
    found = _residual._shrunk(numerators, denominators, counts)
    for j in range(3):  # 100 entries of the average column
        above = numerators[j] + 100 * 7 / 200
        assert found[j] == pytest.approx(above / (denominators[j] + 100 * 30 / 200))
    none = _residual._shrunk(*np.zeros((3, 4)), otherwise=1.0)
    assert_array_equal(none, np.ones(4))


def test_for_medians_the_weight_has_the_least_absolute_error():
    rng = np.random.RandomState(0)
    y, p, share = rng.laplace(size=41), rng.standard_normal(41), rng.uniform(size=41)
    p[:3] = 0
    y = 0.3 * y + 0.4 * p
    grid = np.linspace(0, 1, 10001)
    losses = (share * np.abs(y - grid[:, None] * p)).sum(axis=1)
    expected = grid[np.argmin(losses)]
    assert 0 < expected < 1
    assert _residual._least_absolute(y, p, share) == pytest.approx(expected, abs=1e-4)
    assert _residual._least_absolute(-10 * p, p, share) == 0
    assert _residual._least_absolute(10 * p, p, share) == 1
    assert _residual._least_absolute(y, 0 * p, share) == 0


REGRESSORS = [
    Ridge(),
    KNeighborsRegressor(3),
    HistGradientBoostingRegressor(max_iter=5),
    make_pipeline(StandardScaler(), ExtraTreesRegressor(5)),
]


@pytest.mark.parametrize("regressor", REGRESSORS, ids=str)
def test_any_regressor_is_taken_and_left_as_it_is(parabola, regressor):
    X, _ = parabola
    one, two = (fit(X, regressor).transform(X) for _ in "12")
    assert_array_equal(one, two)
    assert np.isfinite(one).all()
    assert_array_equal(one[~np.isnan(X)], X[~np.isnan(X)])
    assert not hasattr(regressor, "n_features_in_")


def test_new_rows_are_filled_each_by_itself(parabola):
    X, _ = parabola
    imputer = fit(X, TREES)
    alone = np.vstack([imputer.transform(row[None]) for row in X[:10]])
    assert_allclose(alone, imputer.transform(X[:10]), rtol=1e-9)


@pytest.mark.parametrize("unit", [1e-200, 1e200], ids=["small", "large"])
def test_units_do_not_matter(parabola, unit):
    X, _ = parabola
    expected = fit(X, Ridge()).transform(X)
    assert_allclose(
        fit(unit * X, Ridge()).transform(unit * X) / unit, expected, rtol=1e-4
    )
