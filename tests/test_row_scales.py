"""Scales of rows: raters who use more or less of a rating scale than others."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.special import digamma
from scipy.stats import gamma, multivariate_normal

from sklearn_mfgd import MaskedGradientMF, MFImputer
from sklearn_mfgd._bayes import gibbs
from sklearn_mfgd._bayes.coordinate_ascent import maximize_others, sweep
from sklearn_mfgd._bayes.covariance import update_rows
from sklearn_mfgd._bayes.fit import Beginning
from sklearn_mfgd._bayes.missingness import FeatureMap, Features
from sklearn_mfgd._bayes.model import first_state, model_of
from sklearn_mfgd._bayes.moments import unpack
from sklearn_mfgd._bayes.priors import (
    GAMMA_RATE,
    SIGNAL_VARIANCES,
    FeatureBasis,
    Prior,
)
from sklearn_mfgd._bayes.rotation import centre
from sklearn_mfgd._bayes.row_scales import DOF_RANGE, RowScales, best_dof, elbo
from sklearn_mfgd._bayes.side import SideStatistics
from sklearn_mfgd._data import row_blocks
from sklearn_mfgd._data.matrix import ObservedMatrix
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels.rows import Biases

BOTH = Biases(True, True)


def features_of(rng, length, n_features):
    """Orthonormal features of descending scales."""
    values = np.linalg.qr(rng.normal(size=(length, n_features)))[0]
    return Features(values, 0.5 ** np.arange(n_features))


def case(seed, m=14, n=9, rank=2, n_features=2, *, missing=0.4, weighted=True):
    """Entries X, their weights S, a model of raters and its first state."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(m, n)) * rng.uniform(0.5, 2, size=(m, 1))
    S = (rng.random((m, n)) > missing).astype(float)
    S[rng.integers(m, size=n), np.arange(n)] = 1  # every column has an entry
    if weighted:
        S *= rng.uniform(0.5, 2, size=(m, n))
    rows = rows_of(X, S > 0)
    if weighted:
        rows = rows._replace(weights=S[S > 0])
    matrix = ObservedMatrix(rows, 0.0)
    features = features_of(rng, m, n_features), features_of(rng, n, n_features)
    model = replace(model_of(matrix, rank, BOTH, "column", features), of_raters=True)
    W, H = rng.normal(size=(m, rank + 1)), rng.normal(size=(n, rank + 1))
    return X, S, model, first_state(model, W, H, matrix)


def settled(model, state, n_sweeps=4):
    """The state after some sweeps, not rotated any more."""
    for _ in range(n_sweeps):
        state, _ = maximize_others(model, *sweep(model, state))
    return state


def naive_rows(X, S, model, state):
    """Mean, covariance at scale one, and scale (shape, rate) of every row, by loops."""
    rank, prior, F = state.rank, state.row_prior, model.row_features.values
    H = state.H
    covariances = unpack(state.columns.covariances, rank + 1)
    found = []
    for i in range(len(X)):
        P, mean = prior.precision_matrix.copy(), F[i] @ prior.slopes
        right = P @ mean
        squares = mean @ P @ mean
        for j in np.flatnonzero(S[i]):
            precision = S[i, j] * state.alpha[j]
            g = np.append(H[j, :rank], 1)
            second = np.outer(g, g)
            second[:rank, :rank] += covariances[j][:rank, :rank]
            cross = np.append(covariances[j][:rank, rank], 0)  # cov(g, c)
            rest = X[i, j] - H[j, rank]
            P += precision * second
            right += precision * (rest * g - cross)
            squares += precision * (rest**2 + covariances[j][rank, rank])
        m = np.linalg.solve(P, right)
        shape = (np.count_nonzero(S[i]) + state.row_dof) / 2
        rate = (squares - m @ P @ m + state.row_dof) / 2
        found.append((m, np.linalg.inv(P), shape, rate))
    return found


