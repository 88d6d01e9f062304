"""Draws from the posterior, and predictions that average them."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_mfgd import GradientMF, MaskedGradientMF
from sklearn_mfgd._bayes import diagonal_covariance
from sklearn_mfgd._bayes.gibbs import (
    MEAN_STRENGTH,
    SHAPE,
    Draw,
    Level,
    _draw_level,
    _draw_noise,
)
from sklearn_mfgd._bayes.missingness import Features
from sklearn_mfgd._bayes.noise import LEAST_NOISE
from sklearn_mfgd._bayes.priors import STRENGTHS, VAGUE
from sklearn_mfgd._data import row_blocks
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels import dispatch, numpy_kernels
from sklearn_mfgd._kernels.rows import Biases

BIASES = [Biases(row, column) for row in (False, True) for column in (False, True)]
FIT_BIAS = pytest.mark.parametrize("fit_bias", [True, "columns", False])

NO_FEATURES = Features(np.zeros((40, 0)), np.zeros(0))

# How many standard deviations a mean of draws may be off.
SIGMAS = 5


def assert_drawn_from(draws, mean, covariance):
    """Compare means and covariances of draws, (n_draws, q)."""
    n, deviations = len(draws), np.sqrt(np.diag(covariance))
    errors = (draws.mean(axis=0) - mean) / deviations
    assert np.abs(errors).max() < SIGMAS / np.sqrt(n)
    errors = np.cov(draws.T) - covariance
    errors /= np.outer(deviations, deviations)
    assert np.abs(errors).max() < SIGMAS * np.sqrt(2 / n)


# Draws of rows


class Row:
    """A row that is there many times, and the Gaussian of its coefficients."""

    def __init__(self, biases, count, rank=3, n=12, weighted=True):
        rng = np.random.RandomState(0)
        self.biases, q = biases, rank + biases.row
        mask = np.tile(rng.uniform(size=n) < 0.6, (count, 1))
        self.H = rng.standard_normal((n, rank + biases.column))
        self.rows = rows_of(np.tile(rng.standard_normal(n), (count, 1)), mask)
        x, weights = self.rows.values[: mask[0].sum()], np.ones(mask[0].sum())
        if weighted:
            weights = rng.uniform(0.5, 2, weights.size)
            self.rows = self.rows._replace(weights=np.tile(weights, count))
        self.ridge = rng.uniform(0.5, 2, q)
        design = self.H[mask[0], :rank]
        if biases.row:
            design = np.column_stack([design, np.ones(len(design))])
        if biases.column:
            x = x - self.H[mask[0], -1]
        precision = (design.T * weights) @ design
        self.covariance = np.linalg.inv(precision + np.diag(self.ridge))
        self.mean = self.covariance @ (design.T * weights) @ x

    def draw(self, normal):
        return dispatch.least_squares(
            self.rows, self.H, self.biases, self.ridge, normal
        )


@pytest.mark.parametrize("biases", BIASES, ids=str)
class TestRows:
    @pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
    def test_are_moved_by_a_root_of_their_covariance(self, kernels, biases, weighted):
        q = 3 + biases.row
        row = Row(biases, q, weighted=weighted)
        assert_allclose(row.draw(np.zeros((q, q))), np.tile(row.mean, (q, 1)))
        moved = row.draw(np.eye(q)) - row.mean
        assert_allclose(moved.T @ moved, row.covariance, rtol=1e-9, atol=1e-12)

    def test_are_drawn_from_their_gaussian(self, kernels, biases):
        row, rng = Row(biases, 4000), np.random.RandomState(1)
        draws = row.draw(rng.standard_normal((4000, 3 + biases.row)))
        assert_drawn_from(draws, row.mean, row.covariance)

    def test_are_drawn_around_the_mean_of_their_level(self, biases):
        """Which counts for as much as the precision of the level says."""
        row, rng = Row(biases, 3, weighted=False), np.random.RandomState(1)
        q = 3 + biases.row
        mean, noise = rng.standard_normal(q), rng.uniform(0.5, 2, 12)
        mean[3:] = 0  # of biases
        slopes, features = rng.standard_normal((2, q)), rng.standard_normal((3, 2))
        level = Level(mean, row.ridge, slopes)
        found = Draw(row.H, noise, level).solve(row.rows, biases, features)
        x, seen = row.rows.values[: row.rows.indptr[1]], row.rows.indices
        seen = seen[: row.rows.indptr[1]]
        design = np.column_stack([row.H[seen, :3], np.ones((len(seen), q - 3))])
        offset = row.H[seen, -1] if biases.column else 0
        weighted = design.T * noise[seen]
        system = weighted @ design + np.diag(row.ridge)
        for own, of_row in zip(found, features, strict=True):
            right = weighted @ (x - offset) + row.ridge * (mean + of_row @ slopes)
            assert_allclose(own, np.linalg.solve(system, right))


def test_any_number_of_threads_draws_the_same(monkeypatch, kernels):
    row, rng = Row(Biases(True, True), 300), np.random.RandomState(1)
    normal = rng.standard_normal((300, 4))
    expected = row.draw(normal)
    monkeypatch.setattr(dispatch, "OPERATIONS", 1e4)
    for n_threads in (1, 2, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
        found = row.draw(normal)
        if kernels is numpy_kernels:  # solves whole ranges at once
            assert_allclose(found, expected, rtol=1e-10)
        else:
            assert_array_equal(found, expected)


# Levels and noise


class TestLevel:
    """The mean and precision of a factor have a Normal-Gamma posterior."""

    count, n_draws = 40, 3000

    @pytest.fixture
    def factors(self):
        rng = np.random.RandomState(0)
        return rng.standard_normal((self.count, 3)) * [0.5, 1, 3] + [0.3, -1, 5]

    def draws(self, factors, biased):
        rng = np.random.default_rng(1)
        levels = [
            _draw_level(factors, biased, NO_FEATURES, rng) for _ in range(self.n_draws)
        ]
        means, precisions, _ = zip(*levels, strict=True)
        return np.array(means), np.array(precisions)

    @pytest.mark.parametrize("biased", [False, True], ids=["", "biased"])
    def test_is_drawn_from_it(self, factors, biased):
        means, precisions = self.draws(factors, biased)
        for k, f in enumerate(factors.T):
            n, average = self.count, f.mean()
            strength, squares = MEAN_STRENGTH + n, ((f - average) ** 2).sum()
            squares += MEAN_STRENGTH * n / strength * average**2
            if biased and k == 2:
                squares = (f**2).sum()
            shape, rate = SHAPE + n / 2, SHAPE + squares / 2
            ours = precisions[:, k]
            error = ours.mean() / (shape / rate) - 1
            assert abs(error) < SIGMAS / np.sqrt(shape * self.n_draws)
            assert ours.var() == pytest.approx(shape / rate**2, rel=0.2)
            if biased and k == 2:
                assert_array_equal(means[:, k], 0)
                continue
            scaled = (means[:, k] - n / strength * average) * np.sqrt(strength * ours)
            assert_drawn_from(scaled[:, None], [0], np.eye(1))

    def test_of_single_precision_is_double(self, factors):
        single, rng = factors.astype(np.float32), np.random.default_rng(0)
        for features in (NO_FEATURES, self.features(np.float32)):
            level = _draw_level(single, True, features, rng)
            assert level.mean.dtype == level.precision.dtype == np.float64
            assert level.slopes.dtype == np.float64

    def features(self, dtype=np.float64):
        """Return two orthonormal features, the second of a smaller scale."""
        values = np.linalg.qr(np.random.RandomState(2).standard_normal((self.count, 2)))
        return Features(values.Q.astype(dtype), np.array([1.0, 0.3]))

    def test_with_features_has_the_posterior_of_strength_precision_and_slopes(self):
        """Of a factor they say much of, and of one that they say nothing of."""
        rng, features = np.random.RandomState(3), self.features()
        F = 0.5 * rng.standard_normal((self.count, 2))
        F[:, 0] += features.values @ [8, 2]
        draws = np.random.default_rng(1)
        levels = [_draw_level(F, True, features, draws) for _ in range(self.n_draws)]
        assert all((level.mean == 0).all() for level in levels)
        slopes = np.array([level.slopes for level in levels])
        precisions = np.array([level.precision for level in levels])
        for k, f in enumerate(F.T):
            # Of every strength: its probability, and what follows from it.
            weights, rates, shares = [], [], []
            for strength in STRENGTHS:
                variances = strength * features.scales**2
                prior = np.eye(self.count) + (features.values * variances) @ (
                    features.values.T
                )
                rate = SHAPE + f @ np.linalg.solve(prior, f) / 2
                _, logdet = np.linalg.slogdet(prior)
                shape = SHAPE + self.count / 2
                weights.append(-shape * np.log(rate) - logdet / 2)
                rates.append(rate)
                shares.append(variances / (1 + variances))
            weights = np.exp(np.array(weights) - max(weights))
            weights /= weights.sum()
            expected = weights @ (shape / np.array(rates))
            spread = precisions[:, k].std() / np.sqrt(self.n_draws)
            assert abs(precisions[:, k].mean() - expected) < SIGMAS * spread
            mean = (weights @ np.array(shares)) * (features.values.T @ f)
            spread = slopes[:, :, k].std(axis=0) / np.sqrt(self.n_draws)
            assert (np.abs(slopes[:, :, k].mean(axis=0) - mean) < SIGMAS * spread).all()
            second = np.array(shares) * np.array(rates)[:, None] / (shape - 1)
            second += (np.array(shares) * (features.values.T @ f)) ** 2
            expected = weights @ second
            squares = slopes[:, :, k] ** 2
            spread = squares.std(axis=0) / np.sqrt(self.n_draws)
            assert (np.abs(squares.mean(axis=0) - expected) < SIGMAS * spread).all()


class TestNoise:
    squares, counts = np.array([3.0, 40.0, 0.0]), np.array([10.0, 20.0, 0.0])

    def draws(self, strength, alpha, dtype=np.float64, n_draws=3000):
        rng = np.random.default_rng(0)
        given = self.squares, self.counts, alpha, strength, np.dtype(dtype)
        return np.array([_draw_noise(*given, rng) for _ in range(n_draws)])

    def test_of_a_column_is_drawn_around_that_of_all(self):
        """It counts for some observations, all a column has that has none."""
        alpha = np.array([1.0, 2.0, 4.0])
        level, draws = 3 / alpha.sum(), self.draws(2.5, alpha)
        shapes = (self.counts + 2.5) / 2
        rates = (self.squares + 2.5 * level) / 2
        errors = draws.mean(axis=0) / (shapes / rates) - 1
        assert (np.abs(errors) < SIGMAS / np.sqrt(shapes * 3000)).all()

    def test_that_is_shared_is_drawn_from_all_columns(self):
        draws = self.draws(0, np.ones(3))
        assert (draws == draws[:, :1]).all()
        shape, rate = VAGUE + 15, VAGUE + 21.5
        error = draws[:, 0].mean() / (shape / rate) - 1
        assert abs(error) < SIGMAS / np.sqrt(shape * 3000)

    @pytest.mark.parametrize("strength", [4.0, 0.0])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_is_never_less_than_rounding(self, monkeypatch, strength, dtype):
        monkeypatch.setattr(self, "squares", np.zeros(3), raising=False)
        draws = self.draws(strength, np.full(3, 1e12), dtype, n_draws=10)
        assert draws.max() <= 1 / LEAST_NOISE[np.dtype(dtype)]


# Predictions


def hidden_error(model, data):
    filled = model.inverse_transform(model.transform(data.X))
    return np.sqrt(np.mean((filled - data.complete)[~data.mask] ** 2))


@pytest.fixture(scope="module", params=[True, "columns", False])
def model(request, planted):
    """Return five draws of a fit."""
    X = planted(share_missing=0.3).X
    options = {"fit_bias": request.param, "n_draws": 5, "tol": 1e-2}
    return MaskedGradientMF(4, **options, random_state=0).fit(X)


class TestPredictions:
    @pytest.fixture
    def X(self, planted):
        return planted(share_missing=0.3).X

    def test_have_the_factors_of_all_draws_side_by_side(self, model, X):
        """Of all factors: none is dropped."""
        biased = model.fit_bias is True
        assert model.transform(X).shape == (40, 5 * 4 + biased)
        assert model.components_.shape == (20, 15)
        assert len(model.get_feature_names_out()) == 20 + biased

    def test_are_the_average_of_those_of_each_draw(self, model, X):
        unit = 4.0**model._exponent
        rows = rows_of(np.nan_to_num(X - model.mean_) / unit, ~np.isnan(X))
        predictions = []
        for draw in model._draws.draws:
            features = model._draws.describe(rows)
            W = draw.solve(rows, model._biases, features)
            predicted = W[:, :4] @ draw.H[:, :4].T
            predicted += W[:, 4:].sum(axis=1)[:, None] + draw.H[:, 4:].sum(axis=1)
            predictions.append(predicted)
        assert np.std(predictions, axis=0).min() > 0
        expected = model.mean_ + unit * np.mean(predictions, axis=0)
        filled = model.inverse_transform(model.transform(X))
        assert_allclose(filled, expected, rtol=1e-9, atol=1e-9)

    def test_of_entries_are_the_same(self, model, X):
        Z = model.transform(X)
        i, j = np.nonzero(np.isnan(X))
        expected = model.inverse_transform(Z)[i, j]
        assert_allclose(model.predict_entries(Z, i, j), expected, rtol=1e-10)

    def test_are_those_of_the_fit(self, model, X):
        again = MaskedGradientMF(**model.get_params())
        assert_array_equal(again.fit_transform(X), model.transform(X))
        few = model.transform(X[[7, 3]])
        assert_allclose(few, model.transform(X)[[7, 3]], rtol=1e-9, atol=1e-12)

    def test_are_the_same_from_a_pickle(self, model, X):
        copied = pickle.loads(pickle.dumps(model))
        assert_array_equal(copied.transform(X), model.transform(X))
        assert copied.score(X) == model.score(X)

    def test_score_about_as_well_as_one_fit(self, model, X):
        one = MaskedGradientMF(**{**model.get_params(), "n_draws": 0}).fit(X)
        assert model.score(X) == pytest.approx(one.score(X), abs=0.02)

    def test_stay_in_single_precision(self, model, X):
        single = MaskedGradientMF(**model.get_params())
        Z = single.fit_transform(X.astype(np.float32))
        assert Z.dtype == single.components_.dtype == np.float32
        filled = single.inverse_transform(Z)
        assert filled.dtype == np.float32
        errors = filled - model.inverse_transform(model.transform(X))
        assert np.sqrt(np.mean(errors**2)) < 0.2
        assert single.transform(X).dtype == np.float64
        assert model.transform(X.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("noise", ["column", "shared"])
@FIT_BIAS
def test_any_number_of_threads_gives_the_same_bits(
    monkeypatch, planted, fit_bias, noise
):
    X, found = planted(share_missing=0.3).X, []
    options = {"fit_bias": fit_bias, "noise": noise, "tol": 1e-2}
    monkeypatch.setattr(dispatch, "OPERATIONS", 3e4)
    for n_threads in (1, 2, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
        model = MaskedGradientMF(4, n_draws=3, random_state=0, **options)
        found.append(model.fit_transform(X))
    assert_array_equal(found[0], found[1])
    assert_array_equal(found[0], found[2])


def test_the_seed_says_what_is_drawn(planted):
    X = planted(share_missing=0.3).X
    seeded = MaskedGradientMF(4, n_draws=3, tol=1e-2)
    first, same, other = (
        seeded.set_params(random_state=seed).fit_transform(X) for seed in (0, 0, 1)
    )
    assert_array_equal(first, same)
    assert not np.isclose(first[:, :-1], other[:, :-1]).any()


@pytest.mark.parametrize("share_missing, noise", [(0.4, 0.5), (0.7, 1.0)])
def test_the_average_predicts_as_well_as_one_fit(planted, share_missing, noise):
    data = planted(100, 60, 3, noise, share_missing)
    one = MaskedGradientMF(6).fit(data.X)
    model = MaskedGradientMF(6, n_draws=30, random_state=0).fit(data.X)
    assert hidden_error(model, data) < 1.05 * hidden_error(one, data)


def test_what_is_learned_is_that_of_the_fit(planted):
    X = planted(share_missing=0.3).X
    one = MaskedGradientMF(6, tol=1e-2).fit(X)
    model = MaskedGradientMF(6, tol=1e-2, n_draws=2, random_state=0).fit(X)
    assert model.rank_ == one.rank_ == 3
    assert model.n_iter_ == one.n_iter_
    assert_array_equal(model.noise_variance_, one.noise_variance_)
    assert_array_equal(model.row_precision_, one.row_precision_)


@FIT_BIAS
def test_complete_data_are_drawn_from_too(planted, fit_bias):
    X = planted().X
    for estimator in (MaskedGradientMF, GradientMF):
        model = estimator(4, reg="auto", n_draws=5, fit_bias=fit_bias, tol=1e-2)
        model.set_params(random_state=0).fit(X)
        errors = model.inverse_transform(model.transform(X)) - X
        assert np.sqrt(np.mean(errors**2)) < 0.15
        assert model.score(X) > 0.95


def test_weights_count_in_draws(planted):
    """An entry of weight zero is missing; some of large weight are met best."""
    data = planted(noise=1.0)
    i, j = np.indices(data.X.shape)
    heavy, none = (i + j) % 10 == 0, (i + j) % 10 == 5
    weights = np.where(heavy, 100.0, 1.0) * ~none
    model = MaskedGradientMF(6, n_draws=5, random_state=0)
    Z = model.fit_transform(data.X, entry_weight=weights)
    errors = np.abs(model.inverse_transform(Z) - data.X)
    assert errors[heavy].mean() < 0.3 * errors[~heavy & ~none].mean()
    missing = np.where(none, np.nan, data.X)
    again = MaskedGradientMF(6, n_draws=5, random_state=0)
    assert_array_equal(again.fit_transform(missing, entry_weight=weights), Z)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share_missing", [0.0, 0.4])
def test_exact_data_are_drawn_from_without_failing(planted, share_missing, dtype):
    data = planted(share_missing=share_missing, noise=0.0)
    model = MaskedGradientMF(8, n_draws=5, random_state=0)
    X = data.X.astype(dtype)
    filled = model.inverse_transform(model.fit_transform(X))
    assert_allclose(filled, data.signal, atol=0.02)


def test_draws_start_where_covariances_are_diagonal(monkeypatch, planted):
    monkeypatch.setattr(diagonal_covariance, "LARGEST", 0)
    data = planted(100, 60, 3, 0.5, 0.4)
    model = MaskedGradientMF(6, n_draws=20, random_state=0).fit(data.X)
    assert hidden_error(model, data) < 0.6


@pytest.mark.parametrize("unit", [4.0**10, 4.0**-10])
def test_units_do_not_matter(planted, unit):
    X = planted(share_missing=0.3).X
    options = {"n_draws": 3, "random_state": 0, "tol": 1e-2}
    model, scaled = MaskedGradientMF(4, **options), MaskedGradientMF(4, **options)
    filled = model.inverse_transform(model.fit_transform(X))
    expected = scaled.inverse_transform(scaled.fit_transform(unit * X))
    assert_allclose(unit * filled, expected, rtol=1e-7, atol=1e-9 * unit)


class TestRefusals:
    def test_of_a_number_to_draw_with(self, planted):
        with pytest.raises(ValueError, match=r"with reg=1\.0 use n_draws=0"):
            MaskedGradientMF(4, reg=1.0, n_draws=3).fit(planted().X)

    def test_of_going_on(self, planted):
        with pytest.raises(ValueError, match="use n_draws=0"):
            MaskedGradientMF(4, warm_start=True, n_draws=3).fit(planted().X)

    def test_of_covariances(self, planted):
        X = planted().X
        model = MaskedGradientMF(4, n_draws=2).fit(X)
        with pytest.raises(ValueError, match=r"needs .* n_draws=0"):
            model.transform(X, return_cov=True)
        Z, none = model.transform(X), np.zeros(1, int)
        covariance = np.zeros((40, Z.shape[1], Z.shape[1]))
        with pytest.raises(ValueError, match=r"return_std=True needs .* n_draws=0"):
            model.predict_entries(Z, none, none, covariance=covariance, return_std=True)

    @pytest.mark.parametrize("n_draws", [-1, 2.5, None])
    def test_of_numbers_of_draws_that_are_none(self, planted, n_draws):
        with pytest.raises(ValueError, match="n_draws"):
            MaskedGradientMF(4, n_draws=n_draws).fit(planted().X)


@pytest.mark.parametrize("fit_bias", [True, False])
def test_a_fit_without_the_row_factors_is_the_same(monkeypatch, planted, fit_bias):
    """They are many, so `fit` goes through the rows block by block."""
    X = planted(share_missing=0.3).X
    options = {"n_draws": 5, "random_state": 0, "fit_bias": fit_bias}
    one, two = (MaskedGradientMF(4, **options) for _ in range(2))
    Z = one.fit_transform(X)
    monkeypatch.setattr(row_blocks, "BLOCK", 100)  # five rows
    two.fit(X)
    assert_allclose(two.components_, one.components_, rtol=1e-9, atol=1e-12)
    assert two.reconstruction_err_ == pytest.approx(one.reconstruction_err_, rel=1e-12)
    assert_allclose(two.transform(X), Z, rtol=1e-9, atol=1e-12)
    assert_allclose(two.fit_transform(X), Z, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fit_bias", [True, "columns", False])
def test_sampled_entries_lie_around_what_their_draw_predicts(planted, fit_bias):
    X = planted(share_missing=0.3).X
    model = MaskedGradientMF(3, n_draws=2, fit_bias=fit_bias, random_state=0).fit(X)
    i, j = np.nonzero(np.isnan(X))
    rng = np.random.RandomState(0)
    found = [model._sample_entries(X, i, j, 1, rng) for _ in range(300)]
    draw, biases = model._draws.draws[1], model._biases
    rows = model._entries(X, None, None).listed().rows
    W = draw.solve(rows, biases, model._draws.describe(rows))
    x = (W[:, :3] @ draw.H[:, :3].T)[i, j]
    x += W[i, 3] if biases.row else 0
    x += draw.H[j, 3] if biases.column else 0
    expected = model.mean_ + x * 4.0**model._exponent
    error = np.std(found, axis=0) / np.sqrt(300)
    assert (np.abs(np.mean(found, axis=0) - expected) < 5 * error).all()
