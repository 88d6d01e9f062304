"""Packed moments, their sums over entries, and the Gaussian posterior of a row."""

from typing import NamedTuple

import numpy as np
import pytest
from naive import row_posterior
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_mfgd._bayes import moments as layout
from sklearn_mfgd._bayes.moments import (
    expectations,
    moments_of,
    n_pairs,
    pack,
    total,
    unpack,
)
from sklearn_mfgd._data import row_blocks
from sklearn_mfgd._data.matrix import ObservedMatrix
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._data.row_blocks import blocks_of_rows, row_blocks_of
from sklearn_mfgd._kernels import dispatch, linalg

BIASES = [(False, False), (True, False), (False, True), (True, True)]


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


def make_side(n, rank, biased, seed=0, dtype=float):
    rng, q = np.random.RandomState(seed), rank + biased
    roots = 0.5 * rng.standard_normal((n, q, q))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(q)
    means = rng.standard_normal((n, q))
    return Side(means.astype(dtype), covariances.astype(dtype), biased)


# Layout


def test_a_triangle_is_packed_row_by_row():
    matrix = np.array([[1, 2, 4], [2, 3, 5], [4, 5, 6]])
    assert_array_equal(pack(matrix), [1, 2, 3, 4, 5, 6])
    assert_array_equal(pack(matrix)[layout.diagonal(3)], [1, 3, 6])
    assert_array_equal(layout.packed_diagonal(np.array([[7, 8]])), [[7, 0, 8]])
    kept = np.array([True, False, True])
    assert_array_equal(layout.packed_submatrix(pack(matrix), kept), [1, 4, 6])
    assert n_pairs(3) == 6


@pytest.mark.parametrize("length", [0, 1, 2, 5])
def test_unpacking_gives_back_what_was_packed_or_its_leading_rows(length):
    rng = np.random.RandomState(length)
    matrices = rng.standard_normal((4, 3, length, length))
    matrices += matrices.swapaxes(-1, -2)
    packed = pack(matrices)
    assert packed.shape == (4, 3, n_pairs(length))
    assert_array_equal(unpack(packed, length), matrices)
    leading = max(0, length - 1)
    assert_array_equal(unpack(packed, leading), matrices[..., :leading, :leading])
    if length:
        A = matrices[0, 0]
        traces = packed @ layout.packed_trace_weights(A)
        assert_allclose(traces, np.trace(A @ matrices, axis1=-2, axis2=-1), atol=1e-12)


@pytest.mark.parametrize("biased", [False, True], ids=["", "biased"])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_moments_are_those_of_factors_one_and_bias(rank, biased):
    side = make_side(50, rank, biased)
    moments = side.moments
    assert moments.shape == (50, layout.packed_size(rank, biased))
    means = np.insert(side.means, rank, 1.0, axis=1)
    spread = np.insert(side.covariances, rank, 0.0, axis=1)
    second = np.insert(spread, rank, 0.0, axis=2) + means[:, :, None] * means[:, None]
    assert_allclose(moments, pack(second), rtol=1e-12, atol=1e-12)
    assert_array_equal(expectations(moments, rank), means)
    assert_array_equal(layout.factor_means(moments, rank), side.means[:, :rank])
    pairs = layout.pair_moments(moments, rank)
    assert_allclose(pairs, pack(second[:, :rank, :rank]))
    if biased:
        assert_allclose(layout.bias_products(moments, rank), second[:, -1, :rank])
        assert_allclose(layout.bias_squares(moments), second[:, -1, -1])
    assert_allclose(total(moments), moments.sum(axis=0), rtol=1e-12)
    moments = make_side(5, rank, biased, dtype=np.float32).moments
    assert moments.dtype == expectations(moments, rank).dtype == np.float32
    assert total(moments).dtype == np.float64


# Sums over entries

PATTERNS = ["few", "most", "all", "shared", "empty rows and columns"]


def make_mask(name, m=17, n=11):
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


