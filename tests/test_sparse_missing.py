"""Sparse X of MaskedGradientMF: an entry that is not stored is missing."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import get_tags

from sklearn_mfgd import GradientMF, MaskedGradientMF
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels import linalg

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CSR, CSC, COO = sparse.csr_array, sparse.csc_array, sparse.coo_array
CONTAINERS = [CSR, CSC, COO, sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix]
SOLVERS = ["als", "scaled", "gd", "sgd"]
METHODS = ["fit", "fit_transform", "transform", "score"]
TOLERANCE = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-4}


@pytest.fixture
def table(planted):
    """A table of 40 x 15, 60 % of it NaN, that holds a few zeros."""
    X = planted(share_missing=0.6).X + 2
    X[tuple(np.argwhere(~np.isnan(X))[::9].T)] = 0
    return X


@pytest.fixture
def mask(table):
    return np.random.RandomState(1).uniform(size=table.shape) < 0.7


@pytest.fixture
def model():
    return MaskedGradientMF(3, reg=0.1, max_iter=10, random_state=0)


def stored(X, container=CSR):
    """Store what is not NaN, zeros included."""
    rows, columns = np.nonzero(~np.isnan(X))
    return container(sparse.coo_array((X[rows, columns], (rows, columns)), X.shape))


def twice(X, value):
    """Store the first entry once more."""
    if X.format == "coo":
        coords = [np.append(index, index[0]) for index in X.coords]
        return type(X)((np.append(X.data, value), coords), X.shape)
    indptr = X.indptr.copy()
    indptr[np.argmax(indptr > 0) :] += 1
    data, indices = np.insert(X.data, 0, value), np.insert(X.indices, 0, X.indices[0])
    return type(X)((data, indices, indptr), X.shape)


def assert_same(model, X, dense, mask=None, dense_mask=None):
    """Everything that a fit to X gives is what a fit to `dense` gives."""
    ours, theirs = clone(model), clone(model)
    Z = ours.fit_transform(X, mask=mask)
    rtol = TOLERANCE[Z.dtype]

    def same(found, expected):
        assert_allclose(found, expected, rtol=rtol, atol=rtol)

    same(Z, theirs.fit_transform(dense, mask=dense_mask))
    names = ["components_", "column_bias_", "column_mean_", "mean_", "eta_", "n_iter_"]
    names += ["loss_curve_", "reconstruction_err_"]
    if model.reg == "auto":
        names += ["noise_variance_", "row_precision_", "column_precision_"]
    for name in names:
        same(getattr(ours, name), getattr(theirs, name))
    folded = theirs.transform(dense, mask=dense_mask)
    same(theirs.transform(X, mask=mask), folded)
    same(ours.transform(dense, mask=dense_mask), folded)
    same(theirs.score(X, mask=mask), theirs.score(dense, mask=dense_mask))
    filled = theirs.inverse_transform(folded)
    same(ours.inverse_transform(Z), filled)
    rows, columns = np.arange(X.shape[0]), np.arange(X.shape[0]) % X.shape[1]
    same(ours.predict_entries(Z, rows, columns), filled[rows, columns])
    assert Z.dtype == ours.transform(X, mask=mask).dtype == ours.components_.dtype
    return Z


# The same as NaN


@pytest.mark.pairwise(
    container=CONTAINERS, indices=[np.int32, np.int64], dtype=[np.float32, np.float64]
)
def test_every_format_is_the_same_as_nan(table, model, container, indices, dtype):
    table = table.astype(dtype)
    X = stored(table, container)
    if X.format == "coo":
        X.coords = tuple(index.astype(indices) for index in X.coords)
    else:
        X.indices, X.indptr = X.indices.astype(indices), X.indptr.astype(indices)
    assert (X.data == 0).any()  # stored zeros are observed
    assert assert_same(model, X, table).dtype == dtype


@pytest.mark.pairwise(
    solver=SOLVERS,
    fit_bias=[False, True, "columns"],
    early_stopping=[False, True],
    init=["svd", "random", "given"],
)
def test_unstored_is_the_same_as_nan_for_every_solver(
    planted, model, solver, fit_bias, early_stopping, init
):
    data = planted(share_missing=0.6)
    model.set_params(solver=solver, fit_bias=fit_bias, early_stopping=early_stopping)
    model.set_params(init=(data.W, data.H) if init == "given" else init)
    assert_same(model, stored(data.X), data.X)


@pytest.mark.slow
def test_unstored_is_the_same_as_nan_with_the_defaults(planted):
    for early_stopping, share_missing in ((False, 0.6), (True, 0.6), (False, 0.0)):
        X = planted(m=60, n=20, share_missing=share_missing).X
        model = MaskedGradientMF(random_state=0, early_stopping=early_stopping)
        assert get_tags(model).input_tags.sparse
        assert_same(model, stored(X), X)


def test_the_randomized_svd_starts_from_the_same_place_with_a_mask_too(planted):
    data, model = planted(170, 150, share_missing=0.8), MaskedGradientMF(2, reg=0.1)
    for X, mask in ((data.X, None), (data.complete, data.mask)):
        assert_same(model.set_params(max_iter=3), stored(data.X), X, dense_mask=mask)


@pytest.mark.parametrize("container", [sparse.lil_array, sparse.dok_array])
def test_formats_to_build_a_matrix_in_are_accepted(table, model, container):
    X = container(table.shape)
    for i, j in np.argwhere(~np.isnan(table)):
        X[i, j] = table[i, j]
    # These do not store zeros that are assigned.
    assert_same(model, X, np.where(table == 0, np.nan, table))


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, bool])
def test_integers_are_computed_in_double(table, model, dtype):
    whole = np.where(np.isnan(table), np.nan, np.abs(np.round(table)) % 2)
    X = stored(whole)
    X.data = X.data.astype(dtype)
    assert assert_same(model, X, whole).dtype == np.float64


def test_gradient_mf_still_takes_what_is_not_stored_for_zero(table):
    model = GradientMF(3, reg=0.1, max_iter=10)
    expected = clone(model).fit_transform(np.nan_to_num(table))
    found = model.fit_transform(stored(table))
    assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


# What is stored


@pytest.mark.parametrize("container", [CSR, CSC, COO])
def test_a_stored_nan_is_missing(table, model, container):
    X = stored(table, container)
    X.data[::5] = np.nan
    dense = X.toarray()
    dense[np.isnan(table)] = np.nan
    assert np.isnan(dense).sum() > np.isnan(table).sum()
    assert_same(model, X, dense)


@pytest.mark.pairwise(flag=[True, False], is_sorted=[True, False])
def test_neither_the_order_of_entries_nor_flags_about_it_matter(
    table, model, is_sorted, flag
):
    X = stored(table)
    for start, stop in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        for array in () if is_sorted else (X.indices, X.data):
            array[start:stop] = array[start:stop][::-1].copy()
    X.has_sorted_indices = X.has_canonical_format = flag
    assert_same(model, X, table)


def test_the_order_of_coo_entries_does_not_matter(table, model):
    X = stored(table, COO)
    order = np.random.RandomState(0).permutation(X.nnz)
    coords = [index[order] for index in X.coords]
    assert_same(model, COO((X.data[order], coords), X.shape), table)


@pytest.mark.parametrize("solver", SOLVERS)
def test_arrays_that_are_not_contiguous_are_accepted(table, model, solver):
    X = stored(table)
    arrays = X.data, X.indices, X.indptr
    X.data, X.indices, X.indptr = (np.repeat(array, 2)[::2] for array in arrays)
    assert not (X.data.flags.c_contiguous or X.indices.flags.c_contiguous)
    assert_same(model.set_params(solver=solver), X, table)


# A mask besides


@pytest.mark.parametrize(
    "form", [np.asarray, np.ndarray.tolist, CSR, CSC, COO, sparse.lil_array]
)
def test_what_the_mask_hides_is_missing_too(table, model, mask, form):
    hidden = np.where(mask, table, np.nan)
    assert_same(model, stored(table), hidden, mask=form(mask))
    assert_same(model, table, hidden, mask=form(mask))


def test_a_mask_may_store_false_and_its_entries_twice(table, model, mask):
    everywhere, once = stored(np.ones(table.shape)), CSR(mask)
    everywhere.data = mask.ravel()
    data, indices = np.repeat(once.data, 2), np.repeat(once.indices, 2)
    twice_each = CSR((data, indices, 2 * once.indptr), shape=mask.shape)
    assert twice_each.nnz == 2 * mask.sum()
    for given in (everywhere, twice_each):
        assert_same(model, stored(table), np.where(mask, table, np.nan), mask=given)


@pytest.mark.parametrize("form", [np.asarray, CSR])
def test_a_mask_of_another_shape_or_type_is_refused(table, model, form):
    mask = np.ones(table.shape, bool)
    with pytest.raises(ValueError, match=r"mask has shape \(40, 14\), but X has shape"):
        model.fit(stored(table), mask=form(mask[:, 1:]))
    with pytest.raises(ValueError, match=r"mask must be boolean.*got int64"):
        model.fit(stored(table), mask=form(mask.astype(np.int64)))


# The prior


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_row_or_column_that_stores_nothing_gets_the_prior(table, model, solver):
    rows, columns = [0, 17, 38], [0, 8, 14]
    table[rows], table[:, columns] = np.nan, np.nan
    Z = model.set_params(solver=solver).fit_transform(stored(table))
    assert_array_equal(Z[rows], np.zeros((3, 4)))
    folded = model.transform(stored(table))
    assert_array_equal(folded[rows], np.zeros((3, 4)))
    assert_array_equal(Z, folded)
    assert_array_equal(model.components_[:, columns], np.zeros((3, 3)))
    assert_array_equal(model.column_bias_[columns], np.zeros(3))
    assert_allclose(model.column_mean_[columns], model.mean_)


def test_new_rows_that_store_nothing_are_predicted_by_mean_and_column(table, model):
    Z = model.fit(stored(table)).transform(CSR((2, 15)))
    assert_array_equal(Z, np.zeros((2, 4)))
    assert_allclose(model.inverse_transform(Z)[1], model.mean_ + model.column_bias_)


# What is refused


@pytest.mark.parametrize("method", METHODS)
def test_infinity_and_a_matrix_that_stores_nothing_are_refused(table, model, method):
    X = stored(table)
    X.data[5] = -np.inf
    with pytest.raises(ValueError, match="contains infinity"):
        getattr(model.fit(table), method)(X)
    if method != "transform":
        with pytest.raises(ValueError, match="every entry of X is missing"):
            getattr(model, method)(CSR((4, 15)))


@pytest.mark.pairwise(
    container=CONTAINERS[:4],
    method=METHODS,
    dtype=[np.float64, np.float32, np.float16, np.int64, bool],
    flag=[False, True],
)
def test_an_entry_stored_twice_is_refused(table, model, container, method, dtype, flag):
    X = twice(stored(np.round(table), container), 0)
    X.data = X.data.astype(dtype)
    n_stored, X.has_canonical_format = X.nnz, flag
    with pytest.raises(ValueError, match=r"X stores an entry more than once.*dup"):
        getattr(model.fit(table), method)(X)
    assert X.nnz == n_stored


@pytest.mark.parametrize("name", ["dia", "bsr"])
def test_formats_that_cannot_tell_a_stored_zero_are_refused(table, model, name):
    X = stored(table).asformat(name)
    model.fit(table)
    for method in METHODS:
        with pytest.raises(TypeError, match=name.upper()):
            getattr(model, method)(X)


# Memory

MANY_ROWS = """
import resource

