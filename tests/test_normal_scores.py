"""Normal scores: one for each value, monotone, and right means of what they stand for.

The oracles are loops over the values of a column, `scipy.integrate` and closed forms.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate
from scipy.stats import norm

from sklearn_mfgd._data.discrete import levels_of_whole_numbers, to_nearest
from sklearn_mfgd._data.normal_scores import NormalScores, by_column

NOTHING = slice(0, 0)


@pytest.fixture
def table():
    """A table of 50 rows: skewed, tied, with a gap, constant; a fifth is missing."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((50, 4))
    X[:, 0] = np.exp(2 * X[:, 0])
    X[:, 1] = np.round(X[:, 1])
    X[:, 2] = np.where(X[:, 2] > 0, 1000, 0) + X[:, 2]
    X[:, 3] = 0.1
    X[rng.uniform(size=X.shape) < 0.2] = np.nan
    return X


def learn(X, weights=None):
    X = np.asarray(X)
    return NormalScores.of(X, np.isnan(X), weights)


def scores_by_hand(column, weights):
    """Quantile at the share of smaller values and half the share of equal ones."""
    scores = []
    for value in column:
        less = sum(w for x, w in zip(column, weights, strict=True) if x < value)
        equal = sum(w for x, w in zip(column, weights, strict=True) if x == value)
        scores.append(norm.ppf((less + equal / 2) / sum(weights)))
    return scores


# Scores of values


@pytest.mark.parametrize("weighted", [False, True])
def test_a_score_is_the_quantile_at_the_middle_of_the_share_of_its_value(
    table, weighted
):
    missing = np.isnan(table)
    weights = np.random.RandomState(1).uniform(0.5, 2, size=table.shape)
    weights = np.where(missing, 0, weights) if weighted else np.where(missing, 0, 1.0)
    found = learn(table, weights if weighted else None).apply(table, missing)
    for j in range(table.shape[1]):
        seen = ~missing[:, j]
        expected = scores_by_hand(table[seen, j], weights[seen, j])
        assert_allclose(found[seen, j], expected, rtol=1e-9, atol=1e-12)
    assert_array_equal(np.isnan(found), missing)


def test_a_whole_weight_is_as_many_entries():
    column = np.array([3.0, -1.0, 3.0, 7.0, 0.5])
    counts = np.array([2, 1, 3, 1, 4])
    weighted = learn(column[:, None], counts[:, None] / 2.0)
    repeated = learn(np.repeat(column, counts)[:, None])
    assert_array_equal(weighted.values, repeated.values)
    assert_allclose(weighted.scores, repeated.scores, rtol=1e-12, atol=1e-15)


def test_the_score_of_a_value_of_hardly_any_weight_is_finite_and_the_outermost():
    scores = learn([[1.0], [2.0], [3.0]], np.array([[1e-30], [1.0], [1e-30]])).scores
    expected = norm.isf(0.5e-30)
    assert_allclose(scores, [-expected, 0, expected], rtol=1e-9, atol=1e-12)


def test_scores_of_a_negated_column_are_negated(table):
    found = learn(-table).apply(-table, np.isnan(table))
    expected = -learn(table).apply(table, np.isnan(table))
    assert_array_equal(found[:, :3], expected[:, :3])


def test_a_monotone_map_of_a_column_changes_no_score(table):
    missing = np.isnan(table)
    expected = learn(table).apply(table, missing)
    mapped = np.arctan(table)
    assert_array_equal(learn(mapped).apply(mapped, missing), expected)


def test_scores_of_new_values_are_between_those_of_their_neighbours():
    scores = learn([[0.0], [1.0], [4.0]])
    low, middle, high = norm.ppf([1 / 6, 1 / 2, 5 / 6])
    new = np.array([[-9.0], [0.25], [2.0], [4.0], [9.0]])
    found = scores.apply(new, np.isnan(new))[:, 0]
    between = [0.75 * low + 0.25 * middle, 2 / 3 * middle + 1 / 3 * high]
    assert_allclose(found, [low, *between, high, high], atol=1e-15)


