"""Packed moments, their sums over entries, and the Gaussian posterior of a row."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_mfgd._bayes.moments import (
    diagonal,
    expectations,
    moments_of,
    n_pairs,
    pack,
    packed_size,
    total,
    unpack,
)
from sklearn_mfgd._data import row_blocks
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._data.row_blocks import row_blocks_of
from sklearn_mfgd._kernels import dispatch, linalg

BIASES = [(False, False), (True, False), (False, True), (True, True)]
BIASED = pytest.mark.parametrize("biased", [False, True], ids=["", "biased"])


class Side(NamedTuple):
    """Gaussian [h, c] of every column."""

    means: np.ndarray
    covariances: np.ndarray
    biased: bool

    @property
    def rank(self):
        return self.means.shape[1] - self.biased

    @property
    def moments(self):
        return moments_of(self.means, pack(self.covariances), self.biased)

    def vectors(self, drop_bias=False):
        """Return mean and covariance of every v = [h, 1, c], or of [h, 1]."""
        means = np.insert(self.means, self.rank, 1.0, axis=1)
        covariances = np.insert(self.covariances, self.rank, 0.0, axis=1)
        covariances = np.insert(covariances, self.rank, 0.0, axis=2)
        keep = slice(self.rank + 1 if drop_bias else None)
        return means[:, keep], covariances[:, keep, keep]


def make_side(n, rank, biased, seed=0, dtype=float):
    rng = np.random.RandomState(seed)
    q = rank + biased
    roots = 0.5 * rng.standard_normal((n, q, q))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(q)
    means = rng.standard_normal((n, q))
    return Side(means.astype(dtype), covariances.astype(dtype), biased)


# Layout


def test_a_triangle_is_packed_row_by_row():
    matrix = np.array([[1, 2, 4], [2, 3, 5], [4, 5, 6]])
    assert_array_equal(pack(matrix), [1, 2, 3, 4, 5, 6])
    assert n_pairs(3) == 6


@pytest.mark.parametrize("length", range(6))
def test_unpacking_gives_back_what_was_packed(length):
    rng = np.random.RandomState(length)
    matrices = rng.standard_normal((4, 3, length, length))
    matrices += matrices.swapaxes(-1, -2)
    packed = pack(matrices)
    assert packed.shape == (4, 3, n_pairs(length))
    assert_array_equal(unpack(packed, length), matrices)


def test_the_leading_rows_may_be_unpacked_alone():
    matrix = np.arange(16.0).reshape(4, 4)
    matrix += matrix.T
    assert_array_equal(unpack(pack(matrix), 2), matrix[:2, :2])


@pytest.mark.parametrize("length", range(5))
def test_the_diagonal_has_its_places(length):
    marks = np.diag(np.arange(1, length + 1))
    assert_array_equal(pack(marks)[diagonal(length)], np.arange(1, length + 1))
    assert np.count_nonzero(pack(marks)) == length


@BIASED
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_moments_are_those_of_factors_one_and_bias(rank, biased):
    side = make_side(5, rank, biased)
    assert side.moments.shape == (5, packed_size(rank, biased))
    means, covariances = side.vectors()
    for second_moment, mean, covariance in zip(
        side.moments, means, covariances, strict=True
    ):
        second = covariance + np.outer(mean, mean)
        assert_allclose(second_moment, pack(second), rtol=1e-12, atol=1e-12)


@BIASED
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_expectations_stand_among_the_moments(rank, biased):
    side = make_side(5, rank, biased)
    assert_array_equal(expectations(side.moments, rank), side.vectors()[0])


def test_moments_stay_in_their_precision():
    side = make_side(5, 3, True, dtype=np.float32)
    assert side.moments.dtype == expectations(side.moments, 3).dtype == np.float32
    assert total(side.moments).dtype == np.float64


@BIASED
def test_the_total_sums_all_rows(biased):
    moments = make_side(50, 3, biased).moments
    assert_allclose(total(moments), moments.sum(axis=0), rtol=1e-12)


# Sums over entries


PATTERNS = ["few", "most", "all", "shared", "empty rows and columns"]


def pattern(name, m=17, n=11):
    rng = np.random.RandomState(0)
    mask = rng.uniform(size=(m, n)) < {"few": 0.3, "most": 0.8}.get(name, 1)
    if name == "shared":
        mask = (rng.uniform(size=(3, n)) < 0.7)[rng.randint(3, size=m)]
    elif name == "empty rows and columns":
        mask[::5], mask[:, 3] = False, False
    return mask


def entries(mask, weighted=False, dtype=float):
    """Return the entries, and the same written out: weighted values and weights."""
    rng = np.random.RandomState(1)
    X = np.where(mask, rng.standard_normal(mask.shape), 0).astype(dtype)
    S, rows = mask.astype(dtype), rows_of(X, mask)
    if weighted:
        S *= rng.choice([0.5, 1, 3], size=mask.shape)
        rows = rows._replace(weights=S[mask].astype(dtype))
    return rows, S * X, S


def assert_blocks_sum(rows, products, S, size=15):
    """Compare all that blocks sum up to products with the whole matrices."""
    (m, n), rng = rows.shape, np.random.RandomState(2)
    of_columns, of_rows = rng.standard_normal((n, size)), rng.standard_normal((m, size))
    blocks, holes = row_blocks_of(rows, size)
    seen = np.zeros(m)
    by_column, targets = np.zeros((n, size)), np.zeros((n, size))
    for block in blocks:
        everything = of_columns.sum(axis=0) if holes else None
        sums = block.sum_over_columns(of_columns, everything)[block.which]
        assert_allclose(sums, (S @ of_columns)[block.rows], atol=1e-11)
        linear = dispatch.product(block.by_rows, of_columns)
        assert_allclose(linear, (products @ of_columns)[block.rows], atol=1e-11)
        own = of_rows[block.rows]
        everything = own.sum(axis=0) if holes else None
        by_column += block.sum_over_rows(own, everything)
        targets += dispatch.product(block.by_columns, own)
        seen[block.rows] += 1
    assert_array_equal(seen, 1)
    assert_allclose(by_column, S.T @ of_rows, atol=1e-11)
    assert_allclose(targets, products.T @ of_rows, atol=1e-11)
    return blocks, holes


class TestBlocks:
    """All sums are those of the whole matrix, whatever they are made of."""

    @pytest.fixture(params=[2**21, 15 * 5, 15, 1], ids="of {}".format, autouse=True)
    def size(self, request, monkeypatch):
        """Let a block take the moments of all rows, of five, of one."""
        monkeypatch.setattr(row_blocks, "BLOCK", request.param)
        return request.param

    @pytest.mark.parametrize("name", PATTERNS)
    def test_sum_over_entries(self, kernels, name, size):
        blocks, holes = assert_blocks_sum(*entries(pattern(name)))
        assert holes == (name != "few")
        assert len(blocks) == {2**21: 1, 75: 4}.get(size, 17)

    @pytest.mark.parametrize("name", PATTERNS)
    def test_sum_over_weighted_entries(self, kernels, name):
        """There are no holes to be counted instead."""
        _, holes = assert_blocks_sum(*entries(pattern(name), weighted=True))
        assert not holes


def test_rows_with_one_pattern_share_their_sums():
    (block,), holes = row_blocks_of(entries(pattern("shared"))[0], 15)
    assert holes
    assert block.row_pattern.shape[0] == 3
    assert sorted(set(block.which)) == [0, 1, 2]
    assert (np.diff(block.which) >= 0).all()  # one after the other


def test_complete_rows_have_no_holes_to_sum_over():
    (block,), holes = row_blocks_of(entries(pattern("all"))[0], 15)
    assert holes
    assert block.row_pattern.shape[0] == 1
    assert block.row_pattern.indices.size == block.column_pattern.indices.size == 0


def test_patterns_of_which_few_are_the_same_are_not_shared():
    mask = np.random.RandomState(0).uniform(size=(30, 40)) < 0.7
    mask[1] = mask[0]
    (block,), _ = row_blocks_of(entries(mask)[0], 15)
    assert_array_equal(block.which, np.arange(30))


@pytest.mark.parametrize("share, holes", [(0.49, False), (0.51, True)])
def test_holes_are_counted_where_less_than_half_is_missing(share, holes):
    mask = np.zeros(1000, bool)
    mask[: int(1000 * share)] = True
    mask = np.random.RandomState(0).permutation(mask).reshape(50, 20)
    assert row_blocks_of(entries(mask)[0], 15)[1] == holes


def test_single_precision_sums_agree_to_its_last_digits(kernels):
    for name in PATTERNS:
        rows, _, S = entries(pattern(name), dtype=np.float32)
        moments = np.random.RandomState(2).uniform(1, 2, (11, 15)).astype(np.float32)
        (block,), holes = row_blocks_of(rows, 15)
        sums = block.sum_over_columns(moments, total(moments) if holes else None)
        assert sums.dtype == np.float32
        assert_allclose(sums[block.which], (S @ moments)[block.rows], atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_a_range_of_rows_is_taken_without_a_copy(weighted):
    rows, _, _ = entries(pattern("few"), weighted)
    part, expected = rows.between(4, 9), rows.take(np.arange(4, 9))
    for ours, theirs in zip(part, expected, strict=True):
        if ours is None:
            assert theirs is None
        else:
            assert_array_equal(ours, theirs)
    assert np.shares_memory(part.values, rows.values)


# Posteriors


class Given(NamedTuple):
    """Columns, entries, and what `dispatch.posterior` wants to know of them."""

    columns: Side
    X: np.ndarray
    S: np.ndarray
    scale: np.ndarray
    prior: np.ndarray
    row_bias: bool

    @property
    def biases(self):
        return self.row_bias, self.columns.biased

    def posterior(self, dtype=float, **options):
        moments = self.columns.moments
        linear = expectations(moments, self.columns.rank)
        return dispatch.posterior(
            (self.S @ moments).astype(dtype),
            np.arange(len(self.X)),
            ((self.S * self.X) @ linear).astype(dtype),
            self.scale,
            pack(self.prior),
            self.biases,
            **options,
        )

    def naive(self):
        """Mean, covariance and right-hand side of each row, entry by entry."""
        rank, q = self.columns.rank, len(self.prior)
        H, C = self.columns.means, self.columns.covariances
        for x, s, scale in zip(self.X, self.S, self.scale, strict=True):
            precision, right = self.prior.copy(), np.zeros(q)
            for j in np.flatnonzero(s):
                g = np.append(H[j, :rank], np.ones(int(self.row_bias)))
                second = np.outer(g, g)
                second[:rank, :rank] += C[j, :rank, :rank]
                explained = x[j] * g
                if self.columns.biased:
                    explained -= g * H[j, rank]
                    explained[:rank] -= C[j, rank, :rank]
                precision += scale * s[j] * second
                right += scale * s[j] * explained
            covariance = np.linalg.inv(precision)
            yield covariance @ right, covariance, right


def make_given(m=12, n=9, rank=3, biases=(True, True), dtype=float, seed=0):
    rng = np.random.RandomState(seed)
    q = rank + biases[0]
    root = rng.standard_normal((q, q))
    S = (rng.uniform(size=(m, n)) < 0.6) * rng.choice([0.5, 1, 2], size=(m, n))
    S[:: m // 2] = 0
    return Given(
        make_side(n, rank, biases[1], seed, dtype),
        np.where(S > 0, rng.standard_normal((m, n)), 0).astype(dtype),
        S.astype(dtype),
        rng.uniform(0.5, 4, m),
        root @ root.T + np.eye(q),
        biases[0],
    )


@pytest.mark.parametrize("biases", BIASES)
@pytest.mark.parametrize("rank", [0, 1, 3, 6])
class TestPosterior:
    def test_is_gaussian(self, kernels, rank, biases):
        given = make_given(rank=rank, biases=biases)
        found = given.posterior(with_covariances=True)
        for i, (mean, covariance, right) in enumerate(given.naive()):
            assert_allclose(found.means[i], mean, rtol=1e-9, atol=1e-12)
            assert_allclose(
                unpack(found.covariances[i], len(mean)), covariance, atol=1e-12
            )
            logdet = np.linalg.slogdet(covariance)[1]
            assert found.logdets[i] == pytest.approx(logdet, abs=1e-10)
            assert found.gains[i] == pytest.approx(mean @ right, abs=1e-10)

    def test_comes_with_the_moments_of_the_row(self, kernels, rank, biases):
        found = make_given(rank=rank, biases=biases).posterior(with_covariances=True)
        expected = moments_of(found.means, found.covariances, biases[0])
        assert_allclose(found.moments, expected, rtol=1e-10, atol=1e-12)

    def test_of_a_row_without_entries_is_the_prior(self, kernels, rank, biases):
        given = make_given(rank=rank, biases=biases)
        found = given.posterior(with_covariances=True)
        assert_array_equal(found.means[0], 0)
        assert found.gains[0] == 0
        covariance = pack(np.linalg.inv(given.prior))
        assert_allclose(found.covariances[0], covariance, atol=1e-12)

    def test_stays_in_single_precision(self, kernels, rank, biases):
        """Only its input is rounded, and what it stores."""
        given = make_given(rank=rank, biases=biases)
        found = given.posterior(np.float32, with_covariances=True)
        for name, expected in given.posterior(with_covariances=True)._asdict().items():
            ours = getattr(found, name)
            double = name in ("logdets", "gains")
            assert ours.dtype == (np.float64 if double else np.float32)
            assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_covariances_are_returned_where_they_are_wanted(kernels):
    assert make_given().posterior().covariances is None


def test_rows_may_share_a_system(kernels):
    """One after the other or not, with a noise of their own."""
    given, which = make_given(), np.array([0, 3, 3, 3, 1, 3, 0, 0])
    sums = given.S @ given.columns.moments
    targets = np.random.RandomState(0).standard_normal((8, 5))
    scale = np.array([1.0, 2.0, 2.0, 1.0, 1.0, 1.0, 3.0, 3.0])
    shared = pack(given.prior), given.biases
    together = dispatch.posterior(sums, which, targets, scale, *shared)
    apart = dispatch.posterior(sums[which], np.arange(8), targets, scale, *shared)
    for ours, theirs in zip(together, apart, strict=True):
        if ours is not None:
            assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


class TestRounding:
    """Sums less holes may lose what is below their last digit."""

    @pytest.fixture(params=[0, 3], ids=["", "in a block with others"])
    def posterior(self, request, kernels):
        """Posterior where the sums know minus one hundredth of one direction."""
        prior, n_others = np.array([1e-4, 2e-3]), request.param
        bad = np.array([[1.0, 0.0, -0.01, 0.0, 0.0, 1.0]])
        good = np.array([[1.0, 0.0, 2.0, 0.0, 0.0, 1.0]])
        sums = np.vstack([bad, *n_others * [good]])
        found = dispatch.posterior(
            sums,
            np.arange(len(sums)),
            np.ones((len(sums), 3)),
            np.ones(len(sums)),
            pack(np.diag(prior)),
            (False, False),
            with_covariances=True,
        )
        return found, prior

    def test_leaves_posteriors_finite(self, posterior):
        for array in posterior[0]:
            assert np.isfinite(array).all()

    def test_cannot_take_from_what_the_prior_knows(self, posterior):
        found, prior = posterior
        largest = np.linalg.eigvalsh(unpack(found.covariances[0], 2))[-1]
        assert largest == pytest.approx(1 / prior.min())
        assert found.logdets[0] == pytest.approx(-np.log(1.0001) - np.log(1e-4))

    def test_leaves_other_rows_alone(self, posterior):
        """To the accuracy of another way to invert a matrix."""
        found, prior = posterior
        for covariance in found.covariances[1:]:
            expected = pack(np.diag(1 / (prior + np.arange(1, 3))))
            assert_allclose(covariance, expected, rtol=1e-12)


@pytest.mark.parametrize("operations", [1, 1e4, 1e9])
@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
def test_any_number_of_threads_gives_the_same_bits(
    monkeypatch, kernels, operations, n_threads
):
    given = make_given(m=200, n=30, rank=7)
    expected = given.posterior(with_covariances=True)
    monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
    monkeypatch.setattr(dispatch, "OPERATIONS", operations)
    found = given.posterior(with_covariances=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", [1, 300])
def test_posteriors_do_not_depend_on_the_size_of_blocks(monkeypatch, kernels, size):
    given = make_given(m=50)
    expected = given.posterior(with_covariances=True)
    monkeypatch.setattr(linalg, "BLOCK", size)
    found = given.posterior(with_covariances=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_there_may_be_no_rows(kernels):
    given = make_given()
    none = given._replace(X=given.X[:0], S=given.S[:0], scale=given.scale[:0])
    found = none.posterior(with_covariances=True)
    assert found.means.shape == (0, 4)
    assert found.covariances.shape == (0, 10)


def test_nothing_that_is_given_is_changed(kernels):
    """All of it may be read-only."""
    given = make_given()
    arguments = (
        given.S @ given.columns.moments,
        np.arange(12),
        np.ones((12, 5)),
        given.scale,
        pack(given.prior),
    )
    for array in arguments:
        array.flags.writeable = False
    dispatch.posterior(*arguments, given.biases, with_covariances=True)


def test_the_product_without_values_sums_the_columns_of_each_row(kernels):
    mask = pattern("few")
    rows, V = rows_of(np.zeros(mask.shape), mask), make_side(11, 4, False).means
    ones, mask = rows._replace(values=None), mask.astype(float)
    assert_allclose(dispatch.product(ones, V), mask @ V, atol=1e-12)
    sums = dispatch.product(ones.transpose(), mask @ V)
    assert_allclose(sums, mask.T @ mask @ V, atol=1e-12)
