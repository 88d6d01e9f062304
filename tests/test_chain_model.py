"""The model of rows in time against dense Gaussian algebra and naive loops."""

from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar

from sklearn_mfgd import MaskedGradientMF
from sklearn_mfgd._bayes import missingness, time_fold_in
from sklearn_mfgd._bayes.chain_prior import (
    SEASON_VARIANCES,
    ChainPrior,
    ChainStatistics,
)
from sklearn_mfgd._bayes.covariance import FullCovariance
from sklearn_mfgd._bayes.model import first_state, model_of
from sklearn_mfgd._bayes.moments import pack, unpack
from sklearn_mfgd._bayes.noise import Noise
from sklearn_mfgd._bayes.priors import GAMMA_RATE, Prior
from sklearn_mfgd._bayes.residual_process import (
    COARSE_STEP,
    RATIOS,
    Choice,
    ResidualProcess,
    Spread,
)
from sklearn_mfgd._bayes.seasons import DAY, WEEK, YEAR, Seasons
from sklearn_mfgd._bayes.side import SideStatistics
from sklearn_mfgd._bayes.time_axis import (
    MAX_PERSISTENCE,
    TimeAxis,
    timescales_for,
)
from sklearn_mfgd._bayes.time_fold_in import KnownColumns, RowsInTime
from sklearn_mfgd._bayes.time_state import TimeData, TimeState
from sklearn_mfgd._bayes.time_sweep import sweep, update_rows
from sklearn_mfgd._bayes.timed_entries import TimedEntries
from sklearn_mfgd._data import row_blocks
from sklearn_mfgd._data.matrix import ObservedMatrix
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._data.timeline import Timeline
from sklearn_mfgd._kernels.rows import Biases, Rows

BIASES = [Biases(row, column) for row in (False, True) for column in (False, True)]
NOISE = ["column", "shared"]
ANY_BIASES = pytest.mark.parametrize("biases", BIASES, ids=str)

# Irregular steps, a tie and two series; sorted.
TIMES = np.array([0.0, 0.3, 1.0, 1.0, 2.5, 6.0, 0.5, 1.5, 1.9, 4.0])
GROUPS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
TIED = 3  # has the time of the row before


def timeline_of(times=TIMES, groups=GROUPS):
    return Timeline.of(times, groups, len(times))


def axis_of(timeline, seasons=None):
    return TimeAxis(timeline, Seasons.none() if seasons is None else seasons)


def correlation(timeline, timescale):
    """Return exp(-|t - s| / tau) within a series; a tie counts as a tiny step."""
    if timescale == 0:
        return np.eye(len(timeline.times))
    times, ties = timeline.times, np.cumsum(timeline.gaps == 0)
    elapsed, n_ties = (np.abs(np.subtract.outer(v, v)) for v in (times, ties))
    together = np.equal.outer(timeline.series, timeline.series)
    return together * np.exp(-elapsed / timescale) * MAX_PERSISTENCE**n_ties


def planted_seasons(scales=(1.0, 0.5)):
    """Seasons of frequencies that suit times of a few seconds."""
    frequencies = np.array([0.2, 0.37])
    return Seasons(frequencies, np.tile(scales, 2), np.array([0.1, -0.2, 0.3, 0.0]))


# Processes over times


@pytest.mark.parametrize("timescale", [0.0, 0.2, 1.0, 30.0])
def test_the_precision_of_a_process_is_the_inverse_of_its_correlations(timescale):
    timeline = timeline_of()
    found = axis_of(timeline).times_precision(np.eye(len(TIMES)), timescale)
    # A tie has entries of 1e8, so the product is what can be compared.
    product_ = found @ correlation(timeline, timescale)
    assert_allclose(product_, np.eye(len(TIMES)), atol=1e-6)
    assert_allclose(found, found.T, rtol=1e-12)


@pytest.mark.parametrize("timescale", [0.0, 0.2, 1.0, 30.0])
def test_expected_forms_are_traces_with_the_dense_precision(timescale):
    timeline = timeline_of(np.delete(TIMES, TIED), np.delete(GROUPS, TIED))
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(2, len(timeline.times), 20))
    second = roots @ roots.transpose(0, 2, 1)
    squares = np.array([np.diag(each) for each in second]).T
    lagged = np.array([np.append(np.diag(each, 1), 5.0) for each in second]).T
    found = axis_of(timeline).expected_form(squares, lagged, timescale)
    P = np.linalg.inv(correlation(timeline, timescale))
    assert_allclose(found, [np.trace(P @ each) for each in second], rtol=1e-9)


@pytest.mark.parametrize("timescale", [0.0, 0.2, 1.0, 30.0])
def test_the_log_determinant_is_that_of_the_dense_precision(timescale):
    timeline = timeline_of()
    expected = -np.linalg.slogdet(correlation(timeline, timescale))[1]
    assert_allclose(axis_of(timeline).log_det(timescale), expected, atol=1e-6)


@pytest.mark.parametrize("timescale", [0.0, 1.0])
def test_the_gram_matrix_of_scaled_features_is_decomposed(timescale):
    timeline, seasons = timeline_of(), planted_seasons()
    axis = axis_of(timeline, seasons)
    values, vectors = axis.gram_eigen(timescale)
    F = seasons.features(timeline.times) * seasons.scales
    expected = F.T @ np.linalg.inv(correlation(timeline, timescale)) @ F
    assert_allclose((vectors * values) @ vectors.T, expected, rtol=1e-5, atol=1e-6)
    assert_allclose(vectors.T @ vectors, np.eye(4), atol=1e-12)


