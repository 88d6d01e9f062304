"""Priors, the noise of columns, momentum and the end of a fit: the best there is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar

from sklearn_mfgd._bayes.noise import STRENGTHS as NOISE_STRENGTHS
from sklearn_mfgd._bayes.noise import Noise, best_noise
from sklearn_mfgd._bayes.noise import evidence as noise_evidence
from sklearn_mfgd._bayes.priors import (
    STRENGTHS,
    VAGUE,
    best_prior,
    evidence,
    spread,
    turned,
)
from sklearn_mfgd._bayes.stopping import LAST, LEAST_RISE, PATIENCE, StoppingRule


class TestPrior:
    """Of 40 coefficients of three factors and a bias, in a basis that turns factors."""

    count, scales = 40, np.array([1.0, 0.4])

    @pytest.fixture
    def side(self):
        rng = np.random.RandomState(0)
        F = np.linalg.qr(rng.standard_normal((self.count, 2))).Q
        means = 0.5 * rng.standard_normal((self.count, 4))
        means[:, 0] += 6 * F[:, 0]
        means[:, 3] += 3 * F[:, 1]
        return F, means, rng.standard_normal((3, 3)), rng.uniform(0.1, 1, 4)

    def found(self, side):
        F, means, basis, variances = side
        second = (turned(means, basis) ** 2).sum(axis=0) + self.count * variances
        products = F.T @ means
        return (
            second,
            products,
            best_prior(second, products, self.count, self.scales, basis),
        )

    def value(self, factor, variance, F, strength, precision, a):
        """Return the part of the bound that a factor has, its slopes being `a`."""
        around = ((factor - F @ a) ** 2).sum() + self.count * variance
        value = self.count * np.log(precision) - precision * around
        value += 2 * VAGUE * (np.log(precision) - precision)
        if strength:
            own = strength * self.scales**2
            # That the slopes have a variance takes what the determinant gives.
            value -= precision * (a**2 / own).sum() + np.log1p(own).sum()
        return value / 2

    def test_is_the_best_of_all_strengths_precisions_and_slopes(self, side):
        F, means, basis, variances = side
        _, _, prior = self.found(side)
        slopes = turned(prior.slopes, basis)
        for k, factor in enumerate(turned(means, basis).T):
            best = []
            for strength in STRENGTHS:
                own = strength * self.scales**2
                a = own / (1 + own) * (F.T @ factor)

                def worse(log_precision, strength=strength, a=a, factor=factor, k=k):
                    given = factor, variances[k], F, strength, np.exp(log_precision), a
                    return -self.value(*given)

                best.append(minimize_scalar(worse, bounds=(-10, 10), method="bounded"))
            chosen = np.argmin([result.fun for result in best])
            assert prior.strength[k] == STRENGTHS[chosen]
            precision = np.exp(best[chosen].x)
            assert prior.precision[k] == pytest.approx(precision, rel=1e-4)
            own = prior.strength[k] * self.scales**2
            assert_allclose(slopes[:, k], own / (1 + own) * (F.T @ factor), atol=1e-12)

    def test_leaves_what_it_says(self, side):
        """The bound has the precision times this, and the evidence."""
        F, means, basis, variances = side
        second, products, prior = self.found(side)
        left = spread(second, products, prior, self.scales, basis)
        costs = evidence(prior.strength, self.scales)
        slopes = turned(prior.slopes, basis)
        for k, factor in enumerate(turned(means, basis).T):
            lam = prior.precision[k]
            ours = self.count * np.log(lam) - lam * left[k] - costs[k]
            ours += 2 * VAGUE * (np.log(lam) - lam)
            theirs = self.value(
                factor, variances[k], F, prior.strength[k], lam, slopes[:, k]
            )
            assert ours / 2 == pytest.approx(theirs)

    def test_says_nothing_of_noise(self):
        rng, strengths = np.random.RandomState(1), []
        for _ in range(50):
            F = np.linalg.qr(rng.standard_normal((self.count, 2))).Q
            f = rng.standard_normal((self.count, 1))
            given = (f**2).sum(axis=0), F.T @ f, self.count, self.scales, np.eye(1)
            strengths.append(best_prior(*given).strength[0])
        assert np.median(strengths) == 0


class TestNoise:
    @given(
        squares=st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=8),
        strength=st.sampled_from([0.0, 1.0, 4.0, 64.0]),
        seed=st.integers(0, 2**16),
    )
    @settings(max_examples=50, deadline=None, derandomize=True)
    def test_never_lowers_the_evidence(self, squares, strength, seed):
        rng, n = np.random.RandomState(seed), len(squares)
        counts = rng.randint(0, 50, n).astype(float)
        alpha = np.full(n, 2.0) if strength == 0 else rng.uniform(0.1, 10, n)
        noise, squares = Noise(alpha, 0.5, strength), np.array(squares)
        found = best_noise(noise, counts, squares, float)
        before = noise_evidence(noise, counts, squares)
        assert noise_evidence(found, counts, squares) >= before - 1e-9 * abs(before)

    @pytest.mark.parametrize("spread, low, high", [(0.0, 30, 64), (1.5, 1, 4)])
    def test_of_columns_is_drawn_together_as_far_as_it_is_alike(
        self, spread, low, high
    ):
        rng = np.random.RandomState(0)
        variances = np.exp(spread * rng.standard_normal(200))
        counts = np.full(200, 30.0)
        squares = variances * rng.chisquare(30, 200)
        noise = Noise(np.ones(200), 1.0, 4.0)
        for _ in range(20):
            noise = best_noise(noise, counts, squares, float)
        assert low <= noise.strength <= high
        assert NOISE_STRENGTHS[0] <= noise.strength <= NOISE_STRENGTHS[1]
        error = np.log(noise.alpha * variances)
        assert np.sqrt(np.mean(error**2)) < (0.1 if spread == 0 else 0.3)


class TestEnding:
    @staticmethod
    def after(gains, *, has_features, least=100.0):
        """Return whether factors are told apart after each sweep, and the last one."""
        options = {"has_features": has_features, "extrapolates": not has_features}
        ending, told = StoppingRule(least, **options), []
        for k, gain in enumerate(gains):
            if ending.add(gain, same_rank=True):
                return told, k
            told.append(ending.rotates)
        return told, None

    def test_comes_when_what_is_left_to_rise_has_been_little_twice(self):
        told, last = self.after([900, 80, 8, 0.8], has_features=False)
        assert told == [False, True]
        assert last == 2

    def test_does_not_come_on_a_plateau(self):
        gains = [900, 90, *np.linspace(9, 8, 20)]
        assert self.after(gains, has_features=False)[1] is None

    def test_comes_on_a_plateau_where_sweeps_cost_much(self):
        ending = StoppingRule(100.0, has_features=False, extrapolates=False)
        assert [ending.add(gain, same_rank=True) for gain in (900, 9, 8.9)][-1]

    def test_goes_on_where_a_factor_was_dropped(self):
        ending = StoppingRule(100.0, has_features=False, extrapolates=True)
        assert not ending.add(50, same_rank=True)
        assert not ending.add(5, same_rank=False)
        assert ending.add(0.5, same_rank=True)

    def test_asks_for_less_with_features(self):
        gains = [500, 90, 80, 9, 8, 7, 6]
        told, last = self.after(gains, has_features=True)
        assert last == 3 + PATIENCE - 1
        assert told == [False, True, False, False, True]
        assert self.after([500, 90, 80, 70, 60], has_features=True)[1] is None

    def test_does_not_come_where_gains_grow(self):
        gains = [500, 90, 80, *range(1, 9)]
        assert self.after(gains, has_features=True)[1] is None

    def test_never_asks_for_next_to_nothing(self):
        gains = [2, 0.5, 0.19, 0.18, 0.17]
        assert self.after(gains, has_features=True, least=1)[1] == 4
        assert LEAST_RISE > LAST * 1
