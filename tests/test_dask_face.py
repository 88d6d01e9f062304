"""Collections of Dask: their blocks, lazy results, and a matrix from its entries.

Everything runs on threads of this process but for what needs workers.
"""

import gc
import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

import sklearn_mfgd

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
pd = pytest.importorskip("pandas")

from sklearn_mfgd._kernels.rows import Rows  # noqa: E402
from sklearn_mfgd.dask import MaskedGradientMF, _lazy, from_triplets  # noqa: E402
from sklearn_mfgd.dask._blocks import blocks_of  # noqa: E402
from sklearn_mfgd.dask._errors import BlockError, naming  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:X has feature names:UserWarning"),
    pytest.mark.usefixtures("one_thread"),
]

SIZES = (12, 9, 0, 19)  # rows of each block: one is empty
CUTS = np.cumsum((0, *SIZES))


def sparse_block(X):
    """The entries of X that are not NaN, as CSR."""
    rows, columns = np.nonzero(~np.isnan(X))
    return sparse.csr_array((X[rows, columns], (rows, columns)), X.shape)


def cut(X):
    return [X[start:stop] for start, stop in pairwise(CUTS)]


def dense_array(X):
    return da.from_array(X, chunks=(SIZES, X.shape[1]))


def array_cut_by_columns(X):
    return da.from_array(X, chunks=(SIZES, 4))


def sparse_array(X):
    meta = sparse.csr_array((0, 0), dtype=X.dtype)
    return dense_array(X).map_blocks(sparse_block, meta=meta)


def sparse_array_cut_by_columns(X):
    meta = sparse.csr_array((0, 0), dtype=X.dtype)
    return array_cut_by_columns(X).map_blocks(sparse_block, meta=meta)


def array_of_unknown_lengths(X):
    parts = [
        da.from_delayed(dask.delayed(part), (np.nan, X.shape[1]), meta=X[:0])
        for part in cut(X)
    ]
    return da.concatenate(parts)


def frame(X):
    parts = [dask.delayed(pd.DataFrame)(part).add_prefix("c") for part in cut(X)]
    return dd.from_delayed(parts, meta=pd.DataFrame(X[:0]).add_prefix("c"))


def delayed_blocks(X):
    return [dask.delayed(sparse_block)(part) for part in cut(X)]


def blocks_in_memory(X):
    dense = cut(X)
    return (dense[0], sparse_block(dense[1]), *dense[2:])


COLLECTIONS = [
    dense_array,
    array_cut_by_columns,
    sparse_array,
    sparse_array_cut_by_columns,
    array_of_unknown_lengths,
    frame,
    delayed_blocks,
    blocks_in_memory,
]
LENGTHS_ARE_UNKNOWN = [array_of_unknown_lengths, frame, delayed_blocks]


@pytest.fixture(autouse=True)
def threads():
    """No client is there unless a test asks for one."""
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.fixture
def current_client(cluster):
    with distributed.Client(cluster) as client, dask.config.set(scheduler=None):
        yield client


@pytest.fixture(scope="module")
def X(planted):
    """A table of 40 x 8 of which 60 % is missing; block 0 lacks column 2."""
    X = planted(m=40, n=8, share_missing=0.6).X
    X[: SIZES[0], 2] = np.nan
    return X


@pytest.fixture
def weights(X):
    return np.random.RandomState(1).randint(0, 3, size=X.shape).astype(float)


def fitted(X, reg=0.5, **params):
    """A fit whose result does not matter here."""
    return MaskedGradientMF(3, reg=reg, max_iter=5, **params).fit(X)


@pytest.fixture(scope="module")
def model(X):
    return fitted(X)


@pytest.fixture(scope="module")
def bayes_model(X):
    return fitted(X, reg="auto", fit_bias=True)


def observed(collection, mask=None, entry_weight=None):
    return blocks_of(collection, mask, entry_weight, caller="MaskedGradientMF")


def entries_of(blocks):
    """All observed entries as (row, column, value, weight), read one by one."""
    entries, first_row = [], 0
    for rows in dask.compute(*blocks.delayed):
        assert rows.indices.dtype == np.int32
        for i in range(rows.shape[0]):
            for k in range(rows.indptr[i], rows.indptr[i + 1]):
                weight = 1.0 if rows.weights is None else rows.weights[k]
                entry = (first_row + i, rows.indices[k], rows.values[k], weight)
                entries.append(entry)
        first_row += rows.shape[0]
    return entries


def naive_entries(X, mask=None, weights=None):
    mask = np.ones(X.shape, bool) if mask is None else mask
    weights = np.ones(X.shape) if weights is None else weights
    return [
        (i, j, X[i, j], weights[i, j])
        for i in range(X.shape[0])
        for j in range(X.shape[1])
        if not np.isnan(X[i, j]) and mask[i, j] and weights[i, j] > 0
    ]