def updated_rows(model, state):
    """Statistics of the rows as a sweep finds them."""
    regressors = state.columns.regressors(state.alpha, model.dtype)
    given = regressors, state.row_prior, model.biases, state.row_dof
    return model.data.total(update_rows, (model.row_features.values,), *given)


def test_the_rows_have_the_normal_gamma_posterior_of_a_loop_over_entries():
    X, S, model, state = case(0)
    state = settled(model, state)
    statistics = updated_rows(model, state)
    F, n = model.row_features.values, X.shape[1]
    v_squares, products = np.zeros((4, 4)), np.zeros((2, 3))
    gram, sums, squares = np.zeros((2, 2)), np.zeros(4), np.zeros(n)
    systems, targets = np.zeros((n, 4, 4)), np.zeros((n, 4))
    for i, (m, covariance, shape, rate) in enumerate(naive_rows(X, S, model, state)):
        scale = shape / rate
        v = np.array([m[0], m[1], 1, m[2]])
        second = scale * np.outer(v, v)
        second[np.ix_([0, 1, 3], [0, 1, 3])] += covariance
        v_squares += second
        products += scale * np.outer(F[i], m)
        gram += scale * np.outer(F[i], F[i])
        scales = gamma(shape, scale=1 / rate)
        mean_log = digamma(shape) - np.log(rate)
        fixed = np.count_nonzero(S[i]) * mean_log / 2 + scales.entropy()
        sums += [1, scales.mean(), mean_log, fixed]
        squares += S[i] * scale * X[i] ** 2
        systems += S[i][:, None, None] * second
        targets += np.outer(S[i] * X[i], scale * v)
    assert_allclose(statistics.second_moments, v_squares)
    assert_allclose(statistics.feature_products, products)
    assert_allclose(statistics.feature_gram, gram, atol=1e-12)
    assert_allclose(statistics.scale_sums, sums)
    assert_allclose(statistics.squares, squares)
    assert_allclose(unpack(statistics.systems, 4), systems)
    assert_allclose(statistics.targets, targets)


def test_a_scale_has_the_mean_that_integrals_over_all_scales_give():
    h, alpha, precision, dof = np.array([0.7, -1.2, 0.4]), 2.0, 1.5, 5.0
    x = np.array([1.3, -0.2, 2.1])
    covariance = np.eye(3) / alpha + np.outer(h, h) / precision

    def density(scale):
        likelihood = multivariate_normal(cov=covariance / scale).pdf(x)
        return likelihood * gamma(dof / 2, scale=2 / dof).pdf(scale)

    total = quad(density, 0, 50)[0]
    mean = quad(lambda scale: scale * density(scale), 0, 50)[0] / total
    mean_variance = quad(lambda scale: density(scale) / scale, 0, 50)[0] / total
    P = precision + alpha * h @ h
    m = alpha * h @ x / P
    found = RowScales.of(3, alpha * x @ x - P * m**2, dof)
    assert_allclose([found.means, found.mean_variances], [mean, mean_variance])


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.1, 0.6]),
    st.booleans(),
)
def test_the_elbo_never_falls(seed, rank, n_features, missing, weighted):
    given = {"rank": rank, "n_features": n_features}
    *_, model, state = case(seed, **given, missing=missing, weighted=weighted)
    last = -np.inf
    for _ in range(12):
        state, value = maximize_others(model, *sweep(model, state))
        assert value >= last - 1e-8 * abs(value)
        last = value


def test_the_elbo_is_that_of_loops_over_rows_and_entries():
    """Its change from one sweep to another, without the divergence of the columns."""
    X, S, model, state = case(3)
    found, naive = [], []
    for _ in range(3):
        before = state
        state, statistics = sweep(model, before)
        state, value = maximize_others(model, state, statistics)
        others = state.column_prior.elbo(statistics.columns)
        found.append(value - others)
        naive.append(_naive_elbo(X, S, model, before, state))
    assert_allclose(np.diff(found), np.diff(naive), rtol=1e-6)


