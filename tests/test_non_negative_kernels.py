"""Rows of least squares that must not be negative, in either backend."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import nnls
from test_backends import (
    INSTRUCTIONS,
    RANKS,
    RowCase,
    assert_near,
    available,
    guarded,
    random_sizes,
    shifted,
)
from test_kernels import layouts, make_table

from sklearn_mfgd._kernels import dispatch, non_negative, numpy_kernels
from sklearn_mfgd._kernels.rows import Rows

NO_BIASES = (False, False)


@pytest.fixture(scope="module", params=available([*INSTRUCTIONS, "emulated"]))
def compiled(request, compiled_kernels):
    before = compiled_kernels.instructions()
    compiled_kernels.choose(request.param)
    yield compiled_kernels
    compiled_kernels.choose(before)


def table_of(m=12, n=9, rank=3, **options):
    """Entries as in the tests of other kernels; the factors of rows are no start."""
    table = make_table(m, n, rank, biases=NO_BIASES, **options)
    return table._replace(W=np.zeros_like(table.W))


def solve(table, ridge, start=None):
    start = table.W if start is None else start
    return dispatch.non_negative(table.rows, table.H, ridge, start)


def penalized(table, ridge, W):
    """What a row is to minimize, entry by entry."""
    squares = (table.S * (W @ table.H.T - table.X) ** 2).sum(axis=1)
    return 0.5 * (squares + (ridge * W**2).sum(axis=1))


def by_scipy(table, ridge):
    """Solve every row by the active sets of SciPy, from its stacked design."""
    ridges, roots = np.broadcast_to(ridge, table.W.shape), np.sqrt(table.S)
    solved = []
    for root, x, own in zip(roots, table.X, ridges, strict=True):
        design = np.vstack([root[:, None] * table.H, np.diag(np.sqrt(own))])
        target = np.concatenate([root * x, np.zeros(len(own))])
        solved.append(nnls(design, target)[0])
    return np.reshape(solved, table.W.shape)


@pytest.mark.usefixtures("kernels")
class TestRows:
    @given(
        size=st.tuples(*[st.integers(1, 12)] * 3),
        share=st.sampled_from([0.2, 0.6, 1.0]),
        weighted=st.booleans(),
        own_ridges=st.booleans(),
        seed=st.integers(0, 2**16),
    )
    @settings(max_examples=40, deadline=None, derandomize=True)
    def test_are_those_of_scipy(self, size, share, weighted, own_ridges, seed):
        mask = np.random.RandomState(seed).uniform(size=size[:2]) < share
        table = table_of(rank=size[2], mask=mask, weighted=weighted, seed=seed)
        ridge = np.linspace(0.5, 2, size[2])
        if own_ridges:
            ridge = np.outer(np.linspace(0.5, 3, size[0]), ridge)
        expected = by_scipy(table, ridge)
        assert_allclose(solve(table, ridge), expected, rtol=1e-10, atol=1e-12)

    def test_are_exact_without_a_ridge(self):
        table, ridge = table_of(40, 60, 15, share=0.9, weighted=True), np.zeros(15)
        found, expected = solve(table, ridge), by_scipy(table, ridge)
        assert 0.2 < (found > 0).mean() < 0.8
        assert_array_equal(found > 0, expected > 0)
        assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("rank", [1, 8, 30])
    def test_fulfil_the_conditions_of_karush_kuhn_and_tucker(self, rank):
        table, ridge = table_of(60, 50, rank, weighted=True), np.full(rank, 0.3)
        W = solve(table, ridge)
        gradient = (table.S * (W @ table.H.T - table.X)) @ table.H + ridge * W
        assert (W >= 0).all()
        assert_allclose(gradient[W > 0], 0, atol=1e-12)
        assert (gradient[W == 0] >= -1e-12).all()

    @pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
    def test_of_nearly_dependent_factors_are_exact(self, condition):
        rng = np.random.RandomState(0)
        rotations = (np.linalg.qr(rng.standard_normal((n, 20))).Q for n in (50, 20))
        left, right = rotations
        H = left * np.geomspace(1, 1 / condition, 20) @ right.T
        X = np.maximum(rng.standard_normal((100, 20)), 0) @ H.T
        X += 0.01 * rng.standard_normal(X.shape)
        found = dispatch.non_negative_shared(H.T @ H, X @ H, np.zeros((100, 20)))
        expected = np.array([nnls(H, x)[0] for x in X])
        squares = (np.square(W @ H.T - X).sum(axis=1) for W in (found, expected))
        assert_allclose(*squares, rtol=1e-10)

    @pytest.mark.parametrize("share", [0.1, 0.3])
    def test_that_are_singular_attain_the_minimum_near_their_start(self, share):
        """Without a ridge, and with fewer entries than factors."""
        table, ridge = table_of(30, 25, 12, share=share), np.zeros(12)
        least = penalized(table, ridge, by_scipy(table, ridge))
        start = np.random.RandomState(1).uniform(size=(30, 12))
        for W in (solve(table, ridge), solve(table, ridge, start)):
            assert_allclose(penalized(table, ridge, W), least, atol=1e-9)
        at_minimum = solve(table, ridge, start)
        assert_allclose(solve(table, ridge, at_minimum), at_minimum, atol=1e-8)

    @given(seed=st.integers(0, 2**16), ridge=st.sampled_from([0.0, 1e-9, 0.1]))
    @settings(max_examples=30, deadline=None, derandomize=True)
    def test_never_rise_from_their_start(self, seed, ridge):
        rng = np.random.RandomState(seed)
        table, ridge = table_of(8, 10, 6, share=0.5, seed=seed), np.full(6, ridge)
        start = np.maximum(rng.standard_normal((8, 6)), 0) * rng.choice([1e-3, 1, 1e3])
        before = penalized(table, ridge, start)
        after = penalized(table, ridge, solve(table, ridge, start))
        assert (after <= before * (1 + 1e-12)).all()

    def test_do_not_depend_on_their_start_where_the_minimum_is_unique(self):
        table, ridge = table_of(20, 30, 8, share=0.9), np.full(8, 0.1)
        start = 10 * np.random.RandomState(0).uniform(size=(20, 8))
        expected = solve(table, ridge)
        assert_allclose(solve(table, ridge, start), expected, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("unit", [1e-60, 1e-3, 1e60])
    def test_do_not_depend_on_the_units_of_factors(self, unit):
        table, units = table_of(20, 15, 4), np.array([1, unit, 1, unit])
        expected = solve(table, np.zeros(4))
        found = solve(table._replace(H=table.H / units), np.zeros(4)) / units
        assert_allclose(found, expected, rtol=1e-9, atol=1e-12)

    def test_are_zero_where_nothing_is_known(self):
        """In rows without entries, and for factors without columns."""
        table = table_of()
        start = np.ones_like(table.W)
        empty = ~table.mask.any(axis=1)
        for ridge in (0.0, 0.1):
            assert_array_equal(solve(table, np.full(3, ridge), start)[empty], 0)
        table.H[:, 1] = 0
        assert_array_equal(solve(table, np.zeros(3), start)[:, 1], 0)

    def test_that_overflow_are_not_numbers(self):
        table = table_of()
        X = 1e200 * np.ones((3, 9))
        with np.errstate(over="ignore", invalid="ignore"):
            system = 1e200 * table.H.T @ (1e200 * table.H)
            for n_passes in (0, 2):
                arguments = system, X @ table.H, np.ones((3, 3)), n_passes
                assert np.isnan(dispatch.non_negative_shared(*arguments)).all()

    def test_in_single_precision_agree(self):
        single = table_of(40, 30, 8, weighted=True, dtype=np.float32)
        double = single._replace(H=single.H.astype(float), rows=single.rows)
        double = double._replace(rows=single.rows.astype(float), W=double.W)
        found, ridge = solve(single, np.full(8, 0.1)), np.full(8, 0.1)
        start = np.zeros((40, 8))
        expected = dispatch.non_negative(double.rows, double.H, ridge, start)
        assert found.dtype == np.float32
        assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    def test_that_are_complete_share_one_system(self):
        table, ridge = table_of(mask=np.ones((30, 20), bool), rank=5), np.full(5, 0.2)
        system = table.H.T @ table.H + np.diag(ridge)
        shared = dispatch.non_negative_shared(system, table.X @ table.H, table.W)
        assert_allclose(shared, solve(table, ridge), rtol=1e-9, atol=1e-12)

    def test_of_one_system_descend_one_coefficient_after_the_other(self):
        rng = np.random.RandomState(0)
        H, X = rng.standard_normal((30, 6)), rng.standard_normal((70, 30))
        system, targets, start = H.T @ H, X @ H, rng.uniform(size=(70, 6))
        system[4], system[:, 4] = 0, 0
        expected = np.where(np.arange(6) == 4, 0, start)
        for _ in range(2):
            for w, target in zip(expected, targets, strict=True):
                for k in (0, 1, 2, 3, 5):
                    others = target[k] - system[k] @ w + system[k, k] * w[k]
                    w[k] = max(others / system[k, k], 0)
        found = dispatch.non_negative_shared(system, targets, start, n_passes=2)
        assert_allclose(found, expected, rtol=1e-12, atol=1e-14)

    def test_know_nothing_of_each_other(self):
        table, chosen = table_of(15, 12, share=0.9), np.array([11, 4, 6, 3])
        together = solve(table, np.full(3, 0.5))
        apart = table._replace(rows=table.rows.take(chosen), W=table.W[chosen])
        assert_array_equal(solve(apart, np.full(3, 0.5)), together[chosen])

    def test_have_the_same_bits_on_any_number_of_threads(self, monkeypatch, kernels):
        """Ranges may be of any length; NumPy's products of others round otherwise."""
        table, ridge = table_of(200, 100, 8, share=0.3, weighted=True), np.full(8, 0.1)
        targets = np.random.RandomState(0).standard_normal((200, 8))
        system = table.H.T @ table.H

        def answers():
            yield solve(table, ridge)
            yield dispatch.non_negative_shared(system, targets, table.W)
            yield dispatch.non_negative_shared(system, targets, table.W, n_passes=3)

        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        expected = list(answers())
        monkeypatch.setattr(dispatch, "OPERATIONS", 1e4)
        for n_threads in (1, 2, 4):
            monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
            for found, answer in zip(answers(), expected, strict=True):
                tolerance = 1e-12 if kernels is numpy_kernels else 0
                assert_allclose(found, answer, rtol=tolerance)

    def test_leave_what_is_given_as_it_is(self):
        table, ridge = table_of(weighted=True), np.full(3, 0.1)
        expected = solve(table, ridge)
        for array in (*table.rows[:4], table.H, table.W, ridge):
            array.flags.writeable = False
        assert_array_equal(solve(table, ridge), expected)
        for W, H in zip(layouts(table.W), layouts(table.H), strict=True):
            assert_array_equal(solve(table._replace(H=H), ridge, W), expected)

    @pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (3, 4)])
    def test_may_not_be_there(self, shape):
        for rank in (0, 2):
            table = table_of(mask=np.zeros(shape, bool), rank=rank)
            assert_array_equal(solve(table, np.ones(rank)), np.zeros((shape[0], rank)))
            system, targets = np.eye(rank), np.zeros((shape[0], rank))
            found = dispatch.non_negative_shared(system, targets, targets)
            assert_array_equal(found, targets)


