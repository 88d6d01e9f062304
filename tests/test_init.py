"""Where a descent starts."""

from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from sklearn_mfgd._kernels import linalg, svd
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
BOTH = Biases(True, True)


@pytest.fixture(params=["exact", "by blocks"])
def decomposition(request, monkeypatch):
    """Force either way of decomposing."""
    if request.param == "by blocks":
        monkeypatch.setattr("sklearn_mfgd._kernels.svd.GRAM_WIDTHS", 0)
        monkeypatch.setattr("sklearn_mfgd._kernels.svd.OVERSAMPLES", 1)


@pytest.fixture
def X(planted):
    """A complete matrix of rank 4 with little noise."""
    return planted(m=60, n=40, rank=4, noise=0.01).X


def truncated(X, rank):
    left, singular, right = np.linalg.svd(X, full_matrices=False)
    return left[:, :rank] * singular[:rank] @ right[:rank], singular[:rank]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array, sparse.csc_array])
@pytest.mark.parametrize("tall", [True, False])
def test_complete_data_start_at_their_truncated_svd_with_fixed_signs(
    X, decomposition, container, tall
):
    X, no_bias = (X, NO_BIAS) if tall else (X.T, NO_BIAS[::-1])
    product, singular = truncated(X, 3)
    for sign in (1, -1):
        objective = CompleteObjective(container(sign * X))
        W, H = svd_factors(objective, *no_bias, 3, 1.0, 0.0)
        assert_allclose(W @ H.T, sign * product, atol=1e-3)
        for F in (W, H):
            assert_allclose(F.T @ F, np.diag(singular), atol=1e-3 * singular[0])
        assert (H[np.abs(H).argmax(axis=0), np.arange(3)] > 0).all()


def test_the_ridge_shrinks_singular_values_to_a_tenth_at_the_least(X, decomposition):
    singular = truncated(X, 3)[1]
    for shrink, expected in ((5.0, singular - 5), (1e9, 0.1 * singular)):
        W, H = svd_factors(CompleteObjective(X), *NO_BIAS, 3, 1.0, shrink)
        for F in (W, H):
            assert_allclose((F**2).sum(axis=0), expected, rtol=1e-3)


def test_factors_beyond_the_smaller_side_are_zero(decomposition):
    X = np.random.RandomState(0).standard_normal((60, 2))
    W, H = svd_factors(CompleteObjective(X), NO_BIAS[0], np.zeros((2, 0)), 5, 1.0, 0.0)
    assert W.shape == (60, 5) and H.shape == (2, 5) and not W[:, 2:].any()
    assert_allclose(W @ H.T, X, atol=1e-8)


@pytest.mark.parametrize("biased", [False, True], ids=["no biases", "biases"])
def test_with_missing_entries_the_start_is_the_best_multiple_of_the_observed_svd(
    planted, observed_objective, decomposition, biased
):
    data = planted(m=60, n=40, rank=4, noise=0.5, share_missing=0.5)
    objective = observed_objective(data.complete, data.mask, biases=(biased, biased))
    rng = np.random.RandomState(1)
    b, c = (rng.standard_normal((size, int(biased))) for size in (60, 40))
    share, shrink = data.mask.mean(), 20.0
    W, H = svd_factors(objective, b, c, 3, share, shrink)

    deflated = data.complete - b.sum(axis=1)[:, None] - c.sum(axis=1)
    estimate = np.where(data.mask, deflated, 0) / share
    left, singular, right = np.linalg.svd(estimate, full_matrices=False)
    assert singular[2] > 1.5 * shrink
    direction = left[:, :3] * (singular[:3] - shrink) @ right[:3]
    multiple = np.vdot(W @ H.T, direction) / np.vdot(direction, direction)
    assert multiple > 0
    assert_allclose(W @ H.T, multiple * direction, atol=0.05)

    def value(multiple):
        return objective.value(np.hstack([multiple * W, b]), np.hstack([H, c]))

    assert value(1) < min(value(0.99), value(1.01), value(0))


