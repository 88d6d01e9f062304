"""Learned regularization: the bound, its ascent, pruning, and what comes of it."""

import pickle
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.special import digamma
from scipy.stats import gamma
from sklearn.exceptions import ConvergenceWarning

from sklearn_mfgd import GradientMF, MaskedGradientMF
from sklearn_mfgd._bayes import diagonal_covariance
from sklearn_mfgd._bayes.coordinate_ascent import ascend
from sklearn_mfgd._bayes.elbo import (
    align,
    bound,
    diagonalizing_basis,
    maximize_priors,
    second_moments,
    turn,
)
from sklearn_mfgd._bayes.missingness import Features
from sklearn_mfgd._bayes.model import first_state, problem_of, sweep
from sklearn_mfgd._bayes.moments import pack, unpack
from sklearn_mfgd._bayes.priors import FLAT, VAGUE
from sklearn_mfgd._bayes.pruning import prune
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels import backend, dispatch, numpy_kernels
from sklearn_mfgd._kernels.rows import Biases, Rows
from sklearn_mfgd._optim.loop import History

BIASES = [Biases(row, column) for row in (False, True) for column in (False, True)]
ANY_BIASES = pytest.mark.parametrize("biases", BIASES, ids=str)
ANY_NOISE = pytest.mark.parametrize("noise", ["column", "shared"])
ANY_FEATURES = pytest.mark.parametrize("n_features", [0, 3])
ANY_FORM = pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])


# A problem, and the same by naive loops


class Side(NamedTuple):
    """Gaussian posterior of every row of one side."""

    means: np.ndarray
    covariances: np.ndarray  # (n, q, q)

    def keep(self, chosen):
        return Side(self.means[:, chosen], self.covariances[:, chosen][:, :, chosen])

    def divergence(self, prior, basis, features):
        """Kullback-Leibler divergence from a prior, and that of its own slopes.

        These are independent, with the variance that is best, in the basis of the
        prior; the means of factors are the features times them.
        """
        means, covariances = self
        F, matrix = features.values, precision_matrix(prior, basis)
        whole = whole_basis(basis, len(matrix))
        slopes = prior.slopes @ whole.T
        around = means - F @ prior.slopes
        second = covariances.sum(axis=0) + around.T @ around
        logdets = np.linalg.slogdet(covariances)[1] + np.linalg.slogdet(matrix)[1]
        value = (np.trace(matrix @ second) - means.size - logdets.sum()) / 2
        for k, (strength, precision) in enumerate(
            zip(prior.strength, prior.precision, strict=True)
        ):
            for d, scale in enumerate(features.scales if strength else ()):
                own = strength * scale**2 / precision  # variance of the prior
                variance = 1 / (precision * F[:, d] @ F[:, d] + 1 / own)
                value += precision * variance * F[:, d] @ F[:, d] / 2
                value += (slopes[d, k] ** 2 + variance) / own / 2 - 1 / 2
                value += np.log(own / variance) / 2
        return value


class Case(NamedTuple):
    """Entries, written out and listed, and where to start."""

    X: np.ndarray
    S: np.ndarray  # weights, zero where nothing was observed
    rows: Rows
    W: np.ndarray
    H: np.ndarray
    biases: Biases
    noise: str
    diagonal: bool
    features: tuple = (None, None)  # of rows and of columns

    @property
    def rank(self):
        return self.W.shape[1] - self.biases.row

    def start(self):
        """Return the problem and its first state."""
        with pytest.MonkeyPatch.context() as patch:
            if self.diagonal:
                patch.setattr(diagonal_covariance, "LARGEST", 0)
            problem = problem_of(
                self.rows, self.rank, self.biases, self.noise, self.features
            )
        assert (problem.blocks is None) == self.diagonal
        return problem, first_state(problem, self.W, self.H, self.rows)

    def settled(self, n_sweeps=3):
        """Return the problem and a state after some sweeps, aligned."""
        problem, state = self.start()
        for _ in range(n_sweeps):
            state, sums = sweep(problem, state)
            state, _ = align(problem, state, sums)
        return problem, state

    def columns(self, state):
        """Return the posterior of the columns."""
        if self.diagonal:
            covariances = [np.diag(variances) for variances in state.covariances]
            return Side(state.H, np.array(covariances))
        return Side(state.H, unpack(state.covariances, state.H.shape[1]))

    def update(self, state):
        """Update rows, then columns, entry by entry."""
        row_prior, column_prior = priors(state)
        row_means, column_means = (
            features.values @ prior.slopes
            for features, prior in zip(
                self.features, (state.row_prior, state.column_prior), strict=True
            )
        )
        noise = self.S * state.alpha
        rows = self._update_side(
            self.X, noise, self.columns(state), row_prior, row_means, self.biases
        )
        columns = self._update_side(
            self.X.T, noise.T, rows, column_prior, column_means, self.biases[::-1]
        )
        return rows, columns

    def _update_side(self, X, precisions, others, prior, prior_means, biases):
        own_bias, other_bias = biases
        rank = len(prior) - own_bias
        means, covariances = [], []
        for x, noise, prior_mean in zip(X, precisions, prior_means, strict=True):
            system, right = prior.copy(), prior @ prior_mean
            for j in np.flatnonzero(noise):
                mean, covariance = others.means[j], others.covariances[j]
                g = np.append(mean[:rank], np.ones(int(own_bias)))
                second, explained = np.outer(g, g), x[j] * g
                second[:rank, :rank] += covariance[:rank, :rank]
                if other_bias:
                    explained -= mean[rank] * g
                    explained[:rank] -= covariance[rank, :rank]
                system += noise[j] * second
                right += noise[j] * explained
            means.append(np.linalg.solve(system, right))
            inverse = np.linalg.inv(system)
            if self.diagonal:
                inverse = np.diag(1 / np.diag(system))
            covariances.append(inverse)
        return Side(np.array(means), np.array(covariances))

    def squares(self, rows, columns):
        """Return the expected squared error of each column."""
        (W, W_cov), (H, H_cov), (row_bias, column_bias) = rows, columns, self.biases
        rank, found = W.shape[1] - row_bias, np.zeros(len(H))
        for j, (h, covariance) in enumerate(zip(H, H_cov, strict=True)):
            errors = W[:, :rank] @ h[:rank] + W[:, rank:].sum(axis=1) + h[rank:].sum()
            with_row = np.pad(
                W[:, :rank], ((0, 0), (0, column_bias)), constant_values=1
            )
            with_column = np.append(h[:rank], np.ones(int(row_bias)))
            squares = (errors - self.X[:, j]) ** 2
            squares += ((with_row @ covariance) * with_row).sum(axis=1)
            squares += with_column @ W_cov @ with_column
            both = W_cov[:, :rank, :rank] * covariance[:rank, :rank]
            found[j] = self.S[:, j] @ (squares + both.sum(axis=(1, 2)))
        return found

    def bound(self, rows, columns, state):
        """Return the evidence lower bound of these posteriors."""
        alpha, level, strength = state.noise
        inverse = np.linalg.inv(state.basis).T
        counts = (self.S > 0).sum(axis=0)
        value = -alpha @ self.squares(rows, columns) / 2
        value -= rows.divergence(state.row_prior, state.basis, self.features[0])
        value -= columns.divergence(state.column_prior, inverse, self.features[1])
        for prior in (state.row_prior, state.column_prior):
            value += VAGUE * (np.log(prior.precision) - prior.precision).sum()
        if self.noise == "shared":
            value += counts @ np.log(alpha / (2 * np.pi)) / 2
            return value + VAGUE * (np.log(alpha[0]) - alpha[0])
        for count, mean in zip(counts, alpha, strict=True):
            shape = (count + strength) / 2
            posterior = gamma(shape, scale=mean / shape)
            prior = gamma(strength / 2, scale=2 / (strength * level))
            log_mean = digamma(shape) + np.log(mean / shape)
            value += count * (log_mean - np.log(2 * np.pi)) / 2
            value += posterior.entropy() + prior.logpdf(mean)
            value += (strength / 2 - 1) * (log_mean - np.log(mean))
        return value


