"""`StackingImputer`: weights by hidden entries, and what it does with its members."""

import itertools
import pickle
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.impute import KNNImputer, SimpleImputer

from sklearn_mfgd import MFImputer, StackingImputer
from sklearn_mfgd.impute._members import (
    StandardizedColumns,
    default_imputers,
    default_regressor,
)
from sklearn_mfgd.impute._stack_fit import standardized_deviations
from sklearn_mfgd.impute._stack_spread import shares_among
from sklearn_mfgd.impute._stack_weights import (
    SHRINKAGES,
    HiddenErrors,
    deviation_factors,
    parts_of,
    simplex_weights,
    stack_weights,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_hold_out"),
]

MEAN, MEDIAN = SimpleImputer(), SimpleImputer(strategy="median")
NEIGHBOURS = StandardizedColumns(KNNImputer())
MEMBERS = [("mean", MEAN), ("neighbours", NEIGHBOURS)]


@pytest.fixture
def table(planted):
    """A table of 120 x 8, of rank 2, with 15 % missing; the truth; what is missing."""
    data = planted(120, 8, 2, 0.3, 0.15, 1)
    return data.X, data.complete, ~data.mask


@pytest.fixture
def noisy(planted):
    """The same, with so much noise that means and neighbours both have weights."""
    data = planted(120, 8, 2, 1.0, 0.15, 1)
    return data.X, data.complete, ~data.mask


@pytest.fixture
def errors():
    """Return errors of k members at n entries of 6 columns; the last has no entry."""

    def make(n=90, k=3, seed=0):
        rng = np.random.RandomState(seed)
        values = rng.standard_normal((n, k)) * np.linspace(1, 1.4, k)
        values += 0.7 * rng.standard_normal((n, 1))
        columns = rng.randint(5, size=n)
        return HiddenErrors(values, columns, 6, parts_of(np.arange(n), columns))

    return make


def grid(k, step=0.02):
    """Weights of k members on a grid of the simplex."""
    axis = np.arange(round(1 / step) + 1)
    points = itertools.product(axis, repeat=k - 1)
    first = np.array([p for p in points if sum(p) <= axis[-1]]) * step
    return np.column_stack([first, 1 - first.sum(axis=1)])


def best_of_supports(E):
    """Minimize w' E w over the simplex: each set of members in turn has a weight."""
    k, best, least = len(E), None, np.inf
    for size in range(1, k + 1):
        for members in map(list, itertools.combinations(range(k), size)):
            z = np.linalg.solve(E[np.ix_(members, members)], np.ones(size))
            if (z >= 0).all() and 1 / z.sum() < least:
                least, best = 1 / z.sum(), np.zeros(k)
                best[members] = z / z.sum()
    return best


def naive_weights(errors, shrinkage):
    """The weights of each column, by the formula of the docstring."""
    of_table = errors.values.T @ errors.values / len(errors.values)
    weights = []
    for j in range(errors.n_columns):
        e = errors.values[errors.columns == j]
        E = of_table if np.isinf(shrinkage) else e.T @ e + shrinkage * of_table
        weights.append(best_of_supports(E))
    return np.array(weights).T


# Weights


@pytest.mark.parametrize("seed", range(5))
def test_no_weights_on_a_grid_are_better(seed):
    A = np.random.RandomState(seed).standard_normal((3, 4)) + 1.5
    E, points = A @ A.T, grid(3)
    w = simplex_weights(E[None])[0]
    assert w.min() >= 0 and w.sum() == pytest.approx(1)
    best = np.einsum("pi,ij,pj->p", points, E, points).min()
    assert w @ E @ w <= best * (1 + 1e-9)


def test_many_members_have_the_weights_that_are_best_among_all_supports():
    rng = np.random.RandomState(0)
    A = rng.standard_normal((40, 7, 9)) + 2 * rng.standard_normal((40, 1, 9))
    E = A @ A.transpose(0, 2, 1)
    assert_allclose(simplex_weights(E), [best_of_supports(e) for e in E], atol=1e-6)


def test_a_perfect_member_has_all_the_weight():
    e = np.array([[0.0, 1.0, -0.4], [0.0, -2.0, 0.1]])
    assert_allclose(simplex_weights((e.T @ e)[None])[0], [1, 0, 0], atol=1e-8)


def test_duplicates_share_their_weight_equally():
    e = np.random.RandomState(0).standard_normal((50, 2))
    once = simplex_weights((e.T @ e)[None])[0]
    e = e[:, [0, 0, 1]]
    w = simplex_weights((e.T @ e)[None])[0]
    assert_allclose(w, [once[0] / 2, once[0] / 2, once[1]], atol=1e-6)


