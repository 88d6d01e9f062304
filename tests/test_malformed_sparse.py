"""Malformed sparse matrices are an error and no crash; nobody's matrix is changed.

Damage of a few kinds is done at random, in this process: a crash would end the tests.
"""

import numpy as np
import pytest
from scipy import sparse

from sklearn_mfgd import GradientMF, MaskedGradientMF
from sklearn_mfgd.model_selection import (
    cross_validate_entries,
    make_entries_scorer,
    train_test_split_entries,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

SHAPE = (12, 9)
EXTREMES = [-1, -(2**31), 2**31 - 1, 2**40]


def damage(X, kind, rng):
    is_coo = X.format == "coo"
    match kind:
        case "an index outside":
            arrays = list(X.coords) if is_coo else [X.indices]
            k = rng.randint(len(arrays))
            length = X.shape[k] if is_coo else X.shape[X.format == "csr"]
            arrays[k] = arrays[k].astype(np.int64)
            arrays[k][rng.randint(X.nnz)] = rng.choice([length, *EXTREMES])
            set_indices(X, arrays)
        case "values fewer":
            X.data = X.data[: rng.randint(X.data.size)].copy()
        case "values in two dimensions":
            X.data = X.data[:, None]
        case "indices fewer":
            fewer = (X.coords[1] if is_coo else X.indices)[: rng.randint(X.nnz)].copy()
            set_indices(X, [X.coords[0], fewer] if is_coo else [fewer])
        case "indices that are no integers":
            arrays = [X.coords[0] + 0.5, X.coords[1]] if is_coo else [X.indices + 0.5]
            set_indices(X, arrays)
        case "a shape that lies":
            m, n = X.shape
            X._shape = [(m, 1), (1, n), (m - 5, n - 5), (m, 0)][rng.randint(4)]
        case "a pointer outside":
            X.indptr = X.indptr.astype(np.int64)
            X.indptr[rng.randint(X.indptr.size)] = rng.choice([X.nnz + 1, *EXTREMES])
        case "pointers shuffled":
            k = 1 + rng.randint(X.indptr.size - 2)
            X.indptr[k], X.indptr[k - 1] = X.indptr[k - 1], X.indptr[k] + 1
        case "pointers fewer or more":
            X.indptr = np.resize(X.indptr, X.indptr.size + rng.choice([-3, -1, 1]))
        case "pointers that are no integers":
            X.indptr = X.indptr.astype(np.float64)
        case "pointers in two dimensions":
            X.indptr = X.indptr[None]
        case _:
            raise ValueError(kind)


def set_indices(X, arrays):
    if X.format == "coo":
        X.coords = tuple(arrays)
    else:
        (X.indices,) = arrays


ANY = ["an index outside", "values fewer", "values in two dimensions", "indices fewer"]
ANY += ["indices that are no integers", "a shape that lies"]
POINTERS = ["a pointer outside", "pointers shuffled", "pointers fewer or more"]
POINTERS += ["pointers that are no integers", "pointers in two dimensions"]


def table(rng):
    X = rng.uniform(1, 5, size=SHAPE)
    X[rng.uniform(size=SHAPE) < 0.5] = 0
    X[0], X[:, 0] = 1 + rng.uniform(size=SHAPE[1]), 1 + rng.uniform(size=SHAPE[0])
    return X


@pytest.fixture(scope="module")
def masked():
    return MaskedGradientMF(2, reg=0.1, max_iter=2).fit(table(np.random.RandomState(0)))


@pytest.fixture(scope="module")
def complete():
    return GradientMF(2, reg=0.1, max_iter=2).fit(table(np.random.RandomState(0)))


def assert_refused(call, *arguments, **options):
    with pytest.raises(ValueError, match=r"malformed|has shape|in shape"):
        call(*arguments, **options)


COMPRESSED = [sparse.csr_array, sparse.csc_matrix]


@pytest.mark.parametrize(
    "container, kind",
    [(container, kind) for container in COMPRESSED for kind in ANY + POINTERS]
    + [(sparse.coo_array, kind) for kind in ANY],
)
def test_a_damaged_matrix_is_refused_wherever_it_is_given(
    masked, complete, container, kind
):
    rng = np.random.RandomState(sum(map(ord, kind + container.__name__)))
    dense = table(rng)
    X = container(dense)

    def damaged(values):
        made = container(values)
        damage(made, kind, rng)
        return made

    for name in ("fit", "transform", "score"):
        ours, theirs = getattr(masked, name), getattr(complete, name)
        assert_refused(ours, damaged(dense))
        assert_refused(theirs, damaged(dense))
        assert_refused(ours, damaged(dense.astype(int)))
        assert_refused(ours, X, mask=damaged(dense > 0))
        assert_refused(theirs, dense, mask=damaged(dense > 0))
        assert_refused(ours, X, entry_weight=damaged(dense))
        assert_refused(theirs, dense, entry_weight=damaged(dense))
    model = MaskedGradientMF(2)
    assert_refused(train_test_split_entries, damaged(dense))
    assert_refused(cross_validate_entries, model, damaged(dense), cv=2)
    assert_refused(make_entries_scorer(), model, damaged(dense))


# Other formats


def damage_other(X, kind):
    match kind:
        case "block outside":
            X.indices[1] = 50
        case "blocks that do not fill":
            X._shape = 13, 9
        case "blocks fewer":
            X.data = X.data[:-2]
        case "diagonals fewer than offsets":
            X.data = X.data[:-1]
        case "a diagonal twice":
            X.offsets = np.repeat(X.offsets[:1], len(X.offsets))
        case "list outside":
            X.rows[2] = [10**6] * len(X.rows[2])
        case "lists of different length":
            X.data[3] = X.data[3] * 1000
        case "lists fewer":
            X.rows = X.rows[:-1]
        case "key outside":
            X._dict[40, 2**40] = X._dict[0, 0]
        case "key negative":
            X._dict[-100, 0] = X._dict[0, 0]
        case _:
            raise ValueError(kind)


DAMAGED = {
    "bsr": ["block outside", "blocks that do not fill", "blocks fewer"],
    "dia": ["diagonals fewer than offsets", "a diagonal twice"],
    "lil": ["list outside", "lists of different length", "lists fewer"],
    "dok": ["key outside", "key negative"],
}


@pytest.mark.parametrize(
    "name, kind", [(name, kind) for name in DAMAGED for kind in DAMAGED[name]]
)
def test_damage_of_other_formats_is_an_error(masked, complete, name, kind):
    dense = table(np.random.RandomState(1))

    def damaged(values):
        made = sparse.coo_array(values).asformat(name)
        damage_other(made, kind)
        return made

    assert_refused(complete.fit, damaged(dense))
    assert_refused(complete.transform, damaged(dense))
    assert_refused(masked.fit, dense, mask=damaged(dense > 0))
    assert_refused(masked.fit, dense, entry_weight=damaged(dense))
    if name in ("lil", "dok"):  # the others are not taken
        assert_refused(masked.fit, damaged(dense))
        assert_refused(train_test_split_entries, damaged(dense))


@pytest.mark.parametrize("name", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"])
def test_any_format_that_is_well_formed_is_taken(complete, name):
    dense = table(np.random.RandomState(1))
    made = sparse.coo_array(dense).asformat(name)
    expected = complete.transform(dense)
    np.testing.assert_allclose(complete.transform(made), expected, rtol=1e-8)
    mask = sparse.coo_array(dense > 3).asformat(name)
    expected = complete.transform(dense, mask=dense > 3)
    np.testing.assert_array_equal(complete.transform(dense, mask=mask), expected)


# What is given stays as it is


def as_it_was(X):
    """Everything that a matrix holds, to the bit, the type and the place in memory."""
    arrays = [X.data, *(X.coords if X.format == "coo" else (X.indices, X.indptr))]
    bits = [(a.dtype, a.shape, a.tobytes(), a.__array_interface__) for a in arrays]
    is_sorted = X.format == "coo" or X.has_sorted_indices
    return bits, X.shape, X.format, vars(X).keys(), X.has_canonical_format, is_sorted


def roomy(X, index_type):
    """Give indices of a type, unsorted entries and spare room; COO has no room."""
    if X.format == "coo":
        X.coords = tuple(index.astype(index_type) for index in X.coords)
        return X
    for start, stop in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        for array in (X.indices, X.data):
            array[start:stop] = array[start:stop][::-1].copy()
    X.has_sorted_indices = False
    X.indptr = X.indptr.astype(index_type)
    X.indices = np.append(X.indices, [0, 0, 77]).astype(index_type)
    X.data = np.append(X.data, [1, 1, 0]).astype(X.data.dtype)
    return X


INDEX_TYPES = {sparse.csr_array: np.int16, sparse.csc_matrix: np.int32}
INDEX_TYPES |= {sparse.csr_matrix: np.int64, sparse.coo_array: np.uint32}


@pytest.mark.parametrize("container, index_type", INDEX_TYPES.items())
def test_spare_room_and_types_of_indices_stay(masked, complete, container, index_type):
    dense = table(np.random.RandomState(2))
    X, weights, mask, counts = (
        roomy(container(values), index_type)
        for values in (dense, dense, dense > 0, np.round(dense).astype(np.int8))
    )
    given = X, weights, mask, counts
    for matrix in given:
        matrix.has_canonical_format = False
        matrix.data.flags.writeable = False
    before = [as_it_was(matrix) for matrix in given]
    for method in ("fit", "fit_transform", "transform", "score"):
        getattr(masked, method)(X, mask=mask, entry_weight=weights)
        getattr(masked, method)(counts)
        getattr(masked, method)(dense, mask=mask, entry_weight=weights)
        getattr(complete, method)(X)
        getattr(complete, method)(counts)
    for matrix in (X, counts):
        train_test_split_entries(matrix)
        cross_validate_entries(MaskedGradientMF(2, max_iter=2), matrix, cv=2)
        make_entries_scorer()(masked, matrix)
    assert [as_it_was(matrix) for matrix in given] == before
    expected = MaskedGradientMF(2, reg=0.1, max_iter=2).fit(container(dense))
    found = MaskedGradientMF(2, reg=0.1, max_iter=2).fit(X)
    np.testing.assert_array_equal(found.components_, expected.components_)
