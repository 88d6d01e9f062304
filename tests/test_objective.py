"""The objectives against sums entry by entry: both sides, all biases, all kinds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse

from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._optim.objective import CompleteObjective, ObservedObjective

BIASES = [(False, False), (True, False), (False, True), (True, True)]
KINDS = [
    "dense",
    "dense with mean",
    "sparse",
    "sparse with mean",
    "observed",
    "observed, weighted",
    "all observed",
]


class Case:
    """An objective, and what it says by naive sums."""

    def __init__(
        self, kind, row_bias, column_bias, m=7, n=5, rank=2, seed=0, dtype=float
    ):
        rng = np.random.RandomState(seed)
        self.X = rng.standard_normal((m, n)).astype(dtype)
        self.mean = 0.7 if "mean" in kind else 0.0
        self.weights = np.ones((m, n), dtype)
        if kind.startswith("observed"):
            self.weights[rng.uniform(size=(m, n)) >= 0.6] = 0
        if "weighted" in kind:
            self.weights *= rng.uniform(0.2, 4, (m, n)).astype(dtype)
        if "sparse" in kind:
            self.X[rng.uniform(size=(m, n)) < 0.6] = 0
        self.X[self.weights == 0] = 0
        self.row_bias, self.column_bias = row_bias, column_bias
        self.objective = self.objective_of(kind, self.X)
        self.W = rng.standard_normal((m, rank + row_bias)).astype(dtype)
        self.H = rng.standard_normal((n, rank + column_bias)).astype(dtype)
        self.D = rng.standard_normal(self.W.shape).astype(dtype)

    def objective_of(self, kind, X):
        """Return what `kind` says of X."""
        flags = {"row_bias": self.row_bias, "column_bias": self.column_bias}
        if "observed" in kind:
            seen = self.weights > 0
            weights = self.weights[seen] if "weighted" in kind else None
            rows = rows_of(X, seen)._replace(weights=weights)
            return ObservedObjective(rows, **flags)
        X = sparse.csr_array(X) if "sparse" in kind else X
        return CompleteObjective(X, mean=self.mean, **flags)

    @property
    def T(self):
        """The same case seen from the columns."""
        other = object.__new__(Case)
        other.X, other.weights, other.mean = self.X.T, self.weights.T, self.mean
        other.row_bias, other.column_bias = self.column_bias, self.row_bias
        other.objective = self.objective.T
        other.W, other.H = self.H, self.W
        other.D = np.random.RandomState(1).standard_normal(self.H.shape)
        other.D = other.D.astype(self.D.dtype)
        return other

    def regressors(self, j):
        factors = self.H[j, :-1] if self.column_bias else self.H[j]
        return np.append(factors, 1.0) if self.row_bias else factors

    def target(self, i, j):
        return float(self.X[i, j]) - self.mean - self.column_bias * self.H[j, -1]

    def observed(self, i):
        return np.flatnonzero(self.weights[i])

    def value(self, W):
        return 0.5 * sum(
            self.weights[i, j] * (self.target(i, j) - W[i] @ self.regressors(j)) ** 2
            for i in range(len(W))
            for j in self.observed(i)
        )

    def curvature(self):
        return [
            sum(
                self.weights[i, j] * (self.D[i] @ self.regressors(j)) ** 2
                for j in self.observed(i)
            )
            for i in range(len(self.D))
        ]

    def system(self, i):
        """Regressors and targets whose squared error is that of row i."""
        roots = np.sqrt(self.weights[i, self.observed(i)])
        design = np.array([self.regressors(j) for j in self.observed(i)])
        target = np.array([self.target(i, j) for j in self.observed(i)])
        design = design.reshape(len(target), self.W.shape[1])
        return roots[:, None] * design, roots * target


@pytest.fixture(
    params=[(kind, *biases) for kind in KINDS for biases in BIASES],
    ids=lambda p: f"{p[0]}{', row bias' * p[1]}{', column bias' * p[2]}",
)
def kind_and_biases(request):
    return request.param


@pytest.fixture
def case(kind_and_biases):
    """Take turns in seeing them from the rows and from the columns."""
    kind, *biases = kind_and_biases
    turn = KINDS.index(kind) + BIASES.index(tuple(biases))
    case = Case(kind, *biases)
    return case.T if turn % 2 else case


def test_value_is_half_the_sum_of_squares(case):
    assert case.objective.value(case.W, case.H) == pytest.approx(case.value(case.W))


def test_value_and_gradient_share_the_value(case):
    value, _ = case.objective.value_and_gradient(case.W, case.H)
    assert value == pytest.approx(case.value(case.W))


def test_gradient_is_that_of_central_differences(case):
    _, gradient = case.objective.value_and_gradient(case.W, case.H)
    for index in np.ndindex(case.W.shape):
        shift = np.zeros_like(case.W)
        shift[index] = 1e-5
        difference = case.value(case.W + shift) - case.value(case.W - shift)
        assert gradient[index] == pytest.approx(difference / 2e-5, rel=1e-6, abs=1e-6)


def test_curvature_is_the_second_derivative_along_each_row(case):
    curvature = case.objective.curvature(case.D, case.H)
    assert_allclose(curvature, case.curvature(), rtol=1e-10)


def test_least_squares_solves_the_ridge_problem_of_each_row(case, ridge_row):
    ridge = np.linspace(0.1, 0.5, case.W.shape[1])
    W = case.objective.least_squares(case.H, ridge)
    for i, w in enumerate(W):
        assert_allclose(w, ridge_row(*case.system(i), ridge), rtol=1e-9, atol=1e-12)


def test_least_squares_lowers_the_value_and_ends_the_gradient(case):
    ridge = np.zeros(case.W.shape[1])
    W = case.objective.least_squares(case.H, ridge)
    value, gradient = case.objective.value_and_gradient(W, case.H)
    assert value <= case.value(case.W)
    assert_allclose(gradient, 0, atol=1e-10)


def test_gram_sums_over_all_columns_with_the_largest_weight(case):
    expected = case.weights.max() * sum(
        np.outer(case.regressors(j), case.regressors(j)) for j in range(len(case.H))
    )
    assert_allclose(case.objective.gram(case.H), expected, rtol=1e-12)


def test_gram_bounds_the_second_derivative_of_every_row(case):
    bound = np.einsum("ij,ij->i", case.D @ case.objective.gram(case.H), case.D)
    assert (case.curvature() <= (1 + 1e-12) * bound).all()


def test_deflated_data_are_the_data_without_biases(case):
    b = np.linspace(-1, 1, len(case.W))[:, None][:, : int(case.row_bias)]
    c = np.linspace(2, 3, len(case.H))[:, None][:, : int(case.column_bias)]
    expected = case.X - case.mean - b.sum(axis=1)[:, None] - c.sum(axis=1)
    expected = np.where(case.weights > 0, expected, 0)
    A = case.objective.deflate(b, c)
    assert A.shape == case.X.shape
    assert_allclose(A @ np.eye(A.shape[1]), expected, atol=1e-12)
    assert_allclose(A.T @ np.eye(A.shape[0]), expected.T, atol=1e-12)


def test_total_is_the_weighted_sum_of_the_squared_data(case):
    assert case.objective.total == pytest.approx((case.weights * case.X**2).sum())


def test_transposing_twice_is_the_objective_itself(case):
    twice = case.objective.T.T
    assert twice.value(case.W, case.H) == case.objective.value(case.W, case.H)
    assert_allclose(
        twice.curvature(case.D, case.H), case.objective.curvature(case.D, case.H)
    )


def test_both_sides_have_the_same_value(case):
    assert case.objective.T.value(case.H, case.W) == pytest.approx(
        case.objective.value(case.W, case.H), rel=1e-12
    )


def test_single_precision_stays_single_and_agrees(kind_and_biases):
    single = Case(*kind_and_biases, dtype=np.float32)
    double = Case(*kind_and_biases)
    ridge = np.full(single.W.shape[1], 0.1)
    value, gradient = single.objective.value_and_gradient(single.W, single.H)
    rows = single.objective.least_squares(single.H, ridge)
    assert gradient.dtype == rows.dtype == np.float32
    assert value == pytest.approx(double.value(double.W), rel=1e-5)
    expected = double.objective.value_and_gradient(double.W, double.H)[1]
    assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)
    expected = double.objective.least_squares(double.H, ridge)
    assert_allclose(rows, expected, rtol=1e-3, atol=1e-4)


def assert_same_answers(first, second, W, H):
    """Both objectives say the same, and so do their other sides."""
    for (one, other), factors in (
        ((first, second), (W, H)),
        ((first.T, second.T), (H, W)),
    ):
        ridge = np.full(factors[0].shape[1], 0.3)
        for ours, theirs in (
            (one.total, other.total),
            *zip(
                one.value_and_gradient(*factors),
                other.value_and_gradient(*factors),
                strict=True,
            ),
            (one.value(*factors), other.value(*factors)),
            (one.curvature(*factors), other.curvature(*factors)),
            (
                one.least_squares(factors[1], ridge),
                other.least_squares(factors[1], ridge),
            ),
        ):
            assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("row_bias, column_bias", BIASES)
def test_a_complete_matrix_may_be_listed(row_bias, column_bias):
    listed = Case("all observed", row_bias, column_bias)
    complete = Case("dense", row_bias, column_bias)
    assert_same_answers(listed.objective, complete.objective, listed.W, listed.H)


class TestWeights:
    @pytest.fixture(params=BIASES, ids=str)
    def case(self, request):
        return Case("observed", *request.param)

    @pytest.fixture
    def counts(self, case):
        """Return how often each entry counts: 0 to 3 times."""
        rng = np.random.RandomState(3)
        return rng.randint(4, size=case.objective.rows.indices.size)

    def weighted_values(self, case, weights):
        rows = case.objective.rows
        weights = np.asarray(weights, rows.values.dtype)
        flags = {"row_bias": case.row_bias, "column_bias": case.column_bias}
        return ObservedObjective(rows._replace(weights=weights), **flags)

    def repeated(self, case, counts):
        """List every entry as often as it counts."""
        rows = case.objective.rows
        ends = np.concatenate([[0], np.cumsum(counts)])
        rows = rows._replace(
            indptr=ends[rows.indptr],
            indices=np.repeat(rows.indices, counts),
            values=np.repeat(rows.values, counts),
        )
        flags = {"row_bias": case.row_bias, "column_bias": case.column_bias}
        return ObservedObjective(rows, **flags)

    def test_of_one_are_none(self, case, counts):
        weighted = self.weighted_values(case, np.ones(len(counts)))
        assert_same_answers(weighted, case.objective, case.W, case.H)

    def test_of_zero_leave_the_entry_out(self, case, counts):
        kept = counts > 0
        weighted, left = self.weighted_values(case, kept), self.repeated(case, kept)
        assert_same_answers(weighted, left, case.W, case.H)

    def test_that_are_whole_repeat_the_entry(self, case, counts):
        weighted, repeated = (
            self.weighted_values(case, counts),
            self.repeated(case, counts),
        )
        assert_same_answers(weighted, repeated, case.W, case.H)

    def test_all_alike_scale_the_objective(self, case, counts):
        weighted = self.weighted_values(case, np.full(len(counts), 2.5))
        pairs = zip(
            weighted.value_and_gradient(case.W, case.H),
            case.objective.value_and_gradient(case.W, case.H),
            strict=True,
        )
        for ours, theirs in pairs:
            assert_allclose(ours, 2.5 * theirs, rtol=1e-10, atol=1e-12)
        ridge = np.full(case.W.shape[1], 0.3)
        assert_allclose(
            weighted.least_squares(case.H, 2.5 * ridge),
            case.objective.least_squares(case.H, ridge),
            rtol=1e-10,
            atol=1e-12,
        )

    def test_leave_the_deflated_data_alone(self, case, counts):
        b = np.ones((len(case.W), int(case.row_bias)))
        c = np.ones((len(case.H), int(case.column_bias)))
        ours = self.weighted_values(case, counts).deflate(b, c) @ np.eye(len(c))
        assert_allclose(ours, case.objective.deflate(b, c) @ np.eye(len(c)))


@given(
    kind=st.sampled_from(KINDS),
    biases=st.sampled_from(BIASES),
    m=st.integers(1, 9),
    n=st.integers(1, 9),
    rank=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_value_and_curvature_hold_for_any_shape(kind, biases, m, n, rank, seed):
    case = Case(kind, *biases, m=m, n=n, rank=rank, seed=seed)
    for side in (case, case.T):
        value = side.objective.value(side.W, side.H)
        assert value == pytest.approx(side.value(side.W), abs=1e-12)
        curvature = side.objective.curvature(side.D, side.H)
        assert_allclose(curvature, side.curvature(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("row_bias, column_bias", BIASES)
@pytest.mark.parametrize(
    "kind", ["dense", "dense with mean", "observed", "observed, weighted"]
)
@pytest.mark.parametrize("noise", [1e-3, 1e-6, 1e-9])
def test_the_value_of_a_nearly_perfect_fit_has_six_digits(
    kind, row_bias, column_bias, noise
):
    case = Case(kind, row_bias, column_bias, m=30, n=20)
    design = np.array([case.regressors(j) for j in range(len(case.H))])
    exact = case.W @ design.T + case.mean + case.column_bias * case.H[:, -1]
    rng = np.random.RandomState(2)
    X = exact + noise * rng.standard_normal(exact.shape)
    objective = case.objective_of(kind, X)
    expected = 0.5 * (case.weights * (X - exact) ** 2).sum()
    assert objective.value(case.W, case.H) == pytest.approx(expected, rel=1e-6)
    assert objective.T.value(case.H, case.W) == pytest.approx(expected, rel=1e-6)
