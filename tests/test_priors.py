"""Priors and the noise of columns, which are the best there are; when a fit ends."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar

from sklearn_mfgd._bayes import priors
from sklearn_mfgd._bayes.noise import DOF_RANGE, MIN_VARIANCE, Noise
from sklearn_mfgd._bayes.priors import GAMMA_RATE, SIGNAL_VARIANCES, Prior, rotate
from sklearn_mfgd._bayes.side import SideStatistics
from sklearn_mfgd._bayes.stopping import FINAL_PATIENCE, StoppingRule

COUNT, SCALES = 40, np.array([1.0, 0.4])


class Side:
    """Of 40 coefficients of three factors and a bias, in a rotation of the factors."""

    def __init__(self):
        rng = np.random.RandomState(0)
        self.F = np.linalg.qr(rng.standard_normal((COUNT, 2))).Q
        self.means = 0.5 * rng.standard_normal((COUNT, 4))
        self.means[:, 0] += 6 * self.F[:, 0]
        self.means[:, 3] += 3 * self.F[:, 1]
        self.rotation = rng.standard_normal((3, 3))
        roots = rng.standard_normal((COUNT, 4, 4))
        self.covariance = 0.05 * (roots @ roots.swapaxes(1, 2)).mean(axis=0)
        self.covariance[3, :3] = self.covariance[:3, 3] = 0
        second = self.means.T @ self.means + COUNT * self.covariance
        second = np.insert(np.insert(second, 3, 0, axis=0), 3, 0, axis=1)
        self.statistics = SideStatistics(COUNT, second, self.F.T @ self.means, -7.0)
        start = Prior.of_mean_zero(np.ones(4), SCALES, 3)
        self.start = replace(start, rotation=self.rotation)
        self.prior = self.start.update(self.statistics)
        self.whole = np.eye(4)
        self.whole[:3, :3] = self.rotation
        self.rotated_means = self.means @ self.whole.T
        self.slopes = rotate(self.prior.slopes, self.rotation)

    def elbo_of(self, k, theta, precision, slopes):
        """What the ELBO has of a factor, except for determinants."""
        around = ((self.rotated_means[:, k] - self.F @ slopes) ** 2).sum()
        around += COUNT * (self.whole @ self.covariance @ self.whole.T)[k, k]
        value = COUNT * (1 + np.log(precision)) - precision * around
        value += 2 * GAMMA_RATE * (np.log(precision) - precision)
        if theta:
            ratio = theta * SCALES**2
            # That the slopes have a variance takes what the determinant gives.
            value -= precision * (slopes**2 / ratio).sum() + np.log1p(ratio).sum()
        return value / 2


@pytest.fixture
def side():
    return Side()


def test_the_prior_is_the_best_of_all_signal_variances_precisions_and_slopes(side):
    prior = side.prior
    for k in range(4):
        results, best_slopes = [], []
        for theta in SIGNAL_VARIANCES:
            share = theta * SCALES**2 / (1 + theta * SCALES**2)
            best_slopes.append(share * (side.F.T @ side.rotated_means[:, k]))

            def minus_elbo(log_precision, k=k, theta=theta, a=best_slopes[-1]):
                return -side.elbo_of(k, theta, np.exp(log_precision), a)

            result = minimize_scalar(minus_elbo, bounds=(-10, 10), method="bounded")
            results.append(result)
        chosen = np.argmin([result.fun for result in results])
        assert prior.signal_variance[k] == SIGNAL_VARIANCES[chosen]
        precision = np.exp(results[chosen].x)
        assert prior.precision[k] == pytest.approx(precision, rel=1e-4)
        assert_allclose(side.slopes[:, k], best_slopes[chosen], atol=1e-12)
    assert prior.signal_variance[3] > 0


def test_the_elbo_of_a_prior_sums_over_coefficients_and_determinants(side):
    prior = side.prior
    given = range(4), prior.signal_variance, prior.precision, side.slopes.T
    expected = list(map(side.elbo_of, *given))
    assert_allclose(prior.elbo_of_coefficients(side.statistics), expected)
    log_det = np.linalg.slogdet(side.rotation)[1]
    total = sum(expected) - 7 / 2 + COUNT * log_det
    assert prior.elbo(side.statistics) == pytest.approx(total)


def test_a_prior_pulls_rows_to_its_means(side):
    """By its precision along its axes; its rotation is that of the factors."""
    prior, whole = side.prior, side.whole
    matrix = whole.T @ np.diag(prior.precision) @ whole
    assert_allclose(prior.precision_matrix, matrix)
    means = side.F @ prior.slopes
    assert_allclose(prior.pull(side.F), means @ matrix, atol=1e-12)
    rotated = prior.rotated()
    assert_array_equal(rotated.rotation, np.eye(3))
    assert_allclose(side.F @ rotated.slopes, means @ whole.T, atol=1e-12)
    around = (side.means - means)[:, :3]
    second = around.T @ around + COUNT * side.covariance[:3, :3]
    assert_allclose(prior.centred_moments(side.statistics), second)


def test_a_prior_without_some_factors_keeps_the_bias(side):
    prior = side.prior.rotated()
    fewer = prior.with_factors(np.array([True, False, True]))
    assert fewer.rank == 2
    assert_array_equal(fewer.precision, prior.precision[[0, 2, 3]])
    assert_array_equal(fewer.slopes, prior.slopes[:, [0, 2, 3]])


def test_a_flat_bias_stays_flat(side):
    prior = Prior.of_mean_zero(np.ones(4), SCALES, 3, flat_bias=True)
    for each in (prior, prior.update(side.statistics)):
        assert each.precision[3] == priors.FLAT_PRECISION
        assert each.signal_variance[3] == 0
        assert (each.slopes[:, 3] == 0).all()
    assert prior.update(side.statistics).precision[0] != 1


def test_a_prior_moves_its_means_on(side):
    moved = side.prior.extrapolated(side.start, 0.5)
    assert_allclose(moved.slopes, 1.5 * side.prior.slopes)  # they were zero
    assert replace(moved, slopes=side.prior.slopes) == side.prior


def test_features_say_nothing_of_noise():
    rng, thetas = np.random.RandomState(1), []
    prior = Prior.of_mean_zero(np.ones(1), SCALES, 1)
    for _ in range(50):
        F = np.linalg.qr(rng.standard_normal((COUNT, 2))).Q
        w = rng.standard_normal((COUNT, 1))
        second = np.diag([w[:, 0] @ w[:, 0], COUNT])
        statistics = SideStatistics(COUNT, second, F.T @ w, 0.0)
        thetas.append(prior.update(statistics).signal_variance[0])
    assert np.median(thetas) == 0


# Noise


@given(
    squares=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=8),
    dof=st.sampled_from([0.0, 1.0, 4.0, 64.0]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_an_update_of_the_noise_never_lowers_the_elbo(squares, dof, seed):
    rng, n = np.random.RandomState(seed), len(squares)
    counts = rng.randint(0, 50, n).astype(float)
    alpha = np.full(n, 2.0) if dof == 0 else rng.uniform(0.1, 10, n)
    noise, squares = Noise(alpha, 0.5, dof), np.array(squares)
    before = noise.elbo(counts, squares)
    after = noise.update(counts, squares, float).elbo(counts, squares)
    assert after >= before - 1e-9 * abs(before)


def test_shared_noise_is_that_of_all_entries():
    counts, squares = np.array([3000.0, 5000.0]), np.array([2.0, 4.0])
    noise = Noise(np.ones(2), 1.0, 0.0).update(counts, squares, float)
    assert_allclose(noise.alpha, (8000 + 2 * GAMMA_RATE) / (6 + 2 * GAMMA_RATE))
    exact = noise.update(counts, 0 * squares, np.float32)
    assert_allclose(exact.alpha, 1 / MIN_VARIANCE[np.dtype(np.float32)])


@pytest.mark.parametrize("spread, low, high", [(0.0, 30, 64), (1.5, 1, 4)])
def test_noise_of_columns_is_shrunk_as_far_as_it_is_alike(spread, low, high):
    rng = np.random.RandomState(0)
    variances = np.exp(spread * rng.standard_normal(200))
    counts, squares = np.full(200, 30.0), variances * rng.chisquare(30, 200)
    noise = Noise(np.ones(200), 1.0, 4.0)
    for _ in range(20):
        noise = noise.update(counts, squares, float)
    assert low <= noise.dof <= high
    assert DOF_RANGE[0] <= noise.dof <= DOF_RANGE[1]
    error = np.log(noise.alpha * variances)
    assert np.sqrt(np.mean(error**2)) < (0.1 if spread == 0 else 0.3)


def test_the_mean_variance_is_that_of_the_posterior_of_the_precision():
    counts, alpha = np.array([10.0, 1.0]), np.array([2.0, 0.5])
    expected = (counts + 4) / (counts + 2) / alpha  # of an inverse Gamma distribution
    assert_allclose(Noise(alpha, 1.0, 4.0).mean_variance(counts), expected)


# When a fit ends


def ends(gains, *, has_features=False, extrapolates=None, tol=100.0):
    """Return whether factors are rotated after each sweep, and which is the last."""
    extrapolates = not has_features if extrapolates is None else extrapolates
    rule, rotates = StoppingRule(tol, has_features, extrapolates), []
    for k, gain in enumerate(gains):
        if rule.add(gain, same_rank=True):
            return rotates, k
        rotates.append(rule.rotates)
    return rotates, None


def test_a_fit_ends_on_a_plateau_only_where_sweeps_cost_much():
    """Else when what is left to rise has been little twice."""
    assert ends([900, 80, 8, 0.8]) == ([False, True], 2)
    gains = [900, 90, *np.linspace(9, 8, 20)]
    assert ends(gains)[1] is None
    assert ends([900, 9, 8.9], extrapolates=False)[1] == 2


def test_a_fit_does_not_end_where_a_factor_was_dropped():
    rule = StoppingRule(100.0, False, True)
    assert not rule.add(50, same_rank=True)
    assert not rule.add(5, same_rank=False)
    assert rule.add(0.5, same_rank=True)


def test_with_features_a_fit_ends_at_smaller_gains():
    rotates, last = ends([500, 90, 80, 9, 8, 7, 6], has_features=True)
    assert last == 3 + FINAL_PATIENCE - 1
    assert rotates == [False, True, False, False, True]
    assert ends([500, 90, 80, 70, 60], has_features=True)[1] is None
    # Not made smaller than what is nothing.
    assert ends([2, 0.5, 0.19, 0.18, 0.17], has_features=True, tol=1)[1] == 4


def test_a_fit_does_not_end_where_gains_grow():
    assert ends([500, 90, 80, *range(1, 9)], has_features=True)[1] is None


def test_factors_are_thinned_the_more_the_longer_they_had_until_a_sweep_drops_none():
    rule, shares = StoppingRule(100.0, True, False, thins=True), []
    for same_rank in (False, False, True, True):
        shares.append(rule.dropped_share)
        rule.add(500, same_rank)
    assert shares == [1 / 5, 2 / 6, 3 / 7, 0]
    assert StoppingRule(100.0, True, False).dropped_share == 0


def test_once_the_elbo_has_settled_all_may_be_dropped():
    rule = StoppingRule(100.0, True, False, thins=True)
    rule.add(50, same_rank=False)
    assert rule.dropped_share == 1