def whole_basis(basis, length):
    """Return the basis of factors and of a bias that stays."""
    whole = np.eye(length)
    whole[: len(basis), : len(basis)] = basis
    return whole


def precision_matrix(prior, basis):
    """Return the precision of factors that are not turned."""
    whole = whole_basis(basis, len(prior.precision))
    return whole.T @ np.diag(prior.precision) @ whole


def numbers(state):
    """Return what is known of the noise and the priors, by name."""
    return {
        "alpha": state.noise.alpha,
        "row_precision": state.row_prior.precision,
        "column_precision": state.column_prior.precision,
        "row_slopes": state.row_prior.slopes,
        "column_slopes": state.column_prior.slopes,
    }


def with_numbers(state, **found):
    """Return the state with some of these in place of its own."""
    found = {**numbers(state), **found}
    return state._replace(
        noise=state.noise._replace(alpha=found["alpha"]),
        row_prior=state.row_prior._replace(
            precision=found["row_precision"], slopes=found["row_slopes"]
        ),
        column_prior=state.column_prior._replace(
            precision=found["column_precision"], slopes=found["column_slopes"]
        ),
    )


def with_slopes(state, of_rows, of_columns):
    """Return the state with features that say much of every factor."""
    rng = np.random.RandomState(5)
    found = []
    for prior, features in (
        (state.row_prior, of_rows),
        (state.column_prior, of_columns),
    ):
        shape = len(features.scales), len(prior.precision)
        strength = rng.uniform(1, 100, shape[1])
        slopes = 0.5 * rng.standard_normal(shape)
        found.append(prior._replace(strength=strength, slopes=slopes))
    return state._replace(row_prior=found[0], column_prior=found[1])


def priors(state):
    """Return the precision matrices of both sides."""
    inverse = np.linalg.inv(state.basis).T
    return (
        precision_matrix(state.row_prior, state.basis),
        precision_matrix(state.column_prior, inverse),
    )


def make_features(length, n_features, rng):
    """Draw orthonormal features and their scales."""
    values = np.linalg.qr(rng.standard_normal((length, n_features))).Q
    return Features(
        values, np.append(1.0, rng.uniform(0.1, 1, n_features))[:n_features]
    )


def make_case(
    m=9,
    n=7,
    rank=3,
    *,
    share=0.6,
    biases=Biases(True, True),  # noqa: B008
    noise="column",
    weighted=False,
    diagonal=False,
    spread=0.3,
    n_features=0,
    dtype=float,
    seed=0,
):
    """Plant two factors, and start from as many as `rank` at random."""
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((m, 2)) @ rng.standard_normal((2, n))
    X += spread * rng.standard_normal((m, n))
    mask = rng.uniform(size=(m, n)) < share
    mask[0, 0] = True  # at least one
    X, S = np.where(mask, X, 0).astype(dtype), mask.astype(dtype)
    rows = rows_of(X, mask)
    if weighted:
        S *= rng.choice([0.5, 1, 2], size=S.shape).astype(dtype)
        rows = rows._replace(weights=S[mask])
    W = 0.5 * rng.standard_normal((m, rank + biases.row)).astype(dtype)
    H = 0.5 * rng.standard_normal((n, rank + biases.column)).astype(dtype)
    features = tuple(
        Features(of.values.astype(dtype), of.scales)
        for of in (make_features(length, n_features, rng) for length in (m, n))
    )
    return Case(X, S, rows, W, H, biases, noise, diagonal, features)


# Sweeps


