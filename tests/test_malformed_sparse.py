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


# Damage: each takes a matrix and random numbers, and does what no matrix may have.


def index_outside(X, rng):
    arrays = list(X.coords) if X.format == "coo" else [X.indices]
    k = rng.randint(len(arrays))
    length = X.shape[k] if X.format == "coo" else X.shape[X.format == "csr"]
    index = arrays[k].astype(np.int64)
    index[rng.randint(index.size)] = rng.choice([length, *EXTREMES])
    arrays[k] = index
    if X.format == "coo":
        X.coords = tuple(arrays)
    else:
        X.indices = index


def pointer_outside(X, rng):
    X.indptr = X.indptr.astype(np.int64)
    X.indptr[rng.randint(X.indptr.size)] = rng.choice([X.nnz + 1, *EXTREMES])


def pointers_shuffled(X, rng):
    k = 1 + rng.randint(X.indptr.size - 2)
    X.indptr[k], X.indptr[k - 1] = X.indptr[k - 1], X.indptr[k] + 1


def pointers_fewer_or_more(X, rng):
    change = rng.choice([-3, -1, 1])
    X.indptr = np.resize(X.indptr, X.indptr.size + change)


def pointers_that_are_no_integers(X, rng):
    X.indptr = X.indptr.astype(np.float64)


def pointers_in_two_dimensions(X, rng):
    X.indptr = X.indptr[None]


def values_fewer(X, rng):
    X.data = X.data[: rng.randint(X.data.size)].copy()


def values_in_two_dimensions(X, rng):
    X.data = X.data[:, None]


def indices_fewer(X, rng):
    if X.format == "coo":
        X.coords = X.coords[0], X.coords[1][: rng.randint(X.nnz)]
    else:
        X.indices = X.indices[: rng.randint(X.indices.size)].copy()


def indices_that_are_no_integers(X, rng):
    if X.format == "coo":
        X.coords = X.coords[0] + 0.5, X.coords[1]
    else:
        X.indices = X.indices + 0.5


def a_shape_that_lies(X, rng):
    m, n = X.shape
    X._shape = [(m, 1), (1, n), (m - 5, n - 5), (m, 0)][rng.randint(4)]


ANY = [
    index_outside,
    values_fewer,
    values_in_two_dimensions,
    indices_fewer,
    indices_that_are_no_integers,
    a_shape_that_lies,
]
POINTERS = [
    pointer_outside,
    pointers_shuffled,
    pointers_fewer_or_more,
    pointers_that_are_no_integers,
    pointers_in_two_dimensions,
]


def table(rng):
    X = rng.uniform(1, 5, size=SHAPE)
    X[rng.uniform(size=SHAPE) < 0.5] = 0
    X[0], X[:, 0] = 1 + rng.uniform(size=SHAPE[1]), 1 + rng.uniform(size=SHAPE[0])
    return X


@pytest.fixture(scope="module")
def masked():
    X = table(np.random.RandomState(0))
    return MaskedGradientMF(2, reg=0.1, max_iter=2).fit(X)


@pytest.fixture(scope="module")
def complete():
    X = table(np.random.RandomState(0))
    return GradientMF(2, reg=0.1, max_iter=2).fit(X)


def assert_refused(call, *arguments, **options):
    with pytest.raises(ValueError, match=r"malformed|has shape|in shape"):
        call(*arguments, **options)


@pytest.mark.parametrize(
    "container, damage",
    [
        (getattr(sparse, name), damage)
        for name in ("csr_array", "csc_matrix", "coo_array")
        for damage in ANY + (POINTERS if name != "coo_array" else [])
    ],
)
def test_a_damaged_matrix_is_refused_wherever_it_is_given(
    masked, complete, container, damage
):
    rng = np.random.RandomState(sum(map(ord, damage.__name__ + container.__name__)))
    dense = table(rng)
    X = container(dense)

    def damaged(values):
        made = container(values)
        damage(made, rng)
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


def block_outside(X):
    X.indices[1] = 50


def blocks_that_do_not_fill(X):
    X._shape = 13, 9


def blocks_fewer(X):
    X.data = X.data[:-2]


def diagonals_fewer_than_offsets(X):
    X.data = X.data[:-1]


def a_diagonal_twice(X):
    X.offsets = np.repeat(X.offsets[:1], len(X.offsets))


def list_outside(X):
    X.rows[2] = [10**6] * len(X.rows[2])


def lists_of_different_length(X):
    X.data[3] = X.data[3] * 1000


def lists_fewer(X):
    X.rows = X.rows[:-1]


def key_outside(X):
    X._dict[40, 2**40] = X._dict[0, 0]


def key_negative(X):
    X._dict[-100, 0] = X._dict[0, 0]


DAMAGED = {
    "bsr": [block_outside, blocks_that_do_not_fill, blocks_fewer],
    "dia": [diagonals_fewer_than_offsets, a_diagonal_twice],
    "lil": [list_outside, lists_of_different_length, lists_fewer],
    "dok": [key_outside, key_negative],
}


@pytest.mark.parametrize(
    "name, damage", [(name, damage) for name in DAMAGED for damage in DAMAGED[name]]
)
def test_damage_of_other_formats_is_an_error(masked, complete, name, damage):
    dense = table(np.random.RandomState(1))

    def damaged(values):
        made = sparse.coo_array(values).asformat(name)
        damage(made)
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


@pytest.mark.parametrize(
    "container, index_type",
    [
        (sparse.csr_array, np.int16),
        (sparse.csc_matrix, np.int32),
        (sparse.csr_matrix, np.int64),
        (sparse.coo_array, np.uint32),
    ],
)
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