def test_samples_have_the_correlations_of_each_timescale():
    timeline, timescales = timeline_of(), np.array([0.0, 1.0, 5.0])
    axis, rng = axis_of(timeline), np.random.default_rng(0)
    samples = np.array([axis.sample(timescales, rng) for _ in range(4000)])
    for k, timescale in enumerate(timescales):
        found = samples[:, :, k].T @ samples[:, :, k] / len(samples)
        assert_allclose(found, correlation(timeline, timescale), atol=0.09)
    assert_allclose(samples.mean(axis=0), 0, atol=0.08)
    across = np.einsum("st,st->t", samples[:, :, 1], samples[:, :, 2]) / len(samples)
    assert_allclose(across, 0, atol=0.08)


def test_a_part_of_the_rows_has_its_persistence_and_that_of_the_row_after():
    axis = axis_of(timeline_of())
    phi = axis.persistence([1.0])
    assert_array_equal(axis.persistence([1.0], 2, 5), phi[2:6])
    assert phi[0] == phi[6] == phi[-1] == 0  # series start, and end
    assert_allclose(phi[1], np.exp(-0.3))


def test_timescales_double_from_half_a_step_to_the_length_of_the_longest_series():
    grid = timescales_for(timeline_of(3.0 * np.arange(100), np.arange(100) >= 64))
    assert_array_equal(grid, [0, 1.5, 3, 6, 12, 24, 48, 96, 192])
    assert grid[-2] < 3 * 63 <= grid[-1]


def test_a_pair_of_rows_has_several_timescales_to_choose_from():
    assert_array_equal(timescales_for(timeline_of([0, 1], None)), [0, 0.5, 1, 2])


# Seasons


def seasons_of(span, step):
    start = np.datetime64("2024-01-01", "s")
    times = start + np.arange(0, span + 1, step).astype("timedelta64[s]")
    timeline = timeline_of(times, None)
    return Seasons.of(timeline), timeline


@pytest.mark.parametrize(
    "span, step, expected",
    [
        (3 * DAY - 3600, 3600, []),
        (3 * DAY, 3600, [DAY]),
        (3 * WEEK - 3600, 3600, [DAY]),
        (3 * WEEK, 3600, [DAY, WEEK]),
        (2 * YEAR - 3600, 3600, [DAY, WEEK]),
        (2 * YEAR + 3600, 3600, [DAY, WEEK, YEAR]),
        (3 * YEAR, DAY, [WEEK, YEAR]),
        (3 * YEAR, WEEK, [YEAR]),
    ],
)
def test_a_cycle_has_to_turn_often_and_to_be_sampled_twice(span, step, expected):
    seasons, _ = seasons_of(span, step)
    periods = 1 / seasons.frequencies
    found = [c for c in (DAY, WEEK, YEAR) if np.isclose(periods, c, rtol=1e-9).any()]
    assert found == expected
    assert np.all(periods >= 2 * step)
    if not expected:
        assert len(periods) == 0


def test_the_longest_series_counts_for_the_turns_of_a_cycle():
    hours = np.arange(40) * np.timedelta64(1, "h") + np.datetime64("2024-01-01", "h")
    times, groups = np.append(hours, hours + np.timedelta64(5, "D")), np.arange(80) > 39
    assert len(Seasons.of(timeline_of(times, groups)).frequencies) == 0
    assert len(Seasons.of(timeline_of(times, None)).frequencies) > 0


def test_numbers_have_no_seasons():
    hours = np.arange(24.0 * 30) * 3600
    assert len(Seasons.of(timeline_of(hours, None)).frequencies) == 0


def test_features_are_cosines_and_sines_of_mean_zero_in_the_fit():
    seasons, timeline = seasons_of(4 * DAY + 7200, 3600)
    features = seasons.features(timeline.times)
    k = int(np.argmin(abs(1 / seasons.frequencies - DAY)))
    angles = 2 * np.pi * timeline.times / DAY
    expected = np.array([np.cos(angles), np.sin(angles)])
    expected -= expected.mean(axis=1, keepdims=True)
    found = features[:, [k, k + len(seasons.frequencies)]].T
    assert_allclose(found, expected, atol=1e-9)
    assert_allclose(features.mean(axis=0), 0, atol=1e-12)


# The prior of the rows


class Posterior(NamedTuple):
    """Means and dense covariances of processes, and what the prior needs of them."""

    means: np.ndarray  # (m, q)
    covariances: np.ndarray  # (q, m, m)

    @property
    def statistics(self):
        variances = np.array([np.diag(S) for S in self.covariances]).T
        lagged = np.array([np.append(np.diag(S, 1), 0.0) for S in self.covariances]).T
        lagged[:-1] += self.means[:-1] * self.means[1:]
        log_det = np.linalg.slogdet(self.covariances)[1].sum()
        return ChainStatistics(self.means, variances + self.means**2, lagged, log_det)


def posterior_of_processes(timeline, seasons, seed=0):
    """Smooth, seasonal and shuffled processes, not known exactly."""
    rng, m = np.random.default_rng(seed), len(timeline.times)
    roots = np.linalg.cholesky(correlation(timeline, 4.0))
    means = np.column_stack([roots @ rng.normal(size=m), rng.normal(size=(m, 2))])
    means[:, 1] *= 0.1
    features = seasons.features(timeline.times)
    means[:, 1] += 3 * features @ rng.normal(size=features.shape[1])
    factors = rng.normal(size=(3, m, m)) / 5
    return Posterior(means, 0.1 * np.eye(m) + 0.1 * factors @ factors.mT)


