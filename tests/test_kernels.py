"""The kernels against loops and `numpy.linalg.lstsq`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

from sklearn_mfgd import _kernels
from sklearn_mfgd._kernels import (
    blocks,
    entry_products,
    masked_least_squares,
    masked_systems,
    solve_each,
    solve_shared,
)

RANKS = [1, 2, 5, 17]


def gram_of(rng, rank, n_terms, scale=1.0):
    """Return a system that is singular where it has fewer terms than the rank."""
    design = scale * rng.standard_normal((n_terms, rank))
    return design.T @ design


def minimum_norm(system, target):
    return np.linalg.lstsq(system, target, rcond=1e-11)[0]


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("share", [0.4, 1, 3], ids=["singular", "square", "regular"])
@pytest.mark.parametrize("scale", [1e-60, 1.0, 1e60])
def test_solve_shared_is_least_squares_of_minimum_norm(rank, share, scale):
    rng = np.random.RandomState(rank)
    n_terms = max(1, int(share * rank))
    system = gram_of(rng, rank, n_terms, scale)
    targets = rng.standard_normal((4, rank)) @ system  # consistent
    found = solve_shared(system, targets, n_terms)
    expected = np.array([minimum_norm(system, target) for target in targets])
    assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("scale", [1e-60, 1.0, 1e60])
def test_solve_each_mixes_regular_and_singular_systems(rank, scale):
    rng = np.random.RandomState(rank)
    n_terms = [0, max(1, rank // 2), 2 * rank, 5 * rank, max(1, rank - 1)]
    systems = np.array([gram_of(rng, rank, n, scale) for n in n_terms])
    targets = np.einsum("ijk,ik->ij", systems, rng.standard_normal((5, rank)))
    found = solve_each(systems, targets, 5 * rank)
    expected = [minimum_norm(*pair) for pair in zip(systems, targets, strict=True)]
    assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_systems_of_zero_are_solved_by_zero():
    targets = np.ones((3, 2))
    assert_array_equal(solve_shared(np.zeros((2, 2)), targets, 5), np.zeros((3, 2)))
    each = solve_each(np.zeros((3, 2, 2)), targets, 5)
    assert_array_equal(each, np.zeros((3, 2)))


@pytest.mark.parametrize("condition", [1e3, 1e6, 1e9, 1e12])
def test_badly_conditioned_systems_are_solved_and_not_cut(condition):
    rng = np.random.RandomState(0)
    basis = np.linalg.qr(rng.standard_normal((4, 4))).Q
    system = basis * np.geomspace(1, 1 / condition, 4) @ basis.T
    solution = rng.standard_normal((1, 4))
    tolerance = 1e-14 * condition
    target = solution @ system
    assert_allclose(solve_shared(system, target, 4), solution, atol=tolerance)
    assert_allclose(solve_each(system[None], target, 4), solution, atol=tolerance)


def test_scales_of_rows_do_not_mix():
    systems = np.array([1e-100, 1.0, 1e100])[:, None, None] * np.diag([2.0, 1.0])
    targets = np.array([1e-100, 1.0, 1e100])[:, None] * [[2.0, 3.0]]
    assert_allclose(solve_each(systems, targets, 2), [[1, 3]] * 3, rtol=1e-12)


class Table:
    """Values, mask and regressors of any shape; some rows are empty."""

    def __init__(self, m, n, rank, share, seed=0, dtype=float):
        rng = np.random.RandomState(seed)
        self.mask = rng.uniform(size=(m, n)) < share
        self.mask[:: m // 2 + 1] = False
        self.values = np.where(self.mask, rng.standard_normal((m, n)), 0).astype(dtype)
        self.design = rng.standard_normal((n, rank)).astype(dtype)
        self.offset = rng.standard_normal(n).astype(dtype)

    def solve(self, ridge, offset=True):
        return masked_least_squares(
            self.values,
            self.mask,
            self.design,
            self.offset if offset else None,
            ridge,
        )

    def expected(self, ridge, ridge_row, offset=True):
        targets = self.values - self.offset * offset
        return [
            ridge_row(self.design[seen], target[seen], ridge)
            for seen, target in zip(self.mask, targets, strict=True)
        ]


@given(
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    rank=st.integers(1, 6),
    share=st.floats(0, 1),
    ridge=st.sampled_from([0.0, 0.1, 10.0]),
    offset=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_masked_least_squares_is_that_of_every_row(
    ridge_row, m, n, rank, share, ridge, offset, seed
):
    table = Table(m, n, rank, share, seed)
    penalties = np.full(rank, ridge)
    found = table.solve(penalties, offset)
    expected = table.expected(penalties, ridge_row, offset)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_each_coefficient_has_its_own_penalty(ridge_row):
    table, ridge = Table(8, 6, 3, 0.7), np.array([0.0, 1.0, 100.0])
    assert_allclose(table.solve(ridge), table.expected(ridge, ridge_row), atol=1e-9)


def test_rows_with_nothing_observed_are_zero():
    table = Table(9, 6, 3, 0.7)
    empty = ~table.mask.any(axis=1)
    assert empty.sum() >= 2
    assert_array_equal(table.solve(np.zeros(3))[empty], 0)


def test_single_precision_is_solved_in_double_and_returned_in_single(ridge_row):
    table, ridge = Table(20, 15, 3, 0.7, dtype=np.float32), np.full(3, 0.1)
    found = table.solve(ridge)
    assert found.dtype == np.float32
    assert_allclose(found, table.expected(ridge, ridge_row), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 50, 333])
def test_results_do_not_depend_on_the_size_of_blocks(monkeypatch, size):
    table, ridge = Table(23, 17, 3, 0.6), np.full(3, 0.1)
    solution, systems = table.solve(ridge), masked_systems(table.mask, table.design)
    rows, columns = np.nonzero(table.mask)
    products = entry_products(solution, table.design, rows, columns)
    monkeypatch.setattr(_kernels, "BLOCK", size)
    assert len(blocks(23, 17)) > 1
    assert_allclose(table.solve(ridge), solution, rtol=1e-10, atol=1e-13)
    blockwise = masked_systems(table.mask, table.design)
    assert_allclose(blockwise, systems, rtol=1e-12, atol=1e-14)
    blockwise = entry_products(solution, table.design, rows, columns)
    assert_allclose(blockwise, products, rtol=1e-12, atol=1e-14)


def test_masked_systems_sum_over_the_observed_columns():
    table = Table(9, 6, 3, 0.7)
    expected = [table.design[seen].T @ table.design[seen] for seen in table.mask]
    systems = masked_systems(table.mask, table.design)
    assert_allclose(systems, expected, rtol=1e-12, atol=1e-14)
    assert_array_equal(systems, systems.transpose(0, 2, 1))


@pytest.mark.parametrize("length, width", [(0, 3), (1, 1), (10, 0), (10, 10**9)])
def test_blocks_cover_the_range_once(length, width):
    covered = [i for part in blocks(length, width) for i in range(length)[part]]
    assert covered == list(range(length))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entry_products_are_entries_of_the_product(dtype):
    rng = np.random.RandomState(0)
    W, H = (rng.standard_normal((size, 3)).astype(dtype) for size in (8, 5))
    rows, columns = rng.randint(8, size=40), rng.randint(5, size=40)
    found = entry_products(W, H, rows, columns)
    assert found.dtype == dtype
    assert_allclose(found, (W @ H.T)[rows, columns], rtol=1e-4)


def test_no_entries_have_no_products():
    none = np.zeros(0, int)
    assert entry_products(np.ones((3, 2)), np.ones((4, 2)), none, none).shape == (0,)


def test_any_number_of_blas_threads_gives_the_same_bits():
    rng = np.random.default_rng(0)
    values, mask = rng.standard_normal((300, 200)), rng.random((300, 200)) < 0.5
    design = rng.standard_normal((200, 40))
    solutions = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"):
            solutions.append(
                masked_least_squares(
                    np.where(mask, values, 0), mask, design, None, np.full(40, 0.1)
                )
            )
    assert_array_equal(*solutions)