def test_a_member_that_is_far_off_changes_nothing_for_the_others():
    e = np.random.RandomState(0).standard_normal((50, 3))
    wild = np.column_stack([e, np.full(50, 1e8)])
    both = [simplex_weights((x.T @ x)[None])[0] for x in (e, wild)]
    assert_allclose(both[1], [*both[0], 0], atol=1e-6)


@pytest.mark.parametrize("shrinkage", [0.5, 20, np.inf])
def test_columns_minimize_their_errors_and_those_of_the_table(errors, shrinkage):
    errors = errors()
    found = stack_weights(errors, shrinkage, absolute=False)
    assert_allclose(found.weights, naive_weights(errors, shrinkage), atol=1e-6)


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("shrinkage", [0, 30])
def test_a_column_without_hidden_entries_has_the_weights_of_the_table(
    errors, shrinkage, absolute
):
    errors = errors()
    one, table = (
        stack_weights(errors, s, absolute=absolute).weights for s in (shrinkage, np.inf)
    )
    assert_allclose(one[:, 5], table[:, 5], atol=1e-3 if absolute else 1e-9)
    assert np.abs(one[:, :5] - table[:, :5]).max() > 0.02


def test_the_amount_of_shrinkage_is_best_for_entries_that_are_left_out(errors):
    errors = errors(400, seed=2)
    errors.values[errors.columns == 0, 2] *= 0.7  # it has a best member of its own
    parts, left_out = errors.parts, {}
    for shrinkage in SHRINKAGES:
        left_out[shrinkage] = np.empty(400)
        for part in range(5):
            w = naive_weights(errors.take(parts != part), shrinkage)
            for i in np.flatnonzero(parts == part):
                e = errors.values[i] @ w[:, errors.columns[i]]
                left_out[shrinkage][i] = e
    best = min(SHRINKAGES, key=lambda s: np.mean(left_out[s] ** 2))
    assert best not in (SHRINKAGES[0], SHRINKAGES[-1])
    found = stack_weights(errors, None, absolute=False)
    assert found.shrinkage == best
    assert_allclose(found.errors, left_out[best], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("absolute", [False, True])
def test_left_out_errors_are_judged_as_the_weights_are(errors, absolute):
    errors = errors(300, seed=3)
    errors.values[errors.columns == 0, 2] *= 0.5
    errors.values[::15, 2] *= 10
    found = stack_weights(errors, None, absolute=absolute)
    left_out = {
        s: stack_weights(errors, s, absolute=absolute).errors for s in SHRINKAGES
    }
    by_squares = min(SHRINKAGES, key=lambda s: np.mean(left_out[s] ** 2))
    by_size = min(SHRINKAGES, key=lambda s: np.mean(np.abs(left_out[s])))
    assert by_squares != by_size
    assert found.shrinkage == (by_size if absolute else by_squares)


def test_each_column_has_as_many_entries_in_every_part():
    rng = np.random.RandomState(0)
    rows, columns = rng.permutation(123), rng.randint(7, size=123)
    counts = np.zeros((7, 5))
    np.add.at(counts, (columns, parts_of(rows, columns)), 1)
    assert np.ptp(counts, axis=1).max() <= 1
    one_each = parts_of(np.zeros(10, int), np.arange(10))
    assert_array_equal(np.bincount(one_each), np.full(5, 2))


def test_an_entry_that_is_hidden_again_is_in_the_same_part():
    rng = np.random.RandomState(0)
    rows, columns = rng.randint(9, size=200), rng.randint(7, size=200)
    places = np.column_stack([rows, columns, parts_of(rows, columns)])
    places = np.unique(places, axis=0)
    assert len(places) == len(np.unique(places[:, :2], axis=0)) < 200


def test_absolute_errors_are_as_small_as_on_a_grid(errors):
    errors, points = errors(150), grid(3, 0.01)
    # The best member has outliers, to which squares give more weight.
    errors.values[:, 0] *= 0.3
    errors.values[::20, 0] *= 40
    in_column = errors.values[errors.columns == 2]
    for values, shrinkage in ((errors.values, np.inf), (in_column, 0)):
        w = stack_weights(errors, shrinkage, absolute=True).weights[:, 2]
        best = np.abs(values @ points.T).mean(axis=0).min()
        assert np.abs(values @ w).mean() <= best * 1.003
        squared = stack_weights(errors, shrinkage, absolute=False).weights[:, 2]
        assert np.abs(values @ squared).mean() > best * 1.01


@pytest.mark.parametrize("absolute", [False, True])
def test_neither_the_order_of_entries_nor_that_of_members_matters(errors, absolute):
    errors = errors()
    one = stack_weights(errors, 30, absolute=absolute).weights
    order = np.random.RandomState(1).permutation(len(errors.columns))
    other = errors.take(order)
    other = other._replace(values=other.values[:, [2, 0, 1]])
    found = stack_weights(other, 30, absolute=absolute).weights
    assert_allclose(found, one[[2, 0, 1]], atol=1e-6)


def test_deviations_are_widened_until_squares_average_to_one():
    rng = np.random.RandomState(0)
    columns = rng.randint(3, size=60_000)
    true = np.array([0.5, 1, 3])
    squares = (true[columns] * rng.standard_normal(60_000)) ** 2
    parts = parts_of(np.arange(60_000), columns)
    factors = deviation_factors(squares, HiddenErrors(None, columns, 4, parts))
    assert_allclose(factors[:3], true, rtol=0.02)
    assert factors[3] == pytest.approx(np.sqrt(squares.mean()))


def test_factors_are_shrunk_as_the_parts_that_are_left_out_call_for():
    rng = np.random.RandomState(1)
    columns = rng.randint(6, size=300)
    squares = np.linspace(0.8, 1.2, 6)[columns] * rng.chisquare(1, 300)
    parts = parts_of(np.arange(300), columns)

    def variances(chosen, shrinkage):
        of_table, found = squares[chosen].mean(), np.empty(6)
        for j in range(6):
            in_column = squares[chosen & (columns == j)]
            total = in_column.sum() + shrinkage * of_table
            found[j] = total / (len(in_column) + shrinkage)
        return found

    def loss(shrinkage):
        total = 0
        for part in range(5):
            v = variances(parts != part, shrinkage)
            for i in np.flatnonzero(parts == part):
                total += np.log(v[columns[i]]) + squares[i] / v[columns[i]]
        return total

    best = min([1e12, *SHRINKAGES[1:]], key=loss)
    assert 20 < best < 1e12
    expected = np.sqrt(variances(np.ones(300, bool), best))
    found = deviation_factors(squares, HiddenErrors(None, columns, 6, parts))
    assert_allclose(found, expected)


# What members are given


class Spy(TransformerMixin, BaseEstimator):
    """A mean imputer that keeps what its fits are given."""

    seen: list = []

    def fit(self, X, y=None):
        """Keep X."""
        self.seen.append(X.copy())
        self.mean_ = np.nanmean(X, axis=0)
        return self

    def transform(self, X):
        """Fill in means."""
        return np.where(np.isnan(X), self.mean_, X)


@pytest.fixture
def spy():
    Spy.seen = []
    return Spy()


def test_hidden_entries_never_reach_a_fit_and_the_last_fit_sees_everything(table, spy):
    X, _, missing = table
    stack = StackingImputer([("spy", spy)], test_size=0.2, random_state=0).fit(X)
    first, last = Spy.seen
    assert_array_equal(last, X)
    hidden = np.isnan(first) & ~missing
    # Rows lose several at a time, the last one perhaps more than is needed.
    assert 0 <= hidden.sum() - round(0.2 * (~missing).sum()) < X.shape[1]
    assert not np.isnan(first).all(axis=0).any()
    assert not np.isnan(first).all(axis=1).any()
    # The errors are those of this fit at these entries.
    error = np.where(hidden, np.nanmean(first, axis=0) - X, np.nan)
    rms = np.sqrt(np.nanmean(error**2, axis=0))
    assert_allclose(stack.errors_, [rms])
    assert_allclose(stack.stacked_errors_, rms)


def test_errors_are_those_of_values_within_the_limits(table, spy):
    X, _, missing = table
    stack = StackingImputer([("spy", spy)], max_value=-0.5, random_state=0).fit(X)
    first = Spy.seen[0]
    filled = np.minimum(np.nanmean(first, axis=0), -0.5)
    error = np.where(np.isnan(first) & ~missing, filled - X, np.nan)
    assert_allclose(stack.errors_, [np.sqrt(np.nanmean(error**2, axis=0))])


def test_a_number_of_entries_can_be_hidden(table, spy):
    StackingImputer([("spy", spy)], test_size=33).fit(table[0])
    assert 0 <= (np.isnan(Spy.seen[0]) & ~table[2]).sum() - 33 < 8


def test_folds_hide_each_entry_once_but_one_of_each_row_and_column(table, spy):
    X, _, missing = table
    StackingImputer([("spy", spy)], cv=3, random_state=0).fit(X)
    *folds, last = Spy.seen
    assert len(folds) == 3
    times = sum(np.isnan(fold) & ~missing for fold in folds)
    assert_array_equal(np.unique(times[~missing]), [0, 1])
    assert (times == 0)[~missing].sum() <= sum(X.shape)
    assert ((times == 0) & ~missing).any(axis=0).all()
    assert ((times == 0) & ~missing).any(axis=1).all()
    assert_array_equal(last, X)


def test_nothing_is_hidden_of_a_constant_column(table, spy):
    X = table[0]
    X[:, 3] = np.where(np.isnan(X[:, 3]), np.nan, 7.0)
    stack = StackingImputer([("spy", spy)], test_size=0.4).fit(X)
    assert_array_equal(Spy.seen[0][:, 3], X[:, 3])
    assert np.isnan(stack.errors_[0, 3]) and np.isfinite(stack.errors_[0, :3]).all()


def test_tables_with_too_few_entries_weigh_all_members_equally(spy):
    X = np.arange(12.0).reshape(4, 3)
    X[0, 1] = np.nan
    stack = StackingImputer([("spy", spy), ("median", MEDIAN)], test_size=0.5).fit(X)
    assert len(Spy.seen) == 1
    assert_array_equal(stack.weights_, np.full((2, 3), 0.5))
    assert np.isnan(stack.errors_).all() and np.isnan(stack.stacked_errors_).all()
    assert stack.transform(X)[0, 1] == np.mean([np.mean([4, 7, 10]), 7])


def test_what_would_change_the_columns_is_set_in_the_clones(table):
    X = np.where(np.isnan(table[0]), -1, table[0])
    knn = KNNImputer(missing_values=-1, add_indicator=True)
    stack = StackingImputer([("knn", knn)], missing_values=-1).fit(X)
    fitted = stack.imputers_[0].get_params()
    assert fitted["keep_empty_features"] and not fitted["add_indicator"]
    assert np.isnan(fitted["missing_values"])
    assert knn.missing_values == -1 and knn.add_indicator
    expected = KNNImputer(missing_values=-1).fit_transform(X)
    assert_array_equal(stack.transform(X), expected)


class Seeded(Spy):
    """One that also keeps its seed."""

    seeds: list = []

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y=None):
        """Keep the seed."""
        self.seeds.append(self.random_state)
        return super().fit(X)