def only_block(mask, **options):
    """Return the block of entries that fit into one."""
    (block,) = blocks_of_rows(entries(mask, **options)[0], 15)
    return block


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(
    "block, n_blocks", [(2**21, 1), (15 * 5, 4), (1, 17)], ids=["all", "five", "one"]
)
def test_sums_of_blocks_are_those_of_the_whole_matrix(
    monkeypatch, kernels, block, n_blocks, name, weighted
):
    """Whatever they sum over; with weights there is no sum over missing entries."""
    monkeypatch.setattr(row_blocks, "BLOCK", block)
    rows, products, S = entries(make_mask(name), weighted)
    rng, (m, n) = np.random.RandomState(2), rows.shape
    of_columns, of_rows = rng.standard_normal((n, 15)), rng.standard_normal((m, 15))
    blocks = blocks_of_rows(rows, 15)
    assert len(blocks) == n_blocks
    start = rng.standard_normal((2, n, 15))  # what is there already stays in the sum
    seen, (by_column, targets) = np.zeros(m), start.copy()
    for block in blocks:
        assert (block.missing is not None) == (name != "few" and not weighted)
        sums = block.sum_over_columns(of_columns, of_columns.sum(axis=0))
        sums = sums[block.system_index]
        assert_allclose(sums, (S @ of_columns)[block.rows], atol=1e-11)
        linear = block.targets_of_rows(of_columns)
        assert_allclose(linear, (products @ of_columns)[block.rows], atol=1e-11)
        moments = of_rows[block.rows]
        block.add_over_rows(moments, moments.sum(axis=0), by_column)
        block.add_targets_of_columns(moments, targets)
        seen[block.rows] += 1
    assert_array_equal(seen, 1)
    assert_allclose(by_column - start[0], S.T @ of_rows, atol=1e-11)
    assert_allclose(targets - start[1], products.T @ of_rows, atol=1e-11)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", PATTERNS)