def _naive_elbo(X, S, model, before, state):
    """The ELBO without the columns' divergence: rows follow from the state before."""
    rank, prior, F = before.rank, state.row_prior, model.row_features.values
    covariances = unpack(state.columns.covariances, rank + 1)
    counts, squares = np.count_nonzero(S, axis=0), np.zeros(len(state.H))
    value, gram = 0.0, np.zeros((F.shape[1],) * 2)
    Lambda = prior.precision_matrix
    for i, (m, covariance, shape, rate) in enumerate(naive_rows(X, S, model, before)):
        scale, mean_log = shape / rate, digamma(shape) - np.log(rate)
        gram += scale * np.outer(F[i], F[i])
        for j in np.flatnonzero(S[i]):
            g, h = np.append(state.H[j, :rank], 1), state.H[j]
            C = covariances[j]
            error = scale * (X[i, j] - m @ g - h[rank]) ** 2
            u = np.append(m[:rank], 1)
            error += scale * u @ C @ u + g @ covariance @ g
            error += np.trace(C[:rank, :rank] @ covariance[:rank, :rank])
            squares[j] += S[i, j] * error
            value += mean_log / 2
        half = state.row_dof / 2
        value += half * np.log(half) - gamma_function(half) + (half - 1) * mean_log
        value += gamma(shape, scale=1 / rate).entropy() - half * scale
        around = m - F[i] @ prior.slopes
        value -= (np.trace(Lambda @ covariance) + scale * around @ Lambda @ around) / 2
        value += (np.linalg.slogdet(Lambda)[1] + np.linalg.slogdet(covariance)[1]) / 2
    value += _minus_divergence_of_slopes(prior, gram)
    value += GAMMA_RATE * (np.log(prior.precision) - prior.precision).sum()
    return value + state.noise.elbo(counts, squares)


def gamma_function(x):
    """Logarithm of the gamma function, by the density of a gamma distribution at 1."""
    return -1 - gamma(x).logpdf(1.0)


def _minus_divergence_of_slopes(prior, gram):
    """Of each factor along the axes of the prior, and what its spread adds to rows."""
    slopes, value = prior.rotated().slopes, 0.0
    for k, theta in enumerate(prior.signal_variance):
        if theta == 0:
            continue
        inverse = np.diag(1 / (theta * prior.feature_scales**2))
        precision, prior_precision = gram + inverse, inverse
        spread = np.linalg.inv(precision)
        a = slopes[:, k]
        value -= (np.trace(gram @ spread)) / 2
        value -= (np.trace(prior_precision @ spread) - len(a)) / 2
        value -= prior.precision[k] * a @ prior_precision @ a / 2
        value += np.linalg.slogdet(prior_precision)[1] / 2
        value -= np.linalg.slogdet(precision)[1] / 2
    return value


def test_slopes_of_scaled_rows_are_those_of_a_weighted_ridge_regression():
    rng = np.random.default_rng(4)
    m, q = 40, 3
    features = features_of(rng, m, 4)
    F, scales = features.values, rng.gamma(2, 1 / 2, size=m)
    Z = rng.normal(size=(m, q)) + 3 * F @ rng.normal(size=(4, q))
    gram = (F.T * scales) @ F
    second = np.zeros((q + 1, q + 1))
    second[:q, :q] = (Z.T * scales) @ Z
    statistics = SideStatistics(m, second, (F.T * scales) @ Z, 0.0)
    basis = FeatureBasis.of(gram, features.scales)
    statistics = replace(statistics, feature_basis=basis)
    prior = Prior.of_mean_zero(np.ones(q), features.scales, q).update(statistics)
    for k in range(q):
        costs, slopes = [], []
        for theta in SIGNAL_VARIANCES[1:]:
            inverse = np.diag(1 / (theta * features.scales**2))
            a = np.linalg.solve(gram + inverse, F.T @ (scales * Z[:, k]))
            rest = scales @ (Z[:, k] - F @ a) ** 2 + a @ inverse @ a
            det = np.linalg.slogdet(np.eye(4) + np.linalg.solve(inverse, gram))[1]
            costs.append((m + 2 * GAMMA_RATE) * np.log(rest + 2 * GAMMA_RATE) + det)
            slopes.append(a)
        best = int(np.argmin(costs))
        assert prior.signal_variance[k] == SIGNAL_VARIANCES[1:][best]
        assert_allclose(prior.slopes[:, k], slopes[best])
    value = prior.expected_squares(statistics)
    assert_allclose(value * prior.precision, m + 2 * GAMMA_RATE * (1 - prior.precision))