import numpy as np
from scipy import sparse
from sklearn_mfgd import MaskedGradientMF

m, n, n_entries = 100_000, 50_000, 150_000
k = np.arange(n_entries)
values = np.random.RandomState(0).uniform(1, 5, n_entries)
X = sparse.csr_array((values, (k % m, (7919 * k + 13 * (k // m)) % n)), shape=(m, n))
assert X.nnz == n_entries
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
for reg, megabytes in ((1.0, 200), ("auto", 450)):
    limit = taken + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    model = MaskedGradientMF(rank=5, reg=reg, max_iter=2).fit(X)
    Z = model.transform(X)
    score = model.score(X)
    rows = np.arange(0, m, 7)
    predicted = model.predict_entries(Z, rows, rows % n)
    rank = model.rank_  # some factors may have been dropped
    print(Z.shape == (m, rank + 1), model.components_.shape == (rank, n))
    print(np.isfinite(score), np.isfinite(predicted).all())
"""


@pytest.mark.slow
def test_a_matrix_of_five_billion_places_takes_the_memory_of_its_entries():
    """Written out, its pattern alone would take five gigabytes.

    Learning takes 48 numbers for each row and column while it describes them, and a
    copy of these in another precision.
    """
    env = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", MANY_ROWS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    expected = 4 * ["True True"]
    assert done.stdout.splitlines() == expected, done.stderr


@pytest.mark.pairwise(shape=[(57, 9), (3, 400), (0, 5), (5, 0)], order=["C", "F"])
def test_entries_listed_by_blocks_are_those_listed_at_once(monkeypatch, shape, order):
    rng = np.random.RandomState(0)
    X = np.asarray(rng.standard_normal(shape), np.float32, order=order)
    observed = rng.uniform(size=shape) < 0.6
    monkeypatch.setattr(linalg, "BLOCK", 100)
    rows = rows_of(X, observed)
    row_numbers, columns = np.nonzero(observed)
    assert_array_equal(rows.row_numbers, row_numbers)
    assert_array_equal(rows.indices, columns)
    assert_array_equal(rows.values, X[observed])
    assert rows.values.dtype == np.float32 and rows.indices.dtype == np.int32


@pytest.mark.pairwise(shape=[(57, 9), (3, 400)], kinds=["", "values", "values weights"])
def test_entries_transposed_by_blocks_are_those_at_once(monkeypatch, shape, kinds):
    rng = np.random.RandomState(0)
    X, observed = rng.standard_normal(shape), rng.uniform(size=shape) < 0.6
    rows = rows_of(X, observed)
    rows = rows._replace(
        values=rows.values if "values" in kinds else None,
        weights=rows.values**2 if "weights" in kinds else None,
    )
    whole = rows.transpose()
    monkeypatch.setattr("sklearn_mfgd._kernels.rows.LONGEST_TRANSPOSE", 40)
    for array, expected in zip(rows.transpose(), whole, strict=True):
        assert_array_equal(array, expected)
        assert getattr(array, "dtype", None) == getattr(expected, "dtype", None)
