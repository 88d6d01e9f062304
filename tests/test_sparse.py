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

FORMATS = [sparse.csr_array, sparse.csc_array, sparse.coo_array]
FORMATS += [sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix]


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
    assert_allclose(model.transform(dense), Z, rtol=max(1e-6, rtol), atol=rtol)
    assert model.score(X) == pytest.approx(other.score(dense), rel=rtol)
    for name in ("loss_curve_", "column_mean_", "reconstruction_err_"):
        assert_allclose(getattr(model, name), getattr(other, name), rtol=rtol)


@pytest.mark.pairwise(
    solver=["auto", *STEPS], fit_bias=[False, True, "columns"], init=["svd", "random"]
)
def test_sparse_is_the_same_as_dense_with_zeros(counts, solver, fit_bias, init):
    # Few sweeps: exact steps of gradient descent magnify rounding.
    model = GradientMF(3, solver=solver, fit_bias=fit_bias, init=init, reg=0.1)
    model.set_params(max_iter=10, random_state=0)
    assert_same_fit(model, sparse.csr_array(counts), counts)


@pytest.mark.parametrize("container", FORMATS)
def test_every_format_is_the_same(counts, model, container):
    assert_same_fit(model, container(counts), counts)


def test_single_precision_stays_single_and_integers_become_double(counts, model):
    for given, computed, rtol in ((np.float32,) * 2 + (1e-4,), (int, float, 1e-8)):
        X = sparse.csr_array(counts.astype(given))
        assert_same_fit(model, X, X.toarray(), rtol)
        assert model.fit_transform(X).dtype == model.components_.dtype == computed


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
def test_unsorted_duplicates_are_summed_in_a_copy(model, container):
    data, indices, indptr = [1.0, 2, 5, 3, 1, 2], [2, 0, 0, 1, 1, 0], [0, 3, 5, 6]
    X = container((data, indices, indptr), shape=(3, 3))
    assert_same_fit(model.set_params(rank=1), X, X.toarray())
    assert_array_equal(X.indices, indices)
    assert_array_equal(X.data, data)


def test_stored_zeros_change_nothing(counts, model):
    X = sparse.csr_array(np.where(counts == 5, 0.5, counts))
    X.data[X.data == 0.5] = 0
    assert (X.data == 0).any()
    assert_same_fit(model, X, X.toarray())


def test_a_matrix_of_zeros_is_fitted():
    model = GradientMF(2).fit(sparse.csr_array((5, 4)))
    assert_array_equal(model.components_, np.zeros((2, 4)))
    assert model.reconstruction_err_ == 0


def test_a_perfect_fit_has_no_negative_objective():
    X = np.outer(np.arange(30) % 3 == 0, np.arange(20) % 4 == 0) * 3.0
    model = GradientMF(2, tol=1e-12).fit(sparse.csr_array(X))
    assert min(model.loss_curve_) >= 0


# What sparse X cannot have


def test_a_mask_and_stored_nan_are_refused(counts, model):
    X, mask = sparse.csr_array(counts), np.ones(counts.shape, bool)
    with pytest.raises(ValueError, match=r"mask needs a dense X.*observed zero"):
        model.fit(X, mask=mask)
    X.data[3] = np.nan
    with pytest.raises(ValueError, match=r"Sparse X stores NaN.*Pass a dense X"):
        model.fit(X)


@pytest.mark.parametrize("params", [{"early_stopping": True}, {"reg": "auto"}], ids=str)
def test_what_would_list_every_zero_is_refused(counts, model, params):
    model.set_params(**params)
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


@pytest.mark.slow
def test_a_matrix_of_five_billion_places_takes_the_memory_of_its_entries():
    """Written out it would take 40 gigabytes."""
    env = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", MANY_ROWS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.stdout.split("\n")[0] == "(5, 50000) True", done.stderr