@ANY_FORM
@ANY_BIASES
@pytest.mark.parametrize(
    "share, weighted, n_features",
    [(0.4, False, 3), (0.9, False, 0), (0.6, True, 2)],
    ids=["few", "most", "weighted"],
)
def test_a_sweep_updates_rows_then_columns_entry_by_entry(
    kernels, share, weighted, n_features, biases, diagonal
):
    """Around the means of their priors, where features say where these are."""
    n_features = 0 if diagonal else n_features
    case = make_case(
        share=share,
        biases=biases,
        weighted=weighted,
        diagonal=diagonal,
        n_features=n_features,
    )
    problem, before = case.settled(2)
    if n_features:
        before = with_slopes(before, *case.features)
    rows, columns = case.update(before)
    state, sums = sweep(problem, before)
    assert_allclose(state.W, rows.means, rtol=1e-9, atol=1e-10)
    for ours, theirs in zip(case.columns(state), columns, strict=True):
        assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)
    for name in ("row_prior", "column_prior", "basis"):
        assert getattr(state, name) is getattr(before, name)
    expected = case.squares(rows, columns)
    assert_allclose(sums.squares, expected, rtol=1e-9, atol=1e-10)
    for side, total, logdet in (
        (rows, sums.rows, sums.row_logdet),
        (columns, sums.columns, sums.column_logdet),
    ):
        chosen = np.delete(np.arange(len(total)), case.rank)  # without the one
        own = total[np.ix_(chosen, chosen)]
        second = np.einsum("ka,kb->ab", side.means, side.means)
        second += side.covariances.sum(axis=0)
        if case.diagonal:
            own, second = np.diag(own), np.diag(second)
        assert_allclose(own, second, rtol=1e-9, atol=1e-10)
        expected = np.linalg.slogdet(side.covariances)[1].sum()
        assert logdet == pytest.approx(expected, abs=1e-8)


@ANY_BIASES
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_sweep_sums_moments_and_targets_for_each_column(kernels, biases, share):
    case = make_case(share=share, biases=biases)
    problem, before = case.settled()
    rows, _ = case.update(before)
    _, sums = sweep(problem, before)
    length = case.rank + 1 + biases.row
    systems = np.zeros((7, length, length))
    targets = np.zeros((7, length))
    for i, j in zip(*np.nonzero(case.S), strict=True):
        v = np.insert(rows.means[i], case.rank, 1.0)
        spread = np.insert(rows.covariances[i], case.rank, 0.0, axis=0)
        systems[j] += np.outer(v, v) + np.insert(spread, case.rank, 0.0, axis=1)
        targets[j] += case.X[i, j] * v
    assert_allclose(sums.systems, pack(systems), rtol=1e-9, atol=1e-10)
    assert_allclose(sums.targets, targets, rtol=1e-9, atol=1e-10)


@ANY_FORM
@ANY_BIASES
def test_a_whole_weight_sums_an_entry_that_often(biases, diagonal):
    """What rows and columns are given the noise; a row that is there twice is two."""
    case = make_case(share=0.25, biases=biases, diagonal=diagonal)
    _, before = case.settled()
    rng = np.random.RandomState(3)
    counts = rng.randint(1, 3, size=case.rows.indices.size)
    weighted = case.rows._replace(weights=counts.astype(float))
    ends = np.concatenate([[0], np.cumsum(counts)])
    repeated = case.rows._replace(
        indptr=ends[case.rows.indptr],
        indices=np.repeat(case.rows.indices, counts),
        values=np.repeat(case.rows.values, counts),
    )
    found = []
    for rows in (weighted, repeated):
        problem, _ = case._replace(rows=rows).start()
        state, sums = sweep(problem, before)
        found.append([state.W, state.H, state.covariances, sums.squares])
        if not diagonal:
            found[-1] += [sums.systems, sums.targets]
    for ours, theirs in zip(*found, strict=True):
        assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


@ANY_NOISE
def test_the_noise_is_the_one_of_largest_bound(noise):
    case = make_case(noise=noise)
    problem, before = case.settled()
    rows, columns = case.update(before)
    state, _ = sweep(problem, before)
    best = case.bound(rows, columns, state)
    steps = [np.ones(7)] if noise == "shared" else np.eye(7)
    for step in steps:
        for size in (-0.01, 0.01):
            other = with_numbers(state, alpha=state.alpha * np.exp(size * step))
            # The level and the noise of columns are updated in turns.
            assert case.bound(rows, columns, other) < best + 1e-4
    if noise == "shared":
        squares = case.squares(rows, columns).sum()
        weight = case.S.sum()
        expected = (weight + 2 * VAGUE) / (squares + 2 * VAGUE)
        assert_allclose(state.alpha, expected, rtol=1e-9)


# The bound


class TestBound:
    @ANY_FORM
    @ANY_BIASES
    @ANY_NOISE
    @pytest.mark.parametrize(
        "weighted, n_features",
        [(False, 0), (False, 3), (True, 2)],
        ids=["", "features", "weighted"],
    )
    def test_is_that_of_the_posteriors(
        self, biases, noise, weighted, n_features, diagonal
    ):
        """In the basis of the last sweep, in a better one, and in any other."""
        n_features = 0 if diagonal else n_features
        case = make_case(
            biases=biases,
            noise=noise,
            weighted=weighted,
            diagonal=diagonal,
            n_features=n_features,
        )
        problem, before = case.settled()
        if n_features:
            before = with_slopes(before, *case.features)
        rows, columns = case.update(before)
        state, sums = sweep(problem, before)
        states = [state, align(problem, state, sums)[0]]
        if not diagonal:
            root = np.random.RandomState(0).standard_normal((3, 3))
            states.append(state._replace(basis=root))
        for other in states:
            expected = case.bound(rows, columns, other)
            assert bound(problem, other, sums) == pytest.approx(expected, rel=1e-10)


@pytest.fixture(scope="module", params=["column", "shared", "diagonal", "features"])
def maximum(request):
    """Return a case, its posteriors and its state after many sweeps."""
    diagonal, says = request.param == "diagonal", request.param == "features"
    noise = "shared" if request.param == "shared" else "column"
    case = make_case(12, 8, 2, share=0.8, noise=noise, diagonal=diagonal)
    if says:
        # Of factors, features that are nearly these.
        rng = np.random.RandomState(3)
        U, _, Vt = np.linalg.svd(case.X)
        own = [
            np.column_stack([F[:, :2], rng.standard_normal((len(F), 1))])
            for F in (U, Vt.T)
        ]
        own = [Features(np.linalg.qr(F).Q, np.array([1.0, 0.8, 0.5])) for F in own]
        case = case._replace(features=tuple(own))
    _, state = case.settled(300 if diagonal or says else 150)
    if says:
        assert max(*state.row_prior.strength, *state.column_prior.strength) > 0
    return case, *case.update(state), state


