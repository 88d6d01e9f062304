"""Kernels on observed entries against dense formulas, in either backend."""

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

from sklearn_mfgd._kernels import dispatch, linalg, numpy_kernels
from sklearn_mfgd._kernels.rows import Rows

pytestmark = pytest.mark.usefixtures("kernels")

BIASES = [(False, False), (True, False), (False, True), (True, True)]
with_biases = pytest.mark.parametrize("biases", BIASES)
weighted_or_not = pytest.mark.parametrize(
    "weighted", [False, True], ids=["", "weighted"]
)


class Table(NamedTuple):
    """Observed entries by rows, the same written out, and factors."""

    rows: Rows
    X: np.ndarray  # zero where nothing was observed
    S: np.ndarray  # weights, zero where nothing was observed
    mask: np.ndarray
    W: np.ndarray
    H: np.ndarray
    biases: tuple  # of rows, of columns

    @property
    def design(self):
        factors = self.H[:, :-1] if self.biases[1] else self.H
        return np.hstack([factors, np.ones((len(self.H), int(self.biases[0])))])

    @property
    def offset(self):
        return self.H[:, -1] if self.biases[1] else np.zeros(len(self.H))

    @property
    def errors(self):
        return self.W @ self.design.T + self.offset - self.X

    @property
    def arguments(self):
        return self.rows, self.W, self.H, self.biases

    def least_squares(self, ridge, draws=None):
        return dispatch.least_squares(self.rows, self.H, self.biases, ridge, draws)


