"""The engine on observed entries against dense formulas, by either twin."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from threadpoolctl import threadpool_limits

from sklearn_mfgd._kernels import backend, dispatch, linalg, numpy_kernels
from sklearn_mfgd._kernels.rows import Rows

pytestmark = pytest.mark.usefixtures("kernels")

BIASES = [(False, False), (True, False), (False, True), (True, True)]


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
    rows = Rows(
        np.concatenate([[0], np.cumsum(seen)]),
        np.nonzero(mask)[1].astype(np.int32),
        X[mask],
        weights,
        n,
    )
    W = rng.standard_normal((m, rank + biases[0])).astype(dtype)
    H = rng.standard_normal((n, rank + biases[1])).astype(dtype)
    return Table(rows, X, S, mask, W, H, biases)


@st.composite
def tables(draw):
    mask = draw(arrays(bool, st.tuples(st.integers(0, 8), st.integers(0, 8))))
    return make_table(
        mask=mask,
        rank=draw(st.integers(0, 5)),
        biases=draw(st.sampled_from(BIASES)),
        weighted=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )


any_table = settings(max_examples=50, deadline=None, derandomize=True)


def every_answer(table):
    """What each function of the engine says."""
    rows, W, H, biases = table.arguments
    value, gradient = dispatch.loss_and_gradient(*table.arguments)
    return {
        "least_squares": table.least_squares(np.linspace(0.5, 1, W.shape[1])),
        "loss_and_gradient: loss": value,
        "loss_and_gradient: gradient": gradient,
        "loss": dispatch.loss(*table.arguments),
        "curvature": dispatch.curvature(rows, W, H, biases),
        "residuals": dispatch.residuals(*table.arguments),
        "product": dispatch.product(rows, H),
        "entry_products": dispatch.entry_products(
            W[:, : H.shape[1]], H[:, : W.shape[1]], rows.row_numbers, rows.indices
        ),
    }


# Least squares


def ridge_rows(ridge_row, table, ridge):
    """Solve the ridge problem of each row by itself."""
    targets, roots = table.X - table.offset, np.sqrt(table.S)
    ridges = np.broadcast_to(ridge, (len(table.X), np.shape(ridge)[-1]))
    solved = [
        ridge_row(root[:, None] * table.design, root * target, own)
        for root, target, own in zip(roots, targets, ridges, strict=True)
    ]
    return np.reshape(solved, table.W.shape)


@given(
    table=tables(),
    ridge=st.sampled_from([0.0, 0.1, 10.0]),
    own_ridges=st.booleans(),
)
@any_table
def test_least_squares_solves_the_ridge_problem_of_each_row(
    ridge_row, table, ridge, own_ridges
):
    """Without a ridge many rows are singular: the solution has minimum norm there."""
    ridge = np.full(table.W.shape[1], ridge)
    if own_ridges:
        ridge = np.outer(np.linspace(0.5, 3, len(table.X)), ridge)
    found = table.least_squares(ridge)
    expected = ridge_rows(ridge_row, table, ridge)
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("biases", BIASES)
def test_regular_rows_are_solved_to_the_last_digits(ridge_row, biases, weighted):
    table = make_table(30, 25, 4, biases=biases, weighted=weighted)
    ridge = np.linspace(0.1, 0.5, table.W.shape[1])
    expected = ridge_rows(ridge_row, table, ridge)
    assert_allclose(table.least_squares(ridge), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("biases", BIASES)
def test_each_coefficient_has_its_own_penalty(ridge_row, biases):
    table = make_table(30, 25, biases=biases)
    ridge = np.geomspace(1e-3, 100, table.W.shape[1])
    expected = ridge_rows(ridge_row, table, ridge)
    assert_allclose(table.least_squares(ridge), expected, rtol=1e-9, atol=1e-12)


def test_each_row_may_have_its_own_penalties(ridge_row):
    table = make_table(20, 15)
    ridge = np.outer(np.geomspace(1e-3, 100, 20), [0.1, 0.2, 0.3, 0.4])
    ridge[::2] = ridge[::2, ::-1]
    expected = ridge_rows(ridge_row, table, ridge)
    assert_allclose(table.least_squares(ridge), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("biases", BIASES)
def test_rows_with_nothing_observed_are_zero(biases, ridge):
    table = make_table(9, 6, biases=biases)
    empty = ~table.mask.any(axis=1)
    assert empty.sum() >= 2
    found = table.least_squares(np.full(table.W.shape[1], ridge))
    assert_array_equal(found[empty], 0)


class TestSingularRows:
    """Rows that leave coefficients open."""

    @pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
    @pytest.mark.parametrize("biases", BIASES)
    @pytest.mark.parametrize("rank", [2, 7, 17])
    def test_have_the_solution_of_minimum_norm(self, ridge_row, rank, biases, weighted):
        table = make_table(30, 25, rank, share=0.3, biases=biases, weighted=weighted)
        ridge = np.zeros(table.W.shape[1])
        assert (np.count_nonzero(table.S, axis=1) < rank).any()
        expected = ridge_rows(ridge_row, table, ridge)
        assert_allclose(table.least_squares(ridge), expected, rtol=1e-4, atol=1e-6)

    def test_may_have_more_entries_than_coefficients(self, ridge_row):
        """All columns have the same factors, or factors of lower rank."""
        table, ridge = make_table(20, 15, 3, biases=(False, False)), np.zeros(3)
        for basis in (np.ones((3, 3)), np.diag([1.0, 1.0, 0.0])):
            singular = table._replace(H=table.H @ basis)
            found = singular.least_squares(ridge)
            expected = ridge_rows(ridge_row, singular, ridge)
            assert_allclose(found, expected, rtol=1e-6, atol=1e-8)

    def test_are_regular_where_a_ridge_settles_what_is_open(self, ridge_row):
        table = make_table(20, 15, 3, share=0.2)
        ridge = np.array([1e-6, 1e-6, 1e-6, 0])
        expected = ridge_rows(ridge_row, table, ridge)
        assert_allclose(table.least_squares(ridge), expected, rtol=1e-4, atol=1e-4)

    def test_leave_regular_rows_alone(self):
        mask = np.ones((6, 8), bool)
        mask[::2, 2:] = False
        table, ridge = make_table(mask=mask, biases=(False, False)), np.zeros(3)
        regular = table._replace(rows=table.rows.take([1, 3, 5]))
        assert_allclose(
            table.least_squares(ridge)[1::2],
            regular.least_squares(ridge),
            rtol=1e-12,
        )


@pytest.mark.parametrize("scale", [1e-60, 1.0, 1e60])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_rows_are_solved_at_any_scale(ridge_row, share, scale):
    """Data and factors of the same size have coefficients of order one."""
    table = make_table(20, 15, share=share, biases=(False, True))
    found = dispatch.least_squares(
        table.rows._replace(values=scale * table.rows.values),
        scale * table.H,
        table.biases,
        np.zeros(3),
    )
    expected = ridge_rows(ridge_row, table, np.zeros(3))
    assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_badly_conditioned_rows_are_solved_and_not_cut(condition):
    """The system of a row has the squared condition of its design."""
    rng = np.random.RandomState(0)
    basis = np.linalg.qr(rng.standard_normal((12, 4))).Q
    H, w = basis * np.geomspace(1, 1 / condition, 4), rng.standard_normal((1, 4))
    rows = Rows(np.array([0, 12]), np.arange(12, dtype=np.int32), (H @ w[0]), None, 12)
    found = dispatch.least_squares(rows, H, (False, False), np.zeros(4))
    assert_allclose(found, w, atol=1e-14 * condition**2)


@pytest.mark.parametrize("biases", BIASES)
def test_rows_know_nothing_of_each_other(biases):
    """Other rows, their number and their order change no bit of a row."""
    table = make_table(15, 12, share=0.9, biases=biases, weighted=True)
    ridge, chosen = np.full(table.W.shape[1], 0.5), np.array([11, 4, 6, 3])
    together = table.least_squares(ridge)
    apart = table._replace(rows=table.rows.take(chosen)).least_squares(ridge)
    assert_array_equal(apart, together[chosen])


# Losses, gradients, products


@given(table=tables())
@any_table
def test_the_loss_is_half_the_sum_of_weighted_squares(table):
    expected = 0.5 * (table.S * table.errors**2).sum()
    assert dispatch.loss(*table.arguments) == pytest.approx(expected, abs=1e-12)


@given(table=tables())
@any_table
def test_the_gradient_comes_with_the_loss(table):
    loss, gradient = dispatch.loss_and_gradient(*table.arguments)
    expected = (table.S * table.errors) @ table.design
    assert_allclose(gradient, expected, rtol=1e-10, atol=1e-12)
    expected = 0.5 * (table.S * table.errors**2).sum()
    assert loss == pytest.approx(expected, abs=1e-12)


@given(table=tables())
@any_table
def test_the_curvature_sums_the_squares_along_each_row(table):
    rows, W, H, biases = table.arguments
    expected = (table.S * (W @ table.design.T) ** 2).sum(axis=1)
    found = dispatch.curvature(rows, W, H, biases)
    assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@given(table=tables())
@any_table
def test_residuals_are_listed_with_the_entries(table):
    found = dispatch.residuals(*table.arguments)
    assert_allclose(found, table.errors[table.mask], rtol=1e-10, atol=1e-12)


@given(table=tables())
@any_table
def test_the_product_is_that_of_the_matrix_of_values(table):
    found = dispatch.product(table.rows, table.H)
    assert_allclose(found, table.X @ table.H, rtol=1e-10, atol=1e-12)


@given(table=tables(), seed=st.integers(0, 100))
@any_table
def test_entry_products_are_entries_of_the_product(table, seed):
    rng = np.random.RandomState(seed)
    W, H = rng.standard_normal(table.W.shape), table.H
    W, H = W[:, : H.shape[1]], H[:, : W.shape[1]]
    count = 20 if table.X.size else 0
    i, j = (rng.randint(max(size, 1), size=count) for size in table.X.shape)
    found = dispatch.entry_products(W, H, i, j)
    assert_allclose(found, (W @ H.T)[i, j], rtol=1e-10, atol=1e-12)


def test_entry_products_mix_types_as_numpy_does():
    W, H = np.ones((3, 2), np.float32), np.ones((4, 2))
    none = np.zeros(0, np.int32)
    for pair, dtype in (((W, H), float), ((W, W), np.float32), ((H, W), float)):
        assert dispatch.entry_products(*pair, none, none).dtype == dtype
        assert_array_equal(dispatch.entry_products(*pair, [0, 1], [2, 0]), 2)


# Weights


class TestWeights:
    @pytest.fixture(params=BIASES, ids=str)
    def table(self, request):
        return make_table(biases=request.param)

    @pytest.fixture
    def counts(self, table):
        """Return how often each entry counts: 0 to 3 times."""
        rng = np.random.RandomState(3)
        return rng.randint(4, size=table.rows.indices.size)

    def weighted_values(self, table, weights):
        rows = table.rows._replace(weights=np.asarray(weights, float))
        return every_answer(table._replace(rows=rows))

    def repeated(self, table, counts):
        """Rows may list an entry more than once."""
        ends = np.concatenate([[0], np.cumsum(counts)])
        rows = table.rows._replace(
            indptr=ends[table.rows.indptr],
            indices=np.repeat(table.rows.indices, counts),
            values=np.repeat(table.rows.values, counts),
        )
        return every_answer(table._replace(rows=rows))

    def compare(self, first, second, tolerance=1e-10):
        for name in (
            "least_squares",
            "loss_and_gradient: loss",
            "loss_and_gradient: gradient",
            "loss",
            "curvature",
        ):
            assert_allclose(
                first[name], second[name], rtol=tolerance, atol=1e-12, err_msg=name
            )

    def test_of_one_are_none(self, table, counts):
        self.compare(
            self.weighted_values(table, np.ones(len(counts))), every_answer(table)
        )

    def test_of_zero_leave_the_entry_out(self, table, counts):
        kept = counts > 0
        self.compare(self.weighted_values(table, kept), self.repeated(table, kept))

    def test_that_are_whole_repeat_the_entry(self, table, counts):
        self.compare(self.weighted_values(table, counts), self.repeated(table, counts))

    def test_of_zero_everywhere_make_a_row_empty(self, table, counts):
        """Without a ridge too, where nothing else settles the row."""
        rows = table.rows._replace(weights=np.zeros(len(counts)))
        found = table._replace(rows=rows).least_squares(np.zeros(table.W.shape[1]))
        assert_array_equal(found, 0)

    def test_do_not_touch_residuals_and_products(self, table, counts):
        ours, theirs = self.weighted_values(table, counts), every_answer(table)
        for name in ("residuals", "product", "entry_products"):
            assert_array_equal(ours[name], theirs[name])


# Stochastic steps


class Steps:
    """Entries in random order, and everything else that a step depends on."""

    ridges, etas, scales = (0.3, 0.7), (0.05, 0.1), (2.0, 0.5)

    def __init__(self, table, adaptive, seed=0):
        rng = np.random.RandomState(seed)
        rows, self.table = table.rows, table
        order = rng.permutation(rows.indices.size)
        listed = rows.row_numbers, rows.indices, rows.values, rows.weights
        self.entries = tuple(None if part is None else part[order] for part in listed)
        self.W, self.H = table.W.copy(), table.H.copy()
        sizes, dtype = table.X.shape, table.W.dtype
        self.shares = tuple(rng.uniform(0, 1, size).astype(dtype) for size in sizes)
        self.squares = None, None
        if adaptive:
            self.squares = tuple(rng.uniform(0, 1, (m, 2)).astype(dtype) for m in sizes)

    @property
    def changed(self):
        """All arrays that the steps change."""
        return self.W, self.H, *(part for part in self.squares if part is not None)

    def take(self, ranges=None):
        dispatch.stochastic_steps(
            self.entries,
            [(0, len(self.entries[0]))] if ranges is None else ranges,
            self.W,
            self.H,
            self.table.biases,
            self.shares,
            self.squares,
            ridges=self.ridges,
            etas=self.etas,
            scales=self.scales,
        )
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
            gradients = [error * h, error + 0 * b], [error * w, error + 0 * c]
            for own, gradient, index, share, squares in zip(
                ((w, b), (h, c)),
                gradients,
                (i, j),
                self.shares,
                self.squares,
                strict=True,
            ):
                for part in range(2):
                    step = self.etas[part]
                    if squares is not None and own[part].size:
                        step /= np.sqrt(1 + self.scales[part] * squares[index, part])
                        squares[index, part] += gradient[part] @ gradient[part]
                    penalty = self.ridges[part] * share[index] * own[part]
                    own[part][:] -= step * (gradient[part] + penalty)
        return self


class TestStochasticSteps:
    @pytest.fixture(params=[False, True], ids=["fixed", "adaptive"])
    def adaptive(self, request):
        return request.param

    @pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
    @pytest.mark.parametrize("biases", BIASES)
    @pytest.mark.parametrize("rank", [0, 1, 3, 9])
    def test_follow_the_gradient_of_one_entry_after_the_other(
        self, rank, biases, weighted, adaptive
    ):
        table = make_table(rank=rank, biases=biases, weighted=weighted)
        taken, expected = Steps(table, adaptive).take(), Steps(table, adaptive)
        for ours, theirs in zip(
            taken.changed, expected.take_slowly().changed, strict=True
        ):
            assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)

    def test_descend_in_single_precision_too(self, adaptive):
        table = make_table(dtype=np.float32)
        taken = Steps(table, adaptive).take()
        expected = Steps(table, adaptive).take_slowly()
        for ours, theirs in zip(taken.changed, expected.changed, strict=True):
            assert ours.dtype == np.float32
            assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)

    def test_of_no_entries_change_nothing(self, adaptive):
        table = make_table()
        for ranges in ([], [(3, 3)]):
            untouched = Steps(table, adaptive)
            for ours, theirs in zip(
                Steps(table, adaptive).take(ranges).changed,
                untouched.changed,
                strict=True,
            ):
                assert_array_equal(ours, theirs)

    @pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
    @pytest.mark.parametrize("operations", [1, 1e4, 1e9])
    def test_have_the_same_bits_on_any_number_of_threads(
        self, monkeypatch, adaptive, n_threads, operations
    ):
        """Of ranges without a row or column in common."""
        blocks = np.kron(np.eye(4, dtype=bool), np.ones((5, 4), bool))
        table = make_table(mask=blocks, weighted=True)
        ranges = [(k, k + 20) for k in (0, 20, 40, 60)]

        def take():
            steps = Steps(table, adaptive)
            listed = steps.table.rows.row_numbers, *steps.table.rows[1:4]
            steps.entries = tuple(listed)
            return steps.take(ranges).changed

        expected = take()
        monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
        monkeypatch.setattr(dispatch, "OPERATIONS", operations)
        for ours, theirs in zip(take(), expected, strict=True):
            assert_array_equal(ours, theirs)


# Precision, layout, ranges


@pytest.mark.parametrize("biases", BIASES)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_single_precision_stays_single_and_agrees(biases, weighted):
    """To about the square root of the number of terms, and the condition of a row."""
    single = make_table(40, 30, 8, biases=biases, weighted=weighted, dtype=np.float32)
    double = single._replace(
        rows=single.rows._replace(
            values=single.rows.values.astype(float),
            weights=None if not weighted else single.rows.weights.astype(float),
        ),
        W=single.W.astype(float),
        H=single.H.astype(float),
    )
    expected = every_answer(double)
    for name, found in every_answer(single).items():
        in_double = isinstance(found, float) or name == "curvature"
        assert in_double or found.dtype == np.float32, name
        scale = np.abs(expected[name]).max()
        tolerance = 1e-4 if name == "least_squares" else 1e-5
        assert_allclose(found, expected[name], atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_singular_rows_in_single_precision_have_minimum_norm(ridge_row, scale):
    table = make_table(20, 15, share=0.3, biases=(False, False), dtype=np.float32)
    found = dispatch.least_squares(
        table.rows._replace(values=table.rows.values * np.float32(scale)),
        table.H * np.float32(scale),
        table.biases,
        np.zeros(3),
    )
    expected = ridge_rows(ridge_row, table, np.zeros(3))
    assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "every other row": lambda A: np.repeat(A, 2, axis=0)[::2],
    "every other column": lambda A: np.repeat(A, 2, axis=1)[:, ::2],
    "turned around": lambda A: A[::-1, ::-1].copy()[::-1, ::-1],
    "part of a larger one": lambda A: np.pad(A, 3, mode="wrap")[3:-3, 3:-3],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factors_may_lie_in_memory_in_any_way(layout, dtype):
    table = make_table(dtype=dtype)
    expected = every_answer(table)
    W, H = layout(table.W), layout(table.H)
    assert not (W.flags.c_contiguous or H.flags.c_contiguous)
    for name, found in every_answer(table._replace(W=W, H=H)).items():
        assert_array_equal(found, expected[name], err_msg=name)


def test_nothing_that_is_given_is_changed():
    """All of it may be read-only."""
    table = make_table(weighted=True)
    for array in (*table.rows[:4], table.W, table.H):
        array.flags.writeable = False
    ridge, draws = np.ones((12, 4)), np.ones(table.W.shape)
    ridge.flags.writeable = draws.flags.writeable = False
    every_answer(table)
    table.least_squares(ridge, draws)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (3, 4)])
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("biases", BIASES)
def test_there_may_be_no_rows_no_columns_no_entries_and_no_factors(shape, rank, biases):
    mask = np.zeros(shape, bool)
    table = make_table(mask=mask, rank=rank, biases=biases)
    answers = every_answer(table)
    assert answers["least_squares"].shape == table.W.shape
    assert answers["product"].shape == (shape[0], table.H.shape[1])
    assert answers["residuals"].shape == answers["entry_products"].shape == (0,)
    for name, answer in answers.items():
        assert_array_equal(answer, 0, err_msg=name)


@pytest.fixture(scope="module")
def large():
    return make_table(200, 100, 8, share=0.3, weighted=True)


@pytest.fixture(scope="module")
def answers(large, kernels):
    return every_answer(large)


@pytest.mark.parametrize("operations", [1, 1e4])
def test_answers_do_not_depend_on_how_rows_are_cut_into_ranges(
    monkeypatch, kernels, large, answers, operations
):
    monkeypatch.setattr(dispatch, "OPERATIONS", operations)
    for name, found in every_answer(large).items():
        if kernels is numpy_kernels:  # multiplies out whole ranges
            assert_allclose(found, answers[name], rtol=1e-9, atol=1e-12, err_msg=name)
        else:
            assert_array_equal(found, answers[name], err_msg=name)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
def test_any_number_of_threads_gives_the_same_bits(
    monkeypatch, large, answers, n_threads
):
    monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
    monkeypatch.setattr(dispatch, "OPERATIONS", 1e4)
    for _ in range(3):
        found = every_answer(large)
        expected = answers if backend.kernels is not numpy_kernels else found
        for name in found:
            assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("size", [1, 50, 333])
def test_answers_do_not_depend_on_the_size_of_blocks(monkeypatch, large, answers, size):
    monkeypatch.setattr(linalg, "BLOCK", size)
    for name, found in every_answer(large).items():
        assert_allclose(found, answers[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_any_number_of_blas_threads_gives_the_same_bits():
    table = make_table(300, 200, 40, share=0.5)
    found = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"):
            found.append(table.least_squares(np.full(41, 0.1)))
    assert_array_equal(*found)


# Rows themselves


class TestRows:
    @pytest.fixture(params=[False, True], ids=["", "weighted"])
    def table(self, request):
        return make_table(weighted=request.param)

    def dense(self, rows, values):
        """Write entries out, those listed more than once summed."""
        out = np.zeros(rows.shape)
        np.add.at(out, (rows.row_numbers, rows.indices), values)
        return out

    def assert_is(self, rows, X, S):
        assert rows.shape == X.shape
        assert_array_equal(self.dense(rows, rows.values), X)
        if rows.weights is not None:
            assert_array_equal(self.dense(rows, rows.weights), S)
        types = [part.dtype for part in rows[:3]]
        assert types == [np.int64, np.int32, X.dtype]

    def test_transposed_are_the_same_entries_by_columns(self, table):
        self.assert_is(table.rows.transpose(), table.X.T, table.S.T)
        self.assert_is(table.rows.transpose().transpose(), table.X, table.S)

    def test_transposed_keep_what_is_listed_twice(self):
        rows = Rows(
            np.array([0, 3]), np.array([1, 1, 0], np.int32), np.ones(3), None, 2
        )
        twin = rows.transpose()
        assert_array_equal(twin.indptr, [0, 1, 3])
        assert_array_equal(twin.values, [1, 1, 1])

    def test_some_of_them_may_be_taken_in_any_order(self, table):
        chosen = np.array([5, 0, 5, 11])
        self.assert_is(table.rows.take(chosen), table.X[chosen], table.S[chosen])

    def test_none_of_them_may_be_taken(self, table):
        assert table.rows.take(np.zeros(0, int)).shape == (0, 9)

    def test_some_entries_may_be_selected(self, table):
        keep = np.random.RandomState(0).uniform(size=table.rows.indices.size) < 0.5
        dropped = np.concatenate([[0], np.cumsum(~keep)])[table.rows.indptr]
        kept = self.dense(table.rows, keep)
        self.assert_is(table.rows.select(keep, dropped), table.X * kept, table.S * kept)