class TestMaximum:
    """After many sweeps the bound is at one."""

    @staticmethod
    def changed(state, noise, changes):
        """Multiply precisions by exponentials."""
        if noise == "shared" and "alpha" in changes:
            changes["alpha"] = changes["alpha"][:1]
        found = numbers(state)
        return with_numbers(
            state, **{name: found[name] * np.exp(changes[name]) for name in changes}
        )

    @pytest.mark.parametrize("size", [1e-2, 1e-3])
    def test_is_not_exceeded_nearby(self, maximum, size):
        case, rows, columns, state = maximum
        best, rng = case.bound(rows, columns, state), np.random.RandomState(0)
        for _ in range(5):
            changes = {
                name: size * rng.standard_normal(array.shape)
                for name, array in numbers(state).items()
            }
            other = self.changed(state, case.noise, changes)
            means = columns.means + size * rng.standard_normal(columns.means.shape)
            moved = columns._replace(means=means)
            assert case.bound(rows, columns, other) < best
            assert case.bound(rows, moved, state) < best
            assert case.bound(rows, moved, other) < best

    @pytest.mark.parametrize(
        "name",
        [
            "means",
            "alpha",
            "row_precision",
            "column_precision",
            "row_slopes",
            "column_slopes",
        ],
    )
    def test_has_no_slope(self, maximum, name):
        """By central differences, in units of what a coordinate is known to."""
        case, rows, columns, state = maximum
        start = columns.means if name == "means" else numbers(state)[name]

        def along(k, step):
            change = np.zeros(start.size)
            change[k] = step
            if name == "means":
                means = start + change.reshape(start.shape)
                return case.bound(rows, columns._replace(means=means), state)
            change = change.reshape(start.shape)
            if "slopes" in name:  # of which some are zero
                other = with_numbers(state, **{name: start + change})
            else:
                other = self.changed(state, case.noise, {name: change})
            return case.bound(rows, columns, other)

        shared = name == "alpha" and case.noise == "shared"
        for k in range(1 if shared else start.size):
            if "slopes" in name and start.flat[k] == 0:  # its factor has no features
                continue
            less, here, more = (along(k, step) for step in (-1e-3, 0, 1e-3))
            slope, curvature = (more - less) / 2e-3, (more + less - 2 * here) / 1e-6
            assert curvature < 0, k
            assert abs(slope) < 5e-3 * np.sqrt(-curvature), k


@st.composite
def cases(draw, dtype=float):
    """Draw a case; single precision with enough noise to be far from rounding."""
    double = dtype is float
    return make_case(
        draw(st.integers(1 if double else 5, 10)),
        draw(st.integers(1 if double else 5, 10)),
        draw(st.integers(1, 5)),
        share=draw(st.sampled_from([0.3, 0.6, 0.9, 1.0])),
        biases=draw(st.sampled_from(BIASES)),
        noise=draw(st.sampled_from(["column", "shared"])),
        weighted=draw(st.booleans()),
        diagonal=(diagonal := draw(st.booleans())),
        n_features=0 if diagonal else draw(st.sampled_from([0, 1])),
        spread=draw(st.sampled_from([0.1, 1.0] if double else [0.5, 1.0])),
        dtype=dtype,
        seed=draw(st.integers(0, 2**16)),
    )


def climb(case, tol, max_iter=40):
    """Return the bound after each sweep, and the number of factors."""
    problem, state = case.start()
    ranks = []
    track = History(
        case.W,
        case.H,
        tol=tol,
        validate=None,
        n_iter_no_change=5,
        monitor=lambda now: ranks.append(now.W.shape[1]),
    )
    ascend(problem, state, track, max_iter=max_iter, tol=tol)
    return np.array(track.descent().loss_curve), ranks


@given(case=cases(), tol=st.sampled_from([0.1, 0.01, 1e-4]))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_bound_never_falls(kernels, case, tol):
    """Nor does it when factors are told apart and dropped."""
    curve, _ = climb(case, tol)
    slack = 1e-9 * np.maximum(np.abs(curve[1:]), case.rows.indices.size)
    assert (np.diff(curve) >= -slack).all()


@given(case=cases(np.float32), tol=st.sampled_from([0.1, 0.01]))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_bound_never_falls_in_single_precision(kernels, case, tol):
    """But for rounding."""
    curve, _ = climb(case, tol, max_iter=30)
    slack = 1e-5 * np.maximum(np.abs(curve[1:]), case.rows.indices.size)
    assert (np.diff(curve) >= -slack).all()


def test_the_bound_rises_through_pruning():
    case = make_case(40, 20, 8, share=0.8, spread=0.1)
    curve, ranks = climb(case, 1e-3, max_iter=200)
    assert ranks[-1] < ranks[0]
    assert (np.diff(curve) > 0).all()


# Bases


