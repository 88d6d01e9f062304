"""solver="sgd": one step for every observed entry, in a random order."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from sklearn_mfgd import DivergenceError, GradientMF, MaskedGradientMF
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels import backend, dispatch, linalg
from sklearn_mfgd._kernels.rows import Biases, Rows
from sklearn_mfgd._optim import sgd
from sklearn_mfgd._optim.objective import ObservedObjective
from sklearn_mfgd._optim.penalty import Ridge, penalties_of
from sklearn_mfgd._optim.grid import deal as _deal

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [GradientMF, MaskedGradientMF]
BIASES = [False, True, "columns"]
SHAPES = [(1, 1), (3, 3), (40, 15), (64, 100), (600, 500), (2000, 40), (900, 700)]


@pytest.fixture
def holes(planted):
    """A table of 24 x 12 with 30 % missing."""
    return planted(m=24, n=12, share_missing=0.3).X + 2


@pytest.fixture
def model():
    return MaskedGradientMF(3, solver="sgd", reg=0.5, max_iter=20, random_state=0)


@pytest.fixture
def pattern():
    """Return ``pattern(m, n, share)``: which entries are observed, as Rows."""

    def make(m, n, share=0.5, seed=0):
        rng = np.random.RandomState(seed)
        return rows_of(rng.standard_normal((m, n)), rng.uniform(size=(m, n)) < share)

    return make


# Where it arrives


@pytest.mark.pairwise(
    Estimator=ESTIMATORS,
    fit_bias=BIASES,
    share_missing=[0.0, 0.3],
    init=["svd", "random"],
)
def test_it_comes_within_a_hundredth_of_the_objective_of_als(
    planted, Estimator, fit_bias, share_missing, init
):
    X = planted(m=24, n=12, share_missing=share_missing).X + 2
    model = Estimator(3, reg=2.0, fit_bias=fit_bias, init=init, random_state=0)
    optimum = clone(model).set_params(solver="als", tol=1e-8).fit(X).loss_curve_[-1]
    model.set_params(solver="sgd").fit(X)
    assert model.loss_curve_[-1] <= 1.01 * optimum


def test_it_recovers_a_planted_matrix_behind_the_holes(planted):
    data = planted(m=30, n=20, noise=0, share_missing=0.2)
    model = GradientMF(3, solver="sgd", tol=1e-10, random_state=0)
    recovered = model.inverse_transform(model.fit_transform(data.X))
    assert_allclose(recovered, data.signal, atol=1e-4)


@pytest.mark.pairwise(
    fit_bias=BIASES,
    reg=[0.0, 0.5, 100.0],
    init=["svd", "random"],
    weighted=[False, True],
)
def test_the_objective_never_rises(holes, model, fit_bias, init, reg, weighted):
    weights = np.random.RandomState(0).uniform(0.1, 9, holes.shape)
    model.set_params(fit_bias=fit_bias, init=init, reg=reg, max_iter=40, tol=0)
    model.fit(holes, entry_weight=weights if weighted else None)
    curve = np.array(model.loss_curve_)
    assert (np.diff(curve) <= 0).all()
    assert curve[-1] < curve[0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_outliers_do_not_make_the_objective_rise(holes, model, dtype):
    observed = np.argwhere(~np.isnan(holes))
    holes[tuple(observed[::50].T)] *= 1e4
    model.set_params(max_iter=60, tol=0).fit(holes.astype(dtype))
    assert (np.diff(model.loss_curve_) <= 0).all()


def test_loss_curve_is_the_penalized_objective(holes, model, naive_objective):
    model.set_params(max_iter=400, tol=1e-8)
    Z = model.fit_transform(holes)
    F = naive_objective(model, holes, Z)
    assert F * (1 - 1e-12) <= model.loss_curve_[-1] <= 1.001 * F


def test_it_ends_where_the_objective_no_longer_falls(holes, model, recwarn):
    model.set_params(max_iter=500, tol=1e-3).fit(holes)
    assert model.n_iter_ == len(model.loss_curve_) < 500
    assert not recwarn.list


def test_running_out_of_epochs_warns(holes, model):
    with pytest.warns(ConvergenceWarning, match="Increase max_iter, or tol"):
        model.set_params(max_iter=2, tol=1e-9).fit(holes)


def test_tol_zero_asks_for_all_epochs(holes, model):
    assert model.set_params(tol=0, max_iter=30).fit(holes).n_iter_ == 30


def test_warm_start_goes_on_where_the_last_fit_ended(holes, model):
    model.set_params(warm_start=True, tol=0)
    last = model.fit(holes).loss_curve_[-1]
    assert model.fit(holes).loss_curve_[0] <= last * (1 + 1e-12)


@pytest.mark.parametrize("fit_bias", BIASES)
def test_fit_transform_returns_what_transform_does(holes, model, fit_bias):
    model.set_params(fit_bias=fit_bias)
    Z = clone(model).fit_transform(holes)
    assert_allclose(model.fit(holes).transform(holes), Z, rtol=1e-6, atol=1e-12)


# The data it takes


@pytest.mark.parametrize("share_missing", [0.0, 0.3])
def test_early_stopping_restores_the_best_iterate(planted, share_missing):
    X = planted(m=60, n=30, noise=1.0, share_missing=share_missing).X
    model = GradientMF(
        8,
        solver="sgd",
        init="random",
        early_stopping=True,
        tol=0,
        max_iter=100,
        random_state=0,
    ).fit(X)
    best = int(np.argmin(model.validation_curve_)) + 1
    assert 1 < best < model.n_iter_ < 100
    assert model.n_iter_ == best + 5
    stopped = clone(model).set_params(max_iter=best).fit(X)
    assert_array_equal(stopped.components_, model.components_)


@pytest.mark.parametrize("eta", ["auto", 0.01])
@pytest.mark.parametrize("fit_bias", BIASES)
def test_single_precision_agrees_with_double(holes, model, fit_bias, eta):
    model.set_params(fit_bias=fit_bias, eta=eta, init="random")
    double = clone(model).fit(holes)
    Z = model.fit_transform(holes.astype(np.float32))
    assert Z.dtype == model.components_.dtype == np.float32
    assert_allclose(model.loss_curve_, double.loss_curve_, rtol=1e-3)
    assert_allclose(model.components_, double.components_, atol=1e-2)


def test_complete_sparse_data_are_refused():
    X = sparse.csr_array(np.eye(5))
    with pytest.raises(ValueError, match=r"solver='sgd'.*dense X.*MaskedGradientMF"):
        GradientMF(2, solver="sgd").fit(X)


@pytest.mark.parametrize("eta", ["auto", 0.01])
@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_rows_and_columns_without_entries_stay_at_the_prior(holes, Estimator, eta):
    holes[[0, 20]], holes[:, [3, 11]] = np.nan, np.nan
    model = Estimator(
        2, solver="sgd", eta=eta, reg=0.5, fit_bias=True, random_state=0, max_iter=5
    )
    Z = model.fit_transform(holes)
    assert_array_equal(Z[[0, 20]], np.zeros((2, 3)))
    assert_array_equal(model.components_[:, [3, 11]], np.zeros((2, 2)))
    assert_array_equal(model.column_bias_[[3, 11]], np.zeros(2))


@pytest.mark.parametrize("fit_bias", BIASES)
@pytest.mark.parametrize("mask", [None, [[1, 1, 0], [0, 1, 1], [1, 0, 1]]])
def test_three_by_three_is_enough(three_by_three, fit_bias, mask):
    if mask is not None:
        mask = np.array(mask, bool)
    model = GradientMF(
        1, solver="sgd", fit_bias=fit_bias, reg=0.1, max_iter=500, random_state=0
    )
    optimum = clone(model).set_params(solver="als", tol=1e-9)
    optimum = optimum.fit(three_by_three, mask=mask).loss_curve_[-1]
    model.set_params(tol=1e-7).fit(three_by_three, mask=mask)
    assert model.loss_curve_[-1] <= 1.01 * optimum


@pytest.mark.parametrize("X", [[[3.0]], [[3.0, 1.0, 2.0]], [[3.0], [1.0], [2.0]]])
def test_one_row_and_one_column_are_enough(X):
    model = GradientMF(1, solver="sgd", tol=1e-12, random_state=0)
    assert_allclose(model.inverse_transform(model.fit_transform(X)), X, rtol=1e-3)


@pytest.mark.parametrize("fit_bias", BIASES)
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_data_are_fitted(fit_bias, value):
    model = GradientMF(2, solver="sgd", fit_bias=fit_bias, random_state=0)
    Z = model.fit_transform(np.full((6, 5), value))
    assert_allclose(model.inverse_transform(Z), value, atol=1e-6)


def test_the_rank_may_exceed_both_sides(planted):
    X = planted(m=6, n=4, share_missing=0.2).X
    model = GradientMF(10, solver="sgd", reg=0.01, random_state=0).fit(X)
    assert np.isfinite(model.components_).all()
    assert model.reconstruction_err_ < 0.1


# Steps of a given length


def test_a_step_of_a_given_length_descends(holes, model):
    model.set_params(eta=0.01, init="random", max_iter=100).fit(holes)
    optimum = clone(model).set_params(solver="als", eta="auto").fit(holes)
    assert model.loss_curve_[-1] <= 1.1 * optimum.loss_curve_[-1]


@pytest.mark.parametrize("size", [1, 1000, 1e-3])
@pytest.mark.parametrize("solver", ["gd", "sgd"])
def test_the_eta_that_was_given_is_the_eta_that_is_reported(holes, model, solver, size):
    eta = 1e-4 / size
    model.set_params(solver=solver, eta=eta, fit_bias=False, max_iter=3)
    assert model.fit(size * holes).eta_ == pytest.approx(eta)


def test_the_eta_that_was_found_is_in_units_of_the_data(holes, model):
    eta = model.set_params(fit_bias=False, init="random").fit(holes).eta_
    model.set_params(reg=0.5 * 4**4)
    assert model.fit(4**4 * holes).eta_ == pytest.approx(eta / 4**4)


@pytest.mark.pairwise(
    init=["svd", "random"], fit_bias=BIASES, reg=[0.0, 2.0], share_missing=[0.0, 0.3]
)
def test_the_step_that_a_divergence_names_descends(
    planted, init, fit_bias, reg, share_missing
):
    X = planted(m=24, n=12, share_missing=share_missing).X
    model = GradientMF(
        3,
        solver="sgd",
        eta=10.0,
        init=init,
        fit_bias=fit_bias,
        reg=reg,
        tol=0,
        max_iter=60,
        random_state=0,
    )
    with pytest.raises(DivergenceError) as caught:
        model.fit(X)
    assert f"eta={caught.value.stable_eta:.3g}" in str(caught.value)
    assert caught.value.eta == 10
    curve = model.set_params(eta=caught.value.stable_eta).fit(X).loss_curve_
    optimum = clone(model).set_params(solver="als", eta="auto").fit(X).loss_curve_[-1]
    assert curve[-1] <= 2 * optimum


@pytest.fixture
def heavy_tailed():
    """Return ``heavy_tailed(kind, seed)``: 80 x 50 with 40 % observed."""

    def make(kind, seed):
        rng = np.random.default_rng(seed)
        X = {
            "lognormal": lambda: rng.lognormal(0, 2, (80, 50)),
            "zipf": lambda: rng.zipf(1.5, (80, 50)).astype(float),
            "outliers": lambda: np.where(
                rng.random((80, 50)) < 0.01, 100, rng.standard_normal((80, 50))
            ),
        }[kind]()
        X[rng.random(X.shape) > 0.4] = np.nan
        return X

    return make


@pytest.mark.pairwise(
    kind=["lognormal", "zipf", "outliers"],
    seed=range(4),
    fit_bias=BIASES,
    reg=[0.0, 0.1, 1000.0],
    init=["random", "svd"],
    weighted=[False, True],
)
def test_the_step_that_is_named_descends_on_heavy_tails(
    heavy_tailed, kind, seed, fit_bias, reg, init, weighted
):
    X = heavy_tailed(kind, seed)
    weights = np.random.default_rng(seed).uniform(0.1, 3, X.shape)
    weights = weights if weighted else None
    model = MaskedGradientMF(
        5,
        reg=reg,
        solver="sgd",
        init=init,
        fit_bias=fit_bias,
        max_iter=25,
        random_state=0,
    ).fit(X, entry_weight=weights)
    model.set_params(eta=1e5 * model.eta_)
    with pytest.raises(DivergenceError) as caught:
        model.fit(X, entry_weight=weights)
    model.set_params(eta=caught.value.stable_eta, tol=0)
    curve = np.array(model.fit(X, entry_weight=weights).loss_curve_)
    assert (curve <= 1.01 * curve[0]).all()
    # A large ridge may leave nothing to fall: its start is near the optimum already.
    assert curve[-1] < curve[0] or reg == 1000


@pytest.mark.parametrize("reg", [1.0, 100.0])
def test_a_ridge_that_is_large_for_the_data_does_not_stop_the_descent(reg):
    """Steps that suit the data alone would lead past zero, and never come back."""
    rng = np.random.default_rng(0)
    X = 5 + 1e-3 * rng.standard_normal((30, 20))
    X[rng.random(X.shape) < 0.3] = np.nan
    model = MaskedGradientMF(3, reg=reg, solver="sgd", random_state=0)
    optimum = clone(model).set_params(solver="als").fit(X).loss_curve_[-1]
    assert model.fit(X).loss_curve_[-1] <= 1.01 * optimum


@pytest.mark.parametrize("eta", [1e-4, 1e-3, 1e-2])
def test_a_step_that_hovers_about_the_optimum_does_not_diverge(planted, eta):
    X = planted(m=24, n=12).X  # complete: the SVD is the optimum
    model = GradientMF(3, solver="sgd", eta=eta, tol=0, max_iter=30, random_state=0)
    curve = np.array(model.fit(X).loss_curve_)
    assert (curve <= 1.2 * GradientMF(3).fit(X).loss_curve_[-1]).all()


def test_an_infinite_objective_is_a_divergence_without_warnings(holes, model, recwarn):
    with pytest.raises(DivergenceError):
        model.set_params(eta=1e6).fit(holes)
    assert not recwarn.list


# An epoch


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_bias", BIASES)
@pytest.mark.parametrize("shape", [(9, 7), (80, 70)])
def test_an_epoch_of_short_steps_is_a_step_along_the_gradient(
    shape, fit_bias, weighted
):
    """The ridge counts once for each row, however many entries share it."""
    rng, rank, eta = np.random.RandomState(0), 2, 1e-9
    biases = Biases(row=fit_bias is True, column=fit_bias is not False)
    X, observed = rng.standard_normal(shape), rng.uniform(size=shape) < 0.4
    observed[3], observed[:, 2] = False, False
    seen = [observed.any(axis=axis)[:, None] for axis in (1, 0)]
    S = rng.uniform(0.2, 3, shape) if weighted else np.ones(shape)
    W = rng.standard_normal((shape[0], rank + biases.row))
    H = rng.standard_normal((shape[1], rank + biases.column))
    W, H = W * seen[0], H * seen[1]
    reg, bias_reg = 0.7, 0.3

    error = W[:, :rank] @ H[:, :rank].T - X
    error += (W[:, -1:] if biases.row else 0) + (H[:, -1] if biases.column else 0)
    error *= S * observed
    gradients = [
        error @ H[:, :rank] + reg * W[:, :rank],
        error.T @ W[:, :rank] + reg * H[:, :rank],
    ]
    if biases.row:
        of_row = error.sum(axis=1) + bias_reg * W[:, -1]
        gradients[0] = np.column_stack([gradients[0], of_row])
    if biases.column:
        of_column = error.sum(axis=0) + bias_reg * H[:, -1]
        gradients[1] = np.column_stack([gradients[1], of_column])

    rows = rows_of(X, observed)._replace(weights=S[observed] if weighted else None)
    objective = ObservedObjective(rows, row_bias=biases.row, column_bias=biases.column)
    penalties = penalties_of(rank, biases, Ridge(reg, bias_reg))
    epoch = _Epoch(objective, penalties, W, H, eta, np.random.RandomState(0))
    before = W.copy(), H.copy()
    for factors, moved, start, gradient in zip(
        (W, H), epoch(W, H), before, gradients, strict=True
    ):
        assert_allclose((moved - start) / -eta, gradient, rtol=1e-4, atol=1e-4)
        assert_array_equal(factors, start)


@pytest.mark.parametrize("size", [1, 1000])
def test_a_step_of_the_estimator_is_along_the_gradient_in_units_of_the_data(
    planted, size
):
    data = planted(share_missing=0.3)
    X, eta, reg = size * data.X, 1e-7 / size, 0.5 * size
    rng = np.random.RandomState(1)
    W, H = (np.sqrt(size) * rng.standard_normal((n, 3)) for n in X.shape)
    model = GradientMF(
        3, solver="sgd", eta=eta, reg=reg, init=(W, H), max_iter=1, random_state=0
    ).fit(X)
    gradient = np.nan_to_num(W @ H.T - X).T @ W + reg * H
    assert_allclose(model.components_.T - H, -eta * gradient, rtol=1e-3, atol=1e-12)


# The grid


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_entry_is_dealt_exactly_once(pattern, shape, share):
    rows = pattern(*shape, share)
    order, grid, bounds = _deal(rows, np.random.RandomState(0))
    assert_array_equal(np.sort(order), np.arange(rows.indices.size))
    assert bounds[0] == 0
    assert bounds[-1] == rows.indices.size
    assert len(bounds) == grid**2 + 1
    assert (np.diff(bounds) >= 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_that_run_at_the_same_time_share_no_row_and_no_column(pattern, shape):
    rows = pattern(*shape)
    order, grid, bounds = _deal(rows, np.random.RandomState(0))
    places = rows.row_numbers[order], rows.indices[order]
    for shift in range(grid):
        for numbers in places:
            owner = np.full(max(shape), -1)
            for k in range(grid):
                block = k * grid + (k + shift) % grid
                touched = np.unique(numbers[bounds[block] : bounds[block + 1]])
                assert (owner[touched] == -1).all()
                owner[touched] = k


@pytest.mark.parametrize("shape", SHAPES)
def test_the_grid_depends_on_the_shape_only(pattern, monkeypatch, shape):
    grids = set()
    for threads in ("1", "4"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        for share, seed in ((0.01, 0), (0.5, 1), (1.0, 2)):
            rows = pattern(*shape, share, seed)
            grids.add(_deal(rows, np.random.RandomState(seed))[1])
    assert len(grids) == 1


def test_the_grid_grows_with_the_smaller_side(pattern):
    def grid(m, n):
        return _deal(pattern(m, n, 0.001), np.random.RandomState(0))[1]

    assert grid(3, 3) == grid(2000, 40) == 1
    assert 1 < grid(200, 300) == grid(300, 200) < grid(600, 500)
    assert grid(2000, 2000) == grid(2000, 3000)


def test_rows_and_columns_are_dealt_evenly(pattern):
    rows = pattern(600, 500, 1.0)
    order, grid, bounds = _deal(rows, np.random.RandomState(0))
    for numbers, length in ((rows.row_numbers, 600), (rows.indices, 500)):
        for block in range(grid**2):
            part = numbers[order][bounds[block] : bounds[block + 1]]
            assert np.unique(part).size in (length // grid, length // grid + 1)


def test_entries_of_a_block_are_shuffled(pattern):
    rows = pattern(100, 100, 1.0)
    orders = []
    for seed in (0, 0, 1):
        order, _, bounds = _deal(rows, np.random.RandomState(seed))
        block = order[: bounds[1]]
        assert 0.3 < np.mean(np.diff(block) > 0) < 0.7
        orders.append(order)
    assert_array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


@pytest.fixture
def short_calls(monkeypatch):
    """Cut the work into calls so small that even little data take many of them."""
    monkeypatch.setattr(linalg, "BLOCK", 100)
    monkeypatch.setattr(sgd, "LARGEST_PILE", 60)


@pytest.mark.parametrize("shape", SHAPES)
def test_cut_into_short_calls_every_entry_is_dealt_exactly_once(
    pattern, shape, monkeypatch, short_calls
):
    rows = pattern(*shape, 0.5)
    order, _, bounds = _deal(rows, np.random.RandomState(0))
    monkeypatch.undo()
    whole, _, expected = _deal(rows, np.random.RandomState(0))
    assert_array_equal(bounds, expected)
    for start, stop in pairwise(bounds):
        assert_array_equal(np.sort(order[start:stop]), np.sort(whole[start:stop]))


def test_no_call_that_shuffles_is_long(short_calls):
    """Each is given a pile of entries at the most, and Ctrl-C comes between them."""
    sizes = []

    class Watched(np.random.RandomState):
        def shuffle(self, x):
            sizes.append(x.size)
            super().shuffle(x)

        def randint(self, *args, size):
            sizes.append(size)
            return super().randint(*args, size=size)

    order = np.arange(5000)
    sgd._shuffle(order, Watched(0))
    assert max(sizes) <= 100
    assert_array_equal(np.sort(order), np.arange(5000))


def test_every_order_of_entries_is_as_likely_as_any_other(monkeypatch):
    monkeypatch.setattr(sgd, "LARGEST_PILE", 2)
    counts, rng = {}, np.random.RandomState(0)
    for _ in range(6000):
        order = np.arange(3)
        sgd._shuffle(order, rng)
        counts[tuple(order)] = counts.get(tuple(order), 0) + 1
    assert len(counts) == 6
    # Five standard deviations of a count.
    assert max(abs(count - 1000) for count in counts.values()) < 5 * np.sqrt(833)


def test_a_matrix_without_entries_is_dealt_out(pattern):
    rows = Rows(np.zeros(101, np.int64), np.zeros(0, np.int32), np.zeros(0), None, 90)
    order, grid, bounds = _deal(rows, np.random.RandomState(0))
    assert order.size == 0
    assert_array_equal(bounds, np.zeros(grid**2 + 1))


# Randomness and threads


@pytest.mark.parametrize("eta", ["auto", 0.003])
def test_the_same_random_state_gives_the_same_bits(holes, model, eta):
    model.set_params(eta=eta)
    first, again, other = (
        clone(model).set_params(random_state=seed).fit(holes) for seed in (0, 0, 1)
    )
    assert_array_equal(first.components_, again.components_)
    assert first.loss_curve_ == again.loss_curve_
    assert not np.array_equal(first.components_, other.components_)


def test_a_generator_goes_on_from_fit_to_fit(holes, model):
    model.set_params(random_state=np.random.RandomState(0))
    first, other = model.fit(holes).components_, model.fit(holes).components_
    assert not np.array_equal(first, other)


@pytest.mark.pairwise(
    dtype=[np.float32, np.float64], fit_bias=[False, True], eta=["auto", 0.003]
)
def test_any_number_of_threads_gives_the_same_bits(
    planted, monkeypatch, compiled_kernels, dtype, fit_bias, eta
):
    X = planted(m=600, n=500, share_missing=0.9).X.astype(dtype)
    model = MaskedGradientMF(
        4, solver="sgd", reg=0.5, fit_bias=fit_bias, eta=eta, max_iter=2, random_state=0
    )
    limits, share_out = [], dispatch.share_out

    def spy(work, ranges, limit=None):
        limits.append((len(ranges), limit))
        return share_out(work, ranges, limit)

    monkeypatch.setattr(dispatch, "share_out", spy)
    monkeypatch.setattr(backend, "kernels", compiled_kernels)
    monkeypatch.setattr(dispatch, "OPERATIONS", 1e4)  # small ranges, so many of them
    found = []
    for threads in "1234":
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(clone(model).fit(X))
    assert (15, None) in limits  # the blocks of a shift, on as many threads as set
    for other in found[1:]:
        assert_array_equal(other.components_, found[0].components_)
        assert_array_equal(other.column_bias_, found[0].column_bias_)
        assert other.loss_curve_ == found[0].loss_curve_


# Units


@pytest.mark.parametrize("init", ["svd", "random"])
@pytest.mark.parametrize("size", [1000.0, 1e-3, 4.0**9])
def test_units_do_not_matter(holes, model, size, init):
    model.set_params(fit_bias=False, init=init)
    scaled = clone(model).set_params(reg=0.5 * size)
    found = scaled.inverse_transform(scaled.fit_transform(size * holes))
    expected = model.inverse_transform(model.fit_transform(holes))
    assert_allclose(found / size, expected, rtol=1e-6, atol=1e-8)
    assert_allclose(
        scaled.loss_curve_, size**2 * np.array(model.loss_curve_), rtol=1e-6
    )


@pytest.mark.parametrize("fit_bias", BIASES)
def test_units_do_not_matter_to_biases(holes, model, fit_bias):
    model.set_params(fit_bias=fit_bias, reg=0.0)
    expected, scaled = clone(model).fit(holes), clone(model).fit(1000 * holes)
    assert_allclose(scaled.loss_curve_, 1e6 * np.array(expected.loss_curve_), rtol=1e-6)
    assert_allclose(scaled.column_bias_, 1000 * expected.column_bias_, rtol=1e-6)


@pytest.mark.parametrize(
    "dtype, size", [(np.float64, 1e150), (np.float64, 1e-150), (np.float32, 1e30)]
)
def test_extreme_values_fit_like_any_other(holes, model, dtype, size):
    model.set_params(reg=0.0)
    expected = clone(model).fit(holes).reconstruction_err_
    error = model.fit(holes.astype(dtype) * dtype(size)).reconstruction_err_
    assert error / size == pytest.approx(expected, rel=0.01)