def test_a_limit_beyond_the_observed_range_is_none():
    scores = learn([[0.0], [1.0], [4.0]])
    limits = np.array([-0.1, 0.0, 1.0, 4.0, 4.1, -np.inf, np.inf])
    found = scores.apply_to(limits, np.zeros(7, int))
    end = norm.ppf(5 / 6)
    expected = [-np.inf, -end, 0, end, np.inf, -np.inf, np.inf]
    assert_allclose(found, expected, atol=1e-15)


# Values of scores


def test_scores_of_observed_values_stand_for_these(table):
    missing = np.isnan(table)
    scores = learn(table)
    columns = np.nonzero(~missing)[1]
    found = scores.undo(scores.apply(table, missing)[~missing], columns)
    assert_allclose(found, table[~missing], rtol=1e-12)


def test_values_rise_with_scores_and_end_at_the_observed_range(table):
    scores = learn(table)
    grid = np.linspace(-9, 9, 181)
    for j in range(4):
        values = scores.undo(grid, np.full(181, j))
        assert (np.diff(values) >= 0).all()
        ends = np.nanmin(table[:, j]), np.nanmax(table[:, j])
        assert (values[0], values[-1]) == ends
        assert tuple(limit[j] for limit in scores.ranges()) == ends


def test_values_of_several_quantiles_are_those_of_each(table):
    scores, columns = learn(table), np.array([2, 0, 1, 0])
    quantiles = np.random.RandomState(0).standard_normal((3, 4))
    expected = [scores.undo(each, columns) for each in quantiles]
    assert_array_equal(scores.undo(quantiles, columns), expected)


def test_an_empty_column_has_no_scores_and_stands_for_zero():
    X = np.array([[1.0, np.nan], [2.0, np.nan]])
    scores = learn(X)
    assert np.isnan(scores.apply(X, np.isnan(X))[:, 1]).all()
    assert scores.undo(np.array([0.3]), np.array([1])) == 0
    assert [limit[1] for limit in scores.ranges()] == [-np.inf, np.inf]
    # A value that is new there has nothing to be compared with.
    assert np.isnan(scores.apply(np.ones((1, 2)), np.zeros((1, 2), bool))[0, 1])


def test_of_no_entries_there_is_nothing_to_tell(table):
    scores, columns = learn(table), np.arange(4)[NOTHING]
    assert scores.undo(np.zeros(0), columns).shape == (0,)
    assert [part.shape for part in scores.moments(*np.zeros((2, 0)), columns)] == [
        (0,),
        (0,),
    ]
    assert list(by_column(columns)) == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_are_of_the_type_of_the_table(table, dtype):
    X = table.astype(dtype)
    scores = learn(X)
    found = scores.apply(X, np.isnan(X))
    assert found.dtype == dtype
    expected = learn(X.astype(float)).apply(X.astype(float), np.isnan(X))
    assert_array_equal(found, expected.astype(dtype))


# Units


@pytest.mark.parametrize("unit", [1e-300, 1e300 / 1024], ids=["small", "large"])
def test_units_change_no_scores_and_scale_values(table, unit):
    missing = np.isnan(table)
    columns = np.array([0, 1, 2, 3])
    mean, deviation = np.array([0.5, -1, 0.1, 0]), np.array([1, 0.3, 2, 0.5])
    plain, scaled = learn(table), learn(unit * table)
    found = scaled.apply(unit * table, missing)
    assert_allclose(found, plain.apply(table, missing), rtol=1e-12)
    for each, expected in zip(
        scaled.moments(mean, deviation, columns),
        plain.moments(mean, deviation, columns),
        strict=True,
    ):
        assert_allclose(each / unit, expected, rtol=1e-9, atol=1e-12)


def test_a_value_too_large_for_the_units_of_a_map_is_beyond_its_end():
    scores = learn([[1e-300], [2e-300]])
    with np.errstate(all="raise"):
        found = scores.apply(np.array([[1e300]]), np.zeros((1, 1), bool))
        limits = scores.apply_to(np.array([-1e300, 1e300]), np.zeros(2, int))
    assert_allclose(found, [[norm.ppf(0.75)]])
    assert_array_equal(limits, [-np.inf, np.inf])


# Means and deviations


