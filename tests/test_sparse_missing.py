"""Sparse X of MaskedGradientMF: an entry that is not stored is missing."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils import get_tags

from sklearn_mfgd import GradientMF, MaskedGradientMF
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels import linalg

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CONTAINERS = [
    sparse.csr_array,
    sparse.csc_array,
    sparse.coo_array,
    sparse.csr_matrix,
    sparse.csc_matrix,
    sparse.coo_matrix,
]
COMPRESSED = [sparse.csr_array, sparse.csc_array]
SOLVERS = ["als", "scaled", "gd", "sgd"]
METHODS = ["fit", "fit_transform", "transform", "score"]
TOLERANCE = {np.dtype(np.float64): 1e-8, np.dtype(np.float32): 1e-4}


@pytest.fixture
def holes(planted):
    """A table of 40 x 15, 60 % of it NaN, that holds a few zeros."""
    X = planted(share_missing=0.6).X + 2
    X[tuple(np.argwhere(~np.isnan(X))[::9].T)] = 0
    return X


@pytest.fixture
def model():
    return MaskedGradientMF(3, reg=0.1, max_iter=10)


def stored(X, container=sparse.csr_array):
    """Store what is not NaN, zeros included."""
    rows, columns = np.nonzero(~np.isnan(X))
    return container(sparse.coo_array((X[rows, columns], (rows, columns)), X.shape))


def with_indices(X, dtype):
    """Give a sparse matrix indices of a type."""
    if X.format == "coo":
        X.coords = tuple(index.astype(dtype) for index in X.coords)
    else:
        X.indices, X.indptr = X.indices.astype(dtype), X.indptr.astype(dtype)
    return X


def backwards(X):
    """Store the entries of each row (or column) in the opposite order."""
    X = X.copy()
    for start, stop in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        for array in (X.indices, X.data):
            array[start:stop] = array[start:stop][::-1].copy()
    return X


def arrays_of(X):
    return X.data, *(X.coords if X.format == "coo" else (X.indices, X.indptr))


def twice(X, value):
    """Store the first entry once more."""
    if X.format == "coo":
        coords = [np.append(index, index[0]) for index in X.coords]
        return type(X)((np.append(X.data, value), coords), X.shape)
    indptr = X.indptr.copy()
    indptr[np.argmax(indptr > 0) :] += 1
    data, indices = np.insert(X.data, 0, value), np.insert(X.indices, 0, X.indices[0])
    return type(X)((data, indices, indptr), X.shape)


def assert_same(model, X, dense, **dense_options):
    """Everything that a fit to X gives is what a fit to `dense` gives."""
    ours, theirs = clone(model), clone(model)
    Z = ours.fit_transform(X)
    rtol = TOLERANCE[Z.dtype]

    def same(found, expected):
        assert_allclose(found, expected, rtol=rtol, atol=rtol)

    same(Z, theirs.fit_transform(dense, **dense_options))
    for name in ("components_", "column_bias_", "column_mean_", "mean_", "eta_"):
        same(getattr(ours, name), getattr(theirs, name))
    for name in ("loss_curve_", "reconstruction_err_"):
        same(getattr(ours, name), getattr(theirs, name))
    if model.reg == "auto":
        for name in ("noise_variance_", "row_precision_", "column_precision_"):
            same(getattr(ours, name), getattr(theirs, name))
    assert ours.n_iter_ == theirs.n_iter_
    folded = theirs.transform(dense, **dense_options)
    same(theirs.transform(X), folded)
    same(ours.transform(dense, **dense_options), folded)
    same(theirs.score(X), theirs.score(dense, **dense_options))
    same(ours.inverse_transform(Z), theirs.inverse_transform(folded))
    rows, columns = np.arange(X.shape[0]), np.arange(X.shape[0]) % X.shape[1]
    same(
        ours.predict_entries(Z, rows, columns),
        theirs.inverse_transform(folded)[rows, columns],
    )
    assert Z.dtype == ours.transform(X).dtype == ours.components_.dtype
    return Z


# The same as NaN


@pytest.mark.pairwise(
    container=CONTAINERS,
    indices=[np.int32, np.int64],
    dtype=[np.float32, np.float64],
)
def test_every_format_is_the_same_as_nan(holes, model, container, indices, dtype):
    holes = holes.astype(dtype)
    X = with_indices(stored(holes, container), indices)
    assert assert_same(model, X, holes).dtype == dtype


@pytest.mark.pairwise(
    solver=SOLVERS,
    fit_bias=[False, True, "columns"],
    early_stopping=[False, True],
)
def test_unstored_is_the_same_as_nan_for_every_solver(
    holes, model, solver, fit_bias, early_stopping
):
    model.set_params(
        solver=solver,
        fit_bias=fit_bias,
        early_stopping=early_stopping,
        random_state=0,
    )
    assert_same(model, stored(holes), holes)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("container", CONTAINERS[:3])
def test_unstored_is_the_same_as_nan_with_the_defaults(
    planted, container, early_stopping
):
    X = planted(m=60, n=20, share_missing=0.6).X
    model = MaskedGradientMF(random_state=0, early_stopping=early_stopping)
    assert_same(model, stored(X, container), X)


@pytest.mark.parametrize("init", ["svd", "random", "given"])
def test_every_start_is_the_same(planted, model, init):
    data = planted(share_missing=0.6)
    model.set_params(random_state=0)
    model.set_params(init=(data.W, data.H) if init == "given" else init)
    assert_same(model, stored(data.X), data.X)


def test_the_randomized_svd_starts_from_the_same_place(planted):
    X = planted(m=170, n=150, share_missing=0.8).X
    assert_same(MaskedGradientMF(2, reg=0.1, max_iter=3), stored(X), X)


@pytest.mark.parametrize("container", CONTAINERS)
def test_unstored_is_the_same_as_a_mask(planted, model, container):
    data = planted(share_missing=0.6)
    assert_same(model, stored(data.X, container), data.complete, mask=data.mask)


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
@pytest.mark.parametrize("container", COMPRESSED)
def test_a_matrix_that_stores_every_entry_is_complete(
    planted, model, container, solver
):
    X = planted().X
    # From the SVD it would arrive at once, whatever the solver.
    model.set_params(solver=solver, init="random", tol=0, max_iter=4, random_state=0)
    assert_same(model, stored(X, container), X)


def test_a_matrix_that_stores_every_entry_is_complete_with_the_defaults(planted):
    X = planted(m=60, n=20).X
    assert_same(MaskedGradientMF(), stored(X), X)


@pytest.mark.parametrize("container", [sparse.lil_array, sparse.dok_array])
def test_formats_to_build_a_matrix_in_are_accepted(holes, model, container):
    X = container(holes.shape)
    for i, j in np.argwhere(~np.isnan(holes)):
        X[i, j] = holes[i, j]
    # These do not store zeros that are assigned.
    assert_same(model, X, np.where(holes == 0, np.nan, holes))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint16, bool])
def test_integers_are_computed_in_double(holes, model, dtype):
    whole = np.where(np.isnan(holes), np.nan, np.abs(np.round(holes)) % 2)
    X = stored(whole)
    X.data = X.data.astype(dtype)
    assert assert_same(model, X, whole).dtype == np.float64


def test_warm_start_goes_on_where_the_last_fit_ended(holes, model):
    X = stored(holes)
    model.set_params(warm_start=True, tol=0).fit(holes)
    last = model.loss_curve_[-1]
    assert model.fit(X).loss_curve_[0] <= last * (1 + 1e-12)


def test_cross_validation_cuts_the_same_rows(planted):
    X = planted(m=90, share_missing=0.5).X
    model = MaskedGradientMF(2, reg=0.1, max_iter=5)
    assert_allclose(
        cross_val_score(model, stored(X), cv=3),
        cross_val_score(model, X, cv=3),
        rtol=1e-8,
    )


def test_output_can_be_a_frame(holes, model):
    Z = model.set_output(transform="pandas").fit_transform(stored(holes))
    assert list(Z.columns) == model.get_feature_names_out().tolist()
    assert_array_equal(Z.to_numpy(), model.transform(stored(holes)).to_numpy())


@pytest.mark.parametrize("early_stopping", [False, True])
def test_the_tags_say_that_sparse_is_accepted(early_stopping):
    model = MaskedGradientMF(early_stopping=early_stopping)
    assert get_tags(model).input_tags.sparse


def test_gradient_mf_still_takes_what_is_not_stored_for_zero(holes):
    X = stored(holes)
    model = GradientMF(3, reg=0.1, max_iter=10)
    expected = clone(model).fit_transform(np.nan_to_num(holes))
    assert_allclose(model.fit_transform(X), expected, rtol=1e-8, atol=1e-8)


# What is stored


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_stored_zero_is_an_observed_zero(holes, model, container):
    X = stored(holes, container)
    assert (X.data == 0).any()
    assert X.nnz == (~np.isnan(holes)).sum()
    assert_same(model, X, holes)
    without = clone(model).fit(np.where(holes == 0, np.nan, holes))
    assert abs(model.fit(X).mean_ - without.mean_) > 0.01


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_stored_nan_is_missing(holes, model, container):
    X = stored(holes, container)
    X.data[::5] = np.nan
    dense = X.toarray()
    dense[np.isnan(holes)] = np.nan
    assert np.isnan(dense).sum() > np.isnan(holes).sum()
    assert_same(model, X, dense)


@pytest.mark.parametrize("container", COMPRESSED)
def test_the_order_of_the_entries_does_not_matter(holes, model, container):
    X = backwards(stored(holes, container))
    X.has_sorted_indices = False
    assert_same(model, X, holes)


def test_the_order_of_coo_entries_does_not_matter(holes, model):
    X = stored(holes, sparse.coo_array)
    order = np.random.RandomState(0).permutation(X.nnz)
    coords = [index[order] for index in X.coords]
    assert_same(model, sparse.coo_array((X.data[order], coords), X.shape), holes)


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("container", COMPRESSED)
def test_flags_that_are_out_of_date_do_not_matter(holes, model, container, truth):
    X = stored(holes, container)
    X = X if truth else backwards(X)
    X.has_sorted_indices = X.has_canonical_format = not truth
    assert_same(model, X, holes)


def test_room_for_more_entries_does_not_matter(holes, model):
    X = stored(holes)
    X.data = np.append(X.data, [np.nan, 1e9])
    X.indices = np.append(X.indices, [3, 10**6]).astype(X.indices.dtype)
    assert_same(model, X, holes)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("container", COMPRESSED)
def test_arrays_that_are_not_contiguous_are_accepted(holes, model, container, solver):
    X = stored(holes, container)
    X.data, X.indices, X.indptr = (np.repeat(a, 2)[::2] for a in arrays_of(X))
    assert not (X.data.flags.c_contiguous or X.indices.flags.c_contiguous)
    assert_same(model.set_params(solver=solver, random_state=0), X, holes)


@pytest.mark.pairwise(
    container=CONTAINERS,
    method=METHODS,
    dtype=[np.float64, np.float32, np.int64],
)
def test_the_data_are_left_as_they_were(holes, model, container, method, dtype):
    X = stored(np.round(holes), container)
    X.data = X.data.astype(dtype)
    if X.format != "coo":
        X = backwards(X)
        X.has_sorted_indices = False
    X.has_canonical_format = False
    before, format_before = [array.copy() for array in arrays_of(X)], X.format
    for array in arrays_of(X):
        array.flags.writeable = False
    getattr(model.fit(holes), method)(X)
    for now, earlier in zip(arrays_of(X), before, strict=True):
        assert now.dtype == earlier.dtype
        assert_array_equal(now, earlier)
    assert X.format == format_before
    assert not X.has_canonical_format
    assert X.format == "coo" or not X.has_sorted_indices


# A mask besides


@pytest.mark.parametrize(
    "form",
    [np.asarray, np.ndarray.tolist, *CONTAINERS, sparse.lil_array, sparse.dok_array],
)
def test_what_the_mask_hides_is_missing_too(holes, model, form):
    mask = np.random.RandomState(1).uniform(size=holes.shape) < 0.7
    hidden, X = np.where(mask, holes, np.nan), stored(holes)
    Z = clone(model).fit_transform(hidden)
    assert_allclose(model.fit_transform(X, mask=form(mask)), Z, rtol=1e-8)
    assert_allclose(model.transform(X, mask=form(mask)), Z, rtol=1e-8)
    assert model.score(X, mask=form(mask)) == pytest.approx(model.score(hidden))


def test_a_stored_false_of_the_mask_is_false(holes, model):
    mask = np.random.RandomState(1).uniform(size=holes.shape) < 0.7
    everywhere = stored(np.ones(holes.shape))
    everywhere.data = mask.ravel()
    expected = clone(model).fit_transform(np.where(mask, holes, np.nan))
    found = model.fit_transform(stored(holes), mask=everywhere)
    assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("container", [*COMPRESSED, sparse.coo_array])
def test_a_mask_that_stores_its_entries_twice_means_them_once(holes, model, container):
    mask = np.random.RandomState(1).uniform(size=holes.shape) < 0.7
    expected = clone(model).fit_transform(np.where(mask, holes, np.nan))
    once = container(mask)
    if once.format == "coo":
        index = tuple(np.repeat(index, 2) for index in once.coords)
    else:
        index = np.repeat(once.indices, 2), 2 * once.indptr
    entries = (np.repeat(once.data, 2), *index)
    if once.format == "coo":
        entries = entries[0], entries[1:]
    twice_each = container(entries, shape=mask.shape)
    assert twice_each.nnz == 2 * mask.sum()
    found = model.fit_transform(stored(holes), mask=twice_each)
    assert_allclose(found, expected, rtol=1e-8)


def test_a_sparse_mask_hides_entries_of_dense_data(holes, model):
    mask = np.random.RandomState(1).uniform(size=holes.shape) < 0.7
    expected = clone(model).fit_transform(holes, mask=mask)
    found = model.fit_transform(holes, mask=sparse.csr_array(mask))
    assert_array_equal(found, expected)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, sparse.coo_array])
def test_a_mask_of_another_shape_or_type_is_refused(holes, model, form):
    mask = np.ones(holes.shape, bool)
    with pytest.raises(ValueError, match=r"mask has shape \(40, 14\), but X has shape"):
        model.fit(stored(holes), mask=form(mask[:, 1:]))
    with pytest.raises(ValueError, match=r"mask must be boolean.*got int64"):
        model.fit(stored(holes), mask=form(mask.astype(np.int64)))


# The prior


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("container", COMPRESSED)
def test_a_row_that_stores_nothing_gets_the_prior(holes, model, container, solver):
    holes[[0, 17, 39]] = np.nan
    X = stored(holes, container)
    Z = model.set_params(solver=solver, random_state=0).fit_transform(X)
    assert_array_equal(Z[[0, 17, 39]], np.zeros((3, 4)))
    assert_array_equal(model.transform(X)[[0, 17, 39]], np.zeros((3, 4)))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("container", COMPRESSED)
def test_a_column_that_stores_nothing_gets_the_prior(holes, model, container, solver):
    holes[:, [0, 8, 14]] = np.nan
    model.set_params(solver=solver, random_state=0).fit(stored(holes, container))
    assert_array_equal(model.components_[:, [0, 8, 14]], np.zeros((3, 3)))
    assert_array_equal(model.column_bias_[[0, 8, 14]], np.zeros(3))
    assert_allclose(model.column_mean_[[0, 8, 14]], model.mean_)


def test_new_rows_that_store_nothing_are_predicted_by_mean_and_column(holes, model):
    Z = model.fit(stored(holes)).transform(sparse.csr_array((2, 15)))
    assert_array_equal(Z, np.zeros((2, 4)))
    assert_allclose(model.inverse_transform(Z)[1], model.mean_ + model.column_bias_)


# What is refused


@pytest.mark.parametrize("method", ["fit", "fit_transform", "score"])
def test_a_matrix_that_stores_nothing_is_refused(holes, model, method):
    with pytest.raises(ValueError, match="every entry of X is missing"):
        getattr(model.fit(holes), method)(sparse.csr_array((4, 15)))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_infinity_is_refused(holes, model, method, value):
    X = stored(holes)
    X.data[5] = value
    with pytest.raises(ValueError, match="contains infinity"):
        getattr(model.fit(holes), method)(X)


@pytest.mark.pairwise(
    container=CONTAINERS, method=METHODS, value=[5.0, 0.0], lie=[False, True]
)
def test_an_entry_stored_twice_is_refused(holes, model, container, method, value, lie):
    X = twice(stored(holes, container), value)
    if lie:
        X.has_canonical_format = True
    with pytest.raises(ValueError, match=r"X stores an entry more than once.*dup"):
        getattr(model.fit(holes), method)(X)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, bool])
@pytest.mark.parametrize("container", CONTAINERS)
def test_an_entry_stored_twice_is_refused_whatever_the_type(
    holes, model, container, dtype
):
    X = twice(stored(np.round(holes), container), 1)
    X.data = X.data.astype(dtype)
    n_stored = X.nnz
    with pytest.raises(ValueError, match="X stores an entry more than once"):
        model.fit(X)
    assert X.nnz == n_stored


def test_summed_duplicates_are_accepted(holes, model):
    X = twice(stored(holes), 0.0)
    X.sum_duplicates()
    assert_same(model, X, holes)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["dia", "bsr"])
def test_formats_that_cannot_tell_a_stored_zero_are_refused(holes, model, name, method):
    X = stored(holes).asformat(name)
    with pytest.raises((TypeError, ValueError), match=name.upper()):
        getattr(model.fit(holes), method)(X)


def test_another_number_of_features_is_refused(holes, model):
    X = stored(holes)
    with pytest.raises(ValueError, match=r"14 features.*expecting 15"):
        model.fit(X).transform(X[:, 1:])


def index_too_large(X):
    X.indices[3] = 10**8


def index_beyond_by_one(X):
    X.indices[3] = X.shape[X.format == "csr"]


def negative_index(X):
    X.indices[3] = -(10**8)


def decreasing_pointers(X):
    X.indptr[[2, 3]] = X.indptr[[3, 2]]


def pointer_beyond_the_entries(X):
    X.indptr[-1] = 10**8


def pointer_in_the_middle_beyond(X):
    X.indptr[5] = 10**8


def negative_first_pointer(X):
    X.indptr[0] = -(10**8)


def too_few_pointers(X):
    X.indptr = X.indptr[:-1].copy()


def too_few_values(X):
    X.data = X.data[:-2].copy()


MALFORMED = [
    index_too_large,
    index_beyond_by_one,
    negative_index,
    decreasing_pointers,
    pointer_beyond_the_entries,
    pointer_in_the_middle_beyond,
    negative_first_pointer,
    too_few_pointers,
    too_few_values,
]


@pytest.mark.pairwise(
    damage=MALFORMED, method=["fit", "transform", "score"], container=COMPRESSED
)
def test_a_damaged_matrix_is_an_error_and_no_crash(
    holes, model, container, method, damage
):
    X = stored(holes, container)
    assert (np.diff(X.indptr[:4]) > 0).all()
    damage(X)
    with pytest.raises(ValueError, match=r"malformed|ind(ex|ices)"):
        getattr(model.fit(holes), method)(X)


@pytest.mark.pairwise(method=METHODS, axis=[0, 1], index=[10**8, -1])
def test_coo_entries_outside_are_an_error_and_no_crash(
    holes, model, method, axis, index
):
    X = stored(holes, sparse.coo_array)
    X.coords[axis][3] = index
    with pytest.raises(ValueError, match="malformed sparse matrix"):
        getattr(model.fit(holes), method)(X)


# A crash would end the tests, too, so that this has a process of its own.
DAMAGED = """
import numpy as np
from scipy import sparse
from sklearn_mfgd import GradientMF, MaskedGradientMF

