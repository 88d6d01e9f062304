"""What the pattern of observed entries says, and what comes of it."""

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from sklearn_mfgd import MaskedGradientMF
from sklearn_mfgd._bayes import diagonal_covariance
from sklearn_mfgd._bayes.missingness import (
    RARE,
    SIDE_PER_DIRECTION,
    TAU,
    describe,
    nothing,
)
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels import dispatch, numpy_kernels


def some_pattern(m=70, n=50, seed=0, dtype=float):
    """Return entries by rows and by columns, most where both have much of a trait."""
    rng = np.random.RandomState(seed)
    chance = 1 / (1 + np.exp(-rng.standard_normal((m, 1)) * rng.standard_normal(n)))
    mask = rng.uniform(size=(m, n)) < chance * rng.uniform(0.2, 0.9, (m, 1))
    rows = rows_of(rng.standard_normal((m, n)).astype(dtype), mask)
    return mask, rows, rows.transpose()


def projection(F):
    return F @ np.linalg.pinv(F)


class TestFeatures:
    def test_are_constant_count_and_singular_vectors(self, kernels):
        """Of the excess over what counts alone would give, by a dense decomposition."""
        mask, rows, columns = some_pattern()
        counts = [mask.sum(axis=1), mask.sum(axis=0)]
        excess = mask - np.outer(*counts) / mask.sum()
        excess /= np.sqrt(np.outer(*(count + TAU for count in counts)))
        U, singular, Vt = np.linalg.svd(excess)
        rank = 50 // SIDE_PER_DIRECTION
        found = describe(rows, columns)[:2]
        for features, count, vectors in zip(found, counts, (U, Vt.T), strict=True):
            usual = np.log1p(count)
            usual = np.clip(usual, *np.quantile(usual, [RARE, 1 - RARE]))
            expected = [np.ones(len(count)), usual, *vectors.T[:rank]]
            assert_allclose(
                projection(features.values),
                projection(np.column_stack(expected)),
                atol=1e-8,
            )
            scales = singular[:rank] / singular[0]
            assert_allclose(features.scales, [1, 1, *scales], rtol=1e-8)

    def test_are_orthonormal(self):
        _, rows, columns = some_pattern()
        for features in describe(rows, columns)[:2]:
            gram = features.values.T @ features.values
            assert_allclose(gram, np.eye(len(gram)), atol=1e-9)

    def test_of_the_same_rows_are_the_same(self, kernels):
        _, rows, columns = some_pattern()
        of_rows, _, description = describe(rows, columns)
        assert_allclose(description(rows), of_rows.values, atol=1e-12)
        alone = description(rows.between(7, 9))
        assert_allclose(alone, of_rows.values[7:9], atol=1e-12)

    def test_of_few_rows_that_are_nearly_empty_lead_nowhere(self, planted):
        """The mean of their prior is no further than that of other rows."""
        data = planted(400, 40, 3, 0.3, 0.05)
        X = data.X.copy()
        X[:2, 1:] = np.nan
        model = MaskedGradientMF(8, fit_bias="columns").fit(X)
        alone = model.transform(X[:2])
        assert np.abs(alone).max() < 2 * np.abs(model.transform(X[2:])).max()
        assert errors_of(model, X[:2], data.signal[:2], ~np.isnan(X[:2])) < 1.2 * (
            np.std(data.signal)
        )

    def test_do_not_depend_on_values_or_weights(self):
        _, rows, columns = some_pattern()
        other = rows._replace(values=7 * rows.values, weights=1 + rows.values**2)
        for one, two in zip(
            describe(rows, columns)[:2], describe(other, columns)[:2], strict=True
        ):
            assert_array_equal(one.values, two.values)

    def test_of_a_row_unlike_all_are_those_of_the_nearest(self):
        """As far as single features go: no straight line leads out of the data."""
        mask, _, _ = some_pattern(n=64)
        mask[:, 40:] = False
        rows = rows_of(np.ones(mask.shape), mask)
        description = describe(rows, rows.transpose())[2]
        full = rows_of(np.ones((1, 64)), np.ones((1, 64), bool))
        raw = np.linalg.lstsq(description.basis.T, description(full)[0], rcond=None)[0]
        assert (raw <= description.high + 1e-9).all()
        assert (raw >= description.low - 1e-9).all()
        most = np.quantile(np.log1p(mask.sum(axis=1)), 1 - RARE)
        assert raw[1] == pytest.approx(most)

    def test_of_a_row_without_entries_are_zero(self):
        mask, _, _ = some_pattern()
        mask[3], mask[:, 4] = False, False
        rows = rows_of(np.ones(mask.shape), mask)
        of_rows, of_columns, description = describe(rows, rows.transpose())
        assert_array_equal(of_rows.values[3], 0)
        assert_array_equal(of_columns.values[4], 0)
        assert_array_equal(description(rows)[3], 0)

    def test_of_an_empty_row_are_zero_where_the_fit_had_none(self):
        _, rows, columns = some_pattern()
        empty = rows_of(np.ones((2, 50)), np.zeros((2, 50), bool))
        assert_array_equal(describe(rows, columns)[2](empty), 0)

    def test_leave_out_what_others_say(self):
        """All rows have as many entries: their number says nothing more."""
        mask = np.zeros((20, 20), bool)
        for i, j in product(range(20), range(6)):
            mask[i, (i + j) % 20] = True
        rows = rows_of(np.ones(mask.shape), mask)
        of_rows, of_columns, description = describe(rows, rows.transpose())
        assert len(of_rows.scales) == len(of_columns.scales)
        assert len(of_rows.scales) == 1 + 20 // SIDE_PER_DIRECTION
        assert_array_equal(description.basis[1], 0)

    def test_stay_in_single_precision(self):
        _, rows, columns = some_pattern(dtype=np.float32)
        of_rows, of_columns, description = describe(rows, columns)
        assert of_rows.values.dtype == of_columns.values.dtype == np.float32
        assert description(rows).dtype == np.float32
        assert_allclose(description(rows), of_rows.values, atol=1e-6)

    def test_are_the_same_bits_on_any_number_of_threads(self, monkeypatch, kernels):
        _, rows, columns = some_pattern(300, 200)
        monkeypatch.setattr(dispatch, "OPERATIONS", 1e4)
        found = []
        for n_threads in (1, 2, 3):
            monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
            found.append(describe(rows, columns)[0].values)
        compare = assert_allclose if kernels is numpy_kernels else assert_array_equal
        options = {"atol": 1e-10} if kernels is numpy_kernels else {}
        compare(found[0], found[1], **options)
        compare(found[0], found[2], **options)

    def test_there_are_none_of_nothing(self):
        _, rows, _ = some_pattern()
        of_rows, of_columns, description = nothing(70, 50, np.float64)
        assert of_rows.values.shape == (70, 0)
        assert of_columns.values.shape == (50, 0)
        assert description(rows).shape == (70, 0)


