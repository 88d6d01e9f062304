"""The objectives against sums entry by entry: both sides, all biases, all kinds."""

from copy import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels.rows import Biases, Rows
from sklearn_mfgd._optim import objective
from sklearn_mfgd._optim.objective import CompleteObjective, ObservedObjective

NONE, ROW, COLUMN, BOTH = (
    Biases(row, column) for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))
)
KINDS = {
    "dense": [ROW],
    "dense with mean": [BOTH],
    "sparse": [NONE],
    "sparse with mean": [COLUMN, BOTH],
    "observed": [NONE, COLUMN],
    "observed, weighted": [ROW, BOTH],
}
CASES = [(kind, biases) for kind, several in KINDS.items() for biases in several]


class Case:
    """An objective, and its reference implementation by naive sums."""

    def __init__(
        self,
        kind,
        biases,
        m=7,
        n=5,
        rank=2,
        seed=0,
        dtype=float,
        without_entries=(),
    ):
        rng = np.random.RandomState(seed)
        self.kind, self.biases = kind, biases
        self.X = rng.standard_normal((m, n)).astype(dtype)
        self.mean = 0.7 if "mean" in kind else 0.0
        self.weights = np.ones((m, n), dtype)
        if kind.startswith("observed"):
            self.weights[rng.uniform(size=(m, n)) >= 0.6] = 0
            self.weights[list(without_entries)] = 0
        if "weighted" in kind:
            self.weights *= rng.uniform(0.2, 4, (m, n)).astype(dtype)
        if "sparse" in kind:
            self.X[rng.uniform(size=(m, n)) < 0.6] = 0
        self.X[self.weights == 0] = 0
        self.objective = self.objective_of(self.X)
        self.W = rng.standard_normal((m, rank + biases.row)).astype(dtype)
        self.H = rng.standard_normal((n, rank + biases.column)).astype(dtype)
        self.D = rng.standard_normal(self.W.shape).astype(dtype)

    def objective_of(self, X):
        if "observed" in self.kind:
            observed = self.weights > 0
            weights = self.weights[observed] if "weighted" in self.kind else None
            rows = rows_of(X, observed)._replace(weights=weights)
            return ObservedObjective(rows, biases=self.biases)
        X = sparse.csr_array(X) if "sparse" in self.kind else X
        return CompleteObjective(X, mean=self.mean, biases=self.biases)

    @property
    def T(self):
        """The same case seen from the columns."""
        other = copy(self)
        other.X, other.weights = self.X.T, self.weights.T
        other.W, other.H = self.H, self.W
        other.biases, other.objective = Biases(*self.biases[::-1]), self.objective.T
        other.D = np.random.RandomState(1).standard_normal(self.H.shape)
        return other

    @property
    def regressors(self):
        factors = self.H[:, :-1] if self.biases.column else self.H
        return np.column_stack([factors, np.ones((len(self.H), int(self.biases.row)))])

    @property
    def targets(self):
        return self.X - self.mean - self.biases.column * self.H[:, -1]

    def value(self, W):
        residuals = self.targets - W @ self.regressors.T
        return 0.5 * (self.weights * residuals**2).sum()

    def curvature(self):
        return (self.weights * (self.D @ self.regressors.T) ** 2).sum(axis=1)


@pytest.fixture(params=CASES, ids=str)
def kind_and_biases(request):
    return request.param


@pytest.fixture(params=["rows", "columns"])
def case(request, kind_and_biases):
    case = Case(*kind_and_biases)
    return case if request.param == "rows" else case.T