def test_members_without_a_seed_get_one_that_random_state_decides(table):
    members = [("a", Seeded()), ("b", Seeded(5))]
    seeds = []
    for seed in (0, 0, 1):
        Seeded.seeds = []
        StackingImputer(members, random_state=seed).fit(table[0])
        seeds.append(Seeded.seeds)
    assert seeds[0] == seeds[1] != seeds[2]
    assert seeds[0][1] == seeds[0][3] == 5
    assert seeds[0][0] == seeds[0][2] is not None


# What is imputed


def test_a_stack_of_one_member_is_that_member_to_the_bit(table):
    for X in (table[0], table[0].astype(np.float32)):
        for member in (MFImputer(max_iter=5), NEIGHBOURS, MEDIAN):
            stack = StackingImputer([("one", member)], random_state=0)
            filled = stack.fit_transform(X)
            assert_array_equal(filled, clone(member).fit(X).transform(X))
            assert filled.dtype == X.dtype


def test_missing_values_are_weighted_means_and_observed_ones_unchanged(noisy):
    X, _, missing = noisy
    stack = StackingImputer(MEMBERS, shrinkage=20, random_state=0).fit(X)
    assert np.ptp(stack.weights_[0]) > 0.01
    assert_allclose(stack.weights_.sum(axis=0), 1)
    each = [clone(member).fit(X).transform(X) for _, member in MEMBERS]
    expected = sum(w * x for w, x in zip(stack.weights_, each, strict=True))
    filled = stack.transform(X)
    assert_allclose(filled, expected)
    assert_array_equal(filled[~missing], X[~missing])
    assert_array_equal(list(stack.named_imputers_), ["mean", "neighbours"])


