"""Samples from the posterior, and predictions that average them."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from sklearn_mfgd import GradientMF, MaskedGradientMF
from sklearn_mfgd._bayes import covariance, draws, gibbs
from sklearn_mfgd._bayes.draws import Sample, SidePrior
from sklearn_mfgd._bayes.gibbs import GAMMA_SHAPE, MEAN_PRIOR_COUNT, _sample_prior
from sklearn_mfgd._bayes.missingness import Features
from sklearn_mfgd._bayes.noise import MIN_VARIANCE
from sklearn_mfgd._bayes.priors import FLAT_PRECISION, GAMMA_RATE, SIGNAL_VARIANCES
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels import dispatch, numpy_kernels
from sklearn_mfgd._kernels.rows import Biases

BIASES = [Biases(row, column) for row in (False, True) for column in (False, True)]
FIT_BIAS = pytest.mark.parametrize("fit_bias", [True, "columns", False])

# How many standard errors a mean of samples may be off.
SIGMAS = 5


def assert_mean_is(samples, expected):
    """Compare the mean over the first axis with what is expected."""
    errors = samples.std(axis=0) / np.sqrt(len(samples))
    assert (np.abs(samples.mean(axis=0) - expected) < SIGMAS * errors).all()


# Samples of rows


class Row:
    """A row that is there many times, and the Gaussian of its coefficients."""

    def __init__(self, biases, count, weighted=True):
        rng = np.random.RandomState(0)
        self.biases, q = biases, 3 + biases.row
        mask = np.tile(rng.uniform(size=12) < 0.6, (count, 1))
        self.H = rng.standard_normal((12, 3 + biases.column))
        self.rows = rows_of(np.tile(rng.standard_normal(12), (count, 1)), mask)
        n_observed = mask[0].sum()
        x, weights = self.rows.values[:n_observed], np.ones(n_observed)
        if weighted:
            weights = rng.uniform(0.5, 2, n_observed)
            self.rows = self.rows._replace(weights=np.tile(weights, count))
        self.ridge = rng.uniform(0.5, 2, q)
        ones = np.ones((n_observed, int(biases.row)))
        self.design = np.column_stack([self.H[mask[0], :3], ones])
        self.x = x - self.H[mask[0], 3:].sum(axis=1)
        precision = (self.design.T * weights) @ self.design
        self.covariance = np.linalg.inv(precision + np.diag(self.ridge))
        self.mean = self.covariance @ (self.design.T * weights) @ self.x

    def sample(self, normal):
        given = self.rows, self.H, self.biases, self.ridge, normal
        return dispatch.least_squares(*given)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("biases", BIASES, ids=str)
def test_normal_numbers_move_a_row_by_a_root_of_its_covariance(
    kernels, biases, weighted
):
    q = 3 + biases.row
    row = Row(biases, q, weighted)
    assert_allclose(row.sample(np.zeros((q, q))), np.tile(row.mean, (q, 1)))
    moved = row.sample(np.eye(q)) - row.mean
    assert_allclose(moved.T @ moved, row.covariance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("biases", BIASES, ids=str)
def test_rows_are_solved_around_the_means_of_their_prior(biases):
    row, rng = Row(biases, 3, weighted=False), np.random.RandomState(1)
    q = 3 + biases.row
    mean, noise = rng.standard_normal(q), rng.uniform(0.5, 2, 12)
    slopes, features = rng.standard_normal((2, q)), rng.standard_normal((3, 2))
    sample = Sample(row.H, noise, SidePrior(mean, row.ridge, slopes))
    found = sample.row_factors(row.rows, biases, features)
    weighted = row.design.T * noise[row.rows.indices[: len(row.x)]]
    system = weighted @ row.design + np.diag(row.ridge)
    for w, of_row in zip(found, features, strict=True):
        right = weighted @ row.x + row.ridge * (mean + of_row @ slopes)
        assert_allclose(w, np.linalg.solve(system, right))


def test_any_number_of_threads_samples_the_same_rows(monkeypatch, kernels):
    row = Row(Biases(True, True), 300)
    normal = np.random.RandomState(1).standard_normal((300, 4))
    expected = row.sample(normal)
    monkeypatch.setattr(dispatch, "OPERATIONS", 1e4)
    rtol = 1e-10 if kernels is numpy_kernels else 0  # which solves whole ranges at once
    for n_threads in (1, 2, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
        assert_allclose(row.sample(normal), expected, rtol=rtol)


# Samples of priors and noise

COUNT, N_SAMPLES = 40, 3000
NO_FEATURES = Features(np.zeros((COUNT, 0)), np.zeros(0))


def two_features(dtype=np.float64):
    """Orthonormal ones, the second of a smaller scale."""
    values = np.random.RandomState(2).standard_normal((COUNT, 2))
    return Features(np.linalg.qr(values).Q.astype(dtype), np.array([1.0, 0.3]))


def sample_priors(F, biased, features, **options):
    rng = np.random.default_rng(1)
    given = F, biased, features, rng
    found = [_sample_prior(*given, **options) for _ in range(N_SAMPLES)]
    return [np.array(field) for field in zip(*found, strict=True)]


@pytest.mark.parametrize("biased", [False, True], ids=["", "biased"])
def test_mean_and_precision_of_a_factor_have_a_normal_gamma_posterior(biased):
    factors = np.random.RandomState(0).standard_normal((COUNT, 3))
    factors = factors * [0.5, 1, 3] + [0.3, -1, 5]
    means, precisions, _ = sample_priors(factors, biased, NO_FEATURES)
    for k, f in enumerate(factors.T):
        kappa, average = MEAN_PRIOR_COUNT + COUNT, f.mean()
        squares = ((f - average) ** 2).sum()
        squares += MEAN_PRIOR_COUNT * COUNT / kappa * average**2
        if biased and k == 2:
            assert_array_equal(means[:, k], 0)
            squares = (f**2).sum()
        shape, rate = GAMMA_SHAPE + COUNT / 2, GAMMA_SHAPE + squares / 2
        assert_mean_is(precisions[:, k], shape / rate)
        assert precisions[:, k].var() == pytest.approx(shape / rate**2, rel=0.2)
        if not (biased and k == 2):
            scaled = means[:, k] - COUNT / kappa * average
            scaled = scaled * np.sqrt(kappa * precisions[:, k])
            assert_mean_is(scaled, 0)
            assert scaled.var() == pytest.approx(1, abs=SIGMAS * np.sqrt(2 / N_SAMPLES))


def test_a_flat_bias_leaves_means_at_zero_and_has_no_precision():
    F = np.random.RandomState(0).standard_normal((COUNT, 3)) + 5
    given = F, True, two_features(), np.random.default_rng(0)
    prior = _sample_prior(*given, flat_bias=True)
    assert prior.precision[-1] == FLAT_PRECISION
    assert (prior.mean == 0).all()
    assert (prior.slopes == 0).all()


@pytest.mark.parametrize("features", [NO_FEATURES, two_features(np.float32)])
def test_a_prior_of_single_precision_is_double(features):
    F = np.random.RandomState(0).standard_normal((COUNT, 3)).astype(np.float32)
    prior = _sample_prior(F, True, features, np.random.default_rng(0))
    assert {array.dtype for array in prior} == {np.dtype(np.float64)}


def test_slopes_have_the_posterior_that_a_grid_of_signal_variances_gives():
    """Of a factor that features say much of, and of one that they say nothing of."""
    features = two_features()
    F = 0.5 * np.random.RandomState(3).standard_normal((COUNT, 2))
    F[:, 0] += features.values @ [8, 2]
    means, precisions, slopes = sample_priors(F, True, features)
    assert (means == 0).all()
    shape = GAMMA_SHAPE + COUNT / 2
    for k, f in enumerate(F.T):
        # Of every theta: its probability, and what follows from it.
        scores, rates, shares = [], [], []
        for theta in SIGNAL_VARIANCES:
            variances = theta * features.scales**2
            prior = np.eye(COUNT) + (features.values * variances) @ features.values.T
            rates.append(GAMMA_SHAPE + f @ np.linalg.solve(prior, f) / 2)
            scores.append(-shape * np.log(rates[-1]) - np.linalg.slogdet(prior)[1] / 2)
            shares.append(variances / (1 + variances))
        rates, shares = np.array(rates), np.array(shares)
        weights = np.exp(np.array(scores) - max(scores))
        weights /= weights.sum()
        products = features.values.T @ f
        assert_mean_is(precisions[:, k], weights @ (shape / rates))
        assert_mean_is(slopes[:, :, k], weights @ shares * products)
        second = shares * rates[:, None] / (shape - 1) + (shares * products) ** 2
        assert_mean_is(slopes[:, :, k] ** 2, weights @ second)


SQUARES, COUNTS = np.array([3.0, 40.0, 0.0]), np.array([10.0, 20.0, 0.0])


def sample_noise(alpha, dof, squares=SQUARES, dtype=np.float64):
    rng = np.random.default_rng(0)
    given = squares, COUNTS, alpha, dof, np.dtype(dtype)
    return np.array([gibbs._sample_noise(*given, rng) for _ in range(N_SAMPLES)])


def test_noise_of_a_column_is_sampled_around_that_of_all():
    alpha = np.array([1.0, 2.0, 4.0])
    shapes, rates = (COUNTS + 2.5) / 2, (SQUARES + 2.5 * 3 / alpha.sum()) / 2
    assert_mean_is(sample_noise(alpha, 2.5), shapes / rates)


def test_shared_noise_is_sampled_from_all_columns():
    found = sample_noise(np.ones(3), 0)
    assert (found == found[:, :1]).all()
    assert_mean_is(found[:, 0], (GAMMA_RATE + 15) / (GAMMA_RATE + 21.5))


@pytest.mark.pairwise(dof=[4.0, 0.0], dtype=[np.float32, np.float64])
def test_noise_is_never_less_than_rounding(dof, dtype):
    found = sample_noise(np.full(3, 1e12), dof, 0 * SQUARES, dtype)
    assert found.max() <= 1 / MIN_VARIANCE[np.dtype(dtype)]


def test_the_unit_of_a_column_is_sampled_from_an_inverse_chi_square():
    counts, rng = np.array([11, 1]), np.random.default_rng(0)
    given = np.array([5.0, 5.0]), counts, np.dtype(float), rng
    found = np.array([gibbs._sample_squared_unit(*given) for _ in range(N_SAMPLES)])
    assert_mean_is(found[:, 0], 5 / (10 - 2))
    assert (found[:, 1] == 1).all()  # of one value


# Predictions


def hidden_error(model, data):
    filled = model.inverse_transform(model.transform(data.X))
    return np.sqrt(np.mean((filled - data.complete)[~data.mask] ** 2))


@pytest.fixture(scope="module")
def X(planted):
    return planted(share_missing=0.3).X


def make(rank=4, **options):
    """Make an estimator that samples."""
    return MaskedGradientMF(rank, **{"n_draws": 5, "random_state": 0, **options})


@pytest.fixture(scope="module", params=[True, "columns", False])
def model(request, X):
    return make(fit_bias=request.param, tol=1e-2).fit(X)


def test_factors_of_all_samples_stand_side_by_side(model, X):
    biased = model.fit_bias is True
    assert model.transform(X).shape == (40, 5 * 4 + biased)
    assert model.components_.shape == (20, 15)
    assert len(model.get_feature_names_out()) == 20 + biased


def predictions_of(model, X, k):
    """Predictions of one sample, with the mean of the data."""
    unit, biases = 4.0**model._units.exponent, model._model.biases
    rows = rows_of(np.nan_to_num(X - model.mean_) / unit, ~np.isnan(X))
    sample, features = model._model.samples[k], model._model.feature_map.transform(rows)
    W, H = sample.row_factors(rows, biases, features), sample.H
    rank = H.shape[1] - biases.column
    x = W[:, :rank] @ H[:, :rank].T
    x += W[:, rank:].sum(axis=1)[:, None] + H[:, rank:].sum(axis=1)
    return model.mean_ + unit * x


def test_predictions_are_the_average_of_those_of_each_sample(model, X):
    predictions = [predictions_of(model, X, k) for k in range(5)]
    assert np.std(predictions, axis=0).min() > 0
    Z = model.transform(X)
    filled = model.inverse_transform(Z)
    assert_allclose(filled, np.mean(predictions, axis=0), rtol=1e-9, atol=1e-9)
    i, j = np.nonzero(np.isnan(X))
    assert_allclose(model.predict_entries(Z, i, j), filled[i, j], rtol=1e-10)


def test_sampled_entries_lie_around_what_their_sample_predicts(model, X):
    i, j = np.nonzero(np.isnan(X))
    rng = np.random.RandomState(0)
    found = np.array([model._sample_entries(X, (i, j), 1, rng) for _ in range(300)])
    assert_mean_is(found, predictions_of(model, X, 1)[i, j])


def test_a_fit_and_its_pickle_predict_the_same(monkeypatch, model, X):
    """By one block of rows or by many, as they are many factors."""
    Z = model.transform(X)
    again = MaskedGradientMF(**model.get_params())
    assert_array_equal(again.fit_transform(X), Z)
    assert_allclose(model.transform(X[[7, 3]]), Z[[7, 3]], rtol=1e-9, atol=1e-12)
    copied = pickle.loads(pickle.dumps(model))
    assert_array_equal(copied.transform(X), Z)
    assert copied.score(X) == model.score(X)
    monkeypatch.setattr(draws, "BLOCK", 100)  # five rows
    assert_allclose(again.fit_transform(X), Z, rtol=1e-9, atol=1e-12)
    err = pytest.approx(model.reconstruction_err_, rel=1e-12)
    assert again.fit(X).reconstruction_err_ == err


def test_what_is_learned_is_that_of_the_fit(model, X):
    one = MaskedGradientMF(**{**model.get_params(), "n_draws": 0}).fit(X)
    assert model.score(X) == pytest.approx(one.score(X), abs=0.02)
    assert model.rank_ == one.rank_
    assert model.n_iter_ == one.n_iter_
    assert_array_equal(model.noise_variance_, one.noise_variance_)
    assert_array_equal(model.row_precision_, one.row_precision_)


def test_predictions_stay_in_single_precision(model, X):
    single = MaskedGradientMF(**model.get_params())
    Z = single.fit_transform(X.astype(np.float32))
    filled = single.inverse_transform(Z)
    assert Z.dtype == single.components_.dtype == filled.dtype == np.float32
    errors = filled - model.inverse_transform(model.transform(X))
    assert np.sqrt(np.mean(errors**2)) < 0.2
    assert single.transform(X).dtype == np.float64
    assert model.transform(X.astype(np.float32)).dtype == np.float32


@pytest.mark.slow
@pytest.mark.pairwise(noise=["column", "shared"], fit_bias=[True, "columns", False])
def test_any_number_of_threads_gives_the_same_bits(monkeypatch, X, fit_bias, noise):
    found = []
    monkeypatch.setattr(dispatch, "OPERATIONS", 3e4)
    for n_threads in (1, 2, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
        model = make(n_draws=3, fit_bias=fit_bias, noise=noise, tol=1e-2)
        found.append(model.fit_transform(X))
    assert_array_equal(found[1:], [found[0]] * 2)


def test_the_seed_says_what_is_sampled(X):
    models = [make(n_draws=3, tol=1e-2, random_state=seed) for seed in (0, 0, 1)]
    first, same, other = (model.fit_transform(X) for model in models)
    assert_array_equal(first, same)
    assert not np.isclose(first[:, :-1], other[:, :-1]).any()


@pytest.mark.accuracy
@pytest.mark.parametrize("share_missing, noise", [(0.4, 0.5), (0.7, 1.0)])
def test_the_average_predicts_as_well_as_one_fit(planted, share_missing, noise):
    data = planted(100, 60, 3, noise, share_missing)
    one, average = make(6, n_draws=0).fit(data.X), make(6, n_draws=30).fit(data.X)
    assert hidden_error(average, data) < 1.05 * hidden_error(one, data)


@pytest.mark.parametrize("Estimator", [MaskedGradientMF, GradientMF])
@FIT_BIAS
def test_complete_data_are_sampled_from_too(planted, fit_bias, Estimator):
    X = planted().X
    model = Estimator(4, reg="auto", n_draws=5, fit_bias=fit_bias, random_state=0)
    errors = model.inverse_transform(model.fit_transform(X)) - X
    assert np.sqrt(np.mean(errors**2)) < 0.15
    assert model.score(X) > 0.95


def test_an_entry_counts_by_its_weight(planted):
    """One of weight zero is missing; some of large weight are met best."""
    X = planted(noise=1.0).X
    i, j = np.indices(X.shape)
    heavy, none = (i + j) % 10 == 0, (i + j) % 10 == 5
    weights = np.where(heavy, 100.0, 1.0) * ~none
    model = make(6)
    Z = model.fit_transform(X, entry_weight=weights)
    errors = np.abs(model.inverse_transform(Z) - X)
    assert errors[heavy].mean() < 0.3 * errors[~heavy & ~none].mean()
    missing = np.where(none, np.nan, X)
    assert_array_equal(model.fit_transform(missing, entry_weight=weights), Z)


@pytest.mark.pairwise(dtype=[np.float32, np.float64], share_missing=[0.0, 0.4])
def test_exact_data_are_sampled_from_without_failing(planted, share_missing, dtype):
    data, model = planted(share_missing=share_missing, noise=0.0), make(8)
    filled = model.inverse_transform(model.fit_transform(data.X.astype(dtype)))
    assert_allclose(filled, data.signal, atol=0.02)


def test_sampling_starts_where_covariances_are_diagonal(monkeypatch, planted):
    monkeypatch.setattr(covariance, "MAX_MOMENTS", 0)
    data = planted(100, 60, 3, 0.5, 0.4)
    assert hidden_error(make(6, n_draws=20).fit(data.X), data) < 0.6


@pytest.mark.parametrize("unit", [4.0**10, 4.0**-10])
def test_units_do_not_matter(X, unit):
    model = make(n_draws=3, tol=1e-2)
    filled = model.inverse_transform(model.fit_transform(X))
    scaled = model.inverse_transform(model.fit_transform(unit * X))
    assert_allclose(scaled, unit * filled, rtol=1e-7, atol=1e-9 * unit)


# Refusals


def test_what_cannot_be_sampled_is_refused(X):
    refused = [
        ({"reg": 1.0}, r"with reg=1\.0 use n_draws=0"),
        ({"warm_start": True}, "use n_draws=0"),
        *(({"n_draws": number}, "n_draws") for number in (-1, 2.5, None)),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            make(**options).fit(X)


def test_covariances_of_samples_are_refused(model, X):
    with pytest.raises(ValueError, match=r"needs .* n_draws=0"):
        model.transform(X, return_cov=True)
    Z, none = model.transform(X), np.zeros(1, int)
    covariances = np.zeros((40, Z.shape[1], Z.shape[1]))
    with pytest.raises(ValueError, match=r"return_std=True needs .* n_draws=0"):
        model.predict_entries(Z, none, none, covariance=covariances, return_std=True)


def test_samples_after_early_stopping_count_the_weights_of_all_entries(X, monkeypatch):
    raw = []

    def draw(*arguments):
        raw.extend(gibbs.draw(*arguments))
        return raw

    monkeypatch.setattr("sklearn_mfgd._bayes.fit.draw", draw)
    weights = np.random.RandomState(3).uniform(0.1, 2, X.shape)
    model = MaskedGradientMF(3, n_draws=3, early_stopping=True, random_state=0)
    samples = model.fit(X, entry_weight=weights)._model.samples
    mean_weight = weights[~np.isnan(X)].mean()
    for sample, one in zip(samples, raw, strict=True):
        assert_allclose(mean_weight * sample.noise_precision, one.noise_precision)


def test_draws_start_from_all_factors_though_a_fit_without_draws_drops_some_at_once():
    X = sparse.random(80, 60, 0.3, format="csr", random_state=0)
    X.data[:] = np.random.RandomState(0).standard_normal(X.nnz)
    options = {"max_iter": 1, "random_state": 0}
    with pytest.warns(ConvergenceWarning):
        assert MaskedGradientMF(8, **options).fit(X).rank_ == 7
        assert MaskedGradientMF(8, n_draws=2, **options).fit(X).rank_ == 8