rng = np.random.RandomState(0)
table = np.where(rng.uniform(size=(30, 20)) < 0.3, rng.uniform(1, 5, (30, 20)), 0)
masked = MaskedGradientMF(2, reg=0.1, max_iter=2).fit(sparse.csr_array(table))
complete = GradientMF(2, reg=0.1, max_iter=2).fit(table)


def damaged(X):
    X = X.copy()
    array, value = damage
    getattr(X, array)[3] = value
    return X


for container in (sparse.csr_array, sparse.csc_array):
    X = container(table)
    for damage in (("indices", 10**8), ("indices", -(10**8)), ("indptr", 10**8)):
        for name in ("fit", "transform", "score"):
            ours, theirs = getattr(masked, name), getattr(complete, name)
            for what, call in {
                "integers": lambda: ours(damaged(X.astype(int))),
                "mask": lambda: ours(X, mask=damaged(X.astype(bool))),
                "entry_weight": lambda: ours(X, entry_weight=damaged(X)),
                "zeros": lambda: theirs(damaged(X)),
            }.items():
                print(container.__name__, damage, name, what, end=" ", flush=True)
                try:
                    call()
                except ValueError:
                    print("refused", flush=True)
                else:
                    print("accepted", flush=True)
"""


def test_damage_elsewhere_is_an_error_and_no_crash():
    """In X of integers, in mask or entry_weight, and where unstored is zero."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DAMAGED],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode} {done.stderr}"
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * 3 * 3 * 4
    assert [line for line in lines if not line.endswith("refused")] == []


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
for reg, megabytes in ((1.0, 200), ("auto", 350)):
    limit = taken + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    model = MaskedGradientMF(rank=5, reg=reg, max_iter=2).fit(X)
    Z = model.transform(X)
    score = model.score(X)
    rows = np.arange(0, m, 7)
    predicted = model.predict_entries(Z, rows, rows % n)
    print(Z.shape, model.components_.shape, predicted.shape)
    print(np.isfinite(score), np.isfinite(predicted).all())