def test_what_members_agree_on_is_imputed_to_the_bit(noisy):
    X = noisy[0]
    members = [("a", MEAN), ("b", MEAN), ("c", MEAN)]
    stack = StackingImputer(members, random_state=0).fit(X)
    assert_array_equal(stack.transform(X), MEAN.fit_transform(X))


def test_columns_have_the_weights_of_the_imputer_that_is_best_in_them(spy):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((1500, 5))
    X[:, 1] = np.abs(X[:, 0]) + 0.1 * rng.standard_normal(1500)
    stack = StackingImputer(
        [("mean", MEAN), ("neighbours", NEIGHBOURS)], test_size=0.1, random_state=0
    ).fit(X)
    assert stack.weights_[1, 1] > 0.7
    assert stack.weights_[1, 4] < 0.3
    together = clone(stack).set_params(weights="table").fit(X)
    assert together.shrinkage_ == np.inf
    assert (together.weights_ == together.weights_[:, :1]).all()


def test_the_median_wins_where_absolute_errors_count():
    X = np.exp(np.random.RandomState(0).standard_normal((800, 4)))
    members = [("mean", MEAN), ("median", MEDIAN)]
    for statistic, best in (("mean", 0), ("median", 1)):
        params = {"statistic": statistic, "weights": "table", "test_size": 0.5}
        stack = StackingImputer(members, random_state=0, **params).fit(X)
        assert stack.weights_[best].min() > 0.8


