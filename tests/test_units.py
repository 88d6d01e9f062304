"""Units: of the solvers, and of standardized columns; and what is held out in them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_mfgd._data.holdout import (
    HeldOut,
    folds,
    hold_out,
    hold_out_positions,
    squared_error,
    validation_error,
)
from sklearn_mfgd._data.matrix import ObservedMatrix, matrix_of
from sklearn_mfgd._data.observed import observe, rows_of
from sklearn_mfgd._data.standardize import Standardization
from sklearn_mfgd._data.units import Units
from sklearn_mfgd._kernels.linalg import exact_sum
from sklearn_mfgd._kernels.rows import Biases

BIASES = [Biases(row, column) for row in (False, True) for column in (False, True)]


@pytest.mark.parametrize("exponent", [-200, -3, 0, 4, 35, 1.3, -40.7])
def test_each_quantity_counts_in_its_power_of_two(exponent):
    units, ones = Units(exponent), np.ones((3, 2))
    assert_allclose(units.leave(ones), 4.0**exponent)
    assert_allclose(units.leave_squares(ones), 16.0**exponent)
    assert_allclose(units.leave_precisions(ones), 4.0**-exponent)
    assert_allclose(units.of_factors(2, True), [2.0**exponent] * 2 + [4.0**exponent])
    assert_array_equal(units.of_factors(1, False), units.of_factors(1, True)[:1])
    factors = units.leave_factors(ones, biased=True)
    assert_allclose(factors[0], [2.0**exponent, 4.0**exponent])
    assert_allclose(units.leave_factors(ones, biased=False), 2.0**exponent)
    assert_allclose(units.enter_factors(factors, biased=True), ones)


@pytest.mark.parametrize("exponent", [-50, -3, 0, 4, 50])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_whole_exponents_round_nothing(exponent, dtype):
    values = np.random.RandomState(0).uniform(1, 2, 50).astype(dtype)
    units = Units(exponent)
    outside = units.leave(values)
    assert outside.dtype == units.enter(outside).dtype == dtype
    assert_array_equal(outside, np.ldexp(values, 2 * exponent))
    assert_array_equal(units.enter(outside), values)


def test_what_leaves_the_range_of_floats_becomes_the_largest_float():
    largest = np.finfo(np.float64).max
    assert Units(300).leave_squares(1.0) == largest
    assert Units(-600).leave_precisions(1.0) == largest
    assert Units(600).leave_in_range(-1.0) == -largest
    assert Units(200).have_squares_of_factors(biased=True)
    assert not Units(300).have_squares_of_factors(biased=True)
    assert Units(300).have_squares_of_factors(biased=False)


def test_a_log_density_loses_the_logarithm_of_the_unit_of_each_entry():
    """The density of x is that of x / u, over u."""
    in_units = -0.5 * np.sum((np.array([3.0, 5.0]) / 8) ** 2)
    in_the_units_of_x = in_units - 2 * np.log(8)
    found = Units(1.5).leave_log_density(in_units, 2)
    assert found == pytest.approx(in_the_units_of_x)


def test_a_step_of_descent_may_be_taken_in_either_unit():
    """The gradient of half the square of ``x - w h`` in w is ``(w h - x) h``."""
    x, w, h, eta, k = 50.0, 3.0, 7.0, 0.01, 3
    inside_x, inside_w, inside_h = x / 4**k, w / 2**k, h / 2**k
    gradient = (inside_w * inside_h - inside_x) * inside_h
    after_step = (inside_w - eta * gradient) * 2**k
    assert after_step == pytest.approx(w - Units(k).leave_step(eta) * (w * h - x) * h)


def test_standardized_columns_have_the_mean_and_the_deviation_of_their_values(planted):
    X = planted(m=9, n=5, share_missing=0.3).X * 10.0 ** np.arange(-200, 250, 100)
    every_column = np.arange(5)
    standardization = Standardization.of(X, np.isnan(X), scale=True)
    Z = standardization.apply(X, np.isnan(X), np.ones(5, bool), np.float64)
    assert_allclose(np.nanmean(Z, axis=0), 0, atol=1e-12)
    assert_allclose(np.nanstd(Z, axis=0), 1)
    assert_allclose(standardization.undo(Z, every_column), X, rtol=1e-12)
    expected = np.nanstd(X / standardization.scale, axis=0, ddof=1)
    widened = standardization.widen(np.ones(5), every_column)
    assert_allclose(widened / standardization.scale, expected)


@pytest.fixture(params=["complete", "missing"])
def table(request, planted):
    return planted(share_missing=0.3 if request.param == "missing" else 0).X


def entries_of(X):
    observed = observe(X, None, None, unstored_is_zero=False)
    return matrix_of(observed, Units(1))


def test_held_out_entries_are_those_of_X(table):
    """The error of factors of zero is the root mean square of the hidden values."""
    entries = entries_of(table)
    seen, hidden = hold_out(entries, 0.2, np.random.RandomState(0))
    centred = table / 4 - entries.mean
    assert_allclose(hidden.values, centred[hidden.rows, hidden.columns], atol=1e-12)
    is_hidden = np.zeros(table.shape, bool)
    is_hidden[hidden.rows, hidden.columns] = True
    assert is_hidden.sum() == int(0.2 * entries.n_observed)
    is_seen = np.zeros(table.shape, bool)
    is_seen[seen.rows.row_numbers, seen.rows.indices] = True
    assert_array_equal(is_seen, ~np.isnan(table) & ~is_hidden)
    validate = validation_error(hidden, Biases(row=False, column=False))
    error = validate(np.zeros((40, 1)), np.zeros((15, 1)))
    assert error == pytest.approx(np.sqrt(np.mean(centred[is_hidden] ** 2)))


def test_held_out_entries_have_the_sampled_numbers_in_row_major_order(table):
    entries = entries_of(table)
    numbers = hold_out_positions(entries.n_observed, 0.2, np.random.RandomState(0))
    _, hidden = hold_out(entries, 0.2, np.random.RandomState(0))
    rows, columns = np.nonzero(~np.isnan(table))
    assert_array_equal(hidden.rows, rows[numbers])
    assert_array_equal(hidden.columns, columns[numbers])
    assert (np.diff(numbers) > 0).all()


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("biases", BIASES, ids=str)
def test_squared_errors_of_parts_of_what_is_held_out_add_up(biases, weighted):
    """To that of a loop over the entries; and to the same digits for any parts."""
    rng, n_entries = np.random.RandomState(0), 50
    W = rng.standard_normal((8, 2 + biases.row))
    H = rng.standard_normal((6, 2 + biases.column))
    rows, columns = rng.randint(8, size=n_entries), rng.randint(6, size=n_entries)
    values = rng.standard_normal(n_entries)
    weights = rng.uniform(0.5, 2, n_entries) if weighted else None
    held_out = HeldOut(rows, columns, values, weights)
    squares, total = [], n_entries if weights is None else weights.sum()
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        found = W[i, :2] @ H[j, :2] + biases.row * W[i, -1] + biases.column * H[j, -1]
        squares.append(
            (1 if weights is None else weights[k]) * (found - values[k]) ** 2
        )
    found = squared_error(held_out, W, H, biases)
    assert_allclose(found.sum(axis=1), [sum(squares), total], rtol=1e-12)
    error = validation_error(held_out, biases)(W, H)
    assert error == pytest.approx(np.sqrt(sum(squares) / total), rel=1e-12)

    def part(some):
        return HeldOut(*(None if a is None else a[some] for a in held_out))

    parts = [part(slice(k, k + 7)) for k in range(0, n_entries, 7)]
    sums = np.array([squared_error(each, W, H, biases) for each in parts])
    for of_parts, whole in zip(sums.swapaxes(0, 1), found, strict=True):
        assert sum(exact_sum(*of_parts.T)) == sum(whole)


# Sums over entries


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_sums_of_columns_count_each_entry_once(weighted):
    """Also where there are more entries than are summed at a time."""
    rng, (m, n) = np.random.RandomState(0), (1000, 700)
    mask = rng.uniform(size=(m, n)) < 0.8
    mask[:, 5] = False
    X = np.where(mask, rng.standard_normal((m, n)), 0).astype(np.float32)
    weights = mask * (rng.uniform(0.5, 2, (m, n)) if weighted else 1.0)
    weights = weights.astype(np.float32)
    rows = rows_of(X, mask)
    if weighted:
        rows = rows._replace(weights=weights[mask])
    matrix = ObservedMatrix(rows, 3.0)
    assert matrix.n_observed > 500_000
    sums = [matrix.column_sums(power) for power in (0, 1, 2)]
    for power, found in enumerate(sums):
        expected = (weights * X.astype(float) ** power).sum(axis=0)
        assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    assert_array_equal(matrix.counts(axis=0), mask.sum(axis=0))
    assert_array_equal(matrix.counts(axis=1), mask.sum(axis=1))
    assert matrix.weight() == pytest.approx(weights.sum(dtype=float), rel=1e-12)
    assert matrix.mean_square() * matrix.weight() == pytest.approx(sums[2].sum())
    means = matrix.column_means()
    assert means[5] == 3
    seen = np.arange(n) != 5
    assert_allclose(means[seen], 3 + (sums[1] / np.maximum(sums[0], 1))[seen])


def test_folds_hide_every_entry_once_and_share_out_those_of_a_row(table):
    entries, times_hidden = entries_of(table), 0
    for seen, hidden, columns in folds(entries):
        assert seen.n_observed + hidden.n_observed == entries.n_observed
        in_fold = hidden.counts(axis=1)
        assert np.abs(in_fold - entries.counts(axis=1) / 5).max() < 1
        times_hidden = times_hidden + in_fold
        assert hidden.shape == (40, len(np.arange(15)[columns[1]]))
    assert_array_equal(times_hidden, entries.counts(axis=1))
