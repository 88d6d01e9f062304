"""Missingness features: what the observed entries say, and what comes of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from sklearn_mfgd import MaskedGradientMF
from sklearn_mfgd._bayes import covariance, missingness
from sklearn_mfgd._bayes.missingness import RARE_QUANTILE, SIDE_PER_DIRECTION
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels import dispatch, numpy_kernels
from sklearn_mfgd._optim.objective import ObservedObjective


def make_mask(m=70, n=50):
    """Most entries where row and column both have much of a trait."""
    rng = np.random.RandomState(0)
    chance = 1 / (1 + np.exp(-rng.standard_normal((m, 1)) * rng.standard_normal(n)))
    return rng.uniform(size=(m, n)) < chance * rng.uniform(0.2, 0.9, (m, 1))


def features_of(mask, dtype=float):
    """Return the rows, features of rows and of columns, and the feature map."""
    values = np.random.RandomState(1).standard_normal(mask.shape).astype(dtype)
    rows = rows_of(values, mask)
    return rows, *missingness.fit_features(ObservedObjective(rows).pattern, dtype)


def test_features_are_constant_count_and_singular_vectors(kernels):
    """Of observed minus expected entries, by a dense decomposition; orthonormal."""
    mask = make_mask()
    _, *features, _ = features_of(mask)
    counts = [mask.sum(axis=1), mask.sum(axis=0)]
    residuals = mask - np.outer(*counts) / mask.sum()
    residuals /= np.sqrt(np.outer(*(count + missingness.TAU for count in counts)))
    U, singular, Vt = np.linalg.svd(residuals)
    rank = 50 // SIDE_PER_DIRECTION
    for side, count, vectors in zip(features, counts, (U, Vt.T), strict=True):
        log_count = np.log1p(count)
        limits = np.quantile(log_count, [RARE_QUANTILE, 1 - RARE_QUANTILE])
        log_count = np.clip(log_count, *limits)
        expected = [np.ones(len(count)), log_count, *vectors.T[:rank]]
        Q = np.linalg.qr(np.column_stack(expected)).Q
        assert_allclose(side.values @ side.values.T, Q @ Q.T, atol=1e-8)
        gram = side.values.T @ side.values
        assert_allclose(gram, np.eye(len(gram)), atol=1e-9)
        assert_allclose(side.scales, [1, 1, *singular[:rank] / singular[0]], rtol=1e-8)


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=15).filter(any),
    quantile=st.sampled_from([0.0, 0.01, 0.1, 0.25, 0.37, 0.5]),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_rare_counts_are_those_beyond_two_quantiles(counts, quantile):
    """Of rows that have any entries; found from how many rows have each number."""
    mask = np.arange(30) < np.array(counts)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(missingness, "RARE_QUANTILE", quantile)
        *_, feature_map = features_of(mask)
    log_counts = np.log1p([count for count in counts if count])
    expected = np.quantile(log_counts, [quantile, 1 - quantile])
    found = feature_map.low[1], feature_map.high[1]
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_map_gives_the_features_of_the_fit(kernels, dtype):
    rows, of_rows, of_columns, feature_map = features_of(make_mask(), dtype)
    atol = 1e-6 if dtype == np.float32 else 1e-12
    found = feature_map.transform(rows)
    assert found.dtype == of_rows.values.dtype == of_columns.values.dtype == dtype
    assert_allclose(found, of_rows.values, atol=atol)
    alone = feature_map.transform(rows.between(7, 9))
    assert_allclose(alone, of_rows.values[7:9], atol=atol)


def test_features_do_not_depend_on_values_or_weights():
    rows, of_rows, of_columns, _ = features_of(make_mask())
    other = rows._replace(values=7 * rows.values, weights=1 + rows.values**2)
    again = missingness.fit_features(ObservedObjective(other).pattern, float)
    assert_array_equal(again[0].values, of_rows.values)
    assert_array_equal(again[1].values, of_columns.values)


def test_a_row_unlike_all_has_the_features_of_the_nearest():
    """As far as single features go: no straight line leads out of the data."""
    mask = make_mask(n=64)
    mask[:, 40:] = False
    *_, feature_map = features_of(mask)
    full = rows_of(np.ones((1, 64)), np.ones((1, 64), bool))
    found = feature_map.transform(full)[0]
    raw = np.linalg.lstsq(feature_map.basis.T, found, rcond=None)[0]
    assert (raw <= feature_map.high + 1e-9).all()
    assert (raw >= feature_map.low - 1e-9).all()
    most = np.quantile(np.log1p(mask.sum(axis=1)), 1 - RARE_QUANTILE)
    assert raw[1] == pytest.approx(most)


def test_features_of_rows_without_entries_are_zero():
    mask = make_mask()
    mask[3] = mask[:, 4] = False
    rows, of_rows, of_columns, feature_map = features_of(mask)
    assert_array_equal(of_rows.values[3], 0)
    assert_array_equal(of_columns.values[4], 0)
    assert_array_equal(feature_map.transform(rows)[3], 0)
    *_, feature_map = features_of(make_mask())  # which had no empty row
    empty = rows_of(np.ones((2, 50)), np.zeros((2, 50), bool))
    assert_array_equal(feature_map.transform(empty), 0)


def test_a_feature_is_dropped_if_the_others_say_it():
    """All rows have as many entries: their number says nothing more."""
    i, j = np.indices((20, 20))
    _, of_rows, of_columns, feature_map = features_of((j - i) % 20 < 6)
    n_features = 1 + 20 // SIDE_PER_DIRECTION
    assert len(of_rows.scales) == len(of_columns.scales) == n_features
    assert_array_equal(feature_map.basis[1], 0)


def test_features_are_the_same_on_any_number_of_threads(monkeypatch, kernels):
    mask = make_mask(300, 200)
    monkeypatch.setattr(dispatch, "OPERATIONS", 1e4)
    found = []
    for n_threads in (1, 2, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
        found.append(features_of(mask)[1].values)
    atol = 1e-10 if kernels is numpy_kernels else 0
    assert_allclose(found[1:], [found[0]] * 2, rtol=0, atol=atol)


# Fits


def errors_of(model, X, complete, mask):
    """Root mean squared error of the entries that `mask` leaves out."""
    filled = model.inverse_transform(model.transform(X))
    return np.sqrt(np.mean((filled - complete)[~mask] ** 2))


@pytest.fixture(scope="module")
def data():
    """Ratings of those who chose what they rate: X, its complete values, the mask.

    Of what was chosen, a fifth is hidden: False in the mask.
    """
    rng, (m, n) = np.random.RandomState(0), (300, 120)
    W, H = rng.standard_normal((m, 2)), rng.standard_normal((n, 2))
    b = 0.5 * rng.standard_normal(m)
    complete = W @ H.T + b[:, None] + 0.5 * rng.standard_normal((m, n))
    chance = 1 / (1 + np.exp(2.5 - 2 * W @ H.T - 2 * b[:, None]))
    chosen = rng.uniform(size=(m, n)) < 0.5 * chance
    hidden = chosen & (np.random.RandomState(1).uniform(size=(m, n)) < 0.2)
    return np.where(chosen & ~hidden, complete, np.nan), complete, ~hidden


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.parametrize("n_draws", [0, 20])
def test_features_help_where_entries_were_chosen(data, n_draws):
    """And for new rows, of which a few entries are known."""
    options, new = (
        {"n_draws": n_draws, "random_state": 0},
        [each[200:] for each in data],
    )
    models = [MaskedGradientMF(8, pattern=p, **options) for p in (True, False)]
    for m, tested, ratio in ((300, data, 0.93), (200, new, 0.95)):
        ours, without = (errors_of(each.fit(data[0][:m]), *tested) for each in models)
        assert ours < ratio * without


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.parametrize(
    "shape, rank, noise, share_missing",
    [((300, 12), 3, 0.1, 0.3), ((60, 40), 2, 0.5, 0.5), ((200, 150), 4, 1, 0.8)],
)
def test_features_do_no_harm_where_entries_are_missing_at_random(
    planted, shape, rank, noise, share_missing
):
    errors, ranks = np.empty((2, 5)), np.empty((2, 5))
    for seed in range(5):
        one = planted(*shape, rank, noise, share_missing, seed)
        for k, pattern in enumerate((True, False)):
            model = MaskedGradientMF(10, pattern=pattern).fit(one.X)
            errors[k, seed] = errors_of(model, one.X, one.signal, one.mask)
            ranks[k, seed] = model.rank_
    with_features, without = np.square(errors).mean(axis=1)
    assert with_features < 1.03 * without
    assert ranks[0].mean() == pytest.approx(ranks[1].mean(), abs=0.3)


@pytest.mark.accuracy
def test_rows_that_are_nearly_empty_do_not_lead_far_away(planted):
    """The mean of their prior is no further than that of other rows."""
    data = planted(400, 40, 3, 0.3, 0.05)
    X = data.X.copy()
    X[:2, 1:] = np.nan
    model = MaskedGradientMF(8, fit_bias="columns").fit(X)
    assert np.abs(model.transform(X[:2])).max() < 2 * np.abs(model.transform(X)).max()
    error = errors_of(model, X[:2], data.signal[:2], ~np.isnan(X[:2]))
    assert error < 1.2 * np.std(data.signal)


@pytest.mark.parametrize("options", [{}, {"n_draws": 3}, {"fit_bias": False}], ids=str)
def test_rows_fold_in_as_they_were_fitted(data, options):
    model = MaskedGradientMF(4, tol=1e-2, random_state=0, **options)
    Z = model.fit_transform(data[0])
    assert_allclose(model.transform(data[0]), Z, atol=1e-12)
    few = model.transform(data[0][[5, 2]])
    assert_allclose(few, Z[[5, 2]], rtol=1e-8, atol=1e-10)


def test_features_do_not_depend_on_the_container(data):
    X, complete, _ = data
    seen, model = ~np.isnan(X), MaskedGradientMF(4, tol=1e-2)
    S = sparse.csr_array((X[seen], np.nonzero(seen)), shape=X.shape)
    expected = model.fit_transform(X)
    assert_array_equal(model.fit_transform(S), expected)
    assert_array_equal(model.fit_transform(complete, mask=seen), expected)


@pytest.mark.slow
@pytest.mark.accuracy
def test_features_are_as_good_in_single_precision_and_with_early_stopping(data):
    X, *others = data
    error, single = errors_of(MaskedGradientMF(8).fit(X), *data), X.astype(np.float32)
    of_single = errors_of(MaskedGradientMF(8).fit(single), single, *others)
    assert of_single == pytest.approx(error, abs=1e-3)
    early = MaskedGradientMF(8, early_stopping=True, random_state=0).fit(X)
    assert errors_of(early, *data) < 1.2 * error


def test_there_are_no_features_where_these_are_of_no_use(monkeypatch, data):
    X, complete, _ = data

    def n_features(X, **options):
        model = MaskedGradientMF(3, tol=1e-2, **options).fit(X)
        return model._model.feature_map.basis.shape[1]

    assert n_features(X) > 3
    assert n_features(complete) == n_features(X, pattern=False) == 0
    monkeypatch.setattr(covariance, "MAX_MOMENTS", 0)
    assert n_features(X) == 0