def test_the_stack_is_better_than_its_members_on_new_rows(planted):
    data = planted(400, 10, 3, 0.3, 0.2, 3)
    X, truth = data.X, np.sin(2 * data.complete)
    X = np.where(data.mask, truth, np.nan)
    members = [("factors", MFImputer()), *MEMBERS]
    stack = StackingImputer(members, test_size=0.1, random_state=0).fit(X[:300])
    hidden = ~data.mask[300:]

    def error(imputer):
        return np.sqrt(np.mean((imputer.transform(X[300:]) - truth[300:])[hidden] ** 2))

    assert error(stack) < 1.005 * min(map(error, stack.imputers_))


def test_the_units_of_columns_do_not_matter(table):
    X = table[0]
    unit, shift = np.geomspace(1e-7, 1e8, 8), np.linspace(-3, 3, 8)
    for statistic in ("mean", "median"):
        stack = StackingImputer(MEMBERS, statistic=statistic, random_state=0)
        one, other = (clone(stack).fit(Z) for Z in (X, unit * (X + shift)))
        assert_allclose(other.weights_, one.weights_, atol=1e-5)
        assert_allclose(other.errors_, unit * one.errors_)
        filled = one.transform(X)
        assert_allclose(other.transform(unit * (X + shift)), unit * (filled + shift))


def test_rows_are_imputed_one_by_one(table):
    X = table[0]
    stack = StackingImputer(MEMBERS, random_state=0).fit(X)
    order = np.random.RandomState(0).permutation(len(X))
    assert_array_equal(stack.transform(X[order]), stack.transform(X)[order])


def test_the_order_of_members_does_not_matter(table):
    X, members = table[0], [*MEMBERS, ("median", MEDIAN)]
    one = StackingImputer(members, random_state=0).fit(X)
    other = StackingImputer(members[::-1], random_state=0).fit(X)
    assert_allclose(other.weights_[::-1], one.weights_, atol=1e-6)
    assert_allclose(other.transform(X), one.transform(X), rtol=1e-5)


@pytest.mark.slow
def test_processes_give_the_same_bits(table):
    X = table[0]
    members = [*MEMBERS, ("factors", MFImputer(max_iter=5))]
    one, two = (
        StackingImputer(members, n_jobs=n, cv=2, random_state=0).fit(X)
        for n in (None, 2)
    )
    assert_array_equal(one.weights_, two.weights_)
    assert_array_equal(one.transform(X), two.transform(X))


def test_an_empty_column_changes_nothing_elsewhere(noisy):
    X = noisy[0]
    wide = np.insert(X, 2, np.nan, axis=1)
    params = {"random_state": 0, "add_indicator": True, "shrinkage": 20}
    expected = StackingImputer(MEMBERS, **params).fit_transform(X)
    filled = StackingImputer(MEMBERS, **params).fit_transform(wide)
    assert_array_equal(filled[:, :8], expected[:, :8])
    stack = StackingImputer(MEMBERS, keep_empty_features=True, **params, min_value=1)
    filled = stack.fit_transform(wide)
    assert (filled[:, 2] == 1).all()
    assert_array_equal(stack.inverse_transform(filled), wide)


def test_imputed_values_stay_within_limits(noisy):
    X, _, missing = noisy
    limits = {"min_value": -0.4, "max_value": np.linspace(0.3, 0.9, 8)}
    # With so few hidden entries the weights of all members are equal.
    stack = StackingImputer(MEMBERS, test_size=1, random_state=0, **limits).fit(X)
    assert (stack.weights_ == 0.5).all()
    filled, quantiles = stack.impute(X, return_quantiles=(0.01, 0.99))
    low, high = -0.4, np.broadcast_to(limits["max_value"], X.shape)
    for values in (filled, *quantiles):
        assert (values >= low)[missing].all()
        assert (values <= high)[missing].all()
    assert_array_equal(filled[~missing], X[~missing])
    # The members' values beyond a limit are at the limit before they are averaged.
    each = [np.clip(m.transform(X), low, high) for m in stack.imputers_]
    expected = sum(w * x for w, x in zip(stack.weights_, each, strict=True))
    assert_allclose(filled[missing], expected[missing])


# How uncertain it is