"""


def test_a_matrix_of_five_billion_places_takes_the_memory_of_its_entries():
    """Written out, its pattern alone would take five gigabytes.

    Learning takes 42 numbers for each row and column while it describes them.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MANY_ROWS],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.stdout.splitlines() == 2 * [
        "(100000, 6) (5, 50000) (14286,)",
        "True True",
    ], done.stderr


@pytest.mark.parametrize("shape", [(57, 9), (3, 400), (0, 5), (5, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_entries_listed_by_parts_are_those_listed_at_once(monkeypatch, shape, order):
    rng = np.random.RandomState(0)
    X = np.asarray(rng.standard_normal(shape), np.float32, order=order)
    observed = rng.uniform(size=shape) < 0.6
    monkeypatch.setattr(linalg, "BLOCK", 100)
    rows = rows_of(X, observed)
    places = np.nonzero(observed)
    assert_array_equal(rows.row_numbers, places[0])
    assert_array_equal(rows.indices, places[1])
    assert_array_equal(rows.values, X[observed])
    assert rows.values.dtype == np.float32 and rows.indices.dtype == np.int32


@pytest.mark.parametrize("shape", [(57, 9), (3, 400), (9, 57)])
@pytest.mark.parametrize("kinds", ["", "values", "values weights"])
def test_entries_transposed_by_parts_are_those_transposed_at_once(
    monkeypatch, shape, kinds
):
    rng = np.random.RandomState(0)
    X, observed = rng.standard_normal(shape), rng.uniform(size=shape) < 0.6
    rows = rows_of(X, observed)
    rows = rows._replace(
        values=rows.values if "values" in kinds else None,
        weights=rows.values**2 if "weights" in kinds else None,
    )
    whole = rows.transpose()
    monkeypatch.setattr("sklearn_mfgd._kernels.rows.LONGEST_TRANSPOSE", 40)
    for part, expected in zip(rows.transpose(), whole, strict=True):
        assert_array_equal(part, expected)
        assert getattr(part, "dtype", None) == getattr(expected, "dtype", None)