def test_sums_of_columns_are_the_same_a_few_columns_at_a_time(
    monkeypatch, kernels, name, weighted
):
    block, found = only_block(make_mask(name), weighted=weighted), []
    moments = np.random.RandomState(2).standard_normal((17, 15))[block.rows]
    for size in (2**22, 2 * 15 + 1, 1):  # all columns, two, one
        monkeypatch.setattr(row_blocks, "SUMS", size)
        sums = np.zeros((2, 11, 15))
        block.add_over_rows(moments, moments.sum(axis=0), sums[0])
        block.add_targets_of_columns(moments, sums[1])
        found.append(sums)
    for sums in found[1:]:
        assert_allclose(sums, found[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_a_block_adds_only_to_columns_that_occur_in_it(kernels, weighted):
    """What it keeps by columns is as long as these are many, not as the matrix."""
    mask = np.zeros((4, 1000), bool)
    occurring = [3, 70, 999]
    mask[[0, 1, 3], occurring] = True
    block = only_block(mask, weighted=weighted)
    assert_array_equal(block.columns, occurring)
    assert block.by_columns.shape == (3, 4)
    moments = np.random.RandomState(2).uniform(1, 2, (4, 15))
    # A sum to which anything is added, were it zero, is no longer minus zero.
    sums = np.full((2, 1000, 15), -0.0)
    block.add_over_rows(moments, moments.sum(axis=0), sums[0])
    block.add_targets_of_columns(moments, sums[1])
    for of_columns in sums:
        added = (~np.signbit(of_columns) | (of_columns != 0)).any(axis=1)
        assert_array_equal(np.flatnonzero(added), occurring)


@pytest.mark.parametrize("columns", [[], [2], [0, 1]], ids=str)
def test_columns_may_all_be_empty_in_a_block(kernels, columns):
    mask = np.zeros((3, 4), bool)
    mask[1, columns] = True
    block = only_block(mask)
    sums, moments = np.ones((4, 15)), np.ones((3, 15))
    block.add_over_rows(moments, moments.sum(axis=0), sums)
    assert_array_equal(sums, 1 + np.isin(np.arange(4), columns)[:, None] * np.ones(15))


def test_rows_that_miss_the_same_entries_share_their_sums():
    block = only_block(make_mask("shared"))
    of_groups, by_columns = block.missing
    assert of_groups.shape[0] == 3
    assert by_columns.shape == (11, 17)  # of every row
    assert sorted(set(block.system_index)) == [0, 1, 2]
    assert (np.diff(block.system_index) >= 0).all()  # one after the other
    of_groups, by_columns = only_block(make_mask("all")).missing
    assert of_groups.shape[0] == 1
    assert of_groups.indices.size == by_columns.indices.size == 0
    # Of which few miss the same entries, they share nothing.
    mask = np.random.RandomState(0).uniform(size=(30, 40)) < 0.7
    mask[1] = mask[0]
    assert_array_equal(only_block(mask).system_index, np.arange(30))


def test_missing_entries_are_counted_where_they_are_fewer():
    order = np.random.RandomState(0).permutation(1000).reshape(50, 20)
    for share, counts_missing in ((0.49, False), (0.51, True)):
        block = only_block(order < 1000 * share)
        assert (block.missing is not None) == counts_missing


def test_single_precision_sums_agree_to_its_last_digits(kernels):
    for name in PATTERNS:
        rows, _, S = entries(make_mask(name), dtype=np.float32)
        moments = np.random.RandomState(2).uniform(1, 2, (11, 15)).astype(np.float32)
        (block,) = blocks_of_rows(rows, 15)
        sums = block.sum_over_columns(moments, total(moments))
        assert sums.dtype == np.float32
        assert_allclose(sums[block.system_index], (S @ moments)[block.rows], atol=1e-5)


def test_the_blocks_of_a_matrix_are_mapped_in_the_order_of_its_rows(monkeypatch):
    monkeypatch.setattr(row_blocks, "BLOCK", 15 * 5)
    rows, _, S = entries(make_mask("shared"))
    blocks = row_blocks_of(ObservedMatrix(rows, 0.0), 15)

    def counts(blocks, numbers, unit):
        found = np.zeros(len(numbers))
        for block in blocks:
            found[block.rows] = unit * np.diff(block.by_rows.indptr)
        return found * numbers

    numbers = np.arange(17)
    expected = 2 * S.sum(axis=1) * numbers
    assert_array_equal(blocks.rows(counts, (numbers,), 2), expected)

    def total_count(blocks, numbers, unit):
        return counts(blocks, numbers, unit).sum()

    assert blocks.total(total_count, (numbers,), 2) == expected.sum()


# Posteriors


class Given(NamedTuple):
    """Columns, entries, and what `dispatch.posterior` wants to know of them."""

    columns: Side
    X: np.ndarray
    S: np.ndarray
    scale: np.ndarray
    prior: np.ndarray
    row_bias: bool

    def arguments(self, dtype=float):
        moments = self.columns.moments
        systems, index = (self.S @ moments).astype(dtype), np.arange(len(self.X))
        targets = (self.S * self.X) @ expectations(moments, self.columns.rank)
        biases = self.row_bias, self.columns.biased
        return (
            systems,
            index,
            targets.astype(dtype),
            self.scale,
            pack(self.prior),
            biases,
        )

    def posterior(self, dtype=float):
        return dispatch.posterior(*self.arguments(dtype), with_covariances=True)

    def naive(self):
        """Mean, precision and right-hand side of each row, entry by entry."""
        columns, biases = self.columns[:2], self.arguments()[-1]
        for x, precisions in zip(self.X, self.S * self.scale[:, None], strict=True):
            yield row_posterior(x, precisions, columns, self.prior, biases)


def make_given(m=12, n=9, rank=3, biases=(True, True)):
    rng, q = np.random.RandomState(0), rank + biases[0]
    root = rng.standard_normal((q, q))
    S = (rng.uniform(size=(m, n)) < 0.6) * rng.choice([0.5, 1, 2], size=(m, n))
    S[:: m // 2] = 0
    X, scale = np.where(S > 0, rng.standard_normal((m, n)), 0), rng.uniform(0.5, 4, m)
    prior = root @ root.T + np.eye(q)
    return Given(make_side(n, rank, biases[1]), X, S, scale, prior, biases[0])


@pytest.mark.parametrize("biases", BIASES)
@pytest.mark.parametrize("rank", [0, 1, 6])
def test_the_posterior_of_a_row_is_gaussian(kernels, rank, biases):
    """That of a row without entries is the prior; single precision only rounds."""
    given = make_given(rank=rank, biases=biases)
    found = given.posterior()
    for i, (mean, precision, right) in enumerate(given.naive()):
        covariance = np.linalg.inv(precision)
        assert_allclose(found.means[i], mean, rtol=1e-9, atol=1e-12)
        ours = unpack(found.covariances[i], len(mean))
        assert_allclose(ours, covariance, atol=1e-12)
        log_det = np.linalg.slogdet(covariance)[1]
        assert found.logdets[i] == pytest.approx(log_det, abs=1e-10)
        assert found.gains[i] == pytest.approx(mean @ right, abs=1e-10)
    expected = moments_of(found.means, found.covariances, biases[0])
    assert_allclose(found.moments, expected, rtol=1e-10, atol=1e-12)
    assert_array_equal(found.means[0], 0)
    for name, ours in given.posterior(np.float32)._asdict().items():
        is_double = name in ("logdets", "gains")
        assert ours.dtype == (np.float64 if is_double else np.float32)
        assert_allclose(ours, getattr(found, name), rtol=1e-4, atol=1e-4)


def test_rows_may_share_a_system(kernels):
    given, index = make_given(), np.array([0, 3, 3, 3, 1, 3, 0, 0])
    sums = given.S @ given.columns.moments
    targets = np.random.RandomState(0).standard_normal((8, 5))
    scale = np.array([1.0, 2.0, 2.0, 1.0, 1.0, 1.0, 3.0, 3.0])
    options = targets, scale, *given.arguments()[-2:]
    together = dispatch.posterior(sums, index, *options)
    apart = dispatch.posterior(sums[index], np.arange(8), *options)
    assert together.covariances is apart.covariances is None
    for name in ("means", "moments", "logdets", "gains"):
        ours, theirs = getattr(together, name), getattr(apart, name)
        assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n_others", [0, 3], ids=["", "in a block with others"])
def test_rounding_cannot_take_from_what_the_prior_knows(kernels, n_others):
    """Sums less missing entries may lose what is below their last digit."""
    prior = np.array([1e-4, 2e-3])
    bad = np.array([[1.0, 0.0, -0.01, 0.0, 0.0, 1.0]])  # less than nothing is known
    good = np.array([[1.0, 0.0, 2.0, 0.0, 0.0, 1.0]])
    sums = np.vstack([bad, *n_others * [good]])
    n = len(sums)
    given = sums, np.arange(n), np.ones((n, 3)), np.ones(n), pack(np.diag(prior))
    found = dispatch.posterior(*given, (False, False), with_covariances=True)
    assert all(np.isfinite(array).all() for array in found)
    largest = np.linalg.eigvalsh(unpack(found.covariances[0], 2))[-1]
    assert largest == pytest.approx(1 / prior.min())
    assert found.logdets[0] == pytest.approx(-np.log(1.0001) - np.log(1e-4))
    expected = pack(np.diag(1 / (prior + np.arange(1, 3))))
    for covariance in found.covariances[1:]:
        assert_allclose(covariance, expected, rtol=1e-12)


@pytest.mark.pairwise(operations=[1, 1e4], n_threads=[1, 2, 4], block=[1, 300, 500_000])
def test_posteriors_do_not_depend_on_threads_or_blocks(
    monkeypatch, kernels, operations, n_threads, block
):
    given = make_given(m=200, n=30, rank=7)
    expected = given.posterior()
    monkeypatch.setenv("OMP_NUM_THREADS", str(n_threads))
    monkeypatch.setattr(dispatch, "OPERATIONS", operations)
    monkeypatch.setattr(linalg, "BLOCK", block)
    tolerance = {"rtol": 1e-12, "atol": 1e-14} if block < 500_000 else {"rtol": 0}
    for ours, theirs in zip(given.posterior(), expected, strict=True):
        assert_allclose(ours, theirs, **tolerance)


def test_there_may_be_no_rows_and_arguments_may_be_read_only(kernels):
    given = make_given()
    none = given._replace(X=given.X[:0], S=given.S[:0], scale=given.scale[:0])
    assert none.posterior().means.shape == (0, 4)
    assert none.posterior().covariances.shape == (0, 10)
    arguments = given.arguments()
    before = [array.copy() for array in arguments[:5]]
    for array in arguments[:5]:
        array.flags.writeable = False
    dispatch.posterior(*arguments, with_covariances=True)
    for array, copy in zip(arguments, before, strict=False):
        assert_array_equal(array, copy)