def test_random_factors_have_a_product_of_a_quarter_of_the_size_of_the_data(planted):
    X, rng = 7 * planted(m=300, n=200, rank=5).X, np.random.RandomState(0)
    no_bias = (np.zeros((n, 0)) for n in X.shape)
    W, H = random_factors(CompleteObjective(X), *no_bias, 5, X.size, rng)
    assert np.std(W @ H.T) == pytest.approx(np.std(X) / 4, rel=0.2)
    assert np.std(W) == pytest.approx(np.std(H), rel=0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factors_have_the_type_of_the_data_and_blocks_do_not_matter(
    X, monkeypatch, dtype
):
    objective = CompleteObjective(X.astype(dtype))
    no_bias = [side.astype(dtype) for side in NO_BIAS]
    svd = svd_factors(objective, *no_bias, 3, 1.0, 0.0)
    at_once = random_factors(objective, *no_bias, 3, 5, np.random.RandomState(0))
    assert [factors.dtype for factors in (*svd, *at_once)] == 4 * [dtype]
    monkeypatch.setattr(linalg, "BLOCK", 20)
    in_blocks = random_factors(objective, *no_bias, 3, 5, np.random.RandomState(0))
    assert all(map(np.array_equal, in_blocks, at_once))


@pytest.mark.parametrize("share_missing", [0.0, 0.3])
def test_biases_start_at_their_ridge_solution(
    planted, observed_objective, share_missing
):
    data, rng = planted(60, 40, share_missing=share_missing), np.random.RandomState(1)
    X = rng.standard_normal((60, 1)) + rng.standard_normal(40)
    objective = observed_objective(X, data.mask, biases=BOTH)
    penalties = penalties_of(1, BOTH, Ridge(0.0, 0.0))
    b, c = initial_biases(objective, penalties, n_rounds=100)
    assert_allclose(b + c.T, X, atol=1e-8)
    for biases in initial_biases(objective, penalties_of(1, BOTH, Ridge(0.0, 1e9))):
        assert np.abs(biases).max() < 1e-3


def test_biases_that_a_model_lacks_are_arrays_without_columns(X):
    columns = Biases(row=False, column=True)
    penalties = penalties_of(1, columns, Ridge(0.0, 0.0))
    b, c = initial_biases(CompleteObjective(X, biases=columns), penalties)
    assert b.shape == (60, 0) and c.shape == (40, 1)


@pytest.fixture
def start_away_from_zero(planted, observed_objective):
    """Return ``start(offset, rank)``: both starts, and standardized residuals."""

    def start(offset, rank):
        data = planted(m=60, n=40, rank=3, noise=0.1, share_missing=0.3)
        objective = observed_objective(data.complete + offset, data.mask)
        share, rng = data.mask.mean(), np.random.RandomState(0)
        starts = (
            partial(svd_factors, rank=rank, share=share, shrink=0.0),
            partial(random_factors, rank=rank, weight=1680, rng=rng),
        )
        pairs = [factors_from_means(objective, rank, each) for each in starts]
        errors = [(W @ H.T - offset - data.complete)[data.mask] for W, H in pairs]
        residuals = [np.std(each) / np.std(data.complete) for each in errors]
        return objective, share, pairs, residuals

    return start


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [100.0, -1e4])
def test_away_from_zero_both_starts_explain_the_means(
    start_away_from_zero, offset, dtype
):
    assert max(start_away_from_zero(dtype(offset), rank=4)[-1]) < 1.5


@pytest.mark.accuracy
def test_away_from_zero_the_svd_explains_the_factors_too(start_away_from_zero):
    assert start_away_from_zero(1e4, rank=5)[-1][0] < 0.7


def test_near_zero_the_start_is_that_without_means(start_away_from_zero):
    objective, share, (factors, _), _ = start_away_from_zero(0.0, rank=3)
    expected = svd_factors(objective, *NO_BIAS, 3, share, 0.0)
    assert all(map(np.array_equal, factors, expected))


@pytest.mark.parametrize("rank", [1, 45])
def test_means_do_not_change_the_rank(start_away_from_zero, rank):
    for W, H in start_away_from_zero(50.0, rank)[2]:
        assert W.shape == (60, rank) and H.shape == (40, rank)
        assert np.isfinite(W).all() and np.isfinite(H).all()


def sparse_matrix(m=90, n=120):
    """Sparse numbers that no small block of a Krylov space explains, some alike."""
    X = sparse.random(m, n, 0.1, random_state=0).toarray()
    X[:, -20:] = 0
    X[np.arange(20) // 4, np.arange(n - 20, n)] = 1  # columns equal by four
    return X


@pytest.fixture
def small_basis(monkeypatch):
    """Force a Lanczos method that ends long before its result is exact."""
    for name, value in {"GRAM_WIDTHS": 0, "OVERSAMPLES": 1, "TOLERANCE": 0.3}.items():
        monkeypatch.setattr(svd, name, value)


@pytest.mark.parametrize("tall", [True, False])
def test_singular_vectors_follow_the_order_and_the_sign_of_the_matrix(
    small_basis, tall
):
    X = sparse_matrix().T if tall else sparse_matrix()
    left, singular, right = svd.truncated_svd(X, 3, X.dtype)
    exact = np.linalg.svd(X, compute_uv=False)[:3]
    assert np.abs(singular / exact - 1).max() > 1e-9  # it has not converged
    for seed in range(3):
        rng = np.random.RandomState(seed)
        rows, columns = map(rng.permutation, X.shape)
        sign = (-1) ** seed
        found = svd.truncated_svd(sign * X[rows][:, columns], 3, X.dtype)
        assert_allclose(found[1], singular, rtol=1e-10)
        assert_allclose(found[2], right[columns], atol=1e-10)
        assert_allclose(found[0], sign * left[rows], atol=1e-10)


@pytest.mark.parametrize("ambiguous", ["sums", "rows"])
def test_where_rows_cannot_be_told_apart_singular_vectors_are_exact(
    small_basis, monkeypatch, ambiguous
):
    monkeypatch.setattr(svd, "MOST_BLOCKS", 30)
    X = sparse_matrix()
    if ambiguous == "sums":
        X -= X.mean(axis=0)
    else:
        X[:, -2:] = 0  # two rows with one entry each, in columns of the same sum
        X[30:32] = 0
        X[[30, 31], [-2, -1]] = 1
    singular = svd.truncated_svd(X, 3, X.dtype)[1]
    exact = np.linalg.svd(X, compute_uv=False)[:3]
    assert_allclose(singular, exact, rtol=1e-10)