def test_degrees_of_freedom_move_towards_those_of_largest_elbo():
    rng = np.random.default_rng(5)
    counts = np.full(500, 60)
    scales = RowScales.of(counts, rng.chisquare(60, 500) / rng.gamma(3, 1 / 3, 500), 8)
    sums = scales.sums(counts)
    dof, values = 400.0, []
    for _ in range(40):
        values.append(elbo(sums, dof))
        dof = best_dof(sums, dof)
    assert np.all(np.diff(values) >= 0)
    assert 4 < dof < 9  # planted 6
    assert best_dof(sums, dof) == dof


# Whole fits


def raters(seed=0, m=500, n=80, *, dof=6.0, missing=0.6):
    """Ratings without missing ones, what is observed of them, and scales of raters."""
    rng = np.random.default_rng(seed)
    scales = rng.gamma(dof / 2, 2 / dof, size=(m, 1)) if dof else np.ones((m, 1))
    W, H = rng.normal(size=(m, 3)), rng.normal(size=(n, 3)) / 2
    X = 3 + rng.normal(size=n) / 2
    X = X + (W[:, :2] @ H[:, :2].T + W[:, 2:] / 2) / np.sqrt(scales)
    X += rng.normal(size=X.shape) / np.sqrt(scales)
    return X, np.where(rng.random(X.shape) < missing, np.nan, X), scales[:, 0]


def test_planted_degrees_of_freedom_are_recovered():
    _, X, _ = raters()
    assert 4 < MaskedGradientMF().fit(X)._model.row_dof < 9


def test_the_scales_of_rows_that_are_alike_are_known_to_be_one():
    X, Y, _ = raters(1, dof=None)
    model = MaskedGradientMF().fit(Y)
    assert model._model.row_dof > 40
    hidden = np.isnan(Y)
    filled = model.inverse_transform(model.transform(Y))
    assert np.sqrt(np.mean((filled - X)[hidden] ** 2)) < 1.1


def test_scales_reduce_the_error_in_what_is_hidden_of_steady_raters():
    """In units of their deviation: unsteady raters are not what columns follow."""
    X, Y, scales = raters(2, m=250, n=60, dof=3.0)
    hidden, errors = np.isnan(Y), []
    for noise in ("column", "shared"):
        model = MaskedGradientMF(noise=noise).fit(Y)
        filled = model.inverse_transform(model.transform(Y))
        scaled = (filled - X) * np.sqrt(scales)[:, None]
        errors.append(np.sqrt(np.mean(scaled[hidden] ** 2)))
    assert errors[0] < 0.99 * errors[1]


def test_intervals_cover_what_is_hidden():
    X, Y, _ = raters(3)
    model = MaskedGradientMF().fit(Y)
    Z, covariance = model.transform(Y, return_cov=True)
    places = np.nonzero(np.isnan(Y))
    found, deviations = model.predict_entries(
        Z, *places, covariance=covariance, return_std=True
    )
    covered = np.mean(np.abs(found - X[places]) < 1.96 * deviations)
    assert 0.93 < covered < 0.975