# Fits


def chosen(m=300, n=120, noise=0.5, seed=0):
    """Return ratings of those who chose what they rate, and all there would be."""
    rng = np.random.RandomState(seed)
    W, H = rng.standard_normal((m, 2)), rng.standard_normal((n, 2))
    b = 0.5 * rng.standard_normal(m)
    complete = W @ H.T + b[:, None] + noise * rng.standard_normal((m, n))
    chance = 1 / (1 + np.exp(2.5 - 2 * W @ H.T - 2 * b[:, None]))
    mask = rng.uniform(size=(m, n)) < 0.5 * chance
    return np.where(mask, complete, np.nan), complete, mask


def errors_of(model, X, complete, mask):
    """Root mean squared error of hidden entries that would have been chosen too."""
    filled = model.inverse_transform(model.transform(X))
    return np.sqrt(np.mean((filled - complete)[~mask] ** 2))


@pytest.fixture(scope="module")
def data():
    """Return X, of which some chosen entries are hidden, these, and their values."""
    X, complete, mask = chosen()
    hidden = mask & (np.random.RandomState(1).uniform(size=X.shape) < 0.2)
    return np.where(hidden, np.nan, X), complete, ~hidden


class TestFits:
    @pytest.mark.parametrize("n_draws", [0, 20])
    def test_are_better_where_entries_were_chosen(self, data, n_draws):
        options = {"n_draws": n_draws, "random_state": 0}
        with_pattern, without = (
            errors_of(MaskedGradientMF(8, pattern=says, **options).fit(data[0]), *data)
            for says in (True, False)
        )
        assert with_pattern < 0.93 * without

    def test_are_better_for_new_rows(self, data):
        """Of which a few entries are known."""
        errors = [
            errors_of(
                MaskedGradientMF(8, pattern=says).fit(data[0][:200]),
                *(part[200:] for part in data),
            )
            for says in (True, False)
        ]
        assert errors[0] < 0.95 * errors[1]

    @pytest.mark.parametrize(
        "shape, rank, noise, missing",
        [((300, 12), 3, 0.1, 0.3), ((60, 40), 2, 0.5, 0.5), ((200, 150), 4, 1, 0.8)],
    )
    def test_are_no_worse_where_holes_are_chance(
        self, planted, shape, rank, noise, missing
    ):
        errors, ranks = [], []
        for seed in range(5):
            one = planted(*shape, rank, noise, missing, seed)
            for says in (True, False):
                model = MaskedGradientMF(10, pattern=says).fit(one.X)
                errors.append(errors_of(model, one.X, one.signal, one.mask))
                ranks.append(model.rank_)
        with_pattern, without = np.square(errors).reshape(-1, 2).mean(axis=0)
        assert with_pattern < 1.03 * without
        assert np.mean(ranks[::2]) == pytest.approx(np.mean(ranks[1::2]), abs=0.3)

    def test_fold_in_as_they_transform(self, data):
        for options in ({}, {"n_draws": 3, "random_state": 0}, {"fit_bias": False}):
            model = MaskedGradientMF(4, tol=1e-2, **options)
            Z = model.fit_transform(data[0])
            assert_allclose(model.transform(data[0]), Z, atol=1e-12)
            part = model.transform(data[0][[5, 2]])
            assert_allclose(part, Z[[5, 2]], rtol=1e-8, atol=1e-10)

    def test_do_not_depend_on_the_container(self, data):
        X, complete, seen = data
        seen = seen & ~np.isnan(X)
        i, j = np.nonzero(seen)
        S = sparse.csr_array((X[i, j], (i, j)), shape=X.shape)
        expected = MaskedGradientMF(4, tol=1e-2).fit_transform(X)
        assert_array_equal(MaskedGradientMF(4, tol=1e-2).fit_transform(S), expected)
        masked = MaskedGradientMF(4, tol=1e-2).fit_transform(complete, mask=seen)
        assert_array_equal(masked, expected)

    def test_are_as_good_in_single_precision(self, data):
        X, complete, seen = data
        double, single = (
            errors_of(MaskedGradientMF(8).fit(X.astype(dtype)), X, complete, seen)
            for dtype in (np.float64, np.float32)
        )
        assert single == pytest.approx(double, abs=1e-3)

    def test_stop_early(self, data):
        model = MaskedGradientMF(8, early_stopping=True, random_state=0).fit(data[0])
        assert errors_of(model, *data) < 1.2 * errors_of(
            MaskedGradientMF(8).fit(data[0]), *data
        )

    def test_make_no_features_where_these_are_of_no_use(self, monkeypatch, data):
        X, complete, _ = data
        for model, given in (
            (MaskedGradientMF(3, tol=1e-2), complete),
            (MaskedGradientMF(3, tol=1e-2, pattern=False), X),
        ):
            assert model.fit(given)._learned.slopes.shape == (0, model.rank_ + 1)
        assert len(MaskedGradientMF(3, tol=1e-2).fit(X)._learned.slopes) > 3
        monkeypatch.setattr(diagonal_covariance, "LARGEST", 0)
        model = MaskedGradientMF(3, tol=1e-2).fit(X)
        assert model._learned.slopes.shape == (0, 4)