class Disk:
    """Blocks that count how often one is read; some cannot be."""

    def __init__(self, X, unreadable=()):
        self.blocks, self.unreadable, self.n_reads = np.split(X, 4), unreadable, 0

    def read(self, number):
        self.n_reads += 1
        if number in self.unreadable:
            raise OSError(f"file {number} is damaged")
        return self.blocks[number]

    def delayed_blocks(self):
        read = dask.delayed(self.read, traverse=False)
        double = dask.delayed(np.multiply)  # so that reading is not the last task
        return [double(read(number), 1) for number in range(len(self.blocks))]

    def array(self):
        parts = [
            da.from_delayed(block, (10, 8), float) for block in self.delayed_blocks()
        ]
        return da.concatenate(parts)

    def frame(self):
        parts = [dask.delayed(pd.DataFrame)(block) for block in self.delayed_blocks()]
        return dd.from_delayed(parts, meta=pd.DataFrame(self.blocks[0][:0]))


# Imports


def run_python(script):
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_the_package_does_not_import_dask():
    script = (
        "import sys, sklearn_mfgd, sklearn_mfgd.model_selection, sklearn_mfgd.plotting;"
        "print({name.split('.')[0] for name in sys.modules} & {'dask', 'distributed'})"
    )
    assert run_python(script) == "set()"


@pytest.mark.slow
@pytest.mark.parametrize("absent", ["dask", "distributed"])
def test_without_dask_the_error_names_the_extra(absent):
    script = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        "try:\n    import sklearn_mfgd.dask\n"
        "except ImportError as error: print(error)"
    )
    assert 'pip install "sklearn_mfgd[dask]"' in run_python(script)


# Blocks


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_list_the_observed_entries_of_their_rows(X, collection, dtype):
    X = X.astype(dtype)
    blocks = observed(collection(X))
    assert entries_of(blocks) == naive_entries(X)
    assert (blocks.n_columns, blocks.dtype) == (8, dtype)
    assert all(rows.values.dtype == dtype for rows in dask.compute(*blocks.delayed))
    unknown = collection in LENGTHS_ARE_UNKNOWN
    assert blocks.lengths == ((None,) * 4 if unknown else SIZES)


@pytest.mark.parametrize("collection", [dense_array, frame, delayed_blocks])
def test_integers_become_double_precision(X, collection):
    X = np.nan_to_num(X * 10).astype(np.int32)
    if collection is delayed_blocks:
        blocks = observed([dask.delayed(sparse.csr_array)(part) for part in cut(X)])
    else:
        blocks = observed(collection(X))
    values = dask.compute(*blocks.delayed)[0].values
    assert blocks.dtype == values.dtype == np.float64
    assert_array_equal(np.sort(values[values != 0]), np.sort(X[:12][X[:12] != 0]))


def test_a_complete_block_is_listed_as_any_other():
    X = np.arange(12.0).reshape(4, 3)
    assert entries_of(observed(da.from_array(X, chunks=(2, 3)))) == naive_entries(X)


@pytest.mark.parametrize(
    "collection", [dense_array, array_cut_by_columns, array_of_unknown_lengths, frame]
)
def test_mask_and_weights_lie_beside_the_blocks(X, weights, collection):
    mask = np.random.RandomState(2).uniform(size=X.shape) < 0.7
    beside = [collection(mask), collection(weights)]
    blocks = observed(collection(X), *beside)
    assert entries_of(blocks) == naive_entries(X, mask, weights)


def test_mask_and_weights_of_a_list_are_lists(X, weights):
    mask = np.random.RandomState(2).uniform(size=X.shape) < 0.7
    blocks = observed(list(map(dask.delayed, cut(X))), cut(mask), cut(weights))
    assert entries_of(blocks) == naive_entries(X, mask, weights)


def test_weights_in_other_chunks_are_cut_as_x_is(X, weights):
    weights = da.from_array(weights, chunks=(7, 8))
    blocks = observed(dense_array(X), None, weights)
    assert entries_of(blocks) == naive_entries(X, weights=weights.compute())


@pytest.mark.parametrize(
    "X_as, mask_as, message",
    [
        (dense_array, np.asarray, r"mask must be a dask.array .* got ndarray"),
        (frame, dense_array, "mask must be a collection of the kind of X"),
        (delayed_blocks, dense_array, "mask must be a collection of the kind of X"),
        (delayed_blocks, lambda mask: cut(mask)[1:], "mask has 3 blocks, but X has 4"),
        (dense_array, lambda mask: dense_array(mask)[1:], "mask has shape"),
        (
            array_of_unknown_lengths,
            lambda mask: da.from_array(mask, chunks=(20, 8)),
            "mask has 2 chunks of rows, but X has 4",
        ),
    ],
)
def test_a_mask_in_other_blocks_is_refused(X, X_as, mask_as, message):
    with pytest.raises((TypeError, ValueError), match=message):
        observed(X_as(X), mask_as(~np.isnan(X)))


def test_names_of_a_frame_are_the_names_of_features(X):
    model = fitted(frame(X))
    assert model.n_features_in_ == 8
    assert_array_equal(model.feature_names_in_, [f"c{k}" for k in range(8)])
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame(X).rename(columns={"c0": "other"}))


def test_another_number_of_columns_than_in_fit_is_refused_at_once(X, model):
    with pytest.raises(ValueError, match=r"X has 5 features, but .* expecting 8"):
        model.transform(dense_array(X[:, :5]))


