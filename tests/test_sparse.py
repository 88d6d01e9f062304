"""Sparse X: entries that are not stored are observed zeros, and none is written out."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone

from sklearn_mfgd import GradientMF
from sklearn_mfgd._optim.steps import STEPS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FORMATS = [
    sparse.csr_array,
    sparse.csc_array,
    sparse.coo_array,
    sparse.csr_matrix,
    sparse.csc_matrix,
    sparse.coo_matrix,
]


@pytest.fixture
def counts():
    """A table of 60 x 40 in which five of six entries are zero."""
    rng = np.random.RandomState(0)
    stored = rng.uniform(size=(60, 40)) < 1 / 6
    return np.where(stored, rng.poisson(5, size=(60, 40)), 0).astype(float)


@pytest.fixture
def model():
    return GradientMF(3, reg=0.1, max_iter=20)


def assert_same_fit(model, X, dense, rtol=1e-8):
    other = clone(model)
    Z = model.fit_transform(X)
    assert_allclose(Z, other.fit_transform(dense), rtol=rtol, atol=rtol)
    assert_allclose(model.transform(X), Z, rtol=max(1e-6, rtol), atol=rtol)
    assert model.score(X) == pytest.approx(other.score(dense), rel=rtol)
    assert_allclose(model.loss_curve_, other.loss_curve_, rtol=rtol)
    assert_allclose(model.column_mean_, other.column_mean_, rtol=rtol)
    assert model.reconstruction_err_ == pytest.approx(
        other.reconstruction_err_, rel=rtol
    )


@pytest.mark.parametrize("init", ["svd", "random"])
@pytest.mark.parametrize("fit_bias", [False, True, "columns"])
@pytest.mark.parametrize("solver", ["auto", *STEPS])
def test_sparse_is_the_same_as_dense_with_zeros(counts, solver, fit_bias, init):
    # Few sweeps: exact steps of gradient descent magnify rounding.
    model = GradientMF(
        3,
        solver=solver,
        fit_bias=fit_bias,
        init=init,
        reg=0.1,
        max_iter=10,
        random_state=0,
    )
    assert_same_fit(model, sparse.csr_array(counts), counts)


@pytest.mark.parametrize("container", FORMATS)
def test_every_format_is_the_same(counts, model, container):
    assert_same_fit(model, container(counts), counts)


def test_single_precision_stays_single(counts, model):
    X = sparse.csr_array(counts.astype(np.float32))
    assert_same_fit(model, X, X.toarray(), rtol=1e-4)
    assert model.fit_transform(X).dtype == model.components_.dtype == np.float32


def test_integers_are_computed_in_double(counts, model):
    X = sparse.csr_array(counts.astype(np.int64))
    assert_same_fit(model, X, counts)
    assert model.fit_transform(X).dtype == np.float64


def test_wide_indices_are_accepted(counts, model):
    X = sparse.csr_array(counts)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    assert_same_fit(model, X, counts)


def test_duplicates_are_summed(counts, model):
    X = sparse.coo_array(counts)
    twice = [np.concatenate([index, index]) for index in X.coords]
    halves = np.concatenate([0.25 * X.data, 0.75 * X.data])
    assert_same_fit(model, sparse.coo_array((halves, twice), X.shape), counts)


@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_array])
def test_duplicates_within_a_compressed_matrix_are_summed(model, container):
    indices, indptr = [0, 0, 1, 1, 1, 0], [0, 3, 5, 6]
    X = container(([1.0, 2, 5, 3, 1, 2], indices, indptr), shape=(3, 3))
    assert X.nnz == 6
    assert_same_fit(model.set_params(rank=1), X, X.toarray())


def test_unsorted_indices_are_accepted(counts, model):
    X = sparse.csr_array(counts)
    for row in range(60):
        part = slice(X.indptr[row], X.indptr[row + 1])
        X.indices[part] = X.indices[part][::-1].copy()
        X.data[part] = X.data[part][::-1].copy()
    X.has_sorted_indices = False
    assert_same_fit(model, X, counts)


def test_stored_zeros_change_nothing(counts, model):
    X = sparse.csr_array(np.where(counts == 5, 0.5, counts))
    X.data[X.data == 0.5] = 0
    assert (X.data == 0).any()
    assert_same_fit(model, X, X.toarray())


def test_the_data_are_left_as_they_were(counts, model):
    indices, indptr = [2, 0, 0, 1, 1, 0], [0, 3, 5, 6]
    X = sparse.csr_array(([1.0, 2, 5, 3, 1, 2], indices, indptr), shape=(3, 3))
    model.set_params(rank=1, fit_bias=True).fit(X).transform(X)
    assert_array_equal(X.indices, indices)
    assert_array_equal(X.data, [1, 2, 5, 3, 1, 2])


def test_a_model_fitted_to_either_transforms_the_other(counts, model):
    Z = model.fit(counts).transform(sparse.csr_array(counts))
    assert_allclose(Z, model.transform(counts), rtol=1e-8, atol=1e-10)


def test_a_matrix_of_zeros_is_fitted():
    model = GradientMF(2).fit(sparse.csr_array((5, 4)))
    assert_array_equal(model.components_, np.zeros((2, 4)))
    assert model.reconstruction_err_ == 0


def test_a_perfect_fit_has_no_negative_objective():
    X = np.outer(np.arange(30) % 3 == 0, np.arange(20) % 4 == 0) * 3.0
    model = GradientMF(2, tol=1e-12).fit(sparse.csr_array(X))
    assert min(model.loss_curve_) >= 0


# What sparse X cannot have


def test_stored_nan_is_refused(counts, model):
    X = sparse.csr_array(counts)
    X.data[3] = np.nan
    with pytest.raises(ValueError, match=r"Sparse X stores NaN.*Pass a dense X"):
        model.fit(X)


def test_a_mask_is_refused(counts, model):
    mask = np.ones(counts.shape, bool)
    with pytest.raises(ValueError, match=r"mask needs a dense X.*observed zero"):
        model.fit(sparse.csr_array(counts), mask=mask)


def test_early_stopping_is_refused(counts, model):
    model.set_params(early_stopping=True)
    with pytest.raises((ValueError, TypeError), match=r"(?i)dense"):
        model.fit(sparse.csr_array(counts))


def test_learned_regularization_is_refused(counts, model):
    model.set_params(reg="auto")
    with pytest.raises((ValueError, TypeError), match=r"(?i)dense"):
        model.fit(sparse.csr_array(counts))


# Memory

MANY_ROWS = """
import resource

import numpy as np
from scipy import sparse
from sklearn_mfgd import GradientMF

with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
limit = taken + 300 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

n_rows, n_columns, per_row = 100_000, 50_000, 10
rng = np.random.RandomState(0)
width = n_columns // per_row
columns = rng.randint(width, size=(n_rows, per_row), dtype=np.int32)
columns += width * np.arange(per_row, dtype=np.int32)
data = rng.uniform(1, 2, size=columns.size)
row_starts = np.arange(0, columns.size + 1, per_row, dtype=np.int32)
X = sparse.csr_array((data, columns.ravel(), row_starts), shape=(n_rows, n_columns))
model = GradientMF(rank=5, max_iter=2).fit(X)
print(model.components_.shape, 0 < model.reconstruction_err_ < np.linalg.norm(X.data))
"""


def test_a_matrix_of_five_billion_places_takes_the_memory_of_its_entries():
    """Written out it would take 40 gigabytes."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MANY_ROWS],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.stdout.split("\n")[0] == "(5, 50000) True", done.stderr