@pytest.mark.parametrize("quantiles", [False, True])
@pytest.mark.parametrize("knows", [False, True], ids=["errors", "members"])
def test_intervals_cover_as_many_values_as_they_say(planted, knows, quantiles):
    data = planted(600, 10, 3, 0.5, 0.2, 2)
    truth = data.complete * np.geomspace(1, 1e3, 10)
    X = np.where(data.mask, truth, np.nan)
    members = [("factors", MFImputer(max_iter=30)), *MEMBERS][0 if knows else 1 :]
    stack = StackingImputer(members, random_state=0).fit(X)
    filled, std, (low, high) = stack.impute(
        X, return_std=True, return_quantiles=(0.025, 0.975)
    )
    if not quantiles:
        low, high = filled - 1.96 * std, filled + 1.96 * std
    covered = ((low <= truth) & (truth <= high))[~data.mask]
    # The errors of means and neighbours have long tails.
    assert 0.93 < covered.mean() < (0.97 if knows else 0.985)
    assert_array_equal(std > 0, ~data.mask)


class Knowing(Spy):
    """A mean imputer with standard deviations and quantiles."""

    def __init__(self, std=2.0, shift=0.0):
        self.std = std
        self.shift = shift

    def impute(self, X, return_std=False, return_quantiles=None):
        """Return means, one deviation, and quantiles of an exponential distribution."""
        filled = self.transform(X) + np.where(np.isnan(X), self.shift, 0)
        std = np.where(np.isnan(X), self.std, 0)
        scores = -1 - np.log(1 - np.asarray(return_quantiles or [0.5]))
        quantiles = filled + std * scores[:, None, None]
        return (filled, std, quantiles) if return_quantiles else (filled, std)


def test_deviations_are_weighted_means_widened_as_hidden_errors_say(table, spy):
    X = table[0][:, :2].copy()
    X[:, 1] = 3.0  # of which nothing is hidden
    members = [("a", Knowing(0.5)), ("b", Knowing(0.9)), ("mean", MEAN)]
    stack = StackingImputer(members, random_state=0).fit(X)
    # Three members with equal values; the deviation of the two that know theirs is 0.7.
    assert_allclose(stack.weights_, 1 / 3, atol=1e-6)
    first = Spy.seen[0]
    error = (np.nanmean(first[:, 0]) - X[:, 0])[np.isnan(first[:, 0])]
    factor = np.sqrt(np.nanmean((error / 0.7) ** 2))
    std = stack.impute(X, return_std=True)[1]
    assert_allclose(std[np.isnan(X)], 0.7 * factor)
    assert_array_equal(std > 0, np.isnan(X))


def test_shares_are_weights_among_the_members_chosen_and_equal_without_any():
    weights = np.array([[0.2, 0.0, 1.0], [0.5, 1.0, 0.0], [0.3, 0.0, 0.0]])
    shares = shares_among(weights, np.array([True, False, True]))
    assert_allclose(shares, [[0.4, 0.5, 1], [0, 0, 0], [0.6, 0.5, 0]])


def test_deviations_are_divided_by_that_of_the_column():
    std, unit = np.array([3.0, 0.0, np.inf, 1e-20]), np.array([2.0, 5.0, 7.0, 1.0])
    assert_allclose(standardized_deviations(std, unit), [1.5, 1, 1, 1e-8])


@pytest.mark.parametrize("std", [0.0, np.inf])
def test_a_member_that_takes_a_column_for_constant_knows_no_more_than_its_deviation(
    table, std
):
    X = table[0]
    one, other = (
        StackingImputer([("one", member)], random_state=0).fit(X)
        for member in (Knowing(std), MEAN)
    )
    expected = other.impute(X, return_std=True)[1]
    assert_allclose(one.impute(X, return_std=True)[1], expected)


def test_quantiles_of_members_are_moved_and_widened_to_suit_the_stack(table):
    X, _, missing = table
    members = [("knows", Knowing(0.7)), ("neighbours", NEIGHBOURS)]
    stack = StackingImputer(members, random_state=0).fit(X)
    probabilities = [0.1, 0.5, 0.9]
    filled, std, quantiles = stack.impute(
        X, return_std=True, return_quantiles=probabilities
    )
    scores = -1 - np.log(1 - np.array(probabilities))
    for x, score in zip(quantiles, scores, strict=True):
        assert_allclose(x[missing], (filled + score * std)[missing])
        assert_array_equal(x[~missing], X[~missing])


def test_quantiles_are_normal_where_no_member_has_any(table):
    X = table[0]
    stack = StackingImputer(MEMBERS, random_state=0).fit(X)
    filled, std, quantiles = stack.impute(X, return_std=True, return_quantiles=(0.2,))
    assert_allclose(quantiles[0], filled + norm.ppf(0.2) * std)
    assert_array_equal(stack.impute(X), filled)