def naive_elbo_of_process(of, k, axis, timeline, choice, *, precision=None):
    """ELBO of process k with a timescale and theta; the slopes are integrated out."""
    timescale, theta = choice
    w, S, m = of.means[:, k], of.covariances[k], len(of.means)
    P = np.linalg.inv(correlation(timeline, timescale))
    prior_variances = theta * axis.scales**2
    F = axis.features if theta else np.zeros((m, 0))
    inverse = np.linalg.inv(F.T @ P @ F + np.diag(1 / prior_variances[: F.shape[1]]))
    slopes = inverse @ F.T @ P @ w
    around = w - F @ slopes
    # With the variance of slopes over 1 / lambda; it is `inverse`.
    form = np.trace(P @ (S + np.outer(around, around)))
    penalty = np.sum(slopes**2 / prior_variances[: F.shape[1]])
    squares = form + penalty
    if precision is None:
        precision = (m + 2 * GAMMA_RATE) / (squares + 2 * GAMMA_RATE)
    log_dets = np.linalg.slogdet(P)[1] + np.linalg.slogdet(S)[1]
    if theta:
        log_dets += np.linalg.slogdet(inverse)[1] - np.log(prior_variances).sum()
    value = m * (np.log(precision) + 1) - precision * squares + log_dets
    return value / 2 + GAMMA_RATE * (np.log(precision) - precision), slopes, precision


@pytest.fixture(scope="module")
def chain_case():
    times, groups = np.delete(TIMES, TIED), np.delete(GROUPS, TIED)
    times, groups = np.append(times, np.arange(11, 18)), np.append(groups, [1] * 7)
    timeline, seasons = timeline_of(times, groups), planted_seasons()
    of = posterior_of_processes(timeline, seasons)
    return timeline, TimeAxis(timeline, seasons), of


def first_prior(timescales, grid, n_features):
    q = len(timescales)
    given = np.array(timescales), np.zeros((n_features, q))
    return ChainPrior(np.ones(q), *given, np.array(grid))


GRID = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("start", [0.0, 2.0, 8.0])
def test_the_prior_of_rows_has_the_largest_elbo_of_the_choices_in_reach(
    start, chain_case
):
    timeline, axis, of = chain_case
    prior, value = first_prior([start] * 3, GRID, 4).update(of.statistics, axis)
    place, expected = GRID.index(start), 0.0
    in_reach = GRID[max(place - 1, 0) : place + 2]
    for k in range(3):
        choices = list(product(in_reach, SEASON_VARIANCES))
        given = of, k, axis, timeline
        values = [naive_elbo_of_process(*given, choice)[0] for choice in choices]
        best = choices[int(np.argmax(values))]
        assert prior.timescales[k] == best[0]
        _, slopes, precision = naive_elbo_of_process(*given, best)
        assert_allclose(prior.precision[k], precision, rtol=1e-8)
        if best[1]:
            assert_allclose(prior.slopes[:, k], slopes, rtol=1e-7, atol=1e-9)
        else:
            assert_array_equal(prior.slopes[:, k], 0)
        expected += max(values)
        for factor in (0.98, 1.02):
            moved = {"precision": factor * precision}
            assert naive_elbo_of_process(*given, best, **moved)[0] < max(values)
    assert_allclose(value, expected, rtol=1e-9)


def test_a_seasonal_process_has_slopes_and_others_have_none(chain_case):
    _, axis, of = chain_case
    prior = first_prior([0.0] * 3, GRID, 4)
    for _ in range(len(GRID)):
        prior, _ = prior.update(of.statistics, axis)
    assert prior.timescales[0] > 1
    assert prior.slopes[:, 1].all()
    assert prior.timescales[2] < 1
    assert not prior.slopes[:, 2].any()


def test_without_timescales_and_seasons_the_prior_is_that_of_exchangeable_rows(
    chain_case,
):
    timeline, _, of = chain_case
    statistics, q = of.statistics, 3
    found, value = first_prior([0.0] * q, [0.0], 0).update(
        statistics, axis_of(timeline)
    )
    second = np.zeros((q + 1, q + 1))
    second[range(q), range(q)] = statistics.squares.sum(axis=0)
    m = len(timeline.times)
    side = SideStatistics(m, second, np.zeros((0, q)), statistics.log_det)
    expected = Prior.of_mean_zero(np.ones(q), np.zeros(0), q).update(side)
    assert_allclose(found.precision, expected.precision, rtol=1e-12)
    assert_allclose(value, expected.elbo(side), rtol=1e-12)


def test_the_pull_of_a_prior_is_its_precision_times_its_mean(chain_case):
    timeline, axis, _ = chain_case
    rng = np.random.default_rng(0)
    timescales, precision = np.array([0.0, 2.0, 0.5]), np.array([2.0, 0.5, 1.0])
    slopes = rng.normal(size=(4, 3))
    prior = ChainPrior(precision, timescales, slopes, np.array(GRID))
    for k in range(3):
        P = precision[k] * np.linalg.inv(correlation(timeline, timescales[k]))
        expected = P @ axis.features @ slopes[:, k]
        assert_allclose(prior.pull(axis)[:, k], expected, rtol=1e-8, atol=1e-8)


# Residual processes


