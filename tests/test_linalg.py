"""Small systems against `numpy.linalg.lstsq`, exact sums, and BLAS on one thread."""

import math
from fractions import Fraction
from threading import Event, Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from threadpoolctl import threadpool_info, threadpool_limits

from sklearn_mfgd._kernels import linalg
from sklearn_mfgd._kernels.blas import one_blas_thread
from sklearn_mfgd._kernels.linalg import (
    column_norms,
    exact_sum,
    exact_total,
    gram_of_rows,
    inner,
    product,
    qr,
    row_slices,
    solve_each,
    solve_shared,
)


def gram_of(rng, rank, n_terms, scale=1.0):
    """Return a system that is singular where it has fewer terms than the rank."""
    design = scale * rng.standard_normal((n_terms, rank))
    return design.T @ design


def minimum_norm(systems, targets):
    pairs = zip(systems, targets, strict=True)
    return [np.linalg.lstsq(*pair, rcond=1e-11)[0] for pair in pairs]


@pytest.mark.parametrize("rank", [1, 2, 5, 17])
@pytest.mark.parametrize("scale", [1e-60, 1.0, 1e60])
def test_solutions_have_minimum_norm_where_systems_are_singular(rank, scale):
    rng = np.random.RandomState(rank)
    n_terms = [0, max(1, rank // 2), rank, 2 * rank, 5 * rank, max(1, rank - 1)]
    systems = np.array([gram_of(rng, rank, n, scale) for n in n_terms])
    # Consistent: other targets have no solution where a system is singular.
    targets = np.einsum("ijk,ik->ij", systems, rng.standard_normal((6, rank)))
    expected = minimum_norm(systems, targets)
    found = solve_each(systems, targets, 5 * rank)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    for system, target, n in zip(systems, targets, n_terms, strict=True):
        both = np.array([target, 2 * target])
        found = solve_shared(system, both, n)
        assert_allclose(found, minimum_norm([system] * 2, both), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rank", [0, 2])
def test_systems_of_zero_are_solved_by_zero(rank):
    """Those without unknowns have solutions without any."""
    targets, systems = np.ones((3, rank)), np.zeros((3, rank, rank))
    for solution in (
        solve_shared(systems[0], targets, 5),
        solve_each(systems, targets, 5),
    ):
        assert_array_equal(solution, 0 * targets)
        assert solution.shape == targets.shape


def test_systems_that_are_not_finite_have_no_solution():
    """And do not harm the others."""
    systems, targets = np.array([np.eye(2)] * 3), np.ones((3, 2))
    systems[1, 0, 1] = np.inf
    found = solve_each(systems, targets, 5)
    assert_array_equal(found, [[1, 1], [np.nan, np.nan], [1, 1]])
    assert np.isnan(solve_shared(systems[1], targets, 5)).all()


@pytest.mark.parametrize("condition", [1e3, 1e6, 1e9, 1e12])
def test_badly_conditioned_systems_are_solved_and_not_cut(condition):
    rng = np.random.RandomState(0)
    basis = np.linalg.qr(rng.standard_normal((4, 4))).Q
    system = basis * np.geomspace(1, 1 / condition, 4) @ basis.T
    solution = rng.standard_normal((1, 4))
    target = solution @ system
    for found in (solve_shared(system, target, 4), solve_each(system[None], target, 4)):
        assert_allclose(found, solution, atol=1e-14 * condition)


def test_scales_of_rows_do_not_mix():
    scales = np.array([1e-100, 1.0, 1e100])[:, None]
    systems, targets = scales[..., None] * np.diag([2.0, 1.0]), scales * [2.0, 3.0]
    assert_allclose(solve_each(systems, targets, 2), [[1, 3]] * 3, rtol=1e-12)


@pytest.mark.parametrize("least_eigenvalue", [0.0, 0.5])
def test_a_known_bound_of_the_eigenvalues_changes_nothing(least_eigenvalue):
    rng = np.random.RandomState(0)
    systems = np.array([gram_of(rng, 3, n_terms) for n_terms in (1, 4, 9)])
    systems += 0.5 * np.eye(3)
    targets = rng.standard_normal((3, 3))
    found = solve_each(systems, targets, 9, least_eigenvalue)
    assert_allclose(found, minimum_norm(systems, targets), rtol=1e-10)


@pytest.mark.parametrize("length, width", [(0, 3), (1, 1), (10, 0), (10, 10**9)])
def test_blocks_cover_the_range_once(length, width):
    covered = [i for part in row_slices(length, width) for i in range(length)[part]]
    assert covered == list(range(length))


# Exact sums

# Numbers like those of a fit: of sizes that are some powers of ten apart.
ordinary = (
    st.just(0.0) | st.floats(2.0**-16, 2.0**16) | st.floats(-(2.0**16), -(2.0**-16))
)
some_numbers = st.lists(ordinary, max_size=60)
few_examples = settings(max_examples=200, deadline=None, derandomize=True)


def sum_of_parts(values, cuts):
    """Sum each part between cuts by itself, and then the sums."""
    parts = np.split(np.asarray(values, float), np.sort(cuts))
    return exact_sum(*np.transpose([exact_sum(part) for part in parts]))


@given(
    values=some_numbers,
    cuts=st.lists(st.integers(0, 60), max_size=6),
    random=st.randoms(use_true_random=False),
)
@few_examples
def test_an_exact_sum_depends_neither_on_order_nor_on_parts(values, cuts, random):
    """Rounded it is the sum of all digits, rounded once."""
    expected = math.fsum(values)
    assert sum(exact_sum(np.array(values))) == expected
    random.shuffle(values)
    assert sum(sum_of_parts(values, cuts)) == expected


@given(
    values=st.lists(st.floats(-1e200, 1e200), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
@few_examples
def test_an_exact_sum_has_thirty_digits_of_the_sum_of_sizes(values, cuts):
    """Whatever the sizes of numbers, and however these cancel."""
    expected = sum(map(Fraction, values))
    error = sum(map(Fraction, sum_of_parts(values, cuts))) - expected
    assert abs(error) <= sum(abs(Fraction(value)) for value in values) / 10**30 + tiny


tiny = Fraction(np.finfo(float).smallest_subnormal)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 1000, 1001])
def test_what_a_plain_sum_loses_is_in_an_exact_one(n):
    values = np.r_[1e16, np.ones(n), -1e16]
    high, low = exact_sum(values)
    assert high + low == n
    assert exact_sum(values[1:-1]) == (n, 0.0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", [2, 3, 9])
def test_a_sum_beyond_the_largest_float_is_infinite(n, sign):
    with np.errstate(over="ignore"):
        assert sum(exact_sum(np.full(n, sign * 1.5e308))) == sign * np.inf


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_the_sum_of_what_is_not_finite_is_not(value):
    high, low = exact_sum(np.array([1.0, value, 2.0]))
    assert_array_equal(high + low, value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [1, 7, 500_000])
def test_totals_are_the_same_in_blocks_of_any_size(monkeypatch, block, dtype):
    """Products with weights are taken in double precision."""
    rng = np.random.RandomState(0)
    values = (1e3 * rng.standard_normal(40)).astype(dtype)
    weights = rng.uniform(0.5, 2, 40).astype(dtype)
    monkeypatch.setattr(linalg, "BLOCK", block)
    assert sum(exact_total(values)) == math.fsum(values)
    expected = math.fsum(values.astype(float) * weights)
    assert sum(exact_total(values, weights)) == expected
    assert exact_total(values[:0], weights[:0]) == (0.0, 0.0)


@pytest.fixture(params=[np.float32, np.float64])
def factors(request):
    """Two factor matrices of 41 rows, and another order of the rows."""
    rng = np.random.RandomState(0)
    A, B = rng.standard_normal((2, 41, 3)).astype(request.param)
    return A, B, rng.permutation(41)


@pytest.mark.parametrize("block", [1, 7, 500_000])
def test_products_of_factors_are_weighted_by_their_column(monkeypatch, block, factors):
    """They add up to the same in any order of the rows."""
    (A, B, order), ridge = factors, np.array([1.0, 0.0, 30.0])
    monkeypatch.setattr(linalg, "BLOCK", block)
    expected = (A.astype(float) * B).sum(axis=0) @ ridge
    assert inner(A, B, ridge) == pytest.approx(expected, rel=1e-13)
    assert inner(A[order], B[order], ridge) == inner(A, B, ridge)
    assert inner(A, B) == pytest.approx(np.vdot(A.astype(float), B), rel=1e-12)
    assert inner(A[:, :0], B[:, :0], ridge[:0]) == 0.0


@pytest.mark.parametrize("block", [1, 7, 500_000])
def test_norms_of_columns_are_the_same_in_any_order_of_rows(
    monkeypatch, block, factors
):
    A, _, order = factors
    monkeypatch.setattr(linalg, "BLOCK", block)
    expected = np.linalg.norm(A.astype(float), axis=0)
    assert_allclose(column_norms(A), expected, rtol=1e-14)
    assert_array_equal(column_norms(A[order]), column_norms(A))


# BLAS


def blas_threads():
    """Threads of each BLAS that is loaded."""
    libraries = threadpool_info()
    return [one["num_threads"] for one in libraries if one["user_api"] == "blas"]


def run_in_threads(function, n_threads=1):
    threads = [Thread(target=function) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class TestOneBlasThread:
    @pytest.fixture(autouse=True)
    def two_threads(self):
        """Let BLAS have two threads, as if nobody had ever set their number.

        threadpoolctl heeds only the thread that set it, as long as that lives: a thread
        that ends sets it here.
        """
        limits = []

        def in_a_thread(function):
            with threadpool_limits(None):
                pass  # lets go of what this thread has set
            run_in_threads(function)

        in_a_thread(lambda: limits.append(threadpool_limits(2, user_api="blas")))
        yield
        in_a_thread(limits[0].restore_original_limits)

    def test_is_one_inside_and_what_it_was_afterwards(self):
        """Nested, and after an error."""
        before = blas_threads()
        with pytest.raises(ZeroDivisionError), one_blas_thread():
            with one_blas_thread():
                assert set(blas_threads()) <= {1}
            assert set(blas_threads()) <= {1}
            raise ZeroDivisionError
        assert blas_threads() == before

    @pytest.mark.parametrize("first", ["main", "other"])
    def test_lasts_until_the_last_thread_leaves(self, first):
        before, seen = blas_threads(), []
        entered, may_leave = Event(), Event()

        def stay():
            with one_blas_thread():
                entered.set()
                may_leave.wait(60)
                seen.extend(blas_threads())

        def start_other():
            other.start()
            entered.wait(60)

        other = Thread(target=stay)
        if first == "other":
            start_other()
        with one_blas_thread():
            if first == "main":
                start_other()
        may_leave.set()
        other.join()
        assert set(seen) <= {1} and len(seen) == len(before)
        assert blas_threads() == before

    def test_lets_other_threads_set_the_number_afterwards(self):
        def limit():
            with threadpool_limits(1, user_api="blas"):
                seen.extend(blas_threads())

        with one_blas_thread():
            seen = []
        run_in_threads(limit)
        assert set(seen) <= {1}

    def test_is_set_back_after_many_threads_came_and_went(self):
        before = blas_threads()

        def come_and_go():
            for _ in range(50):
                with one_blas_thread():
                    np.ones((20, 20)) @ np.ones((20, 20))

        run_in_threads(come_and_go, 8)
        assert blas_threads() == before


# Calls that are not long


@pytest.fixture
def short_calls(monkeypatch):
    """Cut the work into calls so small that even little data take many of them."""
    monkeypatch.setattr(linalg, "BLOCK", 200)
    monkeypatch.setattr(linalg, "LONGEST_CALL", {"BLAS": 900, "SciPy": 300})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(500, 7), (41, 7), (7, 7), (3, 7), (0, 7), (30, 0)])
def test_qr_in_short_calls_is_a_decomposition(short_calls, shape, dtype):
    A = np.random.RandomState(0).standard_normal(shape).astype(dtype)
    Q, R = qr(A)
    eps = 100 * np.finfo(dtype).eps
    assert Q.dtype == R.dtype == dtype
    assert Q.shape == (shape[0], min(shape)) and R.shape == (min(shape), shape[1])
    assert_allclose(Q @ R, A, atol=eps)
    assert_allclose(Q.T @ Q, np.eye(min(shape)), atol=eps)


def test_qr_in_short_calls_is_orthonormal_for_dependent_columns(short_calls):
    A = np.random.RandomState(0).standard_normal((500, 3)) @ np.ones((3, 7))
    Q, R = qr(A)
    assert_allclose(Q @ R, A, atol=1e-13)
    assert_allclose(Q.T @ Q, np.eye(7), atol=1e-13)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array, sparse.csc_array])
def test_a_product_in_short_calls_is_that_in_one(short_calls, container, transposed):
    rng = np.random.RandomState(0)
    A, B = rng.standard_normal((60, 50)) * (rng.rand(60, 50) < 0.5), rng.rand(50, 8)
    A = container(A.T.copy()).T if transposed else container(A)
    assert_allclose(product(A, B), A @ B, rtol=1e-13)
    if not sparse.issparse(A):
        assert_allclose(gram_of_rows(A), A @ A.T, rtol=1e-13)


def test_no_call_of_a_product_is_long(short_calls, monkeypatch):
    """Each has a bounded number of operations, and Ctrl-C comes between them."""
    A, B, sizes = np.ones((60, 50)), np.ones((50, 8)), []

    def watch(place, name):
        multiply = getattr(place, name)

        def watched(A, B, **options):
            sizes.append(A.size * B.shape[1])
            return multiply(A, B, **options)

        monkeypatch.setattr(place, name, watched)

    watch(np, "matmul")
    watch(sparse.csr_array, "__matmul__")
    # One row of the first factor, or one column of the second, is the least there is.
    for factor, longest in ((A, 900), (sparse.csr_array(A), 60 * 50)):
        sizes.clear()
        product(factor, B)
        assert sum(sizes) == 60 * 50 * 8
        assert max(sizes) <= longest