def make_table(
    m=12,
    n=9,
    rank=3,
    *,
    share=0.6,
    mask=None,
    biases=(True, True),
    weighted=False,
    dtype=float,
    seed=0,
):
    """Fill a pattern, by default one with empty rows and columns, at random."""
    rng = np.random.RandomState(seed)
    if mask is None:
        mask = rng.uniform(size=(m, n)) < share
        mask[:: m // 2 + 1] = False
        mask[:, :: n // 2 + 1] = False
    (m, n), seen = mask.shape, np.count_nonzero(mask, axis=1)
    X = np.where(mask, rng.standard_normal((m, n)), 0).astype(dtype)
    S, weights = mask.astype(dtype), None
    if weighted:
        S *= rng.choice([0, 0.3, 1, 2.5], size=(m, n)).astype(dtype)
        weights = S[mask]
    indptr, indices = np.cumsum([0, *seen]), np.nonzero(mask)[1].astype(np.int32)
    rows = Rows(indptr, indices, X[mask], weights, n)
    W = rng.standard_normal((m, rank + biases[0])).astype(dtype)
    H = rng.standard_normal((n, rank + biases[1])).astype(dtype)
    return Table(rows, X, S, mask, W, H, biases)


@st.composite
def tables(draw):
    mask = draw(arrays(bool, st.tuples(st.integers(0, 8), st.integers(0, 8))))
    rank, biases = draw(st.integers(0, 5)), draw(st.sampled_from(BIASES))
    weighted, seed = draw(st.booleans()), draw(st.integers(0, 2**16))
    return make_table(mask=mask, rank=rank, biases=biases, weighted=weighted, seed=seed)


any_table = settings(max_examples=50, deadline=None, derandomize=True)


def every_answer(table):
    rows, W, H, biases = table.arguments
    loss, gradient = dispatch.loss_and_gradient(*table.arguments)
    factors = W[:, : H.shape[1]], H[:, : W.shape[1]]
    return {
        "least_squares": table.least_squares(np.linspace(0.5, 1, W.shape[1])),
        "loss of loss_and_gradient": loss,
        "gradient": gradient,
        "loss": dispatch.loss(*table.arguments),
        "curvature": dispatch.curvature(rows, W, H, biases),
        "residuals": dispatch.residuals(*table.arguments),
        "product": dispatch.product(rows, H),
        "entry_products": dispatch.entry_products(
            *factors, rows.row_numbers, rows.indices
        ),
    }


def dense_answers(table):
    W, H, S, errors = table.W, table.H, table.S, table.errors
    loss = 0.5 * (S * errors**2).sum()
    rank = min(W.shape[1], H.shape[1])
    return {
        "loss of loss_and_gradient": loss,
        "gradient": (S * errors) @ table.design,
        "loss": loss,
        "curvature": (S * (W @ table.design.T) ** 2).sum(axis=1),
        "residuals": errors[table.mask],
        "product": table.X @ H,
        "entry_products": (W[:, :rank] @ H[:, :rank].T)[table.mask],
    }


def assert_same_answers(found, expected, **tolerance):
    """Compare to the last bit, unless there is a tolerance."""
    for name, answer in expected.items():
        if tolerance:
            assert_allclose(found[name], answer, **tolerance, err_msg=name)
        else:
            assert_array_equal(found[name], answer, err_msg=name)


def ridge_rows(ridge_row, table, ridge):
    targets, roots = table.X - table.offset, np.sqrt(table.S)
    ridges = np.broadcast_to(ridge, (len(table.X), np.shape(ridge)[-1]))
    solved = [
        ridge_row(root[:, None] * table.design, root * target, own)
        for root, target, own in zip(roots, targets, ridges, strict=True)
    ]
    return np.reshape(solved, table.W.shape)


def assert_solved(ridge_row, table, ridge, **tolerance):
    expected = ridge_rows(ridge_row, table, ridge)
    assert_allclose(table.least_squares(ridge), expected, **tolerance)


@given(tables(), st.sampled_from([0.0, 0.1, 10.0]), st.booleans())
@any_table
def test_least_squares_solves_the_ridge_problem_of_each_row(
    ridge_row, table, ridge, own_ridges
):
    """Without a ridge many rows are singular: the solution has minimum norm there."""
    ridge = np.full(table.W.shape[1], ridge)
    if own_ridges:
        ridge = np.outer(np.linspace(0.5, 3, len(table.X)), ridge)
    assert_solved(ridge_row, table, ridge, rtol=1e-4, atol=1e-5)


@weighted_or_not
@with_biases
def test_regular_rows_are_solved_to_the_last_digits(ridge_row, biases, weighted):
    """With a penalty of each coefficient, or of each row besides."""
    table = make_table(30, 25, 4, biases=biases, weighted=weighted)
    ridge = np.geomspace(1e-3, 100, table.W.shape[1])
    for penalty in (ridge, np.outer(np.geomspace(0.1, 100, 30), ridge)):
        assert_solved(ridge_row, table, penalty, rtol=1e-9, atol=1e-12)


@with_biases
def test_rows_with_nothing_observed_are_zero(biases):
    table = make_table(9, 6, biases=biases)
    empty = ~table.mask.any(axis=1)
    weightless = table._replace(rows=table.rows._replace(weights=0 * table.rows.values))
    assert empty.sum() >= 2
    for ridge in (0.0, 0.1):
        penalty = np.full(table.W.shape[1], ridge)
        assert_array_equal(table.least_squares(penalty)[empty], 0)
        assert_array_equal(weightless.least_squares(penalty), 0)


class TestSingularRows:
    @weighted_or_not
    @with_biases
    @pytest.mark.parametrize("rank", [2, 7, 17])
    def test_have_the_solution_of_minimum_norm(self, ridge_row, rank, biases, weighted):
        table = make_table(30, 25, rank, share=0.3, biases=biases, weighted=weighted)
        ridge = np.zeros(table.W.shape[1])
        assert (np.count_nonzero(table.S, axis=1) < rank).any()
        assert_solved(ridge_row, table, ridge, rtol=1e-4, atol=1e-6)

    def test_may_have_more_entries_than_coefficients(self, ridge_row):
        """All columns have the same factors, or factors of lower rank."""
        table, ridge = make_table(20, 15, 3, biases=(False, False)), np.zeros(3)
        for basis in (np.ones((3, 3)), np.diag([1.0, 1.0, 0.0])):
            singular = table._replace(H=table.H @ basis)
            assert_solved(ridge_row, singular, ridge, rtol=1e-6, atol=1e-8)

    def test_have_their_own_ridge_which_may_settle_what_is_open(self, ridge_row):
        table = make_table(20, 15, 3, share=0.2)
        of_every_other_row = np.zeros(table.W.shape)
        of_every_other_row[::2] = 10
        for ridge in (np.array([1e-6, 1e-6, 1e-6, 0]), of_every_other_row):
            assert_solved(ridge_row, table, ridge, rtol=1e-4, atol=1e-4)

    def test_leave_regular_rows_alone(self):
        mask = np.ones((6, 8), bool)
        mask[::2, 2:] = False
        table, ridge = make_table(mask=mask, biases=(False, False)), np.zeros(3)
        regular = table._replace(rows=table.rows.take([1, 3, 5])).least_squares(ridge)
        assert_allclose(table.least_squares(ridge)[1::2], regular, rtol=1e-12)


def assert_solved_at_scale(ridge_row, table, scale, **tolerance):
    """Data and factors of the same size have coefficients of order one."""
    rows = table.rows._replace(values=table.rows.values * scale)
    found = table._replace(rows=rows, H=table.H * scale).least_squares(np.zeros(3))
    expected = ridge_rows(ridge_row, table, np.zeros(3))
    assert_allclose(found, expected, **tolerance)


@pytest.mark.parametrize("scale", [1e-60, 1.0, 1e60])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_rows_are_solved_at_any_scale(ridge_row, share, scale):
    table = make_table(20, 15, share=share, biases=(False, True))
    assert_solved_at_scale(ridge_row, table, scale, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_badly_conditioned_rows_are_solved_and_not_cut(condition):
    """The system of a row has the squared condition of its design."""
    rng = np.random.RandomState(0)
    basis = np.linalg.qr(rng.standard_normal((12, 4))).Q
    H, w = basis * np.geomspace(1, 1 / condition, 4), rng.standard_normal((1, 4))
    rows = Rows(np.array([0, 12]), np.arange(12, dtype=np.int32), (H @ w[0]), None, 12)
    found = dispatch.least_squares(rows, H, (False, False), np.zeros(4))
    assert_allclose(found, w, atol=1e-14 * condition**2)


@with_biases
def test_rows_know_nothing_of_each_other(biases):
    """Other rows, their number and their order change no bit of a row."""
    table = make_table(15, 12, share=0.9, biases=biases, weighted=True)
    ridge, chosen = np.full(table.W.shape[1], 0.5), np.array([11, 4, 6, 3])
    together = table.least_squares(ridge)
    apart = table._replace(rows=table.rows.take(chosen)).least_squares(ridge)
    assert_array_equal(apart, together[chosen])


@given(table=tables())
@any_table
def test_losses_gradients_and_products_are_those_of_the_dense_formulas(table):
    expected = dense_answers(table)
    assert_same_answers(every_answer(table), expected, rtol=1e-10, atol=1e-12)


def test_entry_products_mix_types_as_numpy_does():
    W, H = np.ones((3, 2), np.float32), np.ones((4, 2))
    none = np.zeros(0, np.int32)
    for pair, dtype in (((W, H), float), ((W, W), np.float32), ((H, W), float)):
        assert dispatch.entry_products(*pair, none, none).dtype == dtype
        assert_array_equal(dispatch.entry_products(*pair, [0, 1], [2, 0]), 2)


@pytest.mark.parametrize("most", [1, 3])
@with_biases
def test_whole_weights_repeat_entries_and_zero_leaves_them_out(biases, most):
    """Rows may list an entry more than once."""
    table = make_table(biases=biases)
    counts = np.random.RandomState(3).randint(most + 1, size=table.rows.indices.size)
    ends = np.concatenate([[0], np.cumsum(counts)])
    weighted = table.rows._replace(weights=counts.astype(float))
    repeated = table.rows._replace(
        indptr=ends[table.rows.indptr],
        indices=np.repeat(table.rows.indices, counts),
        values=np.repeat(table.rows.values, counts),
    )
    found = every_answer(table._replace(rows=weighted))
    expected = every_answer(table._replace(rows=repeated))
    unweighted = every_answer(table)
    # What answers about each entry, or about values alone, takes no weights.
    for name in ("residuals", "product", "entry_products"):
        del expected[name]
        assert_array_equal(found[name], unweighted[name])
    assert_same_answers(found, expected, rtol=1e-10, atol=1e-12)


class Steps:
    """Entries in random order, and everything else that a step depends on."""

    ridges, etas, scales = (0.3, 0.7), (0.05, 0.1), (2.0, 0.5)

    def __init__(self, table, adaptive):
        rng, rows, self.table = np.random.RandomState(0), table.rows, table
        order, listed = (
            rng.permutation(rows.indices.size),
            (rows.row_numbers, *rows[1:4]),
        )
        self.entries = tuple(None if part is None else part[order] for part in listed)
        self.W, self.H = table.W.copy(), table.H.copy()
        sizes, dtype = table.X.shape, table.W.dtype
        self.shares = tuple(rng.uniform(0, 1, size).astype(dtype) for size in sizes)
        self.squares = None, None
        if adaptive:
            self.squares = tuple(rng.uniform(0, 1, (m, 2)).astype(dtype) for m in sizes)

    @property
    def changed(self):
        return self.W, self.H, *(part for part in self.squares if part is not None)

    def take(self, ranges=None):
        ranges = [(0, len(self.entries[0]))] if ranges is None else ranges
        changed = self.W, self.H, self.table.biases, self.shares, self.squares
        numbers = {"ridges": self.ridges, "etas": self.etas, "scales": self.scales}
        dispatch.stochastic_steps(self.entries, ranges, *changed, **numbers)
        return self

    def take_slowly(self):
        """Take every step by the gradient of its entry alone."""
        rows, columns, values, weights = self.entries
        for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
            row, column = self.W[i], self.H[j]
            w, b = np.split(row, [len(row) - self.table.biases[0]])
            h, c = np.split(column, [len(column) - self.table.biases[1]])
            error = w @ h + b.sum() + c.sum() - values[k]
            error *= 1 if weights is None else weights[k]
            gradients = (error * h, error + 0 * b), (error * w, error + 0 * c)
            for side, (coefficients, index) in enumerate((((w, b), i), ((h, c), j))):
                squares, share = self.squares[side], self.shares[side][index]
                for kind in range(2):  # factors, bias
                    gradient, step = gradients[side][kind], self.etas[kind]
                    if squares is not None and gradient.size:
                        step /= np.sqrt(1 + self.scales[kind] * squares[index, kind])
                        squares[index, kind] += gradient @ gradient
                    penalty = self.ridges[kind] * share * coefficients[kind]
                    coefficients[kind][:] -= step * (gradient + penalty)
        return self


def assert_same_steps(steps, expected, **tolerance):
    for found, array in zip(steps.changed, expected.changed, strict=True):
        assert found.dtype == array.dtype
        assert_same_answers({"": found}, {"": array}, **tolerance)


@pytest.mark.parametrize("adaptive", [False, True], ids=["fixed", "adaptive"])
class TestStochasticSteps:
    @weighted_or_not
    @with_biases
    def test_follow_the_gradient_of_one_entry_after_the_other(
        self, biases, weighted, adaptive
    ):
        for rank, dtype in ((0, float), (1, float), (9, float), (3, np.float32)):
            table = make_table(rank=rank, biases=biases, weighted=weighted, dtype=dtype)
            expected = Steps(table, adaptive).take_slowly()
            tolerance = 1e-10 if dtype is float else 1e-4
            steps = Steps(table, adaptive).take()
            assert_same_steps(steps, expected, rtol=tolerance, atol=tolerance)

    def test_of_no_entries_change_nothing(self, adaptive):
        untouched = Steps(make_table(), adaptive)
        for ranges in ([], [(3, 3)]):
            assert_same_steps(Steps(make_table(), adaptive).take(ranges), untouched)

    @pytest.mark.parametrize("operations", [1, 1e4])
    def test_have_the_same_bits_on_threads(self, monkeypatch, adaptive, operations):
        """Of ranges without a row or column in common."""
        blocks = np.kron(np.eye(4, dtype=bool), np.ones((5, 4), bool))
        table = make_table(mask=blocks, weighted=True)

        def take():
            steps = Steps(table, adaptive)
            steps.entries = (table.rows.row_numbers, *table.rows[1:4])
            return steps.take([(k, k + 20) for k in (0, 20, 40, 60)])

        expected = take()
        monkeypatch.setattr(dispatch, "OPERATIONS", operations)
        for n_threads in (1, 2, 4):
            monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
            assert_same_steps(take(), expected)


@with_biases
@weighted_or_not
def test_single_precision_stays_single_and_agrees(biases, weighted):
    """To about the square root of the number of terms, and the condition of a row."""
    single = make_table(40, 30, 8, biases=biases, weighted=weighted, dtype=np.float32)
    rows, W, H = (part.astype(float) for part in single.arguments[:3])
    expected = every_answer(single._replace(rows=rows, W=W, H=H))
    for name, found in every_answer(single).items():
        in_double = isinstance(found, float) or name == "curvature"
        assert in_double or found.dtype == np.float32, name
        scale = np.abs(expected[name]).max()
        tolerance = 1e-4 if name == "least_squares" else 1e-5
        assert_allclose(found, expected[name], atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_singular_rows_in_single_precision_have_minimum_norm(ridge_row, scale):
    table = make_table(20, 15, share=0.3, biases=(False, False), dtype=np.float32)
    assert_solved_at_scale(ridge_row, table, np.float32(scale), rtol=2e-3, atol=2e-3)


def layouts(A):
    """Lay out a matrix in memory in every other way."""
    yield np.asfortranarray(A)
    yield np.repeat(A, 2, axis=0)[::2]
    yield np.repeat(A, 2, axis=1)[:, ::2]
    yield A[::-1, ::-1].copy()[::-1, ::-1]
    yield np.pad(A, 3, mode="wrap")[3:-3, 3:-3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factors_may_lie_in_memory_in_any_way(dtype):
    table = make_table(dtype=dtype)
    expected = every_answer(table)
    for W, H in zip(layouts(table.W), layouts(table.H), strict=True):
        assert not (W.flags.c_contiguous or H.flags.c_contiguous)
        assert_same_answers(every_answer(table._replace(W=W, H=H)), expected)


def test_nothing_that_is_given_is_changed():
    """All of it may be read-only."""
    table = make_table(weighted=True)
    ridge, draws = np.ones((12, 4)), np.ones(table.W.shape)
    for array in (*table.rows[:4], table.W, table.H, ridge, draws):
        array.flags.writeable = False
    assert np.isfinite(table.least_squares(ridge, draws)).all()
    expected = dense_answers(table)
    assert_same_answers(every_answer(table), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (3, 4)])
def test_there_may_be_no_rows_no_columns_no_entries_and_no_factors(shape):
    for rank, biases in product((0, 2), BIASES):
        table = make_table(mask=np.zeros(shape, bool), rank=rank, biases=biases)
        answers = every_answer(table)
        assert answers["least_squares"].shape == table.W.shape
        assert answers["product"].shape == (shape[0], table.H.shape[1])
        assert answers["residuals"].shape == answers["entry_products"].shape == (0,)
        assert_same_answers(answers, dict.fromkeys(answers, 0))


@pytest.fixture(scope="module")
def large():
    return make_table(200, 100, 8, share=0.3, weighted=True)


@pytest.fixture(scope="module")
def answers(large, kernels):
    return every_answer(large)


# NumPy multiplies out whole ranges: other ranges are other sums.
ROUNDING = {"rtol": 1e-9, "atol": 1e-12}


@pytest.mark.parametrize("operations", [1, 1e4])
def test_ranges_change_no_answer(monkeypatch, kernels, large, answers, operations):
    monkeypatch.setattr(dispatch, "OPERATIONS", operations)
    tolerance = ROUNDING if kernels is numpy_kernels else {}
    assert_same_answers(every_answer(large), answers, **tolerance)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch, large):
    monkeypatch.setattr(dispatch, "OPERATIONS", 1e4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    expected = every_answer(large)
    for n_threads in (2, 3, 4):
        monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
        assert_same_answers(every_answer(large), expected)


@pytest.mark.parametrize("size", [1, 50, 333])
def test_answers_do_not_depend_on_the_size_of_blocks(monkeypatch, large, answers, size):
    monkeypatch.setattr(linalg, "BLOCK", size)
    assert_same_answers(every_answer(large), answers, **ROUNDING)


def test_any_number_of_blas_threads_gives_the_same_bits():
    table = make_table(300, 200, 40, share=0.5)
    found = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"):
            found.append(table.least_squares(np.full(41, 0.1)))
    assert_array_equal(*found)


@weighted_or_not
class TestRows:
    @staticmethod
    def assert_is(rows, X, S):
        """Compare to the entries written out, those listed more than once summed."""
        assert rows.shape == X.shape
        for values, expected in ((rows.values, X), (rows.weights, S)):
            if values is not None:
                dense = np.zeros(rows.shape)
                np.add.at(dense, (rows.row_numbers, rows.indices), values)
                assert_array_equal(dense, expected)
        assert [array.dtype for array in rows[:3]] == [np.int64, np.int32, X.dtype]

    @pytest.mark.parametrize("longest", [10, 10**6])
    def test_transposed_are_the_same_entries(self, monkeypatch, weighted, longest):
        monkeypatch.setattr("sklearn_mfgd._kernels.rows.LONGEST_TRANSPOSE", longest)
        table = make_table(weighted=weighted)
        by_columns = table.rows.transpose()
        self.assert_is(by_columns, table.X.T, table.S.T)
        self.assert_is(by_columns.transpose(), table.X, table.S)
        twice = np.repeat(np.arange(table.rows.indices.size), 2)
        repeated = table.rows._entries(twice, 2 * table.rows.indptr)
        self.assert_is(repeated.transpose(), 2 * table.X.T, 2 * table.S.T)

    def test_some_may_be_taken_in_any_order_and_entries_selected(self, weighted):
        rows, X, S, *_ = make_table(weighted=weighted)
        for chosen in (np.array([5, 0, 5, 11]), np.zeros(0, int)):
            self.assert_is(rows.take(chosen), X[chosen], S[chosen])
        self.assert_is(rows.between(3, 8), X[3:8], S[3:8])

        rows, X, S, mask, *_ = make_table(weighted=weighted)
        keep = np.random.RandomState(0).uniform(size=X.shape) < 0.5
        kept = keep[mask]
        dropped = np.concatenate([[0], np.cumsum(~kept)])[rows.indptr]
        self.assert_is(rows.select(kept, dropped), X * keep, S * keep)

    @pytest.mark.parametrize("n_entries", [1, 7, 20, 10**6])
    def test_ranges_hold_all_rows_in_order_and_few_entries(self, weighted, n_entries):
        """About as many as they should, and those of one more row at the most."""
        indptr = make_table(weighted=weighted).rows.indptr
        ranges = make_table(weighted=weighted).rows.ranges(n_entries)
        assert [i for each in ranges for i in range(*each)] == list(range(12))
        most = n_entries + np.diff(indptr).max()
        for start, stop in ranges:
            assert start < stop
            assert indptr[stop] - indptr[start] < most

    def test_columns_may_be_renumbered_and_dropped(self, weighted):
        rows, X, S, *_ = make_table(weighted=weighted)
        numbers = np.array([0, 6, 1, 2, 6, 3, 6, 4, 5])
        kept = numbers < 6
        self.assert_is(rows.renumber(numbers, 6), X[:, kept], S[:, kept])
        with_one_before = (np.pad(A, ((0, 0), (1, 0))) for A in (X, S))
        self.assert_is(rows.renumber(np.arange(1, 10), 10), *with_one_before)
        with pytest.raises(ValueError, match="number 6, but there are 5"):
            rows.renumber(numbers, 5)
