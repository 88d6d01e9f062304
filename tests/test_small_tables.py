"""Small and odd tables: the right rank, honest intervals, constant columns."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning

from sklearn_mfgd import MaskedGradientMF, MFImputer

ESTIMATORS = [MaskedGradientMF, MFImputer]


def planted_table(m, n, rank, noise, share_missing, seed):
    """A table of factors and noise, without and with missing values, and which are."""
    rng = np.random.default_rng(seed)
    complete = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n))
    complete += noise * rng.normal(size=complete.shape)
    missing = rng.random(complete.shape) < share_missing
    return complete, np.where(missing, np.nan, complete), missing


# How certain


def column_of_few_values(n_values, seed, m=200):
    """Eight columns; one has a few values only."""
    complete, X, missing = planted_table(m, 8, 2, 0.1, 0.2, seed)
    seen = np.flatnonzero(~missing[:, 3])
    X[seen[n_values:], 3] = np.nan
    return complete, X, np.isnan(X) & (np.arange(8) == 3)


def coverage_and_errors(imputer, X, complete, places):
    """Share of values within their intervals, and squared errors: ours, of means."""
    filled, std = imputer.impute(X, return_std=True)
    inside = np.abs(filled - complete) < 1.96 * std
    guesses, unit = (filled, np.nan_to_num(imputer.mean_)), complete.std(axis=0)
    errors = [(guess - complete) / unit for guess in guesses]
    return np.mean(inside[places]), *(np.mean(e[places] ** 2) for e in errors)


def check_intervals(found, least):
    """Compare the means over all seeds with what is promised."""
    coverage, ours, usual = np.mean(found, axis=0)
    assert coverage > least
    assert ours < 1.05**2 * usual


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.parametrize("n_values", [2, 3, 5, 20])
def test_intervals_hold_where_a_column_has_few_values(n_values):
    found = []
    for seed in range(8):
        complete, X, places = column_of_few_values(n_values, seed)
        found.append(coverage_and_errors(MFImputer().fit(X), X, complete, places))
    check_intervals(found, 0.94 if n_values >= 20 else 0.9)


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.parametrize("m", [5, 8, 20, 40])
def test_intervals_of_new_rows_hold_where_the_fit_had_few(m):
    found = []
    for seed in range(16):
        complete, X, missing = planted_table(m + 300, 6, 2, 0.1, 0.2, seed)
        imputer = MFImputer(keep_empty_features=True).fit(X[:m])
        places = missing[m:] & ~np.isnan(X[:m]).all(axis=0)
        found.append(coverage_and_errors(imputer, X[m:], complete[m:], places))
    check_intervals(found, 0.94 if m >= 20 else 0.9)


@pytest.mark.slow
@pytest.mark.accuracy
def test_samples_spread_as_far_as_intervals():
    """Each of a chain of its own: within one, samples are alike."""
    shares, options = [], {"sample_posterior": True}
    for seed in range(2):
        complete, X, places = column_of_few_values(3, seed, m=50)
        imputers = [MFImputer(**options, random_state=k) for k in range(30)]
        sampled = [imputer.fit_transform(X)[places] for imputer in imputers]
        low, high = np.sort(sampled, axis=0)[[0, -1]]  # all but 2 of 31
        shares.append(np.mean((low < complete[places]) & (complete[places] < high)))
    assert np.mean(shares) > 0.9


def test_shifted_and_stretched_columns_have_shifted_and_stretched_values():
    X = planted_table(30, 5, 2, 0.1, 0.3, 0)[1]
    X[3:, 2] = np.nan  # two or three values
    shift, unit = np.array([0, 1e3, -5.0, 0.1, 7]), np.array([1, 0.1, 30.0, 1e6, 3])
    (filled, std), (other, other_std) = (
        MFImputer().fit(x).impute(x, return_std=True) for x in (X, shift + unit * X)
    )
    assert_allclose((other - shift) / unit, filled, rtol=1e-6, atol=1e-7)
    assert_allclose(other_std / unit, std, rtol=1e-6, atol=1e-9)


@pytest.mark.pairwise(value=[0.0, 1e-6, 0.3, 1e6], count=[1, 2, 25])
def test_a_constant_column_is_filled_by_its_value(value, count):
    """Of one value nothing tells how far others are; several that are equal do."""
    X = planted_table(40, 5, 2, 0.1, 0.3, 0)[1]
    column = np.full(40, np.nan)
    column[:count] = value
    with_column = np.column_stack([X, column])
    filled, std = MFImputer().fit(with_column).impute(with_column, return_std=True)
    assert (filled[:, 5] == value).all()
    assert (std[count:, 5] == (np.inf if count == 1 else 0.0)).all()
    # The others do not care.
    assert_allclose(filled[:, :5], MFImputer().fit_transform(X), rtol=1e-12)


def test_a_table_of_constant_columns_is_filled():
    X = np.tile([1.0, 2.0, 3.0], (6, 1))
    X[[0, 1, 2], [0, 1, 2]] = np.nan
    assert_allclose(MFImputer().fit_transform(X), np.tile([1, 2, 3], (6, 1)))


# Convergence and rank

SHAPES = [(10, 300, 2, 0.3), (300, 12, 2, 0.3), (500, 10, 3, 0.2), (60, 40, 3, 0.3)]


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.parametrize("Estimator", ESTIMATORS)
@pytest.mark.parametrize("m, n, rank, share_missing", SHAPES)
def test_the_planted_rank_is_found(m, n, rank, share_missing, Estimator):
    tables = [planted_table(m, n, rank, 0.3, share_missing, seed) for seed in range(6)]
    assert [Estimator().fit(X).rank_ for _, X, _ in tables].count(rank) >= 5


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("Estimator", ESTIMATORS)
@pytest.mark.parametrize("m, n, rank, share_missing", SHAPES)
def test_a_patient_fit_finds_no_larger_elbo(m, n, rank, share_missing, Estimator):
    X = planted_table(m, n, rank, 0.3, share_missing, 1)[1]
    fits = [Estimator().fit(X), Estimator(rank, tol=1e-6, max_iter=2000).fit(X)]
    usual, patient = (getattr(fit, "factorization_", fit).loss_curve_ for fit in fits)
    assert patient[-1] - usual[-1] < 2e-3 * np.sum(~np.isnan(X))


@pytest.mark.filterwarnings("error")
def test_a_relation_without_noise_is_found_exactly():
    X = np.array([[1, 2], [3, 6], [4, 8], [10, 20], [np.nan, 22], [7, 14]])
    assert MFImputer().fit_transform(X)[4, 0] == pytest.approx(11, rel=1e-6)


@pytest.mark.parametrize("shape", [(5, 40), (40, 5)])
def test_an_imputer_begins_with_fewer_factors_than_the_smaller_side(shape):
    X = planted_table(*shape, 2, 0.1, 0.2, 0)[1]
    assert MFImputer(max_iter=1, tol=0).fit(X).factorization_.rank == 4


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_fit_that_has_not_converged_warns(Estimator):
    X = planted_table(10, 60, 2, 0.3, 0.3, 0)[1]
    with pytest.warns(ConvergenceWarning, match="after 3 sweeps"):
        Estimator(max_iter=3).fit(X)


# Single precision


@pytest.mark.parametrize("n, seed", [(20, 0), (40, 8)])
def test_identical_columns_fit_in_single_precision(n, seed):
    rng = np.random.default_rng(seed)
    X = np.repeat(rng.standard_normal((300, 1)), n, axis=1).astype(np.float32)
    X[rng.random(X.shape) < 0.2] = np.nan
    single, double = (MaskedGradientMF(8).fit(x) for x in (X, X.astype(float)))
    filled = single.inverse_transform(single.transform(X))
    expected = double.inverse_transform(double.transform(X.astype(float)))
    assert filled.dtype == single.components_.dtype == np.float32
    assert_allclose(filled, expected, atol=1e-5)
    curve = np.array(single.loss_curve_)
    assert (np.diff(curve) > -1e-6 * np.abs(curve[1:])).all()


@pytest.mark.slow
def test_a_large_table_without_noise_is_filled_in_single_precision():
    complete, X, missing = planted_table(3000, 100, 2, 0.0, 0.2, 0)
    imputer = MFImputer().fit(X)
    assert imputer.factorization_.components_.dtype == np.float32
    error = (imputer.transform(X) - complete) / complete.std(axis=0)
    assert np.abs(error[missing]).max() < 1e-4


def test_an_elbo_that_is_no_number_is_an_error(monkeypatch):
    def no_number(*given):
        return np.nan

    monkeypatch.setattr("sklearn_mfgd._bayes.rotation.elbo", no_number)
    X = planted_table(10, 10, 2, 0.3, 0.3, 0)[1]
    with pytest.raises(ValueError, match="lower bound has become nan: the values of X"):
        MaskedGradientMF().fit(X)