class TestBasis:
    @pytest.fixture(params=BIASES, ids=str)
    def case(self, request):
        return make_case(biases=request.param)

    def test_that_is_best_makes_the_moments_of_both_sides_diagonal(self):
        rng = np.random.RandomState(0)
        rows, columns = rng.standard_normal((2, 30, 4))
        rows, columns = rows.T @ rows, columns.T @ columns
        basis = diagonalizing_basis(rows, columns, 30, 20)
        inverse = np.linalg.inv(basis).T
        for turned in (basis @ rows @ basis.T, inverse @ columns @ inverse.T):
            off = turned - np.diag(np.diag(turned))
            assert_allclose(off, 0, atol=1e-10 * np.trace(turned))

    def test_that_is_best_has_the_larger_factors_first(self):
        rng = np.random.RandomState(0)
        rows, columns = rng.standard_normal((2, 30, 4))
        rows, columns = rows.T @ rows, columns.T @ columns
        basis = diagonalizing_basis(rows, columns, 30, 20)
        inverse = np.linalg.inv(basis).T
        sizes = second_moments(np.pad(rows, (0, 1)), basis)
        sizes = sizes * second_moments(np.pad(columns, (0, 1)), inverse)
        assert (np.diff(sizes) < 0).all()

    def test_there_is_none_where_the_moments_are_singular(self):
        assert diagonalizing_basis(np.zeros((2, 2)), np.eye(2), 3, 3) is None

    @ANY_NOISE
    def test_no_other_one_nearby_has_a_larger_bound(self, case, noise):
        case = case._replace(noise=noise)
        problem, state = case.settled()
        state, sums = sweep(problem, state)
        best, value = align(problem, state, sums)
        assert value == bound(problem, best, sums)
        rng = np.random.RandomState(0)
        for _ in range(10):
            other = best.basis @ (np.eye(3) + 0.01 * rng.standard_normal((3, 3)))
            other = maximize_in(problem, state._replace(basis=other), sums)
            assert bound(problem, other, sums) < value

    def test_does_not_lower_the_bound(self, case):
        problem, before = case.settled()
        state, sums = sweep(problem, before)
        assert align(problem, state, sums)[1] >= bound(problem, state, sums)

    def test_does_not_change_predictions(self, case):
        problem, state = case.settled()
        turned = turn(problem, state)
        assert not np.allclose(state.basis, np.eye(3))
        assert_array_equal(turned.basis, np.eye(3))
        pairs = [(of.W[:, :3], of.H[:, :3]) for of in (state, turned)]
        before, after = (W @ H.T for W, H in pairs)
        assert_allclose(after, before, atol=1e-12)
        assert_array_equal(turned.W[:, 3:], state.W[:, 3:])
        assert_array_equal(turned.H[:, 3:], state.H[:, 3:])

    def test_does_not_change_what_follows(self, case):
        """Factors that are turned climb as those of which only the prior is."""
        problem, state = case.settled()
        curves = []
        for follow in (lambda state: state, lambda state: turn(problem, state)):
            now, curve = follow(state), []
            for _ in range(5):
                now, sums = sweep(problem, now)
                now, value = align(problem, now, sums)
                now = follow(now)
                curve.append(value)
            curves.append(curve)
        assert_allclose(*curves, rtol=1e-9)

    def test_is_not_looked_for_where_covariances_are_diagonal(self):
        problem, state = make_case(diagonal=True).settled()
        assert_array_equal(state.basis, np.eye(3))
        assert turn(problem, state) is state


def maximize_in(problem, state, sums):
    """Return the best precisions in the basis of the state, where nothing is said."""
    found = []
    for total, basis, count in (
        (sums.rows, state.basis, problem.shape[0]),
        (sums.columns, np.linalg.inv(state.basis).T, problem.shape[1]),
    ):
        second = second_moments(total, basis)
        found.append((count + 2 * VAGUE) / (second + 2 * VAGUE))
    if problem.flat_bias:
        found[1][-1] = FLAT
    return with_numbers(state, row_precision=found[0], column_precision=found[1])


# Pruning