def moments_by_integration(value, mean, deviation, breaks):
    """Mean and standard deviation of a function of a normal variable."""
    options = {"points": breaks, "limit": 500, "epsabs": 1e-10}

    def expectation(function):
        def weighted(score):
            return function(score) * norm.pdf(score, mean, deviation)

        ends = mean - 12 * deviation, mean + 12 * deviation
        inside = [b for b in breaks if ends[0] < b < ends[1]]
        return integrate.quad(weighted, *ends, **options | {"points": inside})[0]

    first = expectation(value)

    def squared(score):
        return (value(score) - first) ** 2

    return first, np.sqrt(expectation(squared))


@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (1.5, 0.4), (-1, 0.8)])
def test_moments_are_integrals_over_the_normal_distribution(mean, deviation):
    column = np.exp(norm.ppf((np.arange(60) + 0.5) / 60))
    scores = learn(column[:, None])

    def value(score):
        return np.interp(score, scores.scores, np.sort(column))

    expected = moments_by_integration(value, mean, deviation, list(scores.scores))
    found = scores.moments(np.array([mean]), np.array([deviation]), np.array([0]))
    assert_allclose(np.ravel(found), expected, rtol=0.025)


def test_moments_of_a_large_lognormal_column_are_those_of_its_distribution():
    column = np.exp(norm.ppf((np.arange(20000) + 0.5) / 20000))
    mean, deviation = np.array([-0.5, 0.3, 1.0]), np.array([0.2, 0.5, 0.4])
    found = learn(column[:, None]).moments(mean, deviation, np.zeros(3, int))
    expected = np.exp(mean + deviation**2 / 2)
    assert_allclose(found[0], expected, rtol=2e-3)
    assert_allclose(found[1], expected * np.sqrt(np.expm1(deviation**2)), rtol=2e-3)


@pytest.mark.parametrize("offset", [0, 1e9])
def test_moments_of_a_linear_map_are_mapped(offset):
    # Scores of a long normal column are its values but for the ends.
    column = norm.ppf((np.arange(20000) + 0.5) / 20000)
    mean, deviation = np.array([0.2, -0.7]), np.array([0.5, 0.01])
    found = learn(offset + 3 * column[:, None]).moments(
        mean, deviation, np.zeros(2, int)
    )
    assert_allclose(found[0] - offset, 3 * mean, atol=1e-5)
    assert_allclose(found[1], 3 * deviation, rtol=1e-4)


def test_a_known_score_has_no_deviation_and_an_unknown_one_that_of_the_column():
    column = np.random.RandomState(0).exponential(size=500)
    mean, deviation = np.array([0.7, 0.0]), np.array([0, np.inf])
    scores = learn(column[:, None])
    value, std = scores.moments(mean, deviation, np.zeros(2, int))
    assert_allclose(value[0], scores.undo(mean[:1], np.zeros(1, int))[0])
    assert_allclose(value[1], column.mean(), rtol=0.025)
    assert std[0] < 1e-12
    assert std[1] == np.inf


# Columns of whole numbers


def test_levels_are_known_of_columns_of_whole_numbers_only():
    X = np.array([[1, 0.5, np.nan, -2], [3, 1, np.nan, 7], [1, 2, np.nan, np.nan]])
    limits = np.array([[-np.inf, -np.inf, -np.inf, 0], [np.inf, np.inf, np.inf, 7]])
    levels = levels_of_whole_numbers(X, np.isnan(X), limits)
    assert_array_equal(levels[0], [1, 3])
    assert levels[1] is None
    assert levels[2] is None
    assert_array_equal(levels[3], [7])  # the only one within its limits
    limits[0, 3] = 6.9
    limits[1, 3] = 6.95
    assert levels_of_whole_numbers(X, np.isnan(X), limits)[3] is None


def test_the_nearest_level_is_taken_and_the_lower_one_of_two():
    levels = [np.array([-2.0, 0.0, 5.0]), None, np.array([4.0])]
    values = np.array([-9, -1, -0.9, 2.5, 2.6, 9, 2.6, -3])
    columns = np.array([0, 0, 0, 0, 0, 0, 1, 2])
    expected = [-2, -2, 0, 0, 5, 5, 2.6, 4]
    assert_array_equal(to_nearest(values, columns, levels), expected)
    quantiles = np.array([values, values])
    assert_array_equal(to_nearest(quantiles, columns, levels), [expected, expected])
