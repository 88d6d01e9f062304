"""Where the descent starts."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from sklearn_mfgd._kernels import linalg
from sklearn_mfgd._kernels.rows import Biases
from sklearn_mfgd._optim.init import (
    factors_from_means,
    initial_biases,
    random_factors,
    svd_factors,
)
from sklearn_mfgd._optim.objective import CompleteObjective
from sklearn_mfgd._optim.penalty import Ridge, penalties_of

NO_BIAS = np.zeros((60, 0)), np.zeros((40, 0))


@pytest.fixture(params=["exact", "by blocks"])
def way(request, monkeypatch):
    """Force either way of decomposing."""
    if request.param == "by blocks":
        monkeypatch.setattr("sklearn_mfgd._kernels.svd.GRAM_WIDTHS", 0)
        monkeypatch.setattr("sklearn_mfgd._kernels.svd.OVERSAMPLES", 1)
    return request.param


@pytest.fixture
def low_rank(planted):
    return planted(m=60, n=40, rank=4, noise=0.01)


def svd(X, rank):
    left, singular, right = np.linalg.svd(X, full_matrices=False)
    return left[:, :rank] * singular[:rank] @ right[:rank], singular[:rank]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array, sparse.csc_array])
@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_complete_data_start_at_their_truncated_svd(low_rank, way, container, shape):
    X = low_rank.X if shape == "tall" else low_rank.X.T
    b, c = NO_BIAS if shape == "tall" else NO_BIAS[::-1]
    W, H = svd_factors(CompleteObjective(container(X)), b, c, 3, 1.0, 0.0)
    assert_allclose(W @ H.T, svd(X, 3)[0], atol=1e-3)


def test_both_factors_have_the_size_of_the_root(low_rank, way):
    W, H = svd_factors(CompleteObjective(low_rank.X), *NO_BIAS, 3, 1.0, 0.0)
    singular = svd(low_rank.X, 3)[1]
    assert_allclose(W.T @ W, np.diag(singular), atol=1e-3 * singular[0])
    assert_allclose(H.T @ H, np.diag(singular), atol=1e-3 * singular[0])


def test_singular_values_are_shrunk_by_the_ridge(low_rank, way):
    W, _ = svd_factors(CompleteObjective(low_rank.X), *NO_BIAS, 3, 1.0, 5.0)
    singular = svd(low_rank.X, 3)[1]
    assert_allclose((W**2).sum(axis=0), singular - 5, rtol=1e-3)


def test_no_factor_starts_at_zero_for_the_ridge_alone(low_rank, way):
    W, H = svd_factors(CompleteObjective(low_rank.X), *NO_BIAS, 3, 1.0, 1e9)
    assert (np.linalg.norm(W, axis=0) > 0).all()
    assert (np.linalg.norm(H, axis=0) > 0).all()


def test_factors_beyond_the_smaller_side_are_zero(way):
    X = np.random.RandomState(0).standard_normal((60, 2))
    b, c = np.zeros((60, 0)), np.zeros((2, 0))
    W, H = svd_factors(CompleteObjective(X), b, c, 5, 1.0, 0.0)
    assert W.shape == (60, 5) and H.shape == (2, 5)
    assert_array_equal(W[:, 2:], 0)
    assert_allclose(W @ H.T, X, atol=1e-8)


@pytest.fixture
def start_with_holes(planted, observed_objective, way):
    """Return ``start_with_holes(biased)``: objective, factors, and biases at random."""

    def make(biased):
        data = planted(m=60, n=40, rank=4, noise=0.5, share_missing=0.5)
        flags = {"row_bias": biased, "column_bias": biased}
        objective = observed_objective(data.complete, data.mask, **flags)
        rng = np.random.RandomState(1)
        b, c = (rng.standard_normal((size, int(biased))) for size in (60, 40))
        factors = svd_factors(objective, b, c, 3, data.mask.mean(), 0.0)
        return data, objective, factors, (b, c)

    return make


@pytest.mark.parametrize("biased", [False, True], ids=["no biases", "biases"])
def test_with_holes_the_start_is_a_multiple_of_the_svd_of_what_is_seen(
    start_with_holes, biased
):
    data, _, (W, H), (b, c) = start_with_holes(biased)
    deflated = data.complete - b.sum(axis=1)[:, None] - c.sum(axis=1)
    direction = svd(np.where(data.mask, deflated, 0), 3)[0]
    multiple = np.vdot(W @ H.T, direction) / np.vdot(direction, direction)
    assert multiple > 0
    assert_allclose(W @ H.T, multiple * direction, atol=0.05)


@pytest.mark.parametrize("biased", [False, True], ids=["no biases", "biases"])
def test_with_holes_no_multiple_of_the_start_fits_better(start_with_holes, biased):
    _, objective, (W, H), (b, c) = start_with_holes(biased)

    def value(multiple):
        return objective.value(np.hstack([multiple * W, b]), np.hstack([H, c]))

    assert value(1) < min(value(0.99), value(1.01), value(0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factors_have_the_type_of_the_data(low_rank, way, dtype):
    b, c = (part.astype(dtype) for part in NO_BIAS)
    objective = CompleteObjective(low_rank.X.astype(dtype))
    for factors in (
        svd_factors(objective, b, c, 3, 1.0, 0.0),
        random_factors(objective, b, c, 3, 2400, np.random.RandomState(0)),
    ):
        assert [part.dtype for part in factors] == [dtype, dtype]


@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_the_largest_entry_of_each_column_factor_is_positive(low_rank, way, shape):
    X = low_rank.X if shape == "tall" else low_rank.X.T
    b, c = NO_BIAS if shape == "tall" else NO_BIAS[::-1]
    for data in (X, -X):
        _, H = svd_factors(CompleteObjective(data), b, c, 3, 1.0, 0.0)
        assert (H[np.abs(H).argmax(axis=0), np.arange(3)] > 0).all()


def test_random_factors_have_a_product_of_a_quarter_of_the_size_of_the_data(planted):
    X = 7 * planted(m=300, n=200, rank=5).X
    b, c = np.zeros((300, 0)), np.zeros((200, 0))
    objective = CompleteObjective(X)
    W, H = random_factors(objective, b, c, 5, X.size, np.random.RandomState(0))
    assert np.std(W @ H.T) == pytest.approx(np.std(X) / 4, rel=0.2)
    assert np.std(W) == pytest.approx(np.std(H), rel=0.1)


@pytest.mark.parametrize("share_missing", [0.0, 0.3])
def test_biases_start_at_their_ridge_solution(
    planted, observed_objective, share_missing
):
    data = planted(m=60, n=40, share_missing=share_missing)
    rng = np.random.RandomState(1)
    b, c = rng.standard_normal(60), rng.standard_normal(40)
    X, flags = b[:, None] + c, {"row_bias": True, "column_bias": True}
    objective = observed_objective(X, data.mask, **flags)
    penalties = penalties_of(1, Biases(True, True), Ridge(0.0, 0.0))
    found_b, found_c = initial_biases(objective, penalties, n_rounds=100)
    assert_allclose(found_b + found_c.T, b[:, None] + c, atol=1e-8)


def test_the_ridge_shrinks_biases_to_zero(planted):
    data = planted(m=60, n=40)
    objective = CompleteObjective(data.X + 3, row_bias=True, column_bias=True)
    penalties = penalties_of(1, Biases(True, True), Ridge(0.0, 1e9))
    for biases in initial_biases(objective, penalties):
        assert np.abs(biases).max() < 1e-3


def test_biases_that_a_model_lacks_are_arrays_without_columns(planted):
    objective = CompleteObjective(planted(m=60, n=40).X, column_bias=True)
    penalties = penalties_of(1, Biases(False, True), Ridge(0.0, 0.0))
    b, c = initial_biases(objective, penalties)
    assert b.shape == (60, 0) and c.shape == (40, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_factors_made_by_parts_are_those_made_at_once(
    planted, monkeypatch, dtype
):
    X = planted(m=60, n=40).X.astype(dtype)
    arguments = CompleteObjective(X), *(np.zeros((k, 0), dtype) for k in (60, 40)), 3, 5
    whole = random_factors(*arguments, np.random.RandomState(0))
    monkeypatch.setattr(linalg, "BLOCK", 20)
    parts = random_factors(*arguments, np.random.RandomState(0))
    for part, expected in zip(parts, whole, strict=True):
        assert_array_equal(part, expected)


# Models without biases


@pytest.fixture
def far_from_zero(planted, observed_objective):
    """Return ``far_from_zero(offset)``: data of rank 3, and the objective of more."""

    def make(offset):
        data = planted(m=60, n=40, rank=3, noise=0.1, share_missing=0.3)
        return data, observed_objective(data.complete + offset, data.mask)

    return make


def starts(objective, rank, share):
    ways = (
        partial(svd_factors, rank=rank, share=share, shrink=0.0),
        partial(random_factors, rank=rank, weight=1680, rng=np.random.RandomState(0)),
    )
    return [factors_from_means(objective, rank, way) for way in ways]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [100.0, -1e4])
def test_far_from_zero_the_start_is_that_of_what_means_leave(
    far_from_zero, offset, dtype
):
    data, _ = far_from_zero(0)
    objective = far_from_zero(dtype(offset))[1]
    for W, H in starts(objective, 4, data.mask.mean()):
        assert W.shape == (60, 4) and H.shape == (40, 4)
        residual = (W @ H.T - offset - data.complete)[data.mask]
        assert np.std(residual) < 1.5 * np.std(data.complete)


def test_far_from_zero_the_svd_start_has_the_factors_of_the_data(far_from_zero):
    data, objective = far_from_zero(1e4)
    (W, H), _ = starts(objective, 5, data.mask.mean())
    residual = (W @ H.T - 1e4 - data.complete)[data.mask]
    assert np.std(residual) < 0.7 * np.std(data.complete)


def test_near_zero_the_start_is_that_without_means(far_from_zero):
    data, objective = far_from_zero(0.0)
    share = data.mask.mean()
    (W, H), _ = starts(objective, 3, share)
    expected = svd_factors(objective, *NO_BIAS, 3, share, 0.0)
    assert_array_equal(W, expected[0])
    assert_array_equal(H, expected[1])


@pytest.mark.parametrize("rank", [1, 45])
def test_means_leave_the_rank_as_it_is(far_from_zero, rank):
    data, objective = far_from_zero(50.0)
    for W, H in starts(objective, rank, data.mask.mean()):
        assert W.shape == (60, rank) and H.shape == (40, rank)
        assert np.isfinite(W).all() and np.isfinite(H).all()