def test_the_covariance_of_a_row_is_that_of_scale_one_times_its_mean_variance():
    _, X, _ = raters(4, m=120, n=30)
    model = MaskedGradientMF(pattern=False).fit(X)
    fitted = model._model
    with_dof = model.transform(X, return_cov=True)
    model._model = fitted._replace(row_dof=0.0)
    at_one = model.transform(X, return_cov=True)
    assert_array_equal(with_dof[0], at_one[0])
    ratios = with_dof[1] / at_one[1]
    assert_allclose(ratios, ratios[:, :1, :1] * np.ones_like(ratios), rtol=1e-6)
    # Where the residuals of a row are large, so is its variance.
    residuals = np.nanvar(X - model.inverse_transform(with_dof[0]), axis=1)
    assert np.corrcoef(np.log(residuals), np.log(ratios[:, 0, 0]))[0, 1] > 0.9


def test_a_row_without_entries_has_the_prior_and_a_row_of_one_a_finite_posterior():
    _, X, _ = raters(5, m=120, n=30)
    model = MaskedGradientMF(pattern=False).fit(X)
    Y = np.full((2, 30), np.nan)
    Y[1, 3] = 40.0
    Z, covariance = model.transform(Y, return_cov=True)
    dof = model._model.row_dof
    assert_array_equal(Z[0], 0)
    expected = np.append(
        1 / model.row_precision_, covariance[0, -1, -1] * (dof - 2) / dof
    )
    assert_allclose(np.diag(covariance[0]) * (dof - 2) / dof, expected)
    assert np.all(np.isfinite(Z)) and np.all(np.isfinite(covariance))
    assert covariance[1, -1, -1] > covariance[0, -1, -1]  # an outlier of scale


def test_transform_returns_what_fit_transform_does():
    _, X, _ = raters(6, m=150, n=40)
    model = MaskedGradientMF()
    assert_allclose(model.fit_transform(X), model.transform(X), rtol=1e-10, atol=1e-12)


def test_the_unit_of_the_ratings_does_not_matter():
    _, X, _ = raters(7, m=150, n=40)
    fits = [MaskedGradientMF().fit(factor * X) for factor in (1, 1024)]
    assert fits[0]._model.row_dof == fits[1]._model.row_dof
    filled = [
        fit.inverse_transform(fit.transform(f * X))
        for fit, f in zip(fits, (1, 1024), strict=True)
    ]
    assert_allclose(1024 * filled[0], filled[1], rtol=1e-6)


def test_the_order_of_the_rows_does_not_matter():
    _, X, _ = raters(8, m=150, n=40)
    order = np.random.default_rng(0).permutation(len(X))
    Z, shuffled = (
        model.inverse_transform(model.transform(Y))
        for Y in (X, X[order])
        for model in [MaskedGradientMF().fit(Y)]
    )
    assert_allclose(shuffled, Z[order], rtol=1e-5, atol=1e-6)


def test_single_precision_finds_the_same_to_its_digits():
    _, X, _ = raters(9, m=150, n=40)
    dofs, filled = [], []
    for dtype in (np.float64, np.float32):
        model = MaskedGradientMF().fit(X.astype(dtype))
        dofs.append(model._model.row_dof)
        filled.append(model.inverse_transform(model.transform(X.astype(dtype))))
    assert dofs[0] == dofs[1]
    assert filled[1].dtype == np.float32
    assert_allclose(filled[1], filled[0], rtol=1e-3, atol=1e-3)


def test_sums_over_missing_entries_give_what_sums_over_entries_do(monkeypatch):
    """Where most is observed, rows with the same missing entries share a system."""
    rng = np.random.default_rng(10)
    X = rng.normal(size=(30, 8))
    X[10:, 2] = np.nan
    X[20:, 5] = np.nan
    found = []
    for make_block in (row_blocks._block_of_missing, row_blocks._block):
        monkeypatch.setattr(row_blocks, "_block_of_missing", make_block)
        matrix = ObservedMatrix(rows_of(X, ~np.isnan(X)), 0.0)
        features = [Features(np.zeros((k, 0)), np.zeros(0)) for k in X.shape]
        model = model_of(matrix, 2, BOTH, "column", features)
        model = replace(model, of_raters=True)
        W, H = (np.random.default_rng(0).normal(size=(k, 3)) for k in X.shape)
        found.append(updated_rows(model, first_state(model, W, H, matrix)))
    shared, alone = found
    for name in ("systems", "targets", "squares", "scale_sums", "second_moments"):
        assert_allclose(getattr(shared, name), getattr(alone, name))