def residual_case(n=5, seed=0, weights=True):
    """Columns of entries at some of the rows: three are smooth and two are noise."""
    rng, m = np.random.default_rng(seed), 60
    times = np.cumsum(rng.integers(0, 3, m) / 2)
    timeline = timeline_of(times, np.repeat([0, 1], m // 2))
    smooth = np.linalg.cholesky(correlation(timeline, 3.0)) @ rng.normal(size=(m, n))
    X = np.where(np.arange(n) < 3, 3 * smooth, 0) + 0.3 * rng.normal(size=(m, n))
    observed = rng.random((m, n)) < 0.8
    rows = rows_of(np.where(observed, X, 0), observed)
    if weights:
        rows = rows._replace(weights=rng.uniform(0.5, 2, rows.indices.size))
    return TimedEntries.of(rows, timeline), timeline


def dense_cost(problem, timeline, j, timescale, ratio):
    """Log determinant of S K, and e' inv(K) e, of column j."""
    of = slice(problem.indptr[j], problem.indptr[j + 1])
    rows, e = problem.indices[of], problem.values[of]
    s = np.ones(len(e)) if problem.weights is None else problem.weights[of]
    K = np.diag(1 / s) + ratio * correlation(timeline, timescale)[np.ix_(rows, rows)]
    return np.linalg.slogdet(s[:, None] * K)[1], e @ np.linalg.solve(K, e)


def candidates(process, j):
    """No process, every other step of the grid, and the neighbours of the last one."""
    n_timescales, n_ratios = len(process.grid) - 1, len(RATIOS)
    coarse = product(
        range(1, n_timescales + 1, COARSE_STEP), range(0, n_ratios, COARSE_STEP)
    )
    timescale, ratio = (each[j] for each in process.choice)
    steps = product((timescale - 1, timescale, timescale + 1), (-1, 0, 1))
    near = [(t, ratio + step) for t, step in steps if timescale]
    near = [(t, r) for t, r in near if 1 <= t <= n_timescales and 0 <= r < n_ratios]
    return [(0, 0), *coarse, *near]


def elbo_of_column(alpha, square, of, count, noise):
    """What changes with the noise of a column, the covariance of which follows it.

    V becomes V times the old precision over the new one.
    """
    old, scale, spread = of
    factor = old / alpha
    value = count * np.log(alpha) - alpha * (square + spread.of_rows)
    value += noise.dof * (np.log(alpha) - scale * alpha)
    value -= alpha * factor * spread.of_column  # which is constant
    value += spread.n_coefficients * np.log(factor) - factor * spread.of_prior
    return value / 2 + old * spread.of_column / 2


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_residuals_are_the_best_choice_by_dense_covariances(shared, weights):
    entries, timeline = residual_case(weights=weights)
    problem, counts, n = entries.columns, entries.counts, len(entries.counts)
    noise = Noise(np.linspace(1, 3, n), 0.5, 4.0)
    if shared:
        noise = Noise(np.full(n, 2.0), 0.5, 0.0)
    terms = np.linspace(0.1, 0.5, n), np.linspace(2, 1, n), np.linspace(0.5, 2, n)
    spread, scale = Spread(*terms, 3), n / noise.alpha.sum()
    last = Choice(np.array([2, 0, 1, 3, 4]), np.array([7, 0, 3, 0, 11]))
    process = ResidualProcess.none(n, np.array([0.0, 0.5, 1.0, 2.0, 4.0]))
    process = replace(process, choice=last).with_probabilities()
    found, factors, squares, log_det = process.update(problem, counts, spread, noise)
    expected_log_det = 0.0
    for j in range(n):
        values, alpha = {}, noise.alpha[j]
        of_column = Spread(*(each[j] for each in terms), 3)
        for timescale, ratio in candidates(process, j):
            of_choice = process.grid[timescale], RATIOS[ratio] * (timescale > 0)
            logdet, square = dense_cost(problem, timeline, j, *of_choice)
            log_prior = process.log_none
            if timescale:
                log_prior = np.log(1 - np.exp(process.log_none))
                log_prior += process.log_timescales[timescale - 1]
                log_prior += process.log_ratios[ratio]
            best, value = alpha, -0.5 * alpha * square
            if not shared:
                given = square, (alpha, scale, of_column), counts[j], noise
                best = minimize_scalar(
                    lambda log, given: -elbo_of_column(np.exp(log), *given),
                    args=(given,),
                    bounds=(-10, 10),
                    method="bounded",
                    options={"xatol": 1e-8},
                )
                best, value = np.exp(best.x), -best.fun
            value += log_prior - 0.5 * logdet
            values[timescale, ratio] = value, square, logdet, best
        best = max(values, key=values.get)
        chosen = found.choice.timescale[j], found.choice.ratio[j]
        assert chosen == best
        assert_allclose(squares[j], values[best][1], rtol=1e-5)
        assert_allclose(factors[j], alpha / values[best][3], rtol=1e-5)
        expected_log_det += values[best][2]
    assert_allclose(log_det, expected_log_det, rtol=1e-5)
    assert_array_equal(found.timescales > 0, [True, True, True, False, False])


def test_probabilities_of_the_kinds_of_residuals_have_the_largest_elbo():
    rng = np.random.default_rng(0)
    process = ResidualProcess.none(6, np.array([0.0, 0.5, 1.0, 2.0]))
    choice = Choice(np.array([0, 0, 1, 1, 1, 3]), np.array([0, 0, 5, 5, 2, 2]))
    process = replace(process, choice=choice).with_probabilities()
    best = process.elbo()
    assert_allclose(np.exp(process.log_timescales).sum(), 1, rtol=1e-12)
    assert_allclose(np.exp(process.log_ratios).sum(), 1, rtol=1e-12)
    for name in ("log_none", "log_timescales", "log_ratios"):
        for _ in range(20):
            logs = np.atleast_1d(getattr(process, name))
            moved = np.exp(logs + 0.01 * rng.standard_normal(len(logs)))
            if name == "log_none":
                moved = replace(process, log_none=float(np.log(moved[0])))
            else:
                moved = replace(process, **{name: np.log(moved / moved.sum())})
            assert moved.elbo() < best


def test_residuals_that_nothing_is_left_for_are_none():
    process = ResidualProcess.none(3, np.array([0.0, 1.0]))
    assert_array_equal(process.timescales, 0)
    assert_array_equal(process.ratios, 0)
    chosen = replace(process, choice=Choice(np.array([0, 1, 0]), np.array([4, 4, 4])))
    assert_array_equal(chosen.ratios, [0, RATIOS[4], 0])


# Rows given columns


@pytest.fixture
def exact(monkeypatch):
    """Let conjugate gradients go on until nothing changes."""
    monkeypatch.setattr(time_fold_in, "TOL", 1e-10)


def table(m, n, share, rng, *, weights=False):
    """Entries of a smooth table; where the share is over a half they are dense."""
    W = np.cumsum(rng.normal(size=(m, 2)), axis=0) / np.sqrt(m)
    X = W @ rng.normal(size=(2, n)) + 0.3 * rng.normal(size=(m, n))
    observed = rng.random((m, n)) < share
    observed[rng.integers(m, size=n), range(n)] = True
    rows = rows_of(np.where(observed, X, 0), observed)
    if weights:
        rows = rows._replace(weights=rng.uniform(0.5, 2, rows.indices.size))
    return rows


class Fit(NamedTuple):
    """The data of a fit in time, and where it starts: of exchangeable rows."""

    data: TimeData
    state: TimeState
    exchangeable: object

    @classmethod
    def of(cls, rows: Rows, timeline, biases, *, noise="column", rank=2, seed=0):
        rng = np.random.default_rng(seed)
        features = missingness.no_features(*rows.shape, np.dtype(float))[:2]
        matrix = ObservedMatrix(rows, 0.0)
        model = model_of(matrix, rank, biases, noise, features)
        W = rng.normal(size=(rows.shape[0], rank + biases.row))
        H = rng.normal(size=(rows.shape[1], rank + biases.column))
        state = first_state(model, W, H, matrix)
        axis = TimeAxis(timeline, Seasons.of(timeline))
        data = TimeData(model, TimedEntries.of(rows, timeline), axis)
        in_time = TimeState.of(state, W, data, timescales_for(timeline))
        return cls(data, in_time, state)


@ANY_BIASES
@pytest.mark.parametrize("share, weights", [(0.3, False), (0.8, False), (0.8, True)])
@pytest.mark.parametrize("block", [1, 2**21])
def test_rows_without_timescales_are_updated_as_exchangeable_ones(
    biases, share, weights, block, monkeypatch
):
    monkeypatch.setattr(row_blocks, "BLOCK", block * 60)
    rows = table(30, 6, share, np.random.default_rng(1), weights=weights)
    # The same entries are missing from some rows, which then share a system.
    rows = rows.take(np.repeat(np.arange(10), 3)) if not weights else rows
    fit = Fit.of(rows, timeline_of(np.arange(30.0), None), biases)
    found = update_rows(fit.data, fit.state, with_covariances=True)
    model, state = fit.data.model, fit.exchangeable
    expected = state.columns.update_sides(model, state)
    W = model.row_means(state)
    assert_allclose(found.statistics.means, W, rtol=1e-9, atol=1e-11)
    of_rows = expected.of_rows
    assert_allclose(found.statistics.log_det, of_rows.log_det, rtol=1e-10)
    assert_allclose(found.systems, of_rows.systems, rtol=1e-9, atol=1e-11)
    squares = np.delete(np.diag(of_rows.second_moments), 2)
    assert_allclose(found.statistics.squares.sum(axis=0), squares, rtol=1e-9)
    means = found.statistics.means
    lagged = means[:-1] * means[1:]  # rows are independent
    assert_allclose(found.statistics.lagged[:-1], lagged, rtol=1e-9, atol=1e-11)


class Folded(NamedTuple):
    """Rows folded in with known columns, and the dense joint of rows and residuals."""

    rows: RowsInTime
    timeline: Timeline
    joint: np.ndarray  # precision of [z, r], rows of z first
    right: np.ndarray
    n_states: int

    @classmethod
    def of(cls, biases, *, weights=True, seed=0, ratios=None, seasons=None):
        rng, timeline, rank = np.random.default_rng(seed), timeline_of(), 2
        m, n = len(TIMES), 4
        q, width = rank + biases.row, rank + biases.column
        entries = TimedEntries.of(table(m, n, 0.6, rng, weights=weights), timeline)
        roots = 0.3 * rng.normal(size=(n, width, width))
        covariances = roots @ roots.mT
        means = rng.normal(size=(n, width))
        columns = FullCovariance(means, pack(covariances), biases.column)
        axis = axis_of(timeline, seasons)
        slopes = rng.normal(size=(len(axis.scales), q))
        timescales = np.array([2.0, 0.0, 5.0])[:q]
        prior = ChainPrior(
            np.array([1.0, 2.0, 0.5])[:q], timescales, slopes, timescales
        )
        ratios = np.array([0.0, 3.0, 20.0, 0.5]) if ratios is None else ratios
        alpha = rng.uniform(1, 5, n)
        given = np.array([0.0, 1.0, 4.0, 0.3]), ratios, biases
        known = KnownColumns(columns, alpha, prior, *given)
        rows = RowsInTime(known, entries, axis)
        joint, right = dense_joint(rows, timeline, covariances)
        return cls(rows, timeline, joint, right, m * q)

    @property
    def solution(self):
        return np.linalg.solve(self.joint, self.right)

    @property
    def W(self):
        return self.solution[: self.n_states].reshape(len(TIMES), -1)


def dense_joint(rows, timeline, covariances):
    """Precision and right-hand side for the means of all z and of r at the entries.

    Written term by term: the second derivatives of the expected log joint density.
    """
    known, problem = rows.known, rows.entries.columns
    row_bias, column_bias = known.biases
    prior, H, q = known.prior, known.columns.means, len(known.prior.precision)
    m, n_entries, rank = len(TIMES), len(problem.values), known.rank
    joint = np.zeros((m * q + n_entries, m * q + n_entries))
    right = np.zeros(m * q + n_entries)
    mean = rows.axis.features @ prior.slopes
    for k in range(q):
        at = np.arange(m) * q + k
        P = np.linalg.inv(correlation(timeline, prior.timescales[k]))
        joint[np.ix_(at, at)] += prior.precision[k] * P
        right[at] += prior.precision[k] * P @ mean[:, k]
    for j in range(len(H)):
        of = np.arange(problem.indptr[j], problem.indptr[j + 1])
        places = m * q + of
        if known.ratios[j]:
            C = correlation(timeline, known.timescales[j])
            C = C[np.ix_(problem.indices[of], problem.indices[of])]
            P = np.linalg.inv(known.ratios[j] * C)
        else:
            P = 1e12 * np.eye(len(of))
        joint[np.ix_(places, places)] += known.noise_precision[j] * P
        g = np.append(H[j, :rank], np.ones(int(row_bias)))
        second = np.outer(g, g)
        second[:rank, :rank] += covariances[j][:rank, :rank]
        c, of_c = (H[j, rank], covariances[j][:rank, rank]) if column_bias else (0, 0)
        for e in of:
            s = 1.0 if problem.weights is None else problem.weights[e]
            s, x = s * known.noise_precision[j], problem.values[e] - c
            at = problem.indices[e] * q + np.arange(q)
            joint[np.ix_(at, at)] += s * second
            joint[m * q + e, m * q + e] += s
            joint[at, m * q + e] += s * g
            joint[m * q + e, at] += s * g
            right[at] += s * x * g
            right[at[:rank]] -= s * of_c
            right[m * q + e] += s * x
    return joint, right


@ANY_BIASES
@pytest.mark.parametrize("weights", [False, True])
def test_rows_are_the_means_of_the_joint_posterior_of_rows_and_residuals(
    biases, weights, exact
):
    folded = Folded.of(biases, weights=weights, seasons=planted_seasons())
    assert_allclose(folded.rows.W, folded.W, rtol=1e-5, atol=1e-5)


def test_rows_are_precise_enough_without_more_ado():
    folded = Folded.of(Biases(True, True), seasons=planted_seasons())
    atol = 0.01 * np.abs(folded.W).max()
    assert_allclose(folded.rows.W, folded.W, rtol=0, atol=atol)


@ANY_BIASES
def test_covariances_of_rows_are_those_given_the_residuals(biases):
    folded = Folded.of(biases)
    q = folded.n_states // len(TIMES)
    of_rows = slice(folded.n_states)
    covariance = np.linalg.inv(folded.joint[of_rows, of_rows])
    for at, packed in folded.rows.smoothed():
        found = unpack(packed, q)
        for row in range(at.start, at.stop):
            place = slice(row * q, row * q + q)
            expected = covariance[place, place]
            assert_allclose(found[row - at.start], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("limit", [1, 2**22])
def test_residuals_anywhere_are_those_of_a_dense_regression(limit, monkeypatch):
    monkeypatch.setattr("sklearn_mfgd._bayes.time_fold_in.MAX_DENSE", limit)
    folded = Folded.of(Biases(True, True))
    rows, problem = folded.rows, folded.rows.entries.columns
    places = np.array(list(product(range(len(TIMES)), range(4)))).T
    places = np.random.default_rng(0).permutation(places, axis=1)
    errors = rows.errors
    means, variances = rows.residual_at(errors, *places)
    for i, j, mean, variance in zip(*places, means, variances, strict=True):
        of = slice(problem.indptr[j], problem.indptr[j + 1])
        ratio, at = rows.known.ratios[j], problem.indices[of]
        C = ratio * correlation(folded.timeline, rows.known.timescales[j])
        K = C[np.ix_(at, at)] + np.diag(1 / problem.weights[of])
        gain = np.linalg.solve(K, C[at, i])
        assert_allclose(mean, gain @ errors[of], rtol=1e-5, atol=1e-6)
        assert_allclose(variance, ratio - gain @ C[at, i], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("exact")
def test_a_change_of_the_entries_changes_rows_and_leaves_errors_as_it_should():
    folded = Folded.of(Biases(True, True), seasons=planted_seasons())
    problem, rng = folded.rows.entries.columns, np.random.default_rng(1)
    change = rng.normal(size=len(problem.values))
    W, errors = folded.rows.change_for(change)
    after = Folded.of(Biases(True, True), seasons=planted_seasons())
    entries = after.rows.entries
    by_rows = entries.rows._replace(
        values=entries.rows.values + entries.by_rows(change)
    )
    entries = TimedEntries.of(by_rows, after.timeline)
    moved = RowsInTime(after.rows.known, entries, after.rows.axis)
    assert_allclose(W, moved.W - folded.rows.W, atol=1e-5)
    assert_allclose(errors, moved.errors - folded.rows.errors, atol=1e-5)


# Sweeps


@st.composite
def small_tables(draw):
    """Small tables with irregular times, series, weights and biases, and sweeps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m, n = draw(st.integers(4, 25)), draw(st.integers(2, 6))
    times = rng.integers(0, draw(st.sampled_from([3, 2 * m])), m) * 1.0
    times[:2] = 0, 1
    groups = np.append([0, 0], rng.integers(draw(st.integers(1, 3)), size=m - 2))
    if draw(st.booleans()):
        times = times.astype("datetime64[D]")
    timeline = timeline_of(times, groups)
    share = draw(st.sampled_from([0.3, 0.7, 1.0]))
    rows = table(m, n, share, rng, weights=draw(st.booleans()))
    biases, noise = draw(st.sampled_from(BIASES)), draw(st.sampled_from(NOISE))
    fit = Fit.of(rows, timeline, biases, noise=noise, rank=draw(st.integers(1, 3)))
    return fit, draw(st.lists(st.booleans(), min_size=2, max_size=10))


@settings(deadline=None, max_examples=40)
@given(small_tables())
def test_the_elbo_never_falls(case):
    fit, learns = case
    state, last = fit.state, -np.inf
    for learn_columns in learns:
        state, value = sweep(fit.data, state, learn_columns=learn_columns)
        assert value >= last - 1e-7 * (1 + abs(last))
        last = value
    assert np.isfinite(last)


def test_columns_are_solved_by_generalized_least_squares():
    """Means given a dense covariance of each residual and noise, as rows are known."""
    entries, timeline = residual_case(n=6)
    for biases in BIASES:
        fit = Fit.of(entries.rows, timeline, biases)
        state, n = fit.state, 6
        for _ in range(4):  # residuals come up
            state, _ = sweep(fit.data, state, learn_columns=False)
        assert (state.residuals.ratios > 0).any()
        update = update_rows(fit.data, state, with_covariances=True)
        found, _ = sweep(fit.data, state, learn_columns=True)
        W, problem = update.statistics.means, fit.data.entries.columns
        spread = unpack(update.covariances, W.shape[1])
        for j in range(n):
            of = slice(problem.indptr[j], problem.indptr[j + 1])
            rows, x, s = problem.indices[of], problem.values[of], problem.weights[of]
            timescale, ratio = (
                each[j] for each in (state.residuals.timescales, state.residuals.ratios)
            )
            C = ratio * correlation(timeline, timescale)[np.ix_(rows, rows)]
            K = np.linalg.inv(C + np.diag(1 / s))
            G, y = W[rows, :2], x - (W[rows, 2] if biases.row else 0)
            if biases.column:
                G = np.column_stack([G, np.ones(len(rows))])
            prior = state.column_prior.precision_matrix / state.alpha[j]
            system, right = G.T @ K @ G + prior, G.T @ K @ y
            system[:2, :2] += spread[j][:2, :2]
            if biases.row:
                right[:2] -= spread[j][2, :2]
            expected = np.linalg.solve(system, right)
            assert_allclose(found.columns.means[j], expected, rtol=1e-4, atol=1e-5)


@ANY_BIASES
def test_noise_and_elbo_follow_from_expected_squared_errors(biases):
    entries, timeline = residual_case(n=6)
    data, state, _ = Fit.of(entries.rows, timeline, biases)
    for _ in range(3):
        state, _ = sweep(data, state, learn_columns=False)
    update = update_rows(data, state, with_covariances=True)
    found, value = sweep(data, state, learn_columns=False)
    problem, W = data.entries.columns, update.statistics.means
    spread = unpack(update.covariances, W.shape[1])  # of rows, summed
    V = unpack(found.columns.covariances, found.H.shape[1])
    squares, log_det = np.zeros(6), 0.0
    errors = data.entries.errors(W, found.H, biases)
    for j in range(6):
        of = slice(problem.indptr[j], problem.indptr[j + 1])
        chosen = found.residuals.timescales[j], found.residuals.ratios[j]
        with_errors = problem._replace(values=errors)
        part, square = dense_cost(with_errors, timeline, j, *chosen)
        h = np.append(found.H[j, :2], np.ones(int(biases.row)))
        square += h @ spread[j] @ h
        w = W[problem.indices[of], :2]
        if biases.column:
            w = np.column_stack([w, np.ones(len(w))])
        moments = (w.T * problem.weights[of]) @ w
        moments[:2, :2] += spread[j][:2, :2]
        squares[j], log_det = square + np.sum(moments * V[j]), log_det + part
    counts = data.model.counts
    noise = state.noise.update(counts, squares, np.float64)
    assert_allclose(found.alpha, noise.alpha, rtol=1e-4)
    assert_allclose(found.column_log_det, np.linalg.slogdet(V)[1].sum(), rtol=1e-8)
    second = np.zeros((3 + biases.column,) * 2)
    kept = [0, 1, 3][: found.H.shape[1]]
    second[np.ix_(kept, kept)] = V.sum(axis=0) + found.H.T @ found.H
    no_features = np.zeros((0, found.H.shape[1]))
    statistics = SideStatistics(6, second, no_features, found.column_log_det)
    expected = state.row_prior.update(update.statistics, data.axis)[1]
    expected += noise.elbo(counts, squares) - log_det / 2
    expected += found.column_prior.elbo(statistics) + found.residuals.elbo()
    assert_allclose(value, expected, rtol=1e-6)


# Predictions and samples


class Known(NamedTuple):
    """A model of known columns, and the dense Gaussian of entries, column by column."""

    model: object
    matrix: object
    timeline: Timeline
    mean: np.ndarray  # (3 m,)
    covariances: tuple  # of factor, residuals and noise
    observed: np.ndarray  # (3 m,)
    x: np.ndarray  # (3 m,), zero where missing

    @classmethod
    def of(cls):
        rng, times = np.random.default_rng(0), np.array([0, 1, 2, 4, 5, 7.0, 8, 11])
        times, groups = np.append(times, times), np.repeat([0, 1], 8)
        m, timeline = 16, timeline_of(times, groups)
        X = rng.normal(size=(m, 1)) @ rng.normal(size=(1, 3)) + rng.normal(size=(m, 3))
        X[rng.random(X.shape) < 0.3] = np.nan
        weights = rng.choice([3.0, 10.0], X.shape)
        fit = MaskedGradientMF(1, max_iter=8, tol=0, fit_bias="columns")
        given = {"entry_weight": weights, "times": times, "groups": groups}
        fit.fit(X, **given)
        matrix = fit._matrix(X, None, weights)
        seasons, slopes = planted_seasons(), rng.normal(size=(4, 1))
        timescales, ratios = np.array([0, 2.0, 5.0, 0]), np.array([0, 3.0, 1.0, 0])
        base = fit._model.base
        base = base._replace(
            covariances=np.tile([1e-20, 0, 1e-20], (4, 1)),
            noise_precision=np.array([2.0, 1.0, 0.5, 1.0]),
            predictive_noise=np.array([0.5, 1.0, 2.0, 1.0]),
            dof=None,
        )
        model = fit._model.at(timeline)._replace(
            base=base,
            seasons=seasons,
            slopes=slopes,
            timescales=np.array([3.0]),
            residual_timescales=timescales,
            residual_ratios=ratios,
            widening=1.0,
        )
        H, c = base.means[:3, 0], base.means[:3, 1]
        seasonal = (seasons.features(times) @ slopes)[:, 0]
        mean = np.kron(H, seasonal) + np.repeat(c, m)
        factor = np.kron(np.outer(H, H), correlation(timeline, 3.0))
        residual = np.zeros_like(factor)
        for j in range(3):
            of = slice(m * j, m * j + m)
            spread = ratios[j] * correlation(timeline, timescales[j])
            residual[of, of] = spread / base.noise_precision[j]
        noise = np.repeat(1 / base.noise_precision[:3], m)
        listed = matrix.listed().rows
        x, s = np.zeros((2, 3, m))
        x[listed.indices, listed.row_numbers] = listed.values
        s[listed.indices, listed.row_numbers] = listed.weights
        observed = s.ravel() > 0
        noise[observed] /= s.ravel()[observed]
        covariances = factor / base.row_precision[0], residual, np.diag(noise)
        return cls(model, matrix, timeline, mean, covariances, observed, x.ravel())

    @property
    def places(self):
        """Rows and columns of the missing entries, column by column."""
        columns, rows = np.nonzero(~self.observed.reshape(3, -1))
        return rows, columns

    def conditional(self, covariance, noise):
        """Mean and covariance of missing entries: of this part, observed with noise."""
        known, hidden = self.observed, ~self.observed
        K = (covariance + noise)[np.ix_(known, known)]
        gain = np.linalg.solve(K, covariance[known][:, hidden]).T
        mean = self.mean[hidden] + gain @ (self.x - self.mean)[known]
        spread = covariance[hidden][:, hidden] - gain @ covariance[known][:, hidden]
        return mean, spread


@pytest.fixture(scope="module")
def known():
    return Known.of()


@pytest.mark.usefixtures("exact")
def test_predictions_are_those_of_the_dense_gaussian(known):
    factor, residual, noise = known.covariances
    expected, _ = known.conditional(factor + residual, noise)
    found, nothing = known.model.predict(known.matrix, *known.places)
    assert_allclose(found, expected, atol=1e-5)
    assert nothing is None


def test_variances_are_those_of_rows_and_residuals_given_one_another(known):
    factor, residual, noise = known.covariances
    hidden = ~known.observed
    expected = np.diag(noise)[hidden].copy()
    for part in (factor, residual):
        expected += np.diag(known.conditional(part, noise)[1])
    given = known.matrix, *known.places
    _, found = known.model.predict(*given, with_variances=True)
    assert_allclose(found, expected, rtol=1e-4)
    wider = known.model._replace(widening=2.0)
    _, found = wider.predict(*given, with_variances=True)
    assert_allclose(found, 4 * expected, rtol=1e-4)


@pytest.mark.slow
def test_samples_have_the_dense_posterior_if_columns_are_known(known):
    factor, residual, noise = known.covariances
    expected, spread = known.conditional(factor + residual, noise)
    spread = spread + noise[~known.observed][:, ~known.observed]
    rng, given = np.random.RandomState(0), (known.matrix, known.places)
    samples = np.array([known.model.sample(*given, rng) for _ in range(2500)])
    deviations = np.sqrt(np.diag(spread))
    assert_allclose((samples.mean(axis=0) - expected) / deviations, 0, atol=0.08)
    units = np.outer(deviations, deviations)
    assert_allclose(np.cov(samples.T) / units, spread / units, atol=0.12)


def test_rows_and_residuals_are_sampled_from_their_dense_posterior(known):
    """Where a place is asked for often, the noise of its samples averages out."""
    factor, residual, noise = known.covariances
    expected, spread = known.conditional(factor + residual, noise)
    n_times, n_samples = 50, 300
    variances = known.model.base.predictive_noise[known.places[1]]
    spread = spread + np.diag(variances) / n_times
    rng, places = np.random.RandomState(0), np.repeat(known.places, n_times, axis=1)
    samples = [known.model.sample(known.matrix, places, rng) for _ in range(n_samples)]
    samples = np.reshape(samples, (n_samples, -1, n_times)).mean(axis=2)
    whitened = np.linalg.solve(np.linalg.cholesky(spread), (samples - expected).T)
    assert_allclose(np.mean(whitened**2), 1, atol=0.1)
    assert_allclose(whitened.mean(axis=1), 0, atol=5 / np.sqrt(n_samples))