class TestPruning:
    def has_rotated(self, **options):
        """Return a case, its posteriors, and what `prune` is given."""
        case = make_case(**options)
        problem, before = case.settled()
        before = turn(problem, before)
        rows, columns = case.update(before)
        state, sums = sweep(problem, before)
        return case, rows, columns, problem, state, sums

    def dropped(self, case, rows, columns, state, chosen):
        """Return the naive bound with some of the factors."""
        of_rows, of_columns = (
            np.append(chosen, np.arange(case.rank, case.rank + biased))
            for biased in case.biases
        )
        state = state._replace(
            basis=np.eye(len(chosen)),
            row_prior=state.row_prior.take(of_rows),
            column_prior=state.column_prior.take(of_columns),
        )
        return case.bound(rows.keep(of_rows), columns.keep(of_columns), state)

    @ANY_BIASES
    @ANY_NOISE
    @pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
    @pytest.mark.parametrize("share", [0.4, 0.9])
    def test_raises_the_bound_by_what_it_says(self, biases, noise, weighted, share):
        """Of two factors one is dropped, the one that it is better to drop."""
        case, rows, columns, problem, state, sums = self.has_rotated(
            rank=2, biases=biases, noise=noise, weighted=weighted, share=share
        )
        state = maximize_priors(problem, state, sums)
        # A factor of which the prior is very sure of nothing.
        sure = state.row_prior.precision * ([1e3] + [1] * (1 + biases.row))
        state = with_numbers(state, row_precision=sure)
        before = bound(problem, state, sums)
        after, kept = prune(problem, state, sums)
        assert len(after.basis) == 1
        options = [self.dropped(case, rows, columns, state, [k]) for k in (0, 1)]
        assert bound(problem, after, kept) == pytest.approx(max(options), rel=1e-9)
        assert max(options) > before

    @ANY_BIASES
    def test_keeps_what_it_cannot_do_without(self, biases):
        case, rows, columns, problem, state, sums = self.has_rotated(
            m=60, n=30, rank=2, biases=biases, spread=0.1
        )
        state = maximize_priors(problem, state, sums)
        assert prune(problem, state, sums) == (state, sums)
        before = bound(problem, state, sums)
        for k in range(2):
            assert self.dropped(case, rows, columns, state, [k]) < before

    def test_keeps_one_factor_of_noise(self):
        case = make_case(30, 20, 4, spread=1.0)
        noise = np.random.RandomState(0).standard_normal(case.rows.values.size)
        case = case._replace(rows=case.rows._replace(values=noise))
        assert climb(case, 1e-3)[1][-1] == 1 + 1

    def test_takes_everything_of_the_factors(self):
        _, _, _, problem, state, sums = self.has_rotated(rank=4)
        state = maximize_priors(problem, state, sums)
        after, kept = prune(problem, state, sums)
        rank = len(after.basis)
        assert rank < 4
        assert after.W.shape == (9, rank + 1)
        assert after.H.shape == (7, rank + 1)
        assert after.covariances.shape == (7, (rank + 1) * (rank + 2) // 2)
        for prior in (after.row_prior, after.column_prior):
            assert prior.precision.shape == prior.strength.shape == (rank + 1,)
        assert kept.rows.shape == kept.columns.shape == (rank + 2, rank + 2)
        chosen = [k for k in range(4) if (state.H[:, k] == after.H[:, 0]).all()]
        assert len(chosen) == 1
        assert_array_equal(after.W[:, -1], state.W[:, -1])


# What comes of it


def hidden_error(model, data, X=None):
    """Root mean squared error of the entries that are missing."""
    X = data.X if X is None else X
    filled = model.inverse_transform(model.transform(X))
    return np.sqrt(np.mean((filled - data.complete)[~data.mask] ** 2))


class TestRank:
    def test_that_was_planted_is_found_with_holes(self, planted):
        data = [planted(300, 12, 3, 0.1, 0.3, seed) for seed in range(10)]
        found = [MaskedGradientMF(rank=8).fit(one.X).rank_ for one in data]
        assert found.count(3) >= 9

    @pytest.mark.parametrize("estimator", [MaskedGradientMF(), GradientMF(reg="auto")])
    def test_that_was_planted_is_found_in_complete_data(self, planted, estimator):
        data = [planted(300, 12, 3, 0.1, seed=seed) for seed in range(3)]
        estimator.set_params(rank=8)
        assert [estimator.fit(one.X).rank_ for one in data] == 3 * [3]

    def test_may_be_ten(self, planted):
        data = planted(300, 200, 10, 0.1, 0.6)
        model = MaskedGradientMF(rank=15).fit(data.X)
        assert model.rank_ == len(model.components_) == 10

    def test_counts_in_all_that_has_factors(self, planted):
        data = planted(share_missing=0.3)
        model = MaskedGradientMF(rank=8)
        Z = model.fit_transform(data.X)
        assert model.rank_ == 3
        assert model.rank == 8
        assert Z.shape == (40, 4)
        assert model.components_.shape == (3, 15)
        assert model.row_precision_.shape == model.column_precision_.shape == (3,)
        assert len(model.get_feature_names_out()) == 4

    def test_stays_where_covariances_are_diagonal(self, monkeypatch, planted):
        """Predictions are as good."""
        data = planted(100, 50, 3, 0.5, 0.4)
        full = MaskedGradientMF(rank=6).fit(data.X)
        monkeypatch.setattr(diagonal_covariance, "LARGEST", 0)
        model = MaskedGradientMF(rank=6).fit(data.X)
        assert model.rank_ == 6
        assert hidden_error(model, data) < 1.02 * hidden_error(full, data)


class TestNoise:
    def test_of_each_column_is_found(self, planted):
        deviations = np.geomspace(0.2, 1, 30)
        data = planted(800, 30, 2, 0.0, 0.3)
        noise = deviations * np.random.RandomState(10).standard_normal(data.X.shape)
        model = MaskedGradientMF(rank=4, tol=1e-5).fit(data.X + noise)
        assert model.noise_variance_.shape == (30,)
        assert_allclose(model.noise_variance_, deviations**2, rtol=0.25)

    @ANY_NOISE
    def test_that_all_columns_have_is_found(self, planted, noise):
        data = planted(300, 40, 3, 0.3, 0.3)
        model = MaskedGradientMF(rank=6, noise=noise).fit(data.X)
        rtol = 0.1 if noise == "shared" else 0.4
        assert_allclose(model.noise_variance_, 0.09, rtol=rtol)
        assert_allclose(np.mean(model.noise_variance_), 0.09, rtol=0.1)

    def test_that_is_shared_is_one_number(self, planted):
        model = MaskedGradientMF(rank=4, noise="shared").fit(planted().X)
        assert type(model.noise_variance_) is float

    def test_of_columns_never_observed_is_that_of_the_others(self, planted):
        X = planted(share_missing=0.3).X.copy()
        X[:, 4] = np.nan
        variances = MaskedGradientMF(rank=4).fit(X).noise_variance_
        others = np.delete(variances, 4)
        assert others.min() < variances[4] < others.max()


@pytest.mark.parametrize("fit_bias", [True, False])
def test_units_do_not_matter(planted, fit_bias):
    X = planted(share_missing=0.3).X
    model, scaled = (
        MaskedGradientMF(rank=6, fit_bias=fit_bias, tol=1e-2).fit(unit * X)
        for unit in (1, 100)
    )
    assert scaled.n_iter_ == model.n_iter_
    close = {"rtol": 1e-8, "atol": 1e-10}
    assert_allclose(scaled.components_, 10 * model.components_, **close)
    assert_allclose(scaled.noise_variance_, 1e4 * model.noise_variance_, **close)
    assert_allclose(scaled.row_precision_, 0.01 * model.row_precision_, **close)
    assert_allclose(scaled.column_precision_, 0.01 * model.column_precision_, **close)
    Z = 10 * model.transform(X)
    if fit_bias:
        Z[:, -1] *= 10
    assert_allclose(scaled.transform(100 * X), Z, **close)


def test_precisions_are_about_those_of_the_factors(planted):
    """Both sides have the same, since the size of a factor can go to either."""
    data = planted(300, 40, 3, 0.1, 0.3)
    model = MaskedGradientMF(rank=6, fit_bias=False)
    W, H = model.fit_transform(data.X), model.components_.T
    for factors, precision in ((W, model.row_precision_), (H, model.column_precision_)):
        assert_allclose(1 / precision, (factors**2).mean(axis=0), rtol=0.05)


class TestContainer:
    def test_does_not_matter(self, planted):
        """NaN, a mask, and three sparse formats."""
        data = planted(share_missing=0.4)
        dense = MaskedGradientMF(rank=6).fit(data.X)
        expected = dense.inverse_transform(dense.transform(data.X))
        masked = MaskedGradientMF(rank=6).fit(data.complete, mask=data.mask)
        Z = masked.transform(data.complete, mask=data.mask)
        assert_allclose(masked.inverse_transform(Z), expected, atol=1e-8)
        i, j = np.nonzero(data.mask)
        S = sparse.coo_array((data.X[i, j], (i, j)), shape=data.X.shape)
        for container in (S, S.tocsr(), S.tocsc()):
            model = MaskedGradientMF(rank=6).fit(container)
            Z = model.transform(container)
            assert_allclose(model.inverse_transform(Z), expected, atol=1e-8)
            assert_allclose(model.noise_variance_, dense.noise_variance_, rtol=1e-8)

    def test_leaves_out_what_has_no_weight(self, planted):
        data = planted(share_missing=0.4)
        weights = data.mask * np.random.RandomState(0).uniform(0.5, 2, data.X.shape)
        by_weight = MaskedGradientMF(rank=6).fit(data.complete, entry_weight=weights)
        missing = MaskedGradientMF(rank=6).fit(data.X, entry_weight=weights)
        for name in ("components_", "noise_variance_", "row_precision_"):
            assert_array_equal(getattr(by_weight, name), getattr(missing, name))


class TestWeights:
    """Relative precisions: the noise of an entry is that of its column over them."""

    @pytest.mark.parametrize(
        "weight, dtype", [(10, float), (1e8, float), (1e4, np.float32)]
    )
    def test_that_are_all_the_same_change_nothing(self, planted, weight, dtype):
        data = planted(60, 20, 3, 0.1, 0.4)
        X, weights = data.X.astype(dtype), np.full(data.X.shape, weight)
        model = MaskedGradientMF(6).fit(X, entry_weight=weights)
        filled = model.inverse_transform(model.transform(X, entry_weight=weights))
        error = np.sqrt(np.mean((filled - data.complete)[~data.mask] ** 2))
        assert error < 1.05 * hidden_error(MaskedGradientMF(6).fit(X), data, X)
        assert_allclose(np.mean(model.noise_variance_ / weight), 0.01, rtol=0.3)

    def test_that_are_inverse_variances_help(self, planted):
        errors = []
        for seed in range(3):
            data = planted(60, 20, 3, 0.0, 0.4, seed)
            rng = np.random.RandomState(seed)
            deviations = 0.1 * np.exp(0.5 * rng.standard_normal(data.X.shape))
            X = data.X + deviations * rng.standard_normal(data.X.shape)
            for weights in (deviations**-2, None):
                model = MaskedGradientMF(6)
                filled = model.inverse_transform(
                    model.fit_transform(X, entry_weight=weights)
                )
                errors.append(np.mean((filled - data.signal)[~data.mask] ** 2))
        assert np.mean(errors[::2]) < 0.9 * np.mean(errors[1::2])


def test_single_precision_predicts_as_well(planted):
    data = planted(200, 50, 3, 0.5, 0.4)
    single, double = data.X.astype(np.float32), data.X
    errors = [
        hidden_error(MaskedGradientMF(rank=6).fit(X), data, X) for X in (single, double)
    ]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    model = MaskedGradientMF(rank=6)
    assert model.fit_transform(single).dtype == np.float32
    assert model.components_.dtype == np.float32


def test_where_it_starts_does_not_matter(planted):
    data = planted(200, 100, 5, 0.5, 0.4)
    models = [MaskedGradientMF(rank=10)]
    models += [
        MaskedGradientMF(rank=10, init="random", random_state=seed) for seed in range(4)
    ]
    errors = [hidden_error(model.fit(data.X), data) for model in models]
    assert max(errors) < 1.005 * min(errors)


def test_what_fit_returns_is_what_transform_does(planted):
    X = planted(share_missing=0.3).X
    for options in ({}, {"fit_bias": False}, {"noise": "shared"}):
        model = MaskedGradientMF(rank=6, **options)
        assert_array_equal(model.fit_transform(X), model.transform(X))
        copied = pickle.loads(pickle.dumps(model))
        assert_array_equal(copied.transform(X), model.transform(X))
    few = model.transform(X[[7, 3]])
    assert_allclose(few, model.transform(X)[[7, 3]], rtol=1e-10)


@pytest.mark.parametrize("share_missing", [0.3, 0.7])
def test_a_fit_does_not_depend_on_the_size_of_blocks(
    monkeypatch, planted, share_missing
):
    """Of which the first one holds all rows."""
    X, found = planted(share_missing=share_missing).X, []
    for size in (2**20, 700):
        for module in ("_data.row_blocks", "_bayes.posterior", "_bayes.model"):
            monkeypatch.setattr(f"sklearn_mfgd.{module}.BLOCK", size)
        model = MaskedGradientMF(rank=5, tol=0, max_iter=10)
        found.append(model.inverse_transform(model.fit_transform(X)))
    assert_allclose(*found, atol=1e-8)


@ANY_NOISE
def test_any_number_of_threads_gives_the_same_bits(monkeypatch, planted, noise):
    X, found = planted(share_missing=0.4).X, []
    monkeypatch.setattr(dispatch, "OPERATIONS", 3e4)
    for n_threads in (1, 2, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
        model = MaskedGradientMF(rank=5, noise=noise, tol=0, max_iter=10)
        found.append(model.fit_transform(X))
    assert_array_equal(found[0], found[1])
    assert_array_equal(found[0], found[2])


def test_either_kernel_finds_the_same(monkeypatch, planted, compiled_kernels):
    X = planted(share_missing=0.4).X
    found = []
    for twin in (numpy_kernels, compiled_kernels):
        monkeypatch.setattr(backend, "kernels", twin)
        model = MaskedGradientMF(rank=5)
        found.append(model.inverse_transform(model.fit_transform(X)))
    assert_allclose(*found, atol=1e-8)


# Data that are hard


def fill(X, **options):
    """Fit without a warning, fill in, and return everything that must be finite."""
    model = MaskedGradientMF(rank=8, max_iter=400, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Z, covariance = model.fit(X).transform(X, return_cov=True)
    filled = model.inverse_transform(Z)
    for array in (filled, covariance, model.noise_variance_, model.row_precision_):
        assert np.isfinite(array).all()
    assert np.all(model.noise_variance_ >= 0)
    return filled


def mean_of_columns(X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns without entries
        return np.broadcast_to(np.nanmean(X, axis=0), X.shape)


def squared_errors(filled, data, columns=slice(None)):
    """Mean squared error of missing entries: as filled, and of column means."""
    hidden = ~np.isfinite(data.X) & np.isfinite(data.complete)
    hidden = hidden[:, columns]
    return [
        np.mean((prediction - data.complete)[:, columns][hidden] ** 2)
        for prediction in (filled, mean_of_columns(data.X))
    ]


@pytest.mark.parametrize(
    "fit_bias, noise", [(True, "column"), ("columns", "shared"), (False, "column")]
)
class TestHardData:
    @pytest.fixture
    def data(self, planted):
        data = planted(60, 20, 3, 0.1, 0.4)
        return data._replace(X=data.X.copy(), complete=data.complete.copy())

    @pytest.fixture
    def filled(self, fit_bias, noise):
        """Return ``filled(X)``."""
        return partial(fill, fit_bias=fit_bias, noise=noise)

    def test_may_have_rows_of_which_nothing_is_known(self, data, filled):
        data.X[5] = data.complete[5] = np.nan
        ours, usual = squared_errors(filled(data.X), data)
        assert ours < 0.1 * usual

    def test_may_have_columns_of_which_nothing_is_known(self, data, filled):
        data.X[:, 5] = data.complete[:, 5] = np.nan
        ours, usual = squared_errors(filled(data.X), data)
        assert ours < 0.1 * usual

    def test_may_have_constant_columns(self, data, filled):
        data.complete[:, 5:8] = 3
        data.X[:, 5:8] = np.where(data.mask[:, 5:8], 3, np.nan)
        ours, usual = squared_errors(filled(data.X), data)
        assert ours < 0.5 * usual

    def test_may_have_a_column_in_other_units(self, data, filled, noise):
        """The others are too small to be seen where the noise is the same."""
        for X in (data.X, data.complete):
            X[:, 5] *= 1e6
        found = filled(data.X)
        ours, usual = squared_errors(found, data, [5])
        assert ours < 1.05 * usual
        if noise == "column":
            ours, usual = squared_errors(found, data, np.delete(np.arange(20), 5))
            assert ours < usual

    def test_may_have_fewer_rows_and_columns_than_factors(self, planted, filled):
        data = [planted(5, 6, 1, 0.1, 0.3, seed) for seed in range(10)]
        errors = [squared_errors(filled(one.X), one) for one in data]
        ours, usual = np.mean(errors, axis=0)
        assert ours < 0.5 * usual

    def test_may_have_few_entries(self, planted, filled):
        data = planted(200, 150, 2, 0.1, 0.95)
        ours, usual = squared_errors(filled(data.X), data)
        assert ours < 0.8 * usual

    def test_may_say_nothing(self, filled):
        constant, alone = np.full((6, 5), 3.0), np.full((4, 3), np.nan)
        alone[1, 2] = 5.0
        assert_allclose(filled(constant, tol=1e-2), 3, atol=1e-2)
        assert_array_equal(filled(0 * constant, tol=0.1), 0)
        filled(alone, tol=0.1)


@pytest.mark.parametrize("fit_bias", [True, False])
def test_data_may_be_of_any_size(planted, fit_bias):
    X = planted(share_missing=0.3).X
    expected = fill(X, fit_bias=fit_bias, tol=1e-2)
    for unit in (1e150, 1e-150):
        filled = fill(unit * X, fit_bias=fit_bias, tol=1e-2) / unit
        assert_allclose(filled, expected, atol=0.2)


# Parameters


def test_a_fit_may_stop_early(planted):
    data = planted(100, 40, 3, 0.5, 0.4)
    model = MaskedGradientMF(rank=6, early_stopping=True, random_state=0).fit(data.X)
    curve = model.validation_curve_
    assert len(curve) == model.n_iter_
    assert min(curve) == pytest.approx(0.5, rel=0.3)
    assert hidden_error(model, data) < 1.05 * hidden_error(
        MaskedGradientMF(rank=6).fit(data.X), data
    )


def test_a_fit_goes_on_from_the_last_one(planted):
    data = planted(100, 40, 3, 0.5, 0.4)
    model = MaskedGradientMF(rank=6, warm_start=True).fit(data.X)
    n_iter, error = model.n_iter_, hidden_error(model, data)
    model.fit(data.X)
    assert model.n_iter_ < n_iter
    assert model.rank_ == 3  # of which it starts now
    assert hidden_error(model, data) < 1.001 * error


def test_each_sweep_is_told(planted, capsys):
    model = MaskedGradientMF(rank=4, verbose=1).fit(planted().X)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    assert lines[-1].startswith(f"Sweep {model.n_iter_}: ")


def test_too_few_sweeps_are_told(planted):
    with pytest.warns(ConvergenceWarning, match="Increase max_iter"):
        model = MaskedGradientMF(max_iter=1, rank=4).fit(planted().X)
    assert model.n_iter_ == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what was wanted
        MaskedGradientMF(max_iter=1, tol=0, rank=4).fit(planted().X)


@pytest.mark.parametrize("options", [{"eta": 0.1}, {"solver": "gd"}], ids=str)
@pytest.mark.parametrize("estimator", [MaskedGradientMF, GradientMF])
def test_steps_need_a_number(planted, estimator, options):
    for solver in ("gd", "scaled", "sgd"):
        if "solver" in options:
            options = {"solver": solver}
        with pytest.raises(ValueError, match="needs a number for reg"):
            estimator(reg="auto", **options).fit(planted().X)


def test_als_is_what_learns(planted):
    X = planted().X
    als, auto = (
        MaskedGradientMF(rank=4, solver=solver).fit(X) for solver in ("als", "auto")
    )
    assert_array_equal(als.components_, auto.components_)


def test_nothing_is_learned_with_a_number(planted):
    model = MaskedGradientMF(rank=4, reg=1.0).fit(planted().X)
    assert model.rank_ == 4
    assert model.noise_variance_ is None
    assert model.row_precision_ is model.column_precision_ is None


@pytest.mark.parametrize("params", [{}, {"early_stopping": True, "random_state": 0}])
def test_the_evidence_is_that_of_data_in_their_units(planted, params):
    """A density of data that are 64 times as large is one 64th for each entry."""
    X = planted(share_missing=0.3).X
    one, large = (
        MaskedGradientMF(4, **params).fit(X * unit).loss_curve_ for unit in (1, 64)
    )
    n_observed = np.count_nonzero(~np.isnan(X))
    n_observed -= int(0.1 * n_observed) if params else 0
    assert_allclose(large, np.array(one) - n_observed * np.log(64), rtol=1e-9)