def test_the_value_is_half_the_sum_of_squares_and_the_gradient_its_derivative(case):
    value, gradient = case.objective.value_and_gradient(case.W, case.H)
    assert value == pytest.approx(case.value(case.W))
    assert case.objective.value(case.W, case.H) == pytest.approx(value, rel=1e-12)
    for index in np.ndindex(case.W.shape):
        shift = np.zeros_like(case.W)
        shift[index] = 1e-5
        difference = case.value(case.W + shift) - case.value(case.W - shift)
        assert gradient[index] == pytest.approx(difference / 2e-5, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_least_squares_solves_the_ridge_problem_of_each_row(case, ridge_row, ridge):
    ridge = ridge * np.arange(1, case.W.shape[1] + 1)
    roots = np.sqrt(case.weights)
    for i, w in enumerate(case.objective.least_squares(case.H, ridge)):
        design = roots[i][:, None] * case.regressors
        expected = ridge_row(design, roots[i] * case.targets[i], ridge)
        assert_allclose(w, expected, rtol=1e-8, atol=1e-12)


def test_the_gram_matrix_has_the_largest_weight_and_the_total_each_weight(case):
    expected = case.weights.max() * case.regressors.T @ case.regressors
    assert_allclose(case.objective.gram(case.H), expected, rtol=1e-12)
    assert case.objective.total == pytest.approx((case.weights * case.X**2).sum())


def test_deflated_data_are_the_data_without_biases_and_zero_where_missing(case):
    b = np.linspace(-1, 1, len(case.W))[:, None][:, : int(case.biases.row)]
    c = np.linspace(2, 3, len(case.H))[:, None][:, : int(case.biases.column)]
    expected = case.X - case.mean - b.sum(axis=1)[:, None] - c.sum(axis=1)
    expected = np.where(case.weights > 0, expected, 0)
    A = case.objective.deflate(b, c)
    assert A.shape == case.X.shape
    assert_allclose(A @ np.eye(A.shape[1]), expected, atol=1e-12)
    assert_allclose(A.T @ np.eye(A.shape[0]), expected.T, atol=1e-12)


@pytest.mark.parametrize("block", [1, 4, 2**20])
@pytest.mark.parametrize("biases", [NONE, ROW, COLUMN, BOTH])
@pytest.mark.parametrize("kind", ["observed", "observed, weighted"])
def test_deflated_entries_are_made_some_rows_at_a_time(
    monkeypatch, kernels, kind, biases, block
):
    """Weights say how much an entry counts, not what it is."""
    monkeypatch.setattr(objective, "BLOCK_ENTRIES", block)
    case = Case(kind, biases, m=9, without_entries=[0, 4])
    rank = case.W.shape[1] - biases.row
    b, c = case.W[:, rank:], case.H[:, case.H.shape[1] - biases.column :]
    expected = case.X - b.sum(axis=1)[:, None] - c.sum(axis=1)
    expected = np.where(case.weights > 0, expected, 0)
    A, V = case.objective.deflate(b, c), case.D
    U = np.random.RandomState(2).standard_normal((5, 3))
    assert_allclose(A @ U, expected @ U, atol=1e-12)
    assert_allclose(A.T @ V, expected.T @ V, atol=1e-12)
    assert_allclose(A.T.T @ U, expected @ U, atol=1e-12)
    for seen in (A, A.T):
        assert seen.largest() == pytest.approx(np.abs(expected).max(), rel=1e-12)


@pytest.mark.parametrize("block", [1, 4, 2**20])
@pytest.mark.parametrize("without_entries", [[7, 8], range(9)], ids=["some", "all"])
def test_rows_at_the_end_may_have_no_entry_to_deflate(
    monkeypatch, block, without_entries
):
    """As where all of theirs are held out."""
    monkeypatch.setattr(objective, "BLOCK_ENTRIES", block)
    case = Case("observed", NONE, m=9, without_entries=without_entries)
    case.objective.rows.values[-5:] = 7  # in a row of several
    A = case.objective.deflate(np.zeros((9, 0)), np.zeros((5, 0)))
    assert A.largest() == np.abs(case.objective.rows.values).max(initial=0)


def test_deflated_data_have_the_sign_and_type_of_the_data(kernels):
    """With biases of zero they are the data, digit for digit."""
    case = Case("observed", BOTH, dtype=np.float32)
    zeros = [np.zeros((length, 1), np.float32) for length in case.X.shape]
    product = case.objective.deflate(*zeros) @ np.eye(5, dtype=np.float32)
    assert product.dtype == np.float32
    assert_array_equal(product, case.X)


@pytest.mark.parametrize("kind", ["observed", "observed, weighted"])
def test_the_pattern_has_ones_where_an_entry_is_observed(kernels, kind):
    case = Case(kind, BOTH, m=9, without_entries=[0, 4, 8])
    observed, pattern = case.weights > 0, case.objective.pattern
    for mask, side in ((observed, pattern), (observed.T, pattern.T)):
        V = np.random.RandomState(2).standard_normal((mask.shape[1], 3))
        assert side.shape == mask.shape
        assert_allclose(side @ V, mask @ V, atol=1e-12)
        counts = mask.sum(axis=1)
        assert_array_equal(side.counts, counts)
        assert_array_equal(np.repeat(*side.count_histogram()), np.sort(counts))
    assert case.objective.n_observed == observed.sum()


def test_single_precision_stays_single_and_agrees(kind_and_biases):
    answers = []
    for dtype in (np.float32, np.float64):
        case = Case(*kind_and_biases, dtype=dtype)
        rows = case.objective.least_squares(case.H, np.full(case.W.shape[1], 0.1))
        answers.append((*case.objective.value_and_gradient(case.W, case.H), rows))
        assert answers[-1][1].dtype == rows.dtype == dtype
    for single, double, rtol in zip(*answers, (1e-5, 1e-4, 1e-3), strict=True):
        assert_allclose(single, double, rtol=rtol, atol=1e-4)


@pytest.mark.parametrize("biases", [NONE, BOTH])
@pytest.mark.parametrize("kind", ["observed", "observed, weighted"])
def test_the_value_is_the_same_to_its_last_digit_in_any_order_of_rows(
    kernels, kind, biases
):
    case = Case(kind, biases, m=200)
    expected = case.objective.value(case.W, case.H)
    for seed in range(5):
        order = np.random.RandomState(seed).permutation(200)
        rows = case.objective.rows.take(order)
        moved = ObservedObjective(rows, biases=biases)
        assert moved.value(case.W[order], case.H) == expected
        assert moved.value_and_gradient(case.W[order], case.H)[0] == expected


def assert_same_answers(first, second, case, scale=1.0):
    """The second objective is `scale` times the first, seen from either side."""
    sides = (first, second, case.W, case.H), (first.T, second.T, case.H, case.W)
    for one, other, F, G in sides:
        ours, theirs = (
            [*each.value_and_gradient(F, G), each.total, each.curvature(F, G)]
            for each in (one, other)
        )
        for mine, yours in zip(ours, theirs, strict=True):
            assert_allclose(scale * mine, yours, rtol=1e-10, atol=1e-12)
        ridge = np.full(F.shape[1], 0.3)
        rows = other.least_squares(G, scale * ridge)
        assert_allclose(one.least_squares(G, ridge), rows, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("biases", [NONE, ROW, COLUMN, BOTH])
def test_the_entries_of_a_complete_matrix_may_be_listed(biases):
    listed, complete = Case("all observed", biases), Case("dense", biases)
    assert_same_answers(listed.objective, complete.objective, listed)


@pytest.mark.parametrize("biases", [NONE, BOTH])
@pytest.mark.parametrize("largest", [0, 1, 3], ids=["all one", "zero or one", "whole"])
def test_a_weight_repeats_the_entry_that_often_and_scales_it(biases, largest):
    case = Case("observed", biases)
    rows = case.objective.rows
    rng = np.random.RandomState(3)
    counts = rng.randint(largest == 0, max(largest, 1) + 1, rows.values.size)
    ends = np.concatenate([[0], np.cumsum(counts)])
    indices, values = (np.repeat(part, counts) for part in (rows.indices, rows.values))
    repeated = Rows(ends[rows.indptr], indices, values, None, rows.n_columns)
    kinds = [repeated, *(rows._replace(weights=k * counts) for k in (1.0, 2.5))]
    first, *others = (ObservedObjective(each, biases=biases) for each in kinds)
    for other, scale in zip(others, (1.0, 2.5), strict=True):
        assert_same_answers(first, other, case, scale)


@given(
    kind=st.sampled_from(list(KINDS)),
    biases=st.sampled_from([NONE, ROW, COLUMN, BOTH]),
    shape_and_rank=st.tuples(*(st.integers(1, most) for most in (9, 9, 4))),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_value_and_curvature_hold_for_any_shape(kind, biases, shape_and_rank, seed):
    case = Case(kind, biases, *shape_and_rank, seed=seed)
    for side in (case, case.T):
        value = side.objective.value(side.W, side.H)
        assert value == pytest.approx(side.value(side.W), abs=1e-12)
        curvature = side.objective.curvature(side.D, side.H)
        assert_allclose(curvature, side.curvature(), rtol=1e-10, atol=1e-12)


@pytest.mark.pairwise(
    kind=["dense", "dense with mean", "observed, weighted"],
    biases=[NONE, COLUMN, BOTH],
    noise=[1e-3, 1e-6, 1e-9],
)
def test_the_value_of_a_nearly_perfect_fit_has_six_digits(kind, biases, noise):
    case = Case(kind, biases, m=30, n=20)
    exact = case.X - case.targets + case.W @ case.regressors.T
    X = exact + noise * np.random.RandomState(2).standard_normal(exact.shape)
    objective = case.objective_of(X)
    error = 0.5 * (case.weights * (X - exact) ** 2).sum()
    expected = pytest.approx(error, rel=1e-6, abs=0)
    assert objective.value(case.W, case.H) == expected
    assert objective.T.value(case.H, case.W) == expected