def guarded_start(case):
    start = np.random.RandomState(0).uniform(size=case.W.shape)
    return guarded(start.shape, case.dtype, start.astype(case.dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_compiled_rows_are_those_of_the_reference_at_every_rank(
    compiled, dtype, weighted
):
    """For every set of vector instructions; nothing is written beside the result."""
    tolerance = 1e-9 if dtype == np.float64 else 1e-5
    for rank in RANKS[1:]:
        counts = [0, 3 * rank + 5, 1, 0, 300, rank, 2 * rank + 7, 0]
        case = RowCase(rank, False, False, weighted, dtype, counts)
        for ridge in (case.ridge, case.ridges):
            found, expected = guarded_start(case), guarded_start(case)
            compiled.non_negative(case.problem, ridge, found, 0, len(counts))
            numpy_kernels.non_negative(case.problem, ridge, expected, 0, len(counts))
            assert_near(found, expected, tolerance, f"rank {rank}")


@pytest.mark.parametrize("n_passes", [0, 1, 5])
def test_compiled_rows_of_one_system_are_those_of_the_reference(compiled, n_passes):
    for rank in RANKS[1:]:
        rng = np.random.RandomState(rank)
        H = rng.standard_normal((3 * rank, rank))
        targets = shifted(rng.standard_normal((9, 3 * rank)) @ H)
        arguments = shifted(H.T @ H), targets
        start = random_sizes((9, rank), float)
        found, expected = (guarded((9, rank), float, start) for _ in range(2))
        compiled.non_negative_shared(*arguments, n_passes, found, 2, 8)
        numpy_kernels.non_negative_shared(*arguments, n_passes, expected, 2, 8)
        assert_near(found, expected, 1e-9, f"rank {rank}")
        assert_array_equal(found[[0, 1, 8]], start[[0, 1, 8]])


class TestGlue:
    @pytest.fixture
    def case(self):
        return RowCase(3, False, False, False, np.float64)

    def test_refuses_arrays_of_other_shapes(self, compiled_kernels, case):
        n_rows = len(case.W)
        with pytest.raises(ValueError, match="out must have shape"):
            compiled_kernels.non_negative(
                case.problem, case.ridge, case.W[1:] + 0, 0, 1
            )
        with pytest.raises(ValueError, match="ridge must have shape"):
            compiled_kernels.non_negative(
                case.problem, np.ones((1, 4)), case.W + 0, 0, 1
            )
        with pytest.raises(ValueError, match=f"There are {n_rows} rows"):
            compiled_kernels.non_negative(
                case.problem, case.ridge, case.W + 0, 0, n_rows + 1
            )
        square, targets = np.eye(3), np.zeros((4, 3))
        for wrong in ((np.eye(2), targets), (square, targets[1:])):
            with pytest.raises(ValueError, match="must have shape"):
                compiled_kernels.non_negative_shared(*wrong, 0, targets + 0, 0, 1)
        with pytest.raises(ValueError, match="There are 4 rows"):
            compiled_kernels.non_negative_shared(square, targets, 0, targets + 0, 0, 5)

    def test_refuses_biases_of_rows_and_malformed_rows(self, compiled_kernels, case):
        biased = RowCase(3, True, False, False, np.float64)
        with pytest.raises(ValueError, match="bias"):
            compiled_kernels.non_negative(
                biased.problem, biased.ridge, biased.W + 0, 0, 1
            )
        indices = case.rows.indices.copy()
        indices[0] = case.rows.n_columns
        case.change(indices=indices)
        with pytest.raises(ValueError, match="Row 1 of the sparse matrix"):
            compiled_kernels.non_negative(case.problem, case.ridge, case.W + 0, 0, 3)


def test_the_reference_needs_one_coefficient_at_a_time_where_passes_do_not_settle(
    monkeypatch,
):
    """Nearly dependent factors: descent alone, or the first faces, do not suffice."""
    rng = np.random.RandomState(0)
    H = rng.uniform(size=(60, 1)) + 1e-3 * rng.standard_normal((60, 20))
    X = np.maximum(rng.standard_normal((50, 20)), 0) @ H.T
    X += 0.001 * rng.standard_normal(X.shape)
    arguments = np.broadcast_to(H.T @ H, (50, 20, 20)), X @ H, np.zeros((50, 20))
    least = np.array([nnls(H, x)[1] ** 2 for x in X])

    def squares():
        return np.square(non_negative.minimize(*arguments) @ H.T - X).sum(axis=1)

    assert_allclose(squares(), least, rtol=1e-8)
    monkeypatch.setattr(non_negative, "MOST_ENTERING", 0)
    assert (squares() > 1.001 * least).any()


def test_rows_that_list_an_entry_twice_weigh_it_twice(kernels):
    table = table_of(10, 8, share=0.8)
    twice = np.repeat(np.arange(table.rows.indices.size), 2)
    repeated = Rows(
        2 * table.rows.indptr, *(a[twice] for a in table.rows[1:3]), None, 8
    )
    weights = np.full(table.rows.indices.size, 2.0)
    weighted = table._replace(rows=table.rows._replace(weights=weights))
    found = solve(table._replace(rows=repeated), np.full(3, 0.5))
    assert_allclose(found, solve(weighted, np.full(3, 0.5)), rtol=1e-10, atol=1e-13)