@pytest.mark.parametrize("knows", [False, True])
def test_columns_whose_values_are_equal_or_none_have_deviations_zero_or_infinity(
    knows,
):
    X = np.random.RandomState(0).standard_normal((40, 4))
    X[:, 1:] = np.nan
    X[:10, 1], X[3, 2] = 5.0, 6.0
    members = [("knows", Knowing())] if knows else MEMBERS
    stack = StackingImputer(members, keep_empty_features=True).fit(X)
    filled, std, (low, middle) = stack.impute(
        X, return_std=True, return_quantiles=(0.1, 0.5)
    )
    assert_array_equal(filled[20, 1:], [5, 6, 0])
    assert_array_equal(std[20, 1:], [0, np.inf, np.inf])
    assert_array_equal(middle, filled)
    assert_array_equal(low[20, 1:], [5, -np.inf, -np.inf])


def test_a_member_that_cannot_tell_its_deviations_counts_as_one_without(table):
    X = table[0]
    stds = []
    for member in (MFImputer(2, reg=0.1, max_iter=5), MEAN):
        members = [("mf", member), *MEMBERS]
        stack = StackingImputer(members, weights="table", random_state=0).fit(X)
        stds.append(stack.impute(X, return_std=True)[1])
        # One deviation for the whole of a column.
        largest = np.broadcast_to(stds[-1].max(axis=0), X.shape)
        assert_allclose(stds[-1][table[2]], largest[table[2]])


# Score


def test_score_is_the_share_of_variance_of_entries_hidden_in_turn(table):
    X = table[0]
    X[:, 2] = 4.0
    stack = StackingImputer(MEMBERS, random_state=0).fit(X)
    mean, scale = np.nanmean(X, axis=0), np.nanstd(X, axis=0)
    press = total = 0
    for fold in range(5):
        shown, hidden = X.copy(), []
        for i in range(len(X)):
            columns = [j for j in range(8) if not np.isnan(X[i, j]) and j != 2]
            hidden += [(i, j) for j in columns[fold::5]]
        for place in hidden:
            shown[place] = np.nan
        filled = stack.transform(shown)
        for i, j in hidden:
            press += ((filled[i, j] - X[i, j]) / scale[j]) ** 2
            total += ((X[i, j] - mean[j]) / scale[j]) ** 2
    assert stack.score(X) == pytest.approx(1 - press / total)
    means = StackingImputer([("mean", MEAN)], random_state=0).fit(X)
    assert means.score(X) == pytest.approx(0, abs=1e-9)


# What is refused


class Returning(Spy):
    """An imputer that returns what it was told to."""

    def __init__(self, change):
        self.change = change

    def transform(self, X):
        """Change what means give."""
        return self.change(super().transform(X), X)


def drop_first(filled, X):
    return filled[:, 1:]


def leave(filled, X):
    return X


def infinite(filled, X):
    return np.where(np.isnan(X), -np.inf, filled)


@pytest.mark.parametrize(
    "change, message",
    [
        (drop_first, "'bad', one of the imputers, returns shape (120, 7) for X of"),
        (leave, "'bad', one of the imputers, imputes nan."),
        (infinite, "'bad', one of the imputers, imputes -inf."),
    ],
)
def test_members_must_impute_finite_values_and_keep_columns(table, change, message):
    stack = StackingImputer([*MEMBERS, ("bad", Returning(change))])
    with pytest.raises(ValueError, match=re.escape(message)):
        stack.fit(table[0])


def test_an_error_of_a_member_has_a_note_with_its_name(table):
    stack = StackingImputer([*MEMBERS, ("bad", SimpleImputer(strategy="none"))])
    with pytest.raises(ValueError) as caught:
        stack.fit(table[0])
    assert "'bad'" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "imputers, error, message",
    [
        ([], ValueError, "imputers must have a member"),
        ([("a", "drop")], ValueError, "imputers must have a member"),
        ([MEAN], ValueError, 'imputers must be "auto" or a list of pairs'),
        ([(1, MEAN)], ValueError, 'imputers must be "auto" or a list of pairs'),
        ([("a", MEAN), ("a", MEAN)], ValueError, "Names provided are not unique"),
        ([("cv", MEAN)], ValueError, "conflict with constructor arguments"),
        ([("a__b", MEAN)], ValueError, "must not contain __"),
        ([("a", SimpleImputer)], TypeError, "'a' is <class"),
        ([("a", 3)], TypeError, "'a' is 3"),
        ("mean", ValueError, "The 'imputers' parameter"),
    ],
)
def test_what_is_no_list_of_imputers(table, imputers, error, message):
    with pytest.raises(error, match=re.escape(message)):
        StackingImputer(imputers).fit(table[0])


@pytest.mark.parametrize(
    "params",
    [
        {"weights": "row"},
        {"statistic": "mode"},
        {"test_size": 0},
        {"test_size": 1.0},
        {"cv": 1},
        {"shrinkage": -1},
        {"min_value": np.nan},
        {"max_value": [1, 2]},
    ],
    ids=str,
)
def test_parameters_out_of_range(table, params):
    with pytest.raises(ValueError, match=next(iter(params))):
        StackingImputer(MEMBERS, **params).fit(table[0])