# Errors that name a block


@pytest.mark.parametrize("kind", ["delayed_blocks", "array", "frame"])
def test_a_block_that_cannot_be_read_is_named(X, kind):
    collection = getattr(Disk(X, unreadable=[3]), kind)()
    expected = "Block 3 of X .key .* cannot be read: OSError: file 3 is damaged"
    with pytest.raises(ValueError, match=expected) as caught:
        MaskedGradientMF().fit(collection)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_block_of_the_mask_that_cannot_be_read_is_named(X):
    mask = [~np.isnan(block) for block in np.split(X, 4)]
    mask[2] = dask.delayed(Disk(X, unreadable=[1]).read)(1)
    with pytest.raises(ValueError, match=r"Block 2 of mask .* file 1 is damaged"):
        MaskedGradientMF().fit(np.split(X, 4), mask=mask)


def test_what_a_block_and_its_mask_need_is_read_once(X):
    disk = Disk(X)
    blocks = disk.delayed_blocks()
    masks = [dask.delayed(np.isfinite)(block) for block in blocks]
    entries_of(blocks_of(blocks, masks, caller="", like=(8, np.dtype(float))))
    assert disk.n_reads == 4


def test_what_a_block_and_its_mask_need_is_told_of_that_block(X):
    blocks = Disk(X, unreadable=[2]).delayed_blocks()
    masks = [dask.delayed(np.isfinite)(block) for block in blocks]
    with pytest.raises(BlockError, match=r"Block 2 of X .* file 2 is damaged"):
        MaskedGradientMF().fit(blocks, mask=masks)


def test_blocks_are_one_group_of_tasks_for_a_scheduler(X):
    keys = [block.key for block in observed(dense_array(X)).delayed]
    assert {dask.utils.key_split(key) for key in keys} == {"observed_rows"}
    graph = observed(Disk(X).delayed_blocks()).delayed[0].__dask_graph__()
    groups = {dask.utils.key_split(key) for key in dict(graph)}
    assert groups == {"block-read", "block-multiply", "observed_rows"}


def test_a_task_that_several_blocks_need_is_run_once(X):
    disk = Disk(X)
    shared = dask.delayed(disk.read, traverse=False)(0)
    blocks = [dask.delayed(np.multiply)(shared, factor) for factor in (1, 2)]
    assert len(entries_of(observed(blocks))) == 2 * len(naive_entries(X[:10]))
    assert disk.n_reads == 1 + 1  # the first block told its width


def test_the_same_block_may_come_twice(X):
    first, second = (dask.delayed(np.copy)(block) for block in np.split(X, 4)[:2])
    pairs = [observed([block, block]).delayed for block in (first, second)]
    found = [rows.values for rows in dask.compute(*pairs[0], *pairs[1])]
    expected = [block[~np.isnan(block)] for block in np.split(X, 4)[:2]]
    for values, wanted in zip(found, np.repeat([0, 1], 2), strict=True):
        assert_array_equal(values, expected[wanted])


def test_what_several_blocks_need_is_not_told_of_one(X):
    shared = dask.delayed(Disk(X, unreadable=[0]).read)(0)
    blocks = [dask.delayed(np.multiply)(shared, factor) for factor in (1, 2)]
    with pytest.raises(OSError, match=r"^file 0 is damaged"):
        MaskedGradientMF().fit(blocks)


def narrower(block):
    return block[:, 1:]


def single(block):
    return block.astype(np.float32)


@pytest.mark.parametrize(
    "change, message",
    [
        (narrower, r"Block 1 of X .key .*: it has 7 columns, but block 0 has 8"),
        (single, r"Block 1 of X .*: it has values of type float32, but block 0 has "),
        (lambda block: block * np.inf, "Block 1 of X .*infinity"),
        (lambda block: block.astype(str) + "a", "Block 1 of X .*'nana' in row 0"),
    ],
)
def test_a_block_unlike_the_first_is_named(X, change, message):
    blocks = delayed_blocks(X)
    blocks[1] = dask.delayed(change)(dask.delayed(cut(X)[1]))
    with pytest.raises(BlockError, match=message):
        MaskedGradientMF().fit(blocks)


@pytest.mark.parametrize("announced", [4, 6])
def test_a_block_of_another_length_than_announced_is_named(X, announced):
    block = dask.delayed(X[:5])
    parts = [da.from_delayed(block, (rows, 8), float) for rows in (5, announced)]
    message = f"Block 1 of X .* it has 5 rows, but the collection says {announced}"
    with pytest.raises(BlockError, match=message):
        MaskedGradientMF().fit(da.concatenate(parts))


def test_blocks_to_transform_have_the_type_of_the_fit(X, model):
    blocks = [dask.delayed(part.astype(np.float32)) for part in cut(X)]
    with pytest.raises(BlockError, match="type float32, but the fit had float64"):
        model.transform(blocks).compute()


def test_a_block_that_stores_an_entry_twice_is_named(X):
    twice = sparse.csr_array(([1.0, 2.0], [3, 3], [0, 2]), shape=(1, 8))
    with pytest.raises(BlockError, match="Block 1 of X: X stores an entry more than"):
        MaskedGradientMF().fit([sparse_block(X), twice])