@pytest.mark.parametrize(
    "make",
    [
        lambda X: MaskedGradientMF(noise="shared").fit(X)._model,
        lambda X: MaskedGradientMF(fit_bias="columns").fit(X)._model,
        lambda X: MaskedGradientMF(fit_bias=False).fit(X)._model,
        lambda X: MaskedGradientMF().fit(X, times=np.arange(len(X)))._model.base,
        lambda X: MFImputer().fit(X).factorization_._model,
        lambda X: MaskedGradientMF().fit(raters(missing=0.4, m=60, n=12)[1])._model,
    ],
    ids=["shared noise", "columns", "no biases", "times", "imputer", "dense"],
)
def test_only_exchangeable_raters_have_scales(make):
    _, X, _ = raters(11, m=60, n=12)
    assert make(X).row_dof == 0


def test_later_batches_are_learned_without_scales():
    _, X, _ = raters(12, m=120, n=30)
    model = MaskedGradientMF().partial_fit(X[:60])
    assert model._model.row_dof > 0
    model.partial_fit(X[60:])
    assert model._model.row_dof == 0
    assert np.all(np.isfinite(model.transform(X)))


# Draws


def test_sampled_slopes_of_scaled_rows_have_the_mean_of_a_weighted_regression():
    rng = np.random.default_rng(13)
    features, m = features_of(rng, 50, 2), 50
    scales = rng.gamma(2, 1 / 2, size=m)
    Z = 20 * features.values @ rng.normal(size=(2, 1)) + rng.normal(size=(m, 1)) / 9
    draws = [
        gibbs._sample_prior(Z, True, features, rng, scales=scales) for _ in range(400)
    ]
    F = features.values * np.sqrt(scales)[:, None]
    expected = np.linalg.lstsq(F, np.sqrt(scales) * Z[:, 0])[0]
    slopes = np.array([each.slopes[:, 0] for each in draws])
    assert_allclose(slopes.mean(axis=0), expected, rtol=0.02)
    rest = scales @ (Z[:, 0] - features.values @ expected) ** 2
    precision = np.mean([each.precision[0] for each in draws])
    assert_allclose(precision, (1 + m) / (1 + rest), rtol=0.1)


def test_sampled_means_of_scaled_rows_are_weighted():
    rng = np.random.default_rng(14)
    scales = np.repeat([100.0, 0.01], 200)
    Z = np.concatenate([np.full(200, 1.0), np.full(200, 50.0)])[:, None]
    Z = Z + rng.normal(size=Z.shape) / np.sqrt(scales)[:, None]
    nothing = Features(np.zeros((400, 0)), np.zeros(0))
    prior = gibbs._sample_prior(Z, False, nothing, rng, scales=scales)
    assert abs(prior.mean[0] - 1.0) < 0.05
    expected = 400 / (scales @ (Z[:, 0] - 1) ** 2)
    assert_allclose(prior.precision, expected, rtol=0.3)


def test_sampled_degrees_of_freedom_are_those_of_the_scales():
    rng = np.random.default_rng(15)
    scales = rng.gamma(5 / 2, 2 / 5, size=4000)
    draws = [gibbs._sample_dof(scales, rng) for _ in range(50)]
    assert 4 < np.mean(draws) < 6.5
    assert DOF_RANGE[0] <= min(draws)


def test_draws_of_entries_spread_as_the_scale_of_their_row_says():
    _, X, scales = raters(16, m=150, n=40, dof=3.0)
    model = MaskedGradientMF(8, n_draws=20, random_state=0, pattern=False).fit(X)
    rows = np.repeat(np.arange(len(X)), 5)
    columns = np.tile(np.arange(5), len(X))
    rng = np.random.default_rng(0)
    draws = [
        model._sample_entries(X, (rows, columns), number, rng)
        for number in range(5, 20)
        for _ in range(4)
    ]
    spread = np.var(draws, axis=0).reshape(len(X), 5).mean(axis=1)
    assert np.corrcoef(np.log(spread), -np.log(scales))[0, 1] > 0.8