@pytest.mark.parametrize("probabilities", [0.5, [0, 0.5], [0.5, 1], [[0.5]], [np.nan]])
def test_probabilities_of_quantiles_lie_between_0_and_1(table, probabilities):
    stack = StackingImputer([("mean", MEAN)]).fit(table[0])
    with pytest.raises(ValueError, match="return_quantiles must be a sequence"):
        stack.impute(table[0], return_quantiles=probabilities)


def test_nothing_observed(table):
    nothing = np.full((5, 8), np.nan)
    with pytest.raises(ValueError, match="every entry of X is missing"):
        StackingImputer(MEMBERS).fit(nothing)
    with pytest.raises(ValueError, match="every entry of X is missing"):
        StackingImputer(MEMBERS).fit(table[0]).score(nothing)


# A scikit-learn estimator


def test_members_are_parameters_by_name(table):
    stack = StackingImputer([*MEMBERS, ("knn", KNNImputer())])
    stack.set_params(knn__n_neighbors=3, mean="drop", neighbours=MEDIAN)
    assert stack.get_params()["knn__n_neighbors"] == 3
    assert "imputers" in stack.get_params(deep=False)
    stack.fit(table[0])
    assert list(stack.named_imputers_) == ["neighbours", "knn"]
    assert stack.named_imputers_["neighbours"].strategy == "median"


class Interrupted(Spy):
    """One that Ctrl-C stops as it is fitted to everything."""

    def fit(self, X, y=None):
        """Stop the third fit."""
        super().fit(X)
        if len(self.seen) == 3:
            raise KeyboardInterrupt
        return self


def test_ctrl_c_leaves_the_fit_before(table, spy):
    X = table[0]
    stack = StackingImputer([("slow", Interrupted())], random_state=0)
    Interrupted.seen = Interrupted.seen[:0]
    expected = stack.fit(X).transform(X)
    before = dict(vars(stack))
    with pytest.raises(KeyboardInterrupt):
        stack.fit(2 * X[:, :5])
    assert vars(stack) == before
    assert_array_equal(stack.transform(X), expected)


def test_a_file_holds_all_of_a_fit(table):
    X = table[0]
    stack = StackingImputer(MEMBERS, random_state=0).fit(X)
    loaded = pickle.loads(pickle.dumps(stack))
    for one, other in zip(
        stack.impute(X, return_std=True), loaded.impute(X, return_std=True), strict=True
    ):
        assert_array_equal(one, other)


def test_verbose_tells_the_error_of_each_member_and_of_the_stack(table, capsys):
    X, stack = table[0], StackingImputer(MEMBERS, verbose=1, random_state=0)
    stack.fit(X)
    told = capsys.readouterr().out.splitlines()
    expected = ["mean", "neighbours", "stack"]
    assert len(told) == 3
    for line, name in zip(told, expected, strict=True):
        assert re.fullmatch(
            rf"\[StackingImputer\] {name}: held-out error \d\.\d+ standard dev.*", line
        )
    stack.set_params(verbose=0).fit(X)
    assert capsys.readouterr().out == ""


def test_large_tables_are_given_to_fewer_imputers():
    names = {
        shape: [name for name, _ in default_imputers(*shape, "mean")]
        for shape in [(20_000, 31), (20_000, 32), (20_001, 30), (20_000, 60)]
    }
    assert names[20_000, 31] == ["factors", "scores", "neighbours", "trees"]
    assert names[20_000, 32] == ["factors", "scores", "neighbours"]
    assert names[20_001, 30] == ["factors", "scores", "trees"]
    assert names[20_000, 60] == [*names[20_000, 32], "many factors"]


def test_large_tables_are_left_without_trees():
    assert default_regressor(20_000, 31) is not None
    assert default_regressor(20_000, 32) is None


@pytest.mark.slow
def test_the_defaults_are_those_of_a_table_of_this_size(table):
    stack = StackingImputer(random_state=0).fit(table[0])
    names = [name for name, _ in default_imputers(*table[0].shape, "mean")]
    assert list(stack.named_imputers_) == names


def test_standardized_columns_are_those_divided_by_their_deviations(table):
    X = table[0] * np.geomspace(1, 1e6, 8)
    mean, scale = np.nanmean(X, axis=0), np.nanstd(X, axis=0)
    expected = KNNImputer().fit_transform((X - mean) / scale) * scale + mean
    filled = StandardizedColumns(KNNImputer()).fit_transform(X)
    assert_allclose(filled, expected)
    assert_array_equal(filled[~np.isnan(X)], X[~np.isnan(X)])