def test_text_in_a_frame_is_refused_before_anything_is_read():
    table = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    with pytest.raises(ValueError, match="Column 'b' of X has the type"):
        observed(dd.from_pandas(table, npartitions=1))


@pytest.mark.parametrize(
    "X",
    [da.zeros(3), da.zeros((2, 2, 2)), {}, []],
    ids=["vector", "cube", "dict", "empty list"],
)
def test_what_is_no_matrix_is_no_collection(X):
    with pytest.raises((TypeError, ValueError), match="X must"):
        observed(X)


def test_an_error_that_names_a_block_keeps_its_cause_in_pickle():
    error = BlockError("Block 3 of X")
    error.__cause__ = OSError("gone")
    loaded = pickle.loads(pickle.dumps(error))
    assert str(loaded) == "Block 3 of X"
    assert repr(loaded.__cause__) == repr(error.__cause__)
    error.__cause__ = OSError(lambda: None)  # which pickle cannot store
    assert pickle.loads(pickle.dumps(error)).__cause__ is None


def test_blocks_of_blocks_are_named_by_the_first_that_fails(X, model):
    Z = model.transform(Disk(X, unreadable=[1]).delayed_blocks())
    with pytest.raises(BlockError, match=r"^Block 1 of X .* file 1 is damaged$") as it:
        MaskedGradientMF(2).fit(Z)
    assert str(it.value).count("Block") == 1


def test_a_task_may_ask_to_be_run_elsewhere():
    with pytest.raises(distributed.Reschedule), naming("Block 0 of X"):
        raise distributed.Reschedule


# Lazy results


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lazy_row_factors_are_those_of_the_local_estimator(X, collection, dtype):
    X = X.astype(dtype)
    model = fitted(X)
    Z = model.transform(collection(X))
    unknown = collection in LENGTHS_ARE_UNKNOWN
    assert isinstance(Z, da.Array)
    assert_array_equal(Z.chunks[0], (np.nan,) * 4 if unknown else SIZES)
    assert Z.chunks[1] == (4,)
    assert (Z.dtype, type(Z._meta)) == (dtype, np.ndarray)
    assert_array_equal(Z.compute(), model.to_local().transform(X), strict=True)


def locked(block):
    """The same block in memory that must not be written to, as it comes from a wire."""
    arrays = [block]
    if sparse.issparse(block):
        arrays = [block.data, block.indices, block.indptr]
    elif isinstance(block, Rows):
        arrays = block[:3]
    for array in arrays:
        array.flags.writeable = False
    return block


@pytest.mark.parametrize("make_block", [np.copy, sparse_block])
def test_blocks_are_not_written_to(X, model, make_block):
    blocks = [locked(make_block(part)) for part in cut(X)]
    expected = model.to_local().transform(X)
    assert_array_equal(model.transform(blocks), expected)
    parts = observed(blocks)
    parts = parts._replace(delayed=[dask.delayed(locked)(p) for p in parts.delayed])
    assert_array_equal(_lazy.row_factors(model, parts), expected)
    for *_, press, total in dask.compute(*_lazy.sums_by_block(model, parts)):
        assert np.isfinite([press, total]).all()


