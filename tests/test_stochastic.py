"""solver="sgd": one step for every observed entry, in a random order."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from numpy.random import RandomState
from numpy.testing import assert_allclose, assert_array_equal
from pytest import approx
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from sklearn_mfgd import DivergenceError, GradientMF, MaskedGradientMF
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels import backend, dispatch, linalg
from sklearn_mfgd._kernels.rows import Biases
from sklearn_mfgd._optim import grid
from sklearn_mfgd._optim.divergence import entry_bound
from sklearn_mfgd._optim.objective import ObservedObjective
from sklearn_mfgd._optim.penalty import Ridge, penalties_of
from sklearn_mfgd._optim.sgd import StochasticEpochs
from sklearn_mfgd._optim.sweeps import Iterate

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [GradientMF, MaskedGradientMF]
BIASES = [False, True, "columns"]
STARTS = {"fit_bias": BIASES, "init": ["svd", "random"]}
SHAPES = [(1, 1), (3, 3), (64, 100), (600, 500), (2000, 40)]


@pytest.fixture
def X(planted):
    """A table of 24 x 12 with 30 % missing."""
    return planted(m=24, n=12, share_missing=0.3).X + 2


@pytest.fixture
def model():
    return MaskedGradientMF(3, solver="sgd", reg=0.5, max_iter=20, random_state=0)


def heavy_tails(kind, seed):
    """80 x 50 with 40 % observed."""
    rng, shape = np.random.default_rng(seed), (80, 50)
    if kind == "lognormal":
        X = rng.lognormal(0, 2, shape)
    elif kind == "zipf":
        X = rng.zipf(1.5, shape)
    else:
        X = np.where(rng.random(shape) < 0.01, 100, rng.standard_normal(shape))
    return np.where(rng.random(shape) > 0.4, np.nan, X)


def loss_of_als(model, X, **params):
    model = clone(model).set_params(solver="als", eta="auto", **params)
    return model.fit(X).loss_curve_[-1]


# Where it arrives


@pytest.mark.accuracy
@pytest.mark.pairwise(
    Estimator=ESTIMATORS, share_missing=[0.0, 0.3], eta=["auto", 0.003], **STARTS
)
def test_it_comes_within_a_hundredth_of_the_objective_of_als(
    planted, Estimator, share_missing, params
):
    X = planted(m=24, n=12, share_missing=share_missing).X + 2
    model = Estimator(3, solver="sgd", reg=2.0, max_iter=500, random_state=0, **params)
    assert model.fit(X).loss_curve_[-1] <= 1.01 * loss_of_als(model, X, tol=1e-8)


def test_it_recovers_a_planted_matrix_where_entries_are_missing(planted):
    data = planted(30, 20, noise=0, share_missing=0.2)
    model = GradientMF(3, solver="sgd", tol=1e-10, random_state=0)
    recovered = model.inverse_transform(model.fit_transform(data.X))
    assert_allclose(recovered, data.signal, atol=1e-4)


@pytest.mark.pairwise(
    outlier=[1, 1e4],
    weighted=[0, 1],
    dtype=["f4", "f8"],
    reg=[0.0, 0.5, 100.0],
    **STARTS,
)
def test_the_objective_never_rises(X, model, outlier, weighted, dtype, params):
    X[tuple(np.argwhere(~np.isnan(X))[::50].T)] *= outlier
    weights = RandomState(0).uniform(0.1, 9, X.shape) if weighted else None
    model.set_params(max_iter=40, tol=0, **params)
    curve = np.array(model.fit(X.astype(dtype), entry_weight=weights).loss_curve_)
    assert (np.diff(curve) <= 0).all()
    assert curve[-1] < curve[0]


def test_it_ends_where_the_objective_no_longer_falls_and_warns_before(
    X, model, naive_objective, recwarn
):
    F = naive_objective(model, X, model.set_params(max_iter=500).fit_transform(X))
    assert model.n_iter_ == len(model.loss_curve_) < 500
    assert F * (1 - 1e-12) <= model.loss_curve_[-1] <= 1.001 * F
    assert not recwarn.list
    with pytest.warns(ConvergenceWarning, match="Increase max_iter, or tol"):
        model.set_params(max_iter=2, tol=1e-9).fit(X)


def test_tol_zero_runs_all_epochs_and_a_warm_start_goes_on_from_the_last(X, model):
    model.set_params(warm_start=True, tol=0)
    last = model.fit(X).loss_curve_[-1]
    assert model.n_iter_ == 20
    assert model.fit(X).loss_curve_[0] <= last * (1 + 1e-12)


def test_ten_epochs_taken_back_in_a_row_are_the_end(planted):
    """From the optimum, the SVD of a complete matrix, no epoch makes F fall."""
    model = GradientMF(3, solver="sgd", tol=0, max_iter=100, random_state=0)
    curve = model.fit(planted(noise=1.0).X).loss_curve_
    assert curve == 10 * curve[:1]


# The data it takes


@pytest.mark.parametrize("share_missing", [0.0, 0.3])
def test_early_stopping_restores_the_best_iterate(planted, share_missing):
    X = planted(m=60, n=30, noise=1.0, share_missing=share_missing).X
    model = GradientMF(8, solver="sgd", init="random", random_state=0)
    model.set_params(early_stopping=True, tol=0, max_iter=100).fit(X)
    best = int(np.argmin(model.validation_curve_)) + 1
    assert 1 < best < model.n_iter_ < 100
    assert model.n_iter_ == best + 5
    stopped = clone(model).set_params(max_iter=best).fit(X)
    assert_array_equal(stopped.components_, model.components_)


@pytest.mark.pairwise(fit_bias=BIASES, eta=["auto", 0.01])
def test_single_precision_agrees_with_double(X, model, fit_bias, eta):
    model.set_params(fit_bias=fit_bias, eta=eta, init="random")
    double = clone(model).fit(X)
    Z = model.fit_transform(X.astype(np.float32))
    assert Z.dtype == model.components_.dtype == np.float32
    assert_allclose(model.loss_curve_, double.loss_curve_, rtol=1e-3)
    assert_allclose(model.components_, double.components_, atol=1e-2)


def test_complete_sparse_data_are_refused():
    with pytest.raises(ValueError, match=r"solver='sgd'.*dense X.*MaskedGradientMF"):
        GradientMF(2, solver="sgd").fit(sparse.csr_array(np.eye(5)))


@pytest.mark.pairwise(Estimator=ESTIMATORS, eta=["auto", 0.01])
def test_rows_and_columns_without_entries_stay_at_the_prior(X, Estimator, eta):
    X[[0, 20]], X[:, [3, 11]] = np.nan, np.nan
    model = Estimator(2, solver="sgd", eta=eta, reg=0.5, fit_bias=True, max_iter=5)
    Z = model.set_params(init="random", random_state=0).fit_transform(X)
    parts = Z[[0, 20]], model.components_[:, [3, 11]], model.column_bias_[[3, 11]]
    assert not any(part.any() for part in parts)


@pytest.mark.parametrize("fit_bias", BIASES)
@pytest.mark.parametrize("mask", [None, [[1, 1, 0], [0, 1, 1], [1, 0, 1]]])
def test_three_by_three_is_enough(three_by_three, fit_bias, mask):
    model = GradientMF(1, fit_bias=fit_bias, reg=0.1, max_iter=500, random_state=0)
    X = three_by_three if mask is None else np.where(mask, three_by_three, np.nan)
    model.set_params(solver="sgd", tol=1e-7).fit(X)
    assert model.loss_curve_[-1] <= 1.01 * loss_of_als(model, X, tol=1e-9)


@pytest.mark.parametrize("X", [[[3]], [[3, 1, 2]], [[3], [1], [2]], np.zeros((6, 5))])
def test_a_single_row_or_column_and_zeros_are_enough(X):
    model = GradientMF(1, solver="sgd", tol=1e-12, random_state=0)
    assert_allclose(model.inverse_transform(model.fit_transform(X)), X, rtol=1e-3)
    model.set_params(rank=10, fit_bias=True)  # more than either side
    assert_allclose(model.inverse_transform(model.fit_transform(X)), X, rtol=1e-3)


@pytest.mark.accuracy
@pytest.mark.parametrize("reg", [1.0, 100.0])
def test_a_ridge_that_is_large_for_the_data_does_not_stop_the_descent(reg):
    """Steps that suit the data alone would lead past zero, and never come back."""
    rng = np.random.default_rng(0)
    X = 5 + 1e-3 * rng.standard_normal((30, 20))
    X[rng.random(X.shape) < 0.3] = np.nan
    model = MaskedGradientMF(3, reg=reg, solver="sgd", random_state=0)
    assert model.fit(X).loss_curve_[-1] <= 1.01 * loss_of_als(model, X)


# Steps of a given length


@pytest.mark.pairwise(size=[1, 4**4, 4**-4], solver=["gd", "sgd"])
def test_the_eta_that_is_reported_is_in_units_of_the_data(X, model, solver, size):
    eta = model.set_params(fit_bias=False, init="random").fit(X).eta_
    assert model.set_params(reg=0.5 * size).fit(size * X).eta_ * size == approx(eta)
    model.set_params(solver=solver, eta=1e-4 / size, max_iter=3)
    assert model.fit(size * X).eta_ * size == approx(1e-4)


@pytest.mark.pairwise(
    kind=["lognormal", "zipf", "outliers"],
    seed=range(3),
    reg=[0.0, 0.1, 1000.0],
    weighted=[False, True],
    **STARTS,
)
def test_the_step_that_a_divergence_names_descends_on_heavy_tails(
    kind, seed, weighted, params
):
    X = heavy_tails(kind, seed)
    weights = np.random.default_rng(seed).uniform(0.1, 3, X.shape) if weighted else None
    model = MaskedGradientMF(5, solver="sgd", max_iter=25, random_state=0, **params)
    model.fit(X, entry_weight=weights)
    eta = 1e5 * model.eta_
    with pytest.raises(DivergenceError) as caught:
        model.set_params(eta=eta).fit(X, entry_weight=weights)
    assert caught.value.eta == eta
    assert f"eta={caught.value.stable_eta:.3g}" in str(caught.value)
    model.set_params(eta=caught.value.stable_eta, tol=0)
    curve = np.array(model.fit(X, entry_weight=weights).loss_curve_)
    assert (curve <= 1.01 * curve[0]).all()
    # A large ridge may leave nothing to fall: its start is near the optimum already.
    assert curve[-1] < curve[0] or params["reg"] == 1000


@pytest.mark.accuracy
@pytest.mark.pairwise(share_missing=[0.0, 0.3], **STARTS)
def test_the_step_that_a_divergence_names_comes_near_the_optimum(
    planted, params, share_missing
):
    X = planted(m=24, n=12, share_missing=share_missing).X
    model = GradientMF(3, reg=2.0, solver="sgd", eta=10.0, random_state=0, **params)
    with pytest.raises(DivergenceError) as caught:
        model.set_params(tol=0, max_iter=60).fit(X)
    curve = model.set_params(eta=caught.value.stable_eta).fit(X).loss_curve_
    assert curve[-1] <= 2 * loss_of_als(model, X, tol=1e-4, max_iter=200)


@pytest.mark.parametrize("size, largest", [(1.0, 10.0), (4.0, 64.0)])
def test_the_bound_of_a_step_is_half_the_inverse_of_largest_curvature(size, largest):
    """That of an entry is w_i.w_i + h_j.h_j, or twice its size once it is fitted."""
    X = np.array([[1.0, -5.0]])
    objective = ObservedObjective(rows_of(X, np.ones_like(X, bool)))
    penalties = penalties_of(2, Biases(False, False), Ridge(0.7, 0.7))
    W, H = (np.full((n, 2), size) for n in X.shape)
    bound = entry_bound(objective, W, H, penalties)
    assert bound == approx(0.5 / (largest + 0.7))


@pytest.mark.parametrize("eta", [1e-4, 1e-3, 1e-2])
def test_a_step_that_hovers_about_the_optimum_does_not_diverge(planted, eta):
    X = planted(m=24, n=12).X  # complete: the SVD is the optimum
    model = GradientMF(3, solver="sgd", eta=eta, tol=0, max_iter=30, random_state=0)
    assert max(model.fit(X).loss_curve_) <= 1.2 * GradientMF(3).fit(X).loss_curve_[-1]


def test_an_infinite_objective_is_a_divergence_without_warnings(X, model, recwarn):
    with pytest.raises(DivergenceError):
        model.set_params(eta=1e6).fit(X)
    assert not recwarn.list


# An epoch


@pytest.mark.pairwise(shape=[(9, 7), (80, 70)], fit_bias=BIASES, weighted=[False, True])
def test_an_epoch_of_short_steps_follows_the_gradient(shape, fit_bias, weighted):
    """The ridge counts once for each row, however many entries share it."""
    rng, eta = RandomState(0), 1e-9
    biases = Biases(row=fit_bias is True, column=fit_bias is not False)
    X, observed = rng.standard_normal(shape), rng.uniform(size=shape) < 0.4
    observed[3], observed[:, 2] = False, False
    S = rng.uniform(0.2, 3, shape) if weighted else np.ones(shape)
    rows = rows_of(X, observed)._replace(weights=S[observed] if weighted else None)
    objective = ObservedObjective(rows, biases=biases)
    penalties = penalties_of(2, biases, Ridge(0.7, 0.3))
    W, H = (
        rng.standard_normal((n, len(penalty.ridge))) * observed.any(axis=axis)[:, None]
        for n, penalty, axis in zip(shape, penalties, (1, 0), strict=True)
    )
    epochs = StochasticEpochs(objective, penalties, eta, RandomState(0))
    before = W.copy(), H.copy()
    after = epochs.sweep(Iterate(W, H, np.inf), np.inf)
    assert all(map(np.array_equal, (W, H), before))
    sides = (objective, W, H), (objective.T, H, W)
    for (side, F, G), moved, penalty in zip(sides, after[:2], penalties, strict=True):
        gradient = side.value_and_gradient(F, G)[1] + penalty.ridge * F
        assert_allclose((moved - F) / -eta, gradient, rtol=1e-4, atol=1e-4)


def test_an_epoch_that_overflows_leaves_steps_for_the_next(X):
    objective = ObservedObjective(rows_of(np.nan_to_num(X), ~np.isnan(X)))
    penalties = penalties_of(2, Biases(False, False), Ridge(0.1, 0.1))
    epochs = StochasticEpochs(objective, penalties, "auto", RandomState(0))
    huge = Iterate(np.full((24, 2), 1e120), np.full((12, 2), 1e120), loss=1.0)
    assert epochs.sweep(huge, np.inf).W is huge.W  # taken back
    assert (epochs.step_sizes() > 0).all()


@pytest.mark.parametrize("size", [1, 1000])
def test_a_step_of_the_estimator_follows_the_gradient_in_its_units(planted, size):
    X, eta, reg = size * planted(share_missing=0.3).X, 1e-7 / size, 0.5 * size
    rng = RandomState(1)
    W, H = (np.sqrt(size) * rng.standard_normal((n, 3)) for n in X.shape)
    model = GradientMF(3, solver="sgd", eta=eta, reg=reg, init=(W, H), max_iter=1)
    model.set_params(random_state=0).fit(X)
    gradient = np.nan_to_num(W @ H.T - X).T @ W + reg * H
    assert_allclose(model.components_.T - H, -eta * gradient, rtol=1e-3, atol=1e-12)


# The grid


def pattern(m, n, share=0.5, seed=0):
    """Which entries are observed, as Rows."""
    rng = RandomState(seed)
    return rows_of(rng.standard_normal((m, n)), rng.uniform(size=(m, n)) < share)


def deal(rows, seed=0):
    return grid.deal(rows, RandomState(seed))


@pytest.fixture
def short_calls(monkeypatch):
    """Cut the work into calls so small that even little data take many of them."""
    monkeypatch.setattr(linalg, "BLOCK", 100)
    monkeypatch.setattr(grid, "MAX_SHUFFLED", 60)


@pytest.mark.pairwise(shape=SHAPES, share=[0.01, 0.5, 1.0])
def test_every_entry_is_dealt_to_one_block(shape, share, monkeypatch, short_calls):
    rows = pattern(*shape, share)
    order, n_groups, starts = deal(rows)
    monkeypatch.undo()
    at_once, _, expected_starts = deal(rows)
    assert_array_equal(np.sort(order), np.arange(rows.indices.size))
    assert_array_equal(starts, expected_starts)
    assert len(starts) == n_groups**2 + 1
    for start, stop in pairwise(starts):
        assert_array_equal(np.sort(order[start:stop]), np.sort(at_once[start:stop]))


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_that_run_at_the_same_time_share_no_row_and_no_column(shape):
    rows = pattern(*shape)
    order, n, starts = deal(rows)
    for shift in range(n):
        blocks = [k * n + (k + shift) % n for k in range(n)]
        for numbers in (rows.row_numbers[order], rows.indices[order]):
            touched = [np.unique(numbers[starts[k] : starts[k + 1]]) for k in blocks]
            assert np.bincount(np.concatenate(touched)).max(initial=0) <= 1


@pytest.mark.slow
def test_the_grid_depends_on_the_shape_only_and_grows_with_the_smaller_side(
    monkeypatch,
):
    sizes = []
    for shape in ((2000, 40), (200, 300), (600, 500), (900, 2000)):
        found = set()
        for threads, share, seed in (("1", 0.01, 0), ("4", 0.5, 1), ("1", 1.0, 2)):
            monkeypatch.setenv("OMP_NUM_THREADS", threads)
            found.add(deal(pattern(*shape, share, seed), seed)[1])
        assert len(found) == 1
        sizes += found
    assert sizes == [1, 6, 15, 16]


def test_rows_and_columns_are_dealt_evenly():
    rows = pattern(600, 500, 1.0)
    order, n, starts = deal(rows)
    for numbers, length in ((rows.row_numbers, 600), (rows.indices, 500)):
        blocks = (numbers[order[start:stop]] for start, stop in pairwise(starts))
        assert {np.unique(block).size - length // n for block in blocks} <= {0, 1}


def test_entries_of_a_block_are_shuffled():
    rows = pattern(100, 100, 1.0)
    first, again, other = (deal(rows, seed)[0] for seed in (0, 0, 1))
    assert 0.3 < np.mean(np.diff(first[: deal(rows)[2][1]]) > 0) < 0.7
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_call_that_shuffles_is_long(short_calls):
    """Each is given a pile of entries at the most, and Ctrl-C comes between them."""
    sizes = []

    class Watched(RandomState):
        def shuffle(self, x):
            sizes.append(x.size)
            super().shuffle(x)

        def randint(self, *args, size):
            sizes.append(size)
            return super().randint(*args, size=size)

    order = np.arange(5000)
    grid.shuffle(order, Watched(0))
    assert max(sizes) <= 100
    assert_array_equal(np.sort(order), np.arange(5000))


def test_every_order_of_entries_is_as_likely_as_any_other(monkeypatch):
    monkeypatch.setattr(grid, "MAX_SHUFFLED", 2)
    counts, rng = Counter(), RandomState(0)
    for _ in range(6000):
        order = np.arange(3)
        grid.shuffle(order, rng)
        counts[tuple(order)] += 1
    assert len(counts) == 6
    # Five standard deviations of a count.
    assert max(abs(count - 1000) for count in counts.values()) < 5 * np.sqrt(833)


def test_a_matrix_without_entries_is_dealt_out():
    order, n_groups, starts = deal(pattern(100, 90, share=0))
    assert order.size == 0
    assert_array_equal(starts, np.zeros(n_groups**2 + 1))


# Randomness and threads


@pytest.mark.parametrize("eta", ["auto", 0.003])
def test_the_same_random_state_gives_the_same_bits(X, model, eta):
    model.set_params(eta=eta)
    first, again, other = (
        clone(model).set_params(random_state=seed).fit(X) for seed in (0, 0, 1)
    )
    assert_array_equal(first.components_, again.components_)
    assert first.loss_curve_ == again.loss_curve_
    assert not np.array_equal(first.components_, other.components_)
    model.set_params(random_state=RandomState(0))  # a generator goes on
    assert not np.array_equal(model.fit(X).components_, model.fit(X).components_)


@pytest.mark.slow
@pytest.mark.pairwise(
    dtype=[np.float32, np.float64], fit_bias=[False, True], eta=["auto", 0.003]
)
def test_any_number_of_threads_gives_the_same_bits(
    planted, model, monkeypatch, compiled_kernels, dtype, params
):
    X = planted(m=600, n=500, share_missing=0.9).X.astype(dtype)
    model.set_params(max_iter=2, **params)
    limits, share_out = [], dispatch.share_out

    def spy(work, ranges, limit=None):
        limits.append((len(ranges), limit))
        return share_out(work, ranges, limit)

    monkeypatch.setattr(dispatch, "share_out", spy)
    monkeypatch.setattr(backend, "kernels", compiled_kernels)
    monkeypatch.setattr(dispatch, "OPERATIONS", 1e4)  # small ranges, so many of them
    fits = []
    for threads in "1234":
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        fits.append(clone(model).fit(X))
    assert (15, None) in limits  # the blocks of a shift, on as many threads as set
    for name in ("components_", "column_bias_", "loss_curve_"):
        for other in fits[1:]:
            assert_array_equal(getattr(other, name), getattr(fits[0], name))


# Units


@pytest.mark.pairwise(size=[1000.0, 1e-3, 4.0**9], **STARTS)
def test_units_do_not_matter(X, model, size, params):
    reg = 0.0 if params["fit_bias"] else 0.5
    model.set_params(reg=reg, **params)
    scaled = clone(model).set_params(reg=reg * size)
    product = scaled.inverse_transform(scaled.fit_transform(size * X))
    expected = model.inverse_transform(model.fit_transform(X))
    assert_allclose(product / size, expected, rtol=1e-6, atol=1e-7)
    curve = size**2 * np.array(model.loss_curve_)
    assert_allclose(scaled.loss_curve_, curve, rtol=1e-6)


@pytest.mark.parametrize("size", [1e150, 1e-150, np.float32(1e30)])
def test_extreme_values_fit_like_any_other(X, model, size):
    expected = model.set_params(reg=0.0).fit(X).reconstruction_err_
    error = model.fit(X.astype(np.asarray(size).dtype) * size).reconstruction_err_
    assert error / size == approx(expected, rel=0.01)