# What the features explain


def test_a_start_from_features_is_the_data_projected_on_the_features_of_both_sides():
    rng = np.random.default_rng(17)
    m, n = 30, 20
    of_rows, of_columns = features_of(rng, m, 3), features_of(rng, n, 2)
    X = rng.normal(size=(m, n))
    matrix = ObservedMatrix(rows_of(X, np.ones_like(X, bool)), 0.0)
    b, c = rng.normal(size=(m, 1)), rng.normal(size=(n, 1))
    factors = (
        np.hstack([rng.normal(size=(m, 4)), b]),
        np.hstack([rng.normal(size=(n, 4)), c]),
    )
    nothing = FeatureMap(np.zeros((n, 0)), np.zeros(2), np.zeros(2), np.zeros((2, 0)))
    given = matrix, factors, of_rows, of_columns, nothing, BOTH, "column", True
    begin = Beginning(*given)
    model = begin.model(np.float64)
    state = begin.state(model, 4, of_features=True)
    F, G = of_rows.values, of_columns.values
    explained = F.T @ (X - b - c.T) @ G
    sizes = np.linalg.svd(explained, compute_uv=False)
    assert state.rank == 2  # as many as features explain
    assert_allclose(state.H[:, -1:], c)
    H = state.H[:, :2]
    balance = np.sqrt(m / n)
    assert_allclose(np.linalg.svd(H, compute_uv=False) ** 2, sizes / balance)
    assert_allclose(H, G @ (G.T @ H), atol=1e-12)
    right = np.linalg.svd(explained)[2]
    assert_allclose(
        np.abs(right @ (G.T @ H)), np.diag(np.sqrt(sizes / balance)), atol=1e-9
    )


def test_moments_around_prior_means_weigh_rows_by_their_scale():
    rng = np.random.default_rng(0)
    m, rank, scales = 20, 3, np.array([1.0, 0.5])
    W, F, rho = (
        rng.normal(size=(m, rank)),
        rng.normal(size=(m, 2)),
        rng.gamma(2, size=m),
    )
    v = np.column_stack([W, np.ones(m)])
    statistics = SideStatistics(
        count=m,
        second_moments=(rho * v.T) @ v,
        feature_products=(rho * F.T) @ W,
        log_det=0.0,
        feature_basis=FeatureBasis.of((rho * F.T) @ F, scales),
    )
    prior = Prior.of_mean_zero(np.ones(rank), scales, rank)
    prior = replace(prior, slopes=rng.normal(size=(2, rank)))
    deviations = W - F @ prior.slopes
    expected = (rho * deviations.T) @ deviations
    assert_allclose(prior.centred_moments(statistics), expected, rtol=1e-10)


def test_the_mean_of_scaled_rows_moves_to_where_the_elbo_is_stationary():
    _, _, model, state = case(3, n_features=0)
    state, statistics = centre(*sweep(model, state))
    rank = state.rank
    assert statistics.rows.second_moments[rank, rank] != model.shape[0]  # scales differ
    of_rows = state.row_prior.precision_matrix[:rank, :rank]
    of_rows = of_rows @ statistics.rows.second_moments[:rank, rank]
    of_biases = state.column_prior.precision[-1]
    of_biases = of_biases * statistics.columns.second_moments[-1, :rank]
    assert_allclose(of_rows, of_biases, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_draws_recover_planted_degrees_of_freedom():
    _, X, _ = raters(dof=6.0)
    model = MaskedGradientMF(4, n_draws=40, random_state=0).fit(X)
    dofs = [sample.row_dof for sample in model._model.samples[10:]]
    assert 4 < np.median(dofs) < 9