def test_lazy_row_factors_obey_mask_and_weights(X, weights, model):
    mask = np.random.RandomState(2).uniform(size=X.shape) < 0.7
    lazy = {"mask": dense_array(mask), "entry_weight": dense_array(weights)}
    expected = model.to_local().transform(X, mask=mask, entry_weight=weights)
    assert_array_equal(model.transform(dense_array(X), **lazy), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lazy_covariances_are_those_of_the_local_estimator(X, dtype):
    X = X.astype(dtype)
    model = fitted(X, reg="auto")
    found = model.transform(dense_array(X), return_cov=True)
    expected = model.to_local().transform(X, return_cov=True)
    assert found[1].chunks == (SIZES, *((size,) for size in expected[1].shape[1:]))
    for lazy, array in zip(found, expected, strict=True):
        assert lazy.dtype == array.dtype
        assert_array_equal(lazy.compute(), array, strict=True)


def test_covariances_of_large_units_are_announced_in_double_precision(X):
    X = (X * 1e25).astype(np.float32)
    covariance = fitted(X, reg="auto").transform(dense_array(X), return_cov=True)[1]
    assert covariance.dtype == covariance.compute().dtype == np.float64
    assert np.isfinite(covariance.compute()).all()


def test_covariances_of_a_given_ridge_are_refused_at_once(X, model):
    with pytest.raises(ValueError, match="return_cov=True needs a fit with reg='auto'"):
        model.transform(dense_array(X), return_cov=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_lazy_rows_are_those_of_the_local_estimator(X, model, dtype):
    Z = (10 * model.transform(X)).astype(dtype)
    lazy = model.inverse_transform(da.from_array(Z, chunks=(SIZES, 3)))
    expected = model.to_local().inverse_transform(Z)
    assert (lazy.chunks, lazy.dtype) == ((SIZES, (8,)), expected.dtype)
    assert_array_equal(lazy.compute(), expected, strict=True)


def test_rows_of_unknown_number_are_reconstructed(X, model):
    Z = model.transform(delayed_blocks(X))
    lazy, local = model.inverse_transform(Z), model.to_local()
    assert np.isnan(lazy.shape[0])
    assert_array_equal(lazy, local.inverse_transform(local.transform(X)))


PLACES = np.random.RandomState(3).randint(0, (40, 8), size=(60, 2)).T


@pytest.mark.parametrize("chunks", [None, 25], ids=["in memory", "lazy"])
@pytest.mark.parametrize("deviations", [False, True])
def test_lazy_entries_are_those_of_the_local_estimator(
    X, bayes_model, chunks, deviations
):
    places, local = PLACES, bayes_model.to_local()
    if chunks is not None:
        places = [da.from_array(axis, chunks=chunks) for axis in PLACES]
    given, lazy = local.transform(X, return_cov=True), {}
    Z, covariance = bayes_model.transform(dense_array(X), return_cov=True)
    options = {}
    if deviations:
        options = {"covariance": given[1], "return_std": True}
        lazy = {"covariance": covariance, "return_std": True}
    found = bayes_model.predict_entries(Z, *places, **lazy)
    expected = local.predict_entries(given[0], *PLACES, **options)
    if not deviations:
        found, expected = [found], [expected]
    for lazy_array, array in zip(found, expected, strict=True):
        assert lazy_array.chunks == ((60,) if chunks is None else (25, 25, 10),)
        assert_array_equal(lazy_array.compute(), array, strict=True)


@pytest.mark.parametrize("row", [*CUTS[:-1], *(CUTS[1:] - 1)])
def test_an_entry_at_the_edge_of_a_block_is_predicted(X, model, row):
    Z = model.transform(dense_array(X))
    found = model.predict_entries(Z, [row], [2])
    expected = model.inverse_transform(Z.compute())[[row], [2]]
    assert_allclose(found, expected, rtol=1e-12)


def test_entries_of_factors_in_memory_may_be_lazy(X, model):
    Z, places = model.transform(X), [da.from_array(axis, chunks=9) for axis in PLACES]
    expected = model.predict_entries(Z, *PLACES)
    assert isinstance(expected, np.ndarray)
    assert_array_equal(model.predict_entries(Z, *places).compute(), expected)


def test_entries_of_a_filtered_array_have_an_unknown_number(X, model):
    Z = model.transform(dense_array(X))
    rows, columns = (da.from_array(axis, chunks=25) for axis in PLACES)
    chosen = rows < 20
    found = model.predict_entries(Z, rows[chosen], columns[chosen])
    places = PLACES[:, PLACES[0] < 20]
    assert_array_equal(found, model.predict_entries(Z.compute(), *places))


def test_places_outside_are_refused(X, model):
    Z = model.transform(dense_array(X))
    with pytest.raises(ValueError, match=r"rows\[1\] is 40; it must lie in \[0, 40\)"):
        model.predict_entries(Z, [0, 40], [0, 0])
    lazy = da.from_array(np.array([0, 8]))
    with pytest.raises(ValueError, match=r"columns\[1\] is 8"):
        model.predict_entries(Z, [0, 1], lazy).compute()


def test_entries_need_blocks_of_known_length(X, model):
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        model.predict_entries(model.transform(frame(X)), [0], [0])


def test_deviations_need_covariances(X, model, bayes_model):
    Z = bayes_model.transform(dense_array(X))
    with pytest.raises(ValueError, match="needs the covariance of shape"):
        bayes_model.predict_entries(Z, [0], [0], return_std=True)
    with pytest.raises(ValueError, match="return_std=True needs a fit with reg='auto'"):
        model.predict_entries(
            model.transform(dense_array(X)), [0], [0], return_std=True
        )


def test_factors_of_another_width_are_refused_at_once(model):
    with pytest.raises(ValueError, match="Z must have 4 columns"):
        model.inverse_transform(da.zeros((5, 3)))
    with pytest.raises(TypeError, match=r"Z must be a dask\.array"):
        model.inverse_transform([dask.delayed(np.zeros((5, 4)))])


@pytest.mark.parametrize("kind", ["delayed_blocks", "array", "frame"])
def test_results_are_lazy(X, model, kind):
    disk = Disk(X)
    collection = getattr(disk, kind)()
    Z = model.transform(collection)
    model.inverse_transform(Z)
    assert disk.n_reads == 0
    Z.compute()
    assert disk.n_reads == 4


def test_the_model_is_in_the_graph_once(X, model):
    Z = model.transform(dense_array(X))
    nodes = list(dict(Z.__dask_graph__()).values())
    kinds = [type(getattr(node, "value", None)).__name__ for node in nodes]
    assert kinds.count("ModelOfRows") == 1


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize("reg", [0.5, "auto"])
def test_the_score_is_that_of_the_local_estimator(X, weights, collection, reg):
    model = fitted(X, reg=reg)
    expected = model.to_local().score(X)
    assert_allclose(model.score(collection(X)), expected, rtol=1e-12)
    given = {"entry_weight": dense_array(weights)}
    expected = model.to_local().score(X, entry_weight=weights)
    assert_allclose(model.score(dense_array(X), **given), expected, rtol=1e-12)


def test_results_are_arrays_whatever_output_is_set(X, model):
    with sklearn.config_context(transform_output="pandas"):
        Z = model.transform(dense_array(X)).compute(scheduler="synchronous")
        assert isinstance(Z, np.ndarray)
        assert isinstance(model.transform(X), np.ndarray)


def test_a_score_of_nothing_is_refused(X, model):
    with pytest.raises(ValueError, match="nothing to score"):
        model.score(dense_array(X * np.nan))


def test_what_is_right_everywhere_scores_one():
    X = np.zeros((6, 4))
    X[0, 0] = np.nan
    model = fitted(X)
    assert model.score(da.from_array(X, chunks=(2, 4))) == model.to_local().score(X)


def test_y_with_the_shape_of_a_mask_is_refused_without_its_values(X, model):
    def refuse(block):
        raise AssertionError("y was computed")

    y = dense_array(X).map_blocks(refuse, dtype=bool, meta=np.empty((0, 0), bool))
    for method in (model.score, clone(model).fit):
        with pytest.raises(ValueError, match="y is boolean and has the shape of X"):
            method(dense_array(X), y)


# The estimator


@pytest.mark.parametrize("collection", COLLECTIONS)
@pytest.mark.parametrize("reg", [0.5, "auto"])
def test_a_fit_finds_what_the_local_estimator_finds(X, collection, reg):
    params = {"rank": 3, "reg": reg, "max_iter": 20}
    model = MaskedGradientMF(**params).fit(collection(X))
    local = sklearn_mfgd.MaskedGradientMF(**params).fit(X)
    assert (model.rank_, model.n_iter_) == (local.rank_, local.n_iter_)
    assert_allclose(model.components_, local.components_, rtol=1e-8, atol=1e-8)
    assert isinstance(model.components_, np.ndarray)


def test_fit_transform_is_lazy_for_a_collection(X, weights):
    model, given = MaskedGradientMF(3, reg=0.5), {"entry_weight": dense_array(weights)}
    Z = model.fit_transform(dense_array(X), **given)
    assert isinstance(Z, da.Array)
    assert_array_equal(Z, model.transform(dense_array(X), **given))


@pytest.mark.parametrize("container", [np.asarray, sparse_block, pd.DataFrame, list])
def test_data_in_memory_give_arrays_back(X, weights, container):
    model = MaskedGradientMF(3, reg=0.5, max_iter=5)
    if container is list:
        X = X.tolist()
    data = X if container is list else container(X)
    Z = model.fit_transform(data)
    local = model.to_local()
    assert isinstance(Z, np.ndarray)
    assert_array_equal(Z, local.transform(data))
    assert_array_equal(model.inverse_transform(Z), local.inverse_transform(Z))
    assert_array_equal(
        model.predict_entries(Z, *PLACES), local.predict_entries(Z, *PLACES)
    )
    assert model.score(data) == local.score(data)


def test_mask_and_weights_in_memory_go_with_data_in_memory(X, weights):
    mask = (np.random.RandomState(2).uniform(size=X.shape) < 0.7).tolist()
    params, given = {"rank": 3, "reg": 0.5}, {"mask": mask, "entry_weight": weights}
    found = MaskedGradientMF(**params).fit(X, **given).components_
    local = sklearn_mfgd.MaskedGradientMF(**params).fit(X, **given)
    assert_allclose(found, local.components_, rtol=1e-8)


def test_a_failed_fit_leaves_the_estimator_as_it_was(X):
    model = fitted(X)
    before = model.components_
    with pytest.raises(ValueError, match="cannot be read"):
        model.fit(Disk(X, unreadable=[1]).delayed_blocks())
    assert_array_equal(model.components_, before)


@pytest.mark.parametrize(
    "params",
    [
        {"n_draws": 2},
        {"solver": "gd", "reg": 0.1},
        {"solver": "scaled", "reg": 0.1},
        {"solver": "sgd", "reg": 0.1},
        {"eta": 0.5, "reg": 0.1},
        {"init": (np.ones((40, 3)), np.ones((8, 3)))},
    ],
    ids=str,
)
def test_what_blocks_cannot_do_is_refused_by_name(X, params):
    name = next(iter(params))
    with pytest.raises(ValueError, match=rf"{name}=.* does not work with Dask"):
        MaskedGradientMF(3, **params).fit(dense_array(X))


def test_times_are_no_argument_of_a_fit_in_blocks(X):
    with pytest.raises(TypeError, match="times"):
        MaskedGradientMF().fit(dense_array(X), times=np.arange(40))


def test_the_local_estimator_is_stored_without_dask(X):
    model = fitted(frame(X))
    stored = pickle.dumps(model.to_local())
    assert b"dask" not in stored
    local = pickle.loads(stored)
    assert type(local) is sklearn_mfgd.MaskedGradientMF
    params = model.get_params()
    params.pop("client")
    assert local.get_params() == params
    table = pd.DataFrame(X).add_prefix("c")
    assert_array_equal(local.transform(table), model.transform(table))


@pytest.mark.slow
def test_the_estimator_is_conformant():
    results = check_estimator(MaskedGradientMF(max_iter=5), on_fail=None, on_skip=None)
    assert [r for r in results if r["status"] == "failed"] == []
    assert len([r for r in results if r["status"] == "passed"]) > 30


# A matrix from its entries


@pytest.fixture(scope="module")
def triplets(X):
    """The entries of X in random order, as a table."""
    rows, columns = np.nonzero(~np.isnan(X))
    values = X[rows, columns]
    order = np.random.RandomState(4).permutation(len(values))
    table = {"row": rows[order], "column": columns[order], "value": values[order]}
    return pd.DataFrame(table)


def lazily(table, npartitions=3):
    return dd.from_pandas(table, npartitions=npartitions)


def as_missing(S, dtype=float):
    """The dense matrix of a sparse one, NaN for what it does not store."""
    S = S.tocoo()
    dense = np.full(S.shape, np.nan, dtype)
    dense[S.row, S.col] = S.data
    return dense


@pytest.mark.parametrize("n_blocks", [None, 1, 7, 100])
def test_a_matrix_is_made_of_entries_in_any_order(X, triplets, n_blocks):
    made = from_triplets(lazily(triplets), "row", "column", "value", n_blocks=n_blocks)
    assert made.X.shape == X.shape
    assert made.X.numblocks == (min(n_blocks or 3, 40), 1)
    assert made.X.dtype == np.float64
    assert isinstance(made.X._meta, sparse.csr_array)
    sizes = [block.shape for block in dask.compute(*made.X.to_delayed().ravel())]
    assert sizes == [(size, 8) for size in made.X.chunks[0]]
    assert max(made.X.chunks[0]) - min(made.X.chunks[0]) <= 1
    assert_array_equal(as_missing(made.X.compute()), X)
    assert_array_equal(made.rows, np.arange(40))
    assert_array_equal(made.columns, np.arange(8))


@pytest.mark.parametrize("as_label", ["user {}".format, lambda k: 10**12 + k * 10**6])
def test_labels_are_mapped_by_the_indices_that_are_returned(X, triplets, as_label):
    table = triplets[triplets["row"] != 5].copy()  # a row without entries has no label
    table["row"] = table["row"].map(as_label)
    made = from_triplets(lazily(table), "row", "column", "value", ids="mapped")
    assert list(made.rows) == sorted(set(table["row"]))
    dense = as_missing(made.X.compute())
    for i, j, value in table.itertuples(index=False):
        assert dense[made.rows.get_loc(i), made.columns.get_loc(j)] == value
    assert np.isnan(dense).sum() == dense.size - len(table)


def test_only_labels_are_mapped_by_default(triplets):
    table = triplets.assign(column=triplets["column"].map("film {}".format))
    table["column"] = table["column"].astype("category")
    made = from_triplets(lazily(table), "row", "column", "value", n_rows=50)
    assert made.X.shape == (50, 8)
    assert list(made.columns) == [f"film {k}" for k in range(8)]


def test_a_matrix_is_made_of_parquet_files(X, triplets, tmp_path):
    table = triplets.astype({"value": np.float32, "row": np.int32})
    for number, some in enumerate(np.array_split(np.arange(len(table)), 3)):
        table.iloc[some].to_parquet(tmp_path / f"{number}.parquet")
    made = from_triplets(dd.read_parquet(tmp_path), "row", "column", "value")
    assert made.X.dtype == made.X.compute().dtype == np.float32
    assert_array_equal(as_missing(made.X.compute()), X.astype(np.float32))


def test_a_matrix_from_entries_can_be_fitted(X, triplets):
    made = from_triplets(lazily(triplets), "row", "column", "value", n_blocks=4)
    expected = fitted(X)
    assert_array_equal(fitted(made.X).components_, expected.components_)


def test_nothing_is_computed_where_the_shape_is_given(triplets):
    def refuse(table):
        raise AssertionError("df was computed")

    df = lazily(triplets).map_partitions(refuse, meta=triplets[:0])
    shape = {"n_rows": 40, "n_columns": 8}
    assert from_triplets(df, "row", "column", "value", **shape).X.shape == (40, 8)
    with pytest.raises(AssertionError, match="df was computed"):
        from_triplets(df, "row", "column", "value", n_rows=40)


def test_an_entry_that_comes_twice_is_refused(triplets):
    table = pd.concat([triplets, triplets[7:8]])
    made = from_triplets(lazily(table), "row", "column", "value")
    i, j = triplets["row"][7], triplets["column"][7]
    expected = f"the entry of row {i} and column {j} .*more than once"
    with pytest.raises(ValueError, match=expected):
        made.X.compute()


def test_a_value_that_is_missing_is_no_observed_entry(X, triplets):
    table = triplets.assign(value=triplets["value"].where(triplets["row"] != 3))
    made = from_triplets(lazily(table), "row", "column", "value")
    X = np.where(np.arange(40)[:, None] == 3, np.nan, X)
    assert entries_of(observed(made.X)) == naive_entries(X)


@pytest.mark.parametrize(
    "change, options, message",
    [
        ({"row": -1}, {}, r"Column 'row' of df holds the id -1"),
        ({}, {"n_rows": 39}, r"Column 'row' of df holds the id 39, .* \[0, 39\)"),
        ({"column": None}, {"ids": "mapped"}, "Column 'column' of df holds a missing"),
        (
            {"row": "a"},
            {"ids": "given"},
            "ids='given' needs integers, but column 'row'",
        ),
        ({"row": "a"}, {"n_rows": 40}, "n_rows is for ids that are numbers"),
        ({"value": "a"}, {}, "Column 'value' of df must hold the values"),
        ({}, {"n_blocks": 0}, "n_blocks must be at least 1"),
        ({}, {"ids": "all"}, "ids must be 'auto', 'given' or 'mapped'; got 'all'"),
    ],
    ids=str,
)
def test_entries_that_make_no_matrix_are_refused(triplets, change, options, message):
    table = triplets.astype(dict.fromkeys(change, object))
    for name, value in change.items():
        table.loc[5, name] = value
    if change.get("row") == -1:
        table = table.astype({"row": int})
    with pytest.raises(ValueError, match=message):
        from_triplets(lazily(table), "row", "column", "value", **options).X.compute()


def test_columns_of_the_frame_are_named(triplets):
    with pytest.raises(ValueError, match="column='item' is no column of df"):
        from_triplets(lazily(triplets), "row", "item", "value")
    with pytest.raises(TypeError, match=r"df must be a dask\.dataframe"):
        from_triplets(triplets, "row", "column", "value")
    with pytest.raises(ValueError, match="df holds no entries"):
        from_triplets(lazily(triplets[:0], 1), "row", "column", "value")


# Workers


@pytest.mark.slow
def test_workers_give_what_threads_give(X, model, current_client):
    Z = model.transform(sparse_array(X))
    assert_array_equal(Z, model.to_local().transform(X))
    assert_array_equal(model.inverse_transform(Z), model.inverse_transform(Z.compute()))
    assert model.score(frame(X)) == pytest.approx(model.to_local().score(X))


@pytest.mark.slow
def test_an_error_comes_back_from_a_worker_with_its_cause(X, current_client):
    with pytest.raises(BlockError, match=r"Block 3 of X .* file 3 is dam") as caught:
        MaskedGradientMF().fit(Disk(X, unreadable=[3]).delayed_blocks())
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.slow
@pytest.mark.parametrize("collection", [dense_array, frame, delayed_blocks])
def test_data_on_the_cluster_stay_there_as_long_as_the_blocks(
    X, collection, current_client
):
    persisted = collection(X)
    if isinstance(persisted, list):
        persisted = list(dask.persist(*persisted))
    else:
        persisted = persisted.persist()
    distributed.wait(persisted)
    blocks = observed(persisted)
    del persisted
    gc.collect()
    assert entries_of(blocks) == naive_entries(X)


@pytest.mark.slow
def test_results_from_data_on_the_cluster_keep_them_there(X, model, current_client):
    Z = model.transform(dense_array(X)).persist()
    distributed.wait(Z)
    lazy = model.inverse_transform(Z), model.predict_entries(Z, *PLACES)
    factors = Z.compute()
    del Z
    gc.collect()
    assert_array_equal(lazy[0], model.inverse_transform(factors))
    assert_array_equal(lazy[1], model.predict_entries(factors, *PLACES))


@pytest.mark.slow
def test_futures_are_blocks(X, current_client):
    blocks = current_client.map(sparse_block, cut(X))
    assert entries_of(observed(blocks)) == naive_entries(X)


@pytest.mark.slow
def test_entries_are_brought_together_by_workers(X, triplets, current_client):
    table = triplets.assign(column=triplets["column"].map("film {}".format))
    made = from_triplets(lazily(table), "row", "column", "value", n_blocks=4)
    assert entries_of(observed(made.X)) == naive_entries(X)


@pytest.mark.slow
def test_a_fit_runs_on_its_client(X, client):
    def pid():
        import os

        return os.getpid()

    pids = set(client.run(pid).values())
    seen = distributed.Variable("pids", client=client)
    seen.set([])

    def read(block):
        distributed.Variable("pids").set([pid()])
        return block

    model = MaskedGradientMF(3, reg=0.5, client=client)
    model.fit([dask.delayed(read)(part) for part in cut(X)])
    assert set(seen.get()) <= pids
    assert seen.get()


@pytest.mark.slow
def test_the_client_is_shared_by_clones_and_left_out_of_files(X, client):
    model = MaskedGradientMF(3, reg=0.5, max_iter=2, client=client).fit(dense_array(X))
    assert clone(model).client is client
    assert clone(model).get_params() == model.get_params()
    assert not hasattr(clone(model), "components_")
    loaded = pickle.loads(pickle.dumps(model))
    assert loaded.client is None
    assert_array_equal(loaded.components_, model.components_)
    assert not hasattr(model.to_local(), "client")
