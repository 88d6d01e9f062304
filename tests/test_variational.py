"""Variational Bayes: sweeps, the ELBO, its ascent and pruning, against naive loops."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import row_posterior
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import digamma
from scipy.stats import gamma

from sklearn_mfgd._bayes import covariance
from sklearn_mfgd._bayes.coordinate_ascent import ascend, sweep
from sklearn_mfgd._bayes.missingness import Features
from sklearn_mfgd._bayes.model import first_state, model_of
from sklearn_mfgd._bayes.moments import pack, unpack
from sklearn_mfgd._bayes.priors import GAMMA_RATE
from sklearn_mfgd._bayes.pruning import prune
from sklearn_mfgd._bayes.rotation import (
    centre,
    diagonalizing_rotation,
    elbo,
    maximize_priors,
    optimize_rotation,
)
from sklearn_mfgd._bayes.side import SideStatistics
from sklearn_mfgd._data import row_blocks
from sklearn_mfgd._data.matrix import ObservedMatrix
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels.rows import Biases, Rows
from sklearn_mfgd._optim.loop import History

BIASES = [Biases(row, column) for row in (False, True) for column in (False, True)]
NOISE = ["column", "shared"]
ANY_BIASES = pytest.mark.parametrize("biases", BIASES, ids=str)
CLOSE = {"rtol": 1e-9, "atol": 1e-10}


# The model by naive loops over entries


class Side(NamedTuple):
    """Gaussian posterior of every row of one side."""

    means: np.ndarray
    covariances: np.ndarray  # (n, q, q)

    def keep(self, chosen):
        return Side(self.means[:, chosen], self.covariances[:, chosen][:, :, chosen])

    def divergence(self, prior, features):
        """Kullback-Leibler divergence from a prior, and that of its slopes.

        These are independent along its axes, with the variance that is best.
        """
        means, covariances = self
        F, matrix, slopes = (
            features.values,
            prior.precision_matrix,
            prior.rotated().slopes,
        )
        around = means - F @ prior.slopes
        second = covariances.sum(axis=0) + around.T @ around
        logdets = np.linalg.slogdet(covariances)[1] + np.linalg.slogdet(matrix)[1]
        value = (np.trace(matrix @ second) - means.size - logdets.sum()) / 2
        given = zip(prior.signal_variance, prior.precision, slopes.T, strict=True)
        for theta, precision, a in given:
            for d, scale in enumerate(features.scales if theta else ()):
                prior_variance = theta * scale**2 / precision
                variance = 1 / (precision * F[:, d] @ F[:, d] + 1 / prior_variance)
                value += precision * variance * F[:, d] @ F[:, d] / 2
                value += (a[d] ** 2 + variance) / prior_variance / 2 - 1 / 2
                value += np.log(prior_variance / variance) / 2
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
    features: tuple  # of rows and of columns

    @property
    def rank(self):
        return self.W.shape[1] - self.biases.row

    @property
    def matrix(self):
        return ObservedMatrix(self.rows, 0.0)

    def start(self):
        """Return the model and its first state."""
        with pytest.MonkeyPatch.context() as patch:
            if self.diagonal:
                patch.setattr(covariance, "MAX_MOMENTS", 0)
            given = self.rank, self.biases, self.noise, self.features
            model = model_of(self.matrix, *given)
        assert model.can_rotate != self.diagonal
        return model, first_state(model, self.W, self.H, self.matrix)

    def settled(self, n_sweeps=3):
        model, state = self.start()
        for _ in range(n_sweeps):
            state, _ = optimize_rotation(model, *sweep(model, state))
        return model, state

    def columns(self, state):
        """Posterior of the columns."""
        covariances = state.columns.as_full().covariances
        return Side(state.H, unpack(covariances, state.H.shape[1]))

    def update(self, state):
        """Update rows, then columns, entry by entry."""
        noise, columns = self.S * state.alpha, self.columns(state)
        rows = self._update_side(self.X, noise, columns, state.row_prior, 0)
        return rows, self._update_side(self.X.T, noise.T, rows, state.column_prior, 1)

    def _update_side(self, X, precisions, others, prior, axis):
        biases = self.biases[::-1] if axis else self.biases
        given = others, prior.precision_matrix, biases
        prior_means = self.features[axis].values @ prior.slopes
        means, covariances = [], []
        for x, noise, prior_mean in zip(X, precisions, prior_means, strict=True):
            mean, system, _ = row_posterior(x, noise, *given, prior_mean)
            means.append(mean)
            system = np.diag(np.diag(system)) if self.diagonal else system
            covariances.append(np.linalg.inv(system))
        return Side(np.array(means), np.array(covariances))

    def squares(self, rows, columns):
        """Expected squared error of each column."""
        (W, W_cov), (H, H_cov), (row_bias, column_bias) = rows, columns, self.biases
        rank, found = W.shape[1] - row_bias, np.zeros(len(H))
        ones = np.ones((len(W), int(column_bias)))
        for j, (h, spread) in enumerate(zip(H, H_cov, strict=True)):
            errors = W[:, :rank] @ h[:rank] + W[:, rank:].sum(axis=1) + h[rank:].sum()
            with_row = np.column_stack([W[:, :rank], ones])
            with_column = np.append(h[:rank], np.ones(int(row_bias)))
            squares = (errors - self.X[:, j]) ** 2
            squares += ((with_row @ spread) * with_row).sum(axis=1)
            squares += with_column @ W_cov @ with_column
            both = W_cov[:, :rank, :rank] * spread[:rank, :rank]
            found[j] = self.S[:, j] @ (squares + both.sum(axis=(1, 2)))
        return found

    def elbo(self, rows, columns, state):
        """Evidence lower bound of these posteriors."""
        alpha, scale, dof = state.noise[:3]
        counts = (self.S > 0).sum(axis=0)
        value = -alpha @ self.squares(rows, columns) / 2
        value -= rows.divergence(state.row_prior, self.features[0])
        value -= columns.divergence(state.column_prior, self.features[1])
        for prior in (state.row_prior, state.column_prior):
            value += GAMMA_RATE * (np.log(prior.precision) - prior.precision).sum()
        if self.noise == "shared":
            value += counts @ np.log(alpha / (2 * np.pi)) / 2
            return value + GAMMA_RATE * (np.log(alpha[0]) - alpha[0])
        for count, mean in zip(counts, alpha, strict=True):
            shape = (count + dof) / 2
            posterior = gamma(shape, scale=mean / shape)
            prior = gamma(dof / 2, scale=2 / (dof * scale))
            log_mean = digamma(shape) + np.log(mean / shape)
            value += count * (log_mean - np.log(2 * np.pi)) / 2
            value += posterior.entropy() + prior.logpdf(mean)
            value += (dof / 2 - 1) * (log_mean - np.log(mean))
        return value


def make_features(length, n_features, rng, dtype):
    """Orthonormal features and their scales."""
    values = np.linalg.qr(rng.standard_normal((length, n_features))).Q
    scales = np.append(1.0, rng.uniform(0.1, 1, n_features))[:n_features]
    return Features(values.astype(dtype), scales)


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
    features = tuple(make_features(k, n_features, rng, dtype) for k in (m, n))
    return Case(X, S, rows, W, H, biases, noise, diagonal, features)


PARAMETERS = {
    "alpha": ("noise", "alpha"),
    "row_precision": ("row_prior", "precision"),
    "column_precision": ("column_prior", "precision"),
    "row_slopes": ("row_prior", "slopes"),
    "column_slopes": ("column_prior", "slopes"),
}


def parameter(state, name):
    side, field = PARAMETERS[name]
    return getattr(getattr(state, side), field)


def with_parameter(state, name, value):
    """Return the state with another array of the noise or of a prior."""
    side, field = PARAMETERS[name]
    if side == "noise":
        return replace(state, noise=state.noise._replace(alpha=value))
    return replace(state, **{side: replace(getattr(state, side), **{field: value})})


def with_slopes(state):
    """Return the state with features that say much of every factor."""
    rng = np.random.RandomState(5)
    for name in ("row_prior", "column_prior"):
        prior = getattr(state, name)
        theta = rng.uniform(1, 100, len(prior.precision))
        slopes = 0.5 * rng.standard_normal(prior.slopes.shape)
        prior = replace(prior, signal_variance=theta, slopes=slopes)
        state = replace(state, **{name: prior})
    return state


KINDS = pytest.mark.parametrize(
    "options",
    [
        {"share": 0.4, "n_features": 3},
        {"share": 0.9, "noise": "shared"},
        {"weighted": True, "n_features": 2},
        {"diagonal": True},
        {"diagonal": True, "weighted": True, "noise": "shared"},
    ],
    ids=str,
)


def make_swept(**options):
    """Return case, model, state before and after a sweep, and its statistics."""
    case = make_case(**options)
    model, before = case.settled()
    if options.get("n_features"):
        before = with_slopes(before)
    return case, model, before, *sweep(model, before)


# Sweeps


@KINDS
@ANY_BIASES
def test_a_sweep_updates_rows_then_columns_entry_by_entry(kernels, options, biases):
    """Around the means of their priors, where features say where these are."""
    case, model, before, state, statistics = make_swept(biases=biases, **options)
    rows, columns = case.update(before)
    assert_allclose(model.row_means(before), rows.means, **CLOSE)
    for ours, theirs in zip(case.columns(state), columns, strict=True):
        assert_allclose(ours, theirs, **CLOSE)
    assert state.row_prior is before.row_prior
    assert state.column_prior is before.column_prior
    assert_allclose(statistics.squares, case.squares(rows, columns), **CLOSE)
    sides = zip((rows, columns), statistics[:2], case.features, strict=True)
    for side, sums, features in sides:
        second = side.means.T @ side.means + side.covariances.sum(axis=0)
        chosen = np.delete(np.arange(len(sums.second_moments)), case.rank)
        ours = sums.second_moments[np.ix_(chosen, chosen)]
        if case.diagonal:
            ours, second = np.diag(ours), np.diag(second)
        assert_allclose(ours, second, **CLOSE)
        assert sums.count == sums.second_moments[case.rank, case.rank]
        assert_allclose(sums.feature_products, features.values.T @ side.means, **CLOSE)
        log_det = np.linalg.slogdet(side.covariances)[1].sum()
        assert sums.log_det == pytest.approx(log_det, abs=1e-8)


@pytest.mark.parametrize("share", [0.4, 0.9])
@ANY_BIASES
def test_a_sweep_sums_what_pruning_needs(kernels, biases, share):
    """Moments and targets of each column, and precisions of each factor alone."""
    case, _, before, _, statistics = make_swept(share=share, biases=biases)
    rows, columns = case.update(before)
    length = case.rank + 1 + biases.row
    systems, targets = np.zeros((7, length, length)), np.zeros((7, length))
    for i, j in zip(*np.nonzero(case.S), strict=True):
        v = np.insert(rows.means[i], case.rank, 1.0)
        spread = np.insert(rows.covariances[i], case.rank, 0.0, axis=0)
        systems[j] += np.outer(v, v) + np.insert(spread, case.rank, 0.0, axis=1)
        targets[j] += case.X[i, j] * v
    assert_allclose(statistics.rows.systems, pack(systems), **CLOSE)
    assert_allclose(statistics.rows.targets, targets, **CLOSE)
    for side, sums in zip((rows, columns), statistics[:2], strict=True):
        precisions = np.linalg.inv(side.covariances)
        diagonals = np.diagonal(precisions, axis1=1, axis2=2)[:, : case.rank]
        assert_allclose(
            sums.log_conditional_precision, np.log(diagonals).sum(axis=0), **CLOSE
        )


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_statistics_of_blocks_add_up_to_those_of_all_rows(monkeypatch, share):
    case, model, before, state, statistics = make_swept(share=share, n_features=2)
    monkeypatch.setattr(row_blocks, "BLOCK", 2 * 15)  # two rows
    blocks, _ = case.start()
    assert len(blocks.data.blocks) == 5
    found, of_blocks = sweep(blocks, before)
    assert_allclose(found.H, state.H, **CLOSE)
    assert_allclose(blocks.row_means(before), model.row_means(before), **CLOSE)
    for ours, theirs in zip(of_blocks[:2], statistics[:2], strict=True):
        for name, value in vars(theirs).items():
            if value is not None:
                assert_allclose(getattr(ours, name), value, **CLOSE)
        twice = ours + theirs  # a sum leaves its terms as they are
        assert_allclose(twice.second_moments, 2 * theirs.second_moments, **CLOSE)
        assert twice.count == 2 * ours.count


def test_no_rows_add_nothing_to_statistics():
    _, _, before, _, statistics = make_swept(n_features=2)
    others = replace(statistics.rows, systems=None, targets=None)
    added = SideStatistics.zero(before.row_prior, 2) + others
    for name, value in vars(others).items():
        assert_array_equal(getattr(added, name), value)


@pytest.mark.parametrize("diagonal", [False, True])
def test_a_state_goes_on_in_double_precision(diagonal):
    """Where single precision turns out not to do."""
    case = make_case(dtype=np.float32, diagonal=diagonal)
    _, state = case.start()
    double = make_case(diagonal=diagonal)._replace(rows=case.rows.astype(np.float64))
    model, _ = double.start()
    after, _ = sweep(model, state.astype(np.float64))
    for columns in (state.astype(np.float64).columns, after.columns):
        assert columns.means.dtype == columns.covariances.dtype == np.float64
    single, _ = sweep(case.start()[0], state)
    assert single.H.dtype == np.float32
    assert_allclose(after.H, single.H, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("diagonal", [False, True])
@ANY_BIASES
def test_a_whole_weight_counts_an_entry_that_often(biases, diagonal):
    """An entry of weight two is the same as the entry twice, given the noise."""
    case = make_case(share=0.25, biases=biases, diagonal=diagonal)
    _, before = case.settled()
    counts = np.random.RandomState(3).randint(1, 3, size=case.rows.indices.size)
    ends = np.concatenate([[0], np.cumsum(counts)])
    repeated = case.rows._replace(
        indptr=ends[case.rows.indptr],
        indices=np.repeat(case.rows.indices, counts),
        values=np.repeat(case.rows.values, counts),
    )
    found = []
    for rows in (case.rows._replace(weights=counts.astype(float)), repeated):
        model, _ = case._replace(rows=rows).start()
        state, statistics = sweep(model, before)
        W, covariances = model.row_means(before), state.columns.covariances
        found.append([W, state.H, covariances, statistics.squares])
    for ours, theirs in zip(*found, strict=True):
        assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


# The ELBO


@KINDS
@ANY_BIASES
def test_the_elbo_is_that_of_the_posteriors(options, biases):
    case, model, before, state, statistics = make_swept(biases=biases, **options)
    rows, columns = case.update(before)
    states = [state, optimize_rotation(model, state, statistics)[0]]
    if not case.diagonal:
        rotation = np.random.RandomState(0).standard_normal((3, 3))
        states.append(state.with_rotation(rotation))
    for other in states:
        expected = case.elbo(rows, columns, other)
        assert elbo(model, other, statistics) == pytest.approx(expected, rel=1e-10)


@pytest.fixture(scope="module", params=[*NOISE, "diagonal", "features"])
def maximum(request):
    """Return a case, its posteriors and its state after many sweeps."""
    kind = request.param
    noise = "shared" if kind == "shared" else "column"
    case = make_case(12, 8, 2, share=0.8, noise=noise, diagonal=kind == "diagonal")
    if kind == "features":  # which are nearly the factors
        rng, (U, _, Vt) = np.random.RandomState(3), np.linalg.svd(case.X)
        sides = [
            np.column_stack([F[:, :2], rng.standard_normal(len(F))]) for F in (U, Vt.T)
        ]
        scales = np.array([1.0, 0.8, 0.5])
        features = tuple(Features(np.linalg.qr(F).Q, scales) for F in sides)
        case = case._replace(features=features)
    _, state = case.settled(150 if kind in NOISE else 300)
    thetas = state.row_prior.signal_variance, state.column_prior.signal_variance
    assert (np.max(thetas) > 0) == (kind == "features")
    return case, *case.update(state), state


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-2, 1e-3])
def test_after_many_sweeps_no_state_nearby_has_a_larger_elbo(maximum, size):
    case, rows, columns, state = maximum
    best, rng = case.elbo(rows, columns, state), np.random.RandomState(0)
    for _ in range(5):
        other = state
        for name in PARAMETERS:
            value = parameter(state, name)
            n_free = 1 if name == "alpha" and case.noise == "shared" else value.shape
            changed = value * np.exp(size * rng.standard_normal(n_free))
            other = with_parameter(other, name, changed)
        means = columns.means + size * rng.standard_normal(columns.means.shape)
        moved = columns._replace(means=means)
        assert case.elbo(rows, columns, other) < best
        assert case.elbo(rows, moved, state) < best
        assert case.elbo(rows, moved, other) < best


@pytest.mark.slow
@pytest.mark.parametrize("name", ["means", *PARAMETERS])
def test_after_many_sweeps_the_elbo_has_no_slope(maximum, name):
    """By central differences, in units of what a coordinate is known to."""
    case, rows, columns, state = maximum
    start = columns.means if name == "means" else parameter(state, name)

    def along(k, step):
        change = np.zeros(start.size)
        change[k] = step
        if name == "alpha" and case.noise == "shared":
            change[:] = step
        change = change.reshape(start.shape)
        if name == "means":
            moved = columns._replace(means=start + change)
            return case.elbo(rows, moved, state)
        value = start + change if "slopes" in name else start * np.exp(change)
        return case.elbo(rows, columns, with_parameter(state, name, value))

    for k in range(start.size):
        if "slopes" in name and start.flat[k] == 0:  # its factor has no features
            continue
        less, here, more = (along(k, step) for step in (-1e-3, 0, 1e-3))
        slope, curvature = (more - less) / 2e-3, (more + less - 2 * here) / 1e-6
        assert curvature < 0, k
        assert abs(slope) < 5e-3 * np.sqrt(-curvature), k


@st.composite
def cases(draw, dtype=float):
    """Make a case; single precision with enough noise to be far from rounding."""
    double, diagonal = dtype is float, draw(st.booleans())
    return make_case(
        draw(st.integers(1 if double else 5, 10)),
        draw(st.integers(1 if double else 5, 10)),
        draw(st.integers(1, 5)),
        share=draw(st.sampled_from([0.3, 0.6, 0.9, 1.0])),
        biases=draw(st.sampled_from(BIASES)),
        noise=draw(st.sampled_from(NOISE)),
        weighted=draw(st.booleans()),
        diagonal=diagonal,
        n_features=0 if diagonal else draw(st.sampled_from([0, 1])),
        spread=draw(st.sampled_from([0.1, 1.0] if double else [0.5, 1.0])),
        dtype=dtype,
        seed=draw(st.integers(0, 2**16)),
    )


def climb(case, tol, max_iter=40):
    """Return the ELBO after each sweep, and the number of coefficients of a row."""
    (model, state), ranks = case.start(), []
    options = {"tol": tol, "validate": None, "n_iter_no_change": 5}
    history = History(
        None, case.H, **options, monitor=lambda now: ranks.append(now.H.shape[1])
    )
    ascend(model, state, history, max_iter=max_iter, tol=tol)
    return np.array(history.descent().loss_curve), ranks


@pytest.mark.slow
@given(
    case=st.one_of(cases(), cases(np.float32)), tol=st.sampled_from([0.1, 0.01, 1e-3])
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_the_elbo_never_falls(kernels, case, tol):
    """Nor does it when factors are rotated and dropped; but for rounding."""
    curve, _ = climb(case, tol, max_iter=30)
    eps = 1e-9 if case.X.dtype == np.float64 else 1e-5
    slack = eps * np.maximum(np.abs(curve[1:]), case.rows.indices.size)
    assert (np.diff(curve) >= -slack).all()


# Rotations, and the mean of the row factors


def test_the_best_rotation_makes_moments_diagonal_and_puts_large_factors_first():
    F = np.random.RandomState(0).standard_normal((2, 30, 4))
    moments = F.swapaxes(1, 2) @ F
    rotation = diagonalizing_rotation(*moments, 30, 20)
    sizes = 1.0
    for Q, S in zip((rotation, np.linalg.inv(rotation).T), moments, strict=True):
        squares = np.diag(Q @ S @ Q.T)
        assert_allclose(Q @ S @ Q.T, np.diag(squares), atol=1e-10 * squares.sum())
        sizes = sizes * squares
    assert (np.diff(sizes) < 0).all()


def test_the_best_rotation_has_factors_of_the_best_size():
    """Stretched or shrunk on one side, a factor has a smaller ELBO."""
    m, n, rows, columns = 3, 2000, np.array([[2.0]]), np.array([[5.0]])
    u = diagonalizing_rotation(rows, columns, m, n)[0, 0] ** 2 * rows[0, 0]

    def value(u):
        """Of the priors whose best precisions have factors of these squares."""
        squares = np.array([u, rows[0, 0] * columns[0, 0] / u]) + 2 * GAMMA_RATE
        counts = np.array([m, n]) + 2 * GAMMA_RATE
        return -0.5 * counts @ np.log(squares) + 0.5 * (m - n) * np.log(u)

    assert max(value(0.99 * u), value(1.01 * u)) < value(u)
    assert abs(value(1.001 * u) - value(u / 1.001)) < 1e-6


def test_singular_moments_and_diagonal_covariances_are_not_rotated():
    _, state = make_case(diagonal=True).settled()
    assert state.rotated() is state
    assert diagonalizing_rotation(np.zeros((2, 2)), np.eye(2), 3, 3) is None


@pytest.mark.pairwise(biases=BIASES, noise=NOISE)
def test_no_other_rotation_nearby_has_a_larger_elbo(biases, noise):
    _, model, _, state, statistics = make_swept(biases=biases, noise=noise)
    best, value = optimize_rotation(model, state, statistics)
    assert value == elbo(model, best, statistics) >= elbo(model, state, statistics)
    rng = np.random.RandomState(0)
    for _ in range(10):
        nearby = best.row_prior.rotation @ (
            np.eye(3) + 0.01 * rng.standard_normal((3, 3))
        )
        other = maximize_priors(state.with_rotation(nearby), statistics)
        assert elbo(model, other, statistics) < value


@ANY_BIASES
def test_a_rotation_changes_neither_predictions_nor_what_follows(biases):
    """Rotated factors climb as those of which only the prior is rotated."""
    model, state = make_case(biases=biases).settled()
    rotated = state.rotated()
    assert not np.allclose(state.row_prior.rotation, np.eye(3))
    assert_array_equal(rotated.row_prior.rotation, np.eye(3))
    both = [(model.row_means(each), each.H) for each in (state, rotated)]
    before, after = (W[:, :3] @ H[:, :3].T for W, H in both)
    assert_allclose(after, before, atol=1e-12)
    assert_allclose(both[1][0][:, 3:], both[0][0][:, 3:], atol=1e-12)
    assert_array_equal(rotated.H[:, 3:], state.H[:, 3:])
    curves = np.empty((2, 5))
    for k in range(5):
        state, curves[0, k] = optimize_rotation(model, *sweep(model, state))
        rotated, curves[1, k] = optimize_rotation(model, *sweep(model, rotated))
        rotated = rotated.rotated()
    assert_allclose(*curves, rtol=1e-9)


@pytest.mark.parametrize("biases", [Biases(False, True), Biases(True, True)], ids=str)
def test_the_mean_of_row_factors_moves_into_column_biases(biases):
    """As far as the ELBO rises, all the way where the bias has a flat prior."""
    case = make_case(40, 12, biases=biases, share=0.7)
    case = case._replace(W=case.W + 1)
    model, start = case.start()
    W = model.row_means(start)[:, :3]
    state, statistics = sweep(model, start)
    moved, of_moved = centre(state, statistics)
    assert_allclose(statistics.rows.second_moments[:3, 3], W.sum(axis=0), atol=1e-9)
    step = of_moved.rows.second_moments[:3, 3] / len(W) - W.mean(axis=0)
    assert np.abs(step).max() > 0.1
    both = (W, state.H), (W + step, moved.H)
    predictions = [factors @ H[:, :3].T + H[:, 3] for factors, H in both]
    assert_allclose(*predictions, atol=1e-10)
    mean = np.abs((W + step).mean(axis=0)).max()
    assert (mean < 1e-5) == model.flat_bias
    # The statistics are those of the moved factors.
    total = unpack(moved.columns.moments().sum(axis=0), 5)
    assert_allclose(of_moved.columns.second_moments, total, rtol=1e-9, atol=1e-9)
    before, after = (
        sums.rows.second_moments[:3, :3] - factors.T @ factors
        for sums, factors in ((statistics, W), (of_moved, W + step))
    )
    assert_allclose(after, before, atol=1e-8)  # covariances stay
    # No further step has a larger ELBO.
    value = elbo(model, moved, of_moved)
    assert value > elbo(model, state, statistics)
    assert elbo(model, *centre(moved, of_moved)) == pytest.approx(value, rel=1e-10)


# Pruning


class Pruned:
    """A case before pruning, and its naive ELBO with some of the factors."""

    def __init__(self, **options):
        self.case = make_case(**options)
        self.model, before = self.case.settled()
        before = before.rotated()
        self.sides = self.case.update(before)
        state, self.statistics = sweep(self.model, before)
        self.state = maximize_priors(state, self.statistics)

    def elbo_of(self, chosen):
        rank = self.case.rank
        sides = (
            side.keep(np.append(chosen, np.arange(rank, rank + biased)))
            for side, biased in zip(self.sides, self.case.biases, strict=True)
        )
        state = self.state.with_factors(np.isin(np.arange(rank), chosen))
        return self.case.elbo(*sides, state)


@pytest.mark.pairwise(
    biases=BIASES, noise=NOISE, weighted=[False, True], share=[0.4, 0.9]
)
def test_pruning_drops_the_factor_without_which_the_elbo_is_largest(
    biases, noise, weighted, share
):
    pruned = Pruned(rank=2, biases=biases, noise=noise, weighted=weighted, share=share)
    # A factor of which the prior is very sure that it is nothing.
    precision = pruned.state.row_prior.precision * ([1e3] + [1] * (1 + biases.row))
    pruned.state = with_parameter(pruned.state, "row_precision", precision)
    before = elbo(pruned.model, pruned.state, pruned.statistics)
    after, statistics = prune(pruned.model, pruned.state, pruned.statistics)
    assert after.rank == 1
    best = max(pruned.elbo_of([k]) for k in (0, 1))
    assert elbo(pruned.model, after, statistics) == pytest.approx(best, rel=1e-9)
    assert best > before


@ANY_BIASES
def test_pruning_keeps_factors_without_which_the_elbo_is_smaller(biases):
    pruned = Pruned(m=60, n=30, rank=2, biases=biases, spread=0.1)
    given = pruned.state, pruned.statistics
    assert prune(pruned.model, *given) == given
    before = elbo(pruned.model, *given)
    assert all(pruned.elbo_of([k]) < before for k in range(2))


@pytest.mark.parametrize("share, n_dropped", [(0.32, 0), (0.34, 1), (0.67, 2)])
def test_pruning_a_share_drops_the_worst_of_three_factors_first(share, n_dropped):
    pruned = Pruned(rank=4)
    before = elbo(pruned.model, pruned.state, pruned.statistics)
    without = [pruned.elbo_of(np.delete(np.arange(4), k)) for k in range(4)]
    n_better = np.sum(np.array(without) > before)
    given = pruned.state, pruned.statistics, share * 3 / n_better
    after, statistics = prune(pruned.model, *given)
    assert after.rank == 4 - n_dropped
    if n_dropped == 1:
        value = elbo(pruned.model, after, statistics)
        assert value == pytest.approx(max(without), rel=1e-9)


def test_pruning_drops_everything_of_the_factors():
    pruned = Pruned(rank=4)
    state = pruned.state
    after, statistics = prune(pruned.model, state, pruned.statistics)
    rank = after.rank
    assert rank < 4
    assert after.columns.covariances.shape == (7, (rank + 1) * (rank + 2) // 2)
    for prior in (after.row_prior, after.column_prior):
        assert prior.precision.shape == prior.signal_variance.shape == (rank + 1,)
    for sums in statistics[:2]:
        assert sums.second_moments.shape == (rank + 2, rank + 2)
    kept = [k for k in range(4) if (state.H[:, k] == after.H[:, 0]).all()]
    assert len(kept) == 1
    # What the factors explained together is not lost twice.
    expected = pruned.elbo_of(kept)
    assert elbo(pruned.model, after, statistics) == pytest.approx(expected, abs=1e-5)


def test_the_elbo_rises_through_pruning_until_of_noise_one_factor_is_kept():
    curve, ranks = climb(make_case(40, 20, 8, share=0.8, spread=0.1), 1e-3, 200)
    assert ranks[-1] < ranks[0]
    assert (np.diff(curve) > 0).all()
    case = make_case(30, 20, 4, spread=1.0)
    noise = np.random.RandomState(0).standard_normal(case.rows.values.size)
    case = case._replace(rows=case.rows._replace(values=noise))
    assert climb(case, 1e-3)[1][-1] == 1 + 1


@pytest.mark.parametrize("unpruned", [True, False])
def test_where_there_are_features_factors_are_thinned_out_from_the_first_sweep(
    unpruned,
):
    case = make_case(40, 30, 8, share=0.8, spread=0.1, n_features=1)
    (model, state), history = case.start(), []

    class Ranks:
        converged = validates = False

        def add(self, W, H, value, sizes, converged, state):
            history.append(state.rank)

    options = {"max_iter": 1, "tol": 1e-3, "unpruned": unpruned}
    found = ascend(model, state, Ranks(), **options)
    assert history == ([8] if unpruned else [7])
    assert found.rank == 8 if unpruned else found is None
